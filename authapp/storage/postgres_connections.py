"""How a connection to Postgres is opened, by the app, by migrations and by `doctor` alike.

A default of the server, of the database or of the role, and the variables that libpq reads (PGTZ,
PGOPTIONS, PGCLIENTENCODING), can change what our statements mean. So each connection is set to what
we rely on, here and nowhere else.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import make_dsn
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from authapp.errors import SettingError
from authapp.storage.database_urls import read_database_url

CONNECT_TIMEOUT = 2  # seconds, for each address; then libpq tries the next

# Every server that we support knows these. They go along with the request to connect.
_SETTINGS = {
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "row_security": "on",
}
# Our statements name the schema of each table. Names without a schema, as functions have, are of
# Postgres itself, whatever the search path of the account is.
SEARCH_PATH = {"search_path": "pg_catalog"}
WITHOUT_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
# Set once connected: the environment outranks what went along (PGTZ, PGDATESTYLE), and older
# servers refuse a connection with a name they don't know. A stricter synchronous_commit is kept.
_AFTERWARDS = """
SELECT pg_catalog.set_config(wanted.name, wanted.value, false)
FROM (VALUES ('TimeZone', 'UTC'), ('DateStyle', 'ISO, MDY'), ('idle_session_timeout', '0'),
             ('transaction_timeout', '0')) AS wanted (name, value)
WHERE pg_catalog.current_setting(wanted.name, true) <> wanted.value
UNION ALL
SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
"""


class Connector:
    """Opens connections to the database that DATABASE_URL names.

    Args:
        database_url: one that `Config` accepts.
        application: what the server shows as `application_name`, unless the URL has one.
        settings: of the connection, above all those that bound how long the server works and waits
            for us.
        factory: the class of the connections.
        check: looks at each new connection, which commits each statement by itself meanwhile.
    Attributes:
        wants_primary: the URL asks for a server that takes changes.
    """

    def __init__(
        self,
        database_url: str,
        application: str,
        settings: Mapping[str, str],
        factory: type[extensions.connection] = extensions.connection,
        check: Callable[[extensions.connection], None] = lambda _: None,
    ) -> None:
        given = read_database_url(database_url)
        self.wants_primary = given.get("target_session_attrs") in {"read-write", "primary"}
        self._factory = factory
        self._check = check
        self._parameters = (
            {"application_name": application}
            | given
            | {
                "client_encoding": "UTF8",
                "connect_timeout": str(CONNECT_TIMEOUT),
                "options": _options(given.get("options"), {**_SETTINGS, **settings}),
            }
        )

    def __call__(self) -> extensions.connection:
        """
        Raises:
            psycopg2.Error: the server can't be reached, or refused us.
            SettingError: the database can't hold what people are called; or what `check` raises.
        """
        address = make_dsn(**self._parameters)
        connection = psycopg2.connect(address, connection_factory=self._factory)
        try:
            _expect_unicode(connection)
            connection.autocommit = True  # else this would begin a transaction
            with connection.cursor() as cursor:
                cursor.execute(_AFTERWARDS)
            self._check(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        self._try_first(connection.info.host, str(connection.info.port))
        return connection

    def _try_first(self, host: str, port: str) -> None:
        """Move the server that answered to the front of several: each address that never answers
        takes libpq CONNECT_TIMEOUT, every time."""
        hosts = self._parameters.get("host", "").split(",")
        ports = self._parameters.get("port", "").split(",")
        if len(hosts) == 1 or {"hostaddr", "load_balance_hosts"} & set(self._parameters):
            return
        places = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True))
        answered = next((p for p in places if p[0] == host and p[1] in {"", port}), places[0])
        ordered = [answered, *(place for place in places if place != answered)]
        self._parameters = self._parameters | {
            "host": ",".join(place[0] for place in ordered),
            "port": ",".join(place[1] for place in ordered),
        }


def engine_of(connect: Callable[[], extensions.connection], **options: Any) -> Engine:
    """SQLAlchemy on connections that `connect` opens; SQLAlchemy itself reads no URL."""
    return create_engine("postgresql+psycopg2://", creator=connect, **options)


def _options(given: str | None, settings: Mapping[str, str]) -> str:
    # libpq takes PGOPTIONS only where it is given no options; of two values the last counts
    before = given if given is not None else os.environ.get("PGOPTIONS", "")
    ours = [f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items()]
    return " ".join([before, *ours]).strip()


def _expect_unicode(connection: extensions.connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SettingError(
            f"DATABASE_URL: the database {connection.info.dbname} is encoded in {encoding}, which "
            "can't hold every name; create one WITH ENCODING 'UTF8' TEMPLATE template0, and "
            "move the data there (pg_dump, pg_restore)"
        )
