"""The id of each request, one log line for it, and its part in the metrics."""

import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from flask import Flask, Response, g, request

from authapp import metrics

# what every proxy and tracer makes, and nothing that could be more than a name in a log
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")

# a method that nobody knows is what somebody typed: not a label of its own
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = structlog.get_logger("authapp.request")


def request_id() -> str:
    """The id of the current request; it is in logs, in `X-Request-ID` and in error answers."""
    found: str | None = g.get("request_id")
    if found is None:
        found = g.request_id = new_id()
    return found


def new_id() -> str:
    return uuid.uuid4().hex


def register_request_log(app: Flask, *, behind_proxy: bool) -> None:
    """Logs each request by its route, not its path: paths may hold what people typed.

    Args:
        behind_proxy: the proxy in front says the id, if it has one; otherwise only a client could.
    """

    def start() -> None:
        g.started = time.perf_counter()
        if (given := given_id(request.environ, behind_proxy=behind_proxy)) is not None:
            g.request_id = given
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id())

    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        seconds = time.perf_counter() - g.get("started", time.perf_counter())
        route = request.url_rule.rule if request.url_rule else None
        note_request(request.method, route, response.status_code, seconds)
        return response

    app.before_request(start)
    app.after_request(finish)


def given_id(environ: Mapping[str, Any], *, behind_proxy: bool) -> str | None:
    """The id that the proxy in front gave the request; None where there is none to believe."""
    if not behind_proxy:
        return None
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    return sent if _ACCEPTED.fullmatch(sent) else None


def note_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Logs and counts a request that was answered."""
    _log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))
    label = method if route and method in _METHODS else "other"
    metrics.REQUESTS.labels(label, route or "none", status).inc()
    metrics.REQUEST_SECONDS.labels(route or "none").observe(seconds)
