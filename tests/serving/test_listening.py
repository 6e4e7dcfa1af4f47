"""Where the servers listen, in every spelling of HOST; an address they can't have is one line."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from authapp import dev
from tests.support.instances import SERVERS, free_port
from tests.support.production import ECHO, connect, refusal, started
from tests.support.settings import environment_for
from tests.support.waiting import wait_until

BOTH = pytest.mark.parametrize("server", SERVERS)


@pytest.fixture
def environment(database_url: str, valkey: dev.Valkey) -> dict[str, str]:
    return environment_for(database_url, valkey.url, PORT=str(free_port()))


@contextmanager
def echoing(server: str, environment: dict[str, str], folder: Path) -> Iterator[int]:
    """The port, where it answers with the WSGI environment."""
    (folder / "echo.py").write_text(ECHO)
    environment["PYTHONPATH"] = str(folder)
    port = int(environment["PORT"])
    with started(server, environment, folder / "log", "echo:app"):
        connect_to_any(port).close()
        yield port


def connect_to_any(port: int) -> socket.socket:
    def connected() -> socket.socket | None:
        for host in ("127.0.0.1", "::1"):
            with suppress(ConnectionRefusedError):
                return socket.create_connection((host, port), 10)
        return None

    found = wait_until(connected, "nobody listens", seconds=60)
    assert found
    return found


def answers(host: str, port: int) -> bool:
    try:
        with closing(socket.create_connection((host, port), 10)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except ConnectionRefusedError:
        return False


@BOTH
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("[::1]", {"::1"}),
        ("::", {"::1", "127.0.0.1"}),
    ],
)
def test_it_listens_where_host_says(
    server: str,
    host: str,
    reached: set[str],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    environment["HOST"] = host
    with echoing(server, environment, tmp_path) as port:
        assert {address for address in ("::1", "127.0.0.1") if answers(address, port)} == reached


@BOTH
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "HOST 192.0.2.1, PORT {port}: Cannot assign requested address"),
        ("[2001:db8::1]", "HOST 2001:db8::1, PORT {port}: Cannot assign requested address"),
        ("nobody.invalid", "HOST nobody.invalid: "),
        ("::1]", "HOST: set it to an address"),
        ("[::1]:8000", "HOST: set it to an address"),
    ],
)
def test_an_address_that_can_not_be_bound_is_one_line(
    server: str, host: str, said: str, environment: dict[str, str]
) -> None:
    """Before anything else is looked at: nothing listens at this DATABASE_URL."""
    environment |= {"DATABASE_URL": "postgresql://127.0.0.1:1/authapp", "HOST": host}
    (line,) = refusal(server, environment)
    assert line.startswith(f"authapp: {said.format(port=environment['PORT'])}")


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_port_that_is_taken_is_one_line(
    server: str, host: str, environment: dict[str, str]
) -> None:
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    with socket.create_server((bare, 0), family=family) as other:
        port = other.getsockname()[1]
        environment |= {
            "DATABASE_URL": "postgresql://127.0.0.1:1/authapp",
            "HOST": host,
            "PORT": str(port),
        }
        (line,) = refusal(server, environment)
    assert line.startswith(f"authapp: HOST {bare}, PORT {port}: Address already in use")


# -- workers of gunicorn ---------------------------------------------------------------------------

OTHER = """
from gunicorn.workers.base import Worker
class Other(Worker): pass
"""


@pytest.mark.parametrize("kind", ["asgi", "gunicorn.workers.gasgi.ASGIWorker", "other.Other"])
def test_workers_that_bound_no_wait_for_postgres_are_refused(
    kind: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    environment |= {
        "DATABASE_URL": "postgresql://127.0.0.1:1/authapp",
        "GUNICORN_CMD_ARGS": f"--worker-class {kind}",
        "PYTHONPATH": str(tmp_path),
    }
    (line,) = refusal("gunicorn", environment)
    assert line.startswith(f"authapp: worker class {kind}: ")
    assert line.endswith("leave out -k, or take gthread")


@pytest.mark.parametrize("options", ["-k sync --threads 1", "-k gthread --threads 2"])
def test_workers_that_have_threads_serve(
    options: str, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["GUNICORN_CMD_ARGS"] = options
    with echoing("gunicorn", environment, tmp_path) as port, closing(connect(port)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
