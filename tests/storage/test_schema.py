"""Migrations: up, down and up again, equal to the models, and an advice where one is missing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from authapp import dev
from authapp.errors import SettingError
from authapp.storage import postgres, schema
from authapp.storage.models import Base
from tests.support.databases import add_database, run_sql
from tests.support.threads import at_once
from tests.support.waiting import wait_until


@pytest.fixture
def url(postgres: dev.PostgreSQL) -> str:
    """An empty database."""
    return add_database(postgres.url, "schema")


def engine_of(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg2"), poolclass=NullPool)


def contents(url: str) -> set[tuple[str, ...]]:
    """Columns, constraints and indexes as Postgres itself writes them."""
    queries = [
        "SELECT table_name, column_name, data_type, is_nullable, coalesce(column_default, '')"
        " FROM information_schema.columns WHERE table_schema = 'authapp_data'",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(c.oid)"
        " FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace"
        " WHERE nspname = 'authapp_data'",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'authapp_data'",
        "SELECT sequencename::text FROM pg_sequences WHERE schemaname = 'authapp_data'",
    ]
    with engine_of(url).connect() as connection:
        return {
            tuple(row)
            for query in queries
            for row in connection.execute(text(query))
            if row[0] not in {"alembic_version", "authapp_data.alembic_version"}
        }


def refusal(work: Callable[[], None]) -> str:
    with pytest.raises(SettingError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_migrations_lead_exactly_to_the_models(url: str) -> None:
    schema.upgrade(url)
    migrated = contents(url)
    schema.downgrade(url, "base")
    assert contents(url) == set()
    engine = engine_of(url)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)  # in the schema, which the downgrade left
    assert migrated == contents(url)


def test_a_new_database_has_nobody(url: str) -> None:
    schema.upgrade(url)
    with engine_of(url).connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM authapp_data.users")) == 0


def test_alembic_finds_no_drift(url: str) -> None:
    schema.upgrade(url)
    with engine_of(url).connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == "authapp_data",
            "version_table_schema": "authapp_data",
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_up_down_and_up_again(url: str) -> None:
    script = ScriptDirectory.from_config(_alembic())
    schema.upgrade(url)
    once = contents(url)
    for revision in script.walk_revisions():
        down = revision.down_revision or "base"
        assert isinstance(down, str), "migrations are one line, without branches"
        schema.downgrade(url, down)
        schema.upgrade(url, revision.revision)
        schema.upgrade(url)
        assert contents(url) == once
        schema.downgrade(url, down)
    assert contents(url) == set()
    schema.upgrade(url)
    schema.upgrade(url)  # a second time does nothing
    assert contents(url) == once
    with engine_of(url).connect() as connection:
        roles = (
            connection.execute(text("SELECT name FROM authapp_data.roles ORDER BY name"))
            .scalars()
            .all()
        )
    assert roles == ["admin", "user"]


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    return config


def test_instances_that_start_together_wait_for_each_other(url: str) -> None:
    works = [lambda: schema.upgrade(url)] * 4
    assert at_once(*works) == [None] * 4
    schema.require_current(url)


def test_a_current_database_is_accepted(database_url: str) -> None:
    schema.require_current(database_url)


def test_an_empty_database_is_refused_with_the_command(url: str) -> None:
    message = refusal(lambda: schema.require_current(url))
    assert "at migration none" in message
    assert "flask --app wsgi auth db upgrade" in message


def test_an_older_database_is_refused_with_the_command(url: str) -> None:
    schema.upgrade(url)
    schema.downgrade(url, "base")
    assert "flask --app wsgi auth db upgrade" in refusal(lambda: schema.require_current(url))


@pytest.mark.parametrize("ask", [schema.require_current, schema.upgrade])
@pytest.mark.parametrize(
    "change",
    [
        {"query": {"host": "/nonexistent"}},
        {"host": "127.0.0.1", "port": 9, "query": {}},
        {"database": "nothing_of_this_name"},
        {"password": "hush"},
    ],
    ids=["no socket", "no server", "no database", "wrong password"],
)
def test_an_unreachable_database_is_named_with_the_remedy(
    postgres: dev.PostgreSQL, ask: Callable[[str], None], change: dict[str, Any]
) -> None:
    url = make_url(postgres.url)._replace(**change).render_as_string(hide_password=False)
    message = refusal(lambda: ask(url))
    assert message.startswith("DATABASE_URL: the database can't be reached (")
    assert message.endswith("start it, or correct the address")
    assert "hush" not in message
    assert "tests-only" not in message


def needed_revision() -> str:
    return str(ScriptDirectory.from_config(_alembic()).get_current_head())


# -- a database that this version can't migrate ----------------------------------------------------


def at_unknown_revision(url: str, works_with: str = "9999") -> None:
    """As a newer version leaves it, which says with which versions it works."""
    schema.upgrade(url)
    with engine_of(url).begin() as connection:
        connection.execute(text("UPDATE authapp_data.alembic_version SET version_num = '9999'"))
        connection.execute(
            text("UPDATE authapp_data.compatibility SET oldest_revision = :oldest"),
            {"oldest": works_with},
        )


@pytest.mark.parametrize(
    "ask",
    [
        schema.require_current,
        schema.upgrade,
        lambda url: schema.downgrade(url, "0001"),
        lambda url: schema.downgrade(url, "base"),
    ],
    ids=["start", "upgrade", "downgrade", "downgrade to base"],
)
def test_a_database_of_a_newer_version_is_refused_with_what_helps(
    url: str, ask: Callable[[str], None]
) -> None:
    at_unknown_revision(url)
    message = refusal(lambda: ask(url))
    assert "at migration 9999, which this version of authapp does not know" in message
    assert "install the version that made it" in message
    assert f"db downgrade {ScriptDirectory.from_config(_alembic()).get_current_head()}" in message
    assert "db upgrade" not in message


@pytest.mark.parametrize("works_with", [needed_revision(), "0001"])
def test_a_database_of_a_newer_version_that_works_with_this_one_is_used(
    url: str, works_with: str
) -> None:
    at_unknown_revision(url, works_with)
    schema.require_current(url)
    schema.upgrade(url)  # as a start script does; nothing happens
    found = schema.current(url)
    assert (found.found, found.is_newer, found.is_usable) == ("9999", True, True)
    assert "works with it" in found.told
    message = refusal(lambda: schema.downgrade(url, "0015"))
    assert "migrate it with the version that made it" in message


def test_migrations_say_with_which_versions_they_work(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says nothing works with no version that does not need it."""

    def oldest() -> str:
        with engine_of(url).begin() as connection:
            found = connection.scalar(
                text("SELECT oldest_revision FROM authapp_data.compatibility")
            )
        return str(found)

    scripts = schema._scripts()
    modules = {one.revision: one.module for one in scripts.walk_revisions()}
    head = max(modules)
    schema.upgrade(url)
    declared = [getattr(module, "works_with", name) for name, module in modules.items()]
    assert oldest() == max(declared)
    assert all(works_with <= name for works_with, name in zip(declared, modules, strict=True))
    schema.downgrade(url, "0015")
    assert oldest() == "0015"
    if head > "0015":
        schema.upgrade(url)
        assert oldest() == max(declared)


def test_the_revision_is_told_whichever_it_is(url: str) -> None:
    needed = ScriptDirectory.from_config(_alembic()).get_current_head()
    told = []
    for step in (lambda _: None, partial(schema.upgrade, revision="0003"), at_unknown_revision):
        step(url)
        told.append(schema.current(url))
    assert [state.found for state in told] == ["none", "0003", "9999"]
    assert {state.needed for state in told} == {needed}


@pytest.mark.parametrize("revision", ["9999", "nonsense", "-99", "0001:0003", "+1", "heads+1"])
def test_a_revision_that_there_is_not_is_refused(url: str, revision: str) -> None:
    schema.upgrade(url)
    message = refusal(lambda: schema.downgrade(url, revision))
    assert "0001" in message
    schema.require_current(url)


def test_an_account_without_the_right_to_create_is_told_so(
    postgres: dev.PostgreSQL, url: str
) -> None:
    name = make_url(url).database
    with engine_of(postgres.url).begin() as connection:
        connection.execute(text(f"CREATE ROLE of_{name} LOGIN PASSWORD 'hush'"))
    place = make_url(url).set(username=f"of_{name}", password="hush")
    upgrade = partial(schema.upgrade, place.render_as_string(hide_password=False))
    message = refusal(upgrade)
    assert message.startswith("DATABASE_URL: a right is missing (permission denied for database")
    remedy = message.partition("run ")[2]
    assert remedy.startswith('CREATE SCHEMA IF NOT EXISTS "authapp_data"; ALTER SCHEMA')
    assert "hush" not in message
    run_sql(url, remedy)  # by an administrator
    upgrade()
    schema.require_current(url)


def test_a_database_that_only_reads_is_told_so(postgres: dev.PostgreSQL, url: str) -> None:
    with engine_of(postgres.url).connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(
            text(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
        )
    message = refusal(lambda: schema.upgrade(url))
    assert message.startswith("DATABASE_URL: the database only reads (")


# -- a table that others use -----------------------------------------------------------------------


@contextmanager
def reading_users(url: str) -> Iterator[None]:
    """A transaction that goes on, and has read a table."""
    with engine_of(url).connect() as connection:
        connection.execute(text("SELECT count(*) FROM authapp_data.users"))
        yield


def test_nobody_waits_long_behind_a_migration_that_waits_for_a_table(url: str) -> None:
    schema.upgrade(url, revision="0014")
    with ThreadPoolExecutor() as pool:
        with reading_users(url):
            migrating = pool.submit(schema.upgrade, url)
            with engine_of(url).connect() as connection:
                waiting = text(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND"
                    " database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
                for _ in range(2):  # it waits, and waits again
                    wait_until(lambda: connection.scalar(waiting))
                    connection.execute(text(f"SET lock_timeout TO '{postgres.LOCK_TIMEOUT}s'"))
                    connection.execute(text("SELECT FROM authapp_data.users"))
                    connection.commit()
            assert not migrating.done()
        migrating.result()
    schema.require_current(url)


def test_a_table_that_does_not_become_free_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(url, revision="0014")
    monkeypatch.setattr(schema, "_LOCK_PATIENCE", 0.0)
    with reading_users(url):
        message = refusal(lambda: schema.upgrade(url))
    assert message.startswith("DATABASE_URL: another transaction keeps a table from being changed")
    assert "xact_start" in message
    assert schema.current(url).found == "0014"
