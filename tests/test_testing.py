"""`authapp.testing` in the test suite of an app, run as its developer runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

APP = """
from flask import Flask, session
from authapp import Auth, current_user, login_required, roles_required

auth = Auth()


def create_app(settings):
    app = Flask(__name__)
    app.config.update(settings)
    auth.init_app(app)

    @app.get("/notes")
    @login_required
    def notes():
        return f"notes of {current_user.email}: {session.get('note', 'none')}"

    @app.post("/notes")
    @login_required
    def add():
        session["note"] = "milk"
        return ""

    @app.post("/unsavable")
    def unsavable():
        session["note"] = object()
        return ""

    @app.get("/staff")
    @roles_required("staff")
    def staff():
        return "staff"

    @app.post("/login")
    def login():
        auth.log_in("ann@example.org", "correct horse battery staple")
        return ""

    return app
"""

CONFTEST = """
import pytest
from app import create_app

pytest_plugins = ["authapp.testing"]


@pytest.fixture
def app(authapp_settings):
    return create_app(authapp_settings)
"""


def run_tests(folder: Path, tests: str, conftest: str = CONFTEST) -> str:
    """The output of a test run that may fail."""
    (folder / "app.py").write_text(APP)
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_app.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"],
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout + done.stderr


def test_the_fixtures_of_an_app(tmp_path: Path) -> None:
    shown = run_tests(
        tmp_path,
        """
import pytest


def test_people_log_in_without_a_form(auth):
    ann, bob = auth.create_user("ann@example.org"), auth.create_user("bob@example.org")
    client = auth.login_as(ann)
    assert client.get("/notes").text == "notes of ann@example.org: none"
    assert client.login_as(bob.id).get("/notes").text == "notes of bob@example.org: none"
    assert auth.client().get("/notes").status_code == 401


def test_nobody_is_left_of_the_test_before(auth, app):
    auth.create_user("ann@example.org", roles=["staff"])
    client = app.test_client()
    assert client.get("/staff").status_code == 401
    client.login_as("Ann@example.org")
    assert client.get("/staff").status_code == 200


def test_the_session_is_kept_by_the_stores(auth):
    auth.create_user("ann@example.org")
    client = auth.client()
    assert client.post("/login").status_code == 200
    client.post("/notes")
    assert client.get("/notes").text == "notes of ann@example.org: milk"


def test_unknown_people(auth):
    with pytest.raises(LookupError):
        auth.login_as("nobody@example.org")
""",
    )
    assert "4 passed" in shown, shown


def test_without_engines(tmp_path: Path) -> None:
    """As on a machine that has none: the extra is not even imported."""
    shown = run_tests(
        tmp_path,
        """
import sys
import pytest
from app import create_app
from authapp.errors import UnsavableSession
from authapp.testing import settings_without_engines, signed_in_client


@pytest.fixture
def app():
    return create_app(settings_without_engines())


def test_views(app):
    client = signed_in_client(app, "ann@example.org", roles=["staff"], data={"note": "tea"})
    for _ in range(2):
        assert client.get("/notes").text == "notes of ann@example.org: tea"
        assert client.get("/staff").status_code == 200
    client.post("/notes")
    assert client.get("/notes").text == "notes of ann@example.org: milk"
    bob = signed_in_client(app, "bob@example.org")
    assert bob.get("/notes").text == "notes of bob@example.org: none"
    bob.post("/notes")
    assert client.get("/notes").text == "notes of ann@example.org: milk"
    assert bob.get("/staff").status_code == 403
    with pytest.raises(UnsavableSession, match="note"):
        client.post("/unsavable")
    assert client.get("/notes").text == "notes of ann@example.org: milk"
    assert app.test_client().get("/notes").status_code == 401
    assert "authapp.dev.postgres" not in sys.modules
""",
    )
    assert "1 passed" in shown, shown


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_stores_of_somebody_else_are_never_emptied(tmp_path: Path, name: str) -> None:
    theirs = CONFTEST.replace(
        "create_app(authapp_settings)",
        f"create_app(authapp_settings | {{{name!r}: authapp_settings[{name!r}] + '?x'}})",
    )
    shown = run_tests(tmp_path, "def test_it(auth): pass\n", theirs)
    assert f"app.config['{name}'] is not that of the fixture authapp_settings" in shown, shown
    assert "1 error" in shown
