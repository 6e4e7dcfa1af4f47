"""A guarded app behind one of the proxies, seen by a visitor: `Guarded`."""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from authapp import create_app, dev
from authapp.config import Config
from authapp.errors import StoreUnavailable
from tests.deploy.guarding import APP, AUTH, guarding
from tests.deploy.proxies import served
from tests.deploy.servers import make_secrets, needs_redis, over_tls
from tests.deploy.telling_app import telling_app
from tests.support.databases import add_migrated_database
from tests.support.people import PASSWORD
from tests.support.services import await_trust
from tests.support.settings import UNLIMITED, settings_for
from tests.web.support import services_of

COOKIE = "SESSION-TOKEN"

Sent = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        """The request as the app got it. Fails if the app was not reached."""
        assert self.status == 200, (self.status, self.body[:500])
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def reached_app(self) -> bool:
        return self.status == 200 and self.body.startswith(b'{"method"')

    def identity(self) -> dict[str, list[str]]:
        """Whatever the app may take for an identity: in each spelling, but for empty values and
        the time of the log-in."""
        found: dict[str, list[str]] = {}
        for name, value in self.told["headers"]:
            if name.lower().startswith("remote") and value:
                found.setdefault(name.lower(), []).append(value)
        times = found.pop("remote-auth-time", [])
        assert len(times) == len(found.get("remote-user", []))
        assert all(time.isdecimal() for time in times)
        return found


@dataclass(frozen=True)
class Guarded:
    """
    Attributes:
        name: of the proxy.
        port: where it listens by https.
    """

    name: str
    port: int

    def connect(self, host: str = APP) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=100)
        return over_tls(plain, host)

    def ask(
        self,
        path: str = "/",
        token: str = "",
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes = b"",
        host: str = APP,
    ) -> Answer:
        sent = [("Host", host), ("Content-Length", str(len(body))), *headers]
        if token:
            sent.append(("Cookie", f"theme=dark; {COOKIE}={token}; lang=en"))
        with closing(http.client.HTTPConnection(host)) as connection:
            connection.sock = self.connect(host)
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def ask_raw(self, request: str) -> Answer:
        """Sends a request as it is written; status 0 if the proxy hangs up."""
        with closing(self.connect()) as plain:
            plain.sendall(request.replace("\n", "\r\n").encode("latin-1"))
            answer = http.client.HTTPResponse(plain)
            try:
                answer.begin()
                return Answer(answer.status, answer.headers, answer.read())
            except (OSError, http.client.HTTPException):
                return Answer(0, http.client.HTTPMessage(), b"")

    def log_in(self, email: str, password: str) -> tuple[str, str]:
        """The token of a new session, and the person's id."""
        known = json.dumps({"email": email, "password": password}).encode()
        kind = ("Content-Type", "application/json")
        # a proxy that is broken on purpose takes it for its own
        address = ("X-Forwarded-For", "203.0.113.9")
        answer = self.ask("/api/v1/login", "", kind, address, method="POST", body=known, host=AUTH)
        assert answer.status == 200, answer
        token = answer.headers["Set-Cookie"].split(";")[0].removeprefix(f"{COOKIE}=")
        return token, json.loads(answer.body)["user"]["id"]


@dataclass(frozen=True)
class SignedIn:
    """Ada's session behind one of the proxies."""

    token: str
    person: str

    def identity(self) -> dict[str, list[str]]:
        """As the app must get it, by any proxy."""
        return {
            "remote-user": [self.person],
            "remote-name": ["Ada Ł".encode().decode("latin-1")],
            "remote-groups": ["user"],
            "remote-amr": ["pwd"],
            "remote-assurance-level": ["1"],
        }


@contextmanager
def both_stores_away(auth: Flask) -> Iterator[None]:
    """As if each attempt to reach them failed."""
    services = services_of(auth)
    breakers = (services.cache.breaker, services.database.breaker)

    def fail() -> None:
        raise StoreUnavailable("tests")

    recover = [breaker.recover for breaker in breakers]
    for breaker in breakers:
        breaker.recover = fail
        breaker.open()
    try:
        yield
    finally:
        for breaker, way in zip(breakers, recover, strict=True):
            breaker.recover = way
        await_trust(services)


EMAIL = "ada@example.org"
Start = Callable[[str, Mapping[str, str]], Guarded]


@contextmanager
def product(
    postgres: dev.PostgreSQL, valkey: dev.Valkey, database: str, name: str
) -> Iterator[Flask]:
    """authapp, with a person of this name who has an account."""
    settings = settings_for(
        add_migrated_database(postgres.url, database),
        valkey.url,
        SECRET_KEY=f"a secret that only the tests of {database} know",
        PUBLIC_URL=f"https://{AUTH}",
        SESSION_COOKIE_DOMAIN="example.org",
        ALLOWED_REDIRECT_HOSTS=APP,
        TRUSTED_PROXY_HOPS="1",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
    )
    app = create_app(Config.from_mapping(settings))
    services_of(app).registration.sign_up(EMAIL, PASSWORD, name, ("user",))
    yield app
    services_of(app).close()


@contextmanager
def proxies_before(auth: Flask, folders: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a kind of proxy before authapp and an app that tells what it got.

    It takes the name of the proxy, and texts of its files that are replaced. Asked for the same
    again it gives the same.
    """
    needs_redis()  # openssl, too
    secrets = make_secrets(folders.mktemp("secrets"), AUTH)
    with ExitStack() as stack:
        authapp, app = stack.enter_context(served(auth)), stack.enter_context(telling_app())

        started: dict[object, Guarded] = {}

        def start(name: str, changes: Mapping[str, str]) -> Guarded:
            what = (name, frozenset(changes.items()))
            return started.get(what) or started.setdefault(what, start_anew(name, changes))

        def start_anew(name: str, changes: Mapping[str, str]) -> Guarded:
            folder = folders.mktemp(name)
            os.chmod(folder, 0o755)
            server, port = guarding(name, folder, secrets, authapp, app, changes)
            stack.callback(server.stop)
            server.start()
            return Guarded(name, port)

        yield start
