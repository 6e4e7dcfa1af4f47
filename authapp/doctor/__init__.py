"""`flask --app wsgi auth doctor`: whether settings and stores are in order, and the remedy.

settings, guard_rules, postgres, redis_servers and mail examine one thing each and yield findings; a
store that can't be asked is a finding too, and the rest is still examined. `outside` looks at a
site through its proxy, for `doctor --url`.
"""

import queue
import time
from collections.abc import Callable, Iterator
from threading import Thread

from authapp.config import Config
from authapp.doctor import guard_rules, mail, postgres, redis_servers, settings
from authapp.doctor.clocks import Clocks
from authapp.doctor.findings import Finding, State

__all__ = ["Finding", "State", "examine"]

STORE_SECONDS = 10.0  # the longest wait for stores and mail; one that is frozen may hold a driver


def examine(
    config: Config,
    pool_size: int,
    now: Callable[[], float] = time.time,
    seconds: float = STORE_SECONDS,
    *,
    guards: bool = True,
) -> list[Finding]:
    """
    Args:
        pool_size: connections to Postgres that each worker may open.
        now: this machine's clock, in seconds since 1970.
        seconds: the longest wait for the stores.
        guards: forward-auth is mounted.
    """
    clocks = Clocks(now)
    stores = [
        _Examination("postgres", postgres.examine(config, pool_size, clocks)),
        _Examination("redis", redis_servers.examine(config, clocks)),
        _Examination("mail", mail.examine(config)),
    ]
    found = list(settings.examine(config, guards=guards))
    if guards:
        found += guard_rules.examine(config)
    deadline = time.monotonic() + seconds
    for store in stores:
        found += store.until(deadline)
    return [*found, clocks.finding()]


class _Examination:
    """Examines a store in a thread, which is left behind if the store holds it for ever."""

    def __init__(self, store: str, findings: Iterator[Finding]) -> None:
        self._store = store
        self._found: queue.SimpleQueue[Finding | bool] = queue.SimpleQueue()
        Thread(target=self._run, args=(findings,), daemon=True).start()

    def until(self, deadline: float) -> list[Finding]:
        """The findings until then, and whether they are all."""
        found: list[Finding] = []
        while True:
            try:
                item = self._found.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                text = "it stopped answering"
                remedy = "see whether its process is frozen, or its disk or network hangs"
                return [*found, Finding(self._store, State.FAIL, text, remedy)]
            if isinstance(item, Finding):
                found.append(item)
            elif item:
                return found
            else:
                text = "the examination broke off; this is a defect"
                return [*found, Finding(self._store, State.FAIL, text, "report the error above")]

    def _run(self, findings: Iterator[Finding]) -> None:
        complete = False
        try:
            for finding in findings:
                self._found.put(finding)
            complete = True
        finally:
            self._found.put(complete)
