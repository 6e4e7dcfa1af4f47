"""The request middleware gives our answers their id, security headers, a log line and metrics.

It stands in front of Flask, where this costs least.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Request

from authapp.web.middleware.fast_path import Answer, FastPath
from authapp.web.middleware.mount_point import put_back
from authapp.web.middleware.request_log import (
    CODE,
    begin_request,
    given_id,
    new_id,
    note_request,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Headers = list[tuple[str, str]]

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class RequestMiddleware:
    """WSGI middleware (PEP 3333) around the whole app. It leaves answers alone that are not ours.

    Args:
        app: answers the request, unless the fast path does.
        owns: whether the answer to this request of Flask's is ours; None if Flask never saw it.
        headers: added to every answer that a browser may show, unless the view set its own.
        behind_proxy: whether a trusted proxy may name the id of a request. Without a proxy only a
            client could name one.
        for_proxies: by route, the statuses of answers that a proxy reads and no browser does.
        files: routes whose answers browsers may store.
        logs_allowed: whether a proxy's request that may pass gets a line in the log.
        fast_path: answers some requests in place of the app; all its answers are ours.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        headers: Mapping[str, str],
        *,
        owns: Callable[[Request | None], bool],
        behind_proxy: bool,
        for_proxies: Mapping[str, Collection[int]],
        files: Collection[str],
        logs_allowed: bool = True,
        fast_path: FastPath | None = None,
    ) -> None:
        self._app = app
        self._owns = owns
        self._headers = headers
        self._behind_proxy = behind_proxy
        self._for_proxies = for_proxies
        self._files = files
        self._logs_allowed = logs_allowed
        self._fast_path = fast_path

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        started = time.perf_counter()
        identifier = (given_id(environ) if self._behind_proxy else None) or new_id()
        fields = begin_request(environ, identifier)
        put_back(environ)
        method = environ["REQUEST_METHOD"]

        def note(route: str | None, status: int, headers: Headers) -> None:
            headers.append(("X-Request-ID", identifier))
            has_line = self._logs_allowed or not (status == 200 and route in self._for_proxies)
            seconds = time.perf_counter() - started
            code = environ.get(CODE)
            note_request(fields, method, route, status, seconds, code=code, has_line=has_line)

        if self._fast_path and (answer := self._fast_path.try_answer(environ)):
            headers = self._headers_of(answer, environ["PATH_INFO"])
            note(environ["PATH_INFO"], answer.status, headers)
            start_response(_STATUS_LINES[answer.status], headers)
            return [answer.body] if answer.body and method != "HEAD" else []

        def start(status: str, headers: Headers, *error: Any) -> Any:
            request = environ.get("werkzeug.request")  # which Flask leaves there
            if self._owns(request):
                code, route = int(status[:3]), _route_of(request)
                if self._may_be_shown(route, code):
                    self._complete(headers, route)
                note(route, code, headers)
            return start_response(status, headers, *error)

        return self._app(environ, start)

    def _may_be_shown(self, route: str | None, status: int) -> bool:
        """Whether a browser may show the answer."""
        return route is None or status not in self._for_proxies.get(route, ())

    def _headers_of(self, answer: Answer, route: str) -> Headers:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if self._may_be_shown(route, answer.status):
            headers += self._headers.items()
        return headers

    def _complete(self, headers: Headers, route: str | None) -> None:
        present = {name.lower() for name, _ in headers}
        if route not in self._files:
            if "cache-control" in present:
                headers[:] = [pair for pair in headers if pair[0].lower() != "cache-control"]
            headers.append(("Cache-Control", "no-store"))
        headers += [pair for pair in self._headers.items() if pair[0].lower() not in present]


def _route_of(request: Request | None) -> str | None:
    """The rule that the request matched, if any."""
    rule = getattr(request, "url_rule", None)
    return rule.rule if rule else None
