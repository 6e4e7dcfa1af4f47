"""Second factors by the API: log-in, one's own factors, step-up, reset by an administrator."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.authenticator import Authenticator
from tests.web.conftest import MakeApp
from tests.web.factors import API, code_of, enrol, enrolled, waiting
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    problem,
    program,
    session_cookies_of,
    sign_up,
    signed_in_as,
    token_of,
)

ME = f"{API}/me"
FACTORS = f"{ME}/factors"


def age(stores: Stores) -> None:
    """Lets every proof be too old; copies of sessions are read again."""
    stores.sql("UPDATE sessions SET proved_at = now() - interval '1 hour', ver = ver + 1")
    stores.redis.flushdb()


def test_a_log_in_waits_and_is_completed(app: Flask, stores: Stores, person: str) -> None:
    authenticator, _ = enrolled(app, stores)
    found = waiting(app)
    assert found["methods"] == ["totp", "recovery_code"]
    assert found["expires_in"] == 600
    assert found["enrols"] is False
    client = browser(app)
    body = {"login_token": found["login_token"], "method": "totp"}
    wrong = client.post(f"{API}/login/factor", json={**body, "code": "000000"})
    problem(wrong, 401, "invalid_factor")
    assert not session_cookies_of(wrong)
    code = code_of(authenticator, stores)
    answer = client.post(f"{API}/login/factor", json={**body, "code": code})
    assert answer.status_code == 200
    assert answer.get_json()["session"]["amr"] == ["pwd", "otp"]
    assert "recovery_codes" not in answer.get_json()
    assert client.get(ME).status_code == 200
    again = client.post(f"{API}/login/factor", json={**body, "code": code})
    problem(again, 401, "login_expired")


def test_no_cookie_comes_before_the_factor(app: Flask, stores: Stores, person: str) -> None:
    enrolled(app, stores)
    body = {"email": EMAIL, "password": PASSWORD, "remember": True}
    assert cookies_of(browser(app).post(f"{API}/login", json=body)) == []


@pytest.mark.parametrize(
    ("method", "missing"),
    [("totp", "code"), ("recovery_code", "code"), ("passkey", "credential")],
)
def test_a_factor_that_is_left_out_is_no_wrong_one(
    app: Flask, stores: Stores, person: str, method: str, missing: str
) -> None:
    _, codes = enrolled(app, stores)
    body = {"login_token": waiting(app)["login_token"], "method": method}
    for _ in range(6):  # one more than wrong ones use a login token up
        answer = program(app).post(f"{API}/login/factor", json=body)
        problem(answer, 400, "invalid_field")
        assert list(answer.get_json()["errors"]) == [missing]
    body |= {"method": "recovery_code", "code": codes[0]}
    assert program(app).post(f"{API}/login/factor", json=body).status_code == 200


def test_a_program_gets_tokens_after_it(app: Flask, stores: Stores, person: str) -> None:
    authenticator, _ = enrolled(app, stores)
    found = waiting(app, path="/tokens", refresh=True)
    body = {"login_token": found["login_token"], "method": "totp"}
    answer = program(app).post(
        f"{API}/login/factor", json={**body, "code": code_of(authenticator, stores)}
    )
    tokens = answer.get_json()
    assert not cookies_of(answer)
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert program(app).get(ME, headers=headers).status_code == 200
    refreshed = program(app).post(
        f"{API}/tokens/refresh", json={"refresh_token": tokens["refresh_token"]}
    )
    assert refreshed.status_code == 200, "the session was proven by a factor when it began"


def test_one_s_own_factors(app: Flask, stores: Stores, signed_in: FlaskClient) -> None:
    assert signed_in.get(FACTORS).get_json() == {
        "password": True,
        "totp": False,
        "totp_since": None,
        "recovery_codes_left": 0,
        "passkeys": [],
    }
    first = signed_in.post(f"{FACTORS}/totp").get_json()
    second = signed_in.post(f"{FACTORS}/totp").get_json()
    assert first["secret"] != second["secret"]
    assert first["secret"] in first["otpauth_uri"]
    assert signed_in.get(FACTORS).get_json()["totp"] is False, "inactive until one right code"
    of_first = code_of(Authenticator(first["secret"]), stores)
    refused = signed_in.post(f"{FACTORS}/totp/confirm", json={"code": of_first})
    assert "code" in problem(refused, 400, "invalid_field")["errors"], "two set-ups leave one"
    before = token_of(signed_in)
    of_second = code_of(Authenticator(second["secret"]), stores)
    answer = signed_in.post(f"{FACTORS}/totp/confirm", json={"code": of_second})
    assert len(answer.get_json()["recovery_codes"]) == 10
    assert token_of(signed_in) != before
    held = signed_in.get(FACTORS).get_json()
    assert (held["totp"], held["recovery_codes_left"]) == (True, 10)
    [(sealed,)] = stores.sql("SELECT sealed FROM totp_secrets")
    assert second["secret"].encode() not in bytes(sealed)


def test_a_change_of_factors_ends_the_other_sessions(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    other = signed_in_as(app)
    enrol(signed_in, stores)
    assert signed_in.get(ME).status_code == 200
    ended = problem(other.get(ME), 401, "session_invalid")
    assert "second factor was changed" in ended["detail"]


def test_a_new_app_takes_the_place_of_the_one_before(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    old, codes = enrol(signed_in, stores)
    new = Authenticator(signed_in.post(f"{FACTORS}/totp").get_json()["secret"])
    found = waiting(app)
    body = {"login_token": found["login_token"], "method": "totp"}
    answer = program(app).post(f"{API}/login/factor", json={**body, "code": code_of(old, stores)})
    assert answer.status_code == 200, "the old one counts until the new one is confirmed"
    confirmed = signed_in.post(f"{FACTORS}/totp/confirm", json={"code": code_of(new, stores)})
    assert confirmed.status_code == 204, "the recovery codes stay"
    body["login_token"] = waiting(app)["login_token"]
    answer = program(app).post(f"{API}/login/factor", json={**body, "code": code_of(old, stores)})
    problem(answer, 401, "invalid_factor")
    body |= {"method": "recovery_code", "code": codes[0]}
    assert program(app).post(f"{API}/login/factor", json=body).status_code == 200


def test_new_recovery_codes_void_the_old(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    problem(signed_in.post(f"{FACTORS}/recovery-codes"), 409, "no_factor")
    _, old = enrol(signed_in, stores)
    new = signed_in.post(f"{FACTORS}/recovery-codes").get_json()["recovery_codes"]
    assert not set(new) & set(old)
    body = {"login_token": waiting(app)["login_token"], "method": "recovery_code"}
    answer = program(app).post(f"{API}/login/factor", json={**body, "code": old[0]})
    problem(answer, 401, "invalid_factor")
    assert (
        program(app).post(f"{API}/login/factor", json={**body, "code": new[0]}).status_code == 200
    )


def test_removing_the_app_removes_the_codes(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    problem(signed_in.delete(f"{FACTORS}/totp"), 409, "no_factor")
    enrol(signed_in, stores)
    assert signed_in.delete(f"{FACTORS}/totp").status_code == 204
    assert signed_in.get(FACTORS).get_json()["recovery_codes_left"] == 0
    assert signed_in_as(app).get(ME).status_code == 200


CHANGES = {
    "set up": ("POST", f"{FACTORS}/totp", {}),
    "confirm": ("POST", f"{FACTORS}/totp/confirm", {"json": {"code": "000000"}}),
    "remove": ("DELETE", f"{FACTORS}/totp", {}),
    "codes": ("POST", f"{FACTORS}/recovery-codes", {}),
    "page": ("POST", "/account/security/totp", {"data": {"code": "000000"}}),
    "page of removal": ("POST", "/account/security/totp/remove", {}),
    "page of codes": ("POST", "/account/security/recovery-codes", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_needs_a_fresh_proof(
    app: Flask, stores: Stores, signed_in: FlaskClient, change: str
) -> None:
    enrol(signed_in, stores)
    age(stores)
    method, path, sent = CHANGES[change]
    answer = signed_in.open(path, method=method, **sent)  # type: ignore[arg-type]
    if path.startswith(API):
        problem(answer, 403, "step_up_required")
    else:
        assert answer.status_code == 303
        assert answer.location.startswith("/account/confirm")
    assert stores.sql("SELECT count(*) FROM recovery_codes") == [(10,)]


# -- step-up ---------------------------------------------------------------------------------------


def confirm(client: FlaskClient, **body: Any) -> Any:
    return client.post(f"{ME}/confirm", json=body)


def test_a_factor_is_a_fresh_proof_and_the_password_alone_is_none(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    authenticator, codes = enrol(signed_in, stores)
    age(stores)
    errors = problem(confirm(signed_in, password=PASSWORD), 400, "invalid_field")["errors"]
    assert "second factor" in errors["password"]
    before = token_of(signed_in)
    code = code_of(authenticator, stores)
    assert confirm(signed_in, method="totp", code=code).status_code == 204
    assert token_of(signed_in) != before
    problem(program(app).get(ME, headers={"Cookie": f"{COOKIE}={before}"}), 401, "session_invalid")
    assert signed_in.get(f"{ME}/export").status_code == 200
    refused = problem(confirm(signed_in, method="totp", code=code), 400, "invalid_field")
    assert "used before" in refused["errors"]["code"]
    assert confirm(signed_in, method="recovery_code", code=codes[0]).status_code == 204


def test_a_new_password_is_no_fresh_proof_of_who_holds_a_factor(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    enrol(signed_in, stores)
    age(stores)
    change = {"current_password": PASSWORD, "new_password": "nine loud kettles sing"}
    assert signed_in.post(f"{ME}/password", json=change).status_code == 204
    problem(signed_in.get(f"{ME}/export"), 403, "step_up_required")


def test_the_factor_of_somebody_else_is_none(
    app: Flask, stores: Stores, signed_in: FlaskClient
) -> None:
    enrol(signed_in, stores)
    sign_up(app, "eve@example.org")
    eve, codes = enrolled(app, stores, "eve@example.org")
    for method, code in (("totp", code_of(eve, stores)), ("recovery_code", codes[0])):
        problem(confirm(signed_in, method=method, code=code), 400, "invalid_field")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": "totp"},
        {"code": "000000"},
        {"password": PASSWORD, "method": "totp", "code": "1"},
    ],
)
def test_a_proof_is_one_of_both(signed_in: FlaskClient, body: dict[str, str]) -> None:
    problem(confirm(signed_in, **body), 400, "invalid_field")


def test_a_trusted_browser_still_needs_the_factor_for_step_up(
    app: Flask, stores: Stores, person: str
) -> None:
    authenticator, _ = enrolled(app, stores)
    client = browser(app)
    body = {
        "login_token": waiting(app)["login_token"],
        "method": "totp",
        "code": code_of(authenticator, stores),
        "remember_browser": True,
    }
    assert client.post(f"{API}/login/factor", json=body).status_code == 200
    client.post(f"{API}/logout")
    login = client.post(f"{API}/login", json={"email": EMAIL, "password": PASSWORD})
    assert login.status_code == 200
    assert login.get_json()["session"]["amr"] == ["pwd"]
    problem(client.get(f"{ME}/export"), 403, "step_up_required")
    problem(confirm(client, password=PASSWORD), 400, "invalid_field")
    assert confirm(client, method="totp", code=code_of(authenticator, stores)).status_code == 204
    assert client.get(f"{ME}/export").status_code == 200


# -- who must hold one -----------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["required", "user"])
def test_whoever_must_hold_one_sets_it_up_at_log_in(
    make_app: MakeApp, stores: Stores, setting: str
) -> None:
    app = make_app(SECOND_FACTOR=setting)
    sign_up(app)
    found = waiting(app)
    assert (found["enrols"], found["methods"]) == (True, [])
    body = {"login_token": found["login_token"]}
    secret = program(app).post(f"{API}/login/factor/totp", json=body).get_json()["secret"]
    client = browser(app)
    shown = {**body, "method": "totp", "code": "000000"}
    problem(client.post(f"{API}/login/factor", json=shown), 401, "invalid_factor")
    shown["code"] = code_of(Authenticator(secret), stores)
    answer = client.post(f"{API}/login/factor", json=shown)
    assert len(answer.get_json()["recovery_codes"]) == 10
    assert client.get(FACTORS).get_json()["totp"] is True
    problem(client.delete(f"{FACTORS}/totp"), 409, "factor_needed")
    assert client.get(FACTORS).get_json()["recovery_codes_left"] == 10
    found = waiting(app)
    assert (found["enrols"], found["methods"]) == (False, ["totp", "recovery_code"])
    body = {"login_token": found["login_token"]}
    refused = program(app).post(f"{API}/login/factor/totp", json=body)
    problem(refused, 401, "login_expired")


def test_others_need_none_by_role(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(SECOND_FACTOR="admin")
    sign_up(app)
    assert signed_in_as(app).get(ME).status_code == 200
    sign_up(app, "root@example.org", roles=["admin"])
    assert waiting(app, "root@example.org")["enrols"] is True


# -- reset by an administrator ---------------------------------------------------------------------


def test_an_administrator_removes_lost_factors(app: Flask, stores: Stores, person: str) -> None:
    enrolled(app, stores)
    sign_up(app, "root@example.org", roles=["admin"])
    admin = signed_in_as(app, "root@example.org")
    path = f"{API}/users/{person}/factors"
    stores.sql("UPDATE sessions SET proved_at = now() - interval '1 hour', ver = ver + 1")
    stores.redis.flushdb()
    problem(admin.delete(path), 403, "step_up_required")
    assert confirm(admin, password=PASSWORD).status_code == 204
    assert admin.delete(path).status_code == 204
    problem(admin.delete(path), 409, "no_factor")
    assert signed_in_as(app).get(ME).status_code == 200
    events = stores.sql("SELECT event FROM audit_events WHERE event ~ '^factor' ORDER BY id")
    assert [event for (event,) in events] == ["factor.added", "factor.reset"]


def test_nobody_resets_their_own(app: Flask, stores: Stores) -> None:
    root = sign_up(app, "root@example.org", roles=["admin"])
    admin = signed_in_as(app, "root@example.org")
    enrol(admin, stores)
    problem(admin.delete(f"{API}/users/{root}/factors"), 403, "own_account")
