"""The id of each request, one log line for it, and its part in the metrics."""

import logging
import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from prometheus_client import Counter

from authapp import metrics
from authapp.log_lines import log_line
from authapp.observability import REQUEST_ID

# what every proxy and tracer makes, and nothing that could be more than a name in a log
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")

# a method that nobody knows is what somebody typed: not a label of its own
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = logging.getLogger("authapp.request")


def request_id() -> str:
    """The id of the current request; it is in logs, in `X-Request-ID` and in error answers."""
    return REQUEST_ID.get() or new_id()


def new_id() -> str:
    return f"{random.getrandbits(128):032x}"


def given_id(environ: Mapping[str, Any]) -> str | None:
    """The id that the proxy in front gave the request; None where there is none to believe."""
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    return sent if _ACCEPTED.fullmatch(sent) else None


def note_request(
    identifier: str, method: str, route: str | None, status: int, seconds: float
) -> None:
    """Logs and counts a request that was answered.

    Args:
        route: and not the path, which may hold what people typed.
    """
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
    counter, stopwatch = _meters(label, route or "none", status)
    metrics.count(counter)
    stopwatch.observe(seconds)


@cache  # to look labels up costs as much as to count
def _meters(method: str, route: str, status: int) -> tuple[Counter, metrics.Stopwatch]:
    return (
        metrics.REQUESTS.labels(method, route, status),
        metrics.Stopwatch(metrics.REQUEST_SECONDS.labels(route)),
    )
