"""What is noted of each request is worked off for many together, a moment later: to write a line,
or to count where processes share, takes about as long as some of the answers.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

_MOMENT = 0.1  # seconds

_works: list[Callable[[], None]] = []
_ends: list["weakref.WeakMethod[Callable[[], None]]"] = []
_is_due = False  # read without a lock by each request: whoever sets it wakes the thread
_due = threading.Event()
_starting = threading.Lock()
_worker: threading.Thread | None = None


def work_off(work: Callable[[], None]) -> Callable[[], None]:
    """Has `work` called a moment after each `is_due`, and when the process ends."""
    _works.append(work)
    return work


def is_due() -> None:
    """There is something to work off."""
    global _is_due  # noqa: PLW0603 - one a process, as all here
    if not _is_due:
        _is_due = True
        _due.set()
    if _worker is None:
        _start()


def before_end(work: Callable[[], None]) -> None:
    """Has this bound method called when the process ends, if its object still lives."""
    _ends[:] = [known for known in _ends if known() is not None]
    _ends.append(weakref.WeakMethod(work))


def end() -> None:
    """Does what is left to do when the process ends."""
    for known in list(_ends):
        if (work := known()) is not None:
            work()
    work_off_now()


def work_off_now() -> None:
    """Works off what there is; at the end of a process, and for tests."""
    for work in list(_works):
        work()


def _start() -> None:
    global _worker  # noqa: PLW0603
    with _starting:
        if _worker is None:
            worker = threading.Thread(target=_keep_working, name="together", daemon=True)
            with suppress(RuntimeError):  # no more threads are to be had: the next who is due tries
                worker.start()
                _worker = worker


def _keep_working() -> None:
    global _is_due, _worker  # noqa: PLW0603
    try:
        while True:
            _due.wait()
            time.sleep(_MOMENT)
            _due.clear()
            _is_due = False  # before the look: what comes after it is due anew
            work_off_now()
    finally:  # by an error, which is shown; the next who is due starts another
        _worker = None


def _start_anew() -> None:
    """In a process that was forked: the thread is its parent's."""
    global _is_due, _due, _starting, _worker
    _is_due, _due, _starting, _worker = False, threading.Event(), threading.Lock(), None


os.register_at_fork(after_in_child=_start_anew)
atexit.register(end)
