"""The JSON API for second factors: the second half of a log-in, and one's own factors."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

import msgspec
from flask import Response, request

from authapp import errors
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.holdings import Holdings
from authapp.authentication.factors.passkeys.json_forms import AuthenticationCredential
from authapp.authentication.factors.passkeys.passkeys import HeldPasskey
from authapp.authentication.factors.set_up import ProposedSecret
from authapp.sessions.records import IssuedTokens
from authapp.web.api.account import NEW_TOKENS, field_doc, or_none, rotated, session_view
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, documents
from authapp.web.api.passkeys import PasskeyView
from authapp.web.api.representations import LoginAnswer, TokenAnswer, UserView, json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    known_actor,
    require_live,
    require_step_up,
    services,
    step_up_required,
    unknown_actor,
)
from authapp.web.rate_limits import rate_limit_of_errors
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import complete_login

MethodField = Literal["totp", "recovery_code", "passkey"]
CodeField = Annotated[str, field_doc("Six digits of the app, or a recovery code.", maxLength=64)]


class LoginFactorBody(msgspec.Struct, forbid_unknown_fields=True):
    """A login token with a code, or with what a passkey signed."""

    login_token: str
    method: MethodField
    code: CodeField | msgspec.UnsetType = msgspec.UNSET
    credential: AuthenticationCredential | msgspec.UnsetType = msgspec.UNSET
    remember_browser: bool = False


class SetUpBody(msgspec.Struct, forbid_unknown_fields=True):
    login_token: str


class CodeBody(msgspec.Struct, forbid_unknown_fields=True):
    code: CodeField


class SecretView(msgspec.Struct, frozen=True):
    """A secret for an authenticator app, as text and as the app reads it from a QR code."""

    secret: str
    otpauth_uri: str

    @classmethod
    def of(cls, proposed: ProposedSecret) -> Self:
        return cls(proposed.secret, proposed.otpauth_uri)


class FactorsView(msgspec.Struct, frozen=True, kw_only=True):
    """The factors of an account.

    Attributes:
        totp_since: when the app was set up.
    """

    password: bool
    totp: bool
    totp_since: datetime | None
    recovery_codes_left: int
    passkeys: list[PasskeyView]

    @classmethod
    def of(cls, held: Holdings, passkeys: Sequence[HeldPasskey]) -> Self:
        return cls(
            passkeys=[PasskeyView.of(passkey) for passkey in passkeys],
            password=held.has_password,
            totp=held.totp_since is not None,
            totp_since=held.totp_since,
            recovery_codes_left=held.recovery_codes_left,
        )


class RecoveryCodesView(msgspec.Struct, frozen=True):
    """Recovery codes, shown this once."""

    recovery_codes: list[str]


factors_api = OwnBlueprint("factors_api", __name__, url_prefix="/api/v1")


@factors_api.post("/login/factor")
@documents(
    Operation(
        "Completes a log-in by a second factor: as `/login`, or as `/tokens` where that began it",
        {200: (LoginAnswer, TokenAnswer)},
        "nobody",
        LoginFactorBody,
        fails=[
            errors.InvalidFactor,
            errors.LoginExpired,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.FactorsOff,
            errors.PasskeysOff,
        ],
    )
)
def login_factor() -> Response:
    body = read_body(request, LoginFactorBody)
    code, credential = or_none(body.code), or_none(body.credential)
    needed = "credential" if body.method == "passkey" else "code"
    if (credential if needed == "credential" else code) is None:
        raise errors.InvalidField({needed: f"this field is required with {body.method}"})
    shown = ShownFactor(body.method, code or "", credential)
    completed = complete_login(body.login_token, shown, is_trusted=body.remember_browser)
    codes = list(completed.recovery_codes) or msgspec.UNSET
    if isinstance(completed.issued, IssuedTokens):
        return json_response(TokenAnswer.of(completed.issued, codes))
    live = completed.issued.session
    view = UserView.of(live.record.user)
    return json_response(LoginAnswer(view, session_view(live), recovery_codes=codes))


@factors_api.post("/login/factor/totp")
@documents(
    Operation(
        "A secret for an authenticator app, for a log-in whose answer said `enrols`. "
        "`/login/factor` takes a code of it",
        {200: SecretView},
        "nobody",
        SetUpBody,
        fails=[
            errors.LoginExpired,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.FactorsOff,
        ],
    )
)
def set_up_at_login() -> Response:
    body = read_body(request, SetUpBody)
    with rate_limit_of_errors():
        proposed = services().factor_login.begin_set_up(body.login_token, unknown_actor())
    return json_response(SecretView.of(proposed))


@factors_api.get("/me/factors")
@documents(Operation("One's own factors", {200: FactorsView}))
def my_factors() -> Response:
    user_id = require_live().record.user.id
    held = services().factors.of(user_id)
    return json_response(FactorsView.of(held, services().passkeys.of(user_id)))


@factors_api.post("/me/factors/totp")
@documents(
    Operation(
        "A secret for an authenticator app, which counts once it is confirmed by a code",
        {200: SecretView},
        fails=[errors.StepUpRequired, errors.FactorsOff],
    )
)
def set_up_totp() -> Response:
    return json_response(SecretView.of(services().factors.propose_totp(require_step_up())))


@factors_api.post("/me/factors/totp/confirm")
@documents(
    Operation(
        "Lets the secret count: all other sessions end, this one gets a new token. Recovery codes "
        "come with the first factor",
        {200: RecoveryCodesView, 204: None},
        body=CodeBody,
        headers=NEW_TOKENS,
        fails=[errors.StepUpRequired, errors.FactorsOff],
        changes=True,
    )
)
def confirm_totp() -> Response:
    live = require_step_up()
    body = read_body(request, CodeBody)
    changed = services().factors.confirm_totp(live, body.code, known_actor())
    added = auth_session().settle(changed)
    if added.recovery_codes:
        answer = json_response(RecoveryCodesView(list(added.recovery_codes)))
    else:
        answer = Response(status=204)
    answer.headers.update(rotated(added.issued))
    return answer


@factors_api.delete("/me/factors/totp")
@documents(
    Operation(
        "Removes the authenticator app: all other sessions end, this one gets a new token",
        {204: None},
        headers=NEW_TOKENS,
        fails=[errors.StepUpRequired, errors.NoFactor, errors.FactorNeeded],
        changes=True,
    )
)
def remove_totp() -> tuple[str, int, dict[str, str]]:
    changed = services().factors.remove_totp(require_step_up(), known_actor())
    return "", 204, rotated(auth_session().settle(changed))


@factors_api.delete("/me/password")
@documents(
    Operation(
        "Removes one's password, for people with two passkeys, or one and recovery codes: all "
        "other sessions end, this one gets a new token",
        {204: None},
        headers=NEW_TOKENS,
        fails=[errors.StepUpRequired, errors.NoFactor, errors.FactorNeeded, errors.PasskeysOff],
        changes=True,
    )
)
def remove_password() -> tuple[str, int, dict[str, str]]:
    changed = services().passwordless.remove_password(require_step_up(), known_actor())
    return "", 204, rotated(auth_session().settle(changed))


@factors_api.post("/me/factors/recovery-codes")
@documents(
    Operation(
        "New recovery codes; the ones before count no more",
        {200: RecoveryCodesView},
        fails=[errors.StepUpRequired, errors.NoFactor],
    )
)
@step_up_required
def make_recovery_codes() -> Response:
    changed = services().factors.make_recovery_codes(require_live(), known_actor())
    return json_response(RecoveryCodesView(auth_session().settle(changed)))
