"""Makes what granian hands over and takes back what gunicorn's WSGI is, where the app relies on it.

A layer in front of the application, for `granian.py`.
"""

from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_OF_A_REQUEST = ("HTTP_", "CONTENT_")
_OF_PROXIES = tuple(f"HTTP_X_FORWARDED_{what}" for what in ("FOR", "HOST", "PROTO", "PREFIX"))
_SET_FOR_EACH = {
    *("GATEWAY_INTERFACE", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "REQUEST_METHOD"),
    *("SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE"),
}


class GranianLayer:
    """WSGI (PEP 3333).

    Args:
        environment: of this process, which granian lays under every request. Names that could
            pass for a part of a request are removed here, as `HTTP_PROXY` for a header; the others
            from each request. SCRIPT_NAME is the mount point, as for gunicorn.
        target_limit: how long path and query may be together.
    """

    def __init__(
        self, app: "WSGIApplication", environment: MutableMapping[str, str], target_limit: int
    ) -> None:
        self._app = app
        for name in [name for name in environment if name.startswith(_OF_A_REQUEST)]:
            del environment[name]
        self._of_the_process = tuple(environment.keys() - _SET_FOR_EACH)
        self._target_limit = target_limit
        self._mount_point = environment.get("SCRIPT_NAME", "").rstrip("/")

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        for name in self._of_the_process:
            environ.pop(name, None)
        if status := self._refusal(environ):
            return _refuse(status, start_response)
        if self._mount_point:
            environ["SCRIPT_NAME"] = self._mount_point
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(self._mount_point)
        if not environ["HTTP_HOST"]:
            del environ["HTTP_HOST"]  # none was sent
        del environ["wsgi.input_terminated"]  # nor does it tell of one cut short before its length
        environ["wsgi.multiprocess"] = True  # there may be other workers

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[..., object]:
            if not all(value.isascii() for _, value in headers):
                headers = [(name, _as_granian_wants(value)) for name, value in headers]
            return start_response(status, headers, *rest)

        return self._app(environ, start)

    def _refusal(self, environ: dict[str, Any]) -> str | None:
        if "HTTP_TRANSFER_ENCODING" in environ:
            # granian ends a chunked body that is cut short as if it were whole, and tells nobody
            return "411 Length Required"
        if len(environ["PATH_INFO"]) + len(environ["QUERY_STRING"]) > self._target_limit:
            return "414 URI Too Long"
        if not f"{environ['PATH_INFO']}/".startswith(f"{self._mount_point}/"):
            return "404 Not Found"
        if "," in environ["HTTP_HOST"]:  # two headers
            return "400 Bad Request"
        for name in _OF_PROXIES:
            # granian empties a header with anything but ASCII, and so what the proxy wrote behind
            # it; of another one, which the client sent, the end would be believed in its place
            if name in environ and not all(part.strip() for part in environ[name].split(",")):
                return "400 Bad Request"
        return None


def _as_granian_wants(value: str) -> str:
    """WSGI's text is bytes as latin-1; granian writes text as UTF-8, which those bytes are."""
    return value.encode("latin-1").decode("utf-8", "replace")


def _refuse(status: str, start_response: "StartResponse") -> list[bytes]:
    """And closes, as what follows can't be told from the body."""
    body = f"{status[4:]}\n".encode()
    headers = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    start_response(status, headers)
    return [body]
