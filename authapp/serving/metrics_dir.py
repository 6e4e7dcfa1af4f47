"""Where the workers of a server keep what they count: a folder in memory, with a slot for each.
They lend each other their cores in the same folder (`core_lending`).

prometheus-client looks for the folder when it is imported, which importing `authapp` does; so this
comes before it, and outside of it.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

_MEMORY = "/dev/shm"  # noqa: S108 — no disk can stall it
_NAME = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "authapp-metrics."
_PATIENCE = 5.0  # seconds that a worker waits for another to find its slot
_LOOK_AGAIN = 0.01  # seconds, meanwhile
_MAKING = 60  # seconds; more than it takes to lock a folder that was made
# Bytes of each file of a slot, more than it grows to. Where a page of it could not be had later,
# because what is in memory is full, the system would kill the worker at the next request.
_ROOM = {
    "counter": 262_144,
    "histogram": 262_144,
    "gauge_livesum": 65_536,
    "gauge_mostrecent": 65_536,
}
_ENOUGH = 16_777_216  # bytes that must be free in memory: the files of some 25 workers
_NOTHING = bytes(8)  # a file of prometheus-client with no value in it


def _in_memory() -> str | None:
    """None where there is no room in memory, or no right to it: the usual temporary folder."""
    if not os.access(_MEMORY, os.W_OK):
        return None
    found = os.statvfs(_MEMORY)
    return _MEMORY if found.f_bavail * found.f_frsize >= _ENOUGH else None


IN_MEMORY = _in_memory()


def make() -> None:
    """Makes a folder for this process and its workers, and names it to prometheus-client; unless
    one is named, as it is after a reload. It goes when the process ends."""
    if _NAME in os.environ:
        _make_again(folder())
    else:
        _make(IN_MEMORY)


def make_own() -> None:
    """Makes another folder for this process alone, not in memory: that one takes no files."""
    _make(None)


def _make(place: str | None) -> None:
    made = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
    _lock(made, os.O_DIRECTORY)
    _remove_left_behind(Path(made).parent)
    os.environ[_NAME] = made
    owner = os.getpid()

    def clean_up() -> None:
        if os.getpid() == owner:  # workers come by here too when they end
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(clean_up)


def forget_made(environment: MutableMapping[str, str]) -> None:
    """Has a server that is started with this environment make a folder of its own."""
    if Path(environment.get(_NAME, "")).name.startswith(_PREFIX):
        del environment[_NAME]


def folder() -> Path:
    """The folder; `make` has named it."""
    return Path(os.environ[_NAME])


def claim_slot() -> str:
    """Claims the first slot that no live worker holds; it is released when this process exits.

    The new owner goes on counting where the worker before it ended, so that there are never more
    files than there were workers at once.

    Raises:
        FileNotFoundError: somebody is removing the folder.
        OSError: the folder takes no files: it is full, or can only be read.
    """
    place = folder()
    with _alone(place):
        _mark_dead_workers(place)
        for number in count(1):
            slot = f"worker{number}"
            if _lock(str(place / f"{slot}.lock")) is not None:
                _reserve_room(place, slot)
                return slot
    raise AssertionError  # never: there is always a next number


def _reserve_room(folder: Path, slot: str) -> None:
    for kind, size in _ROOM.items():
        path = folder / f"{kind}_{slot}.db"
        if not path.exists():
            # a scrape at this moment could not read an empty file
            path.with_suffix(".new").write_bytes(_NOTHING)
            path.with_suffix(".new").rename(path)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)


def mark_dead_workers() -> None:
    """Drops the gauges of dead workers, and keeps their counters."""
    place = folder()
    with suppress(OSError), _alone(place):  # removed, or only read: no reason to end a server
        _mark_dead_workers(place)


def _mark_dead_workers(folder: Path) -> None:
    from prometheus_client import multiprocess  # noqa: PLC0415 — see above

    for path in folder.glob("worker*.lock"):
        lock = _lock(str(path))
        if lock is not None:
            multiprocess.mark_process_dead(path.stem)  # type: ignore[no-untyped-call]
            os.close(lock)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else looks at the locks of slots meanwhile: who does holds them for a moment.

    Raises:
        TimeoutError: somebody was stopped within that moment.
    """
    _make_again(folder)
    with (folder / "slots.lock").open("a") as file:
        until = time.monotonic() + _PATIENCE
        while not _locked(file.fileno()):
            if time.monotonic() > until:
                raise TimeoutError(f"{file.name} is locked by a process that was stopped")
            time.sleep(_LOOK_AGAIN)
        yield


def _make_again(folder: Path) -> None:
    """Makes the folder if somebody removed it, as systemd does with what is in memory when the user
    of the server logs out (`RemoveIPC`). Its locks and counts begin again with the next worker."""
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        if folder.name.startswith(_PREFIX) and folder.lstat().st_uid != os.geteuid():
            raise
    else:
        _lock(str(folder), os.O_DIRECTORY)


def _lock(path: str, kind: int = os.O_CREAT) -> int | None:
    """Holds it until the process and those it forks have ended, however they end. None if somebody
    else does.

    Args:
        kind: O_DIRECTORY for a folder; it may be gone, and a file must not take its place.
    """
    descriptor = os.open(path, os.O_RDONLY | kind | os.O_NOFOLLOW, 0o600)
    if _locked(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_left_behind(parent: Path) -> None:
    """Folders of those who were killed, and could not clean up."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.lstat().st_mtime < _MAKING:
                continue
            lock = _lock(str(folder), os.O_DIRECTORY)
        except OSError:  # somebody else's, or somebody was faster
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
