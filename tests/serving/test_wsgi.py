"""`wsgi:app` as it is deployed: two workers, several instances, raw bytes on the wire."""

import http.client
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from authapp import dev
from authapp.services import utc_now
from tests.support.instances import free_port
from tests.support.people import EMAIL, PASSWORD, sign_up
from tests.support.production import started
from tests.support.services import open_services
from tests.support.settings import UNLIMITED, environment_for, make_config
from tests.support.waiting import wait_until
from tests.web.support import COOKIE

ROOT = Path(__file__).parents[2]


class Instance:
    """A running server.

    Attributes:
        port: of 127.0.0.1.
        process: the master.
        log: what it wrote.
    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def workers(self) -> list[str]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text().split()

    def ask(
        self, method: str, path: str, token: str = "", body: dict[str, Any] | None = None
    ) -> http.client.HTTPResponse:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Accept": "application/json"}
        if token:
            headers["Cookie"] = f"{COOKIE}={token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, json.dumps(body) if body else None, headers)
        return connection.getresponse()

    def log_in(self) -> str:
        """Returns the token."""
        answer = self.ask("POST", "/api/v1/login", body={"email": EMAIL, "password": PASSWORD})
        assert answer.status == 200
        name, _, token = (answer.headers["Set-Cookie"] or "").split(";")[0].partition("=")
        assert name == COOKIE
        return token

    def me(self, token: str) -> int:
        return self.ask("GET", "/api/v1/me", token).status

    def raw(self, *lines: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Sends these lines as they are; status and all that came."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            answer = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(65_536):
                    answer += part
        return int(answer.split()[1]), answer


Serve = Callable[..., AbstractContextManager[Instance]]


@pytest.fixture(scope="module")
def serve(
    served_by: str,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Serve:
    """Starts an instance with two workers, under a mount point if one is given; all share the
    engines and the secrets."""
    folder = tmp_path_factory.mktemp(served_by)

    @contextmanager
    def serving(mount_point: str = "") -> Iterator[Instance]:
        port = free_port()
        log = folder / f"{port}.log"
        environment = environment_for(
            database_url,
            valkey.url,
            WEB_CONCURRENCY="2",
            LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
            PORT=str(port),
            SCRIPT_NAME=mount_point,
        )
        with started(served_by, environment, log) as process:
            instance = Instance(port, process, log)
            await_answers(instance, mount_point.rstrip("/"))
            yield instance

    return serving


def await_answers(instance: Instance, mount_point: str = "") -> None:
    def is_healthy() -> bool:
        assert instance.process.poll() is None, instance.log.read_text()
        return instance.ask("GET", f"{mount_point}/healthz").status == 200

    wait_until(is_healthy, instance.log.read_text, seconds=60, ignoring=ConnectionError)


@pytest.fixture(scope="module")
def running(serve: Serve) -> Iterator[Instance]:
    with serve() as instance:
        yield instance


@pytest.fixture
def ada(database_url: str, valkey: dev.Valkey, config: object) -> None:
    """A person with EMAIL and PASSWORD, alone in empty stores."""
    same = make_config(database_url, valkey.url)
    with open_services(same, utc_now) as services:
        sign_up(services)


# -- one service, however many processes -----------------------------------------------------------


def test_a_session_works_in_every_worker_and_ends_in_every_worker(
    running: Instance, ada: None
) -> None:
    wait_until(lambda: len(running.workers()) == 2)
    token = running.log_in()
    assert {running.me(token) for _ in range(30)} == {200}
    assert running.ask("POST", "/api/v1/logout", token).status == 204
    assert {running.me(token) for _ in range(30)} == {401}


def test_sessions_outlive_a_restart_and_work_on_every_instance(
    serve: Serve, running: Instance, ada: None
) -> None:
    with serve() as other:
        kept, ended = other.log_in(), other.log_in()
        for instance in (running, other):
            assert [instance.me(token) for token in (kept, ended)] == [200, 200]
        running.ask("POST", "/api/v1/logout", ended)
        assert [other.me(token) for token in (kept, ended)] == [200, 401]
    with serve() as again:
        assert [again.me(token) for token in (kept, ended)] == [200, 401]


@pytest.mark.parametrize("mount_point", ["/auth", "/auth/"])
def test_script_name_is_the_mount_point(serve: Serve, ada: None, mount_point: str) -> None:
    with serve(mount_point) as mounted:
        body = {"email": EMAIL, "password": PASSWORD}
        answer = mounted.ask("POST", "/auth/api/v1/login", body=body)
        token = (answer.headers["Set-Cookie"] or "").split(";")[0].partition("=")[2]
        assert "Path=/;" in answer.headers["Set-Cookie"] + ";"
        for path in ("/auth/api/v1/me", "/auth/forward-auth/nginx"):
            assert mounted.ask("GET", path, token).status == 200, path
        described = json.load(mounted.ask("GET", "/auth/api/v1/openapi.json"))
        assert described["servers"] == [{"url": "/auth"}]
        assert mounted.ask("GET", "/auth/forward-auth/nginx").headers["Location"] == "/auth/login"
        for path in ("/authhealthz", "/authx/healthz", "/healthz", "/auth/auth/healthz", "/"):
            assert mounted.ask("GET", path).status in {404, 500}, path  # gunicorn itself says 500


# -- what only a real server shows -----------------------------------------------------------------

GET = b"GET /api/v1/me HTTP/1.1"
HOST = b"Host: localhost"


def test_cookie_headers_as_they_come_on_the_wire(
    running: Instance, ada: None, served_by: str
) -> None:
    token = running.log_in().encode()
    clean = b"Cookie: SESSION-TOKEN=" + token
    one = {
        "clean": [clean],
        "blanks around": [b"Cookie:   SESSION-TOKEN=" + token + b"  "],
        "among others": [b"Cookie: a=1; SESSION-TOKEN=" + token + b"; b=2"],
        "in lower case, the header": [b"cookie: SESSION-TOKEN=" + token],
        "a header that is not it": [clean, b"Cookie_: SESSION-TOKEN=x"],
    }
    none = {
        "a tab before the name": [b"Cookie: a=1;\tSESSION-TOKEN=" + token],
        "a blank behind the name": [b"Cookie: SESSION-TOKEN =" + token],
        "quoted": [b'Cookie: SESSION-TOKEN="' + token + b'"'],
        "16 KB": [clean + b"A" * 16_000],
        "not ASCII": [b"Cookie: SESSION-TOKEN=\xc3\xa9\xff"],
    }
    # gunicorn joins two headers by a comma, granian by a semicolon, as HTTP/2 does
    (one if served_by == "granian" else none).update(
        {
            "another cookie's header first": [b"Cookie: a=1", clean],
            "another cookie's header last": [clean, b"Cookie: a=1"],
            "two headers": [clean, clean],
            "a wrong one first": [b"Cookie: SESSION-TOKEN=x", clean],
            "a wrong one last": [clean, b"Cookie: SESSION-TOKEN=x"],
            "one among others in each": [clean + b"; a=1", b"Cookie: SESSION-TOKEN=x; b=2"],
        }
    )
    for name, lines in one.items():
        assert running.raw(GET, HOST, *lines)[0] == 200, name
    for name, lines in none.items():
        status, answer = running.raw(GET, HOST, *lines)
        assert status == 401, name
        assert b"Set-Cookie" not in answer, name
    assert running.me(token.decode()) == 200


def test_bodies_however_they_are_framed(running: Instance, ada: None, served_by: str) -> None:
    body = json.dumps({"email": EMAIL, "password": "x" * 1_000_000}).encode()
    post = [b"POST /api/v1/login HTTP/1.1", HOST, b"Content-Type: application/json"]
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    framed = {b"Content-Length: %d" % len(body): body}
    if served_by != "granian":
        framed[b"Transfer-Encoding: chunked"] = chunked
    for line, sent in framed.items():
        status, answer = running.raw(*post, line, body=sent)
        assert status == 413, (line, answer)
        assert b"application/problem+json" in answer
    small = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(small), small)
    told = running.raw(*post, b"Transfer-Encoding: chunked", body=chunked)[0]
    assert told == (
        411 if served_by == "granian" else 200
    )  # it can't tell a chunked body cut short


def test_the_server_does_not_say_what_it_is_made_of(running: Instance) -> None:
    _, answer = running.raw(b"GET / HTTP/1.1", HOST)
    for name in (b"Python", b"Werkzeug", b"Flask"):
        assert name not in answer.split(b"\r\n\r\n")[0]


def test_every_line_of_the_log_is_json(running: Instance) -> None:
    lines = running.log.read_text().splitlines()
    assert len(lines) > 3, "the master and its workers say that they start"
    for line in lines:
        assert isinstance(json.loads(line), dict), line
