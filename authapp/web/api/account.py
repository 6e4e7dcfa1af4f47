"""The JSON API, `/api/v1`."""

from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from flask import Response, request
from werkzeug.exceptions import NotFound

from authapp import errors
from authapp.accounts.profiles import MAX_IMAGE, MAX_NAME
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.holdings import Method
from authapp.authentication.factors.passkeys.json_forms import AuthenticationCredential
from authapp.passwords.policy import MAX_CODE_POINTS
from authapp.sessions.records import (
    ActiveSession,
    EndReason,
    IssuedLogin,
    IssuedTokens,
    SessionSummary,
)
from authapp.web.api.bodies import read_body
from authapp.web.api.description import NEW_PASSWORD, Operation, Parameter, documents
from authapp.web.api.representations import (
    LoginAnswer,
    MeView,
    SessionList,
    SessionView,
    TokenAnswer,
    UserView,
    json_response,
)
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    known_actor,
    require_live,
    require_step_up,
    services,
    step_up_required,
    unknown_actor,
)
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.messages import COOKIE_WILL_BE_DROPPED, TOO_SHORT_NOW
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import (
    clear_site_data,
    counted_if_unreadable,
    devices,
    log_in_visitor,
    log_out_visitor,
    will_lose_cookie,
)


def field_doc(text: str, **schema: object) -> msgspec.Meta:
    """Document a field of a body. Nothing here validates: the use case refuses a value that does
    not fit `schema`, with a reason for people."""
    return msgspec.Meta(description=text, extra_json_schema=schema)


EmailField = Annotated[str, field_doc("Upper and lower case are one.", format="email")]
NewPassword = Annotated[
    str,
    field_doc(
        "A few unrelated words do well. The first ones that attackers try are refused.",
        maxLength=MAX_CODE_POINTS,
        format=NEW_PASSWORD,
    ),
]
NameField = Annotated[str, field_doc("Letters that can be shown.", maxLength=MAX_NAME)]
ImageField = Annotated[str, field_doc("An https link to a picture, or empty.", maxLength=MAX_IMAGE)]


class LoginBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField
    password: str
    remember: bool = False


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField
    password: str
    refresh: bool = False


class RefreshBody(msgspec.Struct, forbid_unknown_fields=True):
    refresh_token: str


class ProfileBody(msgspec.Struct, forbid_unknown_fields=True):
    name: NameField | msgspec.UnsetType = msgspec.UNSET
    image: ImageField | msgspec.UnsetType = msgspec.UNSET


class ConfirmBody(msgspec.Struct, forbid_unknown_fields=True):
    password: str | msgspec.UnsetType = msgspec.UNSET
    method: Literal["totp", "recovery_code", "passkey"] | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    credential: AuthenticationCredential | msgspec.UnsetType = msgspec.UNSET


class PasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    new_password: NewPassword
    current_password: Annotated[str, field_doc("Left out where there is no password yet.")] | (
        msgspec.UnsetType
    ) = msgspec.UNSET


T = TypeVar("T")


def or_none(value: T | msgspec.UnsetType) -> T | None:
    """The value of an optional field; None where the body has no such field."""
    return None if value is msgspec.UNSET else value


api = OwnBlueprint("api", __name__, url_prefix="/api/v1")


@api.post("/login")
@documents(
    Operation(
        "Logs in: the session's cookie comes with the answer",
        {200: LoginAnswer},
        "nobody",
        LoginBody,
        headers={"Set-Cookie": Parameter("the session's token")},
        fails=[
            errors.InvalidCredentials,
            errors.PasswordChangeRequired,
            errors.EmailUnverified,
            errors.SecondFactorRequired,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.Busy,
        ],
    )
)
def login() -> Response:
    with counted_if_unreadable():
        body = read_body(request, LoginBody)
    live = log_in_visitor(body.email, body.password, remember=body.remember)
    warning = COOKIE_WILL_BE_DROPPED if will_lose_cookie() else msgspec.UNSET
    is_short = services().password_policy.is_short(body.password)
    advice = TOO_SHORT_NOW if is_short else msgspec.UNSET
    return json_response(
        LoginAnswer(UserView.of(live.record.user), session_view(live), warning, advice)
    )


@api.post("/tokens")
@documents(
    Operation(
        "Logs a program in: an access token, and with `refresh` one to renew it with",
        {200: TokenAnswer},
        "nobody",
        TokenBody,
        fails=[
            errors.InvalidCredentials,
            errors.PasswordChangeRequired,
            errors.EmailUnverified,
            errors.SecondFactorRequired,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.Busy,
        ],
    )
)
def issue_token() -> Response:
    with counted_if_unreadable():
        body = read_body(request, TokenBody)
    with rate_limit_of_errors():
        issued = services().authentication.issue_token(
            body.email, body.password, unknown_actor(), refreshable=body.refresh
        )
    tell_rate_limit(issued.rate_limit)
    note_user(request.environ, issued.session.record.user.id)
    return json_response(TokenAnswer.of(issued))


@api.post("/tokens/refresh")
@documents(
    Operation(
        "A new pair of tokens; a refresh token that was used before ends the session",
        {200: TokenAnswer},
        "nobody",
        RefreshBody,
        fails=[errors.NotAuthenticated],
    )
)
def refresh_token() -> Response:
    body = read_body(request, RefreshBody)
    token = services().refresh_tokens.check(body.refresh_token)
    if token is None:
        raise errors.NotAuthenticated(presented=True)
    issued = services().sessions.refresh(token, unknown_actor())
    note_user(request.environ, issued.session.record.user.id)
    return json_response(TokenAnswer.of(issued))


@api.post("/logout")
@documents(Operation("Logs out: ends the session", {204: None}, "nobody", changes=True))
def logout() -> tuple[str, int, dict[str, str]]:
    log_out_visitor()
    return "", 204, clear_site_data()


@api.get("/me")
@documents(Operation("Who is asking", {200: MeView}))
def me() -> Response:
    return json_response(MeView.in_session(require_live().record))


@api.patch("/me")
@documents(
    Operation(
        "Changes one's own name or image; what is left out stays",
        {200: MeView},
        body=ProfileBody,
        changes=True,
    )
)
def update_me() -> Response:
    record = require_live().record
    body = read_body(request, ProfileBody)
    changed = services().users.update_profile(
        record.user.id, or_none(body.name), or_none(body.image), known_actor()
    )
    return json_response(MeView.in_session(record, auth_session().settle(changed)))


# of an answer after which the session goes on under a new token
NEW_TOKENS = {
    "Set-Cookie": Parameter("to a browser: the session's new token"),
    "X-Access-Token": Parameter("to a program: its new access token"),
    "X-Refresh-Token": Parameter("to a program that has one: its new refresh token"),
}


@api.post("/me/password")
@documents(
    Operation(
        "Sets a new password: all other sessions end, this one gets a new token. Without "
        "`current_password` it sets one for an account that has none, after a fresh proof",
        {204: None},
        body=PasswordBody,
        headers=NEW_TOKENS,
        fails=[
            errors.InvalidCredentials,
            errors.StepUpRequired,
            errors.TooManyAttempts,
            errors.Busy,
        ],
        changes=True,
    )
)
def change_password() -> tuple[str, int, dict[str, str]]:
    """The session gets a new token: in the cookie, or for a program in a header."""
    live = require_live()
    body = read_body(request, PasswordBody)
    if body.current_password is msgspec.UNSET:
        passwordless = services().passwordless
        changed = passwordless.set_password(require_step_up(), body.new_password, known_actor())
        return "", 204, rotated(auth_session().settle(changed))
    with rate_limit_of_errors():
        changed = services().password_changes.change_password(
            live, body.current_password, body.new_password, known_actor(), devices()
        )
    return "", 204, rotated(auth_session().settle(changed))


def rotated(issued: IssuedLogin | IssuedTokens) -> dict[str, str]:
    """The headers in which a program finds the new tokens of its session; a browser gets the
    cookie."""
    tell_rate_limit(issued.rate_limit)
    auth_session().rotate(issued)
    if isinstance(issued, IssuedLogin):
        return {}
    refresh = {"X-Refresh-Token": issued.refresh.text} if issued.refresh else {}
    return {"X-Access-Token": issued.session.token.text, **refresh}


@api.post("/me/confirm")
@documents(
    Operation(
        "Proves again who one is, for acts that answer `step_up_required`: by the password, or by "
        "`method` and `code` or `credential` if one holds a second factor. This session gets a new "
        "token",
        {204: None},
        body=ConfirmBody,
        headers=NEW_TOKENS,
        fails=[
            errors.InvalidCredentials,
            errors.TooManyAttempts,
            errors.Busy,
            errors.FactorsOff,
            errors.PasskeysOff,
        ],
        changes=True,
    )
)
def confirm() -> tuple[str, int, dict[str, str]]:
    live = require_live()
    body = read_body(request, ConfirmBody)
    password, code = or_none(body.password), or_none(body.code)
    method: Method | None = or_none(body.method)
    credential = or_none(body.credential)
    if (password is None) is (method is None or (code is None and credential is None)):
        raise errors.InvalidField({"password": "give this, or method and code or credential"})
    with rate_limit_of_errors():
        if password is not None:
            changed = services().step_up.confirm(live, password, known_actor())
        else:
            shown = ShownFactor(method or "totp", code or "", credential)
            changed = services().step_up.confirm_by_factor(live, shown, known_actor())
    return "", 204, rotated(auth_session().settle(changed))


@api.get("/me/sessions")
@documents(Operation("Where one is signed in", {200: SessionList}))
def my_sessions() -> Response:
    record = require_live().record
    found = services().sessions.of_user(record.user.id)
    return json_response(SessionList([SessionView.of(s, current=record.id) for s in found]))


@api.delete("/me/sessions/<uuid:session_id>")
@documents(
    Operation(
        "Ends one of one's own sessions; another one than this needs a fresh proof",
        {204: None},
        fails=[errors.UnknownUser, errors.StepUpRequired],
        changes=True,
    )
)
def end_my_session(session_id: UUID) -> tuple[str, int, dict[str, str]]:
    record = require_live().record
    own = session_id == record.id
    if not own:
        require_step_up()  # OWASP ASVS 5.0, 7.5.2
    why = EndReason.LOGOUT if own else EndReason.REVOKED_BY_USER
    ended = services().sessions.end_one(record.user.id, session_id, why, known_actor())
    if not auth_session().settle(ended):
        raise NotFound("There is no such session.")
    if own:
        auth_session().forget()
    return "", 204, clear_site_data() if own else {}


@api.delete("/me/sessions")
@documents(
    Operation(
        "Ends all of one's own sessions but this one",
        {204: None},
        fails=[errors.StepUpRequired],
        changes=True,
    )
)
@step_up_required
def end_my_other_sessions() -> tuple[str, int]:
    ended = services().sessions.end_others(require_live(), EndReason.REVOKED_BY_USER, known_actor())
    auth_session().settle(ended)
    return "", 204


def session_view(live: ActiveSession) -> SessionView:
    """A session that has just begun in this request, as its user sees it."""
    record, here = live.record, unknown_actor()
    summary = SessionSummary(
        record.id,
        record.kind,
        record.created_at,
        record.last_seen_at,
        record.expires_at,
        here.address,
        here.user_agent,
        record.amr,
        record.auth_time,
    )
    return SessionView.of(summary, current=record.id)
