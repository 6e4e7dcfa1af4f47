"""The headers X-Forwarded-… count exactly as far as TRUSTED_PROXY_HOPS says."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from authapp import Auth
from tests.support.hashing import hashing
from tests.web.conftest import MakeApp, Settings
from tests.web.middleware.test_request_log import handler, lines
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    browser,
    problem,
    program,
    services_of,
    sign_up,
)


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """The log of the application while the block runs."""
    stream = io.StringIO()
    before = handler().setStream(stream)
    try:
        yield stream
    finally:
        handler().setStream(before)


CLIENT = "198.51.100.9"
FORWARDED = {
    "X-Forwarded-For": f"203.0.113.66, {CLIENT}",
    "X-Forwarded-Proto": "http, https",
    "X-Forwarded-Host": "e.example, auth.example.org",
    "X-Forwarded-Port": "1, 2",
    "X-Forwarded-Prefix": "/evil, /",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66;host=e.example;proto=https",
    "True-Client-IP": "203.0.113.66",
}


def log_in(app: Flask, password: str = PASSWORD, **headers: str) -> TestResponse:
    return program(app).post(
        "/login", data={"email": EMAIL, "password": password}, headers={**FORWARDED, **headers}
    )


def address(stores: Stores) -> str:
    [(found,)] = stores.sql("SELECT address FROM sessions")
    return str(found)


def test_without_a_proxy_nothing_of_it_counts(app: Flask, person: str, stores: Stores) -> None:
    assert log_in(app, Origin="http://localhost").status_code == 303
    assert address(stores) == "127.0.0.1"
    for origin in ("https://auth.example.org", "http://e.example", "https://localhost"):
        assert log_in(app, Origin=origin).status_code == 403, origin


def test_behind_one_proxy_what_the_proxy_added_counts(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    assert log_in(app, Origin="https://auth.example.org").status_code == 303
    assert address(stores) == CLIENT
    for origin in ("http://localhost", "http://auth.example.org", "http://e.example"):
        assert log_in(app, Origin=origin).status_code == 403, origin


def test_next_to_the_forwarded_host_is_next_to_us(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    for target, location in (
        ("https://auth.example.org/account", "https://auth.example.org/account"),
        ("http://localhost/account", "/"),
        ("https://e.example/account", "/"),
    ):
        fields = {"email": EMAIL, "password": PASSWORD, "next": target}
        answer = program(app).post("/login", data=fields, headers=FORWARDED)
        assert answer.headers["Location"] == location


@pytest.mark.parametrize(("hops", "others_are_free"), [(0, False), (1, True)])
def test_the_limit_counts_the_address_that_is_believed(
    make_app: MakeApp, hops: int, others_are_free: bool
) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=hops, LOGIN_LIMIT_PER_ADDRESS="2 per minute")
    sign_up(app)
    for number in range(2):  # what the client says itself must not buy another window
        log_in(app, "not it", **{"X-Forwarded-For": f"203.0.113.{number}, {CLIENT}"})
    said = {"X-Forwarded-For": f"203.0.113.9, {CLIENT}"}
    assert log_in(app, **said).status_code == 429
    other = log_in(app, **{"X-Forwarded-For": f"{CLIENT}, 198.51.100.10"})
    assert (other.status_code == 303) is others_are_free


def test_ipv6_addresses_of_one_customer_share_a_window(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS="2 per minute")
    sign_up(app)
    for number in range(2):
        log_in(app, "not it", **{"X-Forwarded-For": f"2001:db8:0:1::{number}"})
    assert log_in(app, **{"X-Forwarded-For": "2001:db8:0:1:ffff::9"}).status_code == 429
    assert log_in(app, **{"X-Forwarded-For": "2001:db8:0:2::1"}).status_code == 303


SPELLINGS = [
    CLIENT,
    f"{CLIENT}:1111",
    f'"{CLIENT}:1112"',
    f"::ffff:{CLIENT}",
    f"[::ffff:{CLIENT}]:443",
    f" {CLIENT} ",
]
UNREADABLE = ["unknown", "_hidden", "<script>", "", " ", f"{CLIENT},", "x" * 5_000, '"']


def test_every_spelling_of_an_address_is_one_window_and_one_form(
    make_app: MakeApp, stores: Stores
) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS=f"{len(SPELLINGS)} per hour")
    sign_up(app)
    with logged() as log:
        for spelling in SPELLINGS:
            assert log_in(app, **{"X-Forwarded-For": spelling}).status_code == 303, spelling
        told = {line["address"] for line in lines(log) if line["event"] == "request"}
    assert told == {CLIENT}
    assert log_in(app, **{"X-Forwarded-For": SPELLINGS[1]}).status_code == 429
    for table in ("sessions", "audit_events WHERE event = 'session.begun'"):
        found = {str(address) for (address,) in stores.sql(f"SELECT address FROM {table}")}
        assert found == {CLIENT}, table


def test_clients_behind_a_proxy_that_says_their_ports_share_no_window(make_app: MakeApp) -> None:
    """As Azure's does: all were counted together."""
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS="1 per hour")
    sign_up(app)
    for number in range(5):
        said = {"X-Forwarded-For": f"198.51.100.{number}:{40_000 + number}"}
        assert log_in(app, **said).status_code == 303
    for number in range(5):
        said = {"X-Forwarded-For": f"[2001:db8:{number}::1]:{40_000 + number}"}
        assert log_in(app, **said).status_code == 303


CALLS = ["/login", "/api/v1/login", "/api/v1/tokens", "/signup", "/api/v1/signup"]


@pytest.mark.parametrize("said", UNREADABLE)
@pytest.mark.parametrize("path", CALLS)
def test_what_is_limited_by_an_address_is_refused_where_there_is_none(
    make_app: MakeApp, path: str, said: str
) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    if "login" in path or "tokens" in path:
        sign_up(app)
    kind = "json" if path.startswith("/api/") else "data"
    body: dict[str, Any] = {kind: {"email": EMAIL, "password": PASSWORD}}
    with hashing() as costs, logged() as log:
        answer = program(app).post(path, headers={"X-Forwarded-For": said}, **body)
        [line] = [line for line in lines(log) if line["event"] == "address_unreadable"]
    assert answer.status_code == 400
    assert costs == []
    if kind == "json":
        assert "address" in problem(answer, 400, "address_unknown")["detail"]
    else:
        assert "from which address" in Page(answer).text
    assert (line["level"], line["source"]) == ("warning", "X-Forwarded-For")
    assert "TRUSTED_PROXY_HOPS" in line["remedy"]


@pytest.mark.parametrize(("hops", "said"), [(1, ""), (2, ""), (2, CLIENT), (3, f"::1, {CLIENT}")])
def test_fewer_addresses_than_trusted_proxies_are_none(
    make_app: MakeApp, stores: Stores, hops: int, said: str
) -> None:
    """The peer is the proxy: all its visitors would share one limit."""
    ways_in = make_app()
    sign_up(ways_in)
    client = browser(make_app(TRUSTED_PROXY_HOPS=hops))
    whole = {"X-Forwarded-For": ", ".join([CLIENT] * hops)}
    fields = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/login", data=fields, headers=whole).status_code == 303
    headers = {"X-Forwarded-For": said}
    for path in ("/account", "/api/v1/me", "/forward-auth/nginx", "/healthz", "/readyz"):
        assert client.get(path, headers=headers).status_code == 200, path
    for path in CALLS:
        kind = "json" if path.startswith("/api/") else "data"
        body: dict[str, Any] = {kind: fields}
        with hashing() as costs, logged() as log:
            answer = client.post(path, headers=headers, **body)
            [line] = [line for line in lines(log) if line["event"] == "address_unreadable"]
        assert (answer.status_code, costs) == (400, []), path
        assert (line["source"], line["said"]) == ("X-Forwarded-For", said)
        assert f"fewer entries than TRUSTED_PROXY_HOPS says, {hops}" in line["problem"]
        assert "number of proxies in front" in line["remedy"]
    assert client.post("/logout", headers=headers).status_code == 303
    assert stores.sql("SELECT 1 FROM sessions WHERE ended_at IS NULL") == []


def test_a_program_past_the_proxies_counts_by_its_own_address(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS="1 per minute")
    fields = {"email": EMAIL, "password": PASSWORD}
    for peer in ("192.0.2.1", "192.0.2.2"):
        beside = {"REMOTE_ADDR": peer}
        tries = [
            browser(app).post("/api/v1/login", json=fields, environ_overrides=beside).status_code
            for _ in range(2)
        ]
        assert tries == [401, 429], peer


def test_limits_of_an_embedding_app_count_requests_without_an_address_together(
    settings: Settings,
) -> None:
    """Flask-Limiter would not count them at all."""
    app = Flask(__name__)
    app.config.update(settings, TRUSTED_PROXY_HOPS=1, RATELIMIT_DEFAULT="2 per hour")
    Auth(app)
    app.add_url_rule("/", view_func=lambda: "here")
    try:
        client = app.test_client()
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/", headers={"X-Forwarded-For": CLIENT}).status_code == 200
    finally:
        services_of(app).close()


@pytest.mark.parametrize("hops", [0, 1])
def test_a_peer_without_an_address_is_nobody_of_its_own(make_app: MakeApp, hops: int) -> None:
    """A Unix socket: gunicorn and granian leave REMOTE_ADDR empty."""
    app = make_app(TRUSTED_PROXY_HOPS=hops)
    sign_up(app)
    client = browser(app)
    client.environ_base["REMOTE_ADDR"] = ""
    fields = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/login", data=fields).status_code == 400
    through = client.post("/login", data=fields, headers={"X-Forwarded-For": CLIENT})
    assert through.status_code == (303 if hops else 400)
    client.environ_base["REMOTE_ADDR"] = "127.0.0.1"
    assert client.post("/login", data=fields).status_code == 303, "the peer is known"
    client.environ_base["REMOTE_ADDR"] = ""
    for path in ("/account", "/api/v1/me", "/forward-auth/nginx"):
        assert client.get(path).status_code == 200, "who is logged in stays so"


def test_a_layer_of_an_embedding_app_may_say_a_port(settings: Settings, stores: Stores) -> None:
    app = Flask(__name__)
    app.config.update(settings)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    auth = Auth(app)

    @app.post("/enter")
    def enter() -> str:
        auth.log_in(EMAIL, PASSWORD)
        return "in"

    try:
        sign_up(app)
        headers = {"X-Forwarded-For": f"{CLIENT}:1111"}
        assert app.test_client().post("/enter", headers=headers).status_code == 200
        assert address(stores) == CLIENT
    finally:
        services_of(app).close()


def test_a_48_of_ipv6_has_twice_what_an_address_has(make_app: MakeApp) -> None:
    """Or a customer with 65,536 networks of 64 bits has as many windows."""
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS="3 per hour")
    sign_up(app)

    def status(said: str) -> int:
        return log_in(app, **{"X-Forwarded-For": said}).status_code

    assert [status("2001:db8:1:1::1") for _ in range(20)] == [303] * 3 + [429] * 17
    assert [status(f"2001:db8:1:{n:x}::1") for n in range(2, 8)] == [303] * 3 + [429] * 3
    refused = log_in(app, **{"X-Forwarded-For": "2001:db8:1:9::1"})
    assert refused.headers["RateLimit-Policy"] == '"login-network";q=6;w=3600'
    assert status("2001:db8:2:1::1") == 303
    assert [status("2002:c633:6409:1::1"), status("::ffff:198.51.100.9")] == [303] * 2
    assert [status(CLIENT), status(CLIENT)] == [303, 429], "6to4 is another spelling of IPv4"
