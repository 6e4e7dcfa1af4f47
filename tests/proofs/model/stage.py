"""Real servers, of which one is the primary, and the wire to it, on which things get lost."""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from authapp.cache.keys import LIFE_KEY, CredentialKeys, session_key, user_key

Kind = Literal["sess", "user", "cred"]
KINDS: tuple[Kind, ...] = ("sess", "user", "cred")
Fault = Literal["command", "reply"]


@dataclass(frozen=True, slots=True)
class Dump:
    """One key of a snapshot."""

    value: bytes
    ttl_ms: int


Snapshot = Mapping[str, Dump]


class Line:
    """Between one process and the primary.

    Attributes:
        faults: what the next attempts lose.
        cut: every attempt loses its command.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.cut = False

    def sending(self, packed: bytes) -> Fault | None:  # noqa: ARG002 - subclasses look at it
        """Called before each attempt; what it will lose."""
        if self.cut:
            return "command"
        return self.faults.pop(0) if self.faults else None

    def route(self, path: str) -> str:
        """Where the primary is, if no longer at `path`."""
        return path


class Wire(UnixDomainSocketConnection):
    """A connection that loses commands or replies when its line says so."""

    def __init__(self, *, line: Line, **options: Any) -> None:
        self._line = line
        self._lose_reply = False
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        parts = [command] if isinstance(command, (bytes, str)) else command
        packed = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
        if b"FCALL" in packed[:40] or b"PING" in packed[:40]:  # not the handshake
            fault = self._line.sending(packed)
            if fault == "command":
                raise redis.ConnectionError("lost command")
            self._lose_reply = fault == "reply"
        if self.path != self._line.route(self.path):  # another server is the primary by now
            self.disconnect()  # type: ignore[no-untyped-call]
            self.path = self._line.route(self.path)
        super().send_packed_command([packed], check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().read_response(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self._lose_reply:  # the server did it; we never hear
            self._lose_reply = False
            raise redis.ConnectionError("lost reply")
        return response


class Servers:
    """Servers with run_ids of their own; a fail-over or restart makes the next one the primary.

    Attributes:
        life_key: where the life of all copies is kept.
    """

    life_key = LIFE_KEY

    def __init__(self, urls: Sequence[str]) -> None:
        self.admins = [redis.Redis.from_url(url) for url in urls]
        self.paths: list[str] = [
            admin.connection_pool.connection_kwargs["path"] for admin in self.admins
        ]
        self.primary = 0
        self.keys: dict[Kind, str] = {}

    def close(self) -> None:
        for admin in self.admins:
            admin.connection_pool.disconnect()

    @property
    def admin(self) -> redis.Redis:
        """The primary, over a wire that loses nothing."""
        return self.admins[self.primary]

    @property
    def path(self) -> str:
        return self.paths[self.primary]

    def load(self, library: str) -> None:
        """Loads the text of versioned_cache.lua, or a mutation of it."""
        for admin in self.admins:
            admin.function_load(library, replace=True)

    def expire(self, key: str) -> None:
        self.admin.pexpire(key, 1)
        time.sleep(0.002)

    def snapshot(self) -> Snapshot:
        keys = [*self.keys.values(), self.life_key]
        with self.admin.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.dump(key)
                pipe.pttl(key)
            answers = pipe.execute()
        dumps = zip(keys, answers[::2], answers[1::2], strict=True)
        return {key: Dump(value, max(ttl, 0)) for key, value, ttl in dumps if value is not None}

    def fail_over(self, snapshot: Snapshot) -> None:
        """The next server becomes the primary, with `snapshot` as its data."""
        self.primary += 1
        self.admin.delete(self.life_key)  # of the schedules before
        for key, dump in snapshot.items():
            self.admin.restore(key, dump.ttl_ms, dump.value)


class Stage(Servers, Line):
    """The servers, and one line to them, of a client that retries once, as the application's does.

    Attributes:
        sent: server and bytes of each command of the present schedule.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        Servers.__init__(self, urls)
        Line.__init__(self)
        self.clients = [self._client(url) for url in urls]
        self.sent: list[tuple[int, bytes]] = []
        self._numbers = itertools.count()
        self._credential_keys = CredentialKeys(["model"])

    def _client(self, url: str) -> redis.Redis:
        options = parse_url(url)  # type: ignore[no-untyped-call]
        options |= {"connection_class": Wire, "line": self, "retry": Retry(NoBackoff(), 1)}
        return redis.Redis(connection_pool=ConnectionPool(**options))

    def close(self) -> None:
        super().close()
        for client in self.clients:
            client.connection_pool.disconnect()

    def new_keys(self) -> dict[Kind, str]:
        """Starts a schedule: nothing is left of the one before."""
        number = next(self._numbers)
        if number % 5_000 == 0:
            for admin in self.admins:
                admin.flushall()
        self.primary = 0
        self.admin.delete(self.life_key)
        self.faults.clear()
        self.sent.clear()
        self.keys = {
            "sess": session_key(number.to_bytes(32)),
            "user": user_key(UUID(int=number)),
            "cred": self._credential_keys.current(f"{number}@example.org"),
        }
        return self.keys

    def sending(self, packed: bytes) -> Fault | None:
        fault = super().sending(packed)
        if fault != "command":
            self.sent.append((self.primary, packed))
        return fault

    def repeat_first(self, function: str) -> None:
        """Sends the first call of this function once more, if it went to this server."""
        for server, packed in self.sent:
            if function.encode() in packed:
                if server == self.primary:
                    connection: Any = self.admin.connection_pool.get_connection()
                    connection.send_packed_command([packed])
                    for _ in range(packed.count(b"FCALL")):
                        connection.read_response()
                    self.admin.connection_pool.release(connection)
                return
