"""The product in processes of its own, as production starts it."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from authapp.dev import child_processes
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
FLASK = (sys.executable, "-m", "flask", "--app", "wsgi")
SERVERS = {
    "gunicorn": (sys.executable, "-m", "gunicorn"),
    "granian": (sys.executable, "-m", "authapp.serving.granian"),
}
SERVER = os.environ.get("SERVER") or "gunicorn"
START_SECONDS = 60.0

may_serve = False  # whether the test that runs is marked `served`: conftest.py says so


@dataclass(frozen=True)
class Instance:
    """A server with its workers."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    log_path: Path = field(repr=False)

    @property
    def name(self) -> str:
        return self.log_path.stem

    def log(self) -> str:
        return self.log_path.read_text()

    def workers(self) -> list[int]:
        """Process ids, as of now."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    """A port of 127.0.0.1 for a server that can't be handed a socket.

    It lies below the range of outgoing connections (from 32768 on), so no client takes it.
    """
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(
    application: str,
    environment: Mapping[str, str],
    log_path: Path,
    *options: str,
    cwd: Path = ROOT,
) -> Iterator[Instance]:
    """Serve on a free port of 127.0.0.1. Call it from the main thread (`start_child` says why).

    Args:
        environment: all of it; HOST and PORT are added. In PUBLIC_URL `{port}` becomes the port.
        options: for the server, beside its settings.
    """
    assert may_serve, "use the fixture `served_by`: else `-m served` leaves this test out"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        log_path.open("wb") as log,
    ):
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        where = ("--bind", f"fd://{descriptor}", "--graceful-timeout", "1")
        public_url = environment.get("PUBLIC_URL", "").format(port=port)
        own = {"HOST": "127.0.0.1", "PORT": str(port), "PUBLIC_URL": public_url}
        with child_processes.signals_held() as mask:
            process = child_processes.start_child(
                # the socket is handed over, so nobody can take the port in between
                [*SERVERS[SERVER], *where, application, *options],
                mask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, **own},
                cwd=cwd,
                pass_fds=(descriptor,),
            )
    instance = Instance(port, process, log_path)
    try:
        _await_ready(instance)
        yield instance
    finally:
        child_processes.end_child(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


def _await_ready(instance: Instance) -> None:
    def is_ready() -> bool:
        ended = instance.process.poll() is not None
        assert not ended, f"{SERVER} ended while it started:\n{instance.log()}"
        return _is_ready(instance.port)

    wait_until(is_ready, lambda: f"no answer:\n{instance.log()}", seconds=START_SECONDS, pause=0.05)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    with closing(connection):
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
