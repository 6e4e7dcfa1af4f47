"""Where errors become HTTP: a table of ours, and answers as pages or as problem+json (RFC 9457)."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache, partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from flask import Blueprint, Flask, Response, current_app, g, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import (
    BadHost,
    HTTPException,
    InternalServerError,
    SecurityError,
    default_exceptions,
)

from authapp import errors
from authapp.storage.deadlines import deadline
from authapp.telemetry.logging import get_logger
from authapp.web.app_state import BLUEPRINT, state_of
from authapp.web.guards import confirm_url, is_own_view, login_url
from authapp.web.middleware.client_address import unreadable
from authapp.web.middleware.request_log import CODE, request_id
from authapp.web.pages.messages import ERROR_PAGES
from authapp.web.pages.rendering import render_page
from authapp.web.redirects import page_to_come_back_to
from authapp.web.request_credentials import CHALLENGE
from authapp.web.session import login_token
from authapp.web.session.auth_session import auth_session
from authapp.web.session.mailed_links import set_aside
from authapp.web.visitor_login import next_target, sign_out_reason

AS_JSON = "_authapp_as_json"  # in flask.g: a program asks, whatever it accepts
_LOOK_UP_SECONDS = 0.5  # what an error page waits to learn who the visitor is

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    code: str
    detail: str | None = None  # None: what the error itself says
    for_people: bool = False  # says more than the page for all answers of this status


_ANSWERS: dict[type, _Answer] = {
    errors.InvalidJson: _Answer(400, "invalid_json"),
    errors.InvalidField: _Answer(400, "invalid_field", "Correct the fields named in `errors`."),
    errors.TwoIdentities: _Answer(400, "two_identities"),
    errors.TooManyTokens: _Answer(
        400,
        "too_many_tokens",
        "This request brings too many session cookies. Programs send one. In a browser they are "
        "cleared now: log in again.",
        for_people=True,
    ),
    errors.UnknownAddress: _Answer(
        400,
        "address_unknown",
        "We can't tell from which address this request comes, so nobody can log in this way. It is "
        "for whoever runs this service to mend: the proxy in front must say the address.",
        for_people=True,
    ),
    errors.InvalidToken: _Answer(
        400, "invalid_token", "This link or code is used, replaced or too old. Ask for a new one."
    ),
    errors.InvalidInvitation: _Answer(
        400,
        "invalid_invitation",
        "This invitation is used, revoked, too old, or for another address. Ask for a new one.",
    ),
    errors.UnknownRole: _Answer(400, "unknown_role"),
    errors.InvalidCredentials: _Answer(
        401, "invalid_credentials", "Email or password is not right."
    ),
    errors.InvalidPasskey: _Answer(
        401, "invalid_credentials", "This passkey is not accepted. Try another, or another way."
    ),
    errors.ReplacedPassword: _Answer(
        401,
        "invalid_credentials",
        "This password was replaced by another one. Use the new one, or reset the password.",
    ),
    errors.SecondFactorRequired: _Answer(401, "second_factor_required"),
    errors.InvalidFactor: _Answer(
        401, "invalid_factor", "This code is not right, or was used before."
    ),
    errors.LoginExpired: _Answer(
        401, "login_expired", "This log-in is used up or too old. Start again with the password."
    ),
    errors.Forbidden: _Answer(403, "forbidden", "You may not see or do this."),
    errors.FactorUnproven: _Answer(403, "step_up_required", for_people=True),
    errors.FactorMissing: _Answer(403, "factor_missing", for_people=True),
    errors.AddressUnconfirmed: _Answer(403, "email_unverified", for_people=True),
    errors.SignupClosed: _Answer(403, "signup_closed", for_people=True),
    errors.EmailUnverified: _Answer(403, "email_unverified", for_people=True),
    errors.PasswordChangeRequired: _Answer(
        403,
        "password_change_required",
        "This password counts once. Choose one of your own with `reset_token`.",
    ),
    errors.StepUpRequired: _Answer(
        403, "step_up_required", "Confirm that it is you, then try again.", for_people=True
    ),
    errors.CrossOrigin: _Answer(403, "cross_origin", for_people=True),
    errors.OwnAccount: _Answer(403, "own_account", for_people=True),
    errors.ExceedsOwnPermissions: _Answer(403, "exceeds_own_permissions", for_people=True),
    errors.NoSuchRole: _Answer(404, "not_found", "There is no such role."),
    errors.UnknownUser: _Answer(404, "not_found", "There is no such user."),
    errors.NoSuchPasskey: _Answer(404, "not_found", "There is no such passkey."),
    errors.EmailTaken: _Answer(
        409, "email_taken", "Somebody has signed up with this email. Log in instead."
    ),
    errors.PasskeyTaken: _Answer(409, "passkey_taken", for_people=True),
    errors.UserInactive: _Answer(409, "user_inactive", for_people=True),
    errors.LastAdmin: _Answer(409, "last_admin", for_people=True),
    errors.UserInUse: _Answer(409, "user_in_use", for_people=True),
    errors.BuiltInRole: _Answer(409, "built_in_role", for_people=True),
    errors.RoleInUse: _Answer(409, "role_in_use", for_people=True),
    errors.NoFactor: _Answer(409, "no_factor", for_people=True),
    errors.FactorNeeded: _Answer(409, "factor_needed", for_people=True),
    errors.TooManyAttempts: _Answer(429, "too_many_attempts"),
    errors.PasskeysOff: _Answer(501, "passkeys_off", for_people=True),
    errors.MailOff: _Answer(
        501,
        "mail_off",
        "This needs mail, which is not set up here. Ask whoever runs this service.",
        for_people=True,
    ),
    errors.FactorsOff: _Answer(
        501,
        "factors_off",
        "Authenticator apps and passkeys are not installed here. Ask whoever runs this service.",
        for_people=True,
    ),
    errors.SecondFactorUnavailable: _Answer(
        503,
        "unavailable",
        "Nobody can log in with a second factor right now; people who are signed in stay so. Try "
        "again in a moment.",
        for_people=True,
    ),
    errors.StoreUnavailable: _Answer(
        503, "unavailable", "We can't answer right now. Nothing was changed; try again in a moment."
    ),
    errors.OutcomeUnknown: _Answer(
        503,
        "unavailable",
        "We lost contact while we saved your change, and can't say whether it was made. Look "
        "before you try again.",
        for_people=True,
    ),
    errors.Busy: _Answer(
        503,
        "unavailable",
        "Many people are logging in right now; try again in a moment.",
        for_people=True,
    ),
}


_SESSION_INVALID = _Answer(401, "session_invalid", "The session has ended. Log in again.")
_SESSION_MISSING = _Answer(401, "session_missing", "Log in first.")

REFUSED = 'error="invalid_token"'

# attributes of errors that programs need to go on
_MORE = ("reset_token", "login_token", "methods", "expires_in", "enrols")


class Problem(HTTPException):
    """An HTTP answer that says which of our errors it is.

    Attributes:
        slug: the `code` programs switch on.
        fields: field name → reason.
        for_people: whether pages show the description.
        retry_after: seconds, or None. Werkzeug's classes of 429 and 503 tell it in `Retry-After`.
        more: what programs need to go on, by the names of the fields in the answer.
    """

    def __init__(self, error: errors.AuthappError, answer: _Answer) -> None:
        super().__init__(answer.detail or str(error))
        self.code = answer.status
        self.slug = answer.code
        self.for_people = answer.for_people
        self.fields: dict[str, str] = getattr(error, "errors", {})
        self.retry_after: int | None = getattr(error, "retry_after", None)
        self.more = {
            name: value for name in _MORE if (value := getattr(error, name, None)) is not None
        }

    @property
    def name(self) -> str:
        return HTTPStatus(self.code or 500).phrase


@cache
def _kind_of(status: int) -> type[Problem]:
    """Flask finds an app's own `errorhandler(401)` by the class of the error, not its `code`."""
    return type(f"Problem{status}", (Problem, default_exceptions[status]), {"code": status})


def problem_of(error: errors.AuthappError) -> Problem:
    """The HTTP answer of an error."""
    known = (_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)
    answer = next(known, _Answer(500, "internal_error", "Something broke."))
    if isinstance(error, errors.NotAuthenticated):
        answer = _session_invalid() if error.presented else _SESSION_MISSING
    return _kind_of(answer.status)(error, answer)


def _session_invalid() -> _Answer:
    """Says why the session ended, where that is known already."""
    reason = sign_out_reason() if auth_session().is_known else None
    if not reason:
        return _SESSION_INVALID
    return replace(_SESSION_INVALID, detail=f"{reason} Log in again.")


def answer_to(kind: type[errors.AuthappError]) -> list[tuple[int, str]]:
    """The statuses and codes that answer errors of this kind."""
    if issubclass(kind, errors.NotAuthenticated):
        return [(a.status, a.code) for a in (_SESSION_INVALID, _SESSION_MISSING)]
    answer = _ANSWERS[kind]
    return [(answer.status, answer.code)]


MAX_ACCEPT = 1_000  # characters; browsers send about 140


def wants_json() -> bool:
    """Whether the client is a program rather than a person's browser."""
    is_api = request.path.startswith(state_of().mount.api_path)
    if g.get(AS_JSON) or (is_api and (request.url_rule is None or is_own_view())):
        return True
    if isinstance(request.routing_exception, (BadHost, SecurityError)):
        return True  # no browser asks for such a host, and a page has links, which need one
    if len(request.headers.get("Accept", "")) > MAX_ACCEPT:
        return False
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def answer_domain_error(error: errors.AuthappError) -> ResponseReturnValue:
    """Turns an error of ours into an HTTP error, for which an app may have a page of its own.

    People without a session are sent to log in, and people with a one-time password to choose
    another, if there are pages for that.
    """
    if isinstance(error, errors.StoreUnavailable):
        _log.warning("store_unavailable", store=error.store)
    if isinstance(error, errors.UnknownAddress):
        _log.warning("address_unreadable", **unreadable(request.environ))
    if not wants_json():
        _forget_what_is_ambiguous(error)
    if isinstance(error, errors.NotAuthenticated) and not wants_json():
        target = login_url()
        if target is not None:
            return redirect(_with_next(target))
    if isinstance(error, errors.StepUpRequired) and not wants_json():
        target = confirm_url(page_to_come_back_to())
        if target is not None:
            return redirect(target, 303)
    leads_on = state_of().mount.pages and not wants_json()
    if leads_on and isinstance(error, errors.PasswordChangeRequired):
        page = f"{BLUEPRINT}.recovery.reset"
        return set_aside("reset", error.reset_token, page, next_target() or "")
    if leads_on and isinstance(error, errors.SecondFactorRequired):
        login_token.keep(error)
        return redirect(url_for(f"{BLUEPRINT}.factor.factor", next=next_target()), 303)
    problem = problem_of(error)
    try:
        answer: ResponseReturnValue = current_app.handle_user_exception(problem)
    except errors.StoreUnavailable:  # the app's own page asked who the visitor is: nobody can say
        return problem
    return answer


def _forget_what_is_ambiguous(error: errors.AuthappError) -> None:
    """Clear several cookies when nobody can tell whose they are.

    A cookie that an attacker planted for one path does not come along to the log-in page. If it
    stayed, its owner would be sent to log in again and again.
    """
    visitor = auth_session()
    is_too_many = isinstance(error, errors.TooManyTokens)
    if is_too_many or (isinstance(error, errors.NotAuthenticated) and visitor.is_unknown):
        visitor.forget_in_all_scopes()


def register_error_answers(ours: Flask | Blueprint, without_visitor: Collection[str]) -> None:
    """Answers every HTTP error as a page, or as problem+json for programs.

    Args:
        ours: the app if it is the whole product, or our blueprint in another app. Its handlers
            come before those of the app, also of one status: hence one for each.
        without_visitor: routes that are for files and proxies, whose errors ask for nobody.
    """
    handler = partial(answer_error, without_visitor=without_visitor)
    ours.register_error_handler(HTTPException, handler)
    if isinstance(ours, Blueprint):
        for status in default_exceptions:
            ours.register_error_handler(status, handler)
    ours.register_error_handler(errors.AuthappError, answer_domain_error)


def answer_error(error: HTTPException, without_visitor: Collection[str]) -> ResponseReturnValue:
    if isinstance(error, InternalServerError):
        original = error.original_exception
        if isinstance(original, errors.AuthappError):  # raised while the answer was being finished
            error = problem_of(original)
    if error.response is not None or (error.code or 500) < 400:
        return error
    if isinstance(error, Problem):
        request.environ[CODE] = error.slug
    response = _as_json(error) if wants_json() else _as_page(error, without_visitor)
    response.status_code = error.code or 500
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers.add(name, value)
    return response


def _as_json(error: HTTPException) -> Response:
    slug = getattr(error, "slug", None) or error.name.lower().replace(" ", "_")
    body: dict[str, object] = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description,
        "code": slug,
        "request_id": request_id(),
    }
    if isinstance(error, Problem) and error.fields:
        body["errors"] = error.fields
    if isinstance(error, Problem):
        body |= error.more
    response = Response(msgspec.json.encode(body), mimetype="application/problem+json")
    if error.code == HTTPStatus.UNAUTHORIZED:
        # RFC 6750, 3: the challenge names an error only if an access token was sent
        refused = slug == _SESSION_INVALID.code and auth_session().credentials.access_tokens
        response.headers["WWW-Authenticate"] = CHALLENGE + (f", {REFUSED}" if refused else "")
    return response


def _as_page(error: HTTPException, without_visitor: Collection[str]) -> Response:
    title, detail = ERROR_PAGES.get(error.code or 500, (error.name, error.description))
    if isinstance(error, Problem) and error.for_people:
        detail = error.description
    values: dict[str, Any] = {
        "status": error.code,
        "title": title,
        "detail": detail,
        "request_id": request_id(),
        "retry_after": getattr(error, "retry_after", None),
        "is_error": True,
    }
    known = _is_visitor_known(error, without_visitor)
    try:
        page = render_page("authapp/error.html", is_visitor_known=known, **values)
    except errors.AuthappError:  # the app's own base asked who the visitor is, and nobody can say
        page = render_page("authapp/plain_error.html", is_visitor_known=False, **values)
    return Response(page, mimetype="text/html")


def _is_visitor_known(error: HTTPException, without_visitor: Collection[str]) -> bool:
    """Whether the page can show who the visitor is. One look-up may be spent on that, and only for
    a token that we minted; an error page never fails because of it."""
    visitor = auth_session()
    if visitor.is_known:
        return True
    is_failure = (error.code or 500) >= 500 and error.code != HTTPStatus.NOT_IMPLEMENTED
    if is_failure or visitor.credentials.access_tokens:
        return False  # a store failed already, or a program asks
    if request.url_rule is not None and request.url_rule.rule in without_visitor:
        return False
    try:
        with deadline(_LOOK_UP_SECONDS):
            visitor.found  # noqa: B018 - keeps what it finds
    except (errors.StoreUnavailable, errors.TooManyTokens):
        return False
    return True


def _with_next(login_page: str) -> str:
    if request.method not in {"GET", "HEAD"}:
        return login_page
    path = request.script_root + request.full_path.removesuffix("?")
    separator = "&" if "?" in login_page else "?"
    return f"{login_page}{separator}next={quote(path, safe='/')}"
