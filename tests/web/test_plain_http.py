"""A cookie with Secure over plain http logs nobody in; page, program and log are told."""

import logging
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.web.cookies.plain_http import drops_cookie
from tests.web.conftest import MakeApp
from tests.web.support import COOKIE, EMAIL, PASSWORD, Page, cookies_of, program, sign_up

KNOWN = {"email": EMAIL, "password": PASSWORD}
FAR = {"Host": "auth.example.org:8000"}
SENTENCE = "your browser did not keep you signed in"


@pytest.fixture
def own(make_app: MakeApp) -> Flask:
    """An application that has warned nobody yet."""
    app = make_app()
    sign_up(app)
    return app


def log_in(app: Flask, **headers: str) -> TestResponse:
    return program(app).post(
        "/login", query_string={"next": "/account"}, data=KNOWN, headers={**FAR, **headers}
    )


def by_api(app: Flask, **how: Any) -> TestResponse:
    how["headers"] = FAR | how.get("headers", {})
    return program(app).post("/api/v1/login", json=KNOWN, **how)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "session_cookie_dropped" in r.getMessage()]


CASES = {
    "another host": (FAR, True),
    "an address": ({"Host": "192.0.2.7:8000"}, True),
    "an address in another spelling": ({"Host": "[2001:db8::1]"}, True),
    "a name that begins like this machine's": ({"Host": "localhost.example.org"}, True),
    "an address that begins like this machine's": ({"Host": "127.0.0.1.example.org"}, True),
    "this machine": ({"Host": "localhost:8000"}, False),
    "a name of this machine": ({"Host": "app.localhost"}, False),
    "an address of this machine": ({"Host": "127.0.0.1:8000"}, False),
    "another address of this machine": ({"Host": "127.8.0.1"}, False),
    "this machine by IPv6": ({"Host": "[::1]:8000"}, False),
    "a browser that has https, by a proxy we don't know": (
        FAR | {"Sec-Fetch-Site": "same-origin"},
        False,
    ),
}


@pytest.mark.parametrize(("headers", "is_dropped"), CASES.values(), ids=CASES)
def test_when_the_cookie_is_dropped_all_are_told(
    own: Flask, headers: dict[str, str], is_dropped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        body = by_api(own, headers=headers).get_json()
        leads_to = log_in(own, **headers).headers["Location"]
    assert ("warning" in body) is is_dropped
    assert set(body) - {"warning"} == {"user", "session"}
    assert leads_to == ("/login?next=/account&cookie=sent" if is_dropped else "/account")
    assert len(warnings(caplog)) == is_dropped, "once"
    for line in warnings(caplog):
        assert "SESSION_COOKIE_SECURE" in line
        assert "TRUSTED_PROXY_HOPS" in line


def test_the_page_says_so_where_the_cookie_did_not_come_back(own: Flask) -> None:
    answer = log_in(own)
    page = program(own).get(answer.headers["Location"], headers={**FAR, "Accept": "text/html"})
    assert SENTENCE in Page(page).text
    fresh = next(cookie for cookie in cookies_of(answer) if cookie.name == COOKIE)
    back = {**FAR, "Cookie": f"{COOKIE}={fresh.value}"}
    onward = program(own).get(answer.headers["Location"], headers=back)
    assert (onward.status_code, onward.headers["Location"]) == (302, "/account")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/login", FAR),
        ("/login?next=/account", FAR),
        ("/login?cookie=sent", {"Host": "localhost"}),
        ("/login?cookie=sent", FAR | {"Sec-Fetch-Site": "none"}),
    ],
)
def test_else_it_says_nothing(own: Flask, path: str, headers: dict[str, str]) -> None:
    assert SENTENCE not in program(own).get(path, headers=headers).get_data(as_text=True)


def test_nobody_is_told_where_the_cookie_is_kept(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    plain, proxied = make_app(SESSION_COOKIE_SECURE=False), make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(plain)
    said = {"X-Forwarded-For": "192.0.2.1"}
    with caplog.at_level(logging.WARNING):
        answers = [
            by_api(plain),
            by_api(proxied, headers={**said, "X-Forwarded-Proto": "https"}),
            by_api(proxied, headers=said, base_url="https://auth.example.org"),
        ]
    assert [set(answer.get_json()) for answer in answers] == [{"user", "session"}] * 3
    assert warnings(caplog) == []


def test_a_request_without_a_host_is_no_this_machine() -> None:
    assert drops_cookie({"wsgi.url_scheme": "http"}, secure=True)
    assert not drops_cookie({"wsgi.url_scheme": "http"}, secure=False)
