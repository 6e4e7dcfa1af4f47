"""The pages administrators use: users, their roles, activation and sessions; the audit log."""

from uuid import UUID

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug import Response

from authapp.errors import InvalidField, LastAdmin, OwnAccount, UnknownUser
from authapp.identity import Identity, Permission
from authapp.web.audit_question import events_asked_for
from authapp.web.effects import are_pending
from authapp.web.error_handlers import problem_of
from authapp.web.forms import AuditForm, show_errors
from authapp.web.guards import (
    client,
    current_user,
    permission_required,
    require_live,
    services,
)
from authapp.web.messages import HAPPENED
from authapp.web.users_api import search_text

admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.get("/users")
@permission_required(Permission.USERS_READ)
def users() -> ResponseReturnValue:
    search = search_text(request)
    page = services().users.page(request.args.get("cursor"), search=search)
    return render_template(
        "admin/users.html", users=page.users, q=search, next_cursor=page.next_cursor
    )


@admin.get("/users/<uuid:user_id>")
@permission_required(Permission.USERS_READ)
def user(user_id: UUID) -> ResponseReturnValue:
    return _page(_existing(user_id))


@admin.post("/users/<uuid:user_id>/roles")
@permission_required(Permission.ROLES_GRANT)
def set_roles(user_id: UUID) -> ResponseReturnValue:
    actor = require_live().record.user
    try:
        services().users.set_roles(
            user_id, request.form.getlist("roles"), actor.id, client().address
        )
    except (LastAdmin, OwnAccount) as error:
        return _refused(user_id, error)
    return _done(user_id, "roles")


@admin.post("/users/<uuid:user_id>/activate")
@permission_required(Permission.USERS_WRITE)
def activate(user_id: UUID) -> ResponseReturnValue:
    actor = require_live().record.user
    services().authentication.set_active(
        user_id, active=True, actor=actor, address=client().address
    )
    return _done(user_id, "activated")


@admin.post("/users/<uuid:user_id>/deactivate")
@permission_required(Permission.USERS_WRITE)
def deactivate(user_id: UUID) -> ResponseReturnValue:
    actor = require_live().record.user
    try:
        services().authentication.set_active(
            user_id, active=False, actor=actor, address=client().address
        )
    except (LastAdmin, OwnAccount) as error:
        return _refused(user_id, error)
    return _done(user_id, "deactivated")


@admin.post("/users/<uuid:user_id>/end-sessions")
@permission_required(Permission.SESSIONS_END)
def end_sessions(user_id: UUID) -> ResponseReturnValue:
    services().authentication.end_sessions_of(user_id, require_live().record.user, client().address)
    return _done(user_id, "sessions-of-user-ended")


@admin.get("/audit")
@permission_required(Permission.AUDIT_READ)
def audit() -> ResponseReturnValue:
    form = AuditForm()
    try:
        which, about = events_asked_for(form)
        page = services().audit.page(request.args.get("cursor"), which=which)
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_template("admin/audit.html", form=form, entries=[], events=HAPPENED), 400
    asked = {name: value for name, value in form.data.items() if value}
    return render_template(
        "admin/audit.html",
        form=form,
        asked=asked,
        about=about,
        entries=page.entries,
        next_cursor=page.next_cursor,
        events=HAPPENED,
    )


def _existing(user_id: UUID) -> Identity:
    found = services().users.get(user_id)
    if found is None:
        raise UnknownUser
    return found


def _page(person: Identity, problem: str | None = None) -> str:
    return render_template(
        "admin/user.html",
        user=person,
        roles=services().users.roles(),
        sessions=len(services().sessions.of_user(person.id)),
        problem=problem,
    )


def _refused(user_id: UUID, error: LastAdmin | OwnAccount) -> ResponseReturnValue:
    """The page again, with the reason, for those who may see it."""
    if not current_user.can(Permission.USERS_READ):
        raise error
    return _page(_existing(user_id), str(error)), problem_of(error).code or 500


def _done(user_id: UUID, what: str) -> Response:
    within = services().revalidate_seconds if are_pending(request.environ) else None
    return redirect(url_for("admin.user", user_id=user_id, done=what, within=within), 303)
