"""Log-in and log-out of the visitor: the use case, and the session's cookie."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from flask import current_app, request
from werkzeug.exceptions import HTTPException

from authapp.accounts.assurance import PASSWORD, Amr
from authapp.accounts.identity import Identity
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.factor_login import CompletedLogin
from authapp.authentication.factors.passkeys.json_forms import AuthenticationCredential
from authapp.errors import InvalidField, InvalidJson
from authapp.sessions.records import ActiveSession, EndedSession, IssuedLogin
from authapp.web.app_state import state_of
from authapp.web.cookies.header import read_devices
from authapp.web.cookies.plain_http import drops_cookie
from authapp.web.guards import services, unknown_actor
from authapp.web.middleware.headers import CLEAR_CACHE, CLEAR_SITE_DATA
from authapp.web.middleware.mount_point import link_to
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.messages import SIGNED_OUT
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.redirects import asked_origin, safe_next, start_page
from authapp.web.session import login_token, mailed_links, password_proof
from authapp.web.session.auth_session import AuthSession, CarryOver, auth_session

_STAYS_BEHIND = (
    *mailed_links.KEYS.values(),
    mailed_links.ONWARD,
    password_proof.KEY,
    login_token.KEY,
)


def log_in_visitor(email: str, password: str, *, remember: bool) -> ActiveSession:
    """Log the visitor in. The session replaces theirs, and its cookie goes out with the answer.

    Raises:
        InvalidField, InvalidCredentials, TooManyAttempts, Busy, StoreUnavailable: as `log_in`.
        TooManyTokens: nobody was logged in.
        UnsavableSession: nobody was logged in; a view put a value into `flask.session` before that
            can't be kept.
    """
    visitor = auth_session()
    with rate_limit_of_errors():
        issued = services().authentication.log_in(
            email,
            password,
            unknown_actor(),
            remember=remember,
            replaces=visitor.all_tokens(),
            devices=devices(),
            data=_carried_over(visitor),
        )
    tell_rate_limit(issued.rate_limit)
    visitor.begin(issued)
    return issued.session


def log_in_visitor_as(user_id: UUID, *, remember: bool, amr: Amr = ()) -> ActiveSession:
    """Log the visitor in as a user whom the app has verified; else as `log_in_visitor`.

    Args:
        amr: how the app verified the user.
    Raises:
        InvalidCredentials: there is no such user, or the user is inactive.
        StoreUnavailable, TooManyTokens, UnsavableSession: nobody was logged in.
    """
    visitor = auth_session()
    issued = services().authentication.log_in_as(
        user_id,
        unknown_actor(),
        remember=remember,
        replaces=visitor.all_tokens(),
        data=_carried_over(visitor),
        amr=amr,
    )
    visitor.begin(issued)
    return issued.session


def log_in_proved(user: Identity, epoch: int, *, method: str, amr: Amr = PASSWORD) -> ActiveSession:
    """Log the visitor in who has just shown the password, or a passkey, in another way than by a
    log-in.

    Raises:
        InvalidCredentials: the user was changed or deactivated in the meantime.
        EmailUnverified
        StoreUnavailable, TooManyTokens, UnsavableSession: nobody was logged in.
    """
    visitor = auth_session()
    issued = services().authentication.log_in_proved(
        user,
        epoch,
        unknown_actor(),
        replaces=visitor.all_tokens(),
        devices=devices(),
        data=_carried_over(visitor),
        method=method,
        amr=amr,
    )
    visitor.begin(issued)
    return issued.session


def log_in_visitor_by_passkey(
    credential: AuthenticationCredential, *, remember: bool
) -> ActiveSession:
    """Log the visitor in by what a passkey signed; else as `log_in_visitor`.

    Raises:
        InvalidPasskey, EmailUnverified, TooManyAttempts, StoreUnavailable, PasskeysOff,
        TooManyTokens, UnsavableSession: nobody was logged in.
    """
    visitor = auth_session()
    browser = Browser(replaces=visitor.all_tokens(), devices=devices(), data=_carried_over(visitor))
    with rate_limit_of_errors():
        issued = services().passkey_login.log_in(
            credential, unknown_actor(), browser, remember=remember
        )
    tell_rate_limit(issued.rate_limit)
    visitor.begin(issued)
    return issued.session


def complete_login(token: str, shown: ShownFactor, *, is_trusted: bool) -> CompletedLogin:
    """Complete a log-in of the visitor that waited for a second factor. A browser gets the cookie.

    Args:
        is_trusted: the browser needs no second factor for a while.
    Raises:
        InvalidFactor, LoginExpired, TooManyAttempts, FactorsOff, StoreUnavailable: see
            `FactorLogin`.
        TooManyTokens, UnsavableSession: nobody was logged in.
    """
    visitor = auth_session()
    browser = Browser(
        replaces=visitor.all_tokens(),
        devices=devices(),
        data=_carried_over(visitor),
        is_trusted=is_trusted,
    )
    with rate_limit_of_errors():
        completed = services().factor_login.complete(token, shown, unknown_actor(), browser)
    tell_rate_limit(completed.issued.rate_limit)
    if isinstance(completed.issued, IssuedLogin):
        visitor.begin(completed.issued)
    else:
        note_user(request.environ, completed.issued.session.record.user.id)
    return completed


def _carried_over(visitor: AuthSession) -> dict[str, Any]:
    """The visitor's data that the new session takes over: all of it, or what the app chooses.

    The CSRF token of Flask-WTF never comes along. An attacker who planted the visitor's cookie
    knows that token. Nor does the token of a mailed link, which may be another person's.
    """
    config = current_app.config
    choose: CarryOver = config.get("LOGIN_CARRY_OVER") or dict
    csrf_tokens = ("csrf_token", config.get("WTF_CSRF_FIELD_NAME", ""))
    return visitor.carried_over(choose, without=(*csrf_tokens, *_STAYS_BEHIND))


def safe_target(target: str | None) -> str | None:
    """`target` if log-in and log-out may lead there from this request, else None."""
    return safe_next(target, services().redirect_hosts, asked_origin())


def next_target() -> str | None:
    """Where log-in or log-out shall lead by `next` of the request, if it may lead there.

    It is read from the form, else from the address.
    """
    typed = request.form.get("next") if request.method == "POST" else None
    return safe_target(typed or request.args.get("next"))


def start_url() -> str:
    """The page that log-in and log-out lead to by themselves."""
    return link_to(request.environ, start_page(current_app.url_map, state_of().mount.url_prefix))


def will_lose_cookie() -> bool:
    """Whether the visitor's browser will drop the session's cookie, because https is missing."""
    return drops_cookie(request.environ, secure=current_app.config["SESSION_COOKIE_SECURE"])


def log_out_visitor() -> None:
    """Log the visitor out: every session whose token was sent ends, and the cookie is cleared. So
    does a session that began earlier in this request.

    Raises:
        StoreUnavailable: no session ended; the cookie is kept.
        TwoIdentities: a cookie and an access token were sent; no session ended.
        TooManyTokens: no session ended.
    """
    visitor = auth_session()
    if visitor.credentials.access_tokens:
        if live := visitor.live:  # only then is the token known to be ours
            visitor.settle(services().authentication.log_out(live.token, unknown_actor()))
        visitor.forget()
        return
    if tokens := visitor.all_tokens():
        visitor.settle(services().authentication.log_out_of(tokens, unknown_actor()))
    visitor.forget()


def sign_out_reason() -> str | None:
    """Why the session that the visitor's cookie names has ended, as a sentence for the log-in page.

    Raises:
        StoreUnavailable: nobody could say.
    """
    found = auth_session().found
    return SIGNED_OUT.get(found.why) if isinstance(found, EndedSession) else None


def clear_site_data() -> dict[str, str]:
    """Has the browser drop its copies of private pages together with the session.

    Data that another app keeps in the browser stays there, because it shares our origin.
    """
    return CLEAR_SITE_DATA if state_of().mount.is_whole_app else CLEAR_CACHE


def devices() -> list[str]:
    """The visitor's device tokens. They are read only where a password is verified."""
    name = current_app.config["SESSION_COOKIE_NAME"]
    return read_devices(request.headers.get("Cookie", ""), name)


@contextmanager
def counted_if_unreadable() -> Iterator[None]:
    """Count a log-in request that the block can't read against the limit of its address.

    Raises:
        TooManyAttempts: in place of the error that the block raised.
    """
    try:
        yield
    except (InvalidField, InvalidJson, HTTPException):
        count_unreadable()
        raise


def count_unreadable() -> None:
    """Count the current request against the limit of its address, as a log-in that can't be read.

    Raises:
        TooManyAttempts
    """
    with rate_limit_of_errors():
        tell_rate_limit(services().authentication.count_unreadable(unknown_actor()))
