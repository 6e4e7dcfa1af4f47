"""Passkeys by the API and the pages: who may ask for what, and what the answers say."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.passkeys import Authenticator
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Stores,
    access_token,
    browser,
    is_utc,
    problem,
    program,
    session_cookies_of,
    sign_up,
    signed_in_as,
    whole,
)

API = "/api/v1"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(PUBLIC_URL="https://auth.example.org", LOGIN_LIMIT_PER_ADDRESS=UNLIMITED)


@pytest.fixture
def person(app: Flask) -> str:
    return sign_up(app)


@pytest.fixture
def ada(app: Flask, person: str) -> FlaskClient:
    return signed_in_as(app)


@pytest.fixture
def device() -> Authenticator:
    return Authenticator()


def post(client: FlaskClient, path: str, **body: Any) -> TestResponse:
    return client.post(f"{API}{path}", json=body) if body else client.post(f"{API}{path}")


def add(client: FlaskClient, device: Authenticator, name: str = "") -> dict[str, Any]:
    options = post(client, "/me/passkeys/options").get_json()
    answer = post(client, "/me/passkeys", credential=device.create(options), name=name)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def by_passkey(client: FlaskClient, device: Authenticator, **more: Any) -> TestResponse:
    options = post(client, "/passkeys/options").get_json()
    return post(client, "/passkeys/login", credential=device.get(options), **more)


# -- the API ---------------------------------------------------------------------------------------


def test_a_passkey_is_added_and_logs_in(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    added = add(ada, device, "My phone")
    passkey = added["passkey"]
    assert passkey["name"] == "My phone"
    assert is_utc(passkey["created_at"])
    assert passkey["last_used_at"] is None
    assert passkey["counter_fell_at"] is None
    assert not passkey["synced"]
    assert len(added["recovery_codes"]) == 10
    other = browser(app)
    answer = by_passkey(other, device, remember=True)
    assert answer.status_code == 200
    assert answer.get_json()["user"]["email"] == EMAIL
    [cookie] = session_cookies_of(answer)
    assert "max-age" in cookie.attributes
    assert other.get(f"{API}/me").status_code == 200
    assert ada.get(f"{API}/me").status_code == 200  # it has a new token


def test_options_are_as_the_standard_writes_them(app: Flask, ada: FlaskClient, person: str) -> None:
    made = post(ada, "/me/passkeys/options").get_json()
    assert set(made) == {
        "rp",
        "user",
        "challenge",
        "pubKeyCredParams",
        "timeout",
        "excludeCredentials",
        "authenticatorSelection",
        "attestation",
    }
    assert made["user"]["name"] == EMAIL
    assert person.replace("-", "") not in json.dumps(made)
    asked = post(browser(app), "/passkeys/options").get_json()
    assert set(asked) == {"challenge", "rpId", "timeout", "userVerification", "allowCredentials"}


def test_nothing_tells_who_has_passkeys(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    """There is nothing to ask with: options name nobody, and nobody's email is taken."""
    without = whole(post(browser(app), "/passkeys/options"))
    add(ada, device)
    with_one = whole(post(browser(app), "/passkeys/options"))
    challenge = re.compile(r'"challenge":"[\w-]{64}"')
    assert challenge.sub("", without[2]) == challenge.sub("", with_one[2])


def test_what_is_not_accepted_says_nothing_but_that(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device)
    stranger = Authenticator()
    stranger.create({"user": {"id": "AAAA"}, "rp": {"id": "auth.example.org"}, "challenge": "A"})
    elsewhere = Authenticator(origin="https://evil.example", passkeys=device.passkeys)
    unverified = Authenticator(passkeys=[device.passkeys[0]])
    answers = [by_passkey(browser(app), one) for one in (stranger, elsewhere)]
    unverified.passkeys[0].flags = 1
    answers.append(by_passkey(browser(app), unverified))
    bodies = [problem(answer, 401, "invalid_credentials") for answer in answers]
    assert len({body["detail"] for body in bodies}) == 1
    assert "passkey" in bodies[0]["detail"]
    assert not any(session_cookies_of(answer) for answer in answers)


@pytest.mark.parametrize(
    "credential",
    [
        None,
        [],
        "x",
        {},
        {"id": "A", "rawId": "A", "type": "public-key"},
        {"id": "A", "rawId": "A", "type": "password", "response": {}},
        {"id": "A" * 2_000, "rawId": "A", "type": "public-key", "response": {}},
    ],
)
def test_what_is_no_credential_is_refused(app: Flask, ada: FlaskClient, credential: object) -> None:
    for path in ("/passkeys/login", "/me/passkeys"):
        body = problem(post(ada, path, credential=credential), 400, "invalid_field")
        assert set(body["errors"]) == {"credential"}


def test_members_that_browsers_may_add_are_ignored(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device)
    options = post(browser(app), "/passkeys/options").get_json()
    credential = device.get(options) | {"new": {"member": [1]}}
    assert post(browser(app), "/passkeys/login", credential=credential).status_code == 200


def test_they_are_renamed_and_removed(ada: FlaskClient, device: Authenticator) -> None:
    path = f"{API}/me/passkeys/{add(ada, device)['passkey']['id']}"
    assert ada.patch(path, json={"name": "Phone"}).get_json()["name"] == "Phone"
    problem(ada.patch(path, json={"name": "a\0b"}), 400, "invalid_field")
    assert ada.delete(path).status_code == 204
    problem(ada.delete(path), 404, "not_found")
    problem(ada.patch(path, json={"name": "Phone"}), 404, "not_found")
    problem(by_passkey(ada, device), 401, "invalid_credentials")


def test_a_program_gets_its_new_token(app: Flask, person: str, device: Authenticator) -> None:
    """Adding a passkey ends the other sessions, and this one goes on under a new token."""
    client = program(app)
    headers = {"Authorization": f"Bearer {access_token(app)}"}
    options = client.post(f"{API}/me/passkeys/options", headers=headers).get_json()
    answer = client.post(
        f"{API}/me/passkeys", json={"credential": device.create(options)}, headers=headers
    )
    assert answer.status_code == 201
    fresh = {"Authorization": f"Bearer {answer.headers['X-Access-Token']}"}
    assert client.get(f"{API}/me", headers=fresh).status_code == 200
    problem(client.get(f"{API}/me", headers=headers), 401, "session_invalid")


def test_changes_need_a_fresh_proof(
    app: Flask, ada: FlaskClient, device: Authenticator, stores: Stores
) -> None:
    path = f"/me/passkeys/{add(ada, device)['passkey']['id']}"
    options = post(ada, "/me/passkeys/options").get_json()
    stores.sql(
        "SET LOCAL authapp.fenced = 'on'; UPDATE sessions SET created_at = created_at - interval"
        " '1 hour', proved_at = now() - interval '1 hour'"
    )
    stores.redis.flushall()
    for answer in (
        post(ada, "/me/passkeys/options"),
        post(ada, "/me/passkeys", credential=device.create(options)),
        ada.patch(f"{API}{path}", json={"name": "x"}),
        ada.delete(f"{API}{path}"),
    ):
        problem(answer, 403, "step_up_required")
    for page in ("/account/passkeys/add", f"/account{path.removeprefix('/me')}/remove"):
        assert "/account/confirm" in ada.get(page).location
        assert "/account/confirm" in ada.post(page).location


def test_an_answer_for_another_session_adds_nothing(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    options = post(signed_in_as(app), "/me/passkeys/options").get_json()
    answer = post(ada, "/me/passkeys", credential=device.create(options))
    assert set(problem(answer, 400, "invalid_field")["errors"]) == {"credential"}


def test_somebody_else_s_passkey_is_taken(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device)
    sign_up(app, "bob@example.org")
    bob = signed_in_as(app, "bob@example.org")
    options = post(bob, "/me/passkeys/options").get_json()
    stolen = Authenticator().create(options, key_id=device.passkeys[0].id)
    problem(post(bob, "/me/passkeys", credential=stolen), 409, "passkey_taken")


def test_a_half_log_in_gets_options_of_its_own(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device)
    client = browser(app)
    half = post(client, "/login", email=EMAIL, password=PASSWORD)
    token = half.get_json()["login_token"]
    options = post(client, "/login/factor/options", login_token=token).get_json()
    [allowed] = options["allowCredentials"]
    assert allowed["type"] == "public-key"
    problem(post(client, "/login/factor/options", login_token="x" * 64), 401, "login_expired")


# -- the pages -------------------------------------------------------------------------------------


def as_form(credential: dict[str, Any], **more: str) -> dict[str, str]:
    return {"credential": json.dumps(credential), **more}


def test_the_page_logs_in_and_leads_on(app: Flask, ada: FlaskClient, device: Authenticator) -> None:
    add(ada, device)
    client = browser(app)
    options = client.post("/login/passkey/options").get_json()
    form = as_form(device.get(options), next="/account", remember="y")
    answer = client.post("/login/passkey", data=form)
    assert (answer.status_code, answer.location) == (303, "/account")
    [cookie] = session_cookies_of(answer)
    assert "max-age" in cookie.attributes
    assert client.get("/account").status_code == 200


def test_the_page_leads_to_no_other_site(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device)
    client = browser(app)
    options = client.post("/login/passkey/options").get_json()
    form = as_form(device.get(options), next="https://evil.example/")
    assert client.post("/login/passkey", data=form).location == "/"


def test_the_page_has_the_browser_forget_an_unknown_passkey(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    client = browser(app)
    stranger = Authenticator()
    stranger.create({"user": {"id": "AAAA"}, "rp": {"id": "auth.example.org"}, "challenge": "A"})
    credential = stranger.get(client.post("/login/passkey/options").get_json())
    answer = client.post("/login/passkey", data=as_form(credential))
    assert answer.status_code == 401
    assert f'data-passkey-unknown="{credential["id"]}"' in answer.text
    assert 'data-passkey-rp="auth.example.org"' in answer.text
    add(ada, device)
    known = device.get(client.post("/login/passkey/options").get_json()) | {"type": "public-key"}
    known["response"]["signature"] = known["response"]["signature"][:-4] + "AAAA"
    answer = client.post("/login/passkey", data=as_form(known))
    assert answer.status_code == 401
    assert "data-passkey-unknown" not in answer.text


@pytest.mark.parametrize("credential", ["", "x", "[]", "{}", "[" * 5_000, '{"id":' * 3_000])
def test_the_page_refuses_what_is_no_credential(app: Flask, credential: str) -> None:
    answer = browser(app).post("/login/passkey", data={"credential": credential})
    assert answer.status_code == 400
    assert "Your browser sent no passkey" in answer.text


def test_one_s_own_are_listed_with_names_and_use(
    app: Flask, ada: FlaskClient, device: Authenticator
) -> None:
    add(ada, device, "My <b>phone</b>")
    by_passkey(browser(app), device)
    page = ada.get("/account/security").text
    assert "My &lt;b&gt;phone&lt;/b&gt;" in page
    assert "Last used" in page
    assert "May be copied" not in page
    device.passkeys[0].counter = 0
    by_passkey(browser(app), device)
    assert "May be copied" in ada.get("/account/security").text


def test_another_person_s_has_no_page(app: Flask, ada: FlaskClient, device: Authenticator) -> None:
    passkey = add(ada, device)["passkey"]["id"]
    sign_up(app, "bob@example.org")
    bob = signed_in_as(app, "bob@example.org")
    for act in ("name", "remove"):
        for ask in (bob.get, bob.post):
            assert ask(f"/account/passkeys/{passkey}/{act}").status_code == 404
    problem(bob.delete(f"{API}/me/passkeys/{passkey}"), 404, "not_found")


# -- off -------------------------------------------------------------------------------------------


def test_without_a_public_url_there_are_none_and_calls_say_so(make_app: MakeApp) -> None:
    app = make_app()
    sign_up(app)
    client = signed_in_as(app)
    for path in ("/passkeys/options", "/me/passkeys/options", "/me/confirm/options"):
        body = problem(post(client, path), 501, "passkeys_off")
        assert "PUBLIC_URL" in body["detail"]
    credential = Authenticator()
    made = credential.create(
        {"user": {"id": "AAAA"}, "rp": {"id": "auth.example.org"}, "challenge": "A"}
    )
    problem(post(client, "/me/passkeys", credential=made), 501, "passkeys_off")
    options = {"rpId": "auth.example.org", "challenge": "A"}
    problem(
        post(client, "/passkeys/login", credential=credential.get(options)), 501, "passkeys_off"
    )
    assert "asskey" not in client.get("/account/security").text
    assert client.get("/account/passkeys/add").status_code == 501
    assert "passkey" not in browser(app).get("/login").text
    assert "webauthn" not in browser(app).get("/login").text
