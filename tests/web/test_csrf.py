"""Unsafe requests that another origin made a browser send do nothing."""

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    log_in,
    program,
    sign_up,
    token_of,
)

LOGIN = {"email": EMAIL, "password": PASSWORD}
NEW = {"email": "new@example.org", "password": PASSWORD, "name": ""}
CHANGE = {"current_password": PASSWORD, "new_password": "another long enough one"}

UNSAFE: dict[str, dict[str, Any]] = {
    "/login": {"data": LOGIN},
    "/signup": {"data": NEW},
    "/logout": {},
    "/account": {"data": {"name": "Mallory"}},
    "/account/password": {"data": CHANGE},
    "/account/sessions/end-others": {},
    "/account/sessions/00000000-0000-0000-0000-000000000000/end": {},
    "/api/v1/login": {"json": LOGIN},
    "/api/v1/signup": {"json": NEW},
    "/api/v1/logout": {},
}

# name: headers, whether they pass without the cookie, whether with it
CASES: dict[str, tuple[dict[str, str], bool, bool]] = {
    "a page of ours": ({"Sec-Fetch-Site": "same-origin"}, True, True),
    "the person": ({"Sec-Fetch-Site": "none"}, True, True),
    "a neighbouring host": ({"Sec-Fetch-Site": "same-site"}, False, False),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, False, False),
    "nonsense": ({"Sec-Fetch-Site": "Same-Origin"}, False, False),
    "nothing in it": ({"Sec-Fetch-Site": ""}, False, False),
    "another site with our Origin": (
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        False,
        False,
    ),
    "another site with a program's header": (
        {"Sec-Fetch-Site": "cross-site", "X-Requested-With": "x"},
        False,
        False,
    ),
    "ours, Origin only": ({"Origin": "http://localhost"}, True, True),
    "another Origin": ({"Origin": "https://e.example"}, False, False),
    "another Origin with a program's header": (
        {"Origin": "https://e.example", "X-Requested-With": "x"},
        False,
        False,
    ),
    "Origin: null": ({"Origin": "null"}, False, False),
    "no Origin in it": ({"Origin": ""}, False, False),
    "our host by https": ({"Origin": "https://localhost"}, False, False),
    "our host on another port": ({"Origin": "http://localhost:81"}, False, False),
    "our host as a prefix": ({"Origin": "http://localhost.e.example"}, False, False),
    "neither": ({}, True, False),
    "neither, a program's header": ({"X-Requested-With": "curl"}, True, True),
    "neither, a Referer": ({"Referer": "http://localhost/"}, True, False),
}


def is_refusal(answer: TestResponse, path: str) -> bool:
    if answer.status_code != 403:
        return False
    if path.startswith("/api/"):
        assert answer.get_json()["code"] == "cross_origin"
    else:
        assert "Error 403" in answer.get_data(as_text=True)
    return True


@pytest.mark.parametrize("with_cookie", [False, True], ids=["no cookie", "cookie"])
@pytest.mark.parametrize("case", CASES)
def test_who_may_act(app: Flask, stores: Stores, case: str, with_cookie: bool) -> None:
    headers, *passes = CASES[case]
    client = browser(app)

    def start_anew() -> None:
        stores.clear()
        sign_up(app)
        if with_cookie:
            log_in(client)
            headers["Cookie"] = f"{COOKIE}={token_of(client)}"

    headers = dict(headers)
    start_anew()
    for path, body in UNSAFE.items():
        before = stores.sql("SELECT name, epoch FROM users"), stores.rows()

        answer = program(app).post(path, headers=headers, **body)

        assert is_refusal(answer, path) is not passes[with_cookie], path
        if passes[with_cookie]:
            start_anew()
            continue
        assert not cookies_of(answer), path
        assert (stores.sql("SELECT name, epoch FROM users"), stores.rows()) == before, path
        if with_cookie:
            assert client.get("/account").status_code == 200, path


def test_reading_is_open_to_all(app: Flask, person: str) -> None:
    client = browser(app)
    log_in(client)
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"}
    for path in ("/", "/account", "/login", "/api/v1/me", "/healthz"):
        assert client.get(path, headers=headers).status_code in {200, 302}, path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MOVE"])
def test_every_unsafe_method_is_checked_before_the_route(app: Flask, method: str) -> None:
    for path in ("/", "/login", "/api/v1/me", "/healthz", "/nothing"):
        answer = program(app).open(path, method=method, headers={"Origin": "https://e.example"})
        assert answer.status_code == 403, path


def test_a_program_without_a_cookie_logs_in_and_goes_on(app: Flask, person: str) -> None:
    curl = app.test_client()  # keeps cookies, says nothing of its origin
    assert curl.post("/login", data=LOGIN).status_code == 303
    assert curl.get("/account").status_code == 200
    refused = curl.post("/logout")
    assert refused.status_code == 403
    assert "X-Requested-With" in refused.get_data(as_text=True)
    assert curl.post("/logout", headers={"X-Requested-With": "curl"}).status_code == 303


def test_a_cookie_with_a_prefixed_name_is_seen_too(app: Flask) -> None:
    for cookie in (f"{COOKIE}=x", f"a=1; {COOKIE}=x", f"\t{COOKIE} =x", f'{COOKIE}="x"'):
        assert program(app).post("/logout", headers={"Cookie": cookie}).status_code == 403, cookie
