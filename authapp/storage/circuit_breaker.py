"""The circuit breaker: stops asking a store that fails, and finds out when it has recovered."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from authapp.errors import StoreUnavailable
from authapp.telemetry import metrics
from authapp.telemetry.logging import get_logger

T = TypeVar("T")

_log = get_logger(__name__)
_LONGEST_TRY = 10.0  # seconds to wait for a recovery that is running


class Breaker:
    """Stops asking a store that fails, until it recovered.

    Closed, calls pass, many at once. Open, they fail at once, so nobody waits for a store that is
    known to be away; a thread of its own runs `recover` every `reset_seconds` until that succeeds,
    and closes it. Half open, which `recover` decides, what keeps the store true may be sent to it,
    and nothing else yet. (pybreaker holds a lock while the guarded call runs, so that the threads
    of a worker would ask Redis one after the other, and lets requests do the probing.)

    Args:
        store: its name, for `StoreUnavailable`.
        failures: in a row, until it opens.
        reset_seconds: from opening to the first try, and between tries.
        pause: waits so many seconds; by itself it waits until `retire`, if that is sooner.
    """

    def __init__(
        self,
        store: str,
        failures: int = 5,
        reset_seconds: float = 1.0,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.store = store
        self._failures_to_open = failures
        self._reset_seconds = reset_seconds
        self._retired = threading.Event()
        self._pause = pause or self._retired.wait
        self._failures = 0
        self._lock = threading.Lock()
        self._openings = 0
        self._looked_at = 0  # how many openings there were when the recovery under way looked
        self._is_open = False
        self._is_half_open = False
        self._recovering: threading.Thread | None = None
        self.recover: Callable[[], None] = lambda: None
        metrics.BREAKER_OPEN.labels(store).set(0)

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def is_half_open(self) -> bool:
        return self._is_half_open

    def half_open(self) -> None:
        """For `recover`: the store answers, and the changes it missed are about to be looked up."""
        with self._lock:
            self._looked_at = self._openings
            self._is_half_open = self._is_open

    def admit(self) -> None:
        """Returns if the store is worth asking.

        Raises:
            StoreUnavailable: it is open.
        """
        if self._is_open:
            self._keep_recovering()
            raise StoreUnavailable(self.store)

    def succeeded(self) -> None:
        """The store answered."""
        self._failures = 0

    def failed(self) -> None:
        """The store did not answer."""
        self._failures += 1
        if self._failures >= self._failures_to_open:
            self.open()

    def call(self, command: Callable[[], T]) -> T:
        """Runs `command` unless the circuit is open, and returns its result.

        Raises:
            StoreUnavailable: `command` raised it, or it is open.
        """
        self.admit()
        return self.attempt(command)

    def attempt(self, command: Callable[[], T]) -> T:
        """As `call`, even when it is open: for `recover` itself."""
        try:
            answer = command()
        except StoreUnavailable:
            self.failed()
            raise
        self.succeeded()
        return answer

    def open(self) -> None:
        """Opens it at once: what the store holds must not be trusted before `recover` ran.

        A recovery that is under way looked before this, and will not close it.
        """
        with self._lock:
            self._openings += 1
            opens = not self._is_open
            self._is_open, self._is_half_open = True, False
            metrics.BREAKER_OPEN.labels(self.store).set(1)
        if opens:
            _log.warning("breaker_opened", store=self.store)
        self._keep_recovering()

    def retire(self) -> None:
        """Ends its recovery for good; returns when that is over. Open it stays open."""
        with self._lock:
            self._retired.set()
            thread = self._recovering
        if thread is not None:
            thread.join(_LONGEST_TRY)

    def _keep_recovering(self) -> None:
        # None is alive in a process that was forked meanwhile, or after a defect in `recover`
        with self._lock:
            thread = self._recovering
            if self._retired.is_set() or not self._is_open:
                return
            if thread is not None and thread.is_alive():
                return
            name = f"{self.store}-recovery"
            thread = threading.Thread(target=self._recover, name=name, daemon=True)
            with suppress(RuntimeError):  # the system has none to give: the next call tries again
                thread.start()
                self._recovering = thread

    def _recover(self) -> None:
        while True:
            self._pause(self._reset_seconds)
            if self._retired.is_set() or self.try_to_close():
                return

    def try_to_close(self) -> bool:
        """Runs `recover`; whether that made it close."""
        self._looked_at = self._openings
        try:
            self.recover()
        except StoreUnavailable:
            self._is_half_open = False
            return False
        with self._lock:
            if self._looked_at != self._openings:  # somebody opened it again meanwhile
                self._is_half_open = False
                return False
            self._failures = 0
            self._is_open = self._is_half_open = False
            self._recovering = None
            metrics.BREAKER_OPEN.labels(self.store).set(0)
        _log.info("breaker_closed", store=self.store)
        return True
