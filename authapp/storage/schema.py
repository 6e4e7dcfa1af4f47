"""The database's schema: upgrade, downgrade, and whether it is current."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg2 import errorcodes, extensions
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from authapp.errors import SettingError
from authapp.storage.deployments import expect_key_prefix
from authapp.storage.migrations.installations import (
    Installation,
    create_schema,
    expect_no_role,
    find_installation,
    look_only_in,
    may_create_in,
    oldest_compatible,
    oldest_declared,
    pin_functions,
)
from authapp.storage.postgres import SERVER_FAILURES
from authapp.storage.postgres_connections import WITHOUT_LIMITS, Connector, engine_of
from authapp.storage.schema_names import DEFAULT_SCHEMA

_SCRIPTS = str(files("authapp.storage") / "migrations")
_LAST_WITHOUT_SCHEMA = "0012"
_LOCK = 0x61757468  # any number that all instances share
# Requests queue behind a migration that waits for a table, and fail after `postgres.LOCK_TIMEOUT`.
# A migration therefore gives up sooner, lets the queue pass, and tries again for a while.
_LOCK_TIMEOUT = "500ms"
_LOCK_PAUSE = 1.0  # seconds, as is the next
_LOCK_PATIENCE = 60.0
_ALONE_PAUSE = 0.2


def upgrade(database_url: str, revision: str = "head", *, schema: str = DEFAULT_SCHEMA) -> None:
    """Brings our tables to `revision`, and into `schema`. Two at once wait for each other.

    A newer database that works with this version is left as it is.

    Raises:
        SettingError: the database can't be reached or used; one line that names the remedy.
    """
    with _migrating(database_url, schema) as (connection, installation, found):
        if found.is_newer and found.is_usable:
            return
        _require_known(found)
        expect_no_role(connection, schema)
        create_schema(connection, schema)
        if not may_create_in(connection, schema):
            account = str(connection.scalar(text("SELECT current_user")))
            why = _missing_right(f"permission denied for schema {schema}", schema, account)
            raise SettingError(f"DATABASE_URL: {why}")
        _run(connection, installation, command.upgrade, schema, revision)
        if connection.scalar(text("SELECT current_schema()")) == schema:
            pin_functions(connection)  # an operator may have renamed it


def downgrade(database_url: str, revision: str, *, schema: str = DEFAULT_SCHEMA) -> None:
    """Takes our tables back to `revision` (`base`: to nothing, with all data).

    Raises:
        SettingError: as `upgrade`.
    """
    with _migrating(database_url, schema) as (connection, installation, found):
        _require_known(found)
        _run(connection, installation, command.downgrade, schema, revision)


def current(database_url: str, *, schema: str = DEFAULT_SCHEMA) -> "SchemaState":
    """The migration that the database is at, and the one that this version needs.

    Raises:
        SettingError: as `upgrade`.
    """
    with _connection(database_url, schema) as connection:
        return examine(connection, schema)


def works_with() -> str:
    """The oldest migration whose version can use the schema that this version needs."""
    return oldest_declared(_scripts().walk_revisions())


def require_current(database_url: str, key_prefix: str = "", schema: str = DEFAULT_SCHEMA) -> None:
    """Returns when the schema is the one this version needs, and instances use this prefix.

    Raises:
        SettingError: it is not, or the database can't be reached; one line that names the remedy.
    """
    check = partial(expect_key_prefix, key_prefix=key_prefix, schema=schema)
    with _connection(database_url, schema, check) as connection:
        expect_no_role(connection, schema)
        found = examine(connection, schema)
    if not found.is_usable:
        raise SettingError(f"the database is {found.told}: {found.remedy}")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """At which migration a database is, for people.

    Attributes:
        found: the revision it is at; "none" before the first migration.
        needed: the revision that this version needs.
        remedy: what to do; empty where nothing is.
        is_newer: it is at a migration that this version does not have. Such a database can be used
            if the migrations that made it newer say so.
    """

    found: str
    needed: str
    told: str
    remedy: str = ""
    is_newer: bool = False

    @property
    def is_usable(self) -> bool:
        return not self.remedy


def examine(connection: Connection, schema: str = DEFAULT_SCHEMA) -> SchemaState:
    """Whether the database is at the migration that this version needs."""
    return _state_of(connection, _find(connection, schema))


def _find(connection: Connection, schema: str) -> Installation:
    former = _scripts().walk_revisions("base", _LAST_WITHOUT_SCHEMA)
    return find_installation(connection, schema, [script.revision for script in former])


def _state_of(connection: Connection, installation: Installation) -> SchemaState:
    script = _scripts()
    revisions = installation.revisions
    found, needed = ", ".join(revisions) or "none", script.get_current_head() or "none"
    if found == needed:
        return SchemaState(found, needed, f"at migration {needed}")
    if unknown := [revision for revision in revisions if not _is_known(script, revision)]:
        told = f"at migration {', '.join(unknown)}, which this version of authapp does not know"
        oldest = oldest_compatible(connection, installation.schema)
        if oldest is not None and _is_known(script, oldest):
            return SchemaState(found, needed, f"{told}, but works with it", is_newer=True)
        return SchemaState(
            found,
            needed,
            told,
            "install the version that made it, which is newer; or go back by that version's "
            f"`flask --app wsgi auth db downgrade {needed}`, or by a backup",
            is_newer=True,
        )
    told = f"at migration {found}, this version needs {needed}"
    return SchemaState(found, needed, told, "run `flask --app wsgi auth db upgrade`")


@contextmanager
def _migrating(
    database_url: str, schema: str
) -> Iterator[tuple[Connection, Installation, SchemaState]]:
    """A connection on which nobody else migrates, and what was found there."""
    with _connection(database_url, schema) as connection, _alone(connection):
        installation = _find(connection, schema)
        yield connection, installation, _state_of(connection, installation)


def _require_known(found: SchemaState) -> None:
    """Refuses to migrate what another version made, whose migrations are not here."""
    if found.is_newer:
        remedy = found.remedy or "migrate it with the version that made it"
        raise SettingError(f"the database is {found.told}: {remedy}")


def _run(
    connection: Connection,
    installation: Installation,
    migrate: Callable[[AlembicConfig, str], None],
    schema: str,
    revision: str,
) -> None:
    look_only_in(connection, installation.schema)
    # "-2" means something else after the first of two steps, so it is not tried again
    is_relative = revision.startswith(("+", "-"))
    if not is_relative:
        connection.execute(text(f"SET lock_timeout TO '{_LOCK_TIMEOUT}'"))
    connection.commit()
    config = AlembicConfig()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes |= {
        "connection": connection,
        "schema": schema,
        "home": installation.schema,
        "former": installation.former,
        "destination": revision,
    }
    deadline = time.monotonic() + (0.0 if is_relative else _LOCK_PATIENCE)
    try:
        while not _migrated(connection, lambda: migrate(config, revision), deadline):
            time.sleep(_LOCK_PAUSE)
    except CommandError as error:
        known = ", ".join(script.revision for script in _scripts().walk_revisions())
        why = str(error).splitlines()[0]
        raise SettingError(
            f"the database can't be brought to {revision} ({why}); there are {known} and base"
        ) from None


def _migrated(connection: Connection, migrate: Callable[[], None], deadline: float) -> bool:
    """False if others use a table that a migration needs, and there is time to try again."""
    try:
        migrate()
    except DBAPIError as error:
        if _code(error) != errorcodes.LOCK_NOT_AVAILABLE or time.monotonic() > deadline:
            raise
        connection.rollback()  # this migration; those before it stay
        return False
    return True


def _code(error: DBAPIError) -> str:
    return getattr(error.orig, "pgcode", None) or ""


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(_SCRIPTS)


def _is_known(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False


@contextmanager
def _connection(
    database_url: str,
    schema: str,
    check: Callable[[extensions.connection], None] = lambda _: None,
) -> Iterator[Connection]:
    connector = Connector(database_url, "authapp migrations", WITHOUT_LIMITS, check=check)
    account = "it"
    try:
        with engine_of(connector, poolclass=NullPool).connect() as connection:
            driver: Any = connection.connection.driver_connection
            account = driver.info.user
            yield connection
    except DBAPIError as error:
        if (remedy := _remedy(error, schema, account)) is None:  # a defect: its traceback is needed
            raise
        raise SettingError(f"DATABASE_URL: {remedy}") from None


def _remedy(error: DBAPIError, schema: str, account: str) -> str | None:
    """One line for the operator; None where the error is a defect of ours."""
    lines = str(error.orig).strip().splitlines()
    why = lines[0] if lines else "no answer"
    code = _code(error)
    if code == errorcodes.INSUFFICIENT_PRIVILEGE:
        return _missing_right(why, schema, account)
    if code in {errorcodes.DUPLICATE_TABLE, errorcodes.DUPLICATE_FUNCTION}:
        return (
            f"another application is in the way ({why}); set DATABASE_SCHEMA to a schema that "
            "holds nothing else, or free the name where a version before migration 0013 needs it"
        )
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return (
            f"another transaction keeps a table from being changed ({why}); nothing is half done: "
            "end the transaction (pg_stat_activity shows the oldest xact_start), and try again"
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


def _missing_right(why: str, schema: str, account: str) -> str:
    return (
        f"a right is missing ({why}); have an administrator of the database run "
        f'CREATE SCHEMA IF NOT EXISTS "{schema}"; ALTER SCHEMA "{schema}" OWNER TO "{account}"'
    )


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    # by asking, not by waiting: an index that another upgrade makes CONCURRENTLY waits for all
    # statements that have begun, ours among them
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
        connection.commit()
        time.sleep(_ALONE_PAUSE)
    connection.commit()
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()
