"""The id of each request, and one log line for it."""

import time
import uuid

import structlog
from flask import Flask, Response, g, request

_log = structlog.get_logger("authapp.request")


def request_id() -> str:
    """The id of the current request, made at its first use; it is in logs and in error answers."""
    found: str | None = g.get("request_id")
    if found is None:
        found = g.request_id = uuid.uuid4().hex
    return found


def register_request_log(app: Flask) -> None:
    """Logs each request by its route, not its path: paths may hold what people typed."""

    def start() -> None:
        g.started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id())

    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        _log.info(
            "request",
            method=request.method,
            route=request.url_rule.rule if request.url_rule else None,
            status=response.status_code,
            ms=round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 1),
        )
        return response

    app.before_request(start)
    app.after_request(finish)
