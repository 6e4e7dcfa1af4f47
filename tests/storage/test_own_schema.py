"""The schema of our own: nothing else in the database meets it, and older installations move in."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from alembic import command
from sqlalchemy import make_url

from authapp import User, create_app, dev, users_table
from authapp.accounts.actor import OPERATOR
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.config import Config
from authapp.crypto.tokens import SessionToken, SessionTokens
from authapp.doctor import State, examine
from authapp.errors import SettingError
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from authapp.setting_types import schema_name
from authapp.storage import schema
from authapp.storage.migrations.installations import Installation
from tests.support.clock import Clock
from tests.support.databases import add_database, ask, run_sql
from tests.support.people import CLIENT, EMAIL, PASSWORD, grant_role, log_in, sign_up
from tests.support.services import open_services
from tests.support.sessions import ending, is_live
from tests.support.settings import make_config

numbers = itertools.count()

TABLES = [
    "users",
    "roles",
    "user_roles",
    "sessions",
    "audit_events",
    "pending_fences",
    "deployment",
    "outgoing_mails",
    "one_time_links",
    "invitations",
    "compatibility",
]
# what Postgres knows of a schema, as it writes it itself
CONTENTS = [
    "SELECT c.relname, c.relkind::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attname,"
    " format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid"
    " LEFT JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum"
    " WHERE relnamespace = '{0}'::regnamespace AND attnum > 0 AND NOT attisdropped",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
    " FROM pg_constraint WHERE connamespace = '{0}'::regnamespace",
    "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = '{0}'::regnamespace",
    "SELECT tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid"
    " WHERE relnamespace = '{0}'::regnamespace AND NOT tgisinternal",
]


@pytest.fixture
def url(postgres: dev.PostgreSQL) -> str:
    """An empty database, whose search path is Postgres' own default."""
    return add_database(postgres.url, "own_schema")


@pytest.fixture
def settings(url: str, valkey: dev.Valkey) -> Config:
    """With a secret of its own: other databases share the Redis."""
    return make_config(url, valkey.url, SECRET_KEY=f"{next(numbers):0>40}")


def contents(url: str, of: str) -> set[tuple[Any, ...]]:
    return {row for query in CONTENTS for row in ask(url, query.format(of))}


def refusal(work: Callable[[], Any]) -> str:
    with pytest.raises(SettingError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    return message


def as_role(url: str, *rights: str) -> str:
    """The URL of a new role without any right but these, which name it `{role}`."""
    role = f"of_{make_url(url).database}_{next(numbers)}"
    run_sql(url, f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
    run_sql(url, *(right.format(role=role) for right in rights))
    place = make_url(url).set(username=role, password="hush")
    return place.render_as_string(hide_password=False)


def make_old_layout(url: str, place: str = "public") -> None:
    """The tables as migrations 0001 to 0012 made them before there was DATABASE_SCHEMA."""
    with schema._migrating(url, "authapp_data") as (connection, *_):
        before = Installation(place, place, ())
        schema._run(connection, before, command.upgrade, "authapp_data", "0012")


@contextmanager
def served(settings: Config, clock: Clock, place: str = "authapp_data") -> Iterator[Services]:
    """The product on tables in `place`; in `public` it finds them as former versions did."""
    with open_services(replace(settings, DATABASE_SCHEMA=place), clock) as services:
        yield services


def the(services: Services, person: Identity) -> Identity:
    found = services.users.get(person.id)
    assert found
    return found


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["authapp_data", "a", "_x9", "user", "a" * 63])
def test_a_name_of_a_schema(name: str) -> None:
    assert schema_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["public", "pg_x", "information_schema", "9a", "A", "a-b", 'a"b', "a b", "ä", "a" * 64, "a\n"],
)
def test_a_name_that_is_none(name: str, settings: Config) -> None:
    message = refusal(lambda: make_config("postgresql://u@h/d", "redis://h", DATABASE_SCHEMA=name))
    assert message.startswith("DATABASE_SCHEMA: set it to a name of a-z")


@pytest.mark.parametrize("name", ["authapp_data", "people", "user", "select"])
def test_everything_works_in_a_schema_of_any_name(
    settings: Config, url: str, clock: Clock, name: str
) -> None:
    config = replace(settings, DATABASE_SCHEMA=name, WEB_CONCURRENCY=1)
    commands = create_app(config).test_cli_runner()
    assert commands.invoke(args=["auth", "db", "upgrade"]).exit_code == 0
    schema.require_current(url, schema=name)
    with served(config, clock, name) as services:
        ada = sign_up(services)
        live, other = log_in(services), log_in(services)
        services.redis.flushall()
        assert is_live(services, live)
        services.sessions.end_others(live, EndReason.REVOKED_BY_USER, CLIENT)
        assert ending(services, other) is EndReason.REVOKED_BY_USER
        services.roles.create("auditor", ["audit:read"], OPERATOR)
        grant_role(services, EMAIL, "auditor")
        run_sql(url, f"UPDATE \"{name}\".users SET name = 'Countess'")
        assert services.changes.replay()
        list(services.maintenance.run())
        assert the(services, ada).name == "Countess"
        clock.forward(timedelta(days=1).total_seconds())
        assert services.housekeeping.page_ranges()
        list(services.maintenance.run())
        assert ask(url, f'SELECT ended_why FROM "{name}".sessions ORDER BY ended_at') == [
            ("revoked_by_user",),
            ("absolute",),
        ]
    assert {f.check: f.state for f in examine(config, 8)}["postgres writes"] is State.OK
    for arguments in (["doctor"], ["users", "list"], ["audit", "list"], ["db", "current"]):
        done = commands.invoke(args=["auth", *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), arguments
    schemas = ask(
        url, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = ANY(%s)", TABLES
    )
    assert schemas == [(name,)]


# -- others in the same database -------------------------------------------------------------------


@pytest.fixture
def shared_url(url: str) -> str:
    """A database in which every name of ours is taken, in front of Postgres' own names, too."""
    run_sql(url, "CREATE SCHEMA evil")
    for place in ("evil", "public"):
        for table in TABLES:
            run_sql(url, f"CREATE TABLE {place}.{table} AS SELECT 7 AS id")
        run_sql(url, f"CREATE TABLE {place}.alembic_version AS SELECT '3f2a9c' AS version_num")
        for function, result in [("now()", "timestamptz"), ("encode(bytea, text)", "text")]:
            body = f"RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$"
            run_sql(url, f"CREATE FUNCTION {place}.{function} {body}")
    name = make_url(url).database
    run_sql(url, f"ALTER DATABASE {name} SET search_path = evil, public, pg_catalog")
    return url


def of_others(url: str) -> set[tuple[Any, ...]]:
    rows = [
        (place, table, ask(url, f"SELECT t::text FROM {place}.{table} t")[0])
        for place in ("evil", "public")
        for table in (*TABLES, "alembic_version")
    ]
    return contents(url, "evil") | contents(url, "public") | set(rows)


def test_tables_and_functions_of_others_with_our_names_change_nothing(
    shared_url: str, settings: Config, clock: Clock
) -> None:
    before = of_others(shared_url)
    schema.upgrade(shared_url)
    schema.require_current(shared_url)
    with served(settings, clock) as services:
        ada = sign_up(services)
        live = log_in(services)
        run_sql(
            shared_url,  # by hand, on their search path
            "UPDATE authapp_data.users SET active = false",
            "DELETE FROM authapp_data.user_roles",
        )
        assert services.changes.replay()
        assert ending(services, live) is EndReason.DEACTIVATED
        assert the(services, ada).roles == ()
        list(services.maintenance.run())
    assert {f.check: f.state for f in examine(settings, 8)}["postgres schema"] is State.OK
    schema.downgrade(shared_url, "base")
    assert of_others(shared_url) == before
    assert {name for name, *_ in contents(shared_url, "authapp_data")} == {
        "alembic_version",
        "alembic_version_pkc",
        "authapp_data.alembic_version",
    }


def test_each_function_looks_for_tables_beside_it(url: str) -> None:
    schema.upgrade(url)
    functions = ask(
        url,
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'authapp_data'::regnamespace",
    )
    assert len(functions) >= 6
    for name, settings in functions:
        assert name.startswith("authapp_"), "pin_functions finds them by this"
        assert settings == ["search_path=authapp_data, pg_temp"], name


def test_two_apps_in_one_database_share_nothing(url: str, settings: Config, clock: Clock) -> None:
    for name in ("one", "two"):
        schema.upgrade(url, schema=name)
    first, second = (
        replace(settings, DATABASE_SCHEMA=name, KEY_PREFIX=f"{name}:") for name in ("one", "two")
    )
    with open_services(first, clock) as one, open_services(second, clock) as two:
        ada = sign_up(one)
        live = log_in(one)
        assert two.users.find(parse_email(EMAIL)) is None
        assert not is_live(two, live)
        other = two.registration.sign_up(EMAIL, PASSWORD, "Other")
        assert the(one, ada).name == ada.name != other.name
        run_sql(url, "DELETE FROM two.users")
        assert two.changes.replay()
        assert is_live(one, live)
    for name, count in [("one", 1), ("two", 0)]:
        assert ask(url, f"SELECT count(*) FROM {name}.users") == [(count,)]
    schema.downgrade(url, "base", schema="two")
    schema.require_current(url, "one:", "one")


# -- roles and rights ------------------------------------------------------------------------------


def test_a_role_named_like_the_schema_is_refused_with_what_helps(
    url: str, settings: Config
) -> None:
    role = f"people_{next(numbers)}"
    run_sql(url, f"CREATE ROLE {role}")
    try:
        for work in (schema.upgrade, partial(schema.require_current, key_prefix="")):
            message = refusal(lambda work=work: work(url, schema=role))  # type: ignore[misc]
            assert message.startswith(f"DATABASE_SCHEMA: a role is named {role}, too")
            assert message.endswith("set another name, or rename the role")
        finding = {f.check: f for f in examine(replace(settings, DATABASE_SCHEMA=role), 8)}
        assert finding["postgres schema"].state is State.FAIL
        assert "rename the role" in finding["postgres schema"].remedy
        assert ask(url, "SELECT 1 FROM pg_namespace WHERE nspname = %s", role) == []
    finally:
        run_sql(url, f"DROP ROLE {role}")
    schema.upgrade(url, schema=role)


def test_a_role_named_authapp_is_none_named_like_the_schema(url: str) -> None:
    """It is the usual name of the account, and of the database."""
    assert make_url(url).username == "authapp"
    assert ask(url, "SELECT 1 FROM pg_roles WHERE rolname = 'authapp'") == [(1,)]
    schema.upgrade(url)
    assert ask(url, "SELECT current_schemas(false)") == [(["public"],)]


def test_an_account_that_owns_the_schema_alone_needs_no_other_right(url: str) -> None:
    account = as_role(url, "CREATE SCHEMA authapp_data AUTHORIZATION {role}")
    schema.upgrade(account)
    schema.require_current(account)
    schema.downgrade(account, "base")


@pytest.mark.parametrize("right", [None, "", "GRANT USAGE ON SCHEMA authapp_data TO {role}"])
def test_a_missing_right_is_told_in_one_line_that_helps(url: str, right: str | None) -> None:
    if right is not None:  # an administrator made it
        run_sql(url, "CREATE SCHEMA authapp_data")
    account = as_role(url, *filter(None, [right]))
    message = refusal(lambda: schema.upgrade(account))
    assert message.startswith("DATABASE_URL: a right is missing (permission denied for ")
    run_sql(url, message.partition(" run ")[2])
    schema.upgrade(account)
    schema.require_current(account)


# -- installations of before -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["public", "apart"])
def test_an_installation_moves_in_and_back_and_everybody_stays_signed_in(
    url: str, settings: Config, clock: Clock, place: str
) -> None:
    """In `apart` where the search path of the account said so."""
    if place != "public":
        run_sql(url, f"CREATE SCHEMA {place}")
        run_sql(url, f"ALTER DATABASE {make_url(url).database} SET search_path = {place}, public")
    make_old_layout(url, place)
    before = contents(url, place)
    ada = uuid4()
    tokens = [add_signed_in(url, place, settings, clock, ada)]
    for _ in range(2):
        assert "at migration 0012, this version needs" in refusal(
            lambda: schema.require_current(url)
        )
        schema.upgrade(url)
        schema.require_current(url)
        assert contents(url, place) == set()
        with served(settings, clock) as services:
            services.redis.flushall()
            found = [services.sessions.find(token) for token in tokens]
            assert all(isinstance(one, ActiveSession) for one in found)
            tokens.append(services.sessions.begin(ada, 1, CLIENT).token)
            run_sql(url, "UPDATE authapp_data.users SET name = 'Countess'")  # the triggers moved
            assert services.changes.replay()
            assert services.users.get(ada).name == "Countess"  # type: ignore[union-attr]
        schema.downgrade(url, "0012")
        assert contents(url, place) == before
        live = f"SELECT count(*) FROM {place}.sessions WHERE ended_at IS NULL"
        assert ask(url, live) == [(len(tokens),)]


def add_signed_in(
    url: str, place: str, settings: Config, clock: Clock, user_id: UUID
) -> SessionToken:
    """A person and their session, as a version before migration 0013 wrote them."""
    token = SessionTokens(settings.SECRET_KEY).mint()
    now = clock().isoformat()
    run_sql(
        url,
        f"INSERT INTO {place}.users (id, email, email_canonical, password_hash, created_at,"
        f" updated_at) VALUES ('{user_id}', '{EMAIL}', '{EMAIL}', '', '{now}', '{now}')",
        f"INSERT INTO {place}.sessions (id, digest, user_id, kind, epoch, created_at, last_seen_at,"
        f" idle_seconds, expires_at) VALUES ('{uuid4()}', '\\x{token.digest.hex()}', '{user_id}',"
        f" 'browser', 1, '{now}', '{now}', 1800, '{(clock() + timedelta(hours=1)).isoformat()}')",
    )
    return token


def test_accounts_with_rights_on_the_tables_keep_them(url: str) -> None:
    make_old_layout(url)
    account = as_role(url, "GRANT SELECT ON public.users TO {role}")
    schema.upgrade(url)
    assert ask(account, "SELECT count(*) FROM authapp_data.users") == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(account, "SELECT count(*) FROM authapp_data.sessions")


def test_a_move_that_fails_leaves_everything_where_it_was(url: str) -> None:
    make_old_layout(url)
    before = contents(url, "public")
    run_sql(url, "CREATE SCHEMA authapp_data", "CREATE TABLE authapp_data.sessions ()")
    message = refusal(lambda: schema.upgrade(url))
    assert 'relation "sessions" already exists in schema "authapp_data"' in message
    assert "set DATABASE_SCHEMA to a schema that holds nothing else" in message
    assert contents(url, "public") == before
    assert ask(url, "SELECT version_num FROM public.alembic_version") == [("0012",)]
    run_sql(url, "DROP TABLE authapp_data.sessions")
    schema.upgrade(url)
    schema.require_current(url)


@pytest.mark.parametrize("taken", ["users", "alembic_version"])
def test_a_way_back_that_is_taken_is_refused_and_moves_nothing(url: str, taken: str) -> None:
    """What came after the move is gone by then, and an upgrade brings it again."""
    schema.upgrade(url, "0013")
    run_sql(url, f"CREATE TABLE public.{taken} ()")
    before = contents(url, "authapp_data")
    schema.upgrade(url)
    message = refusal(lambda: schema.downgrade(url, "0012"))
    assert f'relation "{taken}" already exists in schema "public"' in message
    assert "free the name" in message
    assert contents(url, "authapp_data") == before
    schema.upgrade(url)
    schema.require_current(url)


@pytest.mark.parametrize("revision", ["3f2a9c04b1de", "0001", "0012", "9999", None])
def test_the_history_of_another_app_is_left_alone(url: str, revision: str | None) -> None:
    """Flask-Migrate keeps its own in `public.alembic_version`, and an app may have `users`."""
    run_sql(url, "CREATE TABLE public.alembic_version (version_num varchar(32) NOT NULL)")
    run_sql(url, "CREATE TABLE public.users (id int)")
    if revision:
        run_sql(url, f"INSERT INTO public.alembic_version VALUES ('{revision}')")
    before = contents(url, "public")
    assert schema.current(url).found == "none"
    account = as_role(url, "CREATE SCHEMA authapp_data AUTHORIZATION {role}")  # may not read theirs
    schema.upgrade(account)
    schema.require_current(account)
    assert contents(url, "public") == before
    theirs = ask(url, "SELECT version_num FROM public.alembic_version")
    assert theirs == ([(revision,)] if revision else [])


def test_a_schema_can_be_renamed(url: str, settings: Config, clock: Clock) -> None:
    """As docs/production.md says: while no instance runs, and with an upgrade afterwards."""
    schema.upgrade(url)
    with served(settings, clock) as services:
        sign_up(services)
        live = log_in(services)
    run_sql(url, "ALTER SCHEMA authapp_data RENAME TO people")
    schema.upgrade(url, schema="people")
    with served(settings, clock, "people") as services:
        assert is_live(services, live)
        run_sql(url, "UPDATE people.users SET active = false")
        assert services.changes.replay()
        assert ending(services, live) is EndReason.DEACTIVATED


def test_foreign_keys_of_an_app_name_the_schema() -> None:
    assert users_table().fullname == "authapp_data.users"
    assert users_table() is User.__table__
    assert users_table("people").fullname == "people.users"
    assert users_table("people") is users_table("people")
