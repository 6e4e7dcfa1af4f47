"""Databases of their own for tests that leave things behind, on the server they share."""

from contextlib import closing

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import make_url

from authapp.storage import schema


def add_database(server_url: str, name: str) -> str:
    """The URL of a new, empty database."""
    with closing(psycopg2.connect(server_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def add_migrated_database(server_url: str, name: str) -> str:
    """The URL of a new database with our tables."""
    url = add_database(server_url, name)
    schema.upgrade(url)
    return url
