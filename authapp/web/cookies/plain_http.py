"""Plain HTTP, where browsers drop a cookie with Secure, so that a log-in has no effect."""

import re
from collections.abc import Mapping
from typing import Any

from authapp.telemetry.logging import get_logger

_log = get_logger(__name__)

# browsers trust these without TLS: they are this machine
_is_loopback = re.compile(
    r"(?:(?:.+\.)?localhost\.?|127(?:\.\d+){3}|\[::1\])(?::\d+)?", re.I
).fullmatch

REMEDY = (
    "serve over https; behind a proxy that ends TLS set TRUSTED_PROXY_HOPS; "
    "where there is no https at all set SESSION_COOKIE_SECURE=0"
)


def drops_cookie(environ: Mapping[str, Any], *, secure: bool) -> bool:
    """Whether the visitor's browser will not keep a session cookie, as far as the request tells.

    Behind a proxy that ends TLS, and that TRUSTED_PROXY_HOPS does not name, each request seems to
    come over plain HTTP. Then `Sec-Fetch-Site` tells: browsers send it to https and to loopback
    alone (Fetch Metadata, 2).

    Args:
        environ: of WSGI.
        secure: SESSION_COOKIE_SECURE.
    """
    return (
        secure
        and environ["wsgi.url_scheme"] == "http"
        and "HTTP_SEC_FETCH_SITE" not in environ
        and _is_loopback(environ.get("HTTP_HOST", "")) is None
    )


class DroppedCookies:
    """Warns the operator in the log, once a worker, that browsers drop the session's cookie."""

    def __init__(self) -> None:
        self._has_warned = False

    def note(self, environ: Mapping[str, Any], *, secure: bool) -> None:
        """A session's cookie is about to go out with the answer to this request."""
        if not self._has_warned and drops_cookie(environ, secure=secure):
            self._has_warned = True
            _log.warning("session_cookie_dropped", why="Secure over plain http", remedy=REMEDY)
