"""`POST /tokens`, what is done with the token, and how it is refreshed and refused."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import current_user, login_required
from authapp.accounts.actor import OPERATOR
from tests.support.access_tokens import forged, parts_of, signed, signing_key, unheard_of
from tests.support.redis_contents import everything_in
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    bearing,
    browser,
    lose_fences,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)


def post(app: Flask, path: str, body: Any, **headers: str) -> TestResponse:
    return program(app).post(f"/api/v1{path}", json=body, headers=headers)


def get_token(app: Flask, email: str = EMAIL, **more: Any) -> dict[str, Any]:
    """The answer of POST /tokens."""
    answer = post(app, "/tokens", {"email": email, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    body: dict[str, Any] = answer.get_json()
    return body


def refresh(app: Flask, token: str) -> TestResponse:
    return post(app, "/tokens/refresh", {"refresh_token": token})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def me(app: Flask, headers: dict[str, str]) -> TestResponse:
    return program(app).get("/api/v1/me", headers=headers)


def is_live(app: Flask, token: str) -> bool:
    answer = me(app, bearer(token))
    if answer.status_code == 200:
        return True
    problem(answer, 401, "session_invalid")
    return False


# -- issue -----------------------------------------------------------------------------------------


def test_a_token_is_issued(app: Flask, person: str) -> None:
    answer = post(app, "/tokens", {"email": EMAIL, "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    body = answer.get_json()
    assert set(body) == {"access_token", "token_type", "expires_in", "user"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    assert body["user"]["id"] == person
    _, claims = parts_of(body["access_token"])
    assert set(claims) == {"iss", "sub", "sid", "jti", "iat", "exp", "aud"}
    assert claims["sub"] == person
    assert claims["exp"] - claims["iat"] == 3600


def test_the_time_it_lasts_is_a_setting(make_app: MakeApp) -> None:
    app = make_app(ACCESS_TOKEN_SECONDS=60)
    sign_up(app)
    for refreshable in (False, True):
        body = get_token(app, refresh=refreshable)
        _, claims = parts_of(body["access_token"])
        assert body["expires_in"] == claims["exp"] - claims["iat"] == 60


def test_nothing_of_it_is_personal(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    assert EMAIL not in str(parts_of(token))
    assert "Ada" not in str(parts_of(token))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"email": EMAIL, "password": "wrong one entirely"}, 401, "invalid_credentials"),
        ({"email": "nobody@example.org", "password": PASSWORD}, 401, "invalid_credentials"),
        ({"email": EMAIL}, 400, "invalid_field"),
        ({"email": EMAIL, "password": PASSWORD, "scope": "all"}, 400, "invalid_field"),
        ({"email": EMAIL, "password": PASSWORD, "refresh": "yes"}, 400, "invalid_field"),
        ([], 400, "invalid_json"),
    ],
)
def test_refused(app: Flask, person: str, body: Any, status: int, code: str) -> None:
    problem(post(app, "/tokens", body), status, code)


def test_nobody_learns_who_has_an_account(app: Flask, person: str) -> None:
    def answer(email: str) -> tuple[Any, ...]:
        refused = post(app, "/tokens", {"email": email, "password": "wrong one entirely"})
        body = {k: v for k, v in refused.get_json().items() if k != "request_id"}
        return refused.status_code, body

    assert answer(EMAIL) == answer("nobody@example.org")


def test_attempts_are_counted_together_with_those_of_log_in(make_app: MakeApp) -> None:
    app = make_app(LOGIN_FAILURES_PER_ACCOUNT="2 per minute")
    sign_up(app)
    wrong = {"email": EMAIL, "password": "wrong one entirely"}
    assert post(app, "/login", wrong).status_code == 401
    assert post(app, "/tokens", wrong).status_code == 401
    for path in ("/tokens", "/login"):
        answer = post(app, path, {"email": EMAIL, "password": PASSWORD})
        problem(answer, 429, "too_many_attempts")
        assert int(answer.headers["Retry-After"]) > 0


# -- use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        lambda t: {"Authorization": f"Bearer {t}"},
        lambda t: {"Authorization": f"bearer {t}"},
        lambda t: {"Authorization": f"Bearer   {t}"},
        lambda t: {"X-Access-Token": t},
        lambda t: {"X-Access-Token": t, "Authorization": "Basic YTpi"},
        lambda t: {"X-Access-Token": t, "Cookie": "theme=dark"},
    ],
    ids=["bearer", "lower", "spaces", "x-access-token", "basic", "other-cookie"],
)
def test_it_says_who_is_asking(
    app: Flask, person: str, headers: Callable[[str], dict[str, str]]
) -> None:
    answer = me(app, headers(get_token(app)["access_token"]))
    assert answer.status_code == 200
    assert answer.get_json()["id"] == person
    assert "Set-Cookie" not in answer.headers
    assert set(answer.vary) >= {"Cookie", "Authorization", "X-Access-Token"}


CHALLENGE = 'Bearer realm="authapp"'
SPENT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.AAAA"


@pytest.mark.parametrize(
    ("path", "headers", "told"),
    [
        ("/me", {}, CHALLENGE),
        ("/me", {"Authorization": "Basic YTpi"}, CHALLENGE),
        ("/me", {"Cookie": f"{COOKIE}=none-of-ours"}, CHALLENGE),
        ("/me", bearer(SPENT), f'{CHALLENGE}, error="invalid_token"'),
        ("/me", {"X-Access-Token": SPENT}, f'{CHALLENGE}, error="invalid_token"'),
        ("/login", {}, CHALLENGE),
        ("/tokens", bearer(SPENT), CHALLENGE),
        ("/tokens/refresh", {}, CHALLENGE),
    ],
)
def test_a_refusal_says_how_to_authenticate(
    app: Flask, path: str, headers: dict[str, str], told: str
) -> None:
    """RFC 9110, 11.6.1: with every 401. RFC 6750, 3: an error if a token was sent."""
    body = {"email": EMAIL, "password": PASSWORD}
    body = {"refresh_token": SPENT} if path == "/tokens/refresh" else body
    client = program(app)
    url = f"/api/v1{path}"
    answer = (
        client.get(url, headers=headers)
        if path == "/me"
        else client.post(url, json=body, headers=headers)
    )
    assert answer.status_code == 401
    assert answer.headers.getlist("WWW-Authenticate") == [told]


def test_people_are_told_by_the_page(client: FlaskClient) -> None:
    answer = client.post("/login", data={"email": EMAIL, "password": "wrong"})
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert "WWW-Authenticate" not in answer.headers


def test_a_page_takes_it_too(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    assert program(app).get("/account", headers=bearer(token)).status_code == 200


def test_an_app_that_embeds_us_takes_it_and_keeps_data_by_it(make_app: MakeApp) -> None:
    app = make_app()
    sign_up(app)

    @app.post("/notes")
    @login_required
    def notes() -> list[str]:
        session["notes"] = [*session.get("notes", []), current_user.email]
        kept: list[str] = session["notes"]
        return kept

    @app.post("/renew")
    def renew() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return current_user.email  # type: ignore[no-any-return]

    token = get_token(app)["access_token"]
    for count in (1, 2):
        answer = program(app).post("/notes", headers=bearer(token))
        assert answer.get_json() == [EMAIL] * count
    renewed = program(app).post("/renew", headers=bearer(token))
    assert renewed.get_data(as_text=True) == EMAIL
    assert "Set-Cookie" not in renewed.headers
    assert is_live(app, token)


def test_a_script_on_another_site_may_use_its_own_token(app: Flask, person: str) -> None:
    """No browser adds one by itself, so there is nothing to forge; with our cookie there is."""
    token = get_token(app)["access_token"]
    elsewhere = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
    answer = program(app).patch("/api/v1/me", json={}, headers=bearer(token) | elsewhere)
    assert answer.status_code == 200
    cookie = {"Cookie": f"{COOKIE}={'A' * 64}"}
    answer = program(app).patch("/api/v1/me", json={}, headers=bearer(token) | elsewhere | cookie)
    problem(answer, 403, "cross_origin")


def test_roles_count_at_once(app: Flask, stores: Stores) -> None:
    admin = sign_up(app, roles=("user", "admin"))
    token = get_token(app)["access_token"]
    assert program(app).get("/api/v1/roles", headers=bearer(token)).status_code == 200
    stores.sql("DELETE FROM user_roles WHERE user_id = %s", admin)
    services_of(app).changes.replay()
    problem(program(app).get("/api/v1/roles", headers=bearer(token)), 403, "forbidden")


# -- one round trip --------------------------------------------------------------------------------


def test_it_costs_one_round_trip(
    app: Flask, make_app: MakeApp, stores: Stores, person: str
) -> None:
    other = make_app()
    token = get_token(app)["access_token"]
    for instance in (app, other):
        assert is_live(instance, token)
        with stores.counted() as cost:
            assert is_live(instance, token)
        assert (cost.redis, cost.sql) == (1, [])


def test_neither_store_holds_a_token(app: Flask, stores: Stores, person: str) -> None:
    body = get_token(app, refresh=True)
    assert is_live(app, body["access_token"])
    secrets = [body["refresh_token"], body["access_token"], body["access_token"].split(".")[2]]
    rows = str(stores.sql("SELECT sessions::text FROM sessions"))
    held = repr(everything_in(stores.redis))
    assert all(secret not in rows + held for secret in secrets)


# -- refused ---------------------------------------------------------------------------------------

KEY = signing_key("k" * 32)


def spoilt(token: str, **claims: Any) -> str:
    return signed(parts_of(token)[1] | claims, KEY)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda _: "undefined",
        lambda t: t + "=",
        lambda t: t + "A",
        lambda t: t + "." + t,
        lambda t: f"{t}, {t}",
        lambda t: f"{t} {t}",
        lambda t: t.rpartition(".")[0] + ".",
        lambda t: spoilt(t, exp="4000000000"),
        lambda t: spoilt(t, exp=1),
        lambda t: spoilt(t, aud="other"),
        lambda t: spoilt(t, iss="other"),
        lambda t: signed(parts_of(t)[1], KEY, {"alg": "HS256", "typ": "JWT", "kid": "1"}),
        lambda t: signed(parts_of(t)[1], KEY, {"alg": "HS256", "typ": "JWT", "crit": ["exp"]}),
        lambda t: signed(parts_of(t)[1], KEY, {"alg": "none", "typ": "JWT"}),
    ],
    ids=[
        *("nothing", "no-token", "equals", "letter", "five-parts", "twice", "two-words"),
        *("no-signature", "text-exp", "expired", "aud", "iss", "kid", "crit", "none"),
    ],
)
@pytest.mark.parametrize("header", ["Authorization", "X-Access-Token"])
def test_what_is_not_ours_by_its_form_is_refused_without_io(
    app: Flask, stores: Stores, person: str, header: str, spoil: Callable[[str], str]
) -> None:
    token = get_token(app)["access_token"]
    assert is_live(app, token)  # so that no other reason is left
    value = spoil(token)
    with stores.counted() as cost:
        answer = me(app, {header: f"Bearer {value}" if header == "Authorization" else value})
    problem(answer, 401, "session_invalid")
    assert (cost.sql, cost.redis) == ([], 0)


def test_a_token_signed_by_somebody_else_is_refused_and_disturbs_nobody(
    app: Flask, stores: Stores, person: str
) -> None:
    token = get_token(app)["access_token"]
    for warm in (False, True):
        with stores.counted() as cost:
            assert not is_live(app, forged(token))
        assert (cost.redis, cost.sql) == (0, []), warm
        assert is_live(app, token)


def test_a_sound_token_of_no_session_is_refused(app: Flask, person: str) -> None:
    assert not is_live(app, unheard_of(get_token(app)["access_token"], KEY))


def test_a_token_counts_for_its_own_person_only(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    assert not is_live(app, spoilt(token, sub=str(UUID(int=7))))


def test_one_kind_of_token_is_not_another(app: Flask, signed_in: FlaskClient) -> None:
    cookie, body = token_of(signed_in), get_token(app, refresh=True)
    for text in (cookie, body["refresh_token"]):
        assert not is_live(app, text)
        problem(me(app, {"X-Access-Token": text}), 401, "session_invalid")
    for text in (body["access_token"], body["refresh_token"]):
        problem(me(app, bearing(text)), 401, "session_invalid")
    for text in (cookie, body["access_token"]):
        problem(refresh(app, text), 401, "session_invalid")
    assert is_live(app, body["access_token"])  # nor did that harm it


def test_the_session_of_a_cookie_is_not_named_by_a_token(
    app: Flask, stores: Stores, person: str, signed_in: FlaskClient
) -> None:
    token = get_token(app)["access_token"]
    ((browser_session,),) = stores.sql("SELECT id::text FROM sessions WHERE kind = 'browser'")
    assert not is_live(app, spoilt(token, sid=browser_session))


def test_two_identities_are_refused(app: Flask, signed_in: FlaskClient) -> None:
    one, other = (get_token(app)["access_token"] for _ in range(2))
    two = [
        bearing(token_of(signed_in), **bearer(one)),
        bearing(token_of(signed_in), **{"X-Access-Token": one}),
        bearing(token_of(signed_in), **bearer("not ours")),
        {"X-Access-Token": one, **bearer(other)},
        {"X-Access-Token": one, **bearer(one)},
        {"X-Access-Token": one, **bearer("")},
    ]
    for headers in two:
        for call in (program(app).get, program(app).patch):
            problem(call("/api/v1/me", json={}, headers=headers), 400, "two_identities")
        answer = program(app).post("/api/v1/logout", headers=headers)
        problem(answer, 400, "two_identities")
        assert "Set-Cookie" not in answer.headers
    assert is_live(app, one)
    assert is_live(app, other)
    assert signed_in.get("/api/v1/me").status_code == 200


def test_two_identities_are_told_on_a_page(app: Flask, signed_in: FlaskClient) -> None:
    token = get_token(app)["access_token"]
    assert signed_in.get("/account", headers=bearer(token)).status_code == 400


# -- end -------------------------------------------------------------------------------------------


def test_log_out_ends_it_on_every_instance(app: Flask, make_app: MakeApp, person: str) -> None:
    other = make_app()
    gone, kept = (get_token(app)["access_token"] for _ in range(2))
    for instance in (app, other):
        assert is_live(instance, gone)
    answer = program(app).post("/api/v1/logout", headers=bearer(gone))
    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers
    for instance in (other, app):
        assert not is_live(instance, gone)
        assert is_live(instance, kept)


def test_log_out_with_a_forged_token_ends_nothing(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    answer = program(app).post("/api/v1/logout", headers=bearer(forged(token)))
    assert answer.status_code == 204
    assert is_live(app, token)


def test_a_forged_token_leaves_nothing_in_redis(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    redis = services_of(app).redis
    for key in redis.scan_iter("sess:*"):
        redis.delete(key)
    assert program(app).get("/api/v1/me", headers=bearer(forged(token))).status_code == 401
    assert list(redis.scan_iter("sess:*")) == []
    assert is_live(app, token)
    assert len(list(redis.scan_iter("sess:*"))) == 1


def test_it_is_listed_and_ended_like_any_other(app: Flask, signed_in: FlaskClient) -> None:
    token = get_token(app)["access_token"]
    listed = signed_in.get("/api/v1/me/sessions").get_json()["sessions"]
    kinds = {one["kind"]: one for one in listed}
    assert set(kinds) == {"browser", "api"}
    assert kinds["api"]["id"] == parts_of(token)[1]["sid"]
    assert kinds["browser"]["current"]
    assert not kinds["api"]["current"]
    own = program(app).get("/api/v1/me/sessions", headers=bearer(token)).get_json()["sessions"]
    assert [one["kind"] for one in own if one["current"]] == ["api"]
    assert "API token" in signed_in.get("/account/sessions").get_data(as_text=True)

    assert signed_in.delete(f"/api/v1/me/sessions/{kinds['api']['id']}").status_code == 204
    assert not is_live(app, token)


def test_it_ends_itself_by_its_id(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    path = f"/api/v1/me/sessions/{parts_of(token)[1]['sid']}"
    answer = program(app).delete(path, headers=bearer(token))
    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers
    assert not is_live(app, token)


def test_it_ends_the_others(app: Flask, signed_in: FlaskClient) -> None:
    token, other = (get_token(app)["access_token"] for _ in range(2))
    answer = program(app).delete("/api/v1/me/sessions", headers=bearer(token))
    assert answer.status_code == 204
    assert is_live(app, token)
    assert not is_live(app, other)
    assert signed_in.get("/api/v1/me").status_code == 401


def test_it_ends_with_the_account(app: Flask, person: str) -> None:
    token = get_token(app)["access_token"]
    assert is_live(app, token)
    services_of(app).administration.set_active(UUID(person), active=False, actor=OPERATOR)
    assert not is_live(app, token)


def test_it_counts_towards_the_cap(make_app: MakeApp) -> None:
    app = make_app(SESSION_MAX_PER_USER=2)
    sign_up(app)
    first, *rest = (get_token(app)["access_token"] for _ in range(3))
    assert not is_live(app, first)
    assert all(is_live(app, token) for token in rest)


def test_log_in_with_a_token_at_hand_gives_a_cookie_and_ends_nothing(
    app: Flask, person: str
) -> None:
    token = get_token(app)["access_token"]
    answer = post(app, "/login", {"email": EMAIL, "password": PASSWORD}, **bearer(token))
    assert answer.status_code == 200
    assert COOKIE in answer.headers["Set-Cookie"]
    assert is_live(app, token)


def test_a_new_password_gives_a_program_a_new_token(app: Flask, signed_in: FlaskClient) -> None:
    body = get_token(app, refresh=True)
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    answer = post(app, "/me/password", change, **bearer(body["access_token"]))
    assert (answer.status_code, answer.data) == (204, b"")
    assert "Set-Cookie" not in answer.headers
    assert is_live(app, answer.headers["X-Access-Token"])
    assert not is_live(app, body["access_token"])
    problem(refresh(app, body["refresh_token"]), 401, "session_invalid")
    assert refresh(app, answer.headers["X-Refresh-Token"]).status_code == 200
    assert signed_in.get("/api/v1/me").status_code == 401


def test_a_new_password_gives_no_refresh_token_where_there_was_none(
    app: Flask, person: str
) -> None:
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    answer = post(app, "/me/password", change, **bearer(get_token(app)["access_token"]))
    assert is_live(app, answer.headers["X-Access-Token"])
    assert "X-Refresh-Token" not in answer.headers


def test_a_browser_is_told_no_token(signed_in: FlaskClient) -> None:
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    answer = signed_in.post("/api/v1/me/password", json=change)
    assert answer.status_code == 204
    assert not [name for name, _ in answer.headers if name.endswith("-Token")]


# -- refresh ---------------------------------------------------------------------------------------


def test_a_token_is_refreshed(app: Flask, person: str) -> None:
    body = get_token(app, refresh=True)
    answer = refresh(app, body["refresh_token"])
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    fresh = answer.get_json()
    assert set(fresh) == {"access_token", "token_type", "expires_in", "refresh_token", "user"}
    assert fresh["expires_in"] == 3600
    assert fresh["refresh_token"] != body["refresh_token"]
    assert parts_of(fresh["access_token"])[1]["sid"] == parts_of(body["access_token"])[1]["sid"]
    assert is_live(app, fresh["access_token"])
    assert is_live(app, body["access_token"])  # as long as it said
    assert refresh(app, fresh["refresh_token"]).status_code == 200


def test_a_refresh_token_used_again_ends_the_session_and_all_of_its_tokens(
    app: Flask, make_app: MakeApp, stores: Stores, person: str
) -> None:
    first = get_token(app, refresh=True)
    second = refresh(app, first["refresh_token"]).get_json()
    other = make_app()
    for token in (first, second):
        assert is_live(other, token["access_token"])
    problem(refresh(app, first["refresh_token"]), 401, "session_invalid")
    for token in (first, second):
        assert not is_live(other, token["access_token"])
        problem(refresh(app, token["refresh_token"]), 401, "session_invalid")
    assert stores.sql("SELECT ended_why FROM sessions") == [("refresh_reused",)]
    ended = stores.sql("SELECT details FROM audit_events WHERE event = 'session.ended'")
    assert ended == [({"why": "refresh_reused"},)]


def test_another_session_is_not_harmed_by_it(app: Flask, person: str) -> None:
    one, other = (get_token(app, refresh=True) for _ in range(2))
    refresh(app, one["refresh_token"])
    refresh(app, one["refresh_token"])
    assert is_live(app, other["access_token"])
    assert refresh(app, other["refresh_token"]).status_code == 200


@pytest.mark.parametrize(
    "spoil",
    [lambda _: "", lambda t: t + "A", lambda t: t[:-1], lambda _: "A" * 64, lambda t: t + "="],
    ids=["nothing", "longer", "shorter", "forged", "padded"],
)
def test_no_other_text_is_a_refresh_token(
    app: Flask, stores: Stores, person: str, spoil: Callable[[str], str]
) -> None:
    body = get_token(app, refresh=True)
    with stores.counted() as cost:
        problem(refresh(app, spoil(body["refresh_token"])), 401, "session_invalid")
    assert (cost.sql, cost.redis) == ([], 0)
    assert refresh(app, body["refresh_token"]).status_code == 200  # none of it counted as a use


def test_a_session_that_ended_is_not_refreshed(app: Flask, person: str) -> None:
    body = get_token(app, refresh=True)
    program(app).post("/api/v1/logout", headers=bearer(body["access_token"]))
    problem(refresh(app, body["refresh_token"]), 401, "session_invalid")


def test_who_was_deactivated_refreshes_nothing(app: Flask, person: str) -> None:
    body = get_token(app, refresh=True)
    services_of(app).administration.set_active(UUID(person), active=False, actor=OPERATOR)
    problem(refresh(app, body["refresh_token"]), 401, "session_invalid")


# -- when things break -----------------------------------------------------------------------------


def test_without_postgres_none_is_issued_or_refreshed(
    app: Flask, make_app: MakeApp, person: str
) -> None:
    lost = make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    body = get_token(app, refresh=True)
    assert is_live(app, body["access_token"])
    answer = post(lost, "/tokens", {"email": EMAIL, "password": PASSWORD})
    problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    problem(refresh(lost, body["refresh_token"]), 503, "unavailable")
    assert is_live(lost, body["access_token"])
    assert refresh(app, body["refresh_token"]).status_code == 200


def test_an_end_that_redis_did_not_note_is_told_as_pending(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    sign_up(app)
    token = get_token(app)["access_token"]
    lose_fences(app, monkeypatch)
    answer = program(app).post("/api/v1/logout", headers=bearer(token))
    assert (answer.status_code, answer.get_json()) == (202, {"effective_within": 60})
    assert post(app, "/tokens", {"email": EMAIL, "password": PASSWORD}).status_code == 200


def test_no_log_holds_a_token(
    app: Flask, person: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        body = get_token(app, refresh=True)
        fresh = refresh(app, body["refresh_token"]).get_json()
        for token in (body["access_token"], forged(body["access_token"]), "x" * 40):
            me(app, bearer(token))
        refresh(app, body["refresh_token"])
        me(app, {"X-Access-Token": fresh["access_token"]})
    out, err = capfd.readouterr()
    logged = out + err + caplog.text
    assert "session_invalid" in logged or "/api/v1/tokens" in logged
    for text in (body["refresh_token"], fresh["refresh_token"]):
        assert text not in logged
    for text in (body["access_token"], fresh["access_token"]):
        assert all(part not in logged for part in text.split(".")[1:])


# -- rotation --------------------------------------------------------------------------------------


def test_tokens_survive_the_rotation_of_secret_key(make_app: MakeApp, settings: Settings) -> None:
    old, new = settings["SECRET_KEY"], "n" * 32
    steps = [make_app(SECRET_KEY=secrets) for secrets in (old, f"{old},{new}", f"{new},{old}")]
    sign_up(steps[0])
    body = get_token(steps[0], refresh=True)
    assert all(is_live(app, body["access_token"]) for app in steps)
    fresh = refresh(steps[2], body["refresh_token"]).get_json()  # signed with the new one
    assert is_live(steps[1], fresh["access_token"])
    assert not is_live(steps[0], fresh["access_token"])
    assert is_live(steps[2], body["access_token"])  # known to its copy by the old key

    last = make_app(SECRET_KEY=new)
    assert is_live(last, fresh["access_token"])
    assert not is_live(last, body["access_token"])
    assert refresh(last, fresh["refresh_token"]).status_code == 200


def test_a_browser_of_the_same_person_is_untouched_by_all_of_it(app: Flask, person: str) -> None:
    client = signed_in_as(app)
    body = get_token(app, refresh=True)
    refresh(app, body["refresh_token"])
    refresh(app, body["refresh_token"])
    assert client.get("/account").status_code == 200
    assert browser(app).get("/account").status_code == 302
