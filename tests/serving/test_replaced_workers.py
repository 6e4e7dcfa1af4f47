"""A server goes on when a worker that replaces another can't start, and tries until one can."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authapp import dev
from tests.support.instances import SERVERS, free_port
from tests.support.production import Serving, connect, started
from tests.support.settings import environment_for
from tests.support.waiting import wait_until

APP = """
import os
if os.path.exists("{folder}/no-app"):
    raise OSError("no app")
with open("{folder}/started", "a") as started:
    started.write("x")
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""

# the system has no process to give
LIMITED = """
import os
fork = os.fork
def fork_if_possible():
    if os.path.exists("{folder}/no-process"):
        raise BlockingIOError("no process")
    return fork()
os.fork = fork_if_possible
"""

GRANIAN = """
import sys
from authapp.serving import granian
granian._STARTED, granian._PAUSE, granian._RETRY = 0.1, 0.1, 0.1
granian.main(sys.argv[1:])
"""


@pytest.fixture(params=["gunicorn", "granian"])
def serving(
    request: pytest.FixtureRequest,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Serving]:
    monkeypatch.setitem(SERVERS, "granian", (sys.executable, "-c", GRANIAN))
    (tmp_path / "simple.py").write_text(APP.format(folder=tmp_path))
    configuration = tmp_path / "gunicorn.conf.py"
    configuration.write_text("from authapp.serving.gunicorn import *")
    (tmp_path / "sitecustomize.py").write_text(LIMITED.format(folder=tmp_path))
    port = free_port()
    environment = environment_for(
        database_url,
        valkey.url,
        WEB_CONCURRENCY="2",
        PORT=str(port),
        PYTHONPATH=str(tmp_path),
        GUNICORN_CMD_ARGS=f"--config {configuration}",
    )
    with started(request.param, environment, tmp_path / "log", "simple:app") as process:
        wait_until(lambda: have_started(tmp_path, 2))
        yield Serving(port, process, tmp_path)


def have_started(folder: Path, workers: int) -> bool:
    return (folder / "started").exists() and len((folder / "started").read_text()) == workers


def test_a_worker_that_can_not_start_is_tried_again_and_the_others_go_on(
    serving: Serving, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    lacks = {"no-app": "OSError: no app", "no-process": "can't be started now"}
    for workers, (lack, told) in enumerate(lacks.items(), 3):
        (tmp_path / lack).touch()
        os.kill(min(serving.workers()), signal.SIGKILL)
        wait_until(lambda: told in log.read_text(), log.read_text)  # noqa: B023
        with closing(connect(serving.port)) as connection:
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
        (tmp_path / lack).unlink()
        wait_until(lambda: have_started(tmp_path, workers), log.read_text)  # noqa: B023

    # a reload, of which gunicorn can't read the configuration
    (tmp_path / "gunicorn.conf.py").unlink()
    os.kill(serving.process.pid, signal.SIGHUP)
    wait_until(lambda: have_started(tmp_path, 6), log.read_text)
    serving.get("/")
