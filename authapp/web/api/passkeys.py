"""The JSON API of passkeys: log-in by one, and one's own. Options and credentials are in the JSON
forms of WebAuthn Level 3."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import msgspec
from flask import Response, request

from authapp import errors
from authapp.authentication.factors.passkeys.json_forms import (
    AuthenticationCredential,
    CreationOptions,
    RegistrationCredential,
    RequestOptions,
)
from authapp.authentication.factors.passkeys.passkeys import HeldPasskey
from authapp.web.api.account import NEW_TOKENS, NameField, field_doc, rotated, session_view
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, Parameter, documents
from authapp.web.api.representations import LoginAnswer, UserView, json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import known_actor, require_live, require_step_up, services
from authapp.web.pages.messages import COOKIE_WILL_BE_DROPPED
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import (
    counted_if_unreadable,
    log_in_visitor_by_passkey,
    will_lose_cookie,
)

PasskeyName = Annotated[
    NameField, field_doc("Empty: that of the authenticator, or of the browser.")
]


class PasskeyLoginBody(msgspec.Struct, forbid_unknown_fields=True):
    credential: AuthenticationCredential
    remember: bool = False


class PasskeyBody(msgspec.Struct, forbid_unknown_fields=True):
    credential: RegistrationCredential
    name: PasskeyName = ""


class PasskeyNameBody(msgspec.Struct, forbid_unknown_fields=True):
    name: NameField


class FactorOptionsBody(msgspec.Struct, forbid_unknown_fields=True):
    login_token: Annotated[str, field_doc("Of the log-in that waits.", maxLength=200)]


class PasskeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A passkey as its person sees it.

    Attributes:
        authenticator: a hint at what keeps it, which nobody proved; empty: unknown.
        synced: it is kept on more than one device.
        counter_fell_at: when a copy of it may have been used; null: never.
    """

    id: UUID
    name: str
    authenticator: str
    created_at: datetime
    last_used_at: datetime | None
    synced: bool
    counter_fell_at: datetime | None

    @classmethod
    def of(cls, held: HeldPasskey) -> Self:
        return cls(
            id=held.id,
            name=held.name,
            authenticator=held.authenticator,
            created_at=held.created_at,
            last_used_at=held.last_used_at,
            synced=held.is_synced,
            counter_fell_at=held.counter_fell_at,
        )


class PasskeyAdded(msgspec.Struct, frozen=True, kw_only=True):
    """A passkey that was added.

    Attributes:
        recovery_codes: made with the first factor of an account; they can't be had again.
    """

    passkey: PasskeyView
    recovery_codes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


passkeys_api = OwnBlueprint("passkeys_api", __name__, url_prefix="/api/v1")


@passkeys_api.post("/passkeys/options")
@documents(
    Operation(
        "Options to log in by a passkey, alike for everybody; they count for five minutes",
        {200: RequestOptions},
        "nobody",
        fails=[errors.PasskeysOff],
    )
)
def log_in_options() -> Response:
    return json_response(services().passkey_login.options())


@passkeys_api.post("/passkeys/login")
@documents(
    Operation(
        "Logs in by a passkey: the session's cookie comes with the answer",
        {200: LoginAnswer},
        "nobody",
        PasskeyLoginBody,
        headers={"Set-Cookie": Parameter("the session's token")},
        fails=[
            errors.InvalidPasskey,
            errors.EmailUnverified,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.PasskeysOff,
        ],
    )
)
def log_in() -> Response:
    with counted_if_unreadable():
        body = read_body(request, PasskeyLoginBody)
    live = log_in_visitor_by_passkey(body.credential, remember=body.remember)
    warning = COOKIE_WILL_BE_DROPPED if will_lose_cookie() else msgspec.UNSET
    return json_response(LoginAnswer(UserView.of(live.record.user), session_view(live), warning))


@passkeys_api.post("/login/factor/options")
@documents(
    Operation(
        "Options to show a passkey as the second factor of a log-in that waits",
        {200: RequestOptions},
        "nobody",
        FactorOptionsBody,
        fails=[errors.LoginExpired, errors.PasskeysOff],
    )
)
def second_factor_options() -> Response:
    body = read_body(request, FactorOptionsBody)
    return json_response(services().passkey_login.second_factor_options(body.login_token))


@passkeys_api.post("/me/confirm/options")
@documents(
    Operation(
        "Options to prove again who one is by a passkey, in this session",
        {200: RequestOptions},
        fails=[errors.PasskeysOff],
    )
)
def confirm_options() -> Response:
    return json_response(services().passkeys.request_options(require_live()))


@passkeys_api.post("/me/passkeys/options")
@documents(
    Operation(
        "Options to make a passkey; the answer counts in this session, for five minutes",
        {200: CreationOptions},
        fails=[errors.StepUpRequired, errors.PasskeysOff],
    )
)
def creation_options() -> Response:
    return json_response(services().passkeys.creation_options(require_step_up()))


@passkeys_api.post("/me/passkeys")
@documents(
    Operation(
        "Adds a passkey: all other sessions end, this one gets a new token",
        {201: PasskeyAdded},
        body=PasskeyBody,
        headers=NEW_TOKENS,
        fails=[errors.StepUpRequired, errors.PasskeyTaken, errors.PasskeysOff],
        changes=True,
    )
)
def add_passkey() -> Response:
    live = require_step_up()
    body = read_body(request, PasskeyBody)
    changed = services().passkeys.enrol(live, body.credential, body.name, known_actor())
    added = auth_session().settle(changed)
    answer = PasskeyAdded(
        passkey=PasskeyView.of(added.passkey),
        recovery_codes=added.recovery_codes or msgspec.UNSET,
    )
    response = json_response(answer, 201)
    response.headers.update(rotated(added.issued))
    return response


@passkeys_api.patch("/me/passkeys/<uuid:passkey_id>")
@documents(
    Operation(
        "Renames one of one's own passkeys",
        {200: PasskeyView},
        body=PasskeyNameBody,
        fails=[errors.StepUpRequired, errors.NoSuchPasskey],
    )
)
def rename_passkey(passkey_id: UUID) -> Response:
    live = require_step_up()
    body = read_body(request, PasskeyNameBody)
    return json_response(PasskeyView.of(services().passkeys.rename(live, passkey_id, body.name)))


@passkeys_api.delete("/me/passkeys/<uuid:passkey_id>")
@documents(
    Operation(
        "Removes one of one's own passkeys: all other sessions end, this one gets a new token",
        {204: None},
        headers=NEW_TOKENS,
        fails=[
            errors.StepUpRequired,
            errors.NoSuchPasskey,
            errors.FactorNeeded,
        ],
        changes=True,
    )
)
def remove_passkey(passkey_id: UUID) -> tuple[str, int, dict[str, str]]:
    live = require_step_up()
    changed = services().passkeys.remove(live, passkey_id, known_actor())
    return "", 204, rotated(auth_session().settle(changed))
