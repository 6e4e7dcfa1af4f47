"""The production start: `gunicorn wsgi:app` refuses in one line and believes no proxy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authapp import dev
from authapp.serving.core_lending import CoreLending
from tests.support.databases import add_database
from tests.support.instances import ROOT, free_port
from tests.support.production import (
    ECHO,
    Serving,
    connect,
    note_folders,
    noted_folders,
    refusal,
    run_to_end,
    started,
)
from tests.support.settings import environment_for
from tests.support.waiting import wait_until


@pytest.fixture
def environment(database_url: str, valkey: dev.Valkey) -> dict[str, str]:
    return environment_for(database_url, valkey.url, PORT="0")


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY", "PASSWORD_PEPPER"])
def test_a_missing_setting_is_one_line(environment: dict[str, str], name: str) -> None:
    del environment[name]
    (line,) = refusal("gunicorn", environment)
    assert line.startswith(f"authapp: {name} is missing: ")


def test_a_database_not_migrated_names_the_command(
    environment: dict[str, str], postgres: dev.PostgreSQL
) -> None:
    environment["DATABASE_URL"] = add_database(postgres.url, "not_migrated")
    (line,) = refusal("gunicorn", environment)
    assert line.startswith("authapp: ")
    assert line.endswith("run `flask --app wsgi auth db upgrade`")


def test_a_database_out_of_reach_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    environment["DATABASE_URL"] = f"postgresql://nobody@/authapp?host={tmp_path}"
    (line,) = refusal("gunicorn", environment)
    assert line.startswith("authapp: DATABASE_URL: ")


def test_a_setting_that_is_read_by_the_workers_is_refused_too(environment: dict[str, str]) -> None:
    environment |= {"PORT": str(free_port()), "GUARD_RULES": "/nowhere/rules"}
    ended = run_to_end("gunicorn", environment)
    assert ended.returncode == 3
    assert "\nauthapp: GUARD_RULES: /nowhere/rules: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_a_client_says_about_a_proxy_is_not_believed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    port = free_port()
    environment["PORT"] = str(port)
    headers = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "on",
        "Script_Name": "/false",
        "Path_Info": "/false",
    }
    arguments = ("--pythonpath", str(tmp_path), "echo:app")
    with (
        started("gunicorn", environment, tmp_path / "log", *arguments),
        closing(connect(port)) as connection,
    ):
        connection.request("GET", "/real", headers=headers)
        seen = json.load(connection.getresponse())
    assert (
        seen.items()
        >= {
            "wsgi.url_scheme": "http",
            "REMOTE_ADDR": "127.0.0.1",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/real",
        }.items()
    )


# -- metrics of all workers ------------------------------------------------------------------------


@pytest.fixture
def serving(environment: dict[str, str], tmp_path: Path) -> Iterator[Serving]:
    """Without Redis, so that there is something to see."""
    port = free_port()
    environment |= {"PORT": str(port), "WEB_CONCURRENCY": "2"}
    environment["REDIS_URL"] = f"unix://{tmp_path}/nobody-listens"
    noted = note_folders(environment, tmp_path)
    with started("gunicorn", environment, tmp_path / "log") as process:
        yield Serving(port, process, noted)


def test_metrics_are_those_of_all_workers(serving: Serving, environment: dict[str, str]) -> None:
    (folder,) = serving.folders if serving.get("/healthz") else []
    asked = 1 + serving.ask_both()
    # a worker tells the others a moment later what it counted
    wait_until(lambda: {serving.healthy() for _ in range(10)} == {asked})

    onlooker = CoreLending(folder, "onlooker")
    assert onlooker.others() == [0, 0], "they see each other's log-ins"

    files = {path.name for path in folder.iterdir()}
    asked += serving.replace_a_worker(signal.SIGKILL)
    wait_until(lambda: serving.healthy() == asked)  # what it did stays counted
    assert {path.name for path in folder.iterdir()} == files, "nor are there ever more files"

    os.kill(serving.process.pid, signal.SIGTTOU)  # a worker less
    wait_until(lambda: len(serving.workers()) == 1)
    assert onlooker.others() == [0]
    wait_until(lambda: serving.value("authapp_breaker_open", store="redis") == 1)
    wait_until(lambda: serving.healthy() == asked)
    os.kill(serving.process.pid, signal.SIGTTIN)
    wait_until(lambda: len(serving.workers()) == 2)

    old = serving.workers()
    os.kill(serving.process.pid, signal.SIGHUP)  # a reload
    wait_until(lambda: len(serving.workers()) == 2 and not serving.workers() & old)
    wait_until(lambda: serving.healthy() == asked)
    assert serving.folders == [folder], "it keeps the folder it has"

    shutil.rmtree(folder)  # by a tool that tidies up
    old = serving.workers()
    os.kill(min(old), signal.SIGKILL)
    wait_until(lambda: len(serving.workers() - old) == 1)
    wait_until(lambda: serving.healthy() > 0 or not serving.get("/healthz"), pause=0.1)

    os.utime(folder, (0, 0))
    refusal(
        "gunicorn", environment | {"SECRET_KEY": "", "PYTHONPATH": ""}
    )  # another, which cleans up first
    assert folder.exists(), "somebody holds it"

    serving.process.terminate()
    assert serving.process.wait(20) == 0
    assert not folder.exists()


def test_a_start_that_is_refused_leaves_no_folder_nor_those_of_who_was_killed(
    environment: dict[str, str], tmp_path: Path, postgres: dev.PostgreSQL
) -> None:
    noted = note_folders(environment, tmp_path)
    del environment["DATABASE_URL"]
    refusal("gunicorn", environment)
    (made,) = noted_folders(noted)
    left, new = (made.with_name(made.name + more) for more in ("-left", "-new"))
    try:
        for folder in (left, new):
            folder.mkdir()
            (folder / "counter_1.db").touch()
        os.utime(left, (0, 0))
        environment["DATABASE_URL"] = f"postgresql://nobody@/authapp?host={tmp_path}"
        refusal("gunicorn", environment)  # nobody listens there
        assert not left.exists()
        assert new.exists(), "perhaps somebody is just about to lock it"
    finally:
        for folder in (left, new):
            shutil.rmtree(folder, ignore_errors=True)
    folders = noted_folders(noted)
    assert len(folders) == 2
    assert not [folder for folder in folders if folder.exists()]


def test_after_a_start_garbage_is_collected(environment: dict[str, str]) -> None:
    """The objects made at the start are exempt: the collector does not look at them again."""
    environment["DATABASE_URL"] = "postgresql://db.example.org/authapp"
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import gc, wsgi; print(gc.isenabled(), gc.get_freeze_count() > 10_000)",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == "True True\n"
