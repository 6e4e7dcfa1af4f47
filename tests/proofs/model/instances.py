"""Instances of the whole product on real stores; what they do stops before each round trip."""

import re
import threading
from collections.abc import Callable
from typing import Any

from limits.strategies import MovingWindowRateLimiter
from psycopg2.extensions import connection as Postgres  # noqa: N812
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from authapp.config import Config
from authapp.services import Services, build_services
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.redis import LimiterStorage
from tests.proofs.model.explorer import Actor, Step
from tests.proofs.model.stage import Fault, Line, Servers, Wire
from tests.support.clock import Clock

_TABLE = re.compile(r"(?:FROM|INTO|UPDATE) (?:\w+\.)?(\w+)")
_present = threading.local()


class Killed(BaseException):
    """The process is gone. Nothing of ours may catch it."""


def _always() -> bool:
    return True


class Waiting:
    """The actors that wait in Postgres for a lock held by a stopped actor."""

    def __init__(self, admin: Postgres) -> None:
        self._admin = admin
        self.work: list[Work] = []

    def settled(self) -> bool:
        """Forgets those that got their lock and stopped; whether all others still wait."""
        self.work = [work for work in self.work if not work.has_stopped(0.001)]
        return self.in_postgres() >= len(self.work)

    def in_postgres(self) -> int:
        with self._admin.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return int(cursor.fetchone()[0])  # type: ignore[index]


class Work:
    """One thing an instance does, in a thread of its own, as an actor.

    Attributes:
        at_commit: called once, as the next transaction commits.
    """

    def __init__(self, waiting: Waiting, do: Callable[["Work"], None]) -> None:
        self.at_commit: Callable[[], None] | None = None
        self._waiting = waiting
        self._do = do
        self._label: str | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._killed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def steps(
        self,
        if_ever: Callable[[], bool] | None = None,
        first: Callable[[], None] = lambda: None,
    ) -> Actor:
        """
        Args:
            if_ever: when it can begin; it need not.
            first: called just before it.
        """
        yield Step("begin", if_ever or _always, optional=if_ever is not None)
        first()
        self._thread.start()
        self._stopped.acquire()  # before its first round trip; that is part of this step
        try:
            while self._label is not None:
                self._resume()
                if self._label is not None:
                    yield Step(self._label, self._arrived)
        finally:
            if self._label is not None:
                self._killed = True
                self._go.release()
            self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def waits(self) -> bool:
        return self in self._waiting.work

    def stop(self, label: str) -> None:
        """Called in the thread: returns when it is this step's turn."""
        if self._killed:  # on its way out
            return
        self._label = label
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        _present.work = self
        try:
            self._do(self)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self._error = error
        self._label = None
        self._stopped.release()

    def _resume(self) -> None:
        if self._label is None:
            return
        self._go.release()
        while not self.has_stopped(0.005):
            if self._waiting.in_postgres() > len(self._waiting.work):
                self._waiting.work.append(self)
                return

    def has_stopped(self, seconds: float) -> bool:
        return self._stopped.acquire(timeout=seconds)

    def _arrived(self) -> bool:
        """Whether it is stopped: it goes on by itself when it gets the lock it waits for."""
        while self.waits:
            if self._waiting.settled():
                return not self.waits
        return True


class _InstanceLine(Line):
    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self._servers = servers

    def sending(self, packed: bytes) -> Fault | None:
        commands = re.findall(rb"authapp_([a-z]+)_|(PING)", packed)
        _stop(" ".join(sorted({(a or b).decode() for a, b in commands})))
        return super().sending(packed)

    def route(self, path: str) -> str:  # noqa: ARG002
        return self._servers.path


class _StillBreaker(Breaker):
    """Recovers where the schedule says so, not by itself."""

    def _keep_recovering(self) -> None:
        pass


class Instance:
    """One process: the shipped `Services`, a line to Redis, and what it lost.

    Attributes:
        refuses: what Postgres does not take from it next: a "transaction" or a "commit".
        dead: its memory is gone.
    """

    def __init__(self, name: str, config: Config, clock: Clock, servers: Servers) -> None:
        self.name = name
        storage = LimiterStorage(redis_url=config.REDIS_URL, key_prefix=config.KEY_PREFIX)
        strategy = MovingWindowRateLimiter(storage)
        self.services: Services = build_services(config, lambda: strategy, clock)
        self.line = _InstanceLine(servers)
        self.refuses: set[str] = set()
        self.dead = False
        self._recovering = False
        client, cache = self.services.redis, self.services.cache
        client.connection_pool.connection_class = Wire
        client.connection_pool.connection_kwargs["line"] = self.line
        client.set_retry(Retry(NoBackoff(), 1))  # as many as shipped, without the pause
        self.breaker = _StillBreaker("redis")
        self.breaker.recover = cache.breaker.recover
        cache.breaker = self.breaker
        # what is refused here says nothing of the rest: Postgres itself is there all the time
        self.services.database.breaker = Breaker("postgres", failures=1_000_000)
        with self.services.database.transaction() as db:
            engine = db.get_bind()
        assert isinstance(engine, Engine)
        self._engine = engine
        event.listen(engine, "begin", _on_begin)
        event.listen(engine, "before_cursor_execute", self._on_statement)
        event.listen(engine, "commit", self._on_commit)

    def can_recover(self) -> bool:
        return self.breaker.is_open and not self._recovering

    def recover(self) -> None:
        """Try to close the breaker. The schedule decides when, in place of a pause."""
        self._recovering = True
        try:
            self.breaker.try_to_close()
        finally:
            self._recovering = False

    def close(self) -> None:
        self.services.redis.close()
        self._engine.dispose()

    def _on_statement(
        self, connection: Connection, _cursor: Any, statement: str, *_rest: Any
    ) -> None:
        if statement.startswith("SELECT set_config"):
            return
        begins, reads = connection.info["begins"], statement.startswith("SELECT")
        if begins or (reads and "pending_fences" in statement):
            table = _TABLE.search(statement)
            _stop(f"{statement.split(maxsplit=1)[0].lower()} {table[1] if table else ''}")
        connection.info["begins"] = False
        connection.info["holds"] |= not reads or " FOR " in statement
        if begins:
            self._refuse("transaction")

    def _on_commit(self, connection: Connection) -> None:
        if connection.info["holds"]:
            _stop("commit")
        work: Work | None = getattr(_present, "work", None)
        if work is None:
            return
        if work.at_commit is not None:
            self._refuse("commit")
            work.at_commit()
            work.at_commit = None

    def _refuse(self, what: str) -> None:
        if what in self.refuses and getattr(_present, "work", None) is not None:
            self.refuses.remove(what)
            raise OperationalError(f"{what} refused", None, Exception())


def _on_begin(connection: Connection) -> None:
    connection.info.update(begins=True, holds=False)


def _stop(label: str) -> None:
    work: Work | None = getattr(_present, "work", None)
    if work is not None:
        work.stop(label)
