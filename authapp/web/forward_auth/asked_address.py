"""Reads the address that a proxy asks: `/forward-auth/envoy;role=staff/the/original/path`.

Parameters stand behind a `;`, where no path or query of a visitor can add to them. Envoy appends
the visitor's path and query.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_FOLDER = "/forward-auth/"
_ASKED = "authapp.forward_auth.asked"  # in the WSGI environment: an `Asked`
_REDIRECT, _ENVOY = "redirect", "envoy"
_LEFT_AS_IT_IS = "/!$&'()*+,;=:@~"  # RFC 3986, 3.3


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of the path that a proxy asks, beside the route.

    Attributes:
        parameters: the text between the first `;` and the visitor's path, if there is any.
        target: the visitor's path and query as they were written, where the proxy appends them.
    """

    parameters: str | None
    target: str


_NOTHING = Asked(None, "")


def asked(environ: dict[str, Any]) -> Asked:
    """The parts that `AskedAddress` found in the path of this request."""
    found = environ.get(_ASKED)
    return found if isinstance(found, Asked) else _NOTHING  # a server may set any name


class AskedAddress:
    """WSGI middleware (PEP 3333) that takes parameters and a visitor's path out of PATH_INFO.

    One of few routes is left there, for the fast path and for Flask. The visitor's query is taken
    out, too, because the checks of our own queries are not for it.

    Args:
        url_prefix: comes before each of our paths.
    """

    def __init__(self, wsgi: "WSGIApplication", url_prefix: str) -> None:
        self._wsgi = wsgi
        self._folder = url_prefix + _FOLDER

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(self._folder):
            environ.pop(_ASKED, None)
            rest = path[len(self._folder) :]
            if rest.startswith(_ENVOY):
                self._split(environ, rest)
            elif rest.startswith(f"{_REDIRECT};"):
                environ["PATH_INFO"] = self._folder + _REDIRECT
                environ["QUERY_STRING"] = ""
                environ[_ASKED] = Asked(rest[len(_REDIRECT) + 1 :], "")
        return self._wsgi(environ, start_response)

    def _split(self, environ: dict[str, Any], rest: str) -> None:
        own, slash, path = rest.partition("/")
        name, semicolon, parameters = own.partition(";")
        if name != _ENVOY:
            return
        route = self._folder + _ENVOY
        target = _as_written(environ, route, slash + path)
        environ["PATH_INFO"], environ["QUERY_STRING"] = route, ""
        environ[_ASKED] = Asked(parameters if semicolon else None, target)


def _as_written(environ: dict[str, Any], route: str, path: str) -> str:
    """The visitor's path and query, encoded as the visitor wrote them if the server tells.

    Args:
        route: what stands before them, but for the mount point.
        path: the visitor's path, decoded.
    """
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    _, found, behind = raw.partition(route)
    _, slash, written = behind.partition("/")
    written_path = f"{slash}{written}".partition("?")[0]
    # else another layer changed the path, or the server does not tell
    if found and unquote_to_bytes(written_path.encode("latin-1")) == path.encode("latin-1"):
        return f"{slash}{written}"
    query = environ.get("QUERY_STRING", "")
    encoded = quote(path.encode("latin-1"), safe=_LEFT_AS_IT_IS)
    return f"{encoded}?{query}" if query else encoded
