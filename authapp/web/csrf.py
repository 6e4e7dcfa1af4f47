"""Refuses unsafe requests that another origin made a browser send: no token, no stored state."""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakSet

from flask import Request, current_app

from authapp.errors import CrossOrigin
from authapp.web.request_credentials import read_access_tokens

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1
_ADVICE = "This request came from another site; start from our own page and try again."

View = TypeVar("View", bound=Callable[..., Any])
_open_views: WeakSet[Callable[..., Any]] = WeakSet()


def from_any_origin(view: View) -> View:
    """Mark a view that needs no origin check, because it changes nothing whatever the method is.

    The view itself is marked, not its name: an app that embeds us may use the same names.
    """
    _open_views.add(view)
    return view


def check_origin(request: Request, cookie_name: str) -> None:
    """Return if the request may go on (OWASP ASVS 5.0, 3.5.1).

    Browsers name the origin of a request in `Sec-Fetch-Site`, or else in `Origin`. A request with
    neither header comes from a program or an old browser. If it brings our cookie, it needs
    `X-Requested-With`, which a form can't set and fetch can't send across origins. The same rules
    cover log-in, although it relies on no cookie.

    Browsers never attach an access token on their own, so a request with a token and no session
    cookie needs no origin check. Forward-auth asks about a request to another app, and changes
    nothing whatever its method.

    Raises:
        CrossOrigin: another site made a browser send the request.
    """
    if request.method in _SAFE_METHODS:
        return
    view = current_app.view_functions.get(request.endpoint or "")
    if view is not None and view in _open_views:
        return
    brings_cookie = cookie_name in request.headers.get("Cookie", "")
    if read_access_tokens(request.environ) and not brings_cookie:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise CrossOrigin(_ADVICE)
        return
    origin = request.headers.get("Origin")
    if origin is not None:
        if origin.lower() != request.host_url.rstrip("/").lower():
            raise CrossOrigin(_ADVICE)
        return
    if brings_cookie and not request.headers.get("X-Requested-With"):
        raise CrossOrigin(
            "This request does not say where it comes from; "
            "a program that sends the cookie adds the header X-Requested-With."
        )
