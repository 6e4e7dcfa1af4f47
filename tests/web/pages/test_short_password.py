"""A password that is shorter than a new one has to be still logs in, and another is asked for."""

import re

import bcrypt
import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.web.pages.messages import TOO_SHORT_NOW
from tests.authentication.test_imported_users import bring
from tests.support.people import EMAIL
from tests.web.support import PASSWORD, browser, log_in, services_of, sign_up

SHORT = "old one"


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser of somebody who came along with a short password."""
    bring(services_of(app), bcrypt.hashpw(SHORT.encode(), bcrypt.gensalt(4)).decode())
    return browser(app)


def page_after_login(client: FlaskClient, onward: str) -> str:
    body = {"email": EMAIL, "password": SHORT, "next": onward}
    answer = client.post("/login", data=body, follow_redirects=True)
    assert answer.request.path == "/account/password"
    return answer.text


def test_log_in_leads_to_the_page_for_a_new_one_and_from_there_on(client: FlaskClient) -> None:
    page = page_after_login(client, "/account/sessions")
    assert TOO_SHORT_NOW in page
    (link,) = re.findall(r'href="([^"]*)">Not now<', page)
    assert link == "/account/sessions"
    assert client.get(link).status_code == 200


def test_no_foreign_place_is_led_to(client: FlaskClient) -> None:
    assert '<a class="btn btn-quiet" href="/">Not now' in page_after_login(
        client, "https://evil.example/"
    )
    other = client.get("/account/password?next=https://evil.example/").text
    assert "evil" not in other


def test_it_is_asked_for_until_there_is_a_longer_one(client: FlaskClient, app: Flask) -> None:
    page_after_login(client, "/")
    again = browser(app)
    page_after_login(again, "/")
    changed = again.post(
        "/account/password?next=/", data={"current_password": SHORT, "new_password": PASSWORD}
    )
    assert (changed.status_code, changed.location) == (303, "/")
    assert log_in(browser(app), EMAIL, PASSWORD).location == "/"


def test_a_new_one_that_is_refused_leaves_the_way_on(client: FlaskClient) -> None:
    page_after_login(client, "/account")
    answer = client.post(
        "/account/password?next=/account", data={"current_password": SHORT, "new_password": "x"}
    )
    assert answer.status_code == 400
    assert 'href="/account">Not now<' in answer.text


def test_the_api_says_so_in_its_answer(client: FlaskClient, app: Flask) -> None:
    body = {"email": EMAIL, "password": SHORT}
    assert client.post("/api/v1/login", json=body).json["password_advice"] == TOO_SHORT_NOW  # type: ignore[index]
    sign_up(app, "bob@example.org")
    body = {"email": "bob@example.org", "password": PASSWORD}
    answer = browser(app).post("/api/v1/login", json=body)
    assert answer.status_code == 200
    assert answer.json
    assert "password_advice" not in answer.json
