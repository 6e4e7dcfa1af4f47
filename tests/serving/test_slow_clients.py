"""Clients that stop in the middle of a request, or take no answer, hold up nobody else."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from authapp import dev
from authapp.assembly.capacity import REQUEST_THREADS
from tests.support.instances import SERVER, Instance, serving
from tests.support.settings import UNLIMITED, environment_for

MANY = 5 * REQUEST_THREADS
PATIENCE = 5.0  # seconds; half of what a slow client is given
POST = b"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /static/authapp/authapp.css HTTP/1.1\r\nHost: localhost\r\n\r\n"

HEADS = {
    "nothing": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: local",
    "a last request, and the connection is left open": GET.replace(
        b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
    ),
    "a last request in HTTP/1.0": GET.replace(b"1.1", b"1.0"),
    "what is no request": b"GET\r\n\r\n",
    "a request and half of the next": GET + b"GET /heal",
}
BODIES = {
    "half a body": POST + b'Content-Length: 100\r\n\r\n{"email":',
    "no byte of a body": POST + b"Content-Length: 100\r\n\r\n",
    "half a chunk": POST + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"email":',
    "no last chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "half the size of a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n4",
    "half a trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: 1\r\n",
    "a body that waits to be asked for": POST
    + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    "more than is read": POST + b"Content-Length: 1000000\r\n\r\n{",
}
# granian takes bodies on the thread that answers; behind the proxy no body is cut (tests/deploy)
SLOW = HEADS if SERVER == "granian" else HEADS | BODIES


@pytest.fixture(scope="module")
def instance(
    served_by: str,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Instance]:
    """With one worker."""
    # a body cut short counts as an attempt
    environment = environment_for(
        database_url,
        valkey.url,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        WEB_THREADS=str(REQUEST_THREADS),
    )
    log = tmp_path_factory.mktemp("slow") / "log"
    with serving("wsgi:app", environment, log) as started:
        yield started


def asks(port: int, path: str = "/healthz") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_a_client_that_stops_sending_holds_up_nobody(instance: Instance, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            connection = socket.create_connection(("127.0.0.1", instance.port), 10)
            stack.callback(connection.close)
            connection.sendall(sent)
        for path in ("/healthz", "/login", "/healthz"):
            assert asks(instance.port, path) == 200


def takes_nothing(port: int, stack: ExitStack) -> socket.socket:
    """A client that asks for more than is sent to one that takes nothing."""
    connection = socket.socket()
    stack.callback(connection.close)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect(("127.0.0.1", port))
    with suppress(OSError):
        connection.settimeout(1)
        connection.sendall(GET * 1_000)
    return connection


@pytest.mark.first
def test_a_client_that_stops_sending_is_let_go_as_one_that_takes_nothing(
    instance: Instance,
) -> None:
    if SERVER == "granian":  # lets it go when the next request is overdue
        return
    with ExitStack() as stack:
        lazy = takes_nothing(instance.port, stack)
        slow = []
        for sent in (HEADS["half a head"], BODIES["half a body"], BODIES["no last chunk"]):
            slow.append(socket.create_connection(("127.0.0.1", instance.port), 30))
            stack.callback(slow[-1].close)
            slow[-1].sendall(sent)
        for connection in slow:
            assert b" 408 " in connection.recv(1_000).partition(b"\r\n")[0]
            assert connection.recv(1_000) == b""
        lazy.settimeout(130)  # the kernel looks for room ever less often: every 120 s in the end
        taken = 0
        with suppress(ConnectionResetError):
            while received := lazy.recv(65_536):
                taken += received.count(b"HTTP/1.1 200 ")
        assert taken < 1_000


def test_a_client_that_takes_no_answer_holds_up_nobody(instance: Instance) -> None:
    with ExitStack() as stack:
        for _ in range(REQUEST_THREADS):
            takes_nothing(instance.port, stack)
        assert asks(instance.port) == 200


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(instance: Instance) -> None:
    """Once, before its body; gunicorn asks again when it has come, which clients pass over."""
    with socket.create_connection(("127.0.0.1", instance.port), 10) as connection:
        connection.sendall(BODIES["a body that waits to be asked for"])
        answer = connection.recv(1_000)
        assert answer.lower() == b"http/1.1 100 continue\r\n\r\n"
        for piece in (b'{"a', b'": ', b'"b"'):
            connection.sendall(piece)
            time.sleep(0.05)
        while b" 400 " not in answer:
            more = connection.recv(1_000)
            assert more, answer
            answer += more
        assert answer.lower().count(b" 100 continue") <= 2
