"""The pages administrators use: users, their activation and sessions; roles; the audit log."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from flask import request
from flask.typing import ResponseReturnValue

from authapp.accounts.identity import Identity, Permission
from authapp.accounts.roles import BUILT_IN, MAX_HOLDERS
from authapp.cache.changes import Changed
from authapp.errors import (
    BuiltInRole,
    ExceedsOwnPermissions,
    InvalidField,
    LastAdmin,
    OwnAccount,
    RoleInUse,
    UnknownUser,
)
from authapp.web.api.bodies import read_form
from authapp.web.api.users import search_text
from authapp.web.blueprint import OwnBlueprint
from authapp.web.error_handlers import problem_of
from authapp.web.guards import (
    current_user,
    known_actor,
    permission_required,
    services,
    step_up_required,
)
from authapp.web.pages.audit_question import events_asked_for
from authapp.web.pages.forms import AuditForm, RoleForm, show_errors, text
from authapp.web.pages.messages import HAPPENED
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import render_page
from authapp.web.session.auth_session import auth_session

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


@admin.post("/users/<uuid:user_id>/roles")
@permission_required(Permission.ROLES_GRANT)
@step_up_required
def set_roles(user_id: UUID) -> ResponseReturnValue:
    roles = read_form(request).getlist("roles")

    def change() -> Changed[Identity]:
        return services().administration.set_roles(user_id, roles, known_actor())

    return _answer(user_id, change, "roles")


@admin.post("/users/<uuid:user_id>/activate")
@permission_required(Permission.USERS_WRITE)
def activate(user_id: UUID) -> ResponseReturnValue:
    return _answer(user_id, partial(_set_active, user_id, active=True), "activated")


@admin.post("/users/<uuid:user_id>/deactivate")
@permission_required(Permission.USERS_WRITE)
def deactivate(user_id: UUID) -> ResponseReturnValue:
    return _answer(user_id, partial(_set_active, user_id, active=False), "deactivated")


@admin.post("/users/<uuid:user_id>/end-sessions")
@permission_required(Permission.SESSIONS_END)
def end_sessions(user_id: UUID) -> ResponseReturnValue:
    def change() -> Changed[int]:
        return services().administration.end_sessions_of(user_id, known_actor())

    return _answer(user_id, change, "sessions-of-user-ended")


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
    return render_page(
        "authapp/admin/role_delete.html",
        name=name,
        holders=services().roles.holders(name),
        most=MAX_HOLDERS,
        problem=problem,
    )


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
        sessions=len(services().sessions.of_user(person.id)),
        problem=problem,
    )


def _answer(user_id: UUID, change: Callable[[], Changed[object]], what: str) -> ResponseReturnValue:
    """Make a change of a user and lead back to their page, which says that it was done."""
    try:
        auth_session().settle(change())
    except (LastAdmin, OwnAccount, ExceedsOwnPermissions) as error:
        if not current_user.can(Permission.USERS_READ):
            raise
        return _page(_existing(user_id), str(error)), problem_of(error).code or 500
    return redirect_with(what, ".user", user_id=user_id)
