"""A Postgres that loses its last commits, as an asynchronous standby does that is promoted."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2

from authapp.storage.schema_names import DEFAULT_SCHEMA

_TABLES = (
    "users",
    "user_roles",
    "sessions",
    "deployment",
    "audit_events",
    "pending_fences",
    "one_time_links",
    "outgoing_mails",
)


@contextmanager
def commits_lost(database_url: str) -> Iterator[None]:
    """All commits of the block are gone after it; no trigger runs, as none does on a standby."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {DEFAULT_SCHEMA}, pg_temp")
        for table in _TABLES:
            cursor.execute(f"CREATE TEMPORARY TABLE kept_{table} AS TABLE {table}")
        connection.commit()
        yield
        cursor.execute("SET session_replication_role = replica")
        for table in _TABLES:
            cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
        connection.commit()
