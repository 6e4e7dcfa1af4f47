"""What tests share: settings, a clock moved by hand, services on real engines, and counters."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any, TypeVar
from uuid import UUID

import bcrypt
import pytest
from limits.strategies import MovingWindowRateLimiter
from redis.connection import AbstractConnection
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from authapp.accounts.identity import Identity
from authapp.config import Config
from authapp.services import Services, build_services
from authapp.sessions.records import ActiveSession, Client
from authapp.storage.redis import LimiterStorage

PASSWORD = "correct horse battery staple"
OTHER_PASSWORD = "quite another long passphrase"
EMAIL = "ada@example.org"
PEPPER = "tests-only pepper of 32 bytes or more"
CLIENT = Client(
    "192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
)

T = TypeVar("T")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2031, 5, 4, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def make_config(database_url: str, redis_url: str, **overrides: Any) -> Config:
    """The defaults, with hashing that costs a millisecond."""
    values = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "tests-only secret key of 32 bytes or more",
        "PASSWORD_PEPPER": PEPPER,
        "BCRYPT_ROUNDS": "4",
        "CREDENTIAL_CACHE_WRITE": "blocking",
    }
    return Config.from_mapping(values | overrides)


@contextmanager
def open_services(config: Config, clock: Callable[[], datetime]) -> Iterator[Services]:
    """One instance of the product; a second one on the same settings is another worker."""
    storage = LimiterStorage(redis_url=config.REDIS_URL, key_prefix=config.KEY_PREFIX)
    strategy = MovingWindowRateLimiter(storage)
    services = build_services(config, lambda: strategy, clock)
    try:
        yield services
    finally:
        services.close()


def await_trust(services: Services) -> None:
    """Returns once both stores are asked again: a second or two after they are back."""
    deadline = time.monotonic() + 10
    while services.cache.breaker.is_open or services.database.breaker.is_open:
        assert time.monotonic() < deadline, "a breaker stays open"
        time.sleep(0.01)


def sign_up(services: Services, email: str = EMAIL, password: str = PASSWORD) -> Identity:
    return services.authentication.sign_up(email, password)


def log_in(
    services: Services, email: str = EMAIL, password: str = PASSWORD, **how: Any
) -> ActiveSession:
    return services.authentication.log_in(email, password, CLIENT, **how)


def sql(services: Services, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Runs a statement by hand, behind the product's back."""
    with services.database.transaction() as db:
        result = db.connection().execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def at_once(*works: Callable[[], T]) -> list[T | Exception]:
    """Runs all in threads that start together; what each returned or raised."""
    start = Barrier(len(works))
    outcomes: dict[int, T | Exception] = {}

    def run(number: int, work: Callable[[], T]) -> None:
        start.wait()
        try:
            outcomes[number] = work()
        except Exception as error:  # noqa: BLE001 - the test judges it
            outcomes[number] = error

    # daemons: one that hangs must fail its test, not keep the process from ending
    threads = [Thread(target=run, args=one, daemon=True) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive(), "some wait for each other"
    return [outcomes[number] for number in range(len(works))]


@dataclass
class Traffic:
    """What went to the stores: SQL statements, and what was written to Redis in one go."""

    sql: list[str] = field(default_factory=list)
    redis: list[bytes] = field(default_factory=list)


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Records what all services of this process send."""
    seen = Traffic()

    def on_sql(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.sql.append(statement)

    send = AbstractConnection.send_packed_command

    def on_redis(
        self: AbstractConnection, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        parts = [command] if isinstance(command, (bytes, str)) else list(command)
        sent = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
        if b"SENTINEL" not in sent:  # once a second, and asks for nothing of ours
            seen.redis.append(sent)
        send(self, parts, check_health)  # type: ignore[no-untyped-call]

    event.listen(Engine, "before_cursor_execute", on_sql)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AbstractConnection, "send_packed_command", on_redis)
            yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", on_sql)


@contextmanager
def plans(part: str) -> Iterator[list[str]]:
    """How Postgres goes about the statements with this in them, each after the statement itself."""
    found: list[str] = []

    def explain(
        _connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any
    ) -> None:
        if part in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            found.append("\n".join([statement, *(line for (line,) in cursor.fetchall())]))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def add_sessions(services: Services, user_id: UUID, count: int, now: datetime) -> None:
    """Rows of sessions, every second of which has just ended, and what a planner knows of them."""
    sql(
        services,
        "INSERT INTO sessions (id, digest, user_id, kind, epoch, created_at, last_seen_at,"
        " idle_seconds, expires_at, user_agent, ended_at, ended_why)"
        " SELECT gen_random_uuid(), uuid_send(gen_random_uuid()), :user_id, 'browser', 1, :now,"
        " :now, 1800, :now + interval '12 hours', repeat('x', 400), ended,"
        " CASE WHEN ended < :now THEN 'logout' END FROM generate_series(1, :count) AS number"
        " CROSS JOIN LATERAL (SELECT CASE WHEN number % 2 = 0 THEN :now END::timestamptz"
        " - interval '1 s' AS ended) AS _",
        user_id=user_id,
        count=count,
        now=now,
    )
    sql(services, "ANALYZE sessions")


@contextmanager
def hashing() -> Iterator[list[int]]:
    """The cost (log2 rounds) of each hash that bcrypt completes: counted, as time varies."""
    costs: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    def counting_check(password: bytes, hashed: bytes) -> bool:
        matches = check(password, hashed)
        costs.append(int(hashed[4:6]))
        return matches

    def counting_make(password: bytes, salt: bytes) -> bytes:
        costs.append(int(salt[4:6]))
        return make(password, salt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", counting_check)
        patch.setattr(bcrypt, "hashpw", counting_make)
        yield costs


def everything_in(client: Any) -> dict[bytes, bytes]:
    """Each key of a server with all that it holds, as bytes."""
    found: dict[bytes, bytes] = {}
    for key in client.scan_iter():
        match client.type(key):
            case b"string":
                parts = [client.get(key)]
            case b"hash":
                parts = [part for pair in client.hgetall(key).items() for part in pair]
            case b"list":
                parts = client.lrange(key, 0, -1)
            case b"set":
                parts = client.smembers(key)
            case b"zset":
                parts = client.zrange(key, 0, -1)
            case other:
                raise AssertionError(f"teach this function to read a {other!r}")
        found[key] = b"\n".join(parts)
    return found
