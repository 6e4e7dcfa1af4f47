"""Accounts without a password by the API and the pages."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.mails import WITHOUT_VERIFICATION, mails
from tests.support.passkeys import Authenticator
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    whole,
)
from tests.web.test_passkeys import API, add, by_passkey, post

REMOVE = "/account/security/password/remove"
NEW = "nine loud kettles sing today"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(
        **WITHOUT_VERIFICATION,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )


@pytest.fixture
def ada(app: Flask) -> FlaskClient:
    sign_up(app)
    return signed_in_as(app)


@pytest.fixture
def device(ada: FlaskClient) -> Authenticator:
    """Ada's, with a passkey; recovery codes came with it."""
    device = Authenticator()
    add(ada, device)
    return device


# -- the API ---------------------------------------------------------------------------------------


def test_a_password_is_removed_and_set_again(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    assert ada.delete(f"{API}/me/password").status_code == 204
    assert ada.get(f"{API}/me/factors").get_json()["password"] is False
    problem(
        post(browser(app), "/login", email=EMAIL, password=PASSWORD), 401, "invalid_credentials"
    )
    problem(ada.delete(f"{API}/me/password"), 409, "no_factor")
    assert by_passkey(browser(app), device).status_code == 200
    assert post(ada, "/me/password", new_password=NEW).status_code == 204
    assert ada.get(f"{API}/me/factors").get_json()["password"] is True
    half = post(browser(app), "/login", email=EMAIL, password=NEW)
    assert half.get_json()["code"] == "second_factor_required"
    body = problem(post(ada, "/me/password", new_password=NEW), 400, "invalid_field")
    assert set(body["errors"]) == {"current_password"}


def test_the_last_way_in_is_kept(app: Flask, ada: FlaskClient) -> None:
    body = problem(ada.delete(f"{API}/me/password"), 409, "factor_needed")
    assert "two passkeys" in body["detail"]
    device = Authenticator()
    passkey = add(ada, device)["passkey"]["id"]
    assert ada.delete(f"{API}/me/password").status_code == 204
    problem(ada.delete(f"{API}/me/passkeys/{passkey}"), 409, "factor_needed")
    assert by_passkey(browser(app), device).status_code == 200


def test_other_sessions_end_and_a_program_gets_its_new_token(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    half = post(program(app), "/tokens", email=EMAIL, password=PASSWORD).get_json()
    asked = post(program(app), "/login/factor/options", login_token=half["login_token"]).get_json()
    completed = post(
        program(app),
        "/login/factor",
        login_token=half["login_token"],
        method="passkey",
        credential=device.get(asked),
    ).get_json()
    client = program(app)
    bearer = {"Authorization": f"Bearer {completed['access_token']}"}
    answer = client.delete(f"{API}/me/password", headers=bearer)
    assert answer.status_code == 204
    fresh = {"Authorization": f"Bearer {answer.headers['X-Access-Token']}"}
    assert client.get(f"{API}/me", headers=fresh).status_code == 200
    problem(client.get(f"{API}/me", headers=bearer), 401, "session_invalid")
    problem(ada.get(f"{API}/me"), 401, "session_invalid")


def test_removing_and_setting_need_a_fresh_proof(
    app: Flask, ada: FlaskClient, device: Authenticator, stores: Stores
) -> None:
    stores.age_proofs()
    problem(ada.delete(f"{API}/me/password"), 403, "step_up_required")
    for ask in (ada.get, ada.post):
        assert ask(REMOVE).location.startswith("/account/confirm")
    asked = post(ada, "/me/confirm/options").get_json()
    confirmed = post(ada, "/me/confirm", method="passkey", credential=device.get(asked))
    assert confirmed.status_code == 204
    assert ada.delete(f"{API}/me/password").status_code == 204
    stores.age_proofs()
    problem(post(ada, "/me/password", new_password=NEW), 403, "step_up_required")
    assert ada.get("/account/password").location.startswith("/account/confirm")
    answer = ada.post("/account/password", data={"new_password": NEW})
    assert answer.location.startswith("/account/confirm")
    # a password is no proof of somebody who has none
    problem(post(ada, "/me/confirm", password=PASSWORD), 400, "invalid_field")


def test_an_account_without_a_password_answers_like_one_with_another(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    def tries() -> list[object]:
        wrong = {"email": EMAIL, "password": OTHER_PASSWORD}
        client = browser(app)
        answers = [
            post(client, "/login", **wrong),
            post(client, "/tokens", **wrong),
            log_in(client, password=OTHER_PASSWORD),
            post(client, "/password/forgot", email=EMAIL),
        ]
        for answer in answers:
            del answer.headers["RateLimit"]  # which counts
        return [whole(answer) for answer in answers]

    with_one = tries()
    assert ada.delete(f"{API}/me/password").status_code == 204
    assert tries() == with_one


def test_an_administrator_s_reset_mails_a_link(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    user_id = ada.get(f"{API}/me").get_json()["id"]
    assert ada.delete(f"{API}/me/password").status_code == 204
    sign_up(app, "root@example.org", roles=["admin"])
    root = signed_in_as(app, "root@example.org")
    assert root.delete(f"{API}/users/{user_id}/factors").status_code == 204
    [mail] = mails(services_of(app), "reset")
    assert (
        post(browser(app), "/password/reset", token=mail.token, new_password=NEW).status_code == 204
    )
    assert post(browser(app), "/login", email=EMAIL, password=NEW).status_code == 200


def test_without_mail_an_administrator_is_told_what_to_do_first(make_app: MakeApp) -> None:
    app = make_app(PUBLIC_URL="https://auth.example.org")
    user_id = sign_up(app)
    ada = signed_in_as(app)
    add(ada, Authenticator())
    assert ada.delete(f"{API}/me/password").status_code == 204
    sign_up(app, "root@example.org", roles=["admin"])
    root = signed_in_as(app, "root@example.org")
    body = problem(root.delete(f"{API}/users/{user_id}/factors"), 409, "factor_needed")
    assert "set-password" in body["detail"]
    page = root.post(f"/admin/users/{user_id}/reset-factors")
    assert page.status_code == 409
    assert "set-password" in page.text
    assert ada.get(f"{API}/me").status_code == 200


def test_a_new_email_is_confirmed_in_any_session_of_the_person(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    """There is no password to show. Nobody else can confirm it, signed in or not."""
    assert ada.delete(f"{API}/me/password").status_code == 204
    assert post(ada, "/me/email", email="countess@example.org").status_code == 202
    link = mails(services_of(app), "confirm_change")[-1].link
    path = link.removeprefix("https://auth.example.org")
    sign_up(app, "bob@example.org")
    for other in (browser(app), signed_in_as(app, "bob@example.org")):
        page = other.get(path, follow_redirects=True)
        assert "log in with your passkey" in page.text
        assert other.post("/verify").status_code == 400
        assert other.post("/verify", data={"password": PASSWORD}).status_code == 401
    phone = browser(app)
    assert by_passkey(phone, device).status_code == 200
    assert "passkey" not in phone.get(path, follow_redirects=True).text
    assert phone.post("/verify").status_code == 303
    body = post(browser(app), "/passkeys/options").get_json()
    answer = post(browser(app), "/passkeys/login", credential=device.get(body))
    assert answer.get_json()["user"]["email"] == "countess@example.org"


# -- the pages -------------------------------------------------------------------------------------


def test_the_page_removes_it_and_sets_it_again(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    page = Page(ada.get("/account/security"))
    assert REMOVE in [link["href"] for link in page.all("a")]
    assert "Remove your password?" in ada.get(REMOVE).text
    answer = ada.post(REMOVE)
    assert (answer.status_code, answer.location) == (303, "/account/security")
    page = Page(ada.get("/account/security"))
    assert "Your password was removed" in page.text
    assert "You log in with a passkey." in page.text
    assert REMOVE not in [link["href"] for link in page.all("a")]
    assert ada.post(REMOVE).location == "/account/security"  # nothing is left to remove
    form = Page(ada.get("/account/password"))
    assert [field["name"] for field in form.all("input") if "name" in field] == ["new_password"]
    refused = ada.post("/account/password", data={"new_password": "short"})
    assert refused.status_code == 400
    assert ada.post("/account/password", data={}).status_code == 400
    answer = ada.post("/account/password", data={"new_password": NEW})
    assert (answer.status_code, answer.location) == (303, "/account/security")
    assert "Your password is set" in ada.get("/account/security").text
    assert "current_password" in ada.get("/account/password").text


def test_the_page_says_what_is_missing(app: Flask, ada: FlaskClient) -> None:
    page = Page(ada.get("/account/security"))
    assert "You can remove your password once you have two passkeys" in page.text
    assert REMOVE not in [link["href"] for link in page.all("a")]
    answer = ada.post(REMOVE)
    assert answer.status_code == 409
    assert "Add these first." in answer.text


def test_the_page_warns_when_one_way_is_left(
    app: Flask, ada: FlaskClient, device: Authenticator, stores: Stores
) -> None:
    assert ada.post(REMOVE).status_code == 303
    assert "Only one way in is left" not in ada.get("/account/security").text
    stores.sql("UPDATE recovery_codes SET used_at = now()")
    assert "Only one way in is left" in ada.get("/account/security").text


def test_without_passkeys_the_page_says_nothing_of_it(make_app: MakeApp) -> None:
    app = make_app()
    sign_up(app)
    ada = signed_in_as(app)
    assert "remove your password" not in ada.get("/account/security").text.lower()
    assert ada.get(REMOVE).status_code == 501
