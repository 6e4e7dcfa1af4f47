"""Refuses unsafe requests that another origin made a browser send: no token, no stored state."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from flask import Request, current_app

from authapp.errors import CrossOrigin
from authapp.web.request_credentials import read_access_tokens

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1
_ADVICE = "This request came from another site; start from our own page and try again."
_ADVICE_TO_PROGRAMS = (
    "This request does not say where it comes from; "
    "a program that sends the cookie names our own origin in the header Origin."
)

View = TypeVar("View", bound=Callable[..., Any])
_open_views: WeakSet[Callable[..., Any]] = WeakSet()
_hidden_views: WeakSet[Callable[..., Any]] = WeakSet()


def from_any_origin(view: View) -> View:
    """Marks a view whose unsafe requests may come from any origin.

    The view itself is marked, not its name: an app that embeds us may use the same names. The mark
    holds under decorators that use `functools.wraps`, too.
    """
    _open_views.add(view)
    return view


def from_hidden_origin(view: View) -> View:
    """Marks a view whose forms are on pages that have the browser tell nobody where it comes from.

    Of such a form the browser says `Origin: null`, and over plain http nothing more. Pages of other
    sites can have it say the same. So where `is_origin_hidden`, the view logs nobody in.
    """
    _hidden_views.add(view)
    return view


def is_origin_hidden(request: Request) -> bool:
    """Whether a browser does not say where this unsafe request comes from."""
    headers = request.headers
    return headers.get("Origin") == "null" and "Sec-Fetch-Site" not in headers


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The rules by which an unsafe request may come from another page (OWASP ASVS 5.0, 3.5.1).

    Attributes:
        cookie_name: of the session's cookie.
        own: the origin of this site; empty: the host that the request asks.
        trusted: other origins whose unsafe requests are accepted.
    """

    cookie_name: str
    own: str = ""
    trusted: frozenset[str] = frozenset()

    def check(self, request: Request) -> None:
        """Returns if an unsafe request may go on.

        Browsers name the origin of an unsafe request in `Origin`, and its relation to us in
        `Sec-Fetch-Site`. A request with neither header comes from a program, or from an old
        browser, which `SameSite` keeps from sending the cookie along. The same rules cover log-in,
        although it relies on no cookie.

        Browsers never attach an access token on their own, so a request with a token and no session
        cookie needs no origin check.

        Raises:
            CrossOrigin: another site made a browser send the request.
        """
        if _is_marked(request, _open_views):
            return
        if is_origin_hidden(request) and _is_marked(request, _hidden_views):
            return
        brings_cookie = self.cookie_name in request.headers.get("Cookie", "")
        if read_access_tokens(request.environ) and not brings_cookie:
            return
        origin = request.headers.get("Origin")
        if origin is not None and self._is_ours(origin.lower(), request):
            return
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            if site not in {"same-origin", "none"}:
                raise CrossOrigin(_ADVICE)
            return
        if origin is not None:
            raise CrossOrigin(_ADVICE)
        if brings_cookie and current_app.config["SESSION_COOKIE_SAMESITE"] == "None":
            raise CrossOrigin(_ADVICE_TO_PROGRAMS)

    def _is_ours(self, origin: str, request: Request) -> bool:
        own = self.own or request.host_url.rstrip("/").lower()
        return origin == own or origin in self.trusted


def _is_marked(request: Request, marked: WeakSet[Callable[..., Any]]) -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or not marked:
        return False
    return view in marked or inspect.unwrap(view, stop=marked.__contains__) in marked
