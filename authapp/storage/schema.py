"""The database's schema: upgrade, downgrade, and whether it is current."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg2 import errorcodes, extensions
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from authapp.errors import SettingError
from authapp.storage.deployments import expect_key_prefix
from authapp.storage.postgres import SERVER_FAILURES
from authapp.storage.postgres_connections import WITHOUT_LIMITS, Connector, engine_of

_LOCK = 0x61757468  # any number that all instances share


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the schema to `revision`. Two at once wait for each other.

    Raises:
        SettingError: the database can't be reached or used; one line that names the remedy.
    """
    _run(database_url, command.upgrade, revision)


def downgrade(database_url: str, revision: str) -> None:
    """Takes the schema back to `revision` (`base`: to nothing, with all data).

    Raises:
        SettingError: as `upgrade`.
    """
    _run(database_url, command.downgrade, revision)


def current(database_url: str) -> "SchemaState":
    """The migration that the database is at, and the one that this version needs.

    Raises:
        SettingError: as `upgrade`.
    """
    with _connection(database_url) as connection:
        return examine(connection)


def require_current(database_url: str, key_prefix: str = "") -> None:
    """Returns when the schema is the one this version needs, and instances use this prefix.

    Raises:
        SettingError: it is not, or the database can't be reached; one line that names the remedy.
    """
    check = partial(expect_key_prefix, key_prefix=key_prefix)
    with _connection(database_url, check) as connection:
        found = examine(connection)
    if not found.is_current:
        raise SettingError(f"the database is {found.told}: {found.remedy}")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """At which migration a database is, for people.

    Attributes:
        found: the revision it is at; "none" before the first migration.
        needed: the revision that this version needs.
        remedy: what to do; empty where nothing is.
        is_newer: it is at a migration that this version does not have.
    """

    found: str
    needed: str
    told: str
    remedy: str = ""
    is_newer: bool = False

    @property
    def is_current(self) -> bool:
        return not self.remedy


def examine(connection: Connection) -> SchemaState:
    """Whether the database is at the migration that this version needs."""
    revisions, script = _revisions_of(connection), _scripts()
    found, needed = ", ".join(revisions) or "none", script.get_current_head() or "none"
    if found == needed:
        return SchemaState(found, needed, f"at migration {needed}")
    if unknown := [revision for revision in revisions if not _is_known(script, revision)]:
        return SchemaState(
            found,
            needed,
            f"at migration {', '.join(unknown)}, which this version of authapp does not know",
            "install the version that made it, which is newer; or go back by that version's "
            f"`flask --app wsgi auth db downgrade {needed}`, or by a backup",
            is_newer=True,
        )
    told = f"at migration {found}, this version needs {needed}"
    return SchemaState(found, needed, told, "run `flask --app wsgi auth db upgrade`")


def _run(database_url: str, migrate: Callable[[AlembicConfig, str], None], revision: str) -> None:
    with _connection(database_url) as connection, _alone(connection):
        found = examine(connection)
        connection.commit()
        if found.is_newer:
            raise SettingError(f"the database is {found.told}: {found.remedy}")
        try:
            migrate(_alembic(connection), revision)
        except CommandError as error:
            known = ", ".join(script.revision for script in _scripts().walk_revisions())
            why = str(error).splitlines()[0]
            raise SettingError(
                f"the database can't be brought to {revision} ({why}); there are {known} and base"
            ) from None


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(files("authapp.storage") / "migrations"))


def _revisions_of(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


def _is_known(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False


def _alembic(connection: Connection) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(files("authapp.storage") / "migrations"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connection(
    database_url: str, check: Callable[[extensions.connection], None] = lambda _: None
) -> Iterator[Connection]:
    connector = Connector(database_url, "authapp migrations", WITHOUT_LIMITS, check=check)
    try:
        with engine_of(connector, poolclass=NullPool).connect() as connection:
            yield connection
    except DBAPIError as error:
        if (remedy := _remedy(error)) is None:  # a defect of ours: its traceback is needed
            raise
        raise SettingError(f"DATABASE_URL: {remedy}") from None


def _remedy(error: DBAPIError) -> str | None:
    """One line for the operator; None where the error is a defect of ours."""
    lines = str(error.orig).strip().splitlines()
    why = lines[0] if lines else "no answer"
    code = getattr(error.orig, "pgcode", None) or ""
    if code == errorcodes.INSUFFICIENT_PRIVILEGE:
        return (
            f"a right is missing ({why}); have the account own its database, or run "
            "GRANT CREATE ON SCHEMA public TO it"
        )
    if code == errorcodes.READ_ONLY_SQL_TRANSACTION:
        return (
            f"the database only reads ({why}); point it at the primary "
            "(target_session_attrs=read-write finds it), or reset default_transaction_read_only"
        )
    if code.startswith(SERVER_FAILURES):
        return f"the database can't do it now ({why}); try again when it can"
    if not code and isinstance(error, OperationalError):
        return f"the database can't be reached ({why}); start it, or correct the address"
    return None


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
