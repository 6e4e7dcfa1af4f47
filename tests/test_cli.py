"""`flask --app wsgi …`: what operators do, and the one line they get when it can't be done."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from authapp import Config, create_app

from .helpers import EMAIL, OTHER_PASSWORD, PASSWORD
from .web.support import browser, log_in, services_of

ROOT = Path(__file__).parents[1]
SHOWN_ONCE = re.compile(r"^Password, shown only now: (\S{20,})$", re.MULTILINE)


@pytest.fixture
def app(config: Config) -> Flask:
    return create_app(config)


def run(app: Flask, *arguments: str, stdin: str = "") -> Result:
    return app.test_cli_runner().invoke(args=arguments, input=stdin)


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


def may_log_in(app: Flask, password: str, email: str = EMAIL) -> bool:
    return log_in(browser(app), email, password).status_code == 303


def roles(app: Flask, email: str = EMAIL) -> str:
    """The roles that `users show` tells."""
    return done(app, "users", "show", email).split()[-2]


# -- users create ----------------------------------------------------------------------------------


def test_a_user_with_a_generated_password_can_log_in(app: Flask) -> None:
    told = done(app, "users", "create", EMAIL, "--name", "Ada King")
    (password,) = SHOWN_ONCE.findall(told)
    assert f"Created {EMAIL}." in told
    assert may_log_in(app, password)
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


# -- users list, show, grant, revoke, set-password -------------------------------------------------


def test_all_users_are_listed_newest_first(app: Flask) -> None:
    for number in range(3):
        done(app, "users", "create", f"p{number}@example.org")
    found = [line.split()[1] for line in done(app, "users", "list").splitlines()]
    assert found == ["p2@example.org", "p1@example.org", "p0@example.org"]


def test_many_users_are_listed_once_each(app: Flask) -> None:
    with services_of(app).database.transaction() as db:
        db.connection().exec_driver_sql(
            "INSERT INTO users (id, email, email_canonical, password_hash, created_at, updated_at)"
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
    assert may_log_in(app, password)


def test_a_weak_password_is_not_set(app: Flask) -> None:
    done(app, "users", "create", EMAIL, "--password-stdin", stdin=PASSWORD)
    line = refused(app, "users", "set-password", EMAIL, "--password-stdin", stdin="short")
    assert "password: use at least 15 characters" in line
    assert may_log_in(app, PASSWORD)


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


# -- as a process of its own -----------------------------------------------------------------------


def flask(config: Config, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    names = ("DATABASE_URL", "REDIS_URL")
    environment = {name: str(getattr(config, name)) for name in names}
    environment |= {"SECRET_KEY": config.SECRET_KEY[0], "BCRYPT_ROUNDS": "4"}
    environment |= {"PASSWORD_PEPPER": config.PASSWORD_PEPPER[0], "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
        cwd=ROOT,
        env=environment | changed,
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
    assert may_log_in(app, password)
