"""Lending of cores between the workers of a server, each of which hashes on one.

Log-ins do not come to the workers evenly: of two workers that wait for connections, the same one is
often the first. Without this, its log-ins would wait, or be refused, beside a worker with none.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WORKER = ".worker"  # how many log-ins it holds; shared lock while it lives
_CORE = ".core"  # exclusive lock of the worker that hashes on it
_WIDTH = 4  # bytes of a number


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
        self.tell(0)
        fcntl.flock(self._worker, fcntl.LOCK_SH)  # others hold it to look, for microseconds

    def tell(self, held: int) -> None:
        """Tells the others how many log-ins this worker has. With none it lends its core."""
        os.pwrite(self._worker, held.to_bytes(_WIDTH), 0)

    def others(self) -> list[int]:
        """How many log-ins each other live worker has."""
        return [held for path in self._others() if (held := _held_by(path)) is not None]

    @contextmanager
    def own(self) -> Iterator[None]:
        """The core of this worker, for the block; waits until who has borrowed it is done."""
        fcntl.flock(self._core, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._core, fcntl.LOCK_UN)

    @contextmanager
    def borrow(self) -> Iterator[bool]:
        """The core of another worker, for the block; whether there was one."""
        for path in self._others():
            with _locked(path.with_suffix(_CORE)) as is_ours:
                if is_ours and _held_by(path) == 0:
                    yield True
                    return
        yield False

    def _others(self) -> list[Path]:
        return [path for path in self._folder.glob(f"*{_WORKER}") if path != self._mine]


def _held_by(worker: Path) -> int | None:
    """How many log-ins this worker has; None if it is dead."""
    with _locked(worker) as is_dead:
        return None if is_dead else int.from_bytes(worker.read_bytes()[:_WIDTH])


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds an exclusive lock for the block, unless somebody holds one; whether it does."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_ours = False
    else:
        is_ours = True
    try:
        yield is_ours
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
