"""granian refuses a bad start in one line, and serves as gunicorn does."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from authapp import dev
from authapp.serving.core_lending import CoreLending
from tests.support.databases import add_database
from tests.support.instances import free_port
from tests.support.production import (
    ECHO,
    Serving,
    connect,
    note_folders,
    refusal,
    run_to_end,
    started,
)
from tests.support.settings import environment_for
from tests.support.waiting import wait_until


@pytest.fixture
def environment(database_url: str, valkey: dev.Valkey) -> dict[str, str]:
    return environment_for(database_url, valkey.url, PORT="0")


def test_a_missing_setting_is_one_line(environment: dict[str, str]) -> None:
    del environment["DATABASE_URL"]
    (line,) = refusal("granian", environment)
    assert line.startswith("authapp: DATABASE_URL is missing: ")


def test_a_database_not_migrated_names_the_command(
    environment: dict[str, str], postgres: dev.PostgreSQL
) -> None:
    environment["DATABASE_URL"] = add_database(postgres.url, "not_migrated_for_granian")
    (line,) = refusal("granian", environment)
    assert line.startswith("authapp: ")
    assert line.endswith("run `flask --app wsgi auth db upgrade`")


def test_a_taken_port_is_one_line(environment: dict[str, str]) -> None:
    """Also one that another granian listens on."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        environment |= {"PORT": str(other.getsockname()[1])}
        (line,) = refusal("granian", environment)
    assert line.startswith(f"authapp: HOST 127.0.0.1, PORT {environment['PORT']}: ")


@contextmanager
def listening(
    environment: dict[str, str], folder: Path, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    environment["PORT"] = str(free_port())
    with started("granian", environment, folder / "log", *arguments) as process:
        connect(int(environment["PORT"])).close()
        yield process


def log_of(folder: Path) -> list[dict[str, Any]]:
    """All that it wrote, each line a JSON object."""
    return [dict(json.loads(line)) for line in (folder / "log").read_text().splitlines()]


def gone(pids: set[int]) -> bool:
    def is_gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return all(map(is_gone, pids))


# -- requests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port(
    valkey: dev.Valkey, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Where granian answers with the WSGI environment."""
    folder = tmp_path_factory.mktemp("granian")
    (folder / "echo.py").write_text(ECHO)
    environment = environment_for(database_url, valkey.url) | {
        "PYTHONPATH": str(folder),
        "HTTP_PROXY": "http://proxy.example.org",
        "CONTENT_TYPE": "text/plain",
        "SOMETHING": "of the process",
    }
    with listening(environment, folder, "echo:app"):
        yield int(environment["PORT"])


def raw(port: int, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    """Sends these lines and waits for the end of the connection; the status, 0 without, and all."""
    came = b""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        head = "\r\n".join([*lines, "Connection: close", "", ""])
        connection.sendall(head.encode("latin-1") + body)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                came += part
    return (int(came.split()[1]) if came else 0), came


def environ(port: int, *lines: str) -> dict[str, Any]:
    status, came = raw(port, *lines)
    assert status == 200, came
    found: dict[str, Any] = json.loads(came.partition(b"\r\n\r\n")[2])
    return found


GET, HOST = "GET /real HTTP/1.1", "Host: localhost"


def test_what_a_client_says_about_a_proxy_is_not_believed(port: int) -> None:
    said = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: on")
    seen = environ(port, GET, HOST, *said, "Script_Name: /false", "Path_Info: /false")
    assert (
        seen.items()
        >= {
            "wsgi.url_scheme": "http",
            "REMOTE_ADDR": "127.0.0.1",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/real",
            "SERVER_PORT": str(port),
            "wsgi.multiprocess": True,
        }.items()
    )


def test_nothing_of_the_process_is_taken_for_the_requests(port: int) -> None:
    seen = environ(port, GET, HOST)
    assert not seen.keys() & {"HTTP_PROXY", "CONTENT_TYPE", "SOMETHING", "SECRET_KEY", "PATH"}
    assert environ(port, GET, HOST, "Proxy: sent")["HTTP_PROXY"] == "sent"


def test_paths_are_decoded_as_wsgi_has_it(port: int) -> None:
    seen = environ(port, "GET /%C3%A9%2F%ff//..?0&%20 HTTP/1.1", HOST)
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/\u00c3\u00a9/\u00ff//..", "0&%20")
    assert environ(port, "GET http://a.example/p HTTP/1.1", HOST)["PATH_INFO"] == "/p"


def test_what_goes_out_is_bytes_as_latin_1(port: int) -> None:
    assert b"\r\nx-name: Ad\xc3\xa9\r\n" in raw(port, GET, HOST)[1]


def test_an_answer_to_head_has_no_body(port: int) -> None:
    status, came = raw(port, "HEAD / HTTP/1.1", HOST)
    assert status == 200
    assert came.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in came


REFUSED = {
    "a chunked body": (411, ["POST / HTTP/1.1", HOST, "Transfer-Encoding: chunked"]),
    "another coding": (400, ["POST / HTTP/1.1", HOST, "Transfer-Encoding: gzip"]),
    "two lengths": (400, [GET, HOST, "Content-Length: 0", "Content-Length: 1"]),
    "two hosts": (400, [GET, HOST, "Host: evil.example"]),
    "a long target": (414, [f"GET /{'a' * 9_000} HTTP/1.1", HOST]),
    "many headers": (431, [GET, HOST, *(f"X-{n}: 1" for n in range(100))]),
    "a large head": (431, [GET, HOST, f"X-A: {'a' * 100_000}"]),
    "an address that can't be read": (400, [GET, HOST, "X-Forwarded-For: \xff, 203.0.113.9"]),
    "one behind that of the client": (
        400,
        [GET, HOST, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: \xff, 203.0.113.9"],
    ),
    "HTTP/2": (0, ["PRI * HTTP/2.0", "", "SM", ""]),
}


@pytest.mark.parametrize(("status", "lines"), REFUSED.values(), ids=REFUSED)
def test_refused(port: int, status: int, lines: list[str]) -> None:
    assert raw(port, *lines)[0] == status


def test_what_is_as_large_as_allowed_is_served(port: int) -> None:
    headers = (f"X-{n}: 1" for n in range(90))
    large = f"Cookie: {'a' * 16_300}"
    assert raw(port, f"GET /{'a' * 8_000} HTTP/1.1", HOST, large, *headers)[0] == 200


# -- workers ---------------------------------------------------------------------------------------

NOTING = """
answer = app
def app(environ, start_response):
    with open(__file__ + ".begun", "a") as begun:
        begun.write(environ["QUERY_STRING"] + "\\n")
    return answer(environ, start_response)
"""


def test_what_is_in_flight_is_answered_at_a_stop_and_nothing_waits_for_ever(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "echo.py").write_text(ECHO + NOTING)
    begun = tmp_path / "echo.py.begun"
    noted = note_folders(environment, tmp_path)
    with listening(environment, tmp_path, "--graceful-timeout", "2", "echo:app") as process:
        port = int(environment["PORT"])
        assert raw(port, GET, HOST)[0] == 200
        workers = Serving(port, process, tmp_path).workers()
        slow: list[int] = []
        asked = Thread(target=lambda: slow.append(raw(port, "GET /?1 HTTP/1.1", HOST)[0]))
        asked.start()
        with closing(connect(port)) as hanging, closing(connect(port)) as idle:
            hanging.request("GET", "/?60")
            idle.request("GET", "/")
            idle.getresponse().read()
            wait_until(lambda: {"1", "60"} <= set(begun.read_text().split()))
            process.terminate()
            began = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - began > 0.4, "it waited"
        asked.join()
        assert slow == [200]
        assert gone(workers)
        (folder,) = noted.read_text().split()
        assert not Path(folder).exists()
    assert "Started worker-1" in {line["event"] for line in log_of(tmp_path)}


def test_killed_workers_are_replaced_and_end_with_a_master_that_is_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    environment["PYTHONPATH"] = str(tmp_path)
    with listening(environment, tmp_path, "echo:app") as process:
        port = int(environment["PORT"])
        serving = Serving(port, process, tmp_path)
        for _ in range(2):  # at once: granian would take that for one that can't start
            assert raw(port, GET, HOST)[0] == 200
            workers = serving.workers()
            os.kill(min(workers), signal.SIGKILL)
            wait_until(lambda: bool(serving.workers() - workers))  # noqa: B023 - called here
        assert raw(port, GET, HOST)[0] == 200
        workers = serving.workers()
        process.kill()
        process.wait()
        wait_until(lambda: gone(workers))


def test_an_application_that_can_not_be_loaded_ends_all(environment: dict[str, str]) -> None:
    ended = run_to_end("granian", environment, "nowhere:app")
    assert ended.returncode == 1
    assert "No module named 'nowhere'" in ended.stderr


@pytest.fixture
def serving(environment: dict[str, str], tmp_path: Path) -> Iterator[Serving]:
    """Without Redis, so that there is something to see."""
    environment["WEB_CONCURRENCY"] = "2"
    environment["REDIS_URL"] = f"unix://{tmp_path}/nobody-listens"
    noted = note_folders(environment, tmp_path)
    with listening(environment, tmp_path) as process:
        yield Serving(int(environment["PORT"]), process, noted)


def test_metrics_are_those_of_all_workers(serving: Serving) -> None:
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

    old = serving.workers()
    os.kill(serving.process.pid, signal.SIGHUP)  # as they are replaced once a day
    wait_until(lambda: len(serving.workers()) == 2 and not serving.workers() & old)
    wait_until(lambda: serving.healthy() == asked)
    assert serving.value("authapp_breaker_open", store="redis") == 0
    assert len(list(folder.glob("worker*.lock"))) == 3, "one more than workers, while they overlap"
