"""One command tree: `flask --app wsgi auth`, `flask auth` where embedded, and `authapp`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from authapp import Auth, Config
from authapp.__main__ import authapp
from authapp.cli.tree import auth
from tests.support.people import EMAIL
from tests.web.support import services_of

ROOT = Path(__file__).parents[2]
AUTHAPP = ("authapp",)
FLASK = ("flask", "--app", "wsgi")


def run(
    program: tuple[str, ...], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *program, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def settings(config: Config) -> dict[str, str]:
    """The environment of a process that uses the stores of `config`."""
    return {
        "DATABASE_URL": config.DATABASE_URL,
        "REDIS_URL": config.REDIS_URL,
        "SECRET_KEY": config.SECRET_KEY[0],
        "PASSWORD_PEPPER": config.PASSWORD_PEPPER[0],
        "BCRYPT_ROUNDS": "4",
    }


def test_the_console_script_has_every_command_of_flask_auth() -> None:
    assert auth.commands.items() <= authapp.commands.items()
    expected = {"db", "users", "roles", "sessions", "invitations", "audit", "mail", "maintenance"}
    assert {*auth.commands} == expected | {"doctor"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["users", "--help"], ["db", "current", "--help"]]
)
def test_help_needs_no_settings(arguments: list[str]) -> None:
    ended = run(AUTHAPP, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"Usage: {' '.join(['authapp', *arguments[:-1]])} ")


def test_the_console_script_names_a_missing_setting_in_one_line() -> None:
    ended = run(AUTHAPP, "users", "list")
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "is missing: set it to" in line


def test_the_console_script_does_what_flask_auth_does(settings: dict[str, str]) -> None:
    assert run(AUTHAPP, "users", "create", EMAIL, **settings).returncode == 0
    shown = [
        run(program, "users", "show", EMAIL, **settings) for program in (AUTHAPP, (*FLASK, "auth"))
    ]
    assert [(ended.returncode, ended.stderr) for ended in shown] == [(0, "")] * 2
    assert EMAIL in shown[0].stdout
    assert shown[0].stdout == shown[1].stdout


@pytest.mark.parametrize("command", ["db", "users", "doctor"])
def test_flask_has_no_command_of_ours_beside_auth(settings: dict[str, str], command: str) -> None:
    ended = run(FLASK, command, **settings)
    assert ended.returncode == 2
    assert f"No such command '{command}'" in ended.stderr


def test_an_embedding_app_has_the_commands(config: Config) -> None:
    app = Flask("notes")
    Auth(app, config)

    @app.cli.command("db")
    def migrate() -> None:
        """Flask-Migrate's."""

    try:
        runner = app.test_cli_runner()
        assert runner.invoke(args=["auth", "users", "create", EMAIL]).exit_code == 0
        assert EMAIL in runner.invoke(args=["auth", "users", "list"]).stdout
        assert runner.invoke(args=["db"]).exit_code == 0
    finally:
        services_of(app).close()


def test_each_app_has_its_own_deployment(config: Config) -> None:
    apps = [Flask("one"), Flask("other")]
    deployments = []
    for app in apps:
        Auth(app, config)
        deployments.append(app.extensions["authapp.cli"])
    try:
        assert [d.services for d in deployments] == [services_of(app) for app in apps]
    finally:
        for app in apps:
            services_of(app).close()
