"""Pages and calls about one's email: asked for, taken back, and set by an administrator."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.mails import MAIL_SETTINGS, mails
from tests.support.people import CLIENT
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    log_in,
    problem,
    services_of,
    sign_up,
    signed_in_as,
    whole,
)

ME = "/api/v1/me"
NEW, OTHER = "ada@new.example", "other@example.org"


@pytest.fixture
def mailing(make_app: MakeApp, stores: Stores) -> Flask:
    """An app that mails, with one person."""
    app = make_app(**MAIL_SETTINGS)
    sign_up(app)
    stores.sql(
        "SET LOCAL authapp.fenced = 'on';"
        " UPDATE users SET email_verified_at = now(), email_confirmation_due = false"
    )
    return app


@pytest.fixture
def ada(mailing: Flask) -> FlaskClient:
    return signed_in_as(mailing)


def undo_token(app: Flask, client: FlaskClient) -> str:
    """Changes the address; the token of the link in the mail to the old one."""
    assert client.post(f"{ME}/email", json={"email": NEW}).status_code == 202
    services = services_of(app)
    token = mails(services, "confirm_change")[-1].token
    found = services.sessions.find(services.tokens.check(client.get_cookie("SESSION-TOKEN").value))  # type: ignore[union-attr, arg-type]
    services.email_changes.confirm(token, "", found, CLIENT)  # type: ignore[arg-type]
    [link] = [m.context["undo_link"] for m in mails(services) if "undo_link" in m.context]
    return link.rpartition("=")[2]


def test_the_answer_is_the_same_for_a_taken_address(mailing: Flask, ada: FlaskClient) -> None:
    sign_up(mailing, OTHER)
    answers = [ada.post(f"{ME}/email", json={"email": email}) for email in (NEW, OTHER)]
    assert answers[0].get_json() == {"status": "check_mail"}
    assert answers[0].status_code == 202
    assert whole(answers[0]) == whole(answers[1])
    pages = [ada.post("/account/email", data={"email": email}) for email in (NEW, OTHER)]
    assert pages[0].status_code == 303
    assert pages[0].location == pages[1].location == "/account"
    assert "We sent a link to the new address." in ada.get("/account").text
    assert mails(services_of(mailing), "already_registered")[0].recipient == OTHER


@pytest.mark.parametrize("email", ["", "nobody", EMAIL, 1, None])
def test_what_is_no_new_address_is_refused(ada: FlaskClient, email: object) -> None:
    answer = ada.post(f"{ME}/email", json={"email": email})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["email"]
    if isinstance(email, str):
        page = ada.post("/account/email", data={"email": email})
        assert page.status_code == 400
        assert 'aria-invalid="true"' in page.text


def test_without_mail_it_says_so(app: Flask, signed_in: FlaskClient) -> None:
    problem(signed_in.post(f"{ME}/email", json={"email": NEW}), 501, "mail_off")
    assert signed_in.get("/account/email").status_code == 501
    assert "Change email" not in signed_in.get("/account").text


def test_the_account_page_leads_there(ada: FlaskClient) -> None:
    assert 'href="/account/email"' in ada.get("/account").text
    assert EMAIL in ada.get("/account/email").text


def test_the_link_of_an_undo_changes_nothing_until_the_button_is_pressed(
    mailing: Flask, ada: FlaskClient
) -> None:
    token, owner = undo_token(mailing, ada), browser(mailing)
    for method in ("GET", "HEAD"):
        answer = owner.open(f"/email/undo?token={token}", method=method)
        assert (answer.status_code, answer.location) == (303, "/email/undo")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    page = owner.get("/email/undo")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert "Take the change back" in page.text
    assert ada.get(ME).get_json()["email"] == NEW, "so far nothing was undone"
    done = owner.post("/email/undo", data={"token": token})
    assert (done.status_code, done.location) == (303, "/login")
    assert "Your old email is back" in owner.get("/login").text
    problem(ada.get(ME), 401, "session_invalid")
    for email in (EMAIL, NEW):
        assert log_in(browser(mailing), email, PASSWORD).status_code == 401
    again = owner.post("/email/undo", data={"token": token})
    assert again.status_code == 400
    assert "This link does not count" in again.text
    problem(
        browser(mailing).post("/api/v1/email/undo", json={"token": token}), 400, "invalid_token"
    )


def test_a_program_takes_a_change_back(mailing: Flask, ada: FlaskClient) -> None:
    token = undo_token(mailing, ada)
    assert browser(mailing).post("/api/v1/email/undo", json={"token": token}).status_code == 204
    assert mails(services_of(mailing), "reset")[-1].recipient == EMAIL


@pytest.mark.parametrize("by", ["page", "call"])
def test_an_administrator_sets_an_address(mailing: Flask, ada: FlaskClient, by: str) -> None:
    sign_up(mailing, "root@example.org", roles=["admin"])
    admin, ada_id = signed_in_as(mailing, "root@example.org"), ada.get(ME).get_json()["id"]
    if by == "call":
        answer = admin.put(f"/api/v1/users/{ada_id}/email", json={"email": NEW})
        assert answer.get_json()["email"] == NEW
        taken = admin.put(f"/api/v1/users/{ada_id}/email", json={"email": "root@example.org"})
        problem(taken, 409, "email_taken")
    else:
        path = f"/admin/users/{ada_id}/email"
        assert admin.post(path, data={"email": NEW}).status_code == 303
        assert admin.post(path, data={"email": "root@example.org"}).status_code == 409
    problem(ada.get(ME), 401, "session_invalid")
    assert log_in(browser(mailing), NEW).status_code == 303
    assert "because your email was changed" in ada.get("/login").text


# -- confirm ---------------------------------------------------------------------------------------


def asked(app: Flask, client: FlaskClient) -> str:
    assert client.post("/account/email", data={"email": NEW}).status_code == 303
    return mails(services_of(app), "confirm_change")[-1].token


def test_the_link_is_confirmed_in_the_browser_that_asked(mailing: Flask, ada: FlaskClient) -> None:
    token, elsewhere = asked(mailing, ada), signed_in_as(mailing)
    opened = ada.get(f"/verify?token={token}")
    assert opened.status_code == 303
    assert "token" not in opened.location
    page = ada.get(opened.location)
    assert NEW in page.text
    assert 'name="password"' not in page.text
    assert ada.get(ME).get_json()["email"] == EMAIL, "the link alone changes nothing"
    done = ada.post("/verify")
    assert (done.status_code, done.location) == (303, "/account")
    assert "Your email was changed." in ada.get("/account").text
    assert ada.get(ME).get_json()["email"] == NEW
    problem(elsewhere.get(ME), 401, "session_invalid")
    assert log_in(browser(mailing), EMAIL).status_code == 401
    assert log_in(browser(mailing), NEW).status_code == 303


@pytest.mark.parametrize("is_signed_in", [False, True])
def test_any_other_browser_shows_the_password(
    mailing: Flask, ada: FlaskClient, is_signed_in: bool
) -> None:
    token = asked(mailing, ada)
    other = signed_in_as(mailing) if is_signed_in else browser(mailing)
    assert 'name="password"' in other.get(f"/verify?token={token}", follow_redirects=True).text
    assert other.post("/verify").status_code == 400
    assert other.post("/verify", data={"password": "not the password"}).status_code == 401
    assert ada.get(ME).get_json()["email"] == EMAIL
    done = other.post("/verify", data={"password": PASSWORD})
    assert (done.status_code, done.location) == (303, "/login")
    assert "Your email was changed." in other.get("/login").text
    assert ada.get(ME).get_json()["email"] == NEW, "the session that asked goes on"


def test_programs_confirm_a_change(mailing: Flask, ada: FlaskClient) -> None:
    token, nobody = asked(mailing, ada), browser(mailing)
    path = "/api/v1/email/verify"
    answer = nobody.post(path, json={"token": token})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["password"]
    wrong = {"token": token, "password": "not the password"}
    problem(nobody.post(path, json=wrong), 401, "invalid_credentials")
    assert ada.post(path, json={"token": token}).status_code == 204
    assert ada.get(ME).get_json()["email"] == NEW
    problem(ada.post(path, json={"token": token}), 400, "invalid_token")


def test_an_address_that_is_taken_by_now_is_refused_kindly(
    mailing: Flask, ada: FlaskClient
) -> None:
    token = asked(mailing, ada)
    sign_up(mailing, NEW)
    ada.get(f"/verify?token={token}")
    page = ada.post("/verify")
    assert page.status_code == 409
    assert "Somebody else has this email by now." in page.text
    problem(ada.post("/api/v1/email/verify", json={"token": token}), 409, "email_taken")
    assert ada.get(ME).get_json()["email"] == EMAIL
