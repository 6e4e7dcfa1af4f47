"""Databases of their own for tests that leave things behind, on the server they share."""

from contextlib import closing
from itertools import count
from typing import Any

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import make_url

from authapp.storage import schema
from authapp.storage.schema_names import DEFAULT_SCHEMA

_numbers = count(1)


def add_database(server_url: str, name: str) -> str:
    """The URL of a new, empty database, named after `name`.

    A number keeps apart the databases of a fixture that is set up again, as that of a module is
    when tests of others ran in between.
    """
    name = f"{name}_{next(_numbers)}"
    run_sql(server_url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def add_migrated_database(server_url: str, name: str) -> str:
    """The URL of a new database with our tables."""
    url = add_database(server_url, name)
    migrate(url)
    return url


def migrate(url: str) -> None:
    """Bring the database to our tables, and let SQL in tests name them without their schema.

    The product itself does not look at the search path.
    """
    schema.upgrade(url)
    run_sql(
        url,
        sql.SQL("ALTER DATABASE {} SET search_path TO {}, public").format(
            sql.Identifier(str(make_url(url).database)), sql.Identifier(DEFAULT_SCHEMA)
        ),
    )


def ask(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of one query by hand."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def run_sql(url: str, *statements: str | sql.Composable) -> None:
    """Run statements by hand, each its own transaction."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
