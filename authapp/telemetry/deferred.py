"""Deferred work: the log lines and counts of many requests are written together, a moment later.

Writing one line, or one count that processes share, takes about as long as some of the answers.
"""

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

_MOMENT = 0.1  # seconds


class Meter(Protocol):
    """A counter or gauge that amounts can be added to."""

    def inc(self, amount: float) -> None: ...


_works: list[Callable[[], None]] = []
_ends: list["weakref.WeakMethod[Callable[[], None]]"] = []
_is_due = False  # read without a lock by each request: whoever sets it wakes the thread
_due = threading.Event()
_starting = threading.Lock()
_worker: threading.Thread | None = None

# far more than are counted in a moment: the bound is for a process that can start no thread
_counts: deque[tuple[Meter, float]] = deque(maxlen=100_000)
_adding = threading.Lock()


def register(work: Callable[[], None]) -> Callable[[], None]:
    """Has `work` called a moment after each `request_flush`, and when the process ends."""
    _works.append(work)
    return work


def request_flush() -> None:
    """Asks for a flush a moment later."""
    global _is_due  # noqa: PLW0603 - one a process, as all here
    if not _is_due:
        _is_due = True
        _due.set()
    if _worker is None:
        _start()


def count(meter: Meter, amount: float = 1) -> None:
    """Counts what comes with each request: a moment later it is in the metrics."""
    _counts.append((meter, amount))
    if not (_is_due and _worker):
        request_flush()


def count_all(amounts: Iterable[tuple[Meter, float]]) -> None:
    """As `count`, for several meters."""
    _counts.extend(amounts)
    if not (_is_due and _worker):
        request_flush()


@register
def add_counts() -> None:
    """Adds what all threads counted so far to the metrics."""
    with _adding:
        amounts: dict[Meter, float] = {}
        for _ in range(len(_counts)):
            meter, amount = _counts.popleft()
            amounts[meter] = amounts.get(meter, 0) + amount
        for meter, amount in amounts.items():
            meter.inc(amount)


def before_end(work: Callable[[], None]) -> None:
    """Has this bound method called when the process ends, if its object still lives."""
    _ends[:] = [known for known in _ends if known() is not None]
    _ends.append(weakref.WeakMethod(work))


def end() -> None:
    """Does what is left to do when the process ends."""
    for known in list(_ends):
        if (work := known()) is not None:
            work()
    flush()


def flush() -> None:
    """Does all deferred work now; at the end of a process, and for tests."""
    for work in list(_works):
        work()


def _start() -> None:
    global _worker  # noqa: PLW0603
    with _starting:
        if _worker is None:
            worker = threading.Thread(target=_keep_working, name="deferred", daemon=True)
            with suppress(RuntimeError):  # no thread is available: the next request tries again
                worker.start()
                _worker = worker


def _keep_working() -> None:
    global _is_due, _worker  # noqa: PLW0603
    try:
        while True:
            _due.wait()
            time.sleep(_MOMENT)
            _due.clear()
            _is_due = False  # before the flush: work that comes after it asks for another
            flush()
    finally:  # after an error, which is shown; the next request starts another thread
        _worker = None


def _start_anew() -> None:
    """Starts without a thread in a forked process: the thread and the counts are its parent's."""
    global _is_due, _due, _starting, _worker, _adding  # noqa: PLW0603
    _is_due, _due, _starting, _worker = False, threading.Event(), threading.Lock(), None
    _counts.clear()
    _adding = threading.Lock()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(end)
