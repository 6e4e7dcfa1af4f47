"""Lending of cores between the workers of a server, each of which hashes on one.

Log-ins do not come to the workers evenly: of two workers that wait for connections, the same one is
often the first. Without this, its log-ins would wait, or be refused, beside a worker with none.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_WORKER = ".worker"  # how many log-ins it holds; shared lock while it lives
_CORE = ".core"  # exclusive lock of the worker that hashes on it
_WIDTH = 4  # bytes of a number
_LONGEST_LOAN = 1.0  # seconds that the owner waits for its core
_LONGEST_LOOK = 1.0  # seconds that others look at whether a worker lives
_LOOK_AGAIN = 0.005  # seconds, meanwhile


class CoreLending:
    """The core that a worker lends, and those it borrows, by files that all workers see.

    The system drops the locks of a process that ends, however it ends.

    Args:
        folder: the same for all workers.
        slot: names this worker, and no other that lives.
    """

    def __init__(self, folder: Path, slot: str) -> None:
        self._folder = folder
        self._mine = folder / f"{slot}{_WORKER}"
        self._worker = _open(self._mine)
        self._core = _open(self._mine.with_suffix(_CORE))
        self._is_kept = False  # whoever borrowed the core did not give it back in time
        self._is_seen = False
        until = time.monotonic() + _LONGEST_LOOK
        while not self._is_seen and time.monotonic() < until:
            self.tell(0)
            time.sleep(0 if self._is_seen else _LOOK_AGAIN)

    def tell(self, held: int) -> None:
        """Tells the others how many log-ins this worker has. With none it lends its core."""
        os.pwrite(self._worker, held.to_bytes(_WIDTH), 0)
        if not self._is_seen:
            # others hold it to look: for microseconds, unless one was stopped meanwhile
            self._is_seen = _lock(self._worker, fcntl.LOCK_SH)

    def others(self) -> list[int]:
        """How many log-ins each other live worker has."""
        return [held for path in self._others() if (held := _held_by(path)) is not None]

    @contextmanager
    def own(self) -> Iterator[None]:
        """The core of this worker, for the block; waits until who has borrowed it is done.

        A borrower that was stopped never is. The core is used beside it, then.
        """
        until = time.monotonic() + (0 if self._is_kept else _LONGEST_LOAN)
        while not (is_free := _lock(self._core)) and time.monotonic() < until:
            time.sleep(_LOOK_AGAIN)
        self._is_kept = not is_free
        try:
            yield
        finally:
            fcntl.flock(self._core, fcntl.LOCK_UN)

    @contextmanager
    def borrow(self) -> Iterator[bool]:
        """The core of another worker, for the block; whether there was one."""
        core: int | None = None
        for path in self._others():
            core = _borrowed(path)
            if core is not None:
                break
        try:
            yield core is not None
        finally:
            if core is not None:
                os.close(core)

    def _others(self) -> list[Path]:
        try:
            return [path for path in self._folder.glob(f"*{_WORKER}") if path != self._mine]
        except OSError:  # no descriptor is left
            return []


def _borrowed(worker: Path) -> int | None:
    """A descriptor that has the core of a worker without log-ins; None if that can't be had."""
    with suppress(OSError):  # no descriptor is left, or the folder is gone
        core = _open(worker.with_suffix(_CORE))
        if _lock(core) and _held_by(worker) == 0:
            return core
        os.close(core)
    return None


def _held_by(worker: Path) -> int | None:
    """How many log-ins this worker has; None if it is dead, or can't be looked at."""
    with suppress(OSError):  # as above
        descriptor = _open(worker)
        try:
            if not _lock(descriptor):
                return int.from_bytes(os.pread(descriptor, _WIDTH, 0))
        finally:
            os.close(descriptor)
    return None


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Holds a lock of a file, unless somebody else's forbids it; whether it does."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
