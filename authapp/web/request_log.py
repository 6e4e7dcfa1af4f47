"""The id of each request, one log line for it, and its part in the metrics."""

import logging
import random
import re
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from authapp import metrics
from authapp.observability import log_line

# what every proxy and tracer makes, and nothing that could be more than a name in a log
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")

# a method that nobody knows is what somebody typed: not a label of its own
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = logging.getLogger("authapp.request")


def request_id() -> str:
    """The id of the current request; it is in logs, in `X-Request-ID` and in error answers."""
    found: str | None = g.get("request_id")
    if found is None:
        found = g.request_id = new_id()
    return found


def new_id() -> str:
    return f"{random.getrandbits(128):032x}"


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
        response.headers["X-Request-ID"] = identifier = request_id()
        seconds = time.perf_counter() - g.get("started", time.perf_counter())
        route = request.url_rule.rule if request.url_rule else None
        note_request(identifier, request.method, route, response.status_code, seconds)
        return response

    app.before_request(start)
    app.after_request(finish)


def given_id(environ: Mapping[str, Any], *, behind_proxy: bool) -> str | None:
    """The id that the proxy in front gave the request; None where there is none to believe."""
    if not behind_proxy:
        return None
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    return sent if _ACCEPTED.fullmatch(sent) else None


def note_request(
    identifier: str, method: str, route: str | None, status: int, seconds: float
) -> None:
    """Logs and counts a request that was answered."""
    fields = {
        "event": "request",
        "request_id": identifier,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    log_line(_log, fields)
    label = method if route and method in _METHODS else "other"
    count, time_taken = _meters(label, route or "none", status)
    count.inc()
    time_taken.observe(seconds)


@cache  # to look labels up costs as much as to count
def _meters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(method, route, status), metrics.REQUEST_SECONDS.labels(route)
