"""Notices on the page after a form, which say what was done. No link can make a page show one.

The address of that page names the message. For people who are signed in, the name has a MAC that
covers their session. People who are signed out see a notice only if one of our own pages led there.
"""

from dataclasses import dataclass
from hashlib import sha256

from flask import current_app, redirect, request, url_for
from itsdangerous import BadSignature, TimestampSigner
from werkzeug.wrappers import Response

from authapp.web.guards import auth_session, services
from authapp.web.pages.messages import DONE, DONE_SIGNED_OUT, within

SECONDS = 60  # how long the address of a page says what was done
_LATE = "+late"  # others may notice late


@dataclass(frozen=True, slots=True)
class Notice:
    """A message, and its name in `messages.py`."""

    name: str
    text: str


def redirect_with(name: str, endpoint: str, **values: object) -> Response:
    """Redirect to a page that says what was done, and how long other devices may take to notice."""
    visitor = auth_session()
    done = name + _LATE if visitor.is_change_pending else name
    if name not in DONE_SIGNED_OUT:
        done = _signer(visitor.sid or "").sign(done).decode()
    return redirect(url_for(endpoint, done=done, **values), 303)  # type: ignore[arg-type]


def notice() -> Notice | None:
    """The message for this page, if the form before left one.

    Raises:
        StoreUnavailable: there may be one, and nobody could say whose session this is.
    """
    done = request.args.get("done", "")
    name = done.removesuffix(_LATE)
    if name in DONE_SIGNED_OUT:
        if not _is_from_our_own_page() or auth_session().live:
            return None
        return _notice(name, DONE_SIGNED_OUT[name], is_late=name != done)
    if "." not in done:
        return None
    try:
        done = _signer(auth_session().sid or "").unsign(done, max_age=SECONDS).decode()
    except BadSignature:
        return None
    name = done.removesuffix(_LATE)
    return _notice(name, DONE[name], is_late=name != done)


def _notice(name: str, text: str, *, is_late: bool) -> Notice:
    return Notice(name, f"{text} {within(services().revalidate_seconds)}" if is_late else text)


def _is_from_our_own_page() -> bool:
    """Whether a page of this origin led here: browsers say so, and no other site can.

    They send Sec-Fetch-Site to https and localhost only, but Referer everywhere.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return request.headers.get("Referer", "").startswith(request.host_url)


def _signer(session_id: str) -> TimestampSigner:
    config = current_app.config
    keys = [*reversed(config["SECRET_KEY_FALLBACKS"]), config["SECRET_KEY"]]  # the newest last
    return TimestampSigner(keys, f"authapp/notice/{session_id}", digest_method=sha256)
