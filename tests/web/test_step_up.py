"""Step-up: a fresh proof by this person in this session, before a sensitive act."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import step_up_required
from authapp.accounts.actor import OPERATOR
from authapp.errors import StepUpRequired
from authapp.sessions.records import ActiveSession
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    access_token,
    bearing,
    browser,
    cookies_of,
    log_in,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

CONFIRM = "/api/v1/me/confirm"
ME = "/api/v1/me"
RIGHT = {"password": PASSWORD}
OTHER = "other@example.org"


@pytest.fixture
def shop(make_app: MakeApp) -> Flask:
    """An app with an act of its own that needs step-up."""
    app = make_app()

    @app.route("/shop/pay", methods=["GET", "POST"])
    @step_up_required
    def pay() -> str:
        return "paid"

    sign_up(app)
    return app


@pytest.fixture
def ada(shop: Flask) -> FlaskClient:
    return signed_in_as(shop)


def is_sent_to_confirm(answer: TestResponse, onward: str) -> None:
    assert answer.status_code == 303
    assert answer.location == f"/account/confirm?next={onward}"


# -- how long a proof counts -----------------------------------------------------------------------


def test_a_log_in_counts_as_fresh_until_it_is_too_old(ada: FlaskClient, stores: Stores) -> None:
    assert ada.get("/shop/pay").text == "paid"
    stores.age_proofs(590)
    assert ada.get("/shop/pay").text == "paid"
    stores.age_proofs(10)
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_the_setting_says_how_long(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(STEP_UP_SECONDS=60)
    app.add_url_rule("/act", "act", step_up_required(lambda: "done"))
    sign_up(app)
    client = signed_in_as(app)
    stores.age_proofs(50)
    assert client.get("/act").text == "done"
    stores.age_proofs(10)
    is_sent_to_confirm(client.get("/act"), "/act")


def test_a_proof_of_the_future_does_not_count_until_then(ada: FlaskClient, stores: Stores) -> None:
    """By a clock that was set back a log-in would count for as long as it was set back."""
    stores.age_proofs(-30)
    assert ada.get("/shop/pay").text == "paid", "clocks of instances differ by seconds"
    stores.age_proofs(-3_600)
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_a_new_token_alone_proves_nothing(shop: Flask, ada: FlaskClient, stores: Stores) -> None:
    """`regenerate`, which an app may call at will, carries the time of the proof along."""
    stores.age_proofs()
    with shop.test_request_context(headers=bearing(token_of(ada))):
        shop.session_interface.regenerate(session)  # type: ignore[attr-defined]
        issued = session.issued  # type: ignore[attr-defined]
    old = token_of(ada)
    ada.set_cookie("SESSION-TOKEN", issued.session.token.text)
    assert token_of(ada) != old
    assert ada.get(ME).status_code == 200
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_a_new_password_counts_as_a_proof(ada: FlaskClient, stores: Stores) -> None:
    stores.age_proofs()
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert ada.post("/account/password", data=change).status_code == 303
    assert ada.get("/shop/pay").text == "paid"


# -- the proof -------------------------------------------------------------------------------------


def test_a_confirmation_brings_a_new_token_and_the_old_one_is_dead(
    shop: Flask, ada: FlaskClient, stores: Stores
) -> None:
    stores.age_proofs()
    old = token_of(ada)
    answer = ada.post(CONFIRM, json=RIGHT)
    assert (answer.status_code, answer.get_data()) == (204, b"")
    [cookie] = cookies_of(answer)
    assert cookie.value not in {"", old}
    assert ada.get("/shop/pay").text == "paid"
    problem(program(shop).get(ME, headers=bearing(old)), 401, "session_invalid")
    assert len(ada.get(f"{ME}/sessions").get_json()["sessions"]) == 1
    stores.age_proofs()
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_the_session_keeps_its_data_and_begins_its_limits_again(
    shop: Flask, stores: Stores
) -> None:
    ada = browser(shop)
    ada.post("/login", data={"email": EMAIL, "password": PASSWORD, "remember": "y"})
    before = ada.get(f"{ME}/sessions").get_json()["sessions"][0]
    stores.sql(
        "UPDATE sessions SET data = '{\"basket\": 7}', ver = ver + 1,"
        " expires_at = expires_at - interval '5 days'"
    )
    stores.age_proofs()
    assert ada.post(CONFIRM, json=RIGHT).status_code == 204
    [after] = ada.get(f"{ME}/sessions").get_json()["sessions"]
    assert after["expires_at"] >= before["expires_at"], "remembered, and as long as a log-in"
    assert stores.sql("SELECT data FROM sessions WHERE ended_at IS NULL") == [({"basket": 7},)]


def test_a_program_finds_its_new_tokens_in_headers(shop: Flask, stores: Stores) -> None:
    body = {"email": EMAIL, "password": PASSWORD, "refresh": True}
    issued = program(shop).post("/api/v1/tokens", json=body).get_json()
    old = {"Authorization": f"Bearer {issued['access_token']}"}
    stores.age_proofs()
    answer = program(shop).post(CONFIRM, json=RIGHT, headers=old)
    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers
    new = {"Authorization": f"Bearer {answer.headers['X-Access-Token']}"}
    assert program(shop).get("/shop/pay", headers=new).text == "paid"
    problem(program(shop).get(ME, headers=old), 401, "session_invalid")
    used = {"refresh_token": issued["refresh_token"]}
    problem(program(shop).post("/api/v1/tokens/refresh", json=used), 401, "session_invalid")
    fresh = {"refresh_token": answer.headers["X-Refresh-Token"]}
    assert program(shop).post("/api/v1/tokens/refresh", json=fresh).status_code == 200


def test_a_refreshed_token_proves_nothing(shop: Flask, stores: Stores) -> None:
    body = {"email": EMAIL, "password": PASSWORD, "refresh": True}
    issued = program(shop).post("/api/v1/tokens", json=body).get_json()
    stores.age_proofs()
    answer = program(shop).post(
        "/api/v1/tokens/refresh", json={"refresh_token": issued["refresh_token"]}
    )
    headers = {
        "Authorization": f"Bearer {answer.get_json()['access_token']}",
        "Accept": "application/json",
    }
    problem(program(shop).get("/shop/pay", headers=headers), 403, "step_up_required")


def test_another_session_s_confirmation_does_not_count(
    shop: Flask, ada: FlaskClient, stores: Stores
) -> None:
    elsewhere, token = signed_in_as(shop), access_token(shop)
    stores.age_proofs()
    assert ada.post(CONFIRM, json=RIGHT).status_code == 204
    is_sent_to_confirm(elsewhere.get("/shop/pay"), "/shop/pay")
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    problem(program(shop).get("/shop/pay", headers=headers), 403, "step_up_required")
    assert elsewhere.get(ME).status_code == 200, "they go on"


def test_another_person_s_password_does_not_count(
    shop: Flask, ada: FlaskClient, stores: Stores
) -> None:
    services_of(shop).registration.sign_up(OTHER, OTHER_PASSWORD)
    stores.age_proofs()
    answer = ada.post(CONFIRM, json={"password": OTHER_PASSWORD})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["password"]
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


@pytest.mark.parametrize("password", ["", "not the password", PASSWORD + " ", None, ["x"]])
def test_a_wrong_password_proves_nothing(
    ada: FlaskClient, stores: Stores, password: object
) -> None:
    stores.age_proofs()
    old = token_of(ada)
    answer = ada.post(CONFIRM, json={"password": password})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["password"]
    assert token_of(ada) == old
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_wrong_passwords_are_limited(ada: FlaskClient, stores: Stores) -> None:
    stores.age_proofs()
    wrong = {"password": "not the password"}
    for _ in range(10):
        problem(ada.post(CONFIRM, json=wrong), 400, "invalid_field")
    problem(ada.post(CONFIRM, json=RIGHT), 429, "too_many_attempts")
    page = ada.post("/account/confirm", data=RIGHT)
    assert page.status_code == 429
    assert int(page.headers["Retry-After"]) > 0
    is_sent_to_confirm(ada.get("/shop/pay"), "/shop/pay")


def test_the_log_says_that_it_happened_and_holds_no_password(
    ada: FlaskClient, stores: Stores
) -> None:
    assert ada.post(CONFIRM, json=RIGHT).status_code == 204
    events = stores.sql("SELECT event, details::text FROM audit_events ORDER BY id")
    assert ("identity.confirmed", "{}") in events
    assert PASSWORD not in str(events)


# -- the page --------------------------------------------------------------------------------------


def test_the_page_leads_back_to_the_page_that_asked(ada: FlaskClient, stores: Stores) -> None:
    stores.age_proofs()
    asked = ada.get("/shop/pay?item=7", follow_redirects=True)
    assert "Confirm that it is you" in asked.text
    [onward] = [i["value"] for i in Page(asked).all("input") if i.get("name") == "next"]
    assert onward == "/shop/pay?item=7"
    done = ada.post("/account/confirm", data={**RIGHT, "next": onward})
    assert (done.status_code, done.location) == (303, "/shop/pay?item=7")
    assert ada.get(done.location).text == "paid"


def test_a_form_is_not_sent_again_but_shown_again(ada: FlaskClient, stores: Stores) -> None:
    stores.age_proofs()
    sent_from = {"Referer": "http://localhost/shop/basket?x=1"}
    answer = ada.post("/shop/pay", headers=sent_from)
    is_sent_to_confirm(answer, "/shop/basket?x%3D1")
    elsewhere = ada.post("/shop/pay", headers={"Referer": "https://evil.example/shop"})
    assert elsewhere.location == "/account/confirm"
    assert ada.post("/shop/pay").location == "/account/confirm"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\t/evil.example"])
def test_the_page_leads_to_no_other_site(ada: FlaskClient, target: str) -> None:
    done = ada.post("/account/confirm", data={**RIGHT, "next": target})
    assert (done.status_code, done.location) == (303, "/account")


def test_the_page_says_what_is_wrong(ada: FlaskClient) -> None:
    for password in ("", "not the password"):
        answer = ada.post("/account/confirm", data={"password": password, "next": "/shop/pay"})
        assert answer.status_code == 400
        page = Page(answer)
        assert page.by_id("password")["aria-invalid"] == "true"
        assert not page.by_id("password").get("value")
        assert page.by_id("next")["value"] == "/shop/pay"


def test_programs_are_told(shop: Flask, ada: FlaskClient, stores: Stores) -> None:
    stores.age_proofs()
    answer = ada.get("/shop/pay", headers={"Accept": "application/json"})
    problem(answer, 403, "step_up_required")


def test_nobody_is_sent_to_log_in(shop: Flask) -> None:
    answer = browser(shop).get("/shop/pay")
    assert (answer.status_code, answer.location) == (302, "/login?next=/shop/pay")


# -- the acts that need it -------------------------------------------------------------------------

SENSITIVE = [
    ("PUT", "/api/v1/users/{other}/roles", {"roles": ["admin"]}),
    ("POST", "/api/v1/roles", {"name": "new", "permissions": ["users:read"]}),
    ("DELETE", "/api/v1/users/{other}", {}),
    ("PUT", "/api/v1/users/{other}/email", {"email": "new@example.org"}),
    ("DELETE", "/api/v1/sessions", {}),
    ("POST", "/admin/sessions/end-all", {}),
    ("POST", "/admin/users/{other}/delete", {}),
    ("POST", "/admin/users/{other}/email", {"email": "new@example.org"}),
    ("POST", "/admin/users/{other}/roles", {"roles": ["admin"]}),
    ("POST", "/admin/roles", {"name": "new", "permissions": ["users:read"]}),
    ("DELETE", "/api/v1/me/sessions", {}),
    ("DELETE", "/api/v1/me/sessions/{session}", {}),
    ("POST", "/account/sessions/end-others", {}),
    ("POST", "/account/sessions/{session}/end", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), SENSITIVE, ids=[s[1] for s in SENSITIVE])
def test_a_sensitive_act_needs_a_fresh_proof(
    app: Flask, stores: Stores, method: str, path: str, body: dict[str, object]
) -> None:
    sign_up(app, roles=["admin"])
    signed_in_as(app)
    (elsewhere,) = stores.sql("SELECT id FROM sessions")[0]
    admin, other = signed_in_as(app), sign_up(app, OTHER)
    path = path.format(other=other, session=elsewhere, missing=uuid4())
    sent = {"json" if path.startswith("/api/") else "data": body}
    stores.age_proofs()
    facts = (
        "SELECT (SELECT sum(role_id) FROM user_roles), (SELECT count(*) FROM roles),"
        " (SELECT count(*) FROM sessions WHERE ended_at IS NULL),"
        " (SELECT string_agg(email, ' ') FROM users), (SELECT d::text FROM deployment d)"
    )
    before = stores.sql(facts)
    answer = admin.open(path, method=method, **sent)  # type: ignore[arg-type]
    if path.startswith("/api/"):
        problem(answer, 403, "step_up_required")
    else:
        assert (answer.status_code, answer.location) == (303, "/account/confirm")
    assert stores.sql(facts) == before
    assert admin.post(CONFIRM, json=RIGHT).status_code == 204
    assert admin.open(path, method=method, **sent).status_code in {200, 201, 204, 303}  # type: ignore[arg-type]
    assert stores.sql(facts) != before
    stores.sql("DELETE FROM roles WHERE name = 'new'")


def test_log_out_needs_no_proof(app: Flask, stores: Stores) -> None:
    sign_up(app)
    for act in ("DELETE /api/v1/me/sessions/{}", "POST /account/sessions/{}/end", "POST /logout"):
        client = signed_in_as(app)
        (own,) = [
            s for s in client.get("/api/v1/me/sessions").get_json()["sessions"] if s["current"]
        ]
        stores.age_proofs()
        method, path = act.format(own["id"]).split()
        assert client.open(path, method=method).status_code in {204, 303}
        assert client.get(ME).status_code == 401


def test_who_may_not_act_is_not_asked_for_a_password(app: Flask, stores: Stores) -> None:
    sign_up(app)
    client, other = signed_in_as(app), sign_up(app, OTHER)
    stores.age_proofs()
    answer = client.put(f"/api/v1/users/{other}/roles", json={"roles": ["admin"]})
    problem(answer, 403, "forbidden")


def test_the_operator_and_the_code_of_an_app_are_not_asked(app: Flask) -> None:
    user_id = services_of(app).registration.sign_up(EMAIL, PASSWORD).id
    services_of(app).administration.set_roles(user_id, ["admin"], OPERATOR)


# -- at the same time ------------------------------------------------------------------------------


def test_a_session_that_ended_meanwhile_is_not_revived(
    app: Flask, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(app)
    client = signed_in_as(app)
    step_up = services_of(app).step_up
    verified = step_up._reauthentication.verified

    def ends_it(*args: object, **kwargs: object) -> object:
        stores.sql("UPDATE sessions SET ended_at = now(), ended_why = 'logout', ver = ver + 1")
        return verified(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(step_up._reauthentication, "verified", ends_it)
    problem(client.post(CONFIRM, json=RIGHT), 401, "session_invalid")
    assert stores.sql("SELECT 1 FROM sessions WHERE ended_at IS NULL") == []


def test_a_provisional_session_counts_from_its_beginning(app: Flask) -> None:
    sign_up(app)
    client = browser(app)
    log_in(client)
    found = services_of(app).sessions.find(
        services_of(app).tokens.check(token_of(client))  # type: ignore[arg-type]
    )
    assert isinstance(found, ActiveSession)
    begun = msgspec.structs.replace(found.record, created_at=datetime.now(UTC), proved_at=None)
    services_of(app).step_up.require_fresh(ActiveSession(found.token, begun))
    old = msgspec.structs.replace(begun, created_at=datetime.now(UTC) - timedelta(minutes=10))
    with pytest.raises(StepUpRequired):
        services_of(app).step_up.require_fresh(ActiveSession(found.token, old))
