"""Scripts of the origins in CORS_ORIGINS may read `GET /api/v1/me` with the cookie, and no more."""

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.web.conftest import MakeApp
from tests.web.support import COOKIE, EMAIL, browser, log_in, program, token_of

ME = "/api/v1/me"
APP = "https://app.example.org"
GRANTS = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials")


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(CORS_ORIGINS=f"{APP},https://other.example.org")


def ask(app: Flask, path: str, origin: str, method: str = "GET", **headers: str) -> TestResponse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent |= {"Origin": origin, "Sec-Fetch-Site": "same-site"}
    return program(app).open(path, method=method, headers=sent)


def grants(answer: TestResponse) -> list[str]:
    return [value for name, value in answer.headers if name.startswith("Access-Control-")]


@pytest.mark.usefixtures("through")
def test_a_script_of_a_listed_origin_reads_who_is_asking(app: Flask, person: str) -> None:
    client = browser(app)
    log_in(client)
    cookie = f"{COOKIE}={token_of(client)}"
    answer = ask(app, ME, APP, Cookie=cookie)
    assert (answer.status_code, answer.get_json()["email"]) == (200, EMAIL)
    assert [answer.headers[name] for name in GRANTS] == [APP, "true"]
    assert "Origin" in ", ".join(answer.headers.getlist("Vary"))
    refused = ask(app, ME, APP)  # which the script must be able to tell
    assert (refused.status_code, grants(refused)) == (401, [APP, "true"])


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "https://e.example",
        f"{APP}.e.example",
        "http://app.example.org",
        f"{APP}:8443",
        APP.upper(),
        f"{APP}, https://e.example",
    ],
)
def test_nobody_else_does(app: Flask, origin: str) -> None:
    answer = ask(app, ME, origin)
    assert grants(answer) == []
    assert "Origin" in ", ".join(answer.headers.getlist("Vary")), "a cache must tell them apart"


def test_reading_gives_no_right_to_act(app: Flask, person: str) -> None:
    client = browser(app)
    log_in(client)
    cookie = f"{COOKIE}={token_of(client)}"
    for method, path in (
        ("PATCH", ME),
        ("DELETE", ME),
        ("POST", "/api/v1/logout"),
        ("POST", "/logout"),
        ("DELETE", "/api/v1/me/sessions"),
    ):
        answer = ask(app, path, APP, method, Cookie=cookie)
        assert (answer.status_code, grants(answer)) == (403, []), path
    for path in ("/api/v1/me/sessions", "/account", "/", "/api/v1/me/", "//api/v1/me"):
        assert grants(ask(app, path, APP, Cookie=cookie)) == [], path
    asking = {"Access_Control_Request_Method": "PATCH"}
    for method in ("GET", "PATCH"):
        asking = {"Access_Control_Request_Method": method}
        assert grants(ask(app, ME, APP, "OPTIONS", **asking)) == []
    assert client.get(ME).status_code == 200


def test_without_the_setting_there_is_no_such_header(make_app: MakeApp) -> None:
    answer = ask(make_app(), ME, APP)
    assert grants(answer) == []
    assert "Origin" not in ", ".join(answer.headers.getlist("Vary"))
