"""Real servers, of which one is the primary, and the wire to it, on which things get lost."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

Snapshot = tuple[bytes, int] | None
"""A dumped key and its remaining milliseconds; None when there was none."""


class Wire(UnixDomainSocketConnection):
    """A connection that loses commands or replies when told to, and remembers what was sent."""

    def __init__(self, *, stage: "Stage", **options: Any) -> None:
        self._stage = stage
        self._lose_reply = False
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        packed = command if isinstance(command, bytes) else b"".join(command)
        if self._stage.key in packed:  # not the handshake
            fault = self._stage.faults.pop(0) if self._stage.faults else None
            if fault == "command":
                raise redis.ConnectionError("lost command")
            self._lose_reply = fault == "reply"
            self._stage.sent.append((self._stage.primary, packed))
        super().send_packed_command([packed], check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().read_response(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self._lose_reply:  # the server did it; we never hear
            self._lose_reply = False
            raise redis.ConnectionError("lost reply")
        return response


class Stage:
    """Servers with run_ids of their own; a fail-over or restart makes the next one the primary.

    Attributes:
        clients: one a server, on the faulty wire; they retry once, as the application's does.
        faults: what the next attempts lose: "command" or "reply".
        sent: server and bytes of each command of the present schedule.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.clients = [self._client(url) for url in urls]
        self.admins = [redis.Redis.from_url(url) for url in urls]
        self.primary = 0
        self.key = b""
        self.faults: list[str] = []
        self.sent: list[tuple[int, bytes]] = []
        self._numbers = itertools.count()

    def _client(self, url: str) -> redis.Redis:
        options = parse_url(url)  # type: ignore[no-untyped-call]
        options |= {"connection_class": Wire, "stage": self, "retry": Retry(NoBackoff(), 1)}
        return redis.Redis(connection_pool=ConnectionPool(**options))

    def close(self) -> None:
        for client in [*self.clients, *self.admins]:
            client.connection_pool.disconnect()

    @property
    def admin(self) -> redis.Redis:
        """The primary, over a wire that loses nothing."""
        return self.admins[self.primary]

    def new_key(self) -> str:
        """Starts a schedule: nothing is left of the one before."""
        number = next(self._numbers)
        if number % 5_000 == 0:
            for admin in self.admins:
                admin.flushall()
        self.primary = 0
        self.faults.clear()
        self.sent.clear()
        key = f"schedule:{number}:"
        self.key = key.encode()
        return key

    def expire(self, key: str) -> None:
        self.admin.pexpire(key, 1)
        time.sleep(0.002)

    def snapshot(self, key: str) -> Snapshot:
        dump: Any = self.admin.dump(key)
        ttl: Any = self.admin.pttl(key)
        return None if dump is None else (dump, ttl)

    def fail_over(self, key: str, snapshot: Snapshot) -> None:
        """The next server becomes the primary, with `snapshot` as its data."""
        self.primary += 1
        if snapshot is not None:
            dump, ttl = snapshot
            self.admin.restore(key, max(ttl, 0), dump)

    def repeat_first(self, function: str) -> None:
        """Sends the first call of this function once more, if it went to this server."""
        for server, packed in self.sent:
            if function.encode() in packed:
                if server == self.primary:
                    connection: Any = self.admin.connection_pool.get_connection()
                    connection.send_packed_command([packed])
                    connection.read_response()
                    self.admin.connection_pool.release(connection)
                return
