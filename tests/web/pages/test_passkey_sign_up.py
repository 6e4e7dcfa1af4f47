"""Sign-up with a passkey in place of a password: rules and answers are those of a password."""

import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import OPERATOR
from authapp.errors import StoreUnavailable
from tests.support.mails import MAIL_SETTINGS, mails
from tests.support.passkeys import Authenticator
from tests.support.people import CLIENT
from tests.support.settings import UNLIMITED
from tests.support.threads import at_once
from tests.web.conftest import MakeApp
from tests.web.pages.test_signup import is_logged_in, link_and_code
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    services_of,
    session_cookies_of,
    sign_up,
    whole,
    without_redis,
)
from tests.web.test_passkeys import API, by_passkey, post

OPTIONS, SIGN_UP = "/signup-passkey/options", "/signup-passkey"
OTHER = "bob@example.org"
URL = {"PUBLIC_URL": "https://auth.example.org", "LOGIN_LIMIT_PER_ADDRESS": UNLIMITED}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(**URL)


@pytest.fixture
def mailing(make_app: MakeApp) -> Flask:
    """An app that confirms addresses; its mails wait."""
    return make_app(**MAIL_SETTINGS, LOGIN_LIMIT_PER_ADDRESS=UNLIMITED)


def made_by(
    client: FlaskClient, device: Authenticator, email: str = EMAIL, name: str = "Ada", **how: Any
) -> dict[str, str]:
    """The form that the script sends, with the passkey that it has the device make."""
    answer = client.post(OPTIONS, data={"email": email, "name": name, "credential": ""})
    assert answer.status_code == 200, answer.text
    credential = device.create(answer.get_json(), **how)
    return {"email": email, "name": name, "credential": json.dumps(credential)}


def signs_up(
    client: FlaskClient, device: Authenticator, email: str = EMAIL, path: str = SIGN_UP, **how: Any
) -> TestResponse:
    return client.post(path, data=made_by(client, device, email, **how))


def codes_on(answer: TestResponse) -> list[str]:
    return re.findall(r"<code>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</code>", answer.text)


# -- where addresses are not confirmed -------------------------------------------------------------


def test_a_person_signs_up_and_is_logged_in(app: Flask, stores: Stores) -> None:
    client, device = browser(app), Authenticator()
    answer = signs_up(client, device, path=f"{SIGN_UP}?next=/account")
    assert answer.status_code == 200
    assert len(codes_on(answer)) == 10
    assert '<a class="btn btn-primary" href="/account">' in answer.text
    assert len(session_cookies_of(answer)) == 1
    [session] = client.get(f"{API}/me/sessions").get_json()["sessions"]
    assert session["amr"] == ["hwk", "user"]
    held = client.get(f"{API}/me/factors").get_json()
    assert (held["password"], held["recovery_codes_left"], len(held["passkeys"])) == (False, 10, 1)
    me = client.get(f"{API}/me").get_json()
    assert (me["email"], me["name"], me["roles"]) == (EMAIL, "Ada", ["user"])
    found = [row[0] for row in stores.sql("SELECT event FROM audit_events ORDER BY id")]
    assert found == ["user.created", "factor.added", "recovery_codes.made", "session.begun"]
    assert by_passkey(browser(app), device).status_code == 200
    refused = post(browser(app), "/login", email=EMAIL, password=PASSWORD)
    assert refused.get_json()["code"] == "invalid_credentials"
    # a fresh proof: the person can do at once what needs one
    assert client.get("/account/passkeys/add").status_code == 200


def test_two_people_have_two_handles(app: Flask) -> None:
    device = Authenticator()
    signs_up(browser(app), device)
    signs_up(browser(app), device, OTHER)
    handles = {passkey.user_handle for passkey in device.passkeys}
    assert len(handles) == 2
    assert {len(handle) for handle in handles} == {64}
    for passkey, email in zip(device.passkeys, (EMAIL, OTHER), strict=True):
        client = browser(app)
        options = post(client, "/passkeys/options").get_json()
        answer = post(client, "/passkeys/login", credential=device.get(options, passkey))
        assert answer.get_json()["user"]["email"] == email


def test_a_taken_email_is_refused_and_the_passkey_forgotten(app: Flask) -> None:
    sign_up(app)
    client, device = browser(app), Authenticator()
    answer = signs_up(client, device)
    assert answer.status_code == 409
    assert "log in instead" in answer.text
    assert "data-passkey-unknown" in answer.text  # the browser is told to forget it
    assert not is_logged_in(client)
    assert by_passkey(browser(app), device).status_code == 401
    assert Page(answer).by_id("email")["value"] == EMAIL


def test_an_answer_counts_once_for_its_email_in_its_time(app: Flask, stores: Stores) -> None:
    client, device = browser(app), Authenticator()
    form = made_by(client, device)
    for changed in (form | {"email": OTHER}, form | {"credential": "{}"}, {"email": EMAIL}):
        assert client.post(SIGN_UP, data=changed).status_code == 400
    assert stores.sql("SELECT 1 FROM users") == []
    assert client.post(SIGN_UP, data=form).status_code == 200
    stores.sql("SET LOCAL authapp.fenced = 'on'; DELETE FROM users")
    assert browser(app).post(SIGN_UP, data=form).status_code == 400


def test_an_answer_of_a_session_signs_nobody_up(app: Flask) -> None:
    signs_up(client := browser(app), device := Authenticator())
    options = post(client, "/me/passkeys/options").get_json()
    form = {"email": OTHER, "credential": json.dumps(device.create(options))}
    assert browser(app).post(SIGN_UP, data=form).status_code == 400


def test_somebody_else_s_passkey_signs_nobody_up(app: Flask, stores: Stores) -> None:
    device = Authenticator()
    signs_up(browser(app), device)
    answer = signs_up(browser(app), Authenticator(), OTHER, key_id=device.passkeys[0].id)
    assert answer.status_code == 409
    assert "belongs to an account already" in answer.text
    assert "data-passkey-unknown" not in answer.text
    assert stores.sql("SELECT count(*) FROM users") == [(1,)]


@pytest.mark.parametrize("fault", ["origin", "unverified", "cross"])
def test_an_answer_that_is_not_right_signs_nobody_up(
    app: Flask, stores: Stores, fault: str
) -> None:
    device = Authenticator()
    if fault == "origin":
        device.origin = "https://evil.example"
    elif fault == "unverified":
        device.flags = 1
    else:
        device.client_data = {"crossOrigin": True}
    answer = signs_up(browser(app), device)
    assert answer.status_code == 400
    assert "not accepted" in answer.text
    assert stores.sql("SELECT 1 FROM users") == []


def test_of_many_uses_of_one_answer_one_signs_up(app: Flask, stores: Stores) -> None:
    form = made_by(browser(app), Authenticator())
    answers = at_once(*[lambda: browser(app).post(SIGN_UP, data=form).status_code] * 8)
    assert sorted(answers, key=str)[0] == 200
    assert answers.count(200) == 1
    assert stores.sql("SELECT count(*) FROM users") == [(1,)]
    assert stores.sql("SELECT count(*) FROM passkeys") == [(1,)]


def test_what_was_typed_is_looked_at(app: Flask) -> None:
    client = browser(app)
    assert client.post(OPTIONS, data={"email": "ada", "name": ""}).status_code == 400
    assert client.post(OPTIONS, data={"email": EMAIL, "name": "a\0b"}).status_code == 400
    answer = client.post(SIGN_UP, data={"email": "ada", "name": "x", "credential": ""})
    assert answer.status_code == 400
    assert Page(answer).by_id("email")["aria-invalid"] == "true"


def test_the_limit_of_sign_ups_counts(make_app: MakeApp) -> None:
    app = make_app(**URL | {"LOGIN_LIMIT_PER_ADDRESS": "2 per minute"})
    client, device = browser(app), Authenticator()
    for number in range(2):
        assert signs_up(client, device, f"a{number}@example.org").status_code == 200
    answer = signs_up(client, device, "late@example.org")
    assert answer.status_code == 429
    assert "Retry-After" in answer.headers


# -- who may ---------------------------------------------------------------------------------------


def test_a_closed_sign_up_is_closed(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**URL, SIGNUP="closed")
    assert signs_up(browser(app), Authenticator()).status_code == 403
    assert stores.sql("SELECT 1 FROM users") == []


def test_addresses_of_other_domains_are_refused(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**URL, SIGNUP="domains", SIGNUP_DOMAINS="example.org")
    answer = signs_up(browser(app), Authenticator(), "ada@example.com")
    assert answer.status_code == 403
    assert "data-passkey-unknown" in answer.text
    assert stores.sql("SELECT 1 FROM users") == []
    assert signs_up(browser(app), Authenticator()).status_code == 200


def test_an_invitation_counts_once(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**URL, SIGNUP="invite")
    stores.sql("UPDATE roles SET permissions = '{users:read}' WHERE name = 'user'")
    made = services_of(app).invitations.create(actor=OPERATOR)
    path = f"/signup/{made.token}"
    page = Page(browser(app).get(path))
    assert f"{path}/passkey" in [form.get("action") for form in page.all("form")]
    client = browser(app)
    assert signs_up(client, Authenticator(), path=f"{path}/passkey").status_code == 200
    assert is_logged_in(client)
    again = signs_up(browser(app), Authenticator(), OTHER, path=f"{path}/passkey")
    assert again.status_code == 400
    assert stores.sql("SELECT used_at IS NOT NULL FROM invitations") == [(True,)]
    stores.sql("UPDATE roles SET permissions = '{}' WHERE name = 'user'")


def test_without_passkeys_the_page_has_no_such_form(make_app: MakeApp) -> None:
    app = make_app()
    client = browser(app)
    assert "passkey" not in client.get("/signup").text
    assert client.post(OPTIONS, data={"email": EMAIL}).status_code == 501
    assert client.post(SIGN_UP, data={"email": EMAIL}).status_code == 501


# -- where addresses are confirmed -----------------------------------------------------------------


def test_the_address_is_confirmed_and_the_codes_are_shown(mailing: Flask, stores: Stores) -> None:
    client, device = browser(mailing), Authenticator()
    done = signs_up(client, device)
    assert (done.status_code, done.location) == (303, "/verify")
    assert not session_cookies_of(done)
    assert stores.sql("SELECT count(*) FROM recovery_codes") == [(0,)]
    refused = by_passkey(browser(mailing), device)
    assert refused.get_json()["code"] == "email_unverified"
    link, _ = link_and_code(mailing)
    client.get(link, follow_redirects=True)
    answer = client.post("/verify")
    assert answer.status_code == 200
    assert len(codes_on(answer)) == 10
    assert "Your email is confirmed." in answer.text
    assert not is_logged_in(client)  # the passkey is shown for it
    assert by_passkey(client, device).status_code == 200
    assert client.get(f"{API}/me/factors").get_json()["recovery_codes_left"] == 10
    assert [mail.kind for mail in mails(services_of(mailing))][:1] == ["verify"]


def test_the_code_of_the_mail_does_it_as_well(mailing: Flask) -> None:
    client, device = browser(mailing), Authenticator()
    signs_up(client, device)
    _, code = link_and_code(mailing)
    answer = client.post("/verify", data={"email": EMAIL, "code": code})
    assert len(codes_on(answer)) == 10
    assert by_passkey(client, device).status_code == 200


def test_the_api_confirms_in_the_browser_that_signed_up(mailing: Flask) -> None:
    client, device = browser(mailing), Authenticator()
    signs_up(client, device)
    token = mails(services_of(mailing), "verify")[-1].token
    answer = post(client, "/email/verify", token=token)
    assert answer.status_code == 200
    assert len(answer.get_json()["recovery_codes"]) == 10


def test_another_browser_shows_the_passkey_first(mailing: Flask) -> None:
    device = Authenticator()
    signs_up(browser(mailing), device)
    link, _ = link_and_code(mailing)
    other = browser(mailing)
    page = Page(other.get(link, follow_redirects=True))
    assert "You signed up with a passkey" in page.text
    refused = other.post("/verify")
    assert refused.status_code == 400
    assert "log in with it first" in refused.text
    assert other.post("/verify", data={"password": PASSWORD}).status_code == 401
    options = other.post("/login/passkey/options").get_json()
    answer = other.post("/login/passkey", data={"credential": json.dumps(device.get(options))})
    assert answer.status_code == 403
    assert "Right so far." in answer.text
    assert len(codes_on(other.post("/verify"))) == 10


def test_a_wrong_signature_gives_no_proof(mailing: Flask) -> None:
    """A visitor who knows the id of a passkey alone learns nothing, and can confirm nothing."""
    device = Authenticator()
    signs_up(browser(mailing), device)
    thief = browser(mailing)
    forged = device.get(thief.post("/login/passkey/options").get_json())
    forged["response"]["signature"] = forged["response"]["signature"][:-6] + "AAAAAA"
    answer = thief.post("/login/passkey", data={"credential": json.dumps(forged)})
    assert answer.status_code == 401
    thief.get(link_and_code(mailing)[0], follow_redirects=True)
    assert thief.post("/verify").status_code == 400


def taken_by(app: Flask, how: str) -> None:
    if how == "password":
        sign_up(app)
    elif how == "passkey":
        client, device = browser(app), Authenticator()
        signs_up(client, device)
        client.get(link_and_code(app)[0], follow_redirects=True)
        client.post("/verify")
    elif how == "waits":
        signs_up(browser(app), Authenticator())


@pytest.mark.parametrize("how", ["password", "passkey", "waits"])
def test_a_taken_email_is_answered_like_a_new_one(mailing: Flask, how: str) -> None:
    taken_by(mailing, how)

    def answer(email: str) -> tuple[Any, ...]:
        client = browser(mailing)
        done = signs_up(client, Authenticator(), email)
        status, headers, text = whole(done)
        cookies = [len(value) for name, value in headers if name == "set-cookie"]
        kept = [(n, v) for n, v in headers if n not in {"set-cookie", "ratelimit"}]
        page = client.get(done.location)
        return status, kept, text, cookies, re.sub(re.escape(email), "", page.text)

    assert answer(EMAIL) == answer("new.lovelace@example.org")
    kinds = [mail.kind for mail in mails(services_of(mailing)) if mail.recipient == EMAIL]
    assert kinds[-1] == ("verify" if how == "waits" else "already_registered")


def test_the_answer_takes_one_time_for_every_email(
    mailing: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is filled up to one that is longer than the work, whatever there is to do."""
    slept: list[float] = []
    taken_by(mailing, "password")
    forms = [made_by(browser(mailing), Authenticator(), email) for email in (EMAIL, OTHER)]
    monkeypatch.setattr("authapp.passwords.constant_time.REFUSAL_SECONDS", 60.0)
    clock = SimpleNamespace(perf_counter=time.perf_counter, sleep=slept.append)
    monkeypatch.setattr("authapp.passwords.constant_time.time", clock)
    for form in forms:
        assert browser(mailing).post(SIGN_UP, data=form).status_code == 303
    assert [seconds > 30 for seconds in slept] == [True, True]


def test_a_passkey_that_is_used_again_does_not_tell_of_the_email(mailing: Flask) -> None:
    """One that belongs to an account is refused before the email is looked at."""
    device = Authenticator()
    signs_up(browser(mailing), device, OTHER)
    sign_up(mailing)
    for email in (EMAIL, "new@example.org"):
        answer = signs_up(browser(mailing), Authenticator(), email, key_id=device.passkeys[0].id)
        assert answer.status_code == 409


def replaced_by_passkey(app: Flask) -> None:
    signs_up(browser(app), Authenticator())


def replaced_by_password(app: Flask) -> None:
    client = browser(app)
    client.post("/signup", data={"email": EMAIL, "password": PASSWORD})
    link, _ = link_and_code(app)
    client.get(link, follow_redirects=True)
    assert client.post("/verify").status_code == 303
    assert is_logged_in(client)


def reset_by_mail(app: Flask) -> None:
    services = services_of(app)
    services.forgotten_passwords.forgot(EMAIL, CLIENT)
    token = mails(services, "reset")[-1].token
    services.password_resets.reset(token, OTHER_PASSWORD, CLIENT)
    assert log_in(browser(app), password=OTHER_PASSWORD).status_code == 303


@pytest.mark.parametrize("owner", [replaced_by_passkey, replaced_by_password, reset_by_mail])
def test_whoever_signed_up_with_the_address_before_keeps_nothing(
    mailing: Flask, stores: Stores, owner: Callable[[Flask], None]
) -> None:
    """The owner of the address comes later; the stranger's passkey and proof are of no use."""
    stranger, device = browser(mailing), Authenticator()
    signs_up(stranger, device)
    owner(mailing)
    assert by_passkey(browser(mailing), device).get_json()["code"] == "invalid_credentials"
    stranger.get(link_and_code(mailing)[0], follow_redirects=True)
    assert not codes_on(stranger.post("/verify"))
    assert not is_logged_in(stranger)
    [(password_hash, second_factor)] = stores.sql("SELECT password_hash, second_factor FROM users")
    assert second_factor is (owner is replaced_by_passkey)
    assert (password_hash == "") is (owner is replaced_by_passkey)
    told = stores.sql("SELECT 1 FROM audit_events WHERE event = 'factor.reset'")
    assert len(told) == (owner is reset_by_mail)


def test_a_passkey_that_a_reset_proves_the_owner_of_stays(mailing: Flask) -> None:
    """An address that was confirmed is the person's: a reset removes no factor."""
    taken_by(mailing, "passkey")
    services = services_of(mailing)
    services.forgotten_passwords.forgot(EMAIL, CLIENT)
    services.password_resets.reset(mails(services, "reset")[-1].token, OTHER_PASSWORD, CLIENT)
    half = post(browser(mailing), "/login", email=EMAIL, password=OTHER_PASSWORD).get_json()
    assert half["code"] == "second_factor_required"
    assert half["methods"] == ["recovery_code", "passkey"]


# -- outages ---------------------------------------------------------------------------------------


def test_without_postgres_nobody_signs_up_and_the_answer_still_counts(
    make_app: MakeApp, stores: Stores
) -> None:
    app, away = make_app(**URL), make_app(**URL)

    def fails() -> None:
        raise StoreUnavailable("postgres")

    services_of(away).database.breaker.recover = fails
    services_of(away).database.breaker.open()
    form = made_by(browser(away), Authenticator())  # which asks no store
    assert browser(away).post(SIGN_UP, data=form).status_code == 503
    assert stores.sql("SELECT 1 FROM users") == []
    assert browser(app).post(SIGN_UP, data=form).status_code == 200


def test_without_redis_people_sign_up(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    without_redis(app, monkeypatch)
    client, device = browser(app), Authenticator()
    assert signs_up(client, device).status_code == 200
    assert is_logged_in(client)
    assert by_passkey(browser(app), device).status_code == 200
