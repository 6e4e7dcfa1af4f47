"""The pages of a forgotten password, and of the choice of another."""

import logging

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.accounts.actor import OPERATOR
from authapp.authentication.recovery import forgotten
from tests.support.mails import MAIL_SETTINGS, WITHOUT_VERIFICATION, mails
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    services_of,
    sign_up,
    signed_in_as,
)


@pytest.fixture(autouse=True)
def at_once_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.0, 0.0))


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(**WITHOUT_VERIFICATION)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return browser(app)


@pytest.fixture
def link(app: Flask, client: FlaskClient, person: str) -> str:
    """The path and query of the link in the mail that the person asked for."""
    assert client.post("/forgot", data={"email": EMAIL}).location == "/forgot?asked=1"
    (mail,) = mails(services_of(app))
    return mail.link.removeprefix(MAIL_SETTINGS["PUBLIC_URL"])


def token_of(link: str) -> str:
    return link.rpartition("=")[2]


def choose(client: FlaskClient, token: str, new: str = OTHER_PASSWORD) -> TestResponse:
    return client.post("/reset", data={"token": token, "new_password": new})


def hidden_token(page: TestResponse) -> str:
    found = [a["value"] for _, a in Page(page).elements if a.get("name") == "token"]
    return found[0] if found else ""


def test_the_whole_way(client: FlaskClient, link: str) -> None:
    assert 'href="/forgot?next=/"' in client.get("/login").text
    answer = client.get(link)
    assert (answer.status_code, answer.location) == (303, "/reset")
    page = client.get("/reset")
    assert page.status_code == 200
    token = hidden_token(page)
    assert token == token_of(link)
    answer = choose(client, token)
    assert (answer.status_code, answer.location) == (303, "/login")
    assert "Your new password is set" in client.get("/login").text
    assert log_in(client, password=PASSWORD).status_code == 401
    assert log_in(client, password=OTHER_PASSWORD).location == "/"


def test_the_page_after_asking_is_the_same_for_all(client: FlaskClient, person: str) -> None:
    answers = [client.post("/forgot", data={"email": e}) for e in (EMAIL, "nobody@example.org")]
    assert {(a.status_code, a.location, a.text) for a in answers} == {
        (303, "/forgot?asked=1", answers[0].text)
    }
    assert "30 minutes" in client.get("/forgot?asked=1").text


def test_what_was_typed_stays(client: FlaskClient) -> None:
    page = client.post("/forgot", data={"email": "no email"})
    assert page.status_code == 400
    assert 'value="no email"' in page.text
    page = client.post("/forgot", data={})
    assert page.status_code == 400


def test_too_many_requests(make_app: MakeApp) -> None:
    app = make_app(**WITHOUT_VERIFICATION, LOGIN_LIMIT_PER_ADDRESS="1 per minute")
    client = browser(app)
    client.post("/forgot", data={"email": EMAIL})
    page = client.post("/forgot", data={"email": EMAIL})
    assert page.status_code == 429
    assert page.headers["Retry-After"]
    assert f'value="{EMAIL}"' in page.text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_at_a_link_uses_nothing_up_and_logs_nobody_in(
    app: Flask, link: str, stores: Stores, method: str
) -> None:
    scanner = browser(app)
    for _ in range(3):
        scanner.open(link, method=method)
        assert scanner.open("/reset", method=method).status_code == 200
    assert scanner.get("/account").status_code == 302
    assert stores.sql("SELECT count(*) FROM one_time_links WHERE used_at IS NULL") == [(1,)]
    assert stores.sql("SELECT count(*) FROM sessions") == [(0,)]
    assert choose(browser(app), token_of(link)).status_code == 303


def test_the_token_leaves_the_address_bar_and_no_page_tells_of_it(
    client: FlaskClient, link: str
) -> None:
    for answer in (client.get(link), client.get("/reset"), choose(client, token_of(link), "short")):
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert token_of(link) not in str(answer.headers)
    page = Page(client.get("/reset"))
    loaded = {a.get("src") or a.get("href", "") for tag, a in page.elements if tag in LOADS}
    assert all(url.startswith("/") and not url.startswith("//") for url in loaded), loaded


LOADS = {"img", "link", "script", "iframe"}


def test_no_log_holds_the_token(
    client: FlaskClient, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.get(link)
    client.get("/reset")
    choose(client, token_of(link))
    client.get(link)
    choose(client, token_of(link))
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "/reset" in logged
    assert token_of(link) not in logged
    assert token_of(link) not in client.get("/metrics").text


def test_a_password_that_is_refused_can_be_chosen_again(client: FlaskClient, link: str) -> None:
    client.get(link)
    page = choose(client, hidden_token(client.get("/reset")), "short")
    assert page.status_code == 400
    assert "at least 15 characters" in page.text
    assert 'aria-invalid="true"' in page.text
    assert choose(client, hidden_token(page)).location == "/login"


def test_the_page_tells_a_password_manager_whose_password_it_is(
    client: FlaskClient, link: str
) -> None:
    client.get(link)
    fields = {a.get("autocomplete"): a for tag, a in Page(client.get("/reset")).elements}
    assert fields["username"]["value"] == EMAIL
    assert "name" not in fields["username"]
    assert fields["new-password"]["type"] == "password"


@pytest.mark.parametrize("opened", ["/reset", "/reset?token=", "/reset?token=" + "x" * 43])
def test_a_link_that_does_not_count(client: FlaskClient, opened: str) -> None:
    client.get(opened)
    page = client.get("/reset")
    assert page.status_code == (400 if opened.endswith("x") else 200)
    assert "This link does not count" in page.text
    assert 'href="/forgot"' in page.text
    assert hidden_token(page) == ""


def test_a_link_that_was_used(client: FlaskClient, link: str) -> None:
    choose(client, token_of(link))
    client.get(link)
    for page in (client.get("/reset"), choose(client, token_of(link))):
        assert page.status_code == 400
        assert "This link does not count" in page.text


def test_the_form_counts_and_not_the_browser(app: Flask, client: FlaskClient, link: str) -> None:
    """A page of another site can't have the link used that a browser has opened."""
    client.get(link)
    answer = client.post("/reset", data={"new_password": OTHER_PASSWORD})
    assert answer.status_code == 400
    assert log_in(client, password=PASSWORD).status_code == 303


def test_a_page_that_refers_nobody_can_be_sent(app: Flask, link: str) -> None:
    """A browser says `Origin: null` of it, and over plain http nothing more."""
    client = app.test_client()
    form = {"token": token_of(link), "new_password": OTHER_PASSWORD}
    answer = client.post("/reset", data=form, headers={"Origin": "null"})
    assert answer.status_code == 303


def test_the_person_s_own_browser_is_signed_out(app: Flask, link: str) -> None:
    client = signed_in_as(app)
    client.get(link)
    assert choose(client, hidden_token(client.get("/reset"))).location == "/login"
    page = client.get("/login")
    assert page.status_code == 200
    assert "Your new password is set" in page.text


def test_somebody_else_stays_signed_in(app: Flask, link: str) -> None:
    sign_up(app, "bob@example.org")
    client = signed_in_as(app, "bob@example.org")
    client.get(link)
    assert choose(client, hidden_token(client.get("/reset"))).location == "/login"
    assert client.get("/account").status_code == 200


def test_who_asked_on_the_way_to_a_page_gets_there(
    app: Flask, client: FlaskClient, person: str
) -> None:
    there = "/account/sessions"
    (forgot,) = [
        a["href"]
        for _, a in Page(client.get(f"/login?next={there}")).elements
        if a.get("href", "").startswith("/forgot")
    ]
    page = Page(client.get(forgot))
    (kept,) = [a["value"] for _, a in page.elements if a.get("name") == "next"]
    client.post("/forgot", data={"email": EMAIL, "next": kept})
    link = mails(services_of(app))[0].link.removeprefix(MAIL_SETTINGS["PUBLIC_URL"])

    opened = client.get(link)
    assert opened.location == "/reset?next=/account/sessions"
    form = client.get(opened.location)
    (action,) = [a["action"] for _, a in Page(form).elements if "/reset" in a.get("action", "")]
    data = {"token": hidden_token(form), "new_password": OTHER_PASSWORD}
    answer = client.post(action, data=data)
    assert answer.location == f"/login?next={there}"
    data = {"email": EMAIL, "password": OTHER_PASSWORD, "next": there}
    assert client.post("/login", data=data).location == there
    with client.session_transaction() as session:
        assert not [key for key in session if "onward" in key]


@pytest.mark.parametrize("onward", ["https://evil.example/", "/\t/evil.example", "/"])
def test_the_link_leads_nowhere_else(
    client: FlaskClient, app: Flask, person: str, onward: str
) -> None:
    client.post("/forgot", data={"email": EMAIL, "next": onward})
    link = mails(services_of(app))[0].link.removeprefix(MAIL_SETTINGS["PUBLIC_URL"])
    assert client.get(link).location == "/reset"


def test_a_one_time_password_leads_to_the_choice_and_on(app: Flask, client: FlaskClient) -> None:
    services_of(app).registration.sign_up(EMAIL, PASSWORD, is_one_time=True)
    data = {"email": EMAIL, "password": PASSWORD, "next": "/account"}
    assert client.post("/login", data=data).location == "/reset?next=/account"


def test_a_one_time_password_leads_to_the_choice(app: Flask, client: FlaskClient) -> None:
    services_of(app).registration.sign_up(EMAIL, PASSWORD, is_one_time=True)
    answer = log_in(client)
    assert (answer.status_code, answer.location) == (303, "/reset")
    assert client.get("/account").status_code == 302
    page = client.get("/reset")
    assert "opens nothing else" in page.text
    assert choose(client, hidden_token(page)).location == "/login"
    assert log_in(client, password=OTHER_PASSWORD).location == "/"


def test_without_mail_nothing_leads_here(make_app: MakeApp) -> None:
    client = browser(make_app())
    assert "/forgot" not in client.get("/login").text
    for page in (client.get("/forgot"), client.post("/forgot", data={"email": EMAIL})):
        assert page.status_code == 501
        assert "which is not set up here" in page.text


def test_an_administrator_finds_the_button(app: Flask, person: str) -> None:
    sign_up(app, "root@example.org", roles=["admin"])
    root = signed_in_as(app, "root@example.org")
    assert f'action="/admin/users/{person}/reset"' in root.get(f"/admin/users/{person}").text
    answer = root.post(f"/admin/users/{person}/reset")
    assert answer.location == f"/admin/users/{person}"
    assert "is on its way to this person" in root.get(answer.location).text
    (mail,) = mails(services_of(app))
    assert mail.recipient == EMAIL
    services_of(app).administration.set_active(person, active=False, actor=OPERATOR)  # type: ignore[arg-type]
    page = root.post(f"/admin/users/{person}/reset")
    assert page.status_code == 409
    assert "activate it first" in page.text
    assert f"/admin/users/{person}/reset" not in root.get(f"/admin/users/{person}").text
