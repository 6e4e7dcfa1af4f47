"""Where in a database our tables are: in DATABASE_SCHEMA or, before migration 0013, elsewhere."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from authapp.errors import SettingError


@dataclass(frozen=True, slots=True)
class Installation:
    """Our tables in one database.

    Attributes:
        schema: where they are, or will be.
        former: where a version before migration 0013 looks for them.
        revisions: the migrations that they are at; empty before the first.
    """

    schema: str
    former: str
    revisions: tuple[str, ...]


def find_installation(
    connection: Connection, schema: str, former_revisions: Collection[str]
) -> Installation:
    """Looks in DATABASE_SCHEMA, then where versions before migration 0013 kept their tables.

    Those had no schema of their own. They used the search path of the account, which is `public`
    unless somebody changed it. An application of somebody else may have tables with our names
    there, `alembic_version` above all: they are no installation of ours.

    Args:
        connection: one that still has the search path of the account.
        former_revisions: the revisions before migration 0013.
    """
    path = connection.scalar(text("SELECT pg_catalog.current_schemas(false)::text[]")) or []
    places = [place for place in (*path, "public") if place != schema]
    if revisions := _revisions(connection, schema):
        return Installation(schema, places[0], revisions)
    for place in places:
        if _has_our_users(connection, place):
            revisions = _revisions(connection, place)
            if revisions and set(revisions) <= set(former_revisions):
                return Installation(place, place, revisions)
    return Installation(schema, places[0], ())


def expect_no_role(connection: Connection, schema: str) -> None:
    """Returns unless a role has the name of the schema.

    Postgres searches a schema named like the role before all others (`"$user"`), so whatever else
    the role does in this database would meet our tables.

    Raises:
        SettingError: one line that names the remedy.
    """
    named = text("SELECT true FROM pg_catalog.pg_roles WHERE rolname = :schema")
    if connection.scalar(named, {"schema": schema}):
        raise SettingError(
            f"DATABASE_SCHEMA: a role is named {schema}, too, and Postgres makes a schema of the "
            "role's name the first that the role looks in; set another name, or rename the role"
        )


def create_schema(connection: Connection, schema: str) -> None:
    """Makes the schema unless it is there: an administrator may have made it."""
    there = text("SELECT true FROM pg_catalog.pg_namespace WHERE nspname = :schema")
    if not connection.scalar(there, {"schema": schema}):
        connection.execute(text(f"CREATE SCHEMA {_quoted(connection, schema)}"))


def may_create_in(connection: Connection, schema: str) -> bool:
    """Whether the account may; Postgres itself skips a schema on the search path that it may not
    use, and says nothing."""
    rights = text(
        "SELECT pg_catalog.has_schema_privilege(:schema, 'USAGE')"
        " AND pg_catalog.has_schema_privilege(:schema, 'CREATE')"
    )
    return bool(connection.scalar(rights, {"schema": schema}))


def look_only_in(connection: Connection, schema: str) -> None:
    """Has names without a schema mean this one, whatever the search path of the account is."""
    connection.execute(text(f"SET search_path TO {_quoted(connection, schema)}"))


def pin_functions(connection: Connection) -> None:
    """Has our functions look for tables beside them, whatever the search path of a caller is.

    They run in the transaction of anybody who changes our tables by hand.
    """
    connection.execute(
        text("""
            DO $$ DECLARE function regprocedure; BEGIN
              FOR function IN SELECT oid FROM pg_proc
                WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'authapp\\_%'
              LOOP
                EXECUTE format(
                  'ALTER FUNCTION %s SET search_path TO %I, pg_temp', function, current_schema()
                );
              END LOOP;
            END $$
        """)
    )


def oldest_declared(scripts: Iterable[Any]) -> str:
    """The oldest migration that a version may need which works with all of these.

    A migration that declares nothing works with versions that need it, and with newer ones.

    Args:
        scripts: of Alembic, one for each migration.
    """
    declared = [getattr(one.module, "works_with", one.revision) for one in scripts]
    return max(declared, default="base")


def note_compatibility(connection: Connection, oldest: str) -> None:
    """Writes down for older versions whether they work with the schema, once there is a table.

    Args:
        oldest: versions that need this migration, or a newer one, work with it.
    """
    if connection.scalar(text("SELECT to_regclass('compatibility')")):
        connection.execute(
            text(
                "INSERT INTO compatibility (oldest_revision) VALUES (:oldest)"
                " ON CONFLICT (id) DO UPDATE SET oldest_revision = excluded.oldest_revision"
            ),
            {"oldest": oldest},
        )


def oldest_compatible(connection: Connection, schema: str) -> str | None:
    """The oldest migration that a version may need which works with this schema; None: unknown."""
    table = f"{_quoted(connection, schema)}.compatibility"
    if not connection.scalar(text("SELECT pg_catalog.to_regclass(:table)"), {"table": table}):
        return None
    found = connection.scalar(text(f"SELECT oldest_revision FROM {table}"))  # noqa: S608 — quoted
    return None if found is None else str(found)


def _revisions(connection: Connection, schema: str) -> tuple[str, ...]:
    there = text(
        "SELECT true FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = 'alembic_version'"
    )
    if not connection.scalar(there, {"schema": schema}):
        return ()
    table = f"{_quoted(connection, schema)}.alembic_version"
    return tuple(connection.scalars(text(f"SELECT version_num FROM {table} ORDER BY 1")))  # noqa: S608 — quoted


def _has_our_users(connection: Connection, schema: str) -> bool:
    ours = text(
        "SELECT true FROM pg_catalog.pg_attribute a"
        " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = 'users' AND a.attname = 'email_canonical'"
    )
    return bool(connection.scalar(ours, {"schema": schema}))


def _quoted(connection: Connection, schema: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(schema)
