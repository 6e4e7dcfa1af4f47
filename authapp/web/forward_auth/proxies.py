"""How each kind of proxy asks, and what it can pass on to a browser.

Each endpoint reads its own proxy's headers. Those of other proxies may come from the client.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.wsgi import get_host

from authapp.web.forward_auth.asked_address import asked
from authapp.web.forward_auth.demands import Demand, read_ambiguous_demand, read_demand
from authapp.web.forward_auth.original_request import OriginalRequest

Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proxy:
    """The way that a kind of proxy asks.

    Attributes:
        route: the path that it asks, without the prefix of ours.
        original: reads the visitor's request.
        demand: reads what the proxy demands.
        passes_redirects: a redirect gets to the browser, and so does the body of an answer.
        only_get: it always asks with GET.
    """

    route: str
    original: Callable[[Environ], OriginalRequest]
    demand: Callable[[Environ], Demand]
    passes_redirects: bool = True
    only_get: bool = False

    @property
    def kept_statuses(self) -> frozenset[int]:
        """The statuses of answers that it shows to no browser."""
        return frozenset({200} if self.passes_redirects else {200, 401})


def _original_of_nginx(environ: Environ) -> OriginalRequest:
    url = environ.get("HTTP_X_ORIGINAL_URL")
    if url is None:  # the name in nginx's own guide, for path and query
        url = environ.get("HTTP_X_ORIGINAL_URI", "")
    return OriginalRequest(environ.get("HTTP_X_ORIGINAL_METHOD") or "GET", url)


def _demand_in_query(environ: Environ) -> Demand:
    return read_demand(environ.get("QUERY_STRING", ""))


def _forwarded_original(environ: Environ) -> OriginalRequest:
    method = environ.get("HTTP_X_FORWARDED_METHOD") or environ["REQUEST_METHOD"]
    return OriginalRequest(method, _on_asked_host(environ, environ.get("HTTP_X_FORWARDED_URI", "")))


def _demand_of_redirect(environ: Environ) -> Demand:
    """The parameters in the path; without any, those of the query.

    Caddy keeps the visitor's query, unless its own configuration has a `?`. Nobody can tell which
    of the two it is if the visitor asked with the same query.
    """
    if (parameters := asked(environ).parameters) is not None:
        return read_demand(parameters, ";")
    query = environ.get("QUERY_STRING", "")
    if query and query == environ.get("HTTP_X_FORWARDED_URI", "").partition("?")[2]:
        return read_ambiguous_demand(query)
    return read_demand(query)


def _appended_original(environ: Environ) -> OriginalRequest:
    return OriginalRequest(
        environ["REQUEST_METHOD"], _on_asked_host(environ, asked(environ).target)
    )


def _demand_in_path(environ: Environ) -> Demand:
    return read_demand(asked(environ).parameters or "", ";")


def _on_asked_host(environ: Environ, target: str) -> str:
    """The address of a path on the host that the visitor asked, which the proxy passes on."""
    host = get_host(environ)
    if not host or not target.startswith("/"):
        return target
    return f"{environ['wsgi.url_scheme']}://{host}{target}"


NGINX = Proxy(
    "/forward-auth/nginx",
    _original_of_nginx,
    _demand_in_query,
    passes_redirects=False,
    only_get=True,
)
REDIRECT = Proxy("/forward-auth/redirect", _forwarded_original, _demand_of_redirect)
ENVOY = Proxy("/forward-auth/envoy", _appended_original, _demand_in_path)
PROXIES = (NGINX, REDIRECT, ENVOY)
