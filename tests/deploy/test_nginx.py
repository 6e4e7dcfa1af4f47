"""deploy/nginx/*.conf in nginx of Debian and in the newest, before a stand-in for an instance."""

import http.client
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from tests.deploy.conftest import HOST
from tests.deploy.files import DEPLOY
from tests.deploy.proxies import DOCKER, PLAIN, PROGRAMS, nginx, served
from tests.deploy.servers import make_secrets, needs_redis, over_tls
from tests.support.instances import free_port
from tests.support.waiting import wait_until
from tests.web.test_authorization import strangers_calls

# a client says which address it has
ADDRESSES = "set_real_ip_from 127.0.0.1; real_ip_header Test-Address;\n"
PAGES = (
    *(
        "/login",
        "/signup",
        "/auth/login",
        "/signup/aninvitation",
        "/signup-passkey",
        "/signup/aninvitation/passkey",
        "/login/factor",
        "/login/passkey",
    ),
    *("/login/factor/passkey", "/forgot", "/reset", "/verify", "/verify/resend", "/email/undo"),
)
CALLS = (
    *("/api/v1/login", "/api/v1/signup", "/api/v1/tokens", "/auth/api/v1/login"),
    *("/api/v1/login/factor", "/api/v1/login/factor/totp", "/api/v1/passkeys/login"),
    *("/api/v1/password/forgot", "/api/v1/password/reset"),
    *("/api/v1/email/verify", "/api/v1/email/resend", "/api/v1/email/undo"),
)
CHALLENGES = (
    *("/login/passkey/options", "/login/factor/passkey/options", "/signup-passkey/options"),
    *("/account/confirm/passkey/options", "/api/v1/passkeys/options"),
    *("/api/v1/login/factor/options", "/api/v1/me/confirm/options", "/api/v1/me/passkeys/options"),
)
FREE = ("/logout", "/account/password", "/api/v1/tokens/refresh", "/api/v1/me/password")
# less at once, and so slowly that a slow machine counts the same
BURST = 4
FEW = {"rate=1r/s": "rate=1r/m", "burst=20": f"burst={BURST}"}
FEW |= {"rate=5r/s": "rate=1r/m", "burst=100": f"burst={BURST}"}


def stand_in() -> Flask:
    """Tells what the proxy sent."""
    app = Flask("stand-in")
    methods = ["GET", "HEAD", "POST"]

    @app.route("/", defaults={"path": ""}, methods=methods)
    @app.route("/<path:path>", methods=methods)
    def tell(path: str) -> dict[str, Any]:
        return {"headers": list(request.headers), "body": len(request.get_data())}

    return app


@dataclass(frozen=True)
class Proxy:
    """nginx before one stand-in, by https."""

    folder: Path
    port: int

    def connect(self) -> http.client.HTTPConnection:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection = http.client.HTTPConnection(HOST, self.port)
        connection.sock = over_tls(plain, HOST)
        return connection

    def ask(
        self, method: str, path: str, *headers: tuple[str, str], body: bytes = b""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        with closing(self.connect()) as connection:
            connection.putrequest(method, path, skip_host=True)
            for name, value in (("Host", HOST), ("Content-Length", str(len(body))), *headers):
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def told(self, *headers: tuple[str, str]) -> dict[str, list[str]]:
        """The headers that reach the instance, by name in lower case, if a client sends these."""
        status, _, body = self.ask("GET", "/page", *headers)
        assert status == 200
        found: dict[str, list[str]] = {}
        for name, value in json.loads(body)["headers"]:
            found.setdefault(name.lower(), []).append(value)
        return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_redis()
    return make_secrets(tmp_path_factory.mktemp("nginx"), HOST)


Start = Callable[..., Proxy]


@pytest.fixture(params=PROGRAMS)
def start(request: pytest.FixtureRequest, tmp_path: Path, secrets: Path) -> Iterator[Start]:
    """Starts nginx before an instance on that port, or before a stand-in."""
    with ExitStack() as stack:

        def starting(instance: int | None = None, **options: Any) -> Proxy:
            ports = {8443: free_port(), 8080: free_port()}
            instance = instance or stack.enter_context(served(stand_in()))
            server = nginx(tmp_path, secrets, ports, [instance], request.param, **options)
            stack.callback(server.stop)
            server.start()
            return Proxy(tmp_path, ports[8443])

        yield starting


@pytest.mark.parametrize(
    ("program", "upstream"), [("newest", PLAIN), ("debian", PLAIN), ("newest", DOCKER)]
)
def test_nginx_takes_the_files_as_they_are(
    program: str, upstream: str, tmp_path: Path, secrets: Path
) -> None:
    """All but names, places and ports; without a word."""
    ports = {8443: free_port(), 8080: free_port()}
    server = nginx(
        tmp_path, secrets, ports, [1, 2], program, upstream=upstream, guarded_app=free_port()
    )
    checked = subprocess.run(
        [*server._arguments, "-t", "-q"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_request_has_the_id_that_the_proxy_made(start: Start) -> None:
    proxy = start()
    for sent in ((), (("X-Request-ID", "a" * 32),), (("X-Request-ID", "a"), ("X-Request-ID", "b"))):
        (identifier,) = proxy.told(*sent)["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", identifier)
        assert identifier != "a" * 32
        wait_until(partial(_is_logged, proxy.folder / "access.log", identifier))


def _is_logged(log: Path, identifier: str) -> bool:
    """nginx writes the line once it has answered."""
    return f'"request_id":"{identifier}"' in log.read_text()


def test_what_a_client_says_in_the_name_of_a_proxy_does_not_arrive(start: Start) -> None:
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix")
    told = start().told(
        *((name, "evil.example") for name in (*names, *names, "Forwarded")),
        *((name.replace("-", "_"), "evil.example") for name in names),
        *((name.replace("-", "."), "evil.example") for name in names),
        ("Connection", "X-Forwarded-For, X-Forwarded-Host, X-Request-ID, Host"),
    )
    assert told["x-forwarded-for"] == ["127.0.0.1"]
    assert told["x-forwarded-host"] == [HOST]
    assert told["x-forwarded-proto"] == ["https"]
    assert not any("evil.example" in value for values in told.values() for value in values), told


def test_every_proxy_file_strips_or_sets_what_authapp_believes() -> None:
    """In each place that passes a request on, as these are not inherited where one is set."""
    for file in sorted(DEPLOY.glob("nginx/*.conf")):
        for block in _blocks_with_headers(file.read_text()):
            for name in ("For", "Host", "Proto", "Prefix"):
                assert f"proxy_set_header X-Forwarded-{name} " in block, f"{file.name}: {name}"
            for name in ("Forwarded", "X-Request-ID", "Host"):
                assert f"proxy_set_header {name} " in block, f"{file.name}: {name}"


def _blocks_with_headers(text: str) -> list[str]:
    """Runs of lines between braces that set headers."""
    return [part for part in re.split(r"[{}]", text) if "proxy_set_header " in part]


# -- floods ----------------------------------------------------------------------------------------


def test_a_flood_of_attempts_is_refused_in_the_form_that_was_asked_for(start: Start) -> None:
    proxy = start(more=ADDRESSES, places=FEW)
    for number, path in enumerate([*PAGES, *CALLS, *CHALLENGES], 1):
        flood, other = f"192.0.2.{number}", f"198.51.100.{number}"
        answers = [attempt(proxy, path, flood) for _ in range(BURST + 3)]
        assert [status for status, _, _ in answers] == [200] * (BURST + 1) + [429] * 2
        _, headers, body = answers[-1]
        assert int(headers["Retry-After"]) > 0
        assert headers["Cache-Control"] == "no-store"
        if path not in PAGES:
            assert headers.get_all("Content-Type") == ["application/problem+json"]
            told = json.loads(body)
            assert told["request_id"] == headers["X-Request-ID"]
            assert {name: told[name] for name in ("type", "title", "status", "code")} == {
                "type": "about:blank",
                "title": "Too Many Requests",
                "status": 429,
                "code": "too_many_attempts",
            }
        else:
            assert headers.get_all("Content-Type") == ["text/html; charset=utf-8"]
            assert b"<title>Too many attempts</title>" in body
        # nothing else is refused, nor is anybody else
        assert proxy.ask("GET", path, ("Test-Address", flood))[0] == 200
        assert all(attempt(proxy, free, flood)[0] == 200 for free in FREE)
        assert attempt(proxy, path, other)[0] == 200


def test_every_call_that_strangers_may_try_is_limited() -> None:
    text = (DEPLOY / "nginx/nginx.conf").read_text()
    limited = re.findall(r"location ~ (\S+) \{\n *limit_req ", text)
    assert len(limited) == 3
    for _, path in strangers_calls():
        assert any(re.search(pattern, path) for pattern in limited), path
    for path in (*PAGES, *CALLS, *CHALLENGES):
        assert any(re.search(pattern, path) for pattern in limited), path


def test_all_ways_in_share_one_count_and_so_does_an_ipv6_network(start: Start) -> None:
    proxy = start(more=ADDRESSES, places=FEW)
    paths = [*PAGES, *CALLS]
    statuses = [
        attempt(proxy, paths[n % len(paths)], f"2001:db8::a:{n:x}")[0] for n in range(BURST + 3)
    ]
    assert statuses == [200] * (BURST + 1) + [429] * 2
    # its neighbours; to a regular expression a byte of 0x0a is a line feed
    for network in ("2001:db8:0:1", "2001:db8:a0a:a0a", "2001:db8:1:0"):
        assert attempt(proxy, "/login", f"{network}::1")[0] == 200


def test_a_429_of_authapp_itself_passes(start: Start) -> None:
    busy = Flask("busy")

    @busy.post("/login")
    def refuse() -> tuple[str, int, dict[str, str]]:
        return "our own", 429, {"Retry-After": "61"}

    with served(busy) as port:
        status, headers, body = attempt(start(port), "/login", "192.0.2.1")
    assert (status, headers["Retry-After"], body) == (429, "61", b"our own")


def attempt(proxy: Proxy, path: str, address: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    return proxy.ask("POST", path, ("Test-Address", address))
