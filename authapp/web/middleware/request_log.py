"""The id of each request, one log line for it, and its part in the metrics.

A line says from which address a request came and, where that is known, the id of the user.
"""

import logging
import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

from prometheus_client import Counter

from authapp.telemetry import metrics
from authapp.telemetry.deferred import count_all
from authapp.telemetry.logging import REQUEST_FIELDS, log_request

# what every proxy and tracer makes, and nothing that could be more than a name in a log
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")

# a method that nobody knows is what somebody typed: not a label of its own
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

FIELDS = "authapp.log_fields"  # in the WSGI environment: what each log line of the request says
CODE = "authapp.code"  # in the WSGI environment: the code of the error that answers the request

MAX_ADDRESS = 45  # characters; no IP address is longer

# a proxy may pass on as an address whatever a client sent: it ends no field, line or escape
_IN_NO_ADDRESS = re.compile(r"[^ !#-\[\]-~]")

_log = logging.getLogger("authapp.request")


def request_id() -> str:
    """The id of the current request; it is in logs, in `X-Request-ID` and in error answers."""
    identifier: str | None = (REQUEST_FIELDS.get() or {}).get("request_id")
    return identifier or new_id()


def new_id() -> str:
    return f"{random.getrandbits(128):032x}"


def given_id(environ: Mapping[str, Any]) -> str | None:
    """The id that the proxy in front gave the request; None where there is none to believe."""
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    return sent if _ACCEPTED.fullmatch(sent) else None


def begin_request(environ: dict[str, Any], identifier: str) -> dict[str, Any]:
    """Starts the fields that each log line of this request gets; returns them."""
    address = (environ.get("REMOTE_ADDR") or "")[:MAX_ADDRESS]
    fields = {"request_id": identifier, "address": _IN_NO_ADDRESS.sub("?", address)}
    environ[FIELDS] = fields
    REQUEST_FIELDS.set(fields)
    return fields


def note_user(environ: Mapping[str, Any], user_id: UUID) -> None:
    """Add the user's id to the log lines of this request from here on."""
    fields = environ.get(FIELDS)  # none of ours where another app embeds us
    if isinstance(fields, dict):
        fields["user_id"] = user_id


def note_request(
    fields: Mapping[str, Any],
    method: str,
    route: str | None,
    status: int,
    seconds: float,
    *,
    code: str | None = None,
    has_line: bool = True,
) -> None:
    """Logs and counts a request that was answered.

    Args:
        fields: what each log line of the request says.
        route: and not the path, which may hold what people typed.
        code: of the error that answers it.
        has_line: whether the request gets a line in the log.
    """
    if has_line:
        answer = {"status": status, "code": code} if code else {"status": status}
        _log_line(fields, method, route, answer, seconds)
    label = method if route and method in _METHODS else "other"
    counter, stopwatch = _meters(label, route or "none", status)
    count_all(((counter, 1), *stopwatch.amounts(seconds)))


def _log_line(
    fields: Mapping[str, Any],
    method: str,
    route: str | None,
    answer: Mapping[str, Any],
    seconds: float,
) -> None:
    line = {
        "event": "request",
        **fields,
        "method": method,
        "route": route,
        **answer,
        "ms": round(seconds * 1000, 1),
    }
    log_request(_log, line)


@cache  # to look labels up costs as much as to count
def _meters(method: str, route: str, status: int) -> tuple[Counter, metrics.Stopwatch]:
    return (
        metrics.REQUESTS.labels(method, route, status),
        metrics.Stopwatch(metrics.REQUEST_SECONDS.labels(route)),
    )
