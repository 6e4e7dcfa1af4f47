"""The findings of `doctor` on real servers: each when all is well, and when it is not."""

import itertools
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import make_url

from authapp import create_app, dev
from authapp.cache.keys import LIFE_KEY
from authapp.config import Config
from authapp.doctor import Finding, State, examine, guard_rules
from authapp.doctor import postgres as examination
from authapp.doctor.clocks import Clocks
from authapp.doctor.postgres import judge_transport
from authapp.doctor.redis_servers import _version, eviction_policy_problem
from authapp.storage import schema
from authapp.storage.redis import redis_client
from tests.proofs.cluster.servers import Node, await_servers, linked
from tests.support import smtp
from tests.support.databases import add_migrated_database, migrate, run_sql
from tests.support.frozen import frozen
from tests.support.mails import MAIL_SETTINGS
from tests.support.settings import PEPPER, make_config
from tests.support.smtp import MailServer

Says = Callable[[str, str], tuple[str, ...]]

OK, WARN, FAIL = State.OK, State.WARN, State.FAIL
HUSH = "hush-" * 3
numbers = itertools.count()

SECRETS = ("tests-only", PEPPER, HUSH, "k" * 32)  # what nothing may tell


def found(config: Config, **options: Any) -> list[Finding]:
    findings = examine(config, 8, **options)
    for finding in findings:
        for secret in (*SECRETS, *config.SECRET_KEY, *config.PASSWORD_PEPPER):
            assert secret not in finding.text + finding.remedy
        assert finding.text
        assert finding.remedy or finding.state is OK, finding
        assert "\n" not in finding.text + finding.remedy
    return findings


def the(check: str, findings: list[Finding]) -> Finding:
    (one,) = [finding for finding in findings if finding.check == check]
    return one


def states(findings: list[Finding]) -> set[State]:
    return {finding.state for finding in findings}


def checks(findings: list[Finding], of: str) -> set[str]:
    return {finding.check for finding in findings if finding.check.startswith(of)}


# -- settings --------------------------------------------------------------------------------------

FINE = {"SECRET_KEY": "Vb2mXk9QwLz7RtYp4NcHs6JdGf3ZaEu1", "BCRYPT_ROUNDS": "12"}
FINE |= {"PASSWORD_PEPPER": "0Ks8hUeWq5XnMvTyBj7CrLg2PdAz4FiO", "SIGNUP": "invite"}


@pytest.mark.parametrize(
    ("check", "given", "state", "words"),
    [
        ("SECRET_KEY", {}, OK, "1 set"),
        ("SECRET_KEY", {"SECRET_KEY": "a5" * 32}, WARN, "can be guessed"),
        ("SECRET_KEY", {"SECRET_KEY": "k" * 32}, WARN, "can be guessed"),
        ("SECRET_KEY", {"SECRET_KEY": "change-me-in-production-please!!"}, WARN, "of words"),
        ("SECRET_KEY", {"SECRET_KEY": f"{FINE['SECRET_KEY']},{'k' * 32}"}, WARN, "number 2 of"),
        ("SECRET_KEY", {"SECRET_KEY": f"{FINE['SECRET_KEY']},Xy{FINE['SECRET_KEY']}"}, OK, "2 set"),
        ("PASSWORD_PEPPER", {}, OK, "1 set"),
        ("PASSWORD_PEPPER", {"PASSWORD_PEPPER": "0123456789" * 4}, WARN, "can be guessed"),
        ("secrets", {"PASSWORD_PEPPER": FINE["SECRET_KEY"]}, WARN, "one leak loses both"),
        ("passwords", {}, OK, "12 rounds"),
        ("passwords", {"BCRYPT_ROUNDS": "11"}, WARN, "cheap to guess"),
        ("new passwords", {}, OK, "15 characters or more"),
        ("new passwords", {"PASSWORD_MIN_LENGTH": "14"}, WARN, "14 characters are enough"),
        (
            "new passwords",
            {"PASSWORD_MIN_LENGTH": "8", "SECOND_FACTOR": "required"},
            OK,
            "8 characters or more",
        ),
        (
            "new passwords",
            {"PASSWORD_MIN_LENGTH": "8", "SECOND_FACTOR": "admin"},
            WARN,
            "8 characters are enough",
        ),
        ("second factor", {}, OK, "for people who set one up"),
        ("second factor", {"SECOND_FACTOR": "required"}, OK, "for everybody"),
        ("second factor", {"SECOND_FACTOR": "admin"}, OK, "set one up or are admin"),
        ("second factor", {"SECOND_FACTOR": "admin,amdin"}, WARN, "does not exist: amdin"),
        ("new passwords", {"PASSWORD_BLOCKLIST": "/no/such/file"}, FAIL, "No such file"),
        ("cookie flags", {}, OK, "HttpOnly, Secure, SameSite=Lax"),
        ("cookie flags", {"SESSION_COOKIE_SAMESITE": "None"}, OK, "SameSite=None"),
        ("cookie flags", {"SESSION_COOKIE_SECURE": "0"}, OK, "only this machine asks"),
        ("cookie flags", {"SESSION_COOKIE_SECURE": "0", "HOST": "0.0.0.0"}, FAIL, "plain HTTP"),
        ("cookie flags", {"SESSION_COOKIE_SECURE": "0", "HOST": "::"}, FAIL, "plain HTTP"),
        ("cookie flags", {"SESSION_COOKIE_SECURE": "0", "HOST": "::1"}, OK, "only this machine"),
        (
            "cookie flags",
            {"SESSION_COOKIE_SECURE": "0", "TRUSTED_PROXY_HOPS": "1"},
            WARN,
            "plain HTTP",
        ),
        ("cookie name", {}, OK, "__Host-SESSION-TOKEN no other host"),
        ("cookie name", {"SESSION_COOKIE_NAME": "__Host-S"}, OK, "this host alone"),
        ("cookie name", {"SESSION_COOKIE_NAME": "__Secure-S"}, OK, "__Host-S no other host"),
        ("cookie domain", {}, OK, "this host alone"),
        ("cookie domain", {"SESSION_COOKIE_DOMAIN": ".example.org"}, WARN, "under example.org"),
        ("session limits", {}, OK, "idle 30 minutes, in all 12 hours, remembered 30 days"),
        ("session limits", {"REMEMBER_ME_SECONDS": "2592001"}, WARN, "REMEMBER_ME_SECONDS"),
        (
            "session limits",
            {"ASSURANCE_LEVEL": "2", "SECOND_FACTOR": "required"},
            OK,
            "two factors, at most 1 day in all and 1 hour without a visit",
        ),
        ("proxy trust", {}, OK, "of no proxy is read"),
        ("proxy trust", {"HOST": "192.0.2.1"}, OK, "192.0.2.1 can be reached directly"),
        ("proxy trust", {"TRUSTED_PROXY_HOPS": "2"}, OK, "as 2 proxies in front set them"),
        ("slow clients", {"TRUSTED_PROXY_HOPS": "1"}, OK, "a proxy is in front"),
        ("slow clients", {"HOST": "192.0.2.1"}, OK, "gunicorn withstands slow clients"),
        ("redirects", {}, OK, "to this site"),
        ("guard rules", {}, OK, "none: each proxy demands"),
        ("guard rules", {"GUARD_RULES": "/no/such/file"}, FAIL, "it can't be read (No such file"),
        ("sign-up", {}, OK, "invite; addresses are not confirmed"),
        ("sign-up", {"SIGNUP": "open"}, FAIL, "a stranger passes under any address"),
        (
            "sign-up",
            {"SIGNUP": "domains", "SIGNUP_DOMAINS": "example.org"},
            FAIL,
            "set MAIL_URL",
        ),
        (
            "sign-up",
            {"SIGNUP": "open", **MAIL_SETTINGS, "EMAIL_VERIFICATION": "off"},
            FAIL,
            "set EMAIL_VERIFICATION to required",
        ),
        ("sign-up", {"SIGNUP": "open", "PUBLIC_URL": "http://127.0.0.1:8000"}, WARN, "stranger"),
        ("sign-up", {"SIGNUP": "open", **MAIL_SETTINGS}, OK, "addresses are confirmed"),
        ("passkeys", {}, OK, "off: PUBLIC_URL is not set"),
        ("passkeys", {"PUBLIC_URL": "https://auth.example.org/a"}, OK, "for auth.example.org"),
        ("passkeys", {"PUBLIC_URL": "http://localhost:8000"}, OK, "for localhost"),
        ("passkeys", {"PUBLIC_URL": "http://127.0.0.1:8000"}, OK, "on http://localhost:8000"),
        ("passkeys", {"PUBLIC_URL": "https://192.0.2.7"}, WARN, "no passkeys for an IP"),
        ("passkeys", {"PUBLIC_URL": "http://auth.example.org"}, WARN, "on https alone"),
        (
            "passkeys",
            {
                "PUBLIC_URL": "https://auth.example.org",
                "SESSION_COOKIE_DOMAIN": "example.org",
                "TRUSTED_ORIGINS": "https://shop.example.org",
            },
            OK,
            "for example.org, on https://auth.example.org, https://shop.example.org",
        ),
        ("redirects", {"ALLOWED_REDIRECT_HOSTS": "b.example,a.example"}, OK, "b.example, a.exa"),
    ],
)
def test_settings(
    config: Config, check: str, given: dict[str, str], state: State, words: str
) -> None:
    stores = (config.DATABASE_URL, config.REDIS_URL)
    finding = the(check, found(make_config(*stores, **{**FINE, **given})))
    assert finding.state is state
    assert words in f"{finding.text} {finding.remedy}"


def test_secrets_that_differ_are_no_finding(config: Config) -> None:
    stores = (config.DATABASE_URL, config.REDIS_URL)
    assert not checks(found(make_config(*stores, **FINE)), "secrets")


def test_random_secrets_are_never_called_weak(config: Config) -> None:
    """The shortest that are accepted, of the smallest alphabet that tools make them of."""
    stores = (config.DATABASE_URL, config.REDIS_URL)
    for secret in ("cfbf62a70fb0cc8140e50f36b1acd014", "9d3be86cf25a41c0b7d5ce0f13a8264e"):
        findings = found(make_config(*stores, **{**FINE, "SECRET_KEY": secret}))
        assert the("SECRET_KEY", findings).state is OK


def test_all_is_well(config: Config) -> None:
    findings = found(make_config(config.DATABASE_URL, config.REDIS_URL, **FINE))
    assert states(findings) == {OK}
    assert {finding.check for finding in findings} == {
        *("SECRET_KEY", "PASSWORD_PEPPER", "passwords", "new passwords", "sign-up", "passkeys"),
        *(
            "cookie flags",
            "cookie name",
            "cookie domain",
            "session limits",
            "proxy trust",
            "slow clients",
            "redirects",
        ),
        *("postgres", "postgres transport", "postgres schema", "postgres writes", "addresses"),
        *("pending fences", "key prefix", "imported passwords", "postgres connections"),
        *("redis", "redis transport", "redis role", "redis replicas", "redis eviction"),
        *("redis memory", "redis persistence", "redis functions", "redis copies", "clocks", "mail"),
        *("guard rules", "second factor", "no password"),
    }


# -- Postgres --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tcp_postgres(engine_dir: Path) -> Iterator[dev.PostgreSQL]:
    with (
        dev.private_socket_dir() as sockets,
        dev.PostgreSQL.start(
            engine_dir / "doctor", sockets, "tests-only", durable=False, tcp=True
        ) as server,
    ):
        migrate(server.url)
        yield server


def with_url(url: str, **changed: Any) -> str:
    return make_url(url)._replace(**changed).render_as_string(hide_password=False)


@pytest.fixture
def odd(config: Config, postgres: dev.PostgreSQL) -> Iterator[Callable[..., Config]]:
    """Settings for a migrated database whose server says or does something odd."""
    url = add_migrated_database(postgres.url, "doctor")
    name = make_url(url).database

    def make(*statements: str) -> Config:
        run_sql(
            url, *(statement.replace("DATABASE", f"DATABASE {name}") for statement in statements)
        )
        return make_config(url, config.REDIS_URL, **FINE)

    yield make
    run_sql(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Has a server answer otherwise: what is found first on the search path counts."""

    def make(function: str, answer: str) -> tuple[str, ...]:
        monkeypatch.setattr(examination, "SEARCH_PATH", {"search_path": "odd, pg_catalog"})
        return (
            "CREATE SCHEMA odd",
            f"CREATE FUNCTION odd.{function} LANGUAGE sql AS $$ {answer} $$",
        )

    return make


@pytest.mark.parametrize(
    ("number", "state"),
    [(100023, FAIL), (110000, WARN), (130022, WARN), (140000, OK), (170004, OK)],
)
def test_the_version_of_postgres(
    odd: Callable[..., Config], says: Says, number: int, state: State
) -> None:
    asked = "current_setting(asked text) RETURNS text"
    answer = (
        f"SELECT CASE asked WHEN 'server_version_num' THEN '{number}'"
        " ELSE pg_catalog.current_setting(asked) END"
    )
    findings = found(odd(*says(asked, answer)))
    assert the("postgres", findings).state is state
    assert f"PostgreSQL {number // 10_000}." in the("postgres", findings).text
    assert states([f for f in findings if f.check != "postgres"]) == {OK}


@pytest.mark.parametrize(
    "changed",
    [
        {"query": {"host": "/nonexistent"}},
        {"host": "127.0.0.1", "port": 9, "query": {}},
        {"database": "nothing_of_this_name"},
        {"password": HUSH},
        {"username": "nobody"},
    ],
    ids=["no socket", "no server", "no database", "wrong password", "wrong user"],
)
def test_a_postgres_that_is_not_there(config: Config, changed: dict[str, Any]) -> None:
    url = with_url(config.DATABASE_URL, **changed)
    findings = found(make_config(url, config.REDIS_URL, **FINE))
    assert checks(findings, "postgres") == {"postgres"}
    assert the("postgres", findings).state is FAIL
    assert "correct DATABASE_URL" in the("postgres", findings).remedy
    assert the("redis copies", findings).state is OK, "the rest is still examined"


def test_a_database_that_is_not_migrated(odd: Callable[..., Config]) -> None:
    config = odd()
    schema.downgrade(config.DATABASE_URL, "0001")
    findings = found(config)
    finding = the("postgres schema", findings)
    assert finding.state is FAIL
    assert "at migration 0001, this version needs" in finding.text
    assert "flask --app wsgi auth db upgrade" in finding.remedy
    assert "postgres writes" not in checks(findings, "postgres")
    assert the("postgres connections", findings).state is OK
    schema.upgrade(config.DATABASE_URL)
    assert states(found(config)) == {OK}


@pytest.mark.parametrize(
    ("works_with", "state", "told"),
    [
        ("0016", OK, "at migration 9999, which this version of authapp does not know, but works"),
        ("9999", FAIL, "at migration 9999, which this version of authapp does not know"),
    ],
)
def test_a_database_of_a_newer_version(
    odd: Callable[..., Config], works_with: str, state: State, told: str
) -> None:
    config = odd()
    run_sql(
        config.DATABASE_URL,
        "UPDATE authapp_data.alembic_version SET version_num = '9999'",
        f"UPDATE authapp_data.compatibility SET oldest_revision = '{works_with}'",
    )
    findings = found(config)
    assert the("postgres schema", findings).state is state
    assert the("postgres schema", findings).text.startswith(told)
    assert ("db downgrade" in the("postgres schema", findings).remedy) == (state is FAIL)
    assert ("postgres writes" in checks(findings, "postgres")) == (state is OK)


def test_a_database_that_only_reads(odd: Callable[..., Config]) -> None:
    findings = found(odd("ALTER DATABASE SET default_transaction_read_only = on"))
    assert the("postgres writes", findings).state is FAIL
    assert "it only reads" in the("postgres writes", findings).text
    assert "primary" in the("postgres writes", findings).remedy


def test_an_account_without_the_rights(odd: Callable[..., Config]) -> None:
    name = f"doctor_reader_{next(numbers)}"
    tables = "ON ALL TABLES IN SCHEMA authapp_data"
    config = odd(
        f"CREATE ROLE {name} LOGIN PASSWORD '{HUSH}'",
        f"GRANT USAGE ON SCHEMA authapp_data TO {name}",
        f"GRANT SELECT {tables} TO {name}",
    )
    url = with_url(config.DATABASE_URL, username=name, password=HUSH)
    try:
        finding = the("postgres writes", found(make_config(url, config.REDIS_URL, **FINE)))
        assert finding.state is FAIL
        assert "a right is missing: permission denied for table users" in finding.text
        others = [f for f in found(make_config(url, config.REDIS_URL, **FINE)) if f != finding]
        assert states(others) == {OK}, "the rest is still examined"
        odd(f"GRANT INSERT, UPDATE, DELETE {tables} TO {name}")
        assert states(found(make_config(url, config.REDIS_URL, **FINE))) == {OK}
    finally:
        odd(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_changes_that_were_lost(odd: Callable[..., Config]) -> None:
    event = "INSERT INTO audit_events (at, event) VALUES (now() - interval '{}', '{}')"
    config = odd(event.format("25 hours", "postgres.lost_commits"))
    assert not checks(found(config), "lost changes")
    odd(event.format("1 hour", "postgres.lost_commits"))
    finding = the("lost changes", found(config))
    assert finding.state is WARN
    assert "After Postgres lost changes" in finding.remedy


def test_looking_whether_it_takes_changes_changes_nothing(odd: Callable[..., Config]) -> None:
    config = odd("INSERT INTO pending_fences (key, ver) VALUES ('sess:x', 1)")
    for _ in range(2):
        assert the("postgres writes", found(config)).state is OK
        assert the("pending fences", found(config)).text.startswith("1 wait")


def test_fences_that_wait(odd: Callable[..., Config]) -> None:
    config = odd("INSERT INTO pending_fences (key, ver) VALUES ('sess:x', 1), ('sess:y', 2)")
    finding = the("pending fences", found(config))
    assert finding.state is WARN
    assert finding.text.startswith("2 wait")
    assert "maintenance" in finding.remedy


def test_passwords_that_were_imported(
    odd: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = odd(
        "INSERT INTO users (id, email, email_canonical, password_hash, created_at, updated_at)"
        " SELECT gen_random_uuid(), n, n, hash, now(), now() FROM (VALUES"
        " ('a', 'imported:bcrypt:230:x'), ('b', 'imported:bcrypt:1:x'),"
        " ('c', 'imported:argon2:200:x'), ('d', '01234567:$2b$'), ('e', '')) AS them (n, hash)"
    )
    finding = the("imported passwords", found(config))
    assert finding.state is OK
    assert finding.text == (
        "3 people have not logged in since they were imported: 1 argon2, 2 bcrypt"
    )
    monkeypatch.setitem(sys.modules, "argon2", None)
    finding = the("imported passwords", found(config))
    assert finding.state is FAIL
    assert "pip install 'authapp[import]'" in finding.remedy


def test_people_without_a_password_whose_passkeys_are_for_another_host(
    odd: Callable[..., Config],
) -> None:
    config = odd(
        "INSERT INTO users (id, email, email_canonical, password_hash, second_factor, created_at,"
        " updated_at) SELECT gen_random_uuid(), n, n, '', has_one, now(), now() FROM (VALUES"
        " ('a', true), ('b', true), ('c', true), ('never had one', false)) AS them (n, has_one)",
        "INSERT INTO passkeys (user_id, credential_id, public_key, sign_count, transports, aaguid,"
        " backup_eligible, backed_up, rp_id, name, created_at) SELECT users.id, convert_to(rp,"
        " 'UTF8') || convert_to(email, 'UTF8'), '', 0, '{}', gen_random_uuid(), false, false, rp,"
        " '', now() FROM users JOIN (VALUES ('a', 'old.example.org'), ('b', 'old.example.org'),"
        " ('b', 'new.example.org'), ('c', 'new.example.org')) AS of (n, rp) ON n = email",
    )
    urls = (config.DATABASE_URL, config.REDIS_URL)
    moved = make_config(*urls, PUBLIC_URL="https://new.example.org")
    finding = the("no password", found(moved))
    assert finding.state is WARN
    assert finding.text == "1 people have no password, and no passkey for new.example.org"
    assert "users reset" in finding.remedy
    finding = the("no password", found(config))  # there is no PUBLIC_URL, so no passkey counts
    assert finding.text.startswith("3 people")


def test_too_few_connections(config: Config) -> None:
    stores = (config.DATABASE_URL, config.REDIS_URL)
    finding = the("postgres connections", found(make_config(*stores, WEB_CONCURRENCY="24")))
    assert (finding.state, finding.text) == (OK, "one instance may open 192 of 197")
    finding = the("postgres connections", found(make_config(*stores, WEB_CONCURRENCY="25")))
    assert (finding.state, finding.text) == (WARN, "one instance may open 200 of 197")


def test_a_postgres_elsewhere_without_tls(config: Config, tcp_postgres: dev.PostgreSQL) -> None:
    """`hostaddr` is where libpq connects; by `host` it knows whom it means."""
    assert (
        the("postgres transport", found(make_config(tcp_postgres.url, config.REDIS_URL))).state
        is OK
    )
    url = with_url(tcp_postgres.url, host="db.example.org", query={"hostaddr": "127.0.0.1"})
    findings = found(make_config(url, config.REDIS_URL))
    assert the("postgres", findings).state is OK
    finding = the("postgres transport", findings)
    assert finding.state is WARN
    assert "sent to db.example.org is not encrypted" in finding.text
    assert "sslmode=verify-full" in finding.remedy


@pytest.mark.parametrize(
    ("hosts", "sslmode", "encrypted", "state"),
    [
        ("", "prefer", False, OK),
        ("/run/postgresql", "prefer", False, OK),
        ("127.0.0.2", "prefer", False, OK),
        ("::1", "prefer", False, OK),
        ("localhost", "prefer", False, OK),
        ("127.0.0.1,localhost", "prefer", False, OK),
        ("127.0.0.1,db", "prefer", False, WARN),
        ("localhost.example.org", "prefer", False, WARN),
        ("192.0.2.1", "disable", False, WARN),
        ("db", "prefer", True, WARN),
        ("db", "require", True, WARN),
        ("db", "verify-ca", True, OK),
        ("db", "verify-full", True, OK),
    ],
)
def test_the_way_to_postgres(hosts: str, sslmode: str, encrypted: bool, state: State) -> None:
    assert judge_transport(hosts, sslmode, encrypted).state is state


# -- Redis -----------------------------------------------------------------------------------------

StartServer = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a Valkey with other options."""
    with ExitStack() as stack:

        def start(**settings: str) -> Node:
            given = {"requirepass": "tests-only", "masterauth": "tests-only", "save": '""'}
            given |= {name.replace("_", "-"): text for name, text in settings.items()}
            node = Node(tmp_path / f"node-{next(numbers)}", given)
            stack.callback(lambda: node.kill() if node.process else None)
            node.start()
            return node

        yield start


def with_redis(config: Config, url: str) -> list[Finding]:
    return found(make_config(config.DATABASE_URL, url, **FINE))


@pytest.mark.parametrize(
    ("settings", "check", "state", "words"),
    [
        ({"maxmemory_policy": "noeviction"}, "redis eviction", OK, "noeviction"),
        ({"maxmemory_policy": "volatile-ttl"}, "redis eviction", OK, "volatile-ttl"),
        ({"maxmemory_policy": "allkeys-lru"}, "redis eviction", FAIL, "drops sessions"),
        ({"maxmemory_policy": "allkeys-random"}, "redis eviction", FAIL, "drops sessions"),
        ({"maxmemory": "0"}, "redis memory", OK, "without a limit; set maxmemory"),
        ({"maxmemory": "64mb"}, "redis memory", OK, "of 64.00M"),
        ({"appendonly": "yes"}, "redis persistence", OK, "file is kept; copies alone need none"),
        ({"appendonly": "no"}, "redis persistence", OK, "no append-only file; copies alone"),
        ({"min_replicas_to_write": "1"}, "redis functions", FAIL, "NOREPLICAS"),
        ({"min_replicas_to_write": "1"}, "redis copies", FAIL, "NOREPLICAS"),
        ({}, "redis", OK, "Valkey"),
    ],
)
def test_how_redis_is_set_up(
    config: Config,
    start: StartServer,
    settings: dict[str, str],
    check: str,
    state: State,
    words: str,
) -> None:
    finding = the(check, with_redis(config, start(**settings).url))
    assert finding.state is state
    assert words in "; ".join((finding.text, finding.remedy))


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("noeviction", None),
        ("volatile-lru", None),
        ("allkeys-lfu", "maxmemory-policy is allkeys-lfu: set it to noeviction"),
    ],
)
def test_what_is_wrong_with_the_eviction_policy(
    start: StartServer, policy: str, problem: str | None
) -> None:
    node = start(maxmemory_policy=policy)
    client = redis_client(node.url, retries=0)
    assert eviction_policy_problem(client) == problem
    node.ask("ACL", "SETUSER", "default", "-info")
    assert eviction_policy_problem(client) is None, "it can't be told"
    node.kill()
    assert eviction_policy_problem(client) is None
    client.close()


def test_replicas(config: Config, start: StartServer) -> None:
    primary = start(repl_diskless_sync_delay="0")
    replica = start(replicaof=f"127.0.0.1 {primary.port}")
    await_servers(lambda: linked(primary, 1), "the replica has its copy")
    finding = the("redis replicas", with_redis(config, primary.url))
    assert finding.state is WARN
    assert finding.text.startswith("1 attached")
    assert "min-replicas-to-write 1" in finding.remedy

    primary.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    findings = with_redis(config, primary.url)
    assert states(findings) == {OK}
    assert the("redis replicas", findings).text.startswith("1 attached, and")

    findings = with_redis(config, replica.url)
    assert the("redis role", findings).state is FAIL
    assert "name the Sentinels" in the("redis role", findings).remedy
    assert the("redis functions", findings).state is FAIL
    assert the("redis copies", findings).state is FAIL


def limited(node: Node, *rules: str) -> str:
    """The URL of an account that may do all but what the rules take from it."""
    node.ask("ACL", "SETUSER", "limited", "on", f">{HUSH}", "~*", "&*", "+@all", *rules)
    return f"redis://limited:{HUSH}@127.0.0.1:{node.port}"


def test_an_account_that_may_not_ask(config: Config, start: StartServer) -> None:
    findings = with_redis(config, limited(start(), "-info"))
    finding = the("redis", findings)
    assert finding.state is WARN
    assert "can't tell how it is set up" in finding.text
    assert the("redis copies", findings).state is FAIL, "the functions ask too"


def test_an_account_that_may_not_ask_for_settings(config: Config, start: StartServer) -> None:
    """As on managed servers: nothing that is examined needs CONFIG."""
    assert states(with_redis(config, limited(start(), "-config"))) == {OK}


@pytest.mark.parametrize("rule", ["-function", "-function|load"])
def test_an_account_that_may_not_load_functions(
    config: Config, start: StartServer, rule: str
) -> None:
    finding = the("redis functions", with_redis(config, limited(start(), rule)))
    assert finding.state is FAIL
    assert "FUNCTION LOAD" in finding.remedy


def test_an_account_that_may_not_call_functions(config: Config, start: StartServer) -> None:
    findings = with_redis(config, limited(start(), "-fcall"))
    assert the("redis functions", findings).state is OK
    assert the("redis copies", findings).state is FAIL
    assert "fcall" in the("redis copies", findings).text


def test_asking_for_a_copy_leaves_nothing_for_long(
    config: Config, redis_client: redis.Redis
) -> None:
    assert the("redis copies", found(config)).state is OK
    keys: Any = set(redis_client.keys("*")) - {LIFE_KEY.encode()}  # type: ignore[arg-type]
    assert all(0 < redis_client.ttl(key) <= 10 for key in keys)  # type: ignore[operator]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush-hush-hush-@127.0.0.1:9/0",
        "redis+sentinel://:hush-hush-hush-@127.0.0.1:9/service",
        "redis+cluster://:hush-hush-hush-@127.0.0.1:9",
        "unix://:hush-hush-hush-@/nonexistent/socket",
    ],
    ids=["server", "sentinel", "cluster", "socket"],
)
def test_a_redis_that_is_not_there(config: Config, url: str) -> None:
    findings = with_redis(config, url)
    assert the("redis", findings).state is FAIL
    assert "correct REDIS_URL" in the("redis", findings).remedy
    assert checks(findings, "redis") == {"redis", "redis transport"}
    assert the("postgres writes", findings).state is OK, "the rest is still examined"
    assert the("clocks", findings).state is OK


@pytest.mark.parametrize("account", [f":{HUSH}@", f"nobody:{HUSH}@", ""])
def test_a_redis_that_does_not_let_us_in(config: Config, start: StartServer, account: str) -> None:
    findings = with_redis(config, f"redis://{account}127.0.0.1:{start().port}")
    assert the("redis", findings).state is FAIL


@pytest.mark.parametrize(
    ("url", "transport", "password"),
    [
        ("redis://{}:{}", WARN, FAIL),
        ("redis://:tests-only@{}:{}", WARN, OK),
        ("redis://{}:{}?password=tests-only", WARN, OK),
        ("redis+cluster://:tests-only@127.0.0.1:1,{}:{}", WARN, OK),
        ("redis+sentinel://127.0.0.1:1,{}:{}/service", WARN, FAIL),
        ("rediss://:tests-only@{}:{}", OK, OK),
        ("rediss://{}:{}", OK, FAIL),
        ("rediss+cluster://127.0.0.1:1,{}:{}?ssl_ca_certs=/nonexistent", OK, FAIL),
        ("rediss+sentinel://:tests-only@{}:{}/service", OK, OK),
        ("rediss://:tests-only@{}:{}?ssl_cert_reqs=none", WARN, OK),
        ("rediss+cluster://:tests-only@{}:{}?ssl_check_hostname=no", WARN, OK),
    ],
)
def test_a_redis_elsewhere(
    config: Config,
    start: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    transport: State,
    password: State,
) -> None:
    node = start(requirepass='""') if "tests-only" not in url else start()
    look_up = socket.getaddrinfo

    def names(host: Any, *rest: Any, **more: Any) -> Any:
        return look_up("127.0.0.1" if host == "redis.example.org" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", names)
    findings = with_redis(config, url.format("redis.example.org", node.port))
    assert the("redis transport", findings).state is transport
    assert "redis.example.org" in the("redis transport", findings).text
    assert the("redis password", findings).state is password
    if url.startswith("redis://"):
        assert the("redis copies", findings).state is OK


@pytest.mark.parametrize("url", ["redis://{}", "redis://localhost:{}", "redis://[::1]:{}"])
def test_a_redis_here_needs_neither_tls_nor_password(config: Config, url: str) -> None:
    findings = with_redis(config, url.format("127.0.0.1:9" if url == "redis://{}" else 9))
    assert the("redis transport", findings).state is OK
    assert not checks(findings, "redis password")


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"redis_version": "6.2.14"}, FAIL),
        ({"redis_version": "7.0.0"}, OK),
        ({"redis_version": "10.0.0"}, OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, OK),
        ({}, FAIL),
    ],
)
def test_the_version_of_redis(facts: dict[str, str], state: State) -> None:
    assert _version(facts).state is state


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, OK), (1, OK), (5, WARN), (-20, WARN), (45, FAIL), (-45, FAIL)]
)
def test_postgres_has_another_time(
    odd: Callable[..., Config], says: Says, seconds: int, state: State
) -> None:
    asked = "clock_timestamp() RETURNS timestamptz"
    answer = f"SELECT pg_catalog.clock_timestamp() + make_interval(secs => {seconds})"
    finding = the("clocks", found(odd(*says(asked, answer))))
    assert finding.state is state
    assert "redis" in finding.text
    if abs(seconds) > 1:
        assert f"postgres {seconds:+d}" in finding.text.replace(".0 s", "").replace(".1 s", "")


@pytest.mark.parametrize(("seconds", "state"), [(10, WARN), (-3600, FAIL)])
def test_this_machine_has_another_time(config: Config, seconds: float, state: State) -> None:
    assert the("clocks", found(config, now=lambda: time.time() + seconds)).state is state


def test_two_stores_that_are_little_off_each_may_be_far_apart() -> None:
    clocks = Clocks(lambda: 100.0)
    clocks.compare("postgres", lambda: 101.5)
    assert clocks.finding().state is OK
    clocks.compare("redis", lambda: 98.5)
    assert clocks.finding().state is WARN
    assert "3.0 s apart" in clocks.finding().text


# -- frozen stores ---------------------------------------------------------------------------------


def test_a_frozen_postgres(config: Config, tcp_postgres: dev.PostgreSQL) -> None:
    with frozen(tcp_postgres.pid):
        findings = found(make_config(tcp_postgres.url, config.REDIS_URL, **FINE))
    assert the("postgres", findings).state is FAIL
    assert the("redis copies", findings).state is OK


def test_a_frozen_redis(config: Config, start: StartServer) -> None:
    node = start()
    node.freeze()
    findings = with_redis(config, node.url)
    node.thaw()
    assert the("redis", findings).state is FAIL
    assert the("postgres writes", findings).state is OK


def test_a_store_that_freezes_while_it_is_asked(odd: Callable[..., Config], says: Says) -> None:
    asked = "clock_timestamp() RETURNS timestamptz"
    answer = "SELECT pg_catalog.clock_timestamp() FROM pg_sleep(2.5)"
    config = odd(*says(asked, answer))
    findings = found(config, seconds=1.0)
    told = [finding for finding in findings if finding.check == "postgres"]
    assert [finding.state for finding in told] == [OK, FAIL], "what it said before is kept"
    assert "stopped answering" in told[1].text
    assert the("redis copies", findings).state is OK


# -- the command -----------------------------------------------------------------------------------


def run(config: Config, *options: str) -> tuple[int, str]:
    app: Flask = create_app(config)
    result = app.test_cli_runner().invoke(args=["auth", "doctor", *options])
    assert result.stderr == ""
    return result.exit_code, result.stdout


def test_the_command_tells_one_line_each(config: Config) -> None:
    config = make_config(config.DATABASE_URL, config.REDIS_URL, **FINE)
    status, told = run(config)
    lines = told.splitlines()
    assert status == 0
    assert len(lines) == len(found(config))
    assert {line[:6] for line in lines} == {"ok    "}
    column = lines[0].index("1 set")
    assert all(line[column - 1] == " " != line[column] for line in lines), "texts are aligned"


@pytest.mark.parametrize(
    ("given", "state", "status"),
    [({"BCRYPT_ROUNDS": "4"}, "warn", 0), ({"REDIS_URL": "redis://127.0.0.1:9"}, "fail", 1)],
)
def test_the_command_says_by_its_status_whether_anything_fails(
    config: Config, given: dict[str, str], state: str, status: int
) -> None:
    stores = {"DATABASE_URL": config.DATABASE_URL, "REDIS_URL": config.REDIS_URL}
    config = Config.from_mapping({**stores, **FINE, **given})
    ended, told = run(config)
    assert ended == status
    (line,) = [line for line in told.splitlines() if line.startswith(state)]
    assert "; " in line, "with the remedy"
    ended, told = run(config, "--json")
    assert ended == status
    (finding,) = [finding for finding in json.loads(told) if finding["state"] == state]
    assert set(finding) == {"check", "state", "text", "remedy"}
    assert finding["remedy"] in line


# -- path rules ---------------------------------------------------------------------------------


def test_path_rules_are_told_in_words(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        '[[rules]]\nhost = "app.example.org"\npath = "/admin"\nroles = ["admin"]\nverified = true\n'
        '[[rules]]\nhost = ["app.example.org", "*.example.org"]\nallow = "public"\n'
    )
    more = {"GUARD_RULES": str(file)}
    findings = found(make_config(config.DATABASE_URL, config.REDIS_URL, **FINE, **more))
    told = "app.example.org, /admin: signed in, role admin, verified address"
    assert the("guard rule 1", findings).text.startswith(told)
    assert the("guard rule 2", findings).text == "app.example.org or *.example.org, /: public"
    assert the("guard rules", findings).state is WARN
    assert "does not lead back to app.example.org" in the("guard rules", findings).text
    more["ALLOWED_REDIRECT_HOSTS"] = "app.example.org"
    findings = found(make_config(config.DATABASE_URL, config.REDIS_URL, **FINE, **more))
    assert the("guard rules", findings).state is OK
    findings = found(make_config(config.DATABASE_URL, config.REDIS_URL, **FINE), guards=False)
    assert checks(findings, "guard") == set()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "; but nobody can confirm an address without mail"),
        (MAIL_SETTINGS | {"EMAIL_VERIFICATION": "off"}, "; but people log in without that, as"),
        (MAIL_SETTINGS, ""),
    ],
)
def test_a_rule_that_demands_a_confirmed_address_needs_a_way_to_confirm_it(
    tmp_path: Path, settings: dict[str, str], text: str
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nhost = "app.example.org"\nverified = true\n')
    more = {"GUARD_RULES": str(file), **settings}
    findings = list(guard_rules.examine(make_config("postgresql://x/y", "redis://x", **more)))
    finding = the("guard rule 1", findings)
    assert finding.state is (WARN if text else OK)
    assert finding.text.startswith(f"app.example.org, /: signed in, verified address{text}")
    assert bool(finding.remedy) is bool(text)


# -- mail ------------------------------------------------------------------------------------------


def mailing(config: Config, url: str, **more: str) -> Config:
    settings = {"MAIL_URL": url, "PUBLIC_URL": "https://auth.example.org"} | more
    return make_config(config.DATABASE_URL, config.REDIS_URL, **FINE, **settings)


def test_mail_that_can_leave(config: Config, mail_server: MailServer, tmp_path: Path) -> None:
    findings = found(mailing(config, mail_server.url))
    assert the("mail", findings).state is OK
    assert f"127.0.0.1:{mail_server.port} takes mails from" in the("mail", findings).text
    assert the("waiting mails", findings).state is OK
    assert the("links in mails", findings).state is OK
    assert (mail_server.connections, mail_server.mails) == (1, [])
    findings = found(mailing(config, f"file:{tmp_path}/mail"))
    assert the("mail", findings).state is OK
    assert "nobody receives any" in the("mail", findings).text


def test_mail_that_cannot_leave(config: Config, tmp_path: Path) -> None:
    with smtp.silent_server() as url:
        pass
    (tmp_path / "file").write_text("")
    for given, words in (
        (url, "connect: Connection refused"),
        (url.replace("//", f"//mailer:{HUSH}@"), "connect: Connection refused"),
        (f"file:{tmp_path}/file/mail", "directory: Not a directory"),
    ):
        finding = the("mail", found(mailing(config, given)))
        assert finding.state is FAIL
        assert words in finding.text


def test_a_mail_server_that_hangs_does_not_hold_the_examination_up(config: Config) -> None:
    with smtp.silent_server() as url:
        findings = found(mailing(config, url), seconds=2)
    assert the("mail", findings) == Finding(
        "mail",
        FAIL,
        "it stopped answering",
        "see whether its process is frozen, or its disk or network hangs",
    )


def test_links_that_travel_in_the_clear(config: Config, mail_server: MailServer) -> None:
    config = mailing(config, mail_server.url, PUBLIC_URL="http://auth.example.org")
    assert the("links in mails", found(config)).state is FAIL


def test_mails_that_wait_or_were_dropped(config: Config, mail_server: MailServer) -> None:
    for column in ("sent_at", "failed_at"):
        run_sql(
            config.DATABASE_URL,
            f"INSERT INTO outgoing_mails (kind, recipient_hash, created_at, next_attempt_at,"
            f" {column}) VALUES ('test', '', now() - interval '1 hour', now(), NULL),"
            f" ('test', '', now() - interval '1 hour', now(), now())",
        )
    findings = found(mailing(config, mail_server.url))
    assert the("waiting mails", findings).text == "2 waiting for more than five minutes"
    assert the("dropped mails", findings).text == "1 dropped within a day"
    assert the("waiting mails", findings).state is the("dropped mails", findings).state is WARN
