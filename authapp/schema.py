"""The database's schema: upgrade, downgrade, and whether it is current."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from authapp.database import CONNECT_TIMEOUT, driver_url
from authapp.errors import SettingError

_LOCK = 0x61757468  # any number that all instances share


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the schema to `revision`. Two at once wait for each other.

    Raises:
        SettingError: the database can't be reached; one line that names the remedy.
    """
    with _connection(database_url) as connection, _alone(connection):
        command.upgrade(_alembic(connection), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Takes the schema back to `revision` (`base`: to nothing, with all data).

    Raises:
        SettingError: as `upgrade`.
    """
    with _connection(database_url) as connection, _alone(connection):
        command.downgrade(_alembic(connection), revision)


def require_current(database_url: str) -> None:
    """Returns when the schema is the one this version needs.

    Raises:
        SettingError: it is not, or the database can't be reached; one line that names the remedy.
    """
    with _connection(database_url) as connection:
        found, wanted = revisions(connection)
    if found != wanted:
        raise SettingError(
            f"the database is at migration {found or 'none'}, this version needs {wanted}: "
            "run `flask --app wsgi db upgrade`"
        )


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The migration the database is at, None before the first; and the one this version needs."""
    found = MigrationContext.configure(connection).get_current_revision()
    return found, ScriptDirectory(str(files("authapp") / "migrations")).get_current_head()


def _alembic(connection: Connection) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(files("authapp") / "migrations"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connection(database_url: str) -> Iterator[Connection]:
    engine = create_engine(
        driver_url(database_url),
        poolclass=NullPool,
        connect_args={"connect_timeout": CONNECT_TIMEOUT},
    )
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        why = str(error.orig).strip().splitlines()
        raise SettingError(
            f"DATABASE_URL: the database can't be reached ({why[0] if why else 'no answer'}); "
            "start it, or correct the address"
        ) from None


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()
