"""Probes and scrapers ask by whatever address they know: the Host decides nothing for them."""

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import create_environ

from tests.web.conftest import MakeApp
from tests.web.support import browser, program

PROBES = ("/healthz", "/readyz", "/metrics")

# None: no header at all, as in HTTP/1.0
HOSTS = {
    "a pod's address": "10.1.2.3:8000",
    "IPv6": "[fd00::7]:8000",
    "a trusted name": "auth.example.org",
    "missing": None,
    "empty": "",
    "blank": " ",
    "two words": "a b",
    "two hosts": "a.example, b.example",
    "no address": "[:.:]",
    "a bracket": "[",
    "a user": "a@b.example",
    "a path": "a.example/b",
    "a port that is none": "a.example:port",
    "a port too high": "a.example:99999",
    "a label too long": "a" * 64 + ".example",
    "long": "a." * 4_000,
    "no ASCII": "\xe9.example",
    "a control": "a\x7f.example",
    "dots": "...",
}


def status_of(app: Flask, path: str, method: str = "GET", **environ: Any) -> str:
    """Asked without the client of the tests, which takes no such hosts."""
    sent = create_environ(method=method) | {"PATH_INFO": path} | environ
    if sent.get("HTTP_HOST") is None:
        sent.pop("HTTP_HOST", None)
    told: list[str] = []

    def start(status: str, *_rest: Any) -> Any:
        told.append(status[:3])

    body = app(sent, start)
    assert b"".join(body) or method == "HEAD"
    getattr(body, "close", lambda: None)()
    return told[0]


@pytest.fixture(params=["any host", "trusted hosts", "a proxy", "a proxy and trusted hosts"])
def probed(
    request: pytest.FixtureRequest, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> tuple[Flask, str]:
    """The application, and the header that says which host was asked for."""
    if "trusted" in request.param:
        monkeypatch.setenv("FLASK_TRUSTED_HOSTS", '["auth.example.org"]')
    hops = int("proxy" in request.param)
    return make_app(TRUSTED_PROXY_HOPS=hops), "HTTP_X_FORWARDED_HOST" if hops else "HTTP_HOST"


@pytest.mark.parametrize("host", HOSTS)
def test_probes_are_answered_whatever_the_host_is(probed: tuple[Flask, str], host: str) -> None:
    app, header = probed
    for path in PROBES:
        for method in ("GET", "HEAD"):
            sent: dict[str, Any] = {"HTTP_HOST": "10.1.2.3", header: HOSTS[host]}
            assert status_of(app, path, method, **sent) == "200", (path, method)
            on_a_socket = {**sent, "SERVER_NAME": "", "SERVER_PORT": ""}
            assert status_of(app, path, method, **on_a_socket) == "200", (path, method)
        assert status_of(app, f"/{path}", **sent) == "200", path
        assert status_of(app, path, "OPTIONS", **sent) == "405", path


def test_everything_else_is_held_to_the_trusted_hosts(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_TRUSTED_HOSTS", '["auth.example.org"]')
    app = make_app()
    for path in ("/", "/login", "/healthz/", "/metricsx", "/api/v1/me", "/forward-auth/nginx"):
        for host in ("10.1.2.3:8000", "a b", ""):
            assert status_of(app, path, HTTP_HOST=host) == "400", (path, host)


def test_what_others_hang_on_each_request_sees_probes_too(make_app: MakeApp) -> None:
    """As a rule that keeps the public from the metrics."""
    app = make_app()
    app.before_request(lambda: ("not for you", 403))
    for path in PROBES:
        assert program(app).get(path).status_code == 403


def test_an_error_is_a_page_there_too(make_app: MakeApp) -> None:
    answer = browser(make_app()).post("/healthz", base_url="http://10.1.2.3:8000")
    assert (answer.status_code, answer.mimetype) == (405, "text/html")
