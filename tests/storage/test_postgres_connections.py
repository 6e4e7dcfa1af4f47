"""Connections to Postgres mean the same whatever server, database, role, environment or URL say."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import make_url, select, text

from authapp import dev
from authapp.accounts.emails import parse_email
from authapp.doctor import postgres as examination
from authapp.doctor.clocks import Clocks
from authapp.errors import SettingError
from authapp.storage import schema
from authapp.storage.models import SessionRow
from authapp.storage.postgres import Database, connect
from authapp.storage.postgres_connections import WITHOUT_LIMITS, Connector
from authapp.storage.schema_names import DEFAULT_SCHEMA
from tests.support.clock import Clock
from tests.support.databases import add_database
from tests.support.people import CLIENT, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.threads import at_once

numbers = itertools.count()

# of a database or a role: what an operator, or another program's guide, may have set
DEFAULTS = {
    "timezone": "'Pacific/Auckland'",
    "datestyle": "'German, DMY'",
    "intervalstyle": "'iso_8601'",
    "client_encoding": "'LATIN1'",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "synchronous_commit": "off",
    "search_path": "apart, pg_catalog",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "idle_session_timeout": "'9s'",
    "transaction_timeout": "'9s'",
}
VARIABLES = {
    "PGTZ": "Pacific/Auckland",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c default_transaction_isolation=serializable -c statement_timeout=1ms",
    "PGAPPNAME": "something else",
    "PGCONNECT_TIMEOUT": "100",
}
RELIED_ON = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "row_security": "on",
    "synchronous_commit": "on",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}
OF_THE_APP = RELIED_ON | {
    "search_path": "pg_catalog",
    "statement_timeout": "2500ms",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    "application_name": "authapp",
}


def settings_of(database: Database, names: dict[str, str]) -> dict[str, Any]:
    with database.transaction() as db:
        return {name: db.scalar(text(f"SHOW {name}")) for name in names}


def by_hand(url: str, *statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture
def odd_url(postgres: dev.PostgreSQL) -> str:
    """A new database whose every default is another than ours."""
    url = add_database(postgres.url, "connections")
    name = make_url(url).database
    by_hand(
        postgres.url,
        *(f"ALTER DATABASE {name} SET {setting} = {value}" for setting, value in DEFAULTS.items()),
    )
    return url


@pytest.fixture
def odd_place(odd_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `odd_url`, in an environment that says otherwise, too."""
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    return odd_url


def test_each_connection_is_set_to_what_we_rely_on(odd_place: str) -> None:
    schema.upgrade(odd_place)
    schema.require_current(odd_place)
    with schema._connection(odd_place, DEFAULT_SCHEMA) as connection:
        found = {name: connection.scalar(text(f"SHOW {name}")) for name in RELIED_ON}
        assert found == RELIED_ON
        assert {connection.scalar(text(f"SHOW {name}")) for name in WITHOUT_LIMITS} == {"0"}
    database = Database(connect(odd_place, 1))
    assert settings_of(database, OF_THE_APP) == OF_THE_APP
    database.close()


def test_people_and_times_are_the_same_on_a_database_with_other_defaults(
    odd_place: str, valkey: dev.Valkey, clock: Clock
) -> None:
    schema.upgrade(odd_place)
    with open_services(make_config(odd_place, valkey.url), clock) as services:
        name = "Zoë Łukasz 李"
        user = services.registration.sign_up("zoe@example.org", "correct horse battery", name)
        assert services.users.find(parse_email("zoe@example.org")) == user
        assert user.name == name
        session = log_in(services, "zoe@example.org", "correct horse battery")
        (listed,) = services.sessions.of_user(user.id)
        assert listed.created_at == clock()
        assert listed.created_at.utcoffset() == timedelta(0)
        outcomes = at_once(
            *[lambda: services.sessions.of_user(user.id)] * 3,
            lambda: services.authentication.log_out(session.token, CLIENT),
        )
        assert not [one for one in outcomes if isinstance(one, Exception)]
        assert services.sessions.of_user(user.id) == []


@pytest.mark.parametrize("stricter", ["remote_apply", "on"])
def test_a_stricter_commit_is_left_as_it_is(postgres: dev.PostgreSQL, stricter: str) -> None:
    url = add_database(postgres.url, "connections")
    name = make_url(url).database
    by_hand(postgres.url, f"ALTER DATABASE {name} SET synchronous_commit = {stricter}")
    database = Database(connect(url, 1))
    assert settings_of(database, {"synchronous_commit": ""}) == {"synchronous_commit": stricter}
    database.close()


def test_a_moment_is_read_in_utc_whatever_the_server_counts_in(services: Any, clock: Clock) -> None:
    """As behind a pooler that passes no settings on."""
    sign_up(services)
    log_in(services)
    with services.database.transaction() as db:
        db.execute(text("SET LOCAL timezone = 'Pacific/Auckland'"))
        found = db.scalars(select(SessionRow.created_at)).one()
    assert found == clock()
    assert found.tzinfo == UTC


# -- options of the URL ----------------------------------------------------------------------------


def with_query(url: str, **query: str) -> str:
    return make_url(url).update_query_dict(query).render_as_string(hide_password=False)


@pytest.mark.parametrize("by", ["url", "environment"])
def test_options_are_honoured_by_migrations_app_and_doctor(
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    clock: Clock,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = add_database(postgres.url, "connections")
    options = "-c work_mem=7MB -c search_path=apart -c statement_timeout=1ms"
    if by == "url":
        url = with_query(url, options=options)
    else:
        monkeypatch.setenv("PGOPTIONS", options)
    schema.upgrade(url)
    schema.require_current(url)
    config = make_config(url, valkey.url)
    with open_services(config, clock) as services:
        sign_up(services)
        found = {"work_mem": "7MB", "statement_timeout": "2500ms", "search_path": "pg_catalog"}
        assert settings_of(services.database, found) == found, "ours count where both say one"
    findings = examination.examine(config, 1, Clocks(time.time))
    assert [f.state for f in findings if f.check == "postgres writes"] == ["ok"]


def test_options_of_the_url_go_before_ours_as_they_are() -> None:
    """For a proxy that reads them, as Neon's does."""
    url = "postgresql://u@db/x?options=endpoint%3Dep-cool-1"
    found = Connector(url, "authapp", {"statement_timeout": "1s"})._parameters["options"]
    assert found.startswith("endpoint=ep-cool-1 -c ")
    assert found.endswith(" -c statement_timeout=1s")


# -- encoding --------------------------------------------------------------------------------------


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def not_unicode(postgres: dev.PostgreSQL, request: Any) -> str:
    name = f"not_unicode_{next(numbers)}"
    by_hand(
        postgres.url,
        f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0"
        " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc",
    )
    return make_url(postgres.url).set(database=name).render_as_string(hide_password=False)


def test_a_database_that_cannot_hold_every_name_is_refused(
    not_unicode: str, valkey: dev.Valkey
) -> None:
    for ask in (schema.upgrade, schema.require_current, lambda url: connect(url, 1).connect()):
        with pytest.raises(SettingError) as caught:
            ask(not_unicode)
        message = str(caught.value)
        assert message.startswith("DATABASE_URL: ")
        assert "ENCODING 'UTF8' TEMPLATE template0" in message
        assert "\n" not in message
    findings = list(examination.examine(make_config(not_unicode, valkey.url), 1, Clocks(time.time)))
    assert [finding.state for finding in findings] == ["fail"]
    assert "ENCODING 'UTF8' TEMPLATE template0" in findings[0].remedy


# -- several hosts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_servers(engine_dir: Path) -> Iterator[tuple[dev.PostgreSQL, dev.PostgreSQL]]:
    """One that only reads, as a standby does, and one that takes changes; both by TCP."""
    with ExitStack() as running:
        made = []
        for which in ("reads", "writes"):
            sockets = running.enter_context(dev.private_socket_dir())
            where = engine_dir / f"host-{which}", sockets, "tests-only"
            server = dev.PostgreSQL.start(*where, durable=False, tcp=True)
            running.callback(server.stop)
            made.append(server)
        by_hand(
            made[0].url,
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        )
        yield made[0], made[1]


def joined(servers: tuple[dev.PostgreSQL, ...], query: str) -> str:
    urls = [make_url(server.url) for server in servers]
    places = ",".join(f"{url.host}:{url.port}" for url in urls)
    return f"postgresql://{urls[0].username}:{urls[0].password}@{places}/{urls[0].database}{query}"


def test_of_several_hosts_the_one_that_takes_changes_is_used(
    two_servers: tuple[dev.PostgreSQL, ...], valkey: dev.Valkey, clock: Clock
) -> None:
    url = joined(two_servers, "?target_session_attrs=read-write")
    schema.upgrade(url)
    schema.require_current(url)
    config = make_config(url, valkey.url)
    with open_services(config, clock) as services:
        sign_up(services)
        port = sql(services, "SELECT inet_server_port()")
        assert port == [(make_url(two_servers[1].url).port,)]
    states = {f.check: f.state for f in examination.examine(config, 1, Clocks(time.time))}
    assert states["postgres writes"] == "ok"


def test_of_several_hosts_the_one_that_answered_is_asked_first(
    two_servers: tuple[dev.PostgreSQL, ...],
) -> None:
    """Each connection would wait for one that is gone, every time."""
    connector = Connector(joined(two_servers, "?target_session_attrs=read-write"), "x", {})
    before = connector._parameters["host"], connector._parameters["port"]
    connector().close()
    after = connector._parameters["host"], connector._parameters["port"]
    assert [part.split(",")[::-1] for part in before] == [part.split(",") for part in after]
    connector().close()
    assert (connector._parameters["host"], connector._parameters["port"]) == after


def test_an_environment_is_left_as_it_was(postgres: dev.PostgreSQL) -> None:
    before = dict(os.environ)
    connect(postgres.url, 1).connect().close()
    assert dict(os.environ) == before
