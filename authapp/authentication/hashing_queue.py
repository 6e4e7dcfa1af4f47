"""Where passwords are hashed: on one thread a process that yields to all others, for few at a time.

bcrypt takes a fifth of a second of a core and lets go of the interpreter meanwhile. Hashing in the
threads of requests, a few log-ins make every session check wait; log-ins that wait in them fill
them all. So one thread hashes, at the lowest priority, and fewer than half of the threads of
requests may be occupied with log-ins; the rest are told to come back.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from typing import TypeVar

from authapp.errors import Busy
from authapp.storage.resilience import remaining
from authapp.telemetry import metrics
from authapp.telemetry.forks import start_in_forks

T = TypeVar("T")

_NICENESS = 19
_LONGEST = 60.0  # seconds to wait for a hash where there is no deadline


class HashingSlots:
    """
    Args:
        at_once: how many may hash, or wait for it, at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._start()
        start_in_forks(self._start)  # with nobody in its slots

    def _start(self) -> None:
        self._free = threading.BoundedSemaphore(self._at_once)
        self._executor = ThreadPoolExecutor(1, "hashing", initializer=_yield_to_others)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Occupies one of the slots, for all that belongs to one log-in.

        Raises:
            Busy: none is free.
        """
        if not self._free.acquire(blocking=False):
            raise Busy
        metrics.HASHING.inc()
        try:
            yield
        finally:
            metrics.HASHING.dec()
            self._free.release()

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, on the hashing thread.

        Raises:
            Busy: its turn did not come before the deadline (`resilience.deadline`).
        """
        future = self._executor.submit(work)
        try:
            return future.result(remaining(_LONGEST))
        except TookTooLong:
            future.cancel()  # unless it runs: then its result is not looked at
            raise Busy from None


def _yield_to_others() -> None:
    # on Linux the priority is each thread's own, elsewhere of the whole process
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
