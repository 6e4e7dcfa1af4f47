"""A served site for the browser: real workers, and ways to people it."""

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import StorageStateCookie

from tests.support.instances import FLASK, ROOT, START_SECONDS, Instance, serving

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

    instance: Instance
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.instance.port}"

    def log(self) -> str:
        return self.instance.log()

    def post(
        self, path: str, body: Mapping[str, object], user_agent: str = "journeys"
    ) -> tuple[int, str]:
        """Send JSON as a program does; gives the status and the value of the cookie, if any."""
        connection = http.client.HTTPConnection("127.0.0.1", self.instance.port, timeout=30)
        with closing(connection):
            headers = {"Content-Type": "application/json", "User-Agent": user_agent}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Set-Cookie", "").split(";")[0]

    def is_whole(self) -> bool:
        """Whether the worker that answers reaches both stores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.instance.port, timeout=30)
        with closing(connection):
            connection.request("GET", "/readyz")
            states = json.load(connection.getresponse())["stores"]
        return set(states.values()) == {"ok"}

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
            "domain": str(urlsplit(self.url).hostname),
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
            [*FLASK, "auth", "users", "create", *options, person.email],
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
    """Serve the product on a free port of 127.0.0.1."""
    with serving("wsgi:app", environment, log_path) as instance:
        public_url = environment.get("PUBLIC_URL", "").format(port=instance.port)
        yield Site(instance, {**environment, "PUBLIC_URL": public_url})
