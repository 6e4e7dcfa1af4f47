"""On every way to log-in people are told why they were signed out."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.sessions.records import EndReason
from authapp.web.pages.messages import LOG_IN_FIRST, SIGNED_OUT
from tests.web.support import COOKIE, EMAIL, Page, browser, program, services_of, token_of

TOLD = "You were signed out because your password was changed."
HTML = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
ASKED = {"X-Original-URL": "/report", "X-Forwarded-Uri": "/report"}


@pytest.fixture
def signed_out(app: Flask, signed_in: FlaskClient) -> FlaskClient:
    services_of(app).password_changes.set_password(EMAIL, "five cold engines hum")
    return signed_in


def follow(client: FlaskClient, answer: TestResponse) -> TestResponse:
    assert answer.location, answer.status
    return client.get(answer.location, headers=HTML)


# each way by which a browser gets to the log-in page
WAYS: dict[str, Callable[[FlaskClient], TestResponse]] = {
    "the page itself": lambda client: client.get("/login"),
    "a protected page": lambda client: follow(client, client.get("/account?x=1", headers=HTML)),
    "a form that is sent": lambda client: follow(
        client, client.post("/account", data={"name": "x"}, headers=HTML)
    ),
    "a page of administrators": lambda client: follow(client, client.get("/admin/users")),
    "password managers": lambda client: follow(
        client, follow(client, client.get("/.well-known/change-password"))
    ),
    "nginx": lambda client: follow(client, client.get("/forward-auth/nginx", headers=ASKED)),
    "another proxy": lambda client: follow(
        client, client.get("/forward-auth/redirect", headers=HTML | ASKED)
    ),
    "the link of another page": lambda client: (client.get("/signup"), client.get("/login"))[1],
    "the start page": lambda client: client.get("/"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_log_in_tells_why(signed_out: FlaskClient, way: str) -> None:
    answer = WAYS[way](signed_out)
    assert answer.status_code == 200
    assert TOLD in Page(answer).text


LEADS_TO_NO_PAGE = {
    "the page itself",
    "a form that is sent",  # nobody says from which page
    "the link of another page",
    "the start page",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_visitor_is_told_that_a_page_needs_a_log_in(app: Flask, way: str) -> None:
    answer = WAYS[way](browser(app))
    assert answer.status_code == 200
    assert (LOG_IN_FIRST in Page(answer).text) is (way not in LEADS_TO_NO_PAGE)


def test_the_start_page_of_an_app_may_need_a_log_in_too(app: Flask) -> None:
    assert LOG_IN_FIRST in Page(browser(app).get("/login?next=/")).text
    after_a_try = browser(app).get("/login?next=/&cookie=sent")
    assert LOG_IN_FIRST not in Page(after_a_try).text


@pytest.mark.parametrize("path", ["/", "/login"])
def test_nothing_is_told_to_a_visitor_who_was_not_signed_in(app: Flask, path: str) -> None:
    for cookies in ("", f"{COOKIE}={'x' * 64}"):
        answer = browser(app).get(path, headers={"Cookie": cookies})
        assert "signed out" not in Page(answer).text


def test_nobody_is_told_of_what_they_did_themselves(signed_in: FlaskClient) -> None:
    token = token_of(signed_in)
    assert signed_in.post("/logout").status_code == 303
    answer = signed_in.get("/login", headers={"Cookie": f"{COOKIE}={token}"})
    assert "signed out" not in Page(answer).text


def test_programs_are_told_in_the_detail(app: Flask, signed_out: FlaskClient) -> None:
    refused = signed_out.get("/api/v1/me")
    assert (refused.status_code, refused.get_json()["code"]) == (401, "session_invalid")
    assert refused.get_json()["detail"] == f"{TOLD} Log in again."
    unknown = program(app).get("/api/v1/me", headers={"X-Access-Token": "x"})
    assert "signed out" not in unknown.get_json()["detail"]


def test_every_reason_that_is_not_the_person_s_own_act_has_its_sentence() -> None:
    assert set(EndReason) - set(SIGNED_OUT) == {EndReason.LOGOUT, EndReason.REPLACED}
    assert all(told.startswith("You were signed out because ") for told in SIGNED_OUT.values())
