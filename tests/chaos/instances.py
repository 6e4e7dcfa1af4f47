"""Instances of the product in processes of their own, and clients that note what they answer."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authapp import child_processes

ROOT = Path(__file__).parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "tests.chaos.app:app", "--threads", "4")
START_SECONDS = 60.0
ANSWER_SECONDS = 15.0  # above all time-outs of the product together
COOKIE = "SESSION-TOKEN"
MANY = "1000000 per minute"


def environment_for(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """Settings: cheap hashing, and no limit that a test could run into."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "tests-only secret key of 32 bytes or more",
        "PASSWORD_PEPPER": "tests-only pepper of 32 bytes or more",
        "BCRYPT_ROUNDS": "4",
        "LOGIN_LIMIT_PER_ADDRESS": MANY,
        "LOGIN_FAILURES_PER_ACCOUNT": MANY,
        "SESSION_MAX_PER_USER": "1000",
        "WEB_CONCURRENCY": "1",
        **more,
    }


@dataclass(frozen=True)
class Instance:
    """A gunicorn with its workers."""

    name: str
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    log_path: Path = field(repr=False)

    def workers(self) -> list[int]:
        """Process ids, as of now."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes:
    status: 0 when the connection broke before there was an answer.
    set_cookie: the header's text, empty without one.
    """

    status: int
    body: Any
    set_cookie: str
    start: float
    end: float

    @property
    def token(self) -> str:
        """The token of the session that began."""
        name, _, value = self.set_cookie.partition(";")[0].partition("=")
        assert name == COOKIE, self
        assert value, self
        return value

    @property
    def clears_cookie(self) -> bool:
        return "Max-Age=0" in self.set_cookie


class Client:
    """Asks one instance, one request at a time, on a connection that is kept."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", instance.port, timeout=ANSWER_SECONDS
        )

    def ask(self, method: str, path: str, token: str = "", body: object = None) -> Answer:
        headers = {"X-Requested-With": "tests", "Accept": "application/json"}
        if token:
            headers["Cookie"] = f"{COOKIE}={token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body)
        start = time.monotonic()
        try:
            self._connection.request(method, path, payload, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):  # the worker died, or its listener was full
            self._connection.close()
            return Answer(0, None, "", start, time.monotonic())
        return Answer(
            response.status,
            json.loads(text) if text else None,
            response.headers.get("Set-Cookie", ""),
            start,
            time.monotonic(),
        )

    def close(self) -> None:
        self._connection.close()


@contextmanager
def served(environment: Mapping[str, str], folder: Path, name: str) -> Iterator[Instance]:
    """Serve on a free port of 127.0.0.1. Call it from the main thread (`start_child` says why)."""
    log_path = folder / f"{name}.log"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        log_path.open("wb") as log,
    ):
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        with child_processes.signals_held() as mask:
            process = child_processes.start_child(
                # the socket is handed over, so nobody can take the port in between
                [*GUNICORN, "--graceful-timeout", "1", "--bind", f"fd://{descriptor}"],
                mask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, "HOST": "127.0.0.1", "PORT": str(port)},
                cwd=ROOT,
                pass_fds=(descriptor,),
            )
    instance = Instance(name, port, process, log_path)
    try:
        _await_ready(instance)
        yield instance
    finally:
        child_processes.end_child(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


def _await_ready(instance: Instance) -> None:
    client = Client(instance)
    deadline = time.monotonic() + START_SECONDS
    while client.ask("GET", "/readyz").status != 200:
        ended = instance.process.poll() is not None
        assert not ended, f"gunicorn ended:\n{instance.log_path.read_text()}"
        assert time.monotonic() < deadline, f"no answer:\n{instance.log_path.read_text()}"
        time.sleep(0.05)
    client.close()
