"""Asks a site as nobody should: with any spelling of headers, methods, paths and targets."""

import http.client
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_EACH_SECONDS = 10.0  # that one answer may take
_MAX_BODY = 256 * 1024

Header = tuple[str, str]


class TimeIsUp(Exception):
    """The whole examination has taken as long as it may."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer. Its status is 0 where the connection broke off without one."""

    status: int
    headers: tuple[Header, ...] = ()
    body: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def first(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def passed(self) -> bool:
        return 200 <= self.status < 300

    def __contains__(self, text: str) -> bool:
        return text in self.body or any(text in value for _, value in self.headers)


@dataclass(frozen=True, slots=True)
class Site:
    """
    Attributes:
        url: without a slash at its end.
        until: the monotonic time at which the examination ends.
        connect_to: address and port in place of those of the URL.
        seen: all answers so far.
    """

    url: str
    until: float
    context: ssl.SSLContext
    connect_to: tuple[str, int] | None = None
    seen: list[Seen] = field(default_factory=list)

    @property
    def is_https(self) -> bool:
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def origin(self) -> str:
        return f"{urlsplit(self.url).scheme}://{self.host}"

    def ask(
        self,
        target: str,
        headers: Sequence[Header] = (),
        method: str = "GET",
        body: bytes = b"",
        host: str = "",
    ) -> Seen:
        """One request, on a connection of its own.

        Args:
            target: the path and query, or whatever stands in their place in the first line.
        Raises:
            TimeIsUp
        """
        try:
            with closing(self._connect()) as connection:
                connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
                sent = [("Host", host or self.host), *headers]
                if body or method in {"POST", "PUT", "PATCH"}:
                    sent.append(("Content-Length", str(len(body))))
                for name, value in sent:
                    connection.putheader(name, value)
                connection.endheaders(body or None)
                answer = connection.getresponse()
                text = answer.read(_MAX_BODY).decode("utf-8", "replace")
                found = Seen(answer.status, tuple(answer.getheaders()), text)
        except (OSError, http.client.HTTPException):
            found = Seen(0)
        self.seen.append(found)
        return found

    def connect(self) -> socket.socket:
        """
        Raises:
            OSError, TimeIsUp
        """
        parts = urlsplit(self.url)
        place = (parts.hostname or "", parts.port or (443 if self.is_https else 80))
        plain = socket.create_connection(self.connect_to or place, timeout=self._seconds())
        # else the request waits for the peer's delayed ACK of the handshake: 40 ms
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.is_https:
            return plain
        try:
            return self.context.wrap_socket(plain, server_hostname=self.name)
        except BaseException:
            plain.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.name)
        connection.sock = self.connect()
        return connection

    def _seconds(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeIsUp
        return min(_EACH_SECONDS, left)


def cookie(name: str, value: str) -> Header:
    return "Cookie", f"{name}={value}"


BROWSER: tuple[Header, ...] = (("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate"))
