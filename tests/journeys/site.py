"""A served site for the browser: real gunicorn workers, and ways to people it."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from playwright.sync_api import StorageStateCookie

from authapp import child_processes

FLASK = (sys.executable, "-m", "flask", "--app", "wsgi")
GUNICORN = (sys.executable, "-m", "gunicorn", "wsgi:app", "--graceful-timeout", "1")
ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
WORKERS = 2  # what one worker does, the other must know of

_numbers = count(1)


@dataclass(frozen=True)
class Person:
    email: str
    password: str
    name: str


def a_person(name: str = "Ada Lovelace", email: str = "") -> Person:
    """Somebody nobody knows yet."""
    local = name.lower().replace(" ", ".")
    return Person(
        email or f"{local}.{next(_numbers)}@example.org", "copper lantern drifts north", name
    )


@dataclass
class Site:
    """
    Attributes:
        url: the origin, without a slash at the end.
        environment: the settings it runs with, for commands.
    """

    port: int
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_path.read_text()

    def post(
        self, path: str, body: Mapping[str, object], user_agent: str = "journeys"
    ) -> tuple[int, str]:
        """Send JSON as a program does; gives the status and the value of the cookie, if any."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection):
            headers = {"Content-Type": "application/json", "User-Agent": user_agent}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Set-Cookie", "").split(";")[0]

    def add(self, person: Person) -> Person:
        """Sign somebody up, past the browser."""
        known = {"email": person.email, "password": person.password, "name": person.name}
        assert self.post("/api/v1/signup", known)[0] == 201
        return person

    def cookie_of(self, person: Person, user_agent: str = "journeys") -> StorageStateCookie:
        """Log somebody in, past the browser; proves that the password is theirs."""
        known = {"email": person.email, "password": person.password}
        status, cookie = self.post("/api/v1/login", known, user_agent)
        assert status == 200
        name, value = cookie.split("=", 1)
        return {
            "name": name,
            "value": value,
            "domain": "127.0.0.1",
            "path": "/",
            "expires": -1,
            "httpOnly": True,
            "secure": False,
            "sameSite": "Lax",
        }

    def add_admin(self, person: Person) -> Person:
        """Add an administrator as operators do."""
        options = ("--name", person.name, "--role", "admin", "--role", "user", "--password-stdin")
        subprocess.run(
            [*FLASK, "users", "create", *options, person.email],
            input=person.password.encode(),
            env=dict(self.environment),
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=START_SECONDS,
        )
        return person


@contextmanager
def served(environment: Mapping[str, str], log_path: Path) -> Iterator[Site]:
    """Serve the product with gunicorn on a free port of 127.0.0.1."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        log_path.open("wb") as log,
    ):
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        settings = {**environment, "HOST": "127.0.0.1", "PORT": str(port)}
        with child_processes.signals_held() as mask:
            process = child_processes.start_child(
                # the socket is handed over, so nobody can take the port in between
                [*GUNICORN, "--bind", f"fd://{descriptor}"],
                mask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=settings,
                cwd=ROOT,
                pass_fds=(descriptor,),
            )
    site = Site(port, settings, log_path, process)
    try:
        _await_ready(site)
        yield site
    finally:
        child_processes.end_child(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


def _await_ready(site: Site) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=START_SECONDS)
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            connection.close()
        except OSError:
            status = 0
        if status == 200:
            return
        ended = site.process.poll() is not None
        assert not ended, f"gunicorn ended while it started:\n{site.log()}"
        assert time.monotonic() < deadline, f"no answer in {START_SECONDS:.0f} s:\n{site.log()}"
        time.sleep(0.05)
