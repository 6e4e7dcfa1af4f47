"""When a store is worth asking: a breaker that lets calls run side by side."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from authapp.errors import StoreUnavailable

T = TypeVar("T")


class Breaker:
    """Stops asking a store that fails, and asks again after a while.

    Closed, calls pass, many at once. Open, they fail at once; after `reset_seconds` one caller
    runs `recover` and, if that succeeds, closes it. (pybreaker holds a lock while the guarded call
    runs, so that the threads of a worker would ask Redis one after the other.)

    Args:
        store: its name, for `StoreUnavailable`.
        failures: in a row, until it opens.
        reset_seconds: from opening to the next try.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        store: str,
        failures: int = 5,
        reset_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._failures_to_open = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None  # None: closed
        self._trying = threading.Lock()
        self.recover: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def call(self, command: Callable[[], T]) -> T:
        """What `command` returns.

        Raises:
            StoreUnavailable: `command` raised it, or it is open.
        """
        if self._open_until is not None:
            self._try_to_close()
        return self.attempt(command)

    def attempt(self, command: Callable[[], T]) -> T:
        """As `call`, even when it is open: for `recover` itself."""
        try:
            answer = command()
        except StoreUnavailable:
            self._failures += 1
            if self._failures >= self._failures_to_open:
                self.open()
            raise
        self._failures = 0
        return answer

    def open(self) -> None:
        """Opens it at once: what the store holds must not be trusted before `recover` ran."""
        self._open_until = self._clock() + self._reset_seconds

    def _try_to_close(self) -> None:
        until = self._open_until
        if until is None:
            return
        if self._clock() < until or not self._trying.acquire(blocking=False):
            raise StoreUnavailable(self._store)
        try:
            self.recover()
        except StoreUnavailable:
            self.open()
            raise StoreUnavailable(self._store) from None
        else:
            if self._open_until == until:  # nobody opened it again meanwhile
                self._failures = 0
                self._open_until = None
        finally:
            self._trying.release()
