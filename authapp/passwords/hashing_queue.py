"""The password hashing queue: one thread per process hashes, and few requests may wait for it.

bcrypt keeps a core busy for a fifth of a second and releases the interpreter lock during that time.
If request threads hashed by themselves, a few log-ins would delay every session check, and waiting
log-ins would fill all request threads. So one thread of the lowest priority hashes, and log-ins may
occupy fewer than half of the request threads; further log-ins are asked to come back later.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from typing import Protocol, TypeVar

from authapp.errors import Busy
from authapp.storage.deadlines import remaining
from authapp.telemetry import metrics
from authapp.telemetry.forks import start_in_forks

T = TypeVar("T")

_NICENESS = 19
_LONGEST = 60.0  # seconds to wait for a hash where there is no deadline


class CountedAttempt(Protocol):
    """An attempt that a limit has counted."""

    def take_back(self) -> None:
        """Uncounts the attempt."""


class HashingQueue:
    """The queue of one process, with a fixed number of places.

    Args:
        places: how many log-ins may hash, or wait for their turn, at the same time.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._start()
        start_in_forks(self._start)  # a forked process starts with an empty queue

    def _start(self) -> None:
        self._free = threading.BoundedSemaphore(self._places)
        self._executor = ThreadPoolExecutor(1, "hashing", initializer=_lower_priority)

    @contextmanager
    def place(self, *counted: CountedAttempt) -> Iterator[None]:
        """Occupies a place for everything that belongs to one log-in.

        Args:
            counted: the attempt, as limits counted it. It is taken back when no place is free,
                because the attempt was told nothing about a password.
        Raises:
            Busy: no place is free.
        """
        if not self._free.acquire(blocking=False):
            for attempt in counted:
                attempt.take_back()
            raise Busy
        metrics.HASHING.inc()
        try:
            yield
        finally:
            metrics.HASHING.dec()
            self._free.release()

    def run(self, work: Callable[[], T]) -> T:
        """Runs `work` on the hashing thread and returns its result.

        Raises:
            Busy: its turn did not come before the deadline (`deadlines.deadline`).
        """
        future = self._executor.submit(work)
        try:
            return future.result(remaining(_LONGEST))
        except TookTooLong:
            future.cancel()  # if it already runs, nobody looks at its result
            raise Busy from None


def _lower_priority() -> None:
    # on Linux each thread has its own priority; elsewhere the whole process has one
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
