"""Postgres: bounded waits, transactions, and one error for "it could not be asked"."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from authapp.errors import StoreUnavailable

CONNECT_TIMEOUT = 2  # seconds, as are the next three
POOL_TIMEOUT = 2.0
STATEMENT_TIMEOUT = 3
TRANSACTION_TIMEOUT = 10


def driver_url(database_url: str) -> URL:
    """The URL with the driver we ship, whichever dialect name it was written with."""
    return make_url(database_url).set(drivername="postgresql+psycopg2")


def connect(database_url: str, pool_size: int) -> Engine:
    """An engine whose every wait on a server that answers is bounded."""
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT}s -c lock_timeout={STATEMENT_TIMEOUT}s"
        f" -c idle_in_transaction_session_timeout={TRANSACTION_TIMEOUT}s -c timezone=UTC"
    )
    return create_engine(
        driver_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        pool_pre_ping=True,
        hide_parameters=True,  # errors end up in logs
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": "authapp",
            "options": options,
        },
    )


class Database:
    """Runs work in transactions.

    Args:
        engine: from `connect`.
    """

    def __init__(self, engine: Engine) -> None:
        self._session = sessionmaker(engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any exception.

        Raises:
            StoreUnavailable: Postgres did not answer, refused, or gave up waiting.
        """
        try:
            with self._session.begin() as db:
                yield db
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise StoreUnavailable("postgres") from error
        except (DBAPIError, InvalidRequestError) as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise StoreUnavailable("postgres") from error
            raise
