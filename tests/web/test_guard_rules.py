"""`GUARD_RULES`: path rules hold for every proxy, beside what the proxy demands itself."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.errors import SettingError, StoreUnavailable
from authapp.web.request_credentials import Authenticator
from tests.support.people import grant_role
from tests.web.conftest import MakeApp
from tests.web.forward_auth import NAMES
from tests.web.support import (
    COOKIE,
    EMAIL,
    Stores,
    behind_proxy,
    browser,
    log_in,
    program,
    services_of,
    sign_up,
    token_of,
)

RULES = """
[[rules]]
host = "app.example.org"
path = "/api"
methods = "OPTIONS"
allow = "public"

[[rules]]
host = "app.example.org"
path = "/public"
allow = "public"

[[rules]]
host = "app.example.org"
path = "/staff"
roles = ["staff", "admin"]

[[rules]]
host = "app.example.org"
path = "/secret"
factor = 2

[[rules]]
host = "app.example.org"
path = "/known"
verified = true

[[rules]]
host = "app.example.org"
allow = "signed-in"
"""
PROXIES = ("nginx", "redirect", "envoy")
PREFLIGHT = {"Origin": "https://x.example.org", "Access-Control-Request-Method": "POST"}


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Flask:
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return make_app(
        GUARD_RULES=file, TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS="app.example.org"
    )


@pytest.fixture
def token(app: Flask, person: str) -> str:
    client = behind_proxy(browser(app))
    assert log_in(client).status_code == 303
    return token_of(client)


def ask(
    app: Flask,
    proxy: str,
    path: str,
    token: str = "",
    *,
    host: str = "app.example.org",
    method: str = "GET",
    demand: str = "",
    headers: Mapping[str, str] | None = None,
) -> TestResponse:
    """Ask as this proxy does about a path, as the visitor wrote it."""
    sent = {"Cookie": f"{COOKIE}={token}", "Remote-User": "root", "Accept": "application/json"}
    sent |= headers or {}
    host_headers = {"X-Forwarded-Host": host, "X-Forwarded-Proto": "https"}
    if proxy == "nginx":
        sent |= {"X-Original-URL": f"https://{host}{path}", "X-Original-Method": method}
        target, method = f"/forward-auth/nginx{demand.replace(';', '?')}", "GET"
    elif proxy == "redirect":
        sent |= {**host_headers, "X-Forwarded-Uri": path, "X-Forwarded-Method": method}
        target, method = f"/forward-auth/redirect{demand}", "GET"
    else:
        sent |= host_headers
        target = f"/forward-auth/envoy{demand}{path}"
    answer = program(app).open(
        target,
        method=method,
        headers=sent,
        environ_overrides={
            "PATH_INFO": unquote(target.partition("?")[0], "latin-1"),
            "RAW_URI": target,
        },
    )
    assert all(len(answer.headers.getlist(name)) == 1 for name in NAMES)
    return answer


def identity(answer: TestResponse) -> set[str]:
    return {answer.headers[name] for name in NAMES} - {""}


@pytest.mark.parametrize("proxy", PROXIES)
def test_each_path_has_its_demands(app: Flask, token: str, person: str, proxy: str) -> None:
    expected = {
        "/": (401, 200),
        "/page?x=1": (401, 200),
        "/public/a": (200, 200),
        "/api/notes": (401, 200),
        "/staff": (401, 403),
        "/staff/a?role=user": (401, 403),
        "/secret": (401, 403),
        "/known": (401, 200),
    }
    for path, (nobody, signed_in) in expected.items():
        assert ask(app, proxy, path).status_code == nobody, path
        answer = ask(app, proxy, path, token)
        assert answer.status_code == signed_in, path
        assert answer.headers["Remote-User"] == person
    grant_role(services_of(app), EMAIL, "admin")
    assert ask(app, proxy, "/staff", token).status_code == 200


@pytest.mark.parametrize("proxy", PROXIES)
def test_other_hosts_and_other_spellings_are_refused(app: Flask, token: str, proxy: str) -> None:
    for path, host in (
        ("/public", "other.example.org"),
        ("/public", "app.example.org:8443"),
        ("/public", "app.example.org."),
        ("/public/../staff", "app.example.org"),
        ("//public", "app.example.org"),
        ("/public/%2e%2e/staff", "app.example.org"),
        ("/public%2fa", "app.example.org"),
        ("/public/%5c", "app.example.org"),
        ("/public/%ff", "app.example.org"),
        ("/public/..;/staff", "app.example.org"),
        ("/Staff", "app.example.org"),
    ):
        for sent in ("", token):
            answer = ask(app, proxy, path, sent, host=host)
            assert (answer.status_code, identity(answer)) == (403, set()), path


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_preflight_passes_by_a_rule_and_as_nobodys(app: Flask, token: str, proxy: str) -> None:
    for path, nobody in (("/api/notes", 200), ("/page", 401)):
        for sent in ("", token):
            answer = ask(app, proxy, path, sent, method="OPTIONS", headers=PREFLIGHT)
            if nobody == 200 or not sent:
                assert (answer.status_code, identity(answer)) == (nobody, set())
    assert ask(app, proxy, "/api/notes", token, method="OPTIONS").headers["Remote-User"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_rules_and_the_proxy_s_own_demands_hold_together(
    app: Flask, token: str, proxy: str
) -> None:
    for path, demand, nobody, signed_in in (
        ("/public", ";role=user", 401, 200),
        ("/public", ";role=admin", 401, 403),
        ("/public", ";factor=2", 401, 403),
        ("/page", ";role=admin", 401, 403),
        ("/page", ";factor=2", 401, 403),
        ("/staff", ";role=user", 401, 403),
        ("/page", ";factor=1", 400, 400),
        ("/other/../page", ";preflight=pass", 403, 403),
    ):
        assert ask(app, proxy, path, demand=demand).status_code == nobody, demand
        assert ask(app, proxy, path, token, demand=demand).status_code == signed_in, demand


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_second_factor_is_demanded(app: Flask, token: str, stores: Stores, proxy: str) -> None:
    for amr, expected in (("{pwd}", 403), ("{otp}", 403), ("{pwd,otp}", 200), ("{hwk,user}", 200)):
        stores.sql(
            "SET LOCAL authapp.fenced = 'on'; UPDATE sessions SET amr = %s, ver = ver + 1", amr
        )
        stores.redis.flushall()
        assert ask(app, proxy, "/secret", token).status_code == expected, amr
        assert ask(app, proxy, "/page", token, demand=";factor=2").status_code == expected, amr


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_verified_address_is_demanded(app: Flask, proxy: str) -> None:
    sign_up(app)
    other = "eve@example.org"
    services_of(app).registration.sign_up(other, "seven quiet rivers meet", "Eve", verified=False)
    client = behind_proxy(browser(app))
    assert log_in(client, other).status_code == 303
    answer = ask(app, proxy, "/known", token_of(client))
    assert answer.status_code == 403
    assert ask(app, proxy, "/page", token_of(client)).status_code == 200


@pytest.mark.parametrize("proxy", PROXIES)
def test_public_pages_stay_public_while_nobody_can_say_who_asks(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    def fails(*_args: object) -> None:
        raise StoreUnavailable("redis")

    monkeypatch.setattr(Authenticator, "find", fails)
    answer = ask(app, proxy, "/public", token)
    assert (answer.status_code, identity(answer)) == (200, set())
    answer = ask(app, proxy, "/page", token)
    assert (answer.status_code, identity(answer)) == (503, set())


def test_a_proxy_that_does_not_say_which_page_it_is_lets_nobody_pass(
    app: Flask, token: str
) -> None:
    for headers in ({}, {"X-Original-URI": "/public"}, {"X-Original-URL": "/public"}):
        sent = {"Cookie": f"{COOKIE}={token}", **headers}
        assert program(app).get("/forward-auth/nginx", headers=sent).status_code == 403
    sent = {"Cookie": f"{COOKIE}={token}", "X-Forwarded-Host": "app.example.org"}
    assert program(app).get("/forward-auth/redirect", headers=sent).status_code == 403


def test_rules_that_cannot_be_used_stop_the_start(make_app: MakeApp, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="it can't be read"):
        make_app(GUARD_RULES=tmp_path / "missing.toml")
