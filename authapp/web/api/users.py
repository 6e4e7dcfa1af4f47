"""The JSON API about users and roles, for administrators: `/api/v1/users`, `/api/v1/roles`."""

from uuid import UUID

import msgspec
from flask import Request, Response, request

from authapp.accounts.identity import Permission
from authapp.accounts.visible_text import is_printed
from authapp.errors import (
    BuiltInRole,
    CrossOrigin,
    EmailTaken,
    ExceedsOwnPermissions,
    FactorNeeded,
    Forbidden,
    InvalidField,
    LastAdmin,
    MailOff,
    NoFactor,
    NoSuchRole,
    OwnAccount,
    RoleInUse,
    StepUpRequired,
    TooManyAttempts,
    UnknownRole,
    UnknownUser,
    UserInactive,
    UserInUse,
)
from authapp.web.api.account import ProfileBody, or_none
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, Parameter, documents
from authapp.web.api.leaving import EmailBody
from authapp.web.api.representations import (
    AccountView,
    MailAnswer,
    RoleList,
    RoleView,
    UserList,
    UserView,
    json_response,
    view_for,
)
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    known_actor,
    permission_required,
    require_live,
    require_permission,
    services,
    step_up_required,
)
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import clear_site_data

MAX_PAGE = 200  # users


class UserBody(ProfileBody, forbid_unknown_fields=True):
    active: bool | msgspec.UnsetType = msgspec.UNSET


class RolesBody(msgspec.Struct, forbid_unknown_fields=True):
    roles: list[str]


class RoleBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    permissions: list[str]


users_api = OwnBlueprint("users_api", __name__, url_prefix="/api/v1")


@users_api.get("/users/<uuid:user_id>")
@documents(
    Operation(
        "A user: oneself, or anybody with the permission users:read",
        {200: UserView},
        fails=[Forbidden, UnknownUser],
        headers={"X-Cache": Parameter("whether a copy told", {"enum": ["hit", "miss"]})},
    )
)
def user(user_id: UUID) -> Response:
    person = require_live().record.user
    if user_id != person.id:
        require_permission(Permission.USERS_READ)
    found, hit = services().users.look_up(user_id)
    if found is None:
        raise UnknownUser
    response = json_response(UserView.of(found))
    response.headers["X-Cache"] = "hit" if hit else "miss"
    return response


@users_api.get("/users")
@documents(
    Operation(
        "Users, newest first",
        {200: UserList},
        "permission",
        query={
            "cursor": Parameter("next_cursor of the part before"),
            "limit": Parameter(
                "how many", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 50}
            ),
            "q": Parameter("part of the email or name"),
        },
        fails=[InvalidField],
    )
)
@permission_required(Permission.USERS_READ)
def users() -> Response:
    page = services().users.page(
        request.args.get("cursor"), limit=_limit(), search=search_text(request)
    )
    return json_response(UserList([UserView.of(u) for u in page.users], page.next_cursor))


@users_api.patch("/users/<uuid:user_id>")
@documents(
    Operation(
        "Changes a user; what is left out stays. A deactivated one's sessions end. Nobody "
        "deactivates themselves, nor changes a person with permissions that they lack",
        {200: (UserView, AccountView)},
        "permission",
        UserBody,
        fails=[UnknownUser, LastAdmin, OwnAccount, ExceedsOwnPermissions],
        changes=True,
    )
)
@permission_required(Permission.USERS_WRITE)
def update_user(user_id: UUID) -> Response:
    body = read_body(request, UserBody)
    changed = services().administration.update_user(
        user_id,
        or_none(body.name),
        or_none(body.image),
        active=or_none(body.active),
        actor=known_actor(),
    )
    return json_response(view_for(require_live().record.user, auth_session().settle(changed)))


@users_api.put("/users/<uuid:user_id>/roles")
@documents(
    Operation(
        "Gives a user exactly these roles. Nobody changes their own, nor gives or takes a role, or "
        "changes a person, with permissions that they lack",
        {200: (UserView, AccountView)},
        "permission",
        RolesBody,
        fails=[
            UnknownUser,
            UnknownRole,
            LastAdmin,
            OwnAccount,
            ExceedsOwnPermissions,
            StepUpRequired,
        ],
        changes=True,
    )
)
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def set_roles(user_id: UUID) -> Response:
    body = read_body(request, RolesBody)
    changed = services().administration.set_roles(user_id, body.roles, known_actor())
    return json_response(view_for(require_live().record.user, auth_session().settle(changed)))


@users_api.delete("/users/<uuid:user_id>/sessions")
@documents(
    Operation(
        "Ends all sessions of a user, who has no permission that one lacks",
        {204: None},
        "permission",
        fails=[UnknownUser, ExceedsOwnPermissions],
        changes=True,
    )
)
@permission_required(Permission.SESSIONS_END)
def end_sessions_of(user_id: UUID) -> tuple[str, int]:
    ended = services().administration.end_sessions_of(user_id, known_actor())
    auth_session().settle(ended)
    return "", 204


@users_api.delete("/users/<uuid:user_id>")
@documents(
    Operation(
        "Deletes a user, who has no permission that one lacks, with all that belongs to them",
        {204: None},
        "permission",
        fails=[
            UnknownUser,
            LastAdmin,
            UserInUse,
            OwnAccount,
            ExceedsOwnPermissions,
            StepUpRequired,
        ],
        changes=True,
    )
)
@permission_required(Permission.USERS_WRITE)
@step_up_required
def delete_user(user_id: UUID) -> tuple[str, int]:
    auth_session().settle(services().administration.delete_user(user_id, known_actor()))
    return "", 204


@users_api.delete("/users/<uuid:user_id>/factors")
@documents(
    Operation(
        "Removes the second factors of a user who lost them, and has no permission that one lacks: "
        "all their sessions end, and they are told by mail. Without a password they are mailed a "
        "link to set one",
        {204: None},
        "permission",
        fails=[
            UnknownUser,
            NoFactor,
            FactorNeeded,
            OwnAccount,
            ExceedsOwnPermissions,
            StepUpRequired,
            TooManyAttempts,
        ],
        changes=True,
    )
)
@permission_required(Permission.USERS_WRITE)
@step_up_required
def reset_factors(user_id: UUID) -> tuple[str, int]:
    auth_session().settle(services().factors.reset(user_id, known_actor()))
    return "", 204


@users_api.put("/users/<uuid:user_id>/email")
@documents(
    Operation(
        "Gives a user, who has no permission that one lacks, another email, which is unverified. "
        "All their sessions end, and the old email is told and can undo it",
        {200: (UserView, AccountView)},
        "permission",
        EmailBody,
        fails=[
            UnknownUser,
            EmailTaken,
            ExceedsOwnPermissions,
            StepUpRequired,
            TooManyAttempts,
        ],
        changes=True,
    )
)
@permission_required(Permission.USERS_WRITE)
@step_up_required
def set_email(user_id: UUID) -> Response:
    body = read_body(request, EmailBody)
    changed = services().email_changes.set_email(
        user_id, body.email, verified=False, actor=known_actor()
    )
    return json_response(view_for(require_live().record.user, auth_session().settle(changed)))


@users_api.post("/users/<uuid:user_id>/reset")
@documents(
    Operation(
        "Mails a user a link to a new password. Nothing else changes until it is used, and nobody "
        "but the user sees it",
        {202: MailAnswer},
        "permission",
        fails=[
            CrossOrigin,
            ExceedsOwnPermissions,
            MailOff,
            StepUpRequired,
            TooManyAttempts,
            UnknownUser,
            UserInactive,
        ],
    )
)
@permission_required(Permission.USERS_WRITE)
@step_up_required
def start_reset(user_id: UUID) -> Response:
    services().reset_links.mail_for(user_id, known_actor())
    return json_response(MailAnswer("mailed"), 202)


@users_api.delete("/sessions")
@documents(
    Operation(
        "Ends the sessions of everybody, one's own too, for administrators",
        {204: None},
        "permission",
        fails=[ExceedsOwnPermissions, StepUpRequired],
        changes=True,
    )
)
@permission_required(Permission.SESSIONS_END)
@step_up_required
def end_sessions_of_everybody() -> tuple[str, int, dict[str, str]]:
    auth_session().settle(services().administration.end_sessions_of_everybody(known_actor()))
    auth_session().forget()
    return "", 204, clear_site_data()


@users_api.get("/roles")
@documents(Operation("The roles there are, and what they allow", {200: RoleList}, "permission"))
@permission_required(Permission.USERS_READ)
def roles() -> Response:
    found = services().roles.list()
    return json_response(RoleList([RoleView.of(role) for role in found]))


@users_api.post("/roles")
@documents(
    Operation(
        "Adds a role, which allows nothing that one may not do oneself",
        {201: RoleView},
        "permission",
        RoleBody,
        fails=[ExceedsOwnPermissions, StepUpRequired],
    )
)
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def create_role() -> Response:
    body = read_body(request, RoleBody)
    role = services().roles.create(body.name, body.permissions, known_actor())
    return json_response(RoleView.of(role), 201)


@users_api.delete("/roles/<role_name>")
@documents(
    Operation(
        "Deletes a role, and takes it from all who hold it. The role, and all these people, may do "
        "nothing that one may not do oneself; admin and user stay",
        {204: None},
        "permission",
        fails=[NoSuchRole, BuiltInRole, RoleInUse, OwnAccount, ExceedsOwnPermissions],
        changes=True,
    )
)
@permission_required(Permission.ROLES_GRANT)
def delete_role(role_name: str) -> tuple[str, int]:
    auth_session().settle(services().roles.delete(role_name, known_actor()))
    return "", 204


def search_text(request: Request) -> str:
    """The search text `q`, without characters that no name or email holds."""
    return "".join(c for c in request.args.get("q", "")[:200] if is_printed(c))


def _limit() -> int:
    text = request.args.get("limit", "50")
    # short first: Python refuses to read thousands of digits, by a ValueError
    short = text.isascii() and text.isdecimal() and len(text) <= 3
    if not short or not 1 <= int(text) <= MAX_PAGE:
        raise InvalidField({"limit": f"use a whole number from 1 to {MAX_PAGE}"})
    return int(text)
