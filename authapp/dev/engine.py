"""The common part of the embedded engines: a child process, its data, account, lock and log.

An engine is a direct child of this process, listens on a private Unix socket, and ends when this
process ends. As root it runs as the owner of its data, or as `nobody`, for PostgreSQL refuses to
run as root. No account is created.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from authapp.dev.child_processes import Stops, end_child, signals_held, start_child

START_SECONDS = (
    60.0  # longest wait for a server to answer; recovery after a power cut takes a few seconds
)
LOCK_SECONDS = 10.0  # longest wait for the previous server on the same data to end
POLL_SECONDS = 0.01
LOG_TAIL_LINES = 15
SOCKET_PATH_BYTES = 103  # what every system accepts; Linux takes 107


class EmbeddedError(Exception):
    """A server could not be installed, started or reached; the first line says what to do."""


class Server:
    """A running child process with a data directory of its own."""

    url: str
    """Where clients connect, password included."""

    def __init__(
        self, title: str, url: str, process: subprocess.Popen[bytes], stop_with: Stops
    ) -> None:
        self.url = url
        self._title = title
        self._process = process
        self._stop_with = stop_with

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server and wait for it: politely first, at last by force. Safe to call again."""
        end_child(self._process, self._stop_with)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:  # the URL holds the password
        return f"<{self._title} pid {self.pid}>"


@contextmanager
def private_socket_dir() -> Iterator[Path]:
    """A new directory, nobody else's, its path short enough for a socket. Removed afterwards."""
    bases = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp makes a private one inside
    if os.geteuid() != 0 and "XDG_RUNTIME_DIR" in os.environ:
        bases.insert(0, Path(os.environ["XDG_RUNTIME_DIR"]))
    for base in bases:
        fits = len(os.fsencode(base)) + len("/authapp-XXXXXXXX/.s.PGSQL.5432") <= SOCKET_PATH_BYTES
        if fits and base.is_dir() and os.access(base, os.W_OK | os.X_OK):
            path = Path(tempfile.mkdtemp(prefix="authapp-", dir=base)).resolve()
            break
    else:
        raise EmbeddedError(
            "no directory for sockets: set TMPDIR to a short, writable path such as /tmp"
        )
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# The account that runs the servers, and its folder


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Home:
    """Where one server lives: its directories (real paths), account, and open lock and log."""

    title: str
    data_dir: Path
    socket_dir: Path
    account: _Account | None  # None: whoever we are
    lock: int
    log: int

    @property
    def log_path(self) -> Path:
        return self.data_dir / "log"

    def own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


@contextmanager
def prepared_home(title: str, data_dir: Path, socket_dir: Path, program: Path) -> Iterator[Home]:
    """Make the directories, take the data's lock, open the log: for a server started inside."""
    data_dir, socket_dir = data_dir.resolve(), socket_dir.resolve()
    if len(os.fsencode(socket_dir)) + len("/.s.PGSQL.5432") > SOCKET_PATH_BYTES:
        raise EmbeddedError(f"{socket_dir} is too long a path for a socket; use a shorter one")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = _choose_account(title, data_dir)
        if account is not None:
            _hand_over(data_dir, account)
            os.chown(socket_dir, account.uid, account.gid)
            _let_through(title, account, [data_dir, socket_dir, program.resolve()])
        data_dir.chmod(0o700)
        lock = _open(data_dir / "lock", account)
    except OSError as error:
        raise EmbeddedError(f"{title} cannot keep its data in {data_dir}: {error}") from error
    try:
        _take_lock(title, data_dir, lock)
        with suppress(FileNotFoundError):
            (data_dir / "log").replace(data_dir / "log.previous")
        log = _open(data_dir / "log", account)
        try:
            yield Home(title, data_dir, socket_dir, account, lock, log)
        finally:
            os.close(log)
    finally:
        os.close(lock)  # a server that started holds the lock on, through its own copy


def _choose_account(title: str, data_dir: Path) -> _Account | None:
    owner = data_dir.stat().st_uid
    if os.geteuid() != 0:
        if owner != os.geteuid():
            raise EmbeddedError(
                f"{data_dir} belongs to user id {owner}: start as that user or as root"
            )
        return None
    try:
        entry = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except KeyError:
        if owner == 0:
            raise EmbeddedError(
                f"{title} must not run as root and there is no account `nobody`: "
                "start as an ordinary user"
            ) from None
        return _Account(str(owner), owner, data_dir.stat().st_gid)
    return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _hand_over(data_dir: Path, account: _Account) -> None:
    """Give data that is root's (new, or a restored copy) to the account that will use it."""
    if data_dir.stat().st_uid == account.uid:
        return
    for folder, _, names in os.walk(data_dir):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _let_through(title: str, account: _Account, paths: Sequence[Path]) -> None:
    """Let `account` search, not read, those parents of `paths` where it can't, and say so."""
    opened: list[str] = []
    for parent in dict.fromkeys(parent for path in paths for parent in reversed(path.parents)):
        status = parent.stat()
        if status.st_uid == account.uid:
            search = stat.S_IXUSR
        elif status.st_gid == account.gid:
            search = stat.S_IXGRP
        else:
            search = stat.S_IXOTH
        if not status.st_mode & search:
            parent.chmod(stat.S_IMODE(status.st_mode) | search)
            opened.append(str(parent))
    if opened:
        _say(
            f"{title} runs as {account.name}, not as root; so that it reaches its data, permission "
            f"x (to enter, not to list) was added to {', '.join(opened)}"
        )


def _open(path: Path, account: _Account | None) -> int:
    """Open for appending; never through a link: the directory is the account's, we may be root."""
    opened = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    if account is not None:
        os.fchown(opened, account.uid, account.gid)
    return opened


def _take_lock(title: str, data_dir: Path, lock: int) -> None:
    """Own the data: the lock lives as long as any process of the server that inherits it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:  # one that was killed just now needs a moment to end
                holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
                raise data_in_use(title, data_dir, holder) from None
            time.sleep(POLL_SECONDS)
        else:
            return


def data_in_use(title: str, data_dir: Path, pid: str) -> EmbeddedError:
    return EmbeddedError(
        f"the data in {data_dir} is in use by another running {title} (pid {pid}); "
        "stop that one, or use another data directory (DATA_DIR)"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _say(line: str) -> None:
    sys.stderr.write(f"authapp: {line}\n")
    sys.stderr.flush()


# Processes


def launch(
    home: Home,
    arguments: list[str],
    stop_with: Stops,
    is_ready: Callable[[int], bool],
    config: bytes = b"",
) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] | None = None
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(config)
            stdin.seek(0)
            with signals_held() as mask:
                process = _popen(home, arguments, stdin, mask, death_signal=stop_with[0][0])
        os.ftruncate(home.lock, 0)
        os.write(home.lock, f"{process.pid}\n".encode())
        _await_ready(home, process, is_ready)
    except BaseException:  # a signal may arrive at any line
        if process is not None:
            end_child(process, stop_with)
        raise
    return process


def _await_ready(
    home: Home, process: subprocess.Popen[bytes], is_ready: Callable[[int], bool]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(process.pid):
        if process.poll() is not None:
            ended = f"{home.title} ended with status {process.returncode} while it started"
            raise _failed(home, ended)
        if time.monotonic() >= deadline:
            raise _failed(home, f"{home.title} did not answer within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _popen(
    home: Home,
    arguments: list[str],
    stdin: IO[bytes],
    mask: set[signal.Signals],
    death_signal: signal.Signals,
) -> subprocess.Popen[bytes]:
    account = home.account
    try:
        return start_child(
            arguments,
            mask,
            death_signal,
            stdin=stdin,
            stdout=home.log,
            stderr=home.log,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},  # no PG* of the caller
            pass_fds=(home.lock,),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            umask=0o077,
        )
    except (OSError, subprocess.SubprocessError) as error:
        who = f" as {account.name}" if account else ""
        raise EmbeddedError(f"{home.title} cannot be run{who}: {error}") from error


def _failed(home: Home, what: str) -> EmbeddedError:
    size = os.fstat(home.log).st_size
    text = os.pread(home.log, 8192, max(0, size - 8192)).decode(errors="replace")
    tail = "\n".join(text.splitlines()[-LOG_TAIL_LINES:])
    return EmbeddedError(f"{what}; see {home.log_path}, which ends:\n{tail}")


def run_to_end(home: Home, arguments: list[str], stdin_text: bytes = b"") -> None:
    process: subprocess.Popen[bytes] | None = None
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(stdin_text)
            stdin.seek(0)
            with signals_held() as mask:
                process = _popen(home, arguments, stdin, mask, death_signal=signal.SIGTERM)
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        raise _failed(
            home, f"{Path(arguments[0]).name} did not end within {START_SECONDS:.0f} s"
        ) from None
    finally:
        if process is not None:
            end_child(process, ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)))
    if process.returncode != 0:
        raise _failed(home, f"{Path(arguments[0]).name} ended with status {process.returncode}")


def wheel_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the package {name} is not installed: run `pip install 'authapp[dev]'`, "
            "or set DATABASE_URL and REDIS_URL to servers of your own"
        )
    return Path(spec.submodule_search_locations[0]).resolve()
