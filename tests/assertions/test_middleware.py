"""A guarded app tells a real identity from one that a client made up, in every spelling."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, TestResponse

from authapp.assertions import AssertedIdentity, PublishedKeys, Verifier
from tests.support.assertions import APP, ISSUER, asserted, key_set, record

ROOT = Path(__file__).parents[2]
HEADER = "HTTP_REMOTE_ASSERTION"
ADA = "00000000-0000-0000-0000-000000000009"


def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Prints what it would take for the identity."""
    found = sorted(
        f"{name}={value}\n"
        for name, value in environ.items()
        if name.upper().replace(".", "_").startswith(("HTTP_REMOTE_", "REMOTE_USER"))
    )
    start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1")])
    return ["".join(found).encode("latin-1")]


VERIFIER = Verifier(ISSUER, APP, key_set())
PROVED_AT = int(record().auth_time.timestamp())
APP_OF_ADA = (
    f"HTTP_REMOTE_AMR=pwd\nHTTP_REMOTE_ASSURANCE_LEVEL=1\nHTTP_REMOTE_AUTH_TIME={PROVED_AT}\n"
    f"HTTP_REMOTE_EMAIL=ada@example.org\nHTTP_REMOTE_GROUPS=staff,user\n"
    f"HTTP_REMOTE_USER={ADA}\nREMOTE_USER={ADA}\n"
)


def ask(headers: Mapping[str, str], *, optional: bool = False) -> TestResponse:
    app = AssertedIdentity(guarded, VERIFIER, optional=optional)
    return Client(app).get("/", environ_overrides=headers)


SMUGGLED = {
    "HTTP_REMOTE_USER": "root",
    "HTTP_REMOTE.USER": "root",
    "HTTP_REMOTE.GROUPS": "admin",
    "HTTP_REMOTE_GROUPS": "admin",
    "HTTP_REMOTE_NAME": "Root",
    "HTTP_REMOTE_AMR": "pwd,otp",
    "HTTP_REMOTE_ASSURANCE_LEVEL": "2",
    "HTTP_REMOTE_EMAIL": "root@example.org",
    "REMOTE_USER": "root",
}


def test_the_identity_is_the_asserted_one_whatever_else_came() -> None:
    answer = ask({**SMUGGLED, HEADER: asserted()})
    assert (answer.status_code, answer.text) == (200, APP_OF_ADA)


@pytest.mark.parametrize("sent", ["", "x", f"{asserted()},{asserted()}", asserted("POST")])
def test_without_a_valid_assertion_nobody_passes(
    sent: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask({**SMUGGLED, HEADER: sent})
    assert answer.status_code == 403
    assert "its Remote-Assertion proves nothing" in caplog.text
    assert asserted()[-20:] not in caplog.text


def test_with_public_pages_those_without_an_assertion_are_nobodys() -> None:
    answer = ask(SMUGGLED, optional=True)
    assert (answer.status_code, answer.text) == (200, "")
    assert ask({HEADER: "x"}, optional=True).status_code == 403
    assert ask({HEADER: asserted()}, optional=True).text == APP_OF_ADA


def test_keys_that_cannot_be_had_are_an_outage_and_no_refusal() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        port = bound.getsockname()[1]
    verifier = Verifier(ISSUER, APP, PublishedKeys(f"http://127.0.0.1:{port}/", 0.5))
    answer = Client(AssertedIdentity(guarded, verifier)).get(
        "/", environ_overrides={HEADER: asserted()}
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_over_a_socket_every_spelling_that_a_server_takes_is_dropped() -> None:
    class Quiet(WSGIRequestHandler):
        def log_message(self, *_args: Any) -> None:
            return

    app = validator(AssertedIdentity(guarded, VERIFIER))
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            names = ("Remote-User", "Remote_User", "REMOTE-USER", "remote.user", "remote.groups")
            lines = "".join(f"{name}: root\r\n" for name in names)
            client.sendall(
                f"GET / HTTP/1.0\r\n{lines}Remote-Assertion: {asserted()}\r\n\r\n".encode()
            )
            received = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    assert received.endswith(APP_OF_ADA), received


def test_it_needs_neither_flask_nor_a_store(tmp_path: Path) -> None:
    """In an interpreter that finds PyJWT, cryptography and what that needs, and nothing else."""
    installed = Path(next(path for path in sys.path if (Path(path) / "jwt").is_dir()))
    for name in ("jwt", "cryptography", "cffi", *(p.name for p in installed.glob("_cffi_b*"))):
        (tmp_path / name).symlink_to(installed / name)
    (tmp_path / "authapp").symlink_to(ROOT / "authapp")
    script = f"""
import sys
sys.path[:] = [path for path in sys.path if "-packages" not in path] + [{str(tmp_path)!r}]
from authapp.assertions import AssertedIdentity, Verifier
print(Verifier({ISSUER!r}, {APP!r}, {key_set()!r}).verify({asserted()!r}, "GET").email)
for part in ("flask", "werkzeug", "sqlalchemy", "redis", "msgspec", "structlog"):
    assert part not in sys.modules, part
    try:
        __import__(part)
    except ImportError:
        continue
    raise AssertionError(f"{{part}} could be imported")
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "ada@example.org\n"), ran.stderr
