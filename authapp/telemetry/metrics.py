"""The metrics, for Prometheus. Labels are few and known: no ids, no emails, no addresses.

All processes that share `PROMETHEUS_MULTIPROC_DIR` are counted together, where it is set before
this is imported (`serving/metrics_dir.py` does).
"""

import os
from bisect import bisect_left

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from authapp.telemetry.deferred import Meter, add_counts

CONTENT_TYPE = CONTENT_TYPE_LATEST

_slots: dict[int, str] = {}  # by pid


def count_in(slot: str) -> None:
    """Has this process go on counting where the process that had this slot before it ended.

    Each process writes files of its own. Named by pid, the files would become more and more as
    workers are replaced.

    Opens the files of all kinds, so that nobody can remove their folder between now and then.

    Args:
        slot: held by no other live process; not a number, which could be a pid.

    Raises:
        FileNotFoundError: somebody was faster, and removed the folder.
    """
    _slots[os.getpid()] = slot
    REQUEST_SECONDS.labels("/healthz")  # the only histogram; of the others some have no labels


def _process() -> str:
    pid = os.getpid()
    return _slots.get(pid, str(pid))  # a process forked by a worker counts for itself


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.ValueClass = values.MultiProcessValue(_process)  # type: ignore[no-untyped-call]

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds

REQUESTS = Counter("authapp_requests", "Requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "authapp_request_seconds", "Time to answer a request", ["route"], buckets=_BUCKETS
)

STORE_ERRORS = Counter("authapp_store_errors", "Times a store could not be asked", ["store"])
BREAKER_OPEN = Gauge(
    "authapp_breaker_open",
    "Worker processes that do not ask this store, until it recovered",
    ["store"],
    multiprocess_mode="livesum",
)
COPIES = Counter(
    "authapp_copies",
    "Copies looked for in Redis: hit, miss, or unreadable (planted, moved, key retired)",
    ["kind", "outcome"],
)
FILLS = Counter(
    "authapp_fills",
    "Copies offered to Redis: filled, or refused because something happened meanwhile",
    ["kind", "outcome"],
)
STALE_COPIES = Counter(
    "authapp_stale_copies", "Sessions answered from an old copy while Postgres could not be asked"
)
PENDING_FENCES = Gauge(
    "authapp_pending_fences",
    "Fences written down for Redis to take later, at the last look",
    multiprocess_mode="mostrecent",
)
LOST_COMMITS = Counter(
    "authapp_lost_commits",
    "Facts that a copy knew and Postgres had lost: end, data, session, end_of_all, password",
    ["found"],
)
MAILS = Counter(
    "authapp_mails",
    "Mails: queued, sent, retried (put off), expired (dropped, too late), failed (dropped)",
    ["outcome"],
)
MAILS_WAITING = Gauge(
    "authapp_mails_waiting", "Mails that wait, at the last look", multiprocess_mode="mostrecent"
)
OLDEST_MAIL_SECONDS = Gauge(
    "authapp_oldest_mail_seconds",
    "How long the oldest of the mails that wait has waited, at the last look",
    multiprocess_mode="mostrecent",
)
LOGINS = Counter(
    "authapp_logins",
    "Log-ins: succeeded, provisional (Postgres away), refused, limited, busy, unavailable",
    ["outcome"],
)
HASHING = Gauge(
    "authapp_hashing_occupied",
    "Log-ins and other uses of passwords that hash, or wait for it",
    multiprocess_mode="livesum",
)


class Stopwatch:
    """Observes times as `Histogram.observe` does, in the way of `deferred.count_all`."""

    def __init__(self, histogram: Histogram) -> None:
        # the library has no way to add several at once
        self._buckets, self._sum = histogram._buckets, histogram._sum
        self._bounds = histogram._upper_bounds

    def amounts(self, seconds: float) -> tuple[tuple[Meter, float], ...]:
        """The meters that one observation moves, and the amount that it adds to each."""
        return (self._buckets[bisect_left(self._bounds, seconds)], 1), (self._sum, seconds)


def exposition() -> bytes:
    """All metrics in the text format of Prometheus.

    Those of this process are counted up to now, those of other processes up to a moment ago.
    """
    add_counts()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
