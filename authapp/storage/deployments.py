"""The row that all instances of one database share: its prefix of keys, recorded by the first
instance, and the generation of sessions."""

from psycopg2 import errors, extensions, sql
from sqlalchemy import ColumnElement, func, literal, select

from authapp.errors import SettingError
from authapp.storage.models import Deployment, table_of
from authapp.storage.schema_names import DEFAULT_SCHEMA


def expect_key_prefix(
    connection: extensions.connection,
    key_prefix: str,
    schema: str = DEFAULT_SCHEMA,
    *,
    record: bool = True,
) -> None:
    """Returns where instances of this database may use this prefix.

    An instance with another prefix would fence and lock beside all others: they would go on to
    serve copies of sessions that it ended.

    Args:
        connection: one that commits each statement by itself.
        schema: where our tables are.
        record: writes the prefix down for the database, where there is none yet.
    Raises:
        SettingError: this database is used with another prefix.
    """
    try:
        found = recorded_key_prefix(connection, schema)
        if found is None and record:
            with connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL(
                        "INSERT INTO {} (key_prefix) VALUES (%s) ON CONFLICT DO NOTHING"
                    ).format(sql.Identifier(schema, "deployment")),
                    (key_prefix,),
                )
            found = recorded_key_prefix(connection, schema)
    except (errors.UndefinedTable, errors.ReadOnlySqlTransaction):
        return  # nothing can be changed through this connection either
    if found not in {None, key_prefix}:
        raise SettingError(
            f"KEY_PREFIX is {_told(key_prefix)}, but this database is used with "
            f"{_told(found)}: set it so, or change it for all instances (docs/production.md, "
            "Several deployments on one Redis)"
        )


def current_generation() -> ColumnElement[int]:
    """A column that tells the generation of sessions that begin now."""
    generation = select(table_of(Deployment).c.session_generation).scalar_subquery()
    return func.coalesce(generation, literal(0))


def recorded_key_prefix(
    connection: extensions.connection, schema: str = DEFAULT_SCHEMA
) -> str | None:
    """The prefix that the instances of this database use; None before the first start."""
    with connection.cursor() as cursor:
        table = sql.Identifier(schema, "deployment")
        cursor.execute(sql.SQL("SELECT key_prefix FROM {}").format(table))
        row = cursor.fetchone()
        return str(row[0]) if row else None


def _told(key_prefix: str | None) -> str:
    return f"`{key_prefix}`" if key_prefix else "empty"
