"""Random faults of processes, of Redis and of connections to Postgres."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psycopg2
import redis

from authapp import dev
from tests.support.frozen import frozen
from tests.support.instances import Instance

KEYS = ("sess:*", "user:*", "cred:*", "lock:life")


class Redis:
    """A server that is killed, frozen and brought back, empty or with what it held once."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._folder, self._sockets = folder, sockets
        self._start()

    def _start(self) -> None:
        self.server = dev.Valkey.start(self._folder, self._sockets, "tests-only", durable=False)
        self.client: redis.Redis = redis.Redis.from_url(self.server.url)

    @property
    def has_snapshot(self) -> bool:
        return (self._folder / "dump.rdb").exists()

    def snapshot(self) -> None:
        """Keeps the present copies, as old ones for later."""
        self.client.save()

    def kill(self) -> None:
        self.client.close()
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()

    def come_back(self, *, empty: bool) -> None:
        if empty:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
        self._start()

    def stop(self) -> None:
        self.client.close()
        self.server.stop()

    def frozen(self) -> AbstractContextManager[None]:
        return frozen(self.server.pid)


class Postgres:
    """A server that is killed and frozen, with all its processes, and comes back with its data."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._folder, self._sockets = folder, sockets
        self._start()
        # An acknowledged commit must survive a kill of the server, though not of the machine.
        self.run("ALTER DATABASE authapp SET synchronous_commit = on")

    def _start(self) -> None:
        self.server = dev.PostgreSQL.start(self._folder, self._sockets, "tests-only", durable=False)

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement by hand, on a connection of its own, committed."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(self.server.url, application_name="tests")
        connection.autocommit = True
        return connection

    def kill(self) -> None:
        """The processes that serve notice, and end."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()

    def come_back(self) -> None:
        self._start()

    def stop(self) -> None:
        self.server.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections (its kernel does), and nothing answers."""
        with ExitStack() as stack:
            postmaster = self.server.pid
            stack.enter_context(frozen(postmaster))  # first, so that it starts no other
            for pid in children_of(postmaster):
                stack.enter_context(frozen(pid))
            yield

    def end_connections(self, most: int = 1000) -> int:
        """Ends connections of the product; returns how many."""
        ended = self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'authapp' ORDER BY random() LIMIT %s",
            most,
        )
        return len(ended)


class Faults:
    """Draws faults from a bag that holds each kind once, and refills it.

    Attributes:
        counts: what was done, by kind.
        seen: what happened, with times, to look into a failure.
    """

    def __init__(
        self,
        draw: random.Random,
        store: Redis,
        database_url: str,
        instances: Sequence[Instance],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.seen: list[str] = []
        self._draw = draw
        self._redis = store
        self._instances = instances
        self._postgres = psycopg2.connect(database_url)
        self._postgres.autocommit = True
        self._at_once: dict[str, Callable[[], object]] = {
            "worker killed": self._kill_worker,
            "connections to Postgres ended": self._end_connections,
            "copies evicted": self._evict,
        }
        self._lasting: dict[str, Callable[[], None]] = {
            "worker stopped": self._stop_worker,
            "Redis frozen": self._freeze_redis,
            "Redis back from an old snapshot": self._restore_redis,
            "Redis back, empty": self._empty_redis,
        }
        self.kinds = [*self._at_once, *self._lasting]
        self._bag: list[str] = []

    def close(self) -> None:
        self._postgres.close()

    def next(self) -> None:
        """One fault, to its end; half of those that last have another in their midst."""
        if not self._bag:
            self._bag = self._draw.sample(self.kinds, len(self.kinds))
        kind = self._bag.pop()
        self._note(kind)
        (self._at_once | self._lasting)[kind]()
        self.seen.append(f"{time.monotonic():.4f} end of: {kind}")

    def _note(self, kind: str) -> None:
        self.counts[kind] += 1
        self.seen.append(f"{time.monotonic():.4f} {kind}")

    def _last(self, shortest: float, longest: float, *, redis_is_away: bool = False) -> None:
        seconds = self._draw.uniform(shortest, longest)
        time.sleep(seconds / 2)
        kinds = [k for k in self._at_once if not (redis_is_away and k == "copies evicted")]
        kind = self._draw.choice(kinds)
        if self._draw.random() < 0.5:
            self._note(kind)
            self._at_once[kind]()
        time.sleep(seconds / 2)

    # -- processes

    def _a_worker(self) -> int | None:
        workers = self._draw.choice(self._instances).workers()
        return self._draw.choice(workers) if workers else None

    def _kill_worker(self) -> None:
        if pid := self._a_worker():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop_worker(self) -> None:
        if pid := self._a_worker():
            with suppress(ProcessLookupError), frozen(pid):
                self._last(0.3, 1.0)

    # -- Redis

    def _freeze_redis(self) -> None:
        with frozen(self._redis.server.pid):
            self._last(0.1, 1.5, redis_is_away=True)

    def _restore_redis(self) -> None:
        self._redis.snapshot()
        time.sleep(self._draw.uniform(0.2, 1.5))  # changes go on, of which it does not know
        self._redis.kill()
        self._last(0.0, 0.5, redis_is_away=True)
        self._redis.come_back(empty=False)

    def _empty_redis(self) -> None:
        self._redis.kill()
        self._last(0.0, 1.0, redis_is_away=True)
        self._redis.come_back(empty=True)

    def _evict(self) -> None:
        """Copies go, their fences and leases with them."""
        client = self._redis.client
        keys = [
            key
            for pattern in KEYS
            for key in cast("list[bytes]", client.keys(pattern))
            if self._draw.random() < 0.5
        ]
        if keys:
            client.delete(*keys)

    # -- Postgres

    def _end_connections(self) -> None:
        with self._postgres.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE application_name = 'authapp' AND datname = current_database()"
            )
            pids: list[Any] = [pid for (pid,) in cursor]
            for pid in self._draw.sample(pids, min(len(pids), 6)):
                cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))


def children_of(pid: int) -> list[int]:
    """Process ids, as of now."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
