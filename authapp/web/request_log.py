"""The id of each request, one log line for it, and its part in the metrics."""

import re
import time
import uuid

import structlog
from flask import Flask, Response, g, request

from authapp import metrics

# what every proxy and tracer makes, and nothing that could be more than a name in a log
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = structlog.get_logger("authapp.request")


def request_id() -> str:
    """The id of the current request; it is in logs, in `X-Request-ID` and in error answers."""
    found: str | None = g.get("request_id")
    if found is None:
        found = g.request_id = uuid.uuid4().hex
    return found


def register_request_log(app: Flask, *, behind_proxy: bool) -> None:
    """Logs each request by its route, not its path: paths may hold what people typed.

    Args:
        behind_proxy: the proxy in front says the id, if it has one; otherwise only a client could.
    """

    def start() -> None:
        g.started = time.perf_counter()
        sent = request.headers.get("X-Request-ID", "")
        if behind_proxy and _ACCEPTED.fullmatch(sent):
            g.request_id = sent
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id())

    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        seconds = time.perf_counter() - g.get("started", time.perf_counter())
        route = request.url_rule.rule if request.url_rule else None
        _log.info(
            "request",
            method=request.method,
            route=route,
            status=response.status_code,
            ms=round(seconds * 1000, 1),
        )
        # an unknown method or path is what somebody typed: not a label of its own
        method = request.method if route else "other"
        metrics.REQUESTS.labels(method, route or "none", response.status_code).inc()
        metrics.REQUEST_SECONDS.labels(route or "none").observe(seconds)
        return response

    app.before_request(start)
    app.after_request(finish)
