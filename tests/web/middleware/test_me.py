"""`/api/v1/me`, by the fast path in front of Flask, and by Flask without it."""

from collections.abc import Callable
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.errors import StoreUnavailable
from authapp.signals import user_logged_in
from authapp.web.middleware.fast_path import FastPath
from tests.support.people import CLIENT
from tests.web.conftest import MakeApp
from tests.web.middleware.test_metrics import Growth
from tests.web.support import (
    COOKIE,
    EMAIL,
    Stores,
    access_token,
    bearing,
    browser,
    log_in,
    problem,
    program,
    services_of,
    sign_up,
    token_of,
    whole,
)

ME = "/api/v1/me"
by_both = pytest.mark.usefixtures("through")


@pytest.fixture
def token(signed_in: FlaskClient) -> str:
    """Of Ada's session, which has a copy."""
    assert signed_in.get(ME).status_code == 200
    return token_of(signed_in)


def ask(app: Flask, token: str = "", method: str = "GET", **headers: str) -> TestResponse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Cookie"] = f"{COOKIE}={token}"
    answer = program(app).open(ME, method=method, headers=sent)
    assert "Set-Cookie" not in answer.headers
    return answer


@by_both
def test_one_round_trip_says_who(app: Flask, token: str, person: str, stores: Stores) -> None:
    with stores.counted() as cost:
        answer = ask(app, token)
    assert (cost.redis, cost.sql) == (1, [])
    body = answer.get_json()
    assert (answer.status_code, body["id"], body["email"]) == (200, person, EMAIL)
    fields = {"id", "email", "email_verified", "name", "image", "roles", "active", "created_at"}
    fields |= {"amr", "auth_time", "assurance_level"}
    assert set(body) == fields
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert {"Cookie", "Authorization", "X-Access-Token"} <= set(answer.vary)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


@by_both
def test_a_forged_token_costs_nothing(app: Flask, token: str, stores: Stores) -> None:
    with stores.counted() as cost:
        for sent in (token[:-4] + "AAAA", "x", "A" * 64):
            problem(ask(app, sent), 401, "session_invalid")
        problem(ask(app), 401, "session_missing")
    assert (cost.redis, cost.sql) == (0, [])


@by_both
def test_an_ended_session_costs_one_round_trip(app: Flask, token: str, stores: Stores) -> None:
    program(app).post("/api/v1/logout", headers=bearing(token))
    problem(ask(app, token), 401, "session_invalid")
    with stores.counted() as cost:
        problem(ask(app, token), 401, "session_invalid")
    assert (cost.redis, cost.sql) == (1, [])


@by_both
def test_when_nobody_can_say_it_is_asked_once_and_503(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unavailable(*_args: object) -> None:
        asked.append(1)
        raise StoreUnavailable("redis")

    monkeypatch.setattr(services_of(app).sessions, "find", unavailable)
    answer = ask(app, token)
    problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]
    assert asked == [1]


@by_both
def test_a_change_shows_at_once(app: Flask, token: str, person: str) -> None:
    change = services_of(app).users.update_profile
    change(UUID(person), "Countess", None, CLIENT)
    assert ask(app, token).get_json()["name"] == "Countess"


def test_the_fast_path_says_what_flask_says(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = access_token(app)
    asked: list[Callable[[], TestResponse]] = [
        lambda: ask(app, token),
        lambda: ask(app, token, "HEAD"),
        lambda: ask(app, token, "POST"),
        lambda: ask(app, token, "POST", Sec_Fetch_Site="cross-site"),
        lambda: ask(app, token, "OPTIONS"),
        lambda: ask(app, token[:-4] + "AAAA"),
        lambda: ask(app),
        lambda: ask(app, token, X_Access_Token=sound),
        lambda: ask(app, X_Access_Token=sound),
        lambda: ask(app, Authorization=f"Bearer {sound}"),
        lambda: ask(app, token, Host="x" * 70),
        lambda: ask(app, token, Host="a b"),
        lambda: ask(app, token, Host=""),
        lambda: ask(app, token, Host="Some-Name.example.org:8080"),
        lambda: program(app).get(ME, data=b"{}", headers=bearing(token)),
        lambda: program(app).get(ME + "?a=b", headers=bearing(token)),
        lambda: program(app).get(ME + "/", headers=bearing(token)),
        lambda: program(app).get(ME, headers={"Cookie": f"{COOKIE}={token}; {COOKIE}={token}"}),
    ]
    by_fast_path = [whole(one()) for one in asked]
    monkeypatch.setattr(FastPath, "try_answer", lambda *_: None)
    assert by_fast_path == [whole(one()) for one in asked]
    assert {status for status, *_ in by_fast_path} == {200, 400, 401, 403, 404, 405, 415}


def test_what_is_plain_never_gets_to_flask(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flask, "full_dispatch_request", None)
    assert ask(app, token).status_code == 200
    assert ask(app, token, Host="Some-Name.example.org:8080").status_code == 200


@by_both
def test_it_is_counted_as_all_requests_are(app: Flask, token: str) -> None:
    counted = Growth(program(app), "authapp_requests_total")
    ask(app, token), ask(app)
    assert counted()[("GET", ME, "200")] == 1
    assert counted()[("GET", ME, "401")] == 1


def test_what_somebody_hangs_on_each_request_sees_these_too(make_app: MakeApp) -> None:
    """An application that adds a hook relies on it, so the fast path is closed."""
    seen = []
    app = make_app()
    app.before_request(lambda: seen.append("before"))
    sign_up(app)
    client = browser(app)
    log_in(client)
    seen.clear()
    assert client.get(ME).status_code == 200
    assert client.get("/forward-auth/nginx").status_code == 200
    assert seen == ["before", "before"]


def test_hosts_that_flask_does_not_trust_are_refused(
    app: Flask, token: str, make_app: MakeApp
) -> None:
    strict = make_app()
    strict.config["TRUSTED_HOSTS"] = ["auth.example.org"]
    assert ask(strict, token, Host="auth.example.org").status_code == 200
    assert ask(strict, token, Host="evil.example").status_code == 400
    page = browser(strict).get("/login", headers={"Host": "evil.example"})
    assert page.status_code == 400


@pytest.mark.parametrize("path", [ME, "/forward-auth/nginx"])
def test_hosts_of_the_environment_are_held_to(
    app: Flask, token: str, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("FLASK_TRUSTED_HOSTS", '["auth.example.org"]')
    strict = make_app()
    for host, status in (("auth.example.org", 200), ("evil.example", 400)):
        headers = {"Cookie": f"{COOKIE}={token}", "Host": host}
        assert program(strict).get(path, headers=headers).status_code == status


def test_what_somebody_hangs_on_the_api_sees_it_too(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    app = make_app()
    sign_up(app)
    app.before_request_funcs.setdefault("authapp.api", []).append(lambda: seen.append("before"))
    client = browser(app)
    log_in(client)
    assert client.get(ME).status_code == 200
    assert seen == ["before"]


def test_flask_limiters_own_limits_count_these_too(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_RATELIMIT_DEFAULT", "3 per hour")
    app = make_app()
    sign_up(app)
    client = browser(app)
    log_in(client)
    statuses = [client.get(ME).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_receivers_of_signals_leave_the_fast_path_open(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told of acts, and there are none in such a request."""
    told: list[object] = []

    def receive(_app: Flask, **facts: object) -> None:
        told.append(facts)

    app = make_app()
    sign_up(app)
    with user_logged_in.connected_to(receive, app):
        client = browser(app)
        log_in(client)
        assert told
        monkeypatch.setattr(Flask, "full_dispatch_request", None)
        assert client.get(ME).status_code == 200
