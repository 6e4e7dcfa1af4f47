"""The production start: `gunicorn wsgi:app` refuses in one line and believes no proxy."""

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from authapp import embedded

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(valkey: embedded.Valkey) -> dict[str, str]:
    """All that must be set, but for DATABASE_URL."""
    return {
        "PATH": os.environ["PATH"],
        "REDIS_URL": valkey.url,
        "SECRET_KEY": secrets.token_urlsafe(48),
        "PASSWORD_PEPPER": secrets.token_urlsafe(48),
        "WEB_CONCURRENCY": "1",
        "PORT": "0",
    }


def refusal(environment: dict[str, str]) -> list[str]:
    """What gunicorn says, its own announcement aside, when it does not start."""
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    return [line for line in ended.stderr.splitlines() if "Starting gunicorn" not in line]


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY", "PASSWORD_PEPPER"])
def test_a_missing_setting_is_one_line(environment: dict[str, str], name: str) -> None:
    environment["DATABASE_URL"] = "postgresql://db.example.org/authapp"
    del environment[name]
    (line,) = refusal(environment)
    assert line.startswith(f"authapp: {name} is missing: ")


def test_a_database_not_migrated_names_the_command(
    environment: dict[str, str], postgres: embedded.PostgreSQL
) -> None:
    with closing(psycopg2.connect(postgres.url)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE not_migrated")
    place = urlsplit(postgres.url)._replace(path="/not_migrated")
    environment["DATABASE_URL"] = place.geturl()
    (line,) = refusal(environment)
    assert line.startswith("authapp: ")
    assert line.endswith("run `flask --app wsgi db upgrade`")


def test_a_database_out_of_reach_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    environment["DATABASE_URL"] = f"postgresql://nobody@/authapp?host={tmp_path}"
    (line,) = refusal(environment)
    assert line.startswith("authapp: DATABASE_URL: ")


def test_what_a_client_says_about_a_proxy_is_not_believed(
    environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "echo.py").write_text(
        "import json\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    names = 'wsgi.url_scheme', 'REMOTE_ADDR', 'SCRIPT_NAME', 'PATH_INFO'\n"
        "    return [json.dumps({name: environ[name] for name in names}).encode()]\n"
    )
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment |= {"DATABASE_URL": database_url, "PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--pythonpath", str(tmp_path), "echo:app"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            with closing(connect(port)) as connection:
                connection.putrequest("GET", "/real")
                for header, value in {
                    "X-Forwarded-For": "203.0.113.9",
                    "X-Forwarded-Proto": "https",
                    "X-Forwarded-Ssl": "on",
                    "Script_Name": "/false",
                    "Path_Info": "/false",
                }.items():
                    connection.putheader(header, value)
                connection.endheaders()
                seen = json.load(connection.getresponse())
        finally:
            server.terminate()
    assert seen == {
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/real",
    }


def connect(port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 60
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while time.monotonic() < deadline:
        with suppress(ConnectionRefusedError):
            connection.connect()
            return connection
        time.sleep(0.05)
    raise AssertionError("gunicorn does not listen")
