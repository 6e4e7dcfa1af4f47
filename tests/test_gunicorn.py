"""The production start: `gunicorn wsgi:app` refuses in one line and believes no proxy."""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authapp import embedded

from .databases import add_database

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
    environment["DATABASE_URL"] = add_database(postgres.url, "not_migrated")
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


# -- metrics of all workers ------------------------------------------------------------------------


class Serving:
    """A running gunicorn with two workers.

    Attributes:
        folders: all that it made for what its workers count.
    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", noted: Path) -> None:
        self.port, self.process, self._noted = port, process, noted

    @property
    def folders(self) -> list[Path]:
        return noted_folders(self._noted)

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def get(self, path: str) -> bytes:
        with closing(connect(self.port)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def value(self, name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").decode())
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        ]
        assert len(found) < 2, "one series of all workers"
        return found[0] if found else 0.0

    def healthy(self) -> float:
        return self.value("authapp_requests_total", method="GET", route="/healthz", status="200")

    def replace_a_worker(self, number: signal.Signals) -> int:
        """How often it asked for `/healthz`."""
        before, asked = self.workers(), 0
        assert self.value("authapp_breaker_open", store="redis") == 2
        os.kill(min(before), number)
        self.await_true(lambda: len(self.workers()) == 2 and self.workers() != before)
        self.await_true(lambda: self.value("authapp_breaker_open", store="redis") == 1)

        def both_answered() -> bool:
            nonlocal asked
            asked += 1
            self.get("/healthz")
            self.get("/readyz")
            return self.value("authapp_breaker_open", store="redis") == 2

        self.await_true(both_answered)
        return asked

    def await_true(self, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 30
        while not done():
            assert time.monotonic() < give_up
            time.sleep(0.1)


def note_folders(environment: dict[str, str], tmp_path: Path) -> Path:
    """Has Python write down which temporary folders it makes."""
    noted = tmp_path / "folders"
    noted.touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\n"
        "make = tempfile.mkdtemp\n"
        "def noting(*args, **kwargs):\n"
        "    made = make(*args, **kwargs)\n"
        f"    open({str(noted)!r}, 'a').write(made + '\\n')\n"
        "    return made\n"
        "tempfile.mkdtemp = noting\n"
    )
    environment["PYTHONPATH"] = str(tmp_path)
    return noted


def noted_folders(noted: Path) -> list[Path]:
    return [Path(line) for line in noted.read_text().splitlines() if "authapp-metrics." in line]


@pytest.fixture
def serving(environment: dict[str, str], database_url: str, tmp_path: Path) -> Iterator[Serving]:
    """Without Redis, so that there is something to see."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment |= {"DATABASE_URL": database_url, "PORT": str(port), "WEB_CONCURRENCY": "2"}
    environment["REDIS_URL"] = f"unix://{tmp_path}/nobody-listens"
    noted = note_folders(environment, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield Serving(port, process, noted)
        finally:
            process.terminate()
            process.wait(20)


def test_metrics_are_those_of_all_workers(serving: Serving, environment: dict[str, str]) -> None:
    (folder,) = serving.folders if serving.get("/healthz") else []
    asked = 1

    def both_answered() -> bool:
        nonlocal asked
        asked += 1
        serving.get("/healthz")
        serving.get("/readyz")  # asks Redis, in vain: five times, and its breaker opens
        return serving.value("authapp_breaker_open", store="redis") == 2

    serving.await_true(both_answered)
    assert {serving.healthy() for _ in range(10)} == {asked}, "whoever is asked"

    files = {path.name for path in folder.iterdir()}
    asked += serving.replace_a_worker(signal.SIGKILL)
    assert serving.healthy() == asked, "what it did stays counted"
    assert {path.name for path in folder.iterdir()} == files, "nor are there ever more files"

    os.kill(serving.process.pid, signal.SIGTTOU)  # a worker less
    serving.await_true(lambda: len(serving.workers()) == 1)
    serving.await_true(lambda: serving.value("authapp_breaker_open", store="redis") == 1)
    assert serving.healthy() == asked
    os.kill(serving.process.pid, signal.SIGTTIN)
    serving.await_true(lambda: len(serving.workers()) == 2)

    os.kill(serving.process.pid, signal.SIGHUP)  # a reload
    old = serving.workers()
    serving.await_true(lambda: len(serving.workers()) == 2 and not serving.workers() & old)
    assert serving.healthy() == asked
    assert serving.folders == [folder], "it keeps the folder it has"

    os.utime(folder, (0, 0))
    refusal(environment | {"SECRET_KEY": "", "PYTHONPATH": ""})  # another, which cleans up first
    assert folder.exists(), "somebody holds it"

    serving.process.terminate()
    assert serving.process.wait(20) == 0
    assert not folder.exists()


def test_a_start_that_is_refused_leaves_no_folder_nor_those_of_who_was_killed(
    environment: dict[str, str], tmp_path: Path, postgres: embedded.PostgreSQL
) -> None:
    noted = note_folders(environment, tmp_path)
    refusal(environment)  # DATABASE_URL is missing
    (made,) = noted_folders(noted)
    left, new = (made.with_name(made.name + more) for more in ("-left", "-new"))
    try:
        for folder in (left, new):
            folder.mkdir()
            (folder / "counter_1.db").touch()
        os.utime(left, (0, 0))
        environment["DATABASE_URL"] = f"postgresql://nobody@/authapp?host={tmp_path}"
        refusal(environment)  # nobody listens there
        assert not left.exists()
        assert new.exists(), "perhaps somebody is just about to lock it"
    finally:
        for folder in (left, new):
            shutil.rmtree(folder, ignore_errors=True)
    folders = noted_folders(noted)
    assert len(folders) == 2
    assert not [folder for folder in folders if folder.exists()]


@pytest.mark.parametrize("start", ['runpy.run_path("gunicorn.conf.py")', "import wsgi"])
def test_after_a_start_garbage_is_collected(environment: dict[str, str], start: str) -> None:
    """What the start made aside, which is not looked at again."""
    environment["DATABASE_URL"] = "postgresql://db.example.org/authapp"
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import gc, runpy; {start}; print(gc.isenabled(), gc.get_freeze_count() > 10_000)",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == "True True\n"
