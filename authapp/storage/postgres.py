"""Postgres: bounded waits, transactions, and one error for "it could not be asked"."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import msgspec
import psycopg2
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from authapp.errors import StoreUnavailable
from authapp.storage.bounded_connections import PATIENCE, BoundedConnection, Connecting, NoAnswer
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.deadlines import deadline, pause_before_retry, remaining
from authapp.storage.deployments import expect_key_prefix
from authapp.storage.postgres_connections import (
    CONNECT_TIMEOUT,
    SEARCH_PATH,
    Connector,
    engine_of,
)
from authapp.storage.schema_names import DEFAULT_SCHEMA, in_schema
from authapp.telemetry import metrics

T = TypeVar("T")

PING_TIMEOUT = 0.5  # seconds, as are the next
USED_JUST_NOW = 0.2  # then a look at the socket takes the place of a ping
POOL_TIMEOUT = 2.0
STATEMENT_TIMEOUT = 2.5  # below PATIENCE: a server that lives says itself that it gave up
LOCK_TIMEOUT = 2.0
TRANSACTION_TIMEOUT = 10

# SQLSTATEs of a failure of the server, not of the statement: classes connection, rollback,
# resources, operator, system, internal; a lock that was not available
SERVER_FAILURES = ("08", "40", "53", "57", "58", "XX", "55P03")
_READ_ONLY = "25006"


class FailureKind(Enum):
    """Why Postgres could not be asked."""

    NO_CONNECTION = "none could be made"
    NO_ANSWER = "it did not answer in time"
    LOST = "the connection ended while it was used; a new one may work"
    REFUSED = "it answered that it can't: overload, conflict, shutting down"
    READ_ONLY = "it takes no changes: a standby, or one that was set so"
    ALL_BUSY = "all connections of this process were in use"


# the state of the server is not known
_NO_RESPONSE = {FailureKind.NO_CONNECTION, FailureKind.NO_ANSWER, FailureKind.LOST}


class PostgresUnavailable(StoreUnavailable):
    """
    Attributes:
        committing: the transaction may have been committed.
    """

    def __init__(self, kind: FailureKind, *, committing: bool = False) -> None:
        super().__init__("postgres")
        self.kind = kind
        self.committing = committing


def connect(
    database_url: str, pool_size: int, key_prefix: str = "", schema: str = DEFAULT_SCHEMA
) -> Engine:
    """An engine whose every wait is bounded, whether the server answers or not.

    Its connections raise `SettingError` where the instances of the database use another prefix.
    """
    settings = SEARCH_PATH | {
        "statement_timeout": f"{STATEMENT_TIMEOUT * 1000:.0f}",
        "lock_timeout": f"{LOCK_TIMEOUT * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{TRANSACTION_TIMEOUT}s",
    }
    check = partial(expect_key_prefix, key_prefix=key_prefix, schema=schema)
    open_connection = Connector(database_url, "authapp", settings, BoundedConnection, check)
    connecting = Connecting(pool_size)
    engine = engine_of(
        lambda: connecting.within(remaining(CONNECT_TIMEOUT), open_connection),
        poolclass=_Pool,
        pool_size=pool_size,
        max_overflow=0,
        execution_options=in_schema(schema),
        hide_parameters=True,  # errors end up in logs
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
    )
    event.listen(engine, "connect", _note_fresh)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _expect_alive)
    if open_connection.wants_primary:
        event.listen(engine, "handle_error", _leave_demoted)
    return engine


def _leave_demoted(context: ExceptionContext) -> None:
    """Gives up all connections when one turns out to be read-only: the primary is elsewhere now."""
    if getattr(context.original_exception, "pgcode", None) == _READ_ONLY:
        context.is_disconnect = True  # the pool is invalidated with it


class _Pool(QueuePool):
    """Waits for a connection that is in use only as long as leaves the time to use it."""

    @property
    def _timeout(self) -> float:
        return max(0.0, remaining(POOL_TIMEOUT + PING_TIMEOUT) - PING_TIMEOUT)

    @_timeout.setter
    def _timeout(self, _seconds: float) -> None:
        pass  # the pool sets a fixed one when it is made


def _note_fresh(_connection: object, record: Any) -> None:
    record.info["fresh"] = True
    record.info["process"] = os.getpid()


def _note_use(_connection: object, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _expect_alive(connection: BoundedConnection, record: Any, pooled: Any) -> None:
    """As the pool's own `pre_ping`, which waits as long for an answer as a query may take."""
    if record.info["process"] != os.getpid():  # it came by fork: two would read the same answers
        record.dbapi_connection = pooled.dbapi_connection = None  # the parent goes on to use it
        raise DisconnectionError
    if record.info.pop("fresh", False):
        return
    just_now = time.monotonic() - record.info["used"] < USED_JUST_NOW
    if not just_now or connection.has_ended():
        _ping(connection)


def _ping(connection: BoundedConnection) -> None:
    try:
        connection.autocommit = True  # else this would begin a transaction
        with deadline(PING_TIMEOUT), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except NoAnswer as error:
        if remaining(CONNECT_TIMEOUT) < PING_TIMEOUT:  # too little for a new one
            raise
        raise DisconnectionError from error
    except psycopg2.Error as error:  # the server was away: all older connections are gone
        gone = DisconnectionError()
        gone.invalidate_pool = True
        raise gone from error


class _Asking:
    """A transaction under way.

    Attributes:
        committing: whether its COMMIT may have been sent.
    """

    committing = False


class Database:
    """Runs work in transactions.

    Args:
        engine: from `connect`.
        breaker: decides whether Postgres is asked at all.
    """

    def __init__(self, engine: Engine, breaker: Breaker | None = None) -> None:
        self._engine = engine
        self._session = sessionmaker(engine, expire_on_commit=False)
        self.breaker = breaker or Breaker("postgres")
        self.breaker.recover = self.ping

    @contextmanager
    def transaction(self, patience: float = PATIENCE) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any exception.

        Args:
            patience: seconds that all its waits together may take.
        Raises:
            PostgresUnavailable: it did not answer, refused, or gave up waiting.
        """
        self.breaker.admit()
        with self._transaction(patience) as db:
            yield db

    @contextmanager
    def connection(self, patience: float = PATIENCE) -> Iterator[Connection]:
        """As `transaction`, for statements that need no `Session`, which takes its time."""
        self.breaker.admit()
        with self._asking(patience) as asking, self._engine.begin() as db:
            yield db
            asking.committing = True

    def read(self, query: Callable[[Session], T], patience: float = PATIENCE) -> T:
        """Runs `query` in a transaction, once more when its connection is lost.

        Raises:
            PostgresUnavailable
        """

        def once() -> T:
            with self.transaction(patience) as db:
                return query(db)

        return again_if_lost(once)

    def check(self) -> None:
        """Returns if Postgres answers and is asked again.

        Raises:
            StoreUnavailable
        """
        self.breaker.admit()
        self.ping()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        self._engine.dispose()

    def ping(self) -> None:
        """Returns if Postgres answers, whatever the breaker thinks.

        Raises:
            PostgresUnavailable
        """
        with self._transaction(CONNECT_TIMEOUT) as db:
            db.execute(text("SELECT 1"))

    @contextmanager
    def _transaction(self, patience: float) -> Iterator[Session]:
        with self._asking(patience) as asking, self._session.begin() as db:
            yield db
            db.flush()
            asking.committing = True

    @contextmanager
    def _asking(self, patience: float) -> Iterator[_Asking]:
        asking = _Asking()
        # a shorter wait than a ping gets shows how late we are, and nothing of the server
        had_enough_time = remaining(patience) >= PING_TIMEOUT
        try:
            with deadline(patience):
                yield asking
        except PoolTimeout as error:  # says nothing of the server
            raise PostgresUnavailable(FailureKind.ALL_BUSY) from error
        except DBAPIError as error:
            kind = _failure_kind(error)
            if kind is None:
                raise
            no_response = kind in _NO_RESPONSE
            if no_response and had_enough_time:
                self.breaker.failed()
            metrics.STORE_ERRORS.labels("postgres").inc()
            committing = asking.committing and no_response
            raise PostgresUnavailable(kind, committing=committing) from error
        self.breaker.succeeded()


def again_if_lost(work: Callable[[], T]) -> T:
    """Runs `work`, a transaction that may be repeated, once more when its connection is lost.

    Raises:
        PostgresUnavailable
    """
    try:
        return work()
    except PostgresUnavailable as error:
        if error.kind is not FailureKind.LOST:
            raise
    pause_before_retry()
    return work()


def _failure_kind(error: DBAPIError) -> FailureKind | None:
    """The server's failure behind an error; None: the statement is at fault."""
    code = getattr(error.orig, "pgcode", None) or ""
    if isinstance(error.orig, NoAnswer):
        return FailureKind.NO_ANSWER
    if error.connection_invalidated:
        return FailureKind.LOST
    if code == _READ_ONLY:
        return FailureKind.READ_ONLY
    if code.startswith(SERVER_FAILURES):
        return FailureKind.REFUSED
    if not code and isinstance(error, (OperationalError, InterfaceError)):
        return FailureKind.NO_CONNECTION
    return None
