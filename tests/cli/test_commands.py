"""`flask --app wsgi auth …`: what operators do, and the one line they get when it can't be done."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import Result
from flask import Flask
from redis.connection import AbstractConnection

from authapp import Config, create_app
from authapp.dev import PostgreSQL, Valkey
from authapp.errors import StoreUnavailable
from authapp.sessions import maintenance
from tests.support.authenticator import enrol_person
from tests.support.databases import add_database
from tests.support.mails import MAIL_SETTINGS, mails
from tests.support.people import EMAIL, OTHER_PASSWORD, PASSWORD
from tests.support.services import sql
from tests.support.settings import environment_for, make_config
from tests.web.support import browser, log_in, lose_fences, services_of, token_of

ROOT = Path(__file__).parents[2]
SHOWN_ONCE = re.compile(r"^Password, shown only now: (\S{20,})$", re.MULTILINE)


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    app = create_app(config)
    yield app
    services_of(app).close()


def run(app: Flask, *arguments: str, stdin: str = "") -> Result:
    return app.test_cli_runner().invoke(args=("auth", *arguments), input=stdin)


def done(app: Flask, *arguments: str, stdin: str = "") -> str:
    result = run(app, *arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(app: Flask, *arguments: str, stdin: str = "") -> str:
    """The one line that says why."""
    result = run(app, *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def app_without_tables(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Flask]:
    app = create_app(make_config(add_database(postgres.url, "unmigrated"), valkey.url))
    yield app
    services_of(app).close()


@pytest.mark.parametrize(
    "command",
    [
        "users list",
        f"users create {EMAIL}",
        f"sessions list {EMAIL}",
        "roles list",
        "audit list",
        "invitations list",
        "mail status",
        "maintenance",
    ],
)
def test_a_database_that_was_not_migrated_is_named_with_the_remedy(
    app_without_tables: Flask, command: str
) -> None:
    line = refused(app_without_tables, *command.split())
    assert "the database is at migration none" in line
    assert line.endswith("run `flask --app wsgi auth db upgrade`")


def may_log_in(app: Flask, password: str, email: str = EMAIL) -> bool:
    return log_in(browser(app), email, password).location == "/"


def is_one_time(app: Flask, password: str, email: str = EMAIL) -> bool:
    """Whether a log-in leads to the choice of another password."""
    return log_in(browser(app), email, password).location == "/reset"


def roles(app: Flask, email: str = EMAIL) -> str:
    """The roles that `users show` tells."""
    return done(app, "users", "show", email).split()[-2]


# -- users create ----------------------------------------------------------------------------------


def test_a_generated_password_opens_nothing_but_the_choice_of_another(app: Flask) -> None:
    told = done(app, "users", "create", EMAIL, "--name", "Ada King")
    (password,) = SHOWN_ONCE.findall(told)
    assert f"Created {EMAIL}." in told
    assert "It lasts 72 hours. At log-in the person must choose another one." in told
    assert is_one_time(app, password)
    assert not may_log_in(app, password)
    shown = done(app, "users", "show", EMAIL)
    assert shown.split(maxsplit=1)[1] == f"{EMAIL}  Ada King  user  active\n"
    assert password not in shown


def test_generated_passwords_differ(app: Flask) -> None:
    told = "".join(done(app, "users", "create", f"p{n}@example.org") for n in range(3))
    assert len(set(SHOWN_ONCE.findall(told))) == 3


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\nnot this line\n"])
def test_a_password_from_standard_input_is_its_first_line(app: Flask, ending: str) -> None:
    stdin = f" {PASSWORD} {ending}"
    told = done(app, "users", "create", EMAIL, "--password-stdin", stdin=stdin)
    assert PASSWORD not in told
    assert may_log_in(app, f" {PASSWORD} ")
    assert not may_log_in(app, PASSWORD)


def test_roles_may_be_named(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--role", "admin", "--role", "user", "--role", "admin")
    assert roles(app) == "admin,user"


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["no email"], "", "email: enter an email address"),
        ([EMAIL, "--role", "pope"], "", "there is no role 'pope'; the roles are: admin, user"),
        ([EMAIL, "--password-stdin"], "short\n", "password: use at least 15 characters"),
        ([EMAIL, "--password-stdin"], "", "password: use at least 15 characters"),
        ([EMAIL, "--password-stdin"], "passwordpassword\n", "password: it is among the first"),
        ([EMAIL, "--name", "a\tb\x00"], "", "name: use letters"),
    ],
)
def test_a_user_that_can_not_be_added(
    app: Flask, arguments: list[str], stdin: str, words: str
) -> None:
    assert words in refused(app, "users", "create", *arguments, stdin=stdin)
    assert done(app, "users", "list") == ""


@pytest.mark.parametrize("spelling", [EMAIL, EMAIL.upper(), f" {EMAIL} "])
def test_a_taken_email(app: Flask, spelling: str) -> None:
    done(app, "users", "create", EMAIL)
    assert "is taken" in refused(app, "users", "create", spelling)


# -- users set-email, delete, export ---------------------------------------------------------------


def test_an_operator_removes_second_factors(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    assert "no second factor" in refused(app, "users", "reset-factors", EMAIL)
    services = services_of(app)
    enrol_person(services, services.users.page().users[0], datetime.now(UTC), PASSWORD)
    assert services.users.page().users[0].second_factor
    assert "Removed" in done(app, "users", "reset-factors", EMAIL)
    assert may_log_in(app, PASSWORD)


def test_an_operator_sets_an_email(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    told = done(app, "users", "set-email", EMAIL, "new@example.org", "--verified")
    assert "new@example.org" in told
    assert services_of(app).users.page().users[0].email_verified
    assert not may_log_in(app, PASSWORD)
    assert may_log_in(app, PASSWORD, "new@example.org")
    assert "there is no user" in refused(app, "users", "set-email", EMAIL, "x@example.org")
    done(app, "users", "create", EMAIL)
    assert "is taken" in refused(app, "users", "set-email", EMAIL, "new@example.org")


def test_a_deletion_asks_first(app: Flask) -> None:
    done(app, "users", "create", EMAIL)
    assert run(app, "users", "delete", EMAIL, stdin="n\n").exit_code == 1
    assert EMAIL in done(app, "users", "list")
    assert f"Deleted {EMAIL}" in done(app, "users", "delete", EMAIL, stdin="y\n")
    assert done(app, "users", "list") == ""
    done(app, "users", "create", EMAIL)
    done(app, "users", "delete", EMAIL, "--yes")
    assert done(app, "users", "list") == ""
    assert "there is no user" in refused(app, "users", "delete", EMAIL, "--yes")


def test_an_export_is_json(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    found = json.loads(done(app, "users", "export", EMAIL))
    assert found["user"]["email"] == EMAIL
    assert "there is no user" in refused(app, "users", "export", "nobody@example.org")


# -- users list, show, grant, revoke, set-password -------------------------------------------------


def test_all_users_are_listed_newest_first(app: Flask) -> None:
    for number in range(3):
        done(app, "users", "create", f"p{number}@example.org")
    found = [line.split()[1] for line in done(app, "users", "list").splitlines()]
    assert found == ["p2@example.org", "p1@example.org", "p0@example.org"]


def test_many_users_are_listed_once_each(app: Flask) -> None:
    with services_of(app).database.transaction() as db:
        db.connection().exec_driver_sql(
            "INSERT INTO authapp_data.users"
            " (id, email, email_canonical, password_hash, created_at, updated_at)"
            " SELECT gen_random_uuid(), n || '@x.test', n || '@x.test', 'x', now(), now()"
            " FROM generate_series(1, 450) n"
        )
    lines = done(app, "users", "list").splitlines()
    assert len(lines) == len(set(lines)) == 450


def test_a_role_is_granted_and_revoked(app: Flask) -> None:
    done(app, "users", "create", "root@example.org", "--role", "admin")
    done(app, "users", "create", EMAIL)
    for _ in range(2):  # again is no mistake
        assert "admin,user  active" in done(app, "users", "grant", EMAIL.upper(), "admin")
    assert roles(app) == "admin,user"
    for _ in range(2):
        assert "  user  active" in done(app, "users", "revoke", EMAIL, "admin")
    assert roles(app) == "user"


def test_the_last_administrator_stays(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--role", "admin")
    assert "last active administrator" in refused(app, "users", "revoke", EMAIL, "admin")
    assert roles(app) == "admin"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nobody@example.org"],
        ["grant", "nobody@example.org", "admin"],
        ["revoke", "nobody@example.org", "admin"],
        ["set-password", "nobody@example.org"],
        ["activate", "nobody@example.org"],
        ["deactivate", "nobody@example.org"],
    ],
)
def test_an_unknown_user(app: Flask, arguments: list[str]) -> None:
    assert "there is no" in refused(app, "users", *arguments)


@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_an_unknown_role(app: Flask, command: str) -> None:
    done(app, "users", "create", EMAIL)
    line = refused(app, "users", command, EMAIL, "pope")
    assert "there is no role 'pope'; the roles are: admin, user" in line


@pytest.mark.parametrize("generated", [True, False])
def test_setting_a_password_ends_all_sessions(app: Flask, generated: bool) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    client = browser(app)
    log_in(client, EMAIL, PASSWORD)
    if generated:
        told = done(app, "users", "set-password", EMAIL)
        (password,) = SHOWN_ONCE.findall(told)
    else:
        password = OTHER_PASSWORD
        told = done(app, "users", "set-password", EMAIL, "--password-stdin", stdin=password)
        assert password not in told
    assert client.get("/account").status_code == 302
    assert not may_log_in(app, PASSWORD)
    assert may_log_in(app, password) is not generated
    assert is_one_time(app, password) is generated


def test_a_weak_password_is_not_set(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    line = refused(app, "users", "set-password", EMAIL, "--password-stdin", stdin="short")
    assert "password: use at least 15 characters" in line
    assert may_log_in(app, PASSWORD)


# -- users reset -----------------------------------------------------------------------------------


def test_without_mail_a_link_is_printed_for_the_operator_to_hand_over(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    told = done(app, "users", "reset", EMAIL)
    assert "Mail is off" in told
    (link,) = re.findall(r"^\S*/reset\?token=\S{43}$", told, re.MULTILINE)
    client = browser(app)
    assert client.get(link).location == "/reset"
    form = {"token": link.rpartition("=")[2], "new_password": OTHER_PASSWORD}
    assert client.post("/reset", data=form).location == "/login"
    assert may_log_in(app, OTHER_PASSWORD)


def test_with_mail_the_operator_sees_no_link(config: Config) -> None:
    app = create_app(make_config(config.DATABASE_URL, config.REDIS_URL, **MAIL_SETTINGS))
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    told = done(app, "users", "reset", EMAIL)
    (mail,) = mails(services_of(app))
    assert mail.recipient == EMAIL
    assert mail.recipient in told
    assert mail.token not in told
    assert may_log_in(app, PASSWORD)
    services_of(app).close()


def test_a_reset_of_nobody(app: Flask) -> None:
    assert "there is no user" in refused(app, "users", "reset", EMAIL)
    done(app, "users", "create", EMAIL)
    done(app, "users", "deactivate", EMAIL)
    assert "activate it first" in refused(app, "users", "reset", EMAIL)


# -- users activate, deactivate -------------------------------------------------------------------


def test_a_deactivated_person_is_out_until_activated(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    client = browser(app)
    log_in(client, EMAIL, PASSWORD)
    for _ in range(2):  # again is no mistake
        assert done(app, "users", "deactivate", EMAIL.upper()).endswith("  inactive\n")
    assert client.get("/account").status_code == 302
    assert not may_log_in(app, PASSWORD)
    for _ in range(2):
        assert done(app, "users", "activate", EMAIL).endswith("  active\n")
    assert client.get("/account").status_code == 302, "what ended stays ended"
    assert may_log_in(app, PASSWORD)
    recorded = sql(
        services_of(app),
        "SELECT event, actor_id FROM audit_events WHERE event LIKE 'user.%activated' ORDER BY id",
    )
    assert set(recorded) == {("user.deactivated", None), ("user.activated", None)}


def test_the_last_administrator_stays_active(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--role", "admin")
    assert "last active administrator" in refused(app, "users", "deactivate", EMAIL)
    assert done(app, "users", "show", EMAIL).endswith("  active\n")
    done(app, "users", "create", "second@example.org", "--role", "admin")
    assert done(app, "users", "deactivate", EMAIL).endswith("  inactive\n")


# -- roles -----------------------------------------------------------------------------------------


def test_roles_are_created_and_listed(app: Flask) -> None:
    done(app, "roles", "create", "plain")
    helper = ("--permission", "users:write", "--permission", "users:read")
    assert done(app, "roles", "create", "helper", *helper) == "helper  users:read,users:write\n"
    everything = "users:read,users:write,roles:grant,sessions:end,audit:read"
    assert done(app, "roles", "list").splitlines() == [
        f"admin  {everything}",
        "helper  users:read,users:write",
        "plain  -",
        "user  -",
    ]
    done(app, "users", "create", EMAIL, "--role", "helper")
    assert roles(app) == "helper"
    told = done(app, "audit", "list")
    assert 'role.created  -  by -  from -  {"role":"plain","permissions":[]}' in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["admin"], "name: there is a role admin already"),
        (["User"], "name: there is a role user already"),
        (["no name"], "name: 'no name' can't be one: use 1 to 63 of"),
        ([""], "name: '' can't be one: use 1 to 63 of"),
        (["a\nb"], "name: 'a\\nb' can't be one: use 1 to 63 of"),
        (["helper", "--permission", "users:reed"], "permissions: there is no 'users:reed'; the"),
    ],
)
def test_a_role_that_can_not_be_added(app: Flask, arguments: list[str], words: str) -> None:
    assert words in refused(app, "roles", "create", *arguments)
    assert len(done(app, "roles", "list").splitlines()) == 2


def test_a_role_is_deleted_and_taken_from_all_who_hold_it(app: Flask) -> None:
    done(app, "roles", "create", "helper")
    done(app, "users", "create", EMAIL, "--role", "helper", "--role", "user")
    assert done(app, "roles", "delete", "helper") == "Deleted helper. 1 person held it.\n"
    assert roles(app) == "user"
    done(app, "roles", "create", "spare")
    assert done(app, "roles", "delete", "spare") == "Deleted spare. No people held it.\n"
    assert "there is no role 'helper'; the roles are: admin, user" in refused(
        app, "roles", "delete", "helper"
    )
    assert "The role admin is built in" in refused(app, "roles", "delete", "admin")


# -- sessions --------------------------------------------------------------------------------------

LISTED = re.compile(
    r"^([0-9a-f-]{36})  browser  (.+)  127\.0\.0\.1  seen \d{4}-\d\d-\d\d \d\d:\d\dZ$"
)


def listed(app: Flask, email: str = EMAIL) -> list[tuple[str, str]]:
    """The ids and devices that `sessions list` shows."""
    lines = done(app, "sessions", "list", email).splitlines()
    found = [LISTED.fullmatch(line) for line in lines]
    assert None not in found, lines
    return [(match[1], match[2]) for match in found if match]


def test_sessions_are_listed(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    done(app, "users", "create", "bob@example.org", "--password-stdin", stdin=OTHER_PASSWORD)
    assert listed(app) == []
    clients = [browser(app), browser(app)]
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    clients[1].environ_base["HTTP_USER_AGENT"] = agent
    for client in clients:
        log_in(client, EMAIL, PASSWORD)
    log_in(browser(app), "bob@example.org", OTHER_PASSWORD)
    newest, _ = listed(app)
    assert newest[1] == "Firefox on Linux"
    shown = done(app, "sessions", "list", EMAIL)
    for client in clients:
        assert token_of(client) not in shown
    clients[1].post("/logout")
    assert newest not in listed(app)
    assert len(listed(app)) == 1


def test_one_session_is_revoked(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    kept, gone = browser(app), browser(app)
    log_in(kept, EMAIL, PASSWORD)
    log_in(gone, EMAIL, PASSWORD)
    ((session_id, _), _) = listed(app)
    assert done(app, "sessions", "revoke", EMAIL, session_id) == "Ended 1 session.\n"
    assert kept.get("/account").status_code == 200
    answer = gone.get("/account", follow_redirects=True)
    assert "an administrator ended this session" in answer.get_data(as_text=True)
    assert done(app, "sessions", "revoke", EMAIL, session_id) == "Ended 0 sessions.\n"


def test_all_sessions_are_revoked(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    done(app, "users", "create", "bob@example.org", "--password-stdin", stdin=OTHER_PASSWORD)
    clients = [browser(app) for _ in range(3)]
    for client in clients:
        log_in(client, EMAIL, PASSWORD)
    bob = browser(app)
    log_in(bob, "bob@example.org", OTHER_PASSWORD)
    assert done(app, "sessions", "revoke", EMAIL.upper()) == "Ended 3 sessions.\n"
    assert {client.get("/account").status_code for client in clients} == {302}
    assert bob.get("/account").status_code == 200
    assert listed(app) == []
    assert done(app, "sessions", "revoke", EMAIL) == "Ended 0 sessions.\n"


@pytest.mark.parametrize("options", [["--yes"], []])
def test_the_sessions_of_everybody_are_revoked(app: Flask, options: list[str]) -> None:
    clients = []
    for email in (EMAIL, "bob@example.org"):
        done(app, "users", "create", email, "--password-stdin", stdin=PASSWORD)
        clients.append(browser(app))
        log_in(clients[-1], email, PASSWORD)
    told = done(app, "sessions", "revoke", "--all", *options)
    assert told == "Everybody is signed out.\n"
    for client in clients:
        page = client.get("/account", follow_redirects=True).get_data(as_text=True)
        assert "because everybody was" in page
    assert listed(app) == []


@pytest.mark.parametrize(("answer", "is_done"), [(b"n\n", False), (b"\x04", False), (b"y\n", True)])
def test_at_a_terminal_nobody_is_signed_out_without_a_yes(
    app: Flask, config: Config, answer: bytes, is_done: bool
) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    client = browser(app)
    log_in(client, EMAIL, PASSWORD)
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, answer)
        ended = flask_with(theirs, config, "sessions", "revoke", "--all")
    finally:
        os.close(theirs)
        os.close(terminal)
    assert "Sign everybody out" in ended.stdout
    assert ended.returncode == (0 if is_done else 1)
    assert client.get("/account").status_code == (302 if is_done else 200)


@pytest.mark.parametrize("arguments", [[], [EMAIL, "--all"]])
def test_whose_sessions_end_must_be_said_once(app: Flask, arguments: list[str]) -> None:
    result = run(app, "sessions", "revoke", *arguments, "--yes")
    assert result.exit_code == 2
    assert "use --all for everybody" in result.output


def test_who_revokes_without_redis_is_told(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_fences(app, monkeypatch)
    told = done(app, "sessions", "revoke", "--all", "--yes")
    assert told == "Everybody is signed out.\nOther instances follow within 60 seconds.\n"


def test_a_session_of_somebody_else_is_not_revoked(app: Flask) -> None:
    """A slip of the email ends nobody's session."""
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    done(app, "users", "create", "bob@example.org")
    client = browser(app)
    log_in(client, EMAIL, PASSWORD)
    ((session_id, _),) = listed(app)
    told = done(app, "sessions", "revoke", "bob@example.org", session_id)
    assert told == "Ended 0 sessions.\n"
    assert client.get("/account").status_code == 200


@pytest.mark.parametrize("command", ["list", "revoke"])
def test_sessions_of_an_unknown_user(app: Flask, command: str) -> None:
    assert "there is no user" in refused(app, "sessions", command, "nobody@example.org")


def test_a_session_id_that_is_none(app: Flask) -> None:
    done(app, "users", "create", EMAIL)
    result = run(app, "sessions", "revoke", EMAIL, "x")
    assert result.exit_code == 2
    assert "is not a valid UUID" in result.stderr


# -- audit -----------------------------------------------------------------------------------------


@pytest.fixture
def some_events(app: Flask) -> list[str]:
    """The lines of some events, newest first."""
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    done(app, "users", "create", "bob@example.org")
    log_in(browser(app), EMAIL, PASSWORD)
    attempts = services_of(app).refused_attempts
    elsewhere = browser(app)
    elsewhere.environ_base["REMOTE_ADDR"] = "2001:db8::7"
    for email in (EMAIL, "nobody@example.org"):
        log_in(elsewhere, email, OTHER_PASSWORD)
        attempts.flush()
    return done(app, "audit", "list").splitlines()


def test_events_are_listed_newest_first(app: Flask, some_events: list[str]) -> None:
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  ", line) for line in some_events)
    assert re.fullmatch(
        r'login.failed  -  by -  from 2001:db8::7  {"email_hash":"[0-9a-f]{16}"}',
        some_events[0][22:],
    )
    assert [line[22:] for line in some_events[1:]] == [
        f"login.failed  {EMAIL}  by -  from 2001:db8::7  {{}}",
        f'session.begun  {EMAIL}  by {EMAIL}  from 127.0.0.1  {{"kind":"browser"}}',
        'user.created  bob@example.org  by -  from -  {"roles":["user"]}',
        f'user.created  {EMAIL}  by -  from -  {{"roles":["user"]}}',
    ]


FILTERS: dict[tuple[str, ...], list[int]] = {
    ("--limit", "1"): [0],
    ("--user", "BOB@example.org"): [3],
    ("--user", "Nobody@example.org"): [0],
    ("--event", "login.failed"): [0, 1],
    ("--address", "2001:DB8:0::7"): [0, 1],
    ("--address", "192.0.2.1"): [],
    ("--since", "1h"): [0, 1, 2, 3, 4],
    ("--since", "2999-01-01"): [],
    ("--user", EMAIL, "--event", "login.failed", "--since", "1d"): [1],
}


@pytest.mark.parametrize("options", FILTERS, ids=" ".join)
def test_events_are_chosen(app: Flask, some_events: list[str], options: tuple[str, ...]) -> None:
    result = run(app, "audit", "list", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [some_events[number] for number in FILTERS[options]]


def test_events_for_programs(app: Flask, some_events: list[str]) -> None:
    listed = json.loads(done(app, "audit", "list", "--json"))
    assert len(listed) == len(some_events)
    assert set(listed[0]) == {"at", "event", "user", "actor", "address", "details"}
    assert listed[0]["user"] is None
    assert set(listed[0]["details"]) == {"email_hash"}
    assert listed[2]["user"] == listed[2]["actor"]
    assert set(listed[2]["user"]) == {"id", "email", "name"}
    assert json.loads(done(app, "audit", "list", "--json", "--since", "2999-01-01")) == []


def test_events_that_are_asked_for_wrongly(app: Flask) -> None:
    assert done(app, "audit", "list") == ""
    assert run(app, "audit", "list", "--limit", "0").exit_code == 2
    assert run(app, "audit", "list", "--event", "login.fialed").exit_code == 2
    assert "like 192.0.2.7" in refused(app, "audit", "list", "--address", "192.0.2")
    assert "15m, 2h, 7d" in refused(app, "audit", "list", "--since", "yesterday")
    assert "Nobody has x@example.org" in run(app, "audit", "list", "--user", "x@example.org").stderr


def test_an_address_that_is_made_up_does_nothing_to_a_terminal(app: Flask) -> None:
    done(app, "users", "create", EMAIL)
    sql(services_of(app), "UPDATE audit_events SET address = E'\\x1b[2J\\n'")
    (line,) = done(app, "audit", "list").splitlines()
    assert "from ?[2J?  " in line


# -- maintenance -----------------------------------------------------------------------------------


def test_maintenance_tells_what_it_does(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "BATCH", 2)
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    assert done(app, "maintenance") == "Nothing is left to do.\n"
    for _ in range(4):
        log_in(browser(app), EMAIL, PASSWORD)
    product = (
        "SELECT set_config('authapp.fenced', 'on', true);"  # no fences as for changes by hand
        "UPDATE sessions SET last_seen_at = last_seen_at - interval '1 day'"
    )
    sql(services_of(app), product + " WHERE id IN (SELECT id FROM sessions LIMIT 3)")
    sql(services_of(app), "UPDATE users SET name = 'Ada King'")  # by hand
    pending = services_of(app).changes.pending()
    assert pending
    assert done(app, "maintenance").splitlines() == [
        "expired sessions ended: 2",
        "expired sessions ended: 3",
        f"fences set: {pending}",
        "Nothing is left to do.",
    ]
    assert len(listed(app)) == 1
    assert done(app, "maintenance") == "Nothing is left to do.\n"


def test_maintenance_leaves_it_to_who_is_at_it(app: Flask) -> None:
    with services_of(app).maintenance.alone() as alone:
        assert alone
        assert "another instance is at it" in refused(app, "maintenance")
    assert done(app, "maintenance") == "Nothing is left to do.\n"


def test_maintenance_without_redis_does_what_it_can_and_has_not_failed(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler tells of a failure: nobody has anything to do, as instances set the fences."""
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    log_in(browser(app), EMAIL, PASSWORD)
    sql(services_of(app), "UPDATE sessions SET last_seen_at = last_seen_at - interval '1 day'")

    def away(*_args: Any, **_kwargs: Any) -> None:
        raise redis.ConnectionError("away")

    with monkeypatch.context() as outage:
        outage.setattr(AbstractConnection, "connect", away)
        outage.setattr(AbstractConnection, "send_packed_command", away)
        told = done(app, "maintenance").splitlines()
    waiting = services_of(app).changes.pending()
    assert waiting
    assert told == [
        "expired sessions ended: 1",
        f"Redis is away: {waiting} fences wait for it; running instances set them then.",
    ]


def test_maintenance_without_postgres_is_one_line(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object) -> int:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services_of(app).housekeeping, "end_expired", away)
    assert refused(app, "maintenance") == "Error: postgres could not be asked"


# -- first-admin, db -------------------------------------------------------------------------------


def test_the_first_administrator_is_made_once(app: Flask) -> None:
    told = done(app, "users", "first-admin")
    found = re.search(r"^First administrator: (\S+)\nPassword, shown only now: (\S+)$", told)
    assert found
    email, password = found.groups()
    assert roles(app, email) == "admin,user"
    client = browser(app)
    log_in(client, email, password)
    assert client.get("/admin/users").status_code == 200
    assert done(app, "users", "first-admin") == ""
    assert len(done(app, "users", "list").splitlines()) == 1


def test_there_is_no_first_administrator_where_there_is_one(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--role", "admin")
    assert done(app, "users", "first-admin") == ""


def test_upgrading_twice_is_no_mistake(app: Flask) -> None:
    for _ in range(2):
        assert done(app, "db", "upgrade") == "The database is up to date.\n"


def test_the_revision_is_told_beside_the_one_that_is_needed(app: Flask) -> None:
    told = done(app, "db", "current")
    found = re.fullmatch(
        r"The database is at revision (\d{4}); this version needs (\d{4})\.\n"
        r"Versions that need (\d{4}) or a newer revision work beside this one\.\n",
        told,
    )
    assert found
    assert found[1] == found[2] >= found[3]


# -- as a process of its own -----------------------------------------------------------------------


def flask(config: Config, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return flask_with(None, config, *arguments, **changed)


def flask_with(
    stdin: int | None, config: Config, *arguments: str, **changed: str
) -> subprocess.CompletedProcess[str]:
    environment = environment_for(config.DATABASE_URL, config.REDIS_URL)
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "auth", *arguments],
        cwd=ROOT,
        env=environment | changed,
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing: set it to"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY: each secret needs at least 32 bytes"),
        ({"DATABASE_URL": "postgresql://nobody@/x?host=/nowhere"}, "can't be reached"),
    ],
)
def test_a_start_that_fails_is_one_line(
    config: Config, changed: dict[str, str], words: str
) -> None:
    ended = flask(config, "db", "upgrade", **changed)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert words in line
    assert "short" not in line


def test_a_command_as_operators_type_it(config: Config, app: Flask) -> None:
    ended = flask(config, "users", "create", EMAIL)
    assert (ended.returncode, ended.stderr) == (0, "")
    (password,) = SHOWN_ONCE.findall(ended.stdout)
    assert is_one_time(app, password)
