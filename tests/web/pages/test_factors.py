"""Second factors on the pages: log-in, set-up, the security page, step-up."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.authenticator import Authenticator
from tests.web.conftest import MakeApp
from tests.web.factors import add_passkey, code_of, enrol, enrolled
from tests.web.support import (
    PASSWORD,
    Page,
    Stores,
    browser,
    cookies_of,
    log_in,
    sign_up,
    signed_in_as,
)

SECURITY = "/account/security"


def test_log_in_asks_for_the_factor_and_leads_on(app: Flask, stores: Stores, person: str) -> None:
    authenticator, _ = enrolled(app, stores)
    client = browser(app)
    half = log_in(client, next="/account/sessions")
    assert half.status_code == 303
    assert half.location == "/login/factor?next=/account/sessions"
    assert {cookie.name for cookie in cookies_of(half)} == {"VISITOR-DATA"}
    assert "One more step" in client.get(half.location).text
    assert client.get("/account").status_code == 302, "nobody is signed in yet"
    wrong = client.post(half.location, data={"code": "000000"})
    assert wrong.status_code == 401
    assert "not right" in Page(wrong).text
    done = client.post(half.location, data={"code": code_of(authenticator, stores)})
    assert (done.status_code, done.location) == (303, "/account/sessions")
    assert client.get("/account").status_code == 200
    assert client.get("/login/factor").status_code == 303


def test_a_recovery_code_does_too(app: Flask, stores: Stores, person: str) -> None:
    _, codes = enrolled(app, stores)
    client = browser(app)
    log_in(client)
    page = client.get("/login/factor?with=recovery_code").text
    assert "Recovery code" in page
    done = client.post("/login/factor", data={"code": codes[0], "method": "recovery_code"})
    assert done.status_code == 303
    assert client.get("/account").status_code == 200


def test_five_wrong_codes_lead_back_to_log_in(app: Flask, stores: Stores, person: str) -> None:
    enrolled(app, stores)
    client = browser(app)
    log_in(client)
    for _ in range(5):
        assert client.post("/login/factor", data={"code": "000000"}).status_code == 401
    answer = client.post("/login/factor", data={"code": "000000"})
    assert answer.location == "/login"
    assert "wrong too often" in client.get("/login").text


def test_the_box_trusts_the_browser(app: Flask, stores: Stores, person: str) -> None:
    authenticator, _ = enrolled(app, stores)
    client = browser(app)
    log_in(client)
    client.post("/login/factor", data={"code": code_of(authenticator, stores), "trust": "y"})
    client.post("/logout")
    assert log_in(client).location == "/"
    assert client.get("/account").status_code == 200
    assert log_in(browser(app)).location.startswith("/login/factor")


def test_the_box_is_there_where_browsers_are_trusted(make_app: MakeApp, stores: Stores) -> None:
    strict = {"SECOND_FACTOR": "required", "ASSURANCE_LEVEL": 2}
    for settings, is_there in (({}, True), (strict, False)):
        app = make_app(**settings)
        if is_there:
            sign_up(app)
            enrolled(app, stores)
        client = browser(app)
        log_in(client)
        assert ('name="trust"' in client.get("/login/factor").text) is is_there


def secret_on(page: str) -> str:
    found = re.search(r'<code class="key">([A-Z2-7]{32})</code>', page)
    assert found is not None
    return found[1]


def test_the_security_page_leads_through_everything(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    page = signed_in.get(SECURITY).text
    assert "Set up" in page
    assert "Recovery codes" not in page
    page = signed_in.get(f"{SECURITY}/totp").text
    assert '<svg viewBox="0 0' in page
    assert 'style="' not in page
    secret = secret_on(page)
    assert secret_on(signed_in.get(f"{SECURITY}/totp").text) == secret
    wrong = signed_in.post(f"{SECURITY}/totp", data={"code": "000000"})
    assert wrong.status_code == 400
    code = code_of(Authenticator(secret), stores)
    codes = signed_in.post(f"{SECURITY}/totp", data={"code": code})
    shown = re.findall(r"<code>([A-Z2-7-]{19})</code>", codes.text)
    assert len(shown) == 10
    assert codes.headers["Cache-Control"] == "no-store"
    page = signed_in.get(SECURITY).text
    assert "10 left" in page
    assert "Authenticator app set up" in page
    assert not any(code in page for code in shown)
    assert signed_in.get(f"{SECURITY}/recovery-codes").status_code == 200
    again = signed_in.post(f"{SECURITY}/recovery-codes")
    assert len(set(re.findall(r"<code>([A-Z2-7-]{19})</code>", again.text)) - set(shown)) == 10
    assert signed_in.get(f"{SECURITY}/totp/remove").status_code == 200
    removed = signed_in.post(f"{SECURITY}/totp/remove")
    assert removed.location == SECURITY
    page = signed_in.get(SECURITY).text
    assert "was removed" in page
    assert "Authenticator app removed" in page


def test_the_page_of_the_app_tells_a_first_one_from_another(
    make_app: MakeApp, stores: Stores
) -> None:
    """A passkey is a second factor, too, and no app that could be replaced."""
    app = make_app(PUBLIC_URL="http://localhost")
    sign_up(app)
    client = signed_in_as(app)
    add_passkey(client, "My phone")
    page = client.get(f"{SECURITY}/totp").text
    assert "Set up an authenticator app" in page
    code = code_of(Authenticator(secret_on(page)), stores)
    assert client.post(f"{SECURITY}/totp", data={"code": code}).location == SECURITY
    assert "Replace your authenticator app" in client.get(f"{SECURITY}/totp").text
    assert "Passkey added" in client.get(SECURITY).text


def test_step_up_asks_for_the_factor_and_shows_the_page_again(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    authenticator, codes = enrol(signed_in, stores)
    stores.sql("UPDATE sessions SET proved_at = now() - interval '1 hour', ver = ver + 1")
    stores.redis.flushdb()
    asked = signed_in.post(
        "/account/delete",
        data={"sure": "y"},
        headers={"Referer": "http://localhost/account/delete"},
    )
    assert asked.location == "/account/confirm?next=/account/delete"
    page = signed_in.get(asked.location).text
    assert 'name="code"' in page
    assert 'name="password"' not in page
    refused = signed_in.post(asked.location, data={"password": PASSWORD})
    assert refused.status_code == 400
    done = signed_in.post(
        asked.location, data={"code": code_of(authenticator, stores), "next": "/account/delete"}
    )
    assert done.location == "/account/delete"
    assert signed_in.get("/account").status_code == 200, "the form was not sent by itself"
    with_code = {"code": codes[0], "method": "recovery_code"}
    assert signed_in.post("/account/confirm", data=with_code).status_code == 303


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_a_log_in_that_waits_the_page_leads_to_log_in(
    client: FlaskClient, method: str
) -> None:
    answer = client.open("/login/factor", method=method, data={"code": "000000"})
    assert (answer.status_code, answer.location) == (303, "/login")


def test_whoever_must_hold_one_sets_it_up_on_the_page(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(SECOND_FACTOR="required")
    sign_up(app)
    client = browser(app)
    half = log_in(client)
    page = client.get(half.location).text
    secret = secret_on(page)
    assert secret_on(client.get(half.location).text) == secret
    data = {"code": code_of(Authenticator(secret), stores)}
    codes = client.post(half.location, data=data)
    assert len(re.findall(r"<code>([A-Z2-7-]{19})</code>", codes.text)) == 10
    assert client.get("/account").status_code == 200


def test_whoever_signs_up_sets_it_up_first(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(SECOND_FACTOR="required")
    client = browser(app)
    sent = {"email": "new@example.org", "password": PASSWORD}
    answer = client.post("/signup", data=sent)
    assert answer.location == "/login/factor"
    assert client.get("/account").status_code == 302


def test_an_administrator_removes_lost_factors_by_the_page(
    app: Flask, stores: Stores, person: str
) -> None:
    enrolled(app, stores)
    sign_up(app, "root@example.org", roles=["admin"])
    admin = signed_in_as(app, "root@example.org")
    path = f"/admin/users/{person}/reset-factors"
    assert path in admin.get(f"/admin/users/{person}").text
    assert "Remove second factors" in admin.get(path).text
    done = admin.post(path)
    assert done.location == f"/admin/users/{person}"
    assert path not in admin.get(f"/admin/users/{person}").text
    assert admin.post(path).status_code == 409
