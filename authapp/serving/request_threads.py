"""The threads of a worker that answer requests."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Threads:
    """Threads that act on connections, in place of an executor that makes a future for each.

    Args:
        most: threads; each is started when there is work and no other one is idle.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[Thread] = []
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle: list[None] = []  # an entry for each thread that waits, or is about to

    def submit(self, work: Callable[[], None]) -> None:
        """Has a thread do it. Called by one thread alone."""
        self._work.put(work)
        try:
            self._idle.pop()
        except IndexError:
            if len(self._threads) < self._most:
                thread = Thread(target=self._keep_working, name=f"request-{len(self._threads)}")
                try:
                    thread.start()
                except RuntimeError:  # the system has none to give; another thread does it later
                    if not self._threads:
                        raise
                else:
                    self._threads.append(thread)

    def shutdown(self, wait: bool = False) -> None:
        """Lets the threads end after what they are at; as an executor's."""
        for _ in self._threads:
            self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _keep_working(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            self._idle.append(None)
