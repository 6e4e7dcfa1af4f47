"""The request middleware gives our answers their id, security headers, a log line and metrics.

It stands in front of Flask, where this costs least.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Request

from authapp.web.middleware.mount_point import put_back
from authapp.web.middleware.request_log import begin_request, given_id, new_id, note_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

ROUTE = "authapp.route"  # in the WSGI environment: the route that answered without Flask


class RequestMiddleware:
    """WSGI middleware (PEP 3333) around the whole app. It leaves answers alone that are not ours.

    Args:
        app: answers the request.
        owns: whether the answer to this request of Flask's is ours; None if Flask never saw it.
        headers: added to every answer that a browser may show, unless the view set its own.
        behind_proxy: whether a trusted proxy may name the id of a request. Without a proxy only a
            client could name one.
        for_proxies: routes whose answers of 200 are read by a proxy and by no browser.
        files: routes whose answers browsers may store.
        logs_allowed: whether a proxy's request that may pass gets a line in the log.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        headers: Mapping[str, str],
        *,
        owns: Callable[[Request | None], bool],
        behind_proxy: bool,
        for_proxies: Collection[str],
        files: Collection[str],
        logs_allowed: bool = True,
    ) -> None:
        self._app = app
        self._owns = owns
        self._headers = [(name, name.lower(), value) for name, value in headers.items()]
        self._behind_proxy = behind_proxy
        self._for_proxies = for_proxies
        self._files = files
        self._logs_allowed = logs_allowed

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        started = time.perf_counter()
        identifier = (given_id(environ) if self._behind_proxy else None) or new_id()
        fields = begin_request(environ, identifier)
        put_back(environ)
        environ.pop(ROUTE, None)  # only our own code may set it

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            request = environ.get("werkzeug.request")  # which Flask leaves there
            if not self._owns(request):
                return start_response(status, headers, *error)
            code, route = int(status[:3]), _route_of(environ, request)
            is_allowed_check = code == 200 and route in self._for_proxies
            if not is_allowed_check:
                self._complete(headers, route)
            headers.append(("X-Request-ID", identifier))
            note_request(
                fields,
                environ["REQUEST_METHOD"],
                route,
                code,
                time.perf_counter() - started,
                has_line=self._logs_allowed or not is_allowed_check,
            )
            return start_response(status, headers, *error)

        return self._app(environ, start)

    def _complete(self, headers: list[tuple[str, str]], route: str | None) -> None:
        present = {name.lower() for name, _ in headers}
        if route not in self._files:
            if "cache-control" in present:
                headers[:] = [pair for pair in headers if pair[0].lower() != "cache-control"]
            headers.append(("Cache-Control", "no-store"))
        headers += [(name, value) for name, lower, value in self._headers if lower not in present]


def _route_of(environ: Mapping[str, Any], request: Request | None) -> str | None:
    """The rule that the request matched, if any."""
    if (route := environ.get(ROUTE)) is not None:
        return str(route)
    rule = getattr(request, "url_rule", None)
    return rule.rule if rule else None
