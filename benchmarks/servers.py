"""The servers that are compared: how each is installed, started and asked."""

import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from authapp import dev
from authapp.assembly.capacity import REQUEST_THREADS

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
KEPT = ROOT / "var" / "bench"  # what is installed for peers
START_SECONDS = 60.0
SERVER_CPU = 0
PASSWORD = "benchmark"


class BenchmarkError(Exception):
    """The benchmark can't go on. The message says what to do."""


@dataclass(frozen=True)
class Answer:
    status: int
    cookie: str
    body: bytes


@dataclass(frozen=True)
class Server:
    """A server that runs, with its workers."""

    process: "subprocess.Popen[bytes]" = field(repr=False)
    port: int
    log: Path

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with closing(connection):
            try:
                return read_answer(connection, method, path, headers, body)
            except OSError:
                said = self.log.read_text(errors="replace")[-2_000:]
                raise BenchmarkError(f"a server does not answer:\n{said}") from None

    def cpu_seconds(self) -> float:
        """That it and its workers used so far."""
        return sum(map(cpu_seconds, (self.process.pid, *self._children())))

    def worker_megabytes(self) -> float:
        """The memory of its only worker, or of itself where it has none: what is its own, and its
        share of what is shared (PSS)."""
        return max(map(_megabytes, self._children() or [self.process.pid]))

    def _children(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def read_answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, str] | None = None,
) -> Answer:
    sent = dict(headers or {})
    if body is not None:
        sent["Content-Type"] = "application/json"
    connection.request(method, path, json.dumps(body) if body else None, sent)
    answer = connection.getresponse()
    cookie = (answer.headers.get("Set-Cookie") or "").split(";")[0]
    return Answer(answer.status, cookie, answer.read())


def _megabytes(pid: int) -> float:
    found = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in found if line.startswith("Pss:"))
    return int(kilobytes) / 1024


def cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """Processor time that a process used so far, 0 if it is gone.

    Args:
        ended: whether to add the time of its children that have ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    used = map(int, fields[11 : 15 if ended else 13])
    return sum(used) / os.sysconf("SC_CLK_TCK")


def apart() -> bool:
    """Keeps this process, and all it starts but servers, off the servers' core; whether it can."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2 or SERVER_CPU not in cores:
        return False
    os.sched_setaffinity(0, cores - {SERVER_CPU})
    return True


def machine(*, pinned: bool) -> str:
    """Where it was measured."""
    how = "server on a core of its own" if pinned else "not pinned"
    return f"{os.cpu_count()} cores, {how}, Python {platform.python_version()}, one worker"


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL and a Valkey that run.

    Attributes:
        folder: for what servers leave behind; it is removed with the stores.
    """

    database_url: str
    redis_url: str
    folder: Path


@contextmanager
def stores() -> Iterator[Stores]:
    """Starts them; they are empty."""
    with (
        tempfile.TemporaryDirectory(prefix="authapp-bench-", ignore_cleanup_errors=True) as path,
        dev.private_socket_dir() as sockets,
    ):
        folder = Path(path)
        os.chmod(folder, 0o711)  # as root the servers run as another account
        with (
            dev.PostgreSQL.start(folder / "pg", sockets, PASSWORD, tcp=True) as postgres,
            dev.Valkey.start(folder / "valkey", sockets, PASSWORD, tcp=True) as valkey,
        ):
            yield Stores(postgres.url, valkey.url, folder)


@contextmanager
def serving(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path, *, pinned: bool
) -> Iterator[Server]:
    """Starts a server; `PORT` in a word of its command is a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    words = [str(word).replace("PORT", str(port)) for word in command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            words,
            env={**environment, "PORT": str(port), "HOST": "127.0.0.1"},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        if pinned:
            os.sched_setaffinity(process.pid, {SERVER_CPU})
        _await_listening(process, port, log)
        yield Server(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _await_listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2_000:]
                raise BenchmarkError(f"a server did not start:\n{said}") from None
            time.sleep(0.1)
        else:
            return


# what authapp/serving/granian.py says of how to serve, for peers: one worker
GRANIAN = (
    *("--interface", "wsgi", "--http", "1", "--no-ws", "--host", "127.0.0.1", "--port", "PORT"),
    *("--workers", "1", "--blocking-threads", str(REQUEST_THREADS), "--no-log"),
    *("--backpressure", "1000"),
)


def gunicorn_options(workers: int = 1) -> list[str]:
    """The options of gunicorn.conf.py at the root, for peers."""
    told = subprocess.run(
        [sys.executable, "-c", _TELL],
        env={
            **os.environ,
            **SETTINGS,
            "DATABASE_URL": "postgresql://u@h/d",
            "REDIS_URL": "redis://h",
        },
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    names = json.loads(told.stdout)
    return [
        *("--config", "/dev/null", "--workers", str(workers), "--bind", "127.0.0.1:PORT"),
        *("--worker-class", "gthread", "--threads", str(names["threads"])),
        *("--keep-alive", str(names["keepalive"])),
        *("--worker-tmp-dir", names["worker_tmp_dir"] or "/tmp"),
        *("--max-requests", str(names["max_requests"])),
        *("--max-requests-jitter", str(names["max_requests_jitter"])),
    ]


_TELL = """
import json, runpy
found = runpy.run_path("gunicorn.conf.py")
print(json.dumps({k: v for k, v in found.items() if isinstance(v, (str, int))}))
"""
SETTINGS = {
    "SECRET_KEY": "benchmark-" * 5,
    "PASSWORD_PEPPER": "benchmark-" * 5,
    "SESSION_COOKIE_SECURE": "0",
    "WEB_CONCURRENCY": "1",
    "SIGNUP": "open",
    "REVALIDATE_SECONDS": "60",
    "LOGIN_TIMEOUT_SECONDS": "60",  # on a machine that does much else
    "LOGIN_LIMIT_PER_ADDRESS": "1000000 per minute",  # all come from one
}


def peers_python() -> Path:
    """The interpreter with the packages of the Python peers, installed if they are not."""
    python = KEPT / "venv" / "bin" / "python"
    wanted = PEERS / "requirements.txt"
    installed = KEPT / "venv" / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        say("installing the Python peers into var/bench (once)")
        shutil.rmtree(KEPT / "venv", ignore_errors=True)
        _run([sys.executable, "-m", "venv", KEPT / "venv"])
        pip: list[str | Path] = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", "-r", wanted])
        installed.write_text(wanted.read_text())
    return python


def express() -> Path | None:
    """The script of the Express peer with its packages beside it; None without node and npm."""
    if not (shutil.which("node") and shutil.which("npm")):
        return None
    home = KEPT / "express"
    wanted = (PEERS / "package.json").read_text()
    installed = home / "installed.json"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(PEERS / "express.js", home)
    if not installed.exists() or installed.read_text() != wanted:
        say("installing the Express peer into var/bench (once)")
        shutil.copy(PEERS / "package.json", home)
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=home)
        installed.write_text(wanted)
    return home / "express.js"


def _run(command: Sequence[str | Path], cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(str(word) for word in command)
        raise BenchmarkError(f"{words} failed:\n{done.stdout[-1_000:]}{done.stderr[-2_000:]}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
