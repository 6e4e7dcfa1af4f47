"""The page of invitations, for administrators."""

from uuid import UUID

from flask import abort, request
from flask.typing import ResponseReturnValue

from authapp.accounts.identity import USER, Permission
from authapp.errors import (
    ExceedsOwnPermissions,
    InvalidField,
    SignupClosed,
    UnknownRole,
)
from authapp.web.api.bodies import read_form
from authapp.web.api.invitations import InvitationAnswer, invitation_link
from authapp.web.blueprint import OwnBlueprint
from authapp.web.error_handlers import problem_of
from authapp.web.guards import (
    current_user,
    known_actor,
    permission_required,
    require_step_up,
    services,
)
from authapp.web.pages.forms import InvitationForm, show_errors, text
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import render_page

invitation_pages = OwnBlueprint("invitations", __name__, url_prefix="/admin")


@invitation_pages.get("/invitations")
@permission_required(Permission.USERS_WRITE)
def invitations() -> ResponseReturnValue:
    return _page(InvitationForm())


@invitation_pages.post("/invitations")
@permission_required(Permission.USERS_WRITE)
def invite() -> ResponseReturnValue:
    """Makes an invitation. A link that was not mailed is shown once, in this answer."""
    form = InvitationForm()
    roles = read_form(request).getlist("roles")
    if set(roles) - {USER}:
        require_step_up()
    if not form.validate():
        return _page(form), 400
    try:
        days = form.days.data or 0
        made = services().invitations.create(text(form.email), roles, days, known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _page(form), 400
    except (UnknownRole, SignupClosed, ExceedsOwnPermissions) as error:
        return _page(form, problem=str(error)), problem_of(error).code or 500
    if not made.token:
        return redirect_with("invited", ".invitations")
    return _page(InvitationForm(is_sent=False), link=invitation_link(made.token) or made.token)


@invitation_pages.post("/invitations/<uuid:invitation_id>/revoke")
@permission_required(Permission.USERS_WRITE)
def revoke(invitation_id: UUID) -> ResponseReturnValue:
    if not services().invitations.revoke(invitation_id, known_actor()):
        abort(404)
    return redirect_with("invitation-revoked", ".invitations")


def _page(form: InvitationForm, *, link: str = "", problem: str = "") -> str:
    return render_page(
        "authapp/admin/invitations.html",
        form=form,
        link=link,
        problem=problem,
        invitations=[InvitationAnswer.of(one) for one in services().invitations.newest()],
        roles=[
            role.name
            for role in services().roles.list()
            if current_user.covers(role.name, role.permissions)
        ],
        may_invite=services().invitations.people_may_invite,
    )
