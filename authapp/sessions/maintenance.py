"""Maintenance: ends sessions past their limits, removes old data, sets pending fences."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from redis.lock import Lock

from authapp.cache.changes import Changes
from authapp.errors import StoreUnavailable
from authapp.sessions.housekeeping import SessionHousekeeping
from authapp.storage.locks import Locks
from authapp.telemetry.logging import get_logger

RETENTION = timedelta(days=30)  # how long it can be seen that and why a session ended
BATCH = 500  # rows a transaction
INTERVAL = 3600.0  # seconds between scheduled runs
_LOCK_SECONDS = 600.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """The result of one batch.

    Attributes:
        step: the kind of work, for people.
        rows: how many rows it concerned.
    """

    step: str
    rows: int


class Maintenance:
    """Runs maintenance in batches, each one short transaction. It is safe to interrupt, and to run
    several times at once.

    Args:
        others: more steps that need Postgres alone: the kind of work, and one batch of it.
    Raises:
        StoreUnavailable: the batches until then stay done.
    """

    def __init__(
        self,
        housekeeping: SessionHousekeeping,
        changes: Changes,
        locks: Locks,
        others: Sequence[tuple[str, Callable[[], int]]] = (),
    ) -> None:
        self._housekeeping = housekeeping
        self._others = others
        self._changes = changes
        self._locks = locks
        self._stopped = threading.Event()

    def run(self) -> Iterator[Progress]:
        """Runs all steps, batch by batch."""
        sessions = self._housekeeping
        steps: tuple[tuple[str, Callable[[range], int]], ...] = (
            ("expired sessions ended", lambda pages: sessions.end_expired(BATCH, pages)),
            ("ended sessions removed", lambda pages: sessions.prune(RETENTION, BATCH, pages)),
        )
        for step, batch in steps:
            for pages in sessions.page_ranges():
                while rows := batch(pages):
                    yield Progress(step, rows)
        for step, prune in self._others:
            while rows := prune():
                yield Progress(step, rows)
        while rows := self._changes.replay():  # last: fails while Redis is away
            yield Progress("fences set", rows)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """A block that runs alone if the value is true. While Redis is down nobody can say, and the
        value is true."""
        try:
            lock = self._locks.take("maintenance", _LOCK_SECONDS)
        except StoreUnavailable:
            yield True
            return
        try:
            yield lock is not None
        finally:
            if lock is not None:
                self._release(lock)

    def run_scheduled(self) -> bool:
        """Runs, unless an instance did within the interval; returns whether it ran."""
        # never released: it runs out when the next run is due
        if self._locks.take("maintenance-schedule", INTERVAL * 0.9) is None:
            return False
        with self.alone() as alone:
            if alone:
                for progress in self.run():
                    _log.info("maintenance", step=progress.step, rows=progress.rows)
        return alone

    def keep_running(self) -> None:
        """Runs every interval, in a thread that ends with `stop` or with the process."""
        threading.Thread(target=self._loop, name="maintenance", daemon=True).start()

    def stop(self) -> None:
        """Begins no further run."""
        self._stopped.set()

    def _loop(self) -> None:
        while not self._stopped.wait(INTERVAL * random.uniform(0.9, 1.1)):  # noqa: S311 — spreads the load
            try:
                self.run_scheduled()
            except StoreUnavailable as error:
                _log.warning("maintenance_postponed", store=error.store)

    def _release(self, lock: Lock) -> None:
        try:
            self._locks.release(lock)
        except StoreUnavailable:
            _log.warning("lock_left_to_run_out")
