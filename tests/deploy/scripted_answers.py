"""authapp that answers a proxy's question as the visitor's cookie says: `answer=503`."""

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from authapp.web.request_credentials import CHALLENGE

BODY = b'<!doctype html><html lang="en"><title>Scripted</title>'
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Request-ID": "scripted",
}
LOCATION = "https://auth.example.org/login?next=/scripted"
RETRY_AFTER = "7"

_COOKIE = re.compile(r"(?:^|; ?)answer=(\d{3})(?:;|$)")
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class WithScriptedAnswers:
    """WSGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = _COOKIE.search(environ.get("HTTP_COOKIE", ""))
        if asked is None or not environ["PATH_INFO"].startswith("/forward-auth/"):
            return self._app(environ, start_response)
        status = HTTPStatus(int(asked[1]))
        headers = [*HEADERS.items(), *(("Set-Cookie", f"{name}=1") for name in ("a", "b"))]
        headers += [(f"Remote-{name}", "somebody") for name in ("User", "Email", "Assertion")]
        is_nginx = environ["PATH_INFO"] == "/forward-auth/nginx"
        if status in {302, 303} or (is_nginx and status == HTTPStatus.UNAUTHORIZED):
            headers.append(("Location", LOCATION))
        elif status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", CHALLENGE))
        elif status in {429, 503}:
            headers.append(("Retry-After", RETRY_AFTER))
        start_response(f"{status.value} {status.phrase}", headers)
        return [BODY]
