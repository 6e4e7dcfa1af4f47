"""The served product as an attacker sees it: a port that takes any bytes; and what it wrote."""

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg2

from tests.support.instances import Instance
from tests.support.people import PASSWORD
from tests.support.waiting import wait_until

COOKIE = "SESSION-TOKEN"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
MARK = ("HEAD", "/healthz")
PATIENCE = 20  # seconds; the server closes what it refuses at once

_numbers = count(1)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def cookie(self) -> str:
        """The value of the session cookie that came, or nothing."""
        name, _, rest = (self.headers["Set-Cookie"] or "").partition("=")
        return rest.split(";")[0] if name == COOKIE else ""

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Site:
    instance: Instance
    database_url: str

    def exchange(self, sent: bytes) -> bytes:
        """Send these bytes, and nothing else once they are being answered; all that came until the
        server closed."""
        with self._sent(sent) as connection:
            answer = connection.recv(1)
            with suppress(OSError):  # it closed
                connection.shutdown(socket.SHUT_WR)
            return answer + _rest(connection)

    def exchange_half(self, sent: bytes) -> bytes:
        """Send these bytes, and hang up in the midst of a request; all that came."""
        with self._sent(sent) as connection:
            connection.shutdown(socket.SHUT_WR)
            return _rest(connection)

    def exchange_and_go_on(self, sent: bytes) -> bytes:
        """Send these bytes and, once they are being answered, a request of somebody else, as a
        proxy that shares its connections does; all that came until the server closed.

        gunicorn looks at what it has read ahead only when more comes.
        """
        with self._sent(sent) as connection:
            answer = connection.recv(1)
            with suppress(ConnectionError):  # it closed
                connection.sendall(NEXT)
            return answer + _rest(connection)

    @contextmanager
    def _sent(self, sent: bytes) -> Iterator[socket.socket]:
        address = ("127.0.0.1", self.instance.port)
        with socket.create_connection(address, PATIENCE) as connection:
            connection.sendall(sent)
            yield connection

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        made = http.client.HTTPConnection("127.0.0.1", self.instance.port, timeout=PATIENCE)
        with closing(made):
            yield made

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str = "",
        **headers: str,
    ) -> Answer:
        with self.connection() as connection:
            return ask(connection, method, path, body, token=token, **headers)

    def sign_up(self, **fields: str) -> str:
        """Add somebody with PASSWORD; returns their email, which nobody has had."""
        known = {"email": f"somebody{next(_numbers)}@example.org", "password": PASSWORD} | fields
        answer = self.ask("POST", "/api/v1/signup", known)
        assert answer.status == 201, answer.body
        return known["email"]

    def log_in(self, email: str) -> str:
        """Returns the token."""
        answer = self.ask("POST", "/api/v1/login", {"email": email, "password": PASSWORD})
        assert answer.status == 200, answer.body
        return answer.cookie

    def me(self, token: str) -> Answer:
        return self.ask("GET", "/api/v1/me", token=token)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []

    def log(self) -> list[dict[str, Any]]:
        """Each line of what was done so far; one that is no JSON object fails the test."""
        # lines are written in their order, a moment later: so those before this one are there
        last = self.ask(*MARK).headers["X-Request-ID"]
        wait_until(lambda: last in self.instance.log(), "a request was not logged")
        found = []
        for line in self.instance.log().splitlines():
            record = json.loads(line)
            assert isinstance(record, dict), line
            if (record.get("method"), record.get("route")) != MARK:
                found.append(record)
        return found

    def routes(self) -> list[str | None]:
        """The route of each request that reached the application, in order."""
        return [line["route"] for line in self.log() if line["event"] == "request"]


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    token: str = "",
    **headers: str,
) -> Answer:
    """Ask as a program does."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Cookie"] = f"{COOKIE}={token}"
    if body is not None:
        sent["Content-Type"] = "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    return Answer(answer.status, answer.headers, answer.read())


def _rest(connection: socket.socket) -> bytes:
    came = b""
    with suppress(ConnectionError):  # it closed with bytes of ours unread
        while part := connection.recv(65_536):
            came += part
    return came


def statuses(answer: bytes) -> list[int]:
    """The status of each answer among these bytes."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
