"""Scripts of some other origins may read who is asking: CORS for `GET /api/v1/me`."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


class ReadableByOrigins:
    """WSGI middleware (PEP 3333) that lets scripts of some origins read one path, with the cookie.

    They may not act: no other path and no other method has these headers, preflights fail, and
    `OriginPolicy` refuses their unsafe requests.

    Args:
        path: the only one that they may read.
        origins: as browsers send them.
    """

    def __init__(self, wsgi: "WSGIApplication", path: str, origins: Collection[str]) -> None:
        self._wsgi = wsgi
        self._path = path
        self._origins = frozenset(origins)

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get("PATH_INFO") != self._path or environ["REQUEST_METHOD"] != "GET":
            return self._wsgi(environ, start_response)
        origin = environ.get("HTTP_ORIGIN", "")

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            headers.append(("Vary", "Origin"))
            if origin in self._origins:
                headers.append(("Access-Control-Allow-Origin", origin))
                headers.append(("Access-Control-Allow-Credentials", "true"))
            return start_response(status, headers, *error)

        return self._wsgi(environ, start)
