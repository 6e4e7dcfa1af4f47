"""Each real proxy with its files of deploy/, before authapp and an app that tells what it got.

People log in on another host than the app's. Clients send headers in the name of a proxy.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPResponse
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from playwright.sync_api import Page, expect, sync_playwright

from tests.deploy.files import DEPLOY
from tests.deploy.guarded import COOKIE, EMAIL, Guarded, SignedIn, Start, both_stores_away
from tests.deploy.guarding import APP, AUTH, KEEPS_COOKIES
from tests.journeys.conftest import CHROMIUM_OPTIONS, PATIENCE, chromium_program
from tests.support.people import PASSWORD
from tests.web.forward_auth import NAMES

PAGE = ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")


# -- people ----------------------------------------------------------------------------------------


@pytest.fixture
def page(guarded: Guarded) -> Iterator[Page]:
    """A browser for which all hosts are the proxy's."""
    rules = f"MAP *.example.org 127.0.0.1:{guarded.port}, EXCLUDE 127.0.0.1"
    options = [o for o in CHROMIUM_OPTIONS if not o.startswith("--host-resolver-rules")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_program(), args=[*options, f"--host-resolver-rules={rules}"]
        )
        context = browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(PATIENCE)
        yield context.new_page()
        browser.close()


def test_somebody_logs_in_on_the_other_host_and_out_again(page: Page, guarded: Guarded) -> None:
    target = f"https://{APP}/notes?role=admin&x=a+b%2Fc"
    page.goto(target)
    expect(page).to_have_url(re.compile(rf"https://{AUTH}/login\?next="))
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(target)
    expect(page.locator("body")).to_contain_text('"path": "/notes?role=admin&x=a+b%2Fc"')
    page.goto(f"https://{APP}/forward-auth/logout?next=/bye")
    expect(page).to_have_url(f"https://{AUTH}/logout?next=https%3A//{APP}/bye")
    page.goto(target)
    expect(page).to_have_url(target)  # a link ended nothing
    page.go_back()
    page.get_by_role("main").get_by_role("button", name="Log out").click()
    # which leads back to the app, and that to log-in
    expect(page).to_have_url(f"https://{AUTH}/login?next=https%3A//{APP}/bye")


def test_who_is_not_signed_in_does_not_reach_the_app(guarded: Guarded, auth: Flask) -> None:
    for token in ("", "A" * 64):
        answer = guarded.ask("/notes?x=1&role=admin", token, PAGE)
        assert answer.status in {302, 303}
        location = urlsplit(answer.headers["Location"])
        assert location._replace(query="").geturl() == f"https://{AUTH}/login"
        assert parse_qs(location.query)["next"] == [f"https://{APP}/notes?x=1&role=admin"]
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
            answer = guarded.ask("/notes", token, method=method, body=b"x" * 1000)
            assert answer.status in {302, 303, 401}, method
        assert guarded.ask("/", token, ("Accept", "application/json")).status in {303, 401}


def test_the_app_gets_the_whole_request_and_no_session(guarded: Guarded, ada: SignedIn) -> None:
    answer = guarded.ask("/notes?x=1&y=%2F&x=2", ada.token)
    assert answer.told["path"] == "/notes?x=1&y=%2F&x=2"
    assert answer.identity() == ada.identity()
    assert "Set-Cookie" not in answer.headers
    cookies = "; ".join(v for n, v in answer.told["headers"] if n.lower() == "cookie")
    assert "theme=dark" in cookies
    assert "lang=en" in cookies
    assert (ada.token in cookies) is (guarded.name in KEEPS_COOKIES)


def test_ten_megabytes_arrive(guarded: Guarded, ada: SignedIn) -> None:
    size = 10_000_000
    answer = guarded.ask("/upload", ada.token, method="POST", body=b"x" * size)
    assert (answer.told["method"], answer.told["body"]) == ("POST", size)


# each is the least that one of its own limits must say; Caddy has none by itself
PATIENT = {
    "nginx": ("nginx/guarded-app.conf", ("proxy_read_timeout 1h;",)),
    "caddy": ("caddy/Caddyfile", ()),
    "traefik": ("traefik/traefik.yaml", ("readTimeout: 10m",)),
    "envoy": (
        "envoy/envoy.yaml",
        ("stream_idle_timeout: 0s", "route: { cluster: app, timeout: 0s }"),
    ),
    "haproxy": ("haproxy/haproxy.cfg", ("timeout tunnel 1h", "timeout server 1h")),
}
LONG_SECONDS = 75 if os.environ.get("EXPLORE_LONG") else 1


def test_an_answer_may_be_long_in_coming(guarded: Guarded, ada: SignedIn) -> None:
    file, limits = PATIENT[guarded.name.split("-")[0]]
    text = (DEPLOY / file).read_text()
    assert all(limit in text for limit in limits)
    assert "response_header_timeout" not in text
    answer = guarded.ask(f"/later?{LONG_SECONDS}", ada.token)
    assert answer.identity() == ada.identity()


def test_a_websocket_echoes(guarded: Guarded, ada: SignedIn) -> None:
    frame = b"\x81\x85mask" + bytes(c ^ m for c, m in zip(b"hello", b"maskm", strict=True))
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for cookie in (f"Cookie: {COOKIE}={ada.token}\r\n", ""):
        with closing(guarded.connect()) as connection:
            asked = f"GET /ws HTTP/1.1\r\nHost: {APP}\r\n{upgrade}{cookie}\r\n"
            connection.sendall(asked.encode())
            answer = HTTPResponse(connection)
            answer.begin()
            if not cookie:
                assert answer.status in {302, 303, 401}
                return
            assert answer.status == 101
            assert answer.headers["Remote-User-Seen"] == ada.person
            connection.sendall(frame)
            echoed = b""
            while len(echoed) < len(frame):
                echoed += connection.recv(100)
            assert echoed == frame


def test_503_stays_503_and_logs_nobody_out(guarded: Guarded, ada: SignedIn, auth: Flask) -> None:
    with both_stores_away(auth):
        answer = guarded.ask("/notes", ada.token, PAGE)
        assert answer.status == 503
        assert "Set-Cookie" not in answer.headers
        assert "Location" not in answer.headers
    assert guarded.ask("/notes", ada.token).identity() == ada.identity()


def test_who_logged_out_is_out_at_once(guarded: Guarded) -> None:
    token, _ = guarded.log_in(EMAIL, PASSWORD)
    assert guarded.ask("/", token).reached_app
    origin = ("Origin", f"https://{AUTH}")
    assert guarded.ask("/logout", token, origin, method="POST", host=AUTH).status == 303
    assert guarded.ask("/", token).status in {303, 401}


def test_what_operators_and_proxies_ask_is_closed(guarded: Guarded) -> None:
    for path in (
        "/metrics",
        "/readyz",
        "/readyz/",
        "/x/metrics",
        "/%6detrics",
        "/forward-auth/nginx",
    ):
        assert guarded.ask(path, host=AUTH).status == 404, path
    assert guarded.ask("/healthz", host=AUTH).status == 200


# -- attackers -------------------------------------------------------------------------------------

ALIASES = ("Remote{}User", "remote{}user", "REMOTE{}GROUPS", "Remote{}Email", "Remote{}Amr")
SEPARATORS = "-_.!~+*'|^`#$%&"
IDENTITIES = {
    "each name": tuple((name, "root") for name in NAMES),
    "each name twice": tuple((name, "root") for name in NAMES * 2),
    **{
        f"with {mark}": tuple((alias.format(mark), "root") for alias in ALIASES)
        for mark in SEPARATORS
    },
    "in the name of proxies": (
        ("X-Forwarded-User", "root"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Host", AUTH),
        ("X-Forwarded-Uri", "/?role=x"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-Original-URL", f"https://{AUTH}/"),
        ("X-Original-Method", "OPTIONS"),
        ("X-Rewrite-URL", "/"),
        ("Forwarded", f"for=1.2.3.4;host={AUTH}"),
    ),
    "Connection": (("Connection", ", ".join(NAMES)), *((name, "root") for name in NAMES)),
}


@pytest.mark.parametrize("what", IDENTITIES)
def test_no_header_of_a_client_becomes_an_identity(
    guarded: Guarded, ada: SignedIn, what: str
) -> None:
    sent = IDENTITIES[what]
    answer = guarded.ask("/", ada.token, *sent)
    if answer.status == 400:  # Envoy, of some names
        return
    assert answer.identity() == ada.identity()
    assert not guarded.ask("/", "", *sent).reached_app


RAW = {
    "a name with a space before the colon": "Remote-User : root\n",
    "a folded header": "X: y\n Remote-User: root\n",
    "a tab": "\tRemote-User: root\n",
    "an empty name": ": root\nRemote-User: root\n",
    "a bare line feed in a value": "X: y\x0aRemote-User: root\n",
    "a NUL": "Remote-User\x00: root\n",
    "another host": f"Host: {AUTH}\n",
}


@pytest.mark.parametrize("what", RAW)
def test_no_odd_spelling_becomes_an_identity(guarded: Guarded, ada: SignedIn, what: str) -> None:
    for cookie in (f"Cookie: {COOKIE}={ada.token}\n", ""):
        request = f"GET / HTTP/1.1\nHost: {APP}\n{RAW[what]}{cookie}Connection: close\n\n"
        answer = guarded.ask_raw(request)
        if answer.reached_app:
            assert cookie
            assert answer.identity() == ada.identity()


@pytest.mark.parametrize(
    "line",
    [
        f"GET https://{AUTH}/login HTTP/1.1",
        f"GET https://{AUTH}/notes HTTP/1.1",
        f"GET http://{AUTH}@{APP}/notes HTTP/1.1",
        "GET //notes HTTP/1.1",
        "GET /login/../notes HTTP/1.1",
        "GET /%2e%2e/notes HTTP/1.1",
        "GET /healthz%2f..%2fnotes HTTP/1.1",
        "GET /;role=x/../notes HTTP/1.1",
        "GET /forward-auth HTTP/1.1",
        "GET /forward-auth/nginx HTTP/1.1",
        "GET /notes?/healthz HTTP/1.1",
        "GET /notes#/healthz HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /notes HTTP/1.1",
        "FROB /notes HTTP/1.1",
        "get /notes HTTP/1.1",
        "CONNECT app.example.org:443 HTTP/1.1",
        "GET /notes HTTP/1.0",
    ],
)
def test_no_path_or_method_leads_past_the_question(guarded: Guarded, line: str) -> None:
    answer = guarded.ask_raw(f"{line}\nHost: {APP}\nConnection: close\n\n")
    assert not answer.reached_app
    assert "Remote-User" not in answer.headers or not answer.headers["Remote-User"]


# to some proxies these are the way to the log-out page, to others not
@pytest.mark.parametrize(
    "path",
    [
        "/forward-auth/logout",
        "/forward-auth/redirect;assertion=1/../logout",
        "/forward-auth/redirect;assertion=1;login=/../logout",
        "/forward-auth/envoy;assertion=1/../../forward-auth/logout",
        "/forward-auth/envoy/x/../../logout",
        "/forward-auth/nginx/../logout",
        "/forward-auth/nginx%2f..%2flogout",
        "/forward-auth/nginx/%2e%2e/logout",
        "/forward-auth/nginx\\..\\logout",
        "//forward-auth/logout",
        "/forward-auth/logout/",
        "/Forward-Auth/Logout",
        "/forward-auth/logout;assertion=1",
        "/forward-auth/logou%74?assertion=1",
    ],
)
def test_the_way_to_the_log_out_page_asks_authapp_nothing_else(
    guarded: Guarded, ada: SignedIn, path: str
) -> None:
    request = f"GET {path} HTTP/1.1\nHost: {APP}\nCookie: {COOKIE}={ada.token}\n"
    answer = guarded.ask_raw(f"{request}Connection: close\n\n")
    assert not any(answer.headers[name] for name in NAMES)
    if answer.reached_app:  # as any other page of it
        assert answer.identity() == ada.identity()
    else:
        assert answer.status in {0, 302, 307, 308, 400, 404}
    if path == "/forward-auth/logout":
        assert answer.headers["Location"] == f"https://{AUTH}/logout?next=https%3A//{APP}/"


@pytest.mark.parametrize(
    "query", ["x=1", "role=admin", "roles=x", "login=https://e.example", "%zz"]
)
def test_a_visitors_query_demands_nothing(guarded: Guarded, ada: SignedIn, query: str) -> None:
    answer = guarded.ask(f"/page?{query}", ada.token)
    assert answer.told["path"] == f"/page?{query}"


# -- demands ---------------------------------------------------------------------------------------

# the text in its file, and the same with a demand and a leave
DEMANDING = {
    "nginx": ("authapp/forward-auth/nginx;", "authapp/forward-auth/nginx?{};"),
    "caddy": ("forward-auth/redirect?\n", "forward-auth/redirect;{}?\n"),
    "traefik": ("/forward-auth/redirect\n", "/forward-auth/redirect;{}\n"),
    "envoy": ("path_prefix: /forward-auth/envoy", "path_prefix: /forward-auth/envoy;{}"),
    "haproxy": ("/forward-auth/redirect if", "/forward-auth/redirect;{} if"),
}


@pytest.fixture(scope="module")
def restricted(guarded: Guarded, start: Start) -> Guarded:
    """The same proxy with a role that Ada lacks, and with preflights let through."""
    old, new = DEMANDING[guarded.name.split("-")[0]]
    separator = "&" if guarded.name.startswith("nginx") else ";"
    demand = separator.join(("role=admin", "preflight=pass"))
    return start(guarded.name, {old: new.format(demand)})


def test_a_role_is_demanded_whatever_the_visitor_writes(restricted: Guarded, ada: SignedIn) -> None:
    for path in ("/", "/?role=user", "/;role=user", "/?role=admin", "/;role=user/?role=user"):
        assert restricted.ask(path, ada.token).status == 403, path


def test_a_preflight_passes_as_nobodys_where_it_may(
    guarded: Guarded, restricted: Guarded, ada: SignedIn
) -> None:
    asking = (("Origin", "https://e.example"), ("Access-Control-Request-Method", "PUT"))
    smuggled = (*asking, *((name, "root") for name in NAMES))
    for token in ("", ada.token):
        answer = restricted.ask("/api", token, *smuggled, method="OPTIONS")
        assert answer.told["method"] == "OPTIONS"
        assert answer.identity() == {}
    assert not restricted.ask("/api", "", *asking).reached_app
    assert not restricted.ask("/api", "", asking[0], method="OPTIONS").reached_app
    assert not guarded.ask("/api", "", *asking, method="OPTIONS").reached_app
