"""A web app behind a real nginx with deploy/nginx.conf and deploy/nginx-guarded-app.conf."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask, request

from tests.deploy.proxies import PROGRAMS, nginx, served
from tests.deploy.servers import make_secrets, needs_redis
from tests.support.instances import free_port
from tests.web.conftest import MakeApp
from tests.web.support import COOKIE, EMAIL, behind_proxy, browser, log_in, sign_up, token_of
from tests.web.test_forward_auth import SMUGGLED, away

HOST = "app.example.org"


def guarded_app() -> Flask:
    """Tells what it was told."""
    app = Flask("guarded")

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def tell(path: str) -> dict[str, object]:
        names = {name: request.headers.get(name, "") for name in SMUGGLED}
        body = len(request.get_data())
        query = request.query_string.decode()
        return {
            "path": path,
            "query": query,
            "body": body,
            "environ": _headers(request.environ),
            **names,
        }

    return app


def _headers(environ: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in environ.items() if name.startswith("HTTP_")}


@dataclass(frozen=True)
class Site:
    auth: Flask
    port: int

    def ask(
        self,
        path: str = "/",
        token: str = "",
        method: str = "GET",
        body: bytes = b"",
        *headers: tuple[str, str],
    ) -> tuple[int, http.client.HTTPMessage, str]:
        sent = [("Host", HOST), *SMUGGLED.items(), ("Content-Length", str(len(body))), *headers]
        if token:
            sent.append(("Cookie", f"{COOKIE}={token}"))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        with closing(http.client.HTTPConnection(HOST, self.port)) as connection:
            connection.sock = context.wrap_socket(plain, server_hostname=HOST)
            connection.putrequest(method, path, skip_host=True)
            for name, value in sent:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_redis()
    return make_secrets(tmp_path_factory.mktemp("guarded"), HOST)


@pytest.fixture(params=PROGRAMS)
def site(
    request: pytest.FixtureRequest, make_app: MakeApp, tmp_path: Path, secrets: Path
) -> Iterator[Site]:
    auth = make_app(TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS=HOST)
    ports = {8443: free_port(), 8080: free_port()}
    with served(auth) as auth_port, served(guarded_app()) as app_port:
        server = nginx(tmp_path, secrets, ports, [auth_port], request.param, guarded_app=app_port)
        server.start()
        try:
            yield Site(auth, ports[8443])
        finally:
            server.stop()


def test_nginx_guards_another_app(site: Site) -> None:
    person = sign_up(site.auth, name="Ada Ł")
    client = behind_proxy(browser(site.auth))
    log_in(client)
    token = token_of(client)

    status, headers, _ = site.ask("/notes?x=1")
    onward = quote(f"https://{HOST}/notes?x=1", safe="/")
    assert (status, headers["Location"]) == (303, f"https://auth.example.org/login?next={onward}")
    assert site.ask("/", "A" * 64)[0] == 303

    status, headers, body = site.ask("/notes", token)
    assert (status, "Set-Cookie" in headers) == (200, False)
    told = json.loads(body)
    assert (told["path"], told["Remote-User"], told["Remote-Email"]) == ("notes", person, EMAIL)
    assert told["Remote-Name"].encode("latin-1").decode() == "Ada Ł"
    assert told["Remote-Groups"] == "user"
    status, _, body = site.ask("/notes?role=admin", token)
    told = json.loads(body)
    assert (status, told["query"]) == (200, "role=admin"), "a visitor's query demands nothing"

    with away(site.auth, "redis", "postgres"):
        status, headers, _ = site.ask("/notes", token)
        assert (status, headers["Retry-After"], "Set-Cookie" in headers) == (503, "2", False)
    assert site.ask("/notes", token)[0] == 200

    client.post("/logout")
    assert site.ask("/notes", token)[0] == 303
    assert site.ask("/forward-auth", token)[0] == 404


def test_a_guarded_app_takes_bodies_as_large_as_it_likes_from_those_who_may_pass(
    site: Site,
) -> None:
    sign_up(site.auth)
    client = behind_proxy(browser(site.auth))
    log_in(client)
    large = b"x" * 1_500_000  # above authapp's 64 KB and nginx's own megabyte
    status, _, body = site.ask("/notes", token_of(client), "POST", large)
    assert (status, json.loads(body)["body"]) == (200, len(large))
    assert site.ask("/notes", "", "POST", b"x" * 100_000)[0] == 303


def test_no_header_of_a_client_becomes_an_identity(site: Site) -> None:
    person = sign_up(site.auth)
    client = behind_proxy(browser(site.auth))
    log_in(client)
    own = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Proto")
    names = [*SMUGGLED, "Remote-Assertion", *own, "Forwarded", "X-Request-ID"]
    sent = [(name, "forged") for name in names] * 2
    sent += [(name.replace("-", other), "forged") for name in names for other in "_."]
    sent.append(("Connection", ", ".join(names)))
    status, _, body = site.ask("/", token_of(client), "GET", b"", *sent)
    told = json.loads(body)
    assert (status, told["Remote-User"], told["Remote-Groups"]) == (200, person, "user")
    assert not any("forged" in value for value in told["environ"].values()), told["environ"]
    assert told["environ"]["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert told["environ"]["HTTP_HOST"] == HOST
