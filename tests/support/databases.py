"""Databases of their own for tests that leave things behind, on the server they share."""

from contextlib import closing
from functools import cache
from itertools import count
from typing import Any

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import make_url

from authapp.storage import schema
from authapp.storage.schema_names import DEFAULT_SCHEMA

_numbers = count(1)


def add_database(server_url: str, name: str, template: str = "template1") -> str:
    """The URL of a new database, named after `name`: an empty one, or a copy of `template`.

    A number keeps apart the databases of a fixture that is set up again. The fixture of a module
    is, when tests of other modules ran in between.
    """
    name = f"{name}_{next(_numbers)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    run_sql(server_url, statement.format(sql.Identifier(name), sql.Identifier(template)))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def add_migrated_database(server_url: str, name: str) -> str:
    """The URL of a new database with our tables: a copy of one that was migrated before."""
    url = add_database(server_url, name, _migrated_template(server_url))
    _look_in_schema(url)
    return url


@cache
def _migrated_template(server_url: str) -> str:
    """The name of a database with our tables to copy. Nobody may be connected to it."""
    url = add_database(server_url, "migrated")
    schema.upgrade(url)
    return str(make_url(url).database)


def migrate(url: str) -> None:
    """Bring the database to our tables, and let SQL in tests name them without their schema."""
    schema.upgrade(url)
    _look_in_schema(url)


def _look_in_schema(url: str) -> None:
    """Let SQL in tests name our tables alone. The product itself ignores the search path."""
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
