"""Work that no answer waits for: one thread a process, a bounded queue."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from authapp.telemetry.forks import start_in_forks
from authapp.telemetry.logging import get_logger

_log = get_logger(__name__)


class Background:
    """Runs tasks one after the other; optional ones, so those beyond the queue are dropped.

    Args:
        size: tasks that may wait.
    """

    def __init__(self, size: int = 100) -> None:
        self._size = size
        self._start()
        start_in_forks(self._start)  # what waits is for the parent to do

    def _start(self) -> None:
        self._room = threading.BoundedSemaphore(self._size)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="background")  # starts no thread

    def submit(self, task: Callable[[], None]) -> None:
        if not self._room.acquire(blocking=False):
            _log.warning("background_task_dropped")
            return

        def run() -> None:
            try:
                task()
            finally:
                self._room.release()

        try:
            future = self._executor.submit(run)
        except RuntimeError as error:  # the system has no thread to give, or the process ends
            _log.warning("background_task_dropped", reason=str(error))
            return
        future.add_done_callback(lambda done: done.result())  # an error is a defect: show it

    def drain(self) -> None:
        """Waits for the tasks submitted so far; for tests and for the end of a process."""
        self._executor.submit(lambda: None).result()
