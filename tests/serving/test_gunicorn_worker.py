"""A worker of gunicorn that keeps connections without waking its loop for each request."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Barrier, Event, Lock, Thread

import pytest

from authapp.dev import child_processes
from authapp.serving.request_threads import Threads
from tests.support.waiting import wait_until

THREADS = 2
ECHO = """
import sys
import tempfile

opened = []

def app(environ, start):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path == "/open":
        try:
            while True:
                opened.append(open("/dev/null"))
        except OSError:
            pass
    if path == "/exit":
        sys.exit("an app that ends the process")
    read = environ["wsgi.input"].read() if path == "/read" else b""
    body = f"{method} {path} ".encode() + read
    if path.startswith("/long/"):
        body += b"x" * int(path.rpartition("/")[2])
    if path.startswith("/file/"):
        file = tempfile.TemporaryFile()
        file.write(body + b"x" * int(path.rpartition("/")[2]))
        length = file.tell()
        file.seek(0)
        start("200 OK", [("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file)
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@contextmanager
def echoing(
    folder: Path, keepalive: int, *more: str, files: int = 1024
) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """An app with one worker; its port and its process.

    Args:
        more: arguments.
        files: how many each process may open.
    """
    (folder / "echo.py").write_text(ECHO)
    words = {
        "--config": "/dev/null",
        "--worker-class": "authapp.serving.gunicorn_worker.BufferingWorker",
        "--threads": str(THREADS),
        "--keep-alive": str(keepalive),
        "--graceful-timeout": "20",
        "--pythonpath": str(folder),
    }
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        # connections inherit it: not much of an answer is sent before the client takes it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        with child_processes.signals_held() as mask, (folder / "log").open("wb") as log:
            process = child_processes.start_child(
                [
                    *("/bin/sh", "-c", f'ulimit -n {files} && exec "$0" "$@"'),
                    *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{descriptor}"),
                    *(word for pair in words.items() for word in pair),
                    *more,
                    "echo:app",
                ],
                mask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
            )
    try:
        yield port, process
    finally:
        child_processes.end_child(process, ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with echoing(tmp_path_factory.mktemp("echo"), keepalive=60) as (found, _):
        yield found


def connect(port: int, seconds: float = 30) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    connection.connect()
    return connection


def ask(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> str | None:
    """The body, if the answer keeps the connection open."""
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    return None if answer.will_close else body


def test_a_connection_serves_all_kinds_of_requests_in_turn(port: int) -> None:
    with closing(connect(port)) as connection:
        for number in range(3):
            assert ask(connection, f"/{number}") == f"GET /{number} "
            for path, read in (("/read", "abc"), ("/unread", "")):
                for body in (b"abc", iter([b"a", b"bc"])):  # the latter in chunks
                    connection.request("POST", path, body)
                    assert connection.getresponse().read().decode() == f"POST {path} {read}"
            assert ask(connection, "/head", "HEAD") == ""


def test_requests_that_arrive_together_are_answered_in_order(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        for _ in range(2):
            paths = [f"/{number}" for number in range(5)]
            requests = (f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n" for path in paths)
            connection.sendall("".join(requests).encode())
            answer = b""
            while answer.count(b"GET /") < len(paths) or not answer.endswith(b"/4 "):
                more = connection.recv(65_536)
                assert more, answer
                answer += more
            found = [part.partition(b" ")[0].decode() for part in answer.split(b"GET ")[1:]]
            assert found == paths


def test_more_connections_than_threads_are_served(port: int) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(port))) for _ in range(10 * THREADS)]
        for number in range(3):
            for connection in connections:
                connection.request("GET", f"/{number}")
            for connection in connections:
                assert connection.getresponse().read() == f"GET /{number} ".encode()


def test_an_app_that_ends_the_process_is_served_by_another_one(port: int) -> None:
    # a process whose threads keep it is killed after 30 seconds
    with closing(connect(port, 15)) as connection, pytest.raises(ConnectionError):
        ask(connection, "/exit")

    def is_served() -> bool:
        with closing(connect(port, 5)) as other:
            return ask(other, "/") == "GET / "

    wait_until(is_served, ignoring=(OSError, http.client.HTTPException))


def test_idle_connections_are_closed_in_time(tmp_path: Path) -> None:
    with echoing(tmp_path, keepalive=1) as (port, _):
        for _ in range(2):  # the second has the descriptor of the first
            with closing(connect(port)) as idle:
                began = time.monotonic()
                assert ask(idle, "/") == "GET / "
                assert idle.sock.recv(1) == b""
                assert time.monotonic() - began > 0.8


def test_idle_connections_do_not_use_up_the_time_for_a_stop(tmp_path: Path) -> None:
    with (
        echoing(tmp_path, keepalive=60) as (port, process),
        closing(connect(port)),
        closing(connect(port)) as idle,
    ):
        assert ask(idle, "/") == "GET / "
        process.terminate()
        assert process.wait(15) == 0


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: h", *headers, "", "")).encode()


def is_served(port: int) -> bool:
    with closing(connect(port, 5)) as connection:
        connection.request("GET", "/other")
        return connection.getresponse().read() == b"GET /other "


def split(answers: bytes) -> list[bytes]:
    return answers.split(b"HTTP/1.1 200 OK\r\n")[1:]


def connect_slowly(port: int) -> socket.socket:
    """A client that takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


@pytest.mark.parametrize("length", [300_000, 3_000_000])  # it is kept, and waited for
@pytest.mark.parametrize("kind", ["long", "file"])
def test_who_takes_an_answer_slowly_gets_all_of_it_and_holds_up_nobody(
    port: int, kind: str, length: int
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect_slowly(port))) for _ in range(2 * THREADS)]
        for connection in slow if length < 1_000_000 else slow[:1]:
            connection.sendall(request(f"/{kind}/{length}") + request("/next", "Connection: close"))
        time.sleep(0.2)
        assert is_served(port)
        with slow[0].makefile("rb") as taken:
            first, second = (part.partition(b"\r\n\r\n")[2] for part in split(taken.read()))
        assert first == f"GET /{kind}/{length} ".encode() + b"x" * length
        assert second == b"GET /next "


def test_the_rest_of_an_answer_waits_for_no_other_request(port: int) -> None:
    length = 300_000
    with closing(connect_slowly(port)) as slow:
        slow.settimeout(10)
        for _ in range(2):
            slow.sendall(request(f"/long/{length}"))
            time.sleep(0.1)
            taken = b""
            while len(taken.partition(b"\r\n\r\n")[2]) < len(f"GET /long/{length} ") + length:
                taken += slow.recv(65_536)


def worker_of(process: "subprocess.Popen[bytes]") -> str:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (found,) = wait_until(lambda: children.read_text().split(), "it has no worker")
    return found


def test_with_no_descriptor_left_it_serves_on(tmp_path: Path) -> None:
    with echoing(tmp_path, 60, files=200) as (port, process), ExitStack() as stack:
        worker = worker_of(process)
        for sent in (b"", request("/", "Connection: close"), request("/"), request("/")[:9]):
            for _ in range(60):
                connection = stack.enter_context(closing(connect(port, 5)))
                connection.sock.sendall(sent)
            assert is_served(port)
        stack.close()
        for _ in range(3):
            stack.enter_context(closing(connect(port, 5)))
        for path in ("/open", "/", "/"):  # one that has sent nothing is let go for each of these
            connection = stack.enter_context(closing(connect(port, 5)))
            assert ask(connection, path) == f"GET {path} "
        assert worker_of(process) == worker


def assert_forgets_who_is_gone(port: int, files: Path) -> None:
    with closing(connect_slowly(port)) as slow:
        slow.sendall(request("/long/300000"))
        assert slow.recv(1)
        held = len([*files.iterdir()])
    wait_until(lambda: len([*files.iterdir()]) < held, "it is kept")


def test_there_is_room_for_as_many_connections_as_files_may_be_open(tmp_path: Path) -> None:
    """And the system is asked for as many files as connections may need. One whose client is gone
    is closed."""
    for files, allowed in ((200, 200), (4_000, 2 * 1_000 + 128)):
        (tmp_path / str(files)).mkdir()
        with echoing(tmp_path / str(files), 60, files=files) as (port, process):
            assert is_served(port)
            assert_forgets_who_is_gone(port, Path(f"/proc/{worker_of(process)}/fd"))
            limits = Path(f"/proc/{worker_of(process)}/limits").read_text()
            (line,) = (one for one in limits.splitlines() if one.startswith("Max open files"))
            assert line.split()[3] in {str(allowed), str(files)}


def test_of_slow_clients_those_go_first_that_have_sent_nothing(tmp_path: Path) -> None:
    with (
        echoing(tmp_path, 60, "--worker-connections", "10") as (port, _),
        closing(connect(port)) as half,
        ExitStack() as stack,
    ):
        assert is_served(port)
        half.sock.sendall(request("/half")[:-2])
        for _ in range(20):
            stack.enter_context(closing(connect(port)))
            time.sleep(0.01)
        assert is_served(port)
        half.sock.sendall(b"\r\n")
        assert half.sock.recv(1_000).startswith(b"HTTP/1.1 200 ")


def test_threads_are_started_as_they_are_needed() -> None:
    threads, together, lock = Threads(3), Barrier(4), Lock()
    done: list[int] = []

    def work(number: int, wait: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            wait()
            with lock:
                done.append(number)

        return act

    for number in range(5):
        threads.submit(work(number, lambda: None))
        wait_until(lambda: len(threads._idle) == 1)
    assert len(threads._threads) == 1, "one after the other needs no more"
    release = Event()
    for number in range(3):
        threads.submit(work(number, lambda: together.wait(30)))
    together.wait(30)  # three run at once
    wait_until(lambda: len(done) == 8)
    for number in range(6):
        threads.submit(work(number, lambda: release.wait(30)))
    assert len(threads._threads) == 3
    release.set()
    threads.shutdown(wait=True)
    assert sorted(done[8:]) == list(range(6))


def test_where_the_system_has_no_more_threads_those_that_run_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, release = Threads(3), Event()
    done: list[int] = []

    def fails(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    def first() -> None:
        release.wait(30)
        done.append(0)

    threads.submit(first)
    monkeypatch.setattr(Thread, "start", fails)
    threads.submit(lambda: done.append(1))
    monkeypatch.undo()
    release.set()
    wait_until(lambda: done == [0, 1])
    threads.shutdown(wait=True)
