"""The pages administrators use: users, their activation and sessions; roles; the audit log."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from authapp.accounts.authority.roles import BUILT_IN, MAX_HOLDERS
from authapp.accounts.identity import ADMIN, Identity, Permission
from authapp.cache.changes import Changed
from authapp.errors import (
    BuiltInRole,
    EmailTaken,
    ExceedsOwnPermissions,
    Forbidden,
    InvalidField,
    LastAdmin,
    OwnAccount,
    RoleInUse,
    UnknownUser,
    UserInactive,
    UserInUse,
)
from authapp.web.api.bodies import read_form
from authapp.web.api.representations import SessionView
from authapp.web.api.users import search_text
from authapp.web.blueprint import OwnBlueprint
from authapp.web.error_handlers import problem_of
from authapp.web.guards import (
    current_user,
    known_actor,
    login_url,
    permission_required,
    require_live,
    services,
    step_up_required,
)
from authapp.web.pages.audit_question import events_asked_for
from authapp.web.pages.forms import AuditForm, RoleForm, show_errors, text
from authapp.web.pages.messages import HAPPENED
from authapp.web.pages.notices import redirect_with, say
from authapp.web.pages.rendering import Question, ask, render_page
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import clear_site_data

admin = OwnBlueprint("admin", __name__, url_prefix="/admin")


@admin.get("/users")
@permission_required(Permission.USERS_READ)
def users() -> ResponseReturnValue:
    search = search_text(request)
    page = services().users.page(request.args.get("cursor"), search=search)
    return render_page(
        "authapp/admin/users.html", users=page.users, q=search, next_cursor=page.next_cursor
    )


@admin.get("/users/<uuid:user_id>")
@permission_required(Permission.USERS_READ)
def user(user_id: UUID) -> ResponseReturnValue:
    return _page(_existing(user_id))


@admin.get("/users/<uuid:user_id>/roles")
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def set_roles(user_id: UUID) -> ResponseReturnValue:
    """Shows what a person would gain and lose by the roles in the address."""
    person, chosen = _existing(user_id), request.args.getlist("roles")
    gains = [name for name in chosen if name not in person.roles]
    losses = [name for name in person.roles if name not in chosen]
    told = (("Gains", gains), ("Loses", losses))
    sentences = [f"{verb}: {', '.join(names)}." for verb, names in told if names]
    question = Question(
        heading=f"Set the roles of {_called(person)}?",
        sentences=[*sentences, "It counts at once."] if sentences else ["Nothing would change."],
        button="Set roles",
        action=url_for(".set_roles_submit", user_id=user_id),
        back=url_for(".user", user_id=user_id),
        fields=[("roles", name) for name in chosen],
    )
    return ask(question)


@admin.post("/users/<uuid:user_id>/roles")
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def set_roles_submit(user_id: UUID) -> ResponseReturnValue:
    roles = read_form(request).getlist("roles")

    def change() -> Changed[Identity]:
        return services().administration.set_roles(user_id, roles, known_actor())

    return _answer(user_id, change, "roles")


@admin.post("/users/<uuid:user_id>/activate")
@permission_required(Permission.USERS_WRITE)
def activate(user_id: UUID) -> ResponseReturnValue:
    return _answer(user_id, partial(_set_active, user_id, active=True), "activated")


@admin.get("/users/<uuid:user_id>/deactivate")
@permission_required(Permission.USERS_WRITE)
def deactivate(user_id: UUID) -> ResponseReturnValue:
    person = _existing(user_id)
    question = Question(
        heading=f"Deactivate {_called(person)}?",
        sentences=[
            "They are signed out everywhere at once, and can't log in until they are activated."
        ],
        button="Deactivate and sign out",
        action=url_for(".deactivate_submit", user_id=user_id),
        back=url_for(".user", user_id=user_id),
    )
    return ask(question)


@admin.post("/users/<uuid:user_id>/deactivate")
@permission_required(Permission.USERS_WRITE)
def deactivate_submit(user_id: UUID) -> ResponseReturnValue:
    return _answer(user_id, partial(_set_active, user_id, active=False), "deactivated")


@admin.get("/users/<uuid:user_id>/end-sessions")
@permission_required(Permission.SESSIONS_END)
def end_sessions(user_id: UUID) -> ResponseReturnValue:
    person = _existing(user_id)
    question = Question(
        heading=f"End all sessions of {_called(person)}?",
        sentences=["They are signed out everywhere at once, and can log in again."],
        button="End all sessions",
        action=url_for(".end_sessions_submit", user_id=user_id),
        back=url_for(".user", user_id=user_id),
    )
    return ask(question)


@admin.post("/users/<uuid:user_id>/end-sessions")
@permission_required(Permission.SESSIONS_END)
def end_sessions_submit(user_id: UUID) -> ResponseReturnValue:
    def change() -> Changed[int]:
        return services().administration.end_sessions_of(user_id, known_actor())

    return _answer(user_id, change, "sessions-of-user-ended")


@admin.post("/users/<uuid:user_id>/email")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def set_email(user_id: UUID) -> ResponseReturnValue:
    email = (read_form(request).get("email") or "").strip()

    def change() -> Changed[Identity]:
        changes = services().email_changes
        return changes.set_email(user_id, email, verified=False, actor=known_actor())

    return _answer(user_id, change, "email-set")


@admin.get("/users/<uuid:user_id>/delete")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def delete_user(user_id: UUID) -> ResponseReturnValue:
    return _delete_page(user_id)


@admin.post("/users/<uuid:user_id>/delete")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def delete_user_submit(user_id: UUID) -> ResponseReturnValue:
    try:
        auth_session().settle(services().administration.delete_user(user_id, known_actor()))
    except (LastAdmin, OwnAccount, ExceedsOwnPermissions, UserInUse) as error:
        return _delete_page(user_id, str(error)), problem_of(error).code or 500
    may_read = current_user.can(Permission.USERS_READ)
    return redirect_with("user-deleted", ".users" if may_read else "authapp.pages.account")


def _delete_page(user_id: UUID, problem: str | None = None) -> str:
    question = Question(
        heading=f"Delete the account of {_called(_existing(user_id))}?",
        sentences=[
            "It is gone at once, for good, with its profile, its roles and all its sessions. "
            "Its email is free. The person is told by mail, where mail is set up.",
            "The log keeps what happened, without name and email.",
        ],
        button="Delete the account",
        action=url_for(".delete_user_submit", user_id=user_id),
        back=url_for(".user", user_id=user_id),
    )
    return ask(question, problem)


@admin.post("/users/<uuid:user_id>/reset")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def start_reset(user_id: UUID) -> ResponseReturnValue:
    def mail() -> Changed[None]:
        services().reset_links.mail_for(user_id, known_actor())
        return Changed(None, everywhere=True)

    return _answer(user_id, mail, "reset-mailed")


@admin.post("/sessions/<uuid:session_id>/end")
@permission_required(Permission.SESSIONS_END)
def end_session(session_id: UUID) -> ResponseReturnValue:
    owner = services().sessions.owner_of(session_id)
    if owner is None:
        raise NotFound("There is no such session.")

    def change() -> Changed[bool]:
        return services().administration.end_session(session_id, known_actor())

    return _answer(owner, change, "session-ended")


@admin.get("/sessions/end-all")
@permission_required(Permission.SESSIONS_END)
@step_up_required
def end_all_sessions() -> ResponseReturnValue:
    if not current_user.covers(ADMIN, ()):
        raise Forbidden
    question = Question(
        heading="Sign everybody out?",
        sentences=[
            "This ends the sessions of all people on all devices and of all programs, yours too. "
            "Everybody can log in again, and is told why.",
            "It is meant for after an incident. To sign out one person, open their page.",
        ],
        button="Sign everybody out",
        action=url_for(".end_all_sessions_submit"),
        back=url_for(".users"),
    )
    return ask(question)


@admin.post("/sessions/end-all")
@permission_required(Permission.SESSIONS_END)
@step_up_required
def end_all_sessions_submit() -> ResponseReturnValue:
    auth_session().settle(services().administration.end_sessions_of_everybody(known_actor()))
    auth_session().forget()
    say("everybody-signed-out")
    response = redirect(login_url() or "/", 303)
    response.headers.update(clear_site_data())
    return response


@admin.get("/roles")
@permission_required(Permission.ROLES_GRANT)
def roles() -> ResponseReturnValue:
    return _roles_page(RoleForm())


@admin.post("/roles")
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def roles_submit() -> ResponseReturnValue:
    form = RoleForm()
    if not form.validate():
        return _roles_page(form), 400
    try:
        services().roles.create(text(form.name), form.permissions.data or [], known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _roles_page(form), 400
    return redirect_with("role-created", ".roles")


@admin.get("/roles/<name>/delete")
@permission_required(Permission.ROLES_GRANT)
def delete_role(name: str) -> ResponseReturnValue:
    return _delete_role_page(name)


@admin.post("/roles/<name>/delete")
@permission_required(Permission.ROLES_GRANT)
def delete_role_submit(name: str) -> ResponseReturnValue:
    try:
        auth_session().settle(services().roles.delete(name, known_actor()))
    except (BuiltInRole, RoleInUse, OwnAccount, ExceedsOwnPermissions) as error:
        return _delete_role_page(name, str(error)), problem_of(error).code or 500
    return redirect_with("role-deleted", ".roles")


@admin.get("/audit")
@permission_required(Permission.AUDIT_READ)
def audit() -> ResponseReturnValue:
    form = AuditForm()
    if not current_user.can(Permission.USERS_READ):
        form.user.description = "The id of a person."
    try:
        which, about = events_asked_for(form)
        page = services().audit.page(request.args.get("cursor"), which=which)
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/admin/audit.html", form=form, entries=[], events=HAPPENED), 400
    asked = {name: value for name, value in form.data.items() if value}
    return render_page(
        "authapp/admin/audit.html",
        form=form,
        asked=asked,
        about=about,
        entries=page.entries,
        next_cursor=page.next_cursor,
        events=HAPPENED,
    )


def _roles_page(form: RoleForm) -> str:
    return render_page(
        "authapp/admin/roles.html",
        form=form,
        roles=services().roles.list(),
        built_in=BUILT_IN,
        permissions={
            name: description
            for name, description in services().roles.permissions.items()
            if current_user.covers("", [name])
        },
    )


def _delete_role_page(name: str, problem: str | None = None) -> str:
    holders = services().roles.holders(name)
    question = Question(
        heading=f"Delete the role {name}?",
        sentences=[_holding(holders)],
        button="Delete the role",
        action=url_for(".delete_role_submit", name=name),
        back=url_for(".roles"),
    )
    return ask(question, problem)


def _holding(holders: int) -> str:
    if holders > MAX_HOLDERS:
        most = f"{MAX_HOLDERS:,}"
        return f"More than {most} people hold it: an operator can delete it at the command line."
    if not holders:
        return "Nobody holds it."
    people = "1 person holds" if holders == 1 else f"{holders} people hold"
    return f"{people} it, and will lose what it allows at once."


def _called(person: Identity) -> str:
    """The name of a person, for those who may read it."""
    if not current_user.can(Permission.USERS_READ):
        return "this person"
    return person.name or person.email


def _existing(user_id: UUID) -> Identity:
    found = services().users.get(user_id)
    if found is None:
        raise UnknownUser
    return found


def _set_active(user_id: UUID, *, active: bool) -> Changed[Identity]:
    return services().administration.set_active(user_id, active=active, actor=known_actor())


def _page(person: Identity, problem: str | None = None) -> str:
    covered = [
        role for role in services().roles.list() if current_user.covers(role.name, role.permissions)
    ]
    return render_page(
        "authapp/admin/user.html",
        user=person,
        roles=covered,
        may_do_more=not {role.name for role in covered}.issuperset(person.roles),
        sessions=[
            SessionView.of(session, current=require_live().record.id)
            for session in services().sessions.of_user(person.id)
        ],
        problem=problem,
    )


def _answer(user_id: UUID, change: Callable[[], Changed[object]], what: str) -> ResponseReturnValue:
    """Make a change of a user and lead back to their page, which says that it was done."""
    try:
        auth_session().settle(change())
    except (LastAdmin, OwnAccount, ExceedsOwnPermissions, UserInactive, EmailTaken) as error:
        if not current_user.can(Permission.USERS_READ):
            raise
        return _page(_existing(user_id), str(error)), problem_of(error).code or 500
    return redirect_with(what, ".user", user_id=user_id)
