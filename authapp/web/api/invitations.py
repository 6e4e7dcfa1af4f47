"""The JSON API of invitations, for administrators: `/api/v1/invitations`."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import msgspec
from flask import Response, request, url_for
from werkzeug.exceptions import NotFound

from authapp.accounts.identity import USER, Permission
from authapp.accounts.invitations import DEFAULT_DAYS, MAX_DAYS, InvitationView
from authapp.errors import ExceedsOwnPermissions, SignupClosed, UnknownRole, UnknownUser
from authapp.web.api.account import field_doc
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, documents
from authapp.web.api.representations import json_response
from authapp.web.app_state import BLUEPRINT, state_of
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    current_user,
    known_actor,
    permission_required,
    require_step_up,
    services,
)


def invitation_link(token: str) -> str | None:
    """The page of an invitation that was made just now; None where the app mounts no pages.

    Without PUBLIC_URL the link leads to the host that was asked. It is shown to the person who
    asked that host, and is never mailed.
    """
    if not state_of().mount.pages:
        return None
    link = services().public_link(f"/signup/{token}")
    if link.startswith("/"):
        return url_for(f"{BLUEPRINT}.signup.invited", invitation=token, _external=True)
    return link


class InvitationBody(msgspec.Struct, forbid_unknown_fields=True):
    email: Annotated[str, field_doc("The only one that may use it; empty: any.")] = ""
    roles: Annotated[list[str], field_doc("Those the new person gets; none: `user`.")] = []
    # to JSON Schema, 7 and 7.0 are the same whole number
    days: Annotated[
        float, field_doc("How long it counts.", multipleOf=1, minimum=1, maximum=MAX_DAYS)
    ] = DEFAULT_DAYS


class InvitationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation.

    Attributes:
        token: with `link`, told once, to the caller who made it, where it was not mailed.
    """

    id: UUID
    email: str
    roles: tuple[str, ...]
    mailed: bool
    invited_by: UUID | None
    created_at: datetime
    expires_at: datetime
    state: str
    token: str | msgspec.UnsetType = msgspec.UNSET
    link: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, made: InvitationView, token: str = "") -> Self:
        """As far as the visitor may see it: emails of others are for readers of users."""
        may_read = made.invited_by == current_user.id or current_user.can(Permission.USERS_READ)
        link = invitation_link(token) if token else None
        return cls(
            id=made.id,
            email=made.email if may_read else "",
            roles=made.roles,
            mailed=made.mailed,
            invited_by=made.invited_by,
            created_at=made.created_at,
            expires_at=made.expires_at,
            state=made.state,
            token=token or msgspec.UNSET,
            link=link or msgspec.UNSET,
        )


class InvitationList(msgspec.Struct, frozen=True):
    """The newest invitations."""

    invitations: list[InvitationAnswer]


invitations_api = OwnBlueprint("invitations_api", __name__, url_prefix="/api/v1")


@invitations_api.get("/invitations")
@documents(Operation("The newest invitations", {200: InvitationList}, "permission"))
@permission_required(Permission.USERS_WRITE)
def invitations() -> Response:
    found = services().invitations.newest()
    return json_response(InvitationList([InvitationAnswer.of(one) for one in found]))


@invitations_api.post("/invitations")
@documents(
    Operation(
        "Invites a person to sign up, once. The roles allow nothing that one may not do oneself. "
        "For an address it is mailed; else, and without mail, the answer holds the link, once",
        {201: InvitationAnswer},
        "permission",
        InvitationBody,
        fails=[UnknownRole, SignupClosed, ExceedsOwnPermissions],
    )
)
@permission_required(Permission.USERS_WRITE)
def create_invitation() -> Response:
    body = read_body(request, InvitationBody)
    if set(body.roles) - {USER}:
        require_step_up()
    days = int(body.days) if body.days % 1 == 0 else 0  # which is refused
    made = services().invitations.create(body.email, body.roles, days, known_actor())
    return json_response(InvitationAnswer.of(made.invitation, made.token), 201)


@invitations_api.delete("/invitations/<uuid:invitation_id>")
@documents(
    Operation(
        "Makes an open invitation void",
        {204: None},
        "permission",
        fails=[UnknownUser],
    )
)
@permission_required(Permission.USERS_WRITE)
def revoke_invitation(invitation_id: UUID) -> tuple[str, int]:
    if not services().invitations.revoke(invitation_id, known_actor()):
        raise NotFound("There is no such open invitation.")
    return "", 204
