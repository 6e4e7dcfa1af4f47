"""An attacker who keeps guessing does not lock the owner out of browsers they have used."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import Auth
from authapp.crypto.tokens import DeviceTokens
from tests.support.redis_contents import everything_in
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    log_in,
    program,
    sign_up,
    signed_in_as,
    token_of,
    without_redis,
)

LIMIT = 3
DEVICE = "DEVICE-TOKEN"
OTHER = "other@example.org"
LogIn = Callable[[FlaskClient, str, str], TestResponse]


def by_api(client: FlaskClient, email: str = EMAIL, password: str = PASSWORD) -> TestResponse:
    return client.post("/api/v1/login", json={"email": email, "password": password})


@pytest.fixture
def strict(make_app: MakeApp) -> Flask:
    """Takes few attempts on an account, with two people in it."""
    app = make_app(
        LOGIN_FAILURES_PER_ACCOUNT=f"{LIMIT} per hour", LOGIN_LIMIT_PER_ADDRESS="1000 per hour"
    )
    sign_up(app)
    sign_up(app, OTHER)
    return app


@pytest.fixture
def known(strict: Flask) -> FlaskClient:
    """A browser that its owner logged in with, and out."""
    client = signed_in_as(strict)
    assert client.post("/logout").status_code == 303
    return client


def hammer(app: Flask, email: str = EMAIL) -> None:
    """Guess until unknown browsers may try no more."""
    attacker = browser(app)
    statuses = [log_in(attacker, email, f"guess {n}").status_code for n in range(LIMIT + 2)]
    assert statuses[-2:] == [429, 429]
    assert log_in(browser(app), email).status_code == 429, "nor who knows the password"


def carrying(app: Flask, value: str) -> FlaskClient:
    """Another browser with this cookie."""
    client = browser(app)
    client.set_cookie(DEVICE, value)
    return client


# -- the attack ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [log_in, by_api])
def test_who_was_here_before_is_not_locked_out(
    strict: Flask, known: FlaskClient, how: LogIn
) -> None:
    hammer(strict)
    assert how(known, EMAIL, PASSWORD).status_code in {200, 303}
    assert known.get("/account").status_code == 200
    assert log_in(browser(strict)).status_code == 429, "the attacker gains nothing by it"


def test_the_browser_is_known_by_the_api_too(strict: Flask) -> None:
    client = browser(strict)
    assert by_api(client).status_code == 200
    hammer(strict)
    assert by_api(client).status_code == 200


def test_the_attacker_gets_no_more_guesses(strict: Flask, known: FlaskClient) -> None:
    """A log-in from a known device does not clear the window of the others."""
    attacker = browser(strict)
    assert [log_in(attacker, password="x").status_code for _ in range(LIMIT)] == [401] * LIMIT
    assert log_in(known).status_code == 303
    assert log_in(attacker, password="x").status_code == 429


def test_a_device_that_guesses_counts_with_everybody_else(
    strict: Flask, known: FlaskClient
) -> None:
    statuses = [log_in(known, password="x").status_code for _ in range(2 * LIMIT + 1)]
    assert statuses == [401] * (2 * LIMIT) + [429]
    assert log_in(known).status_code == 429, "known or not"
    assert log_in(browser(strict)).status_code == 429


def test_people_who_share_a_browser_are_all_known(strict: Flask) -> None:
    client = browser(strict)
    for email in (EMAIL, OTHER, EMAIL, EMAIL, EMAIL, EMAIL):
        assert log_in(client, email).status_code == 303
    hammer(strict)
    hammer(strict, OTHER)
    assert log_in(client, OTHER).status_code == 303
    assert log_in(client).status_code == 303


def test_an_app_that_embeds_us_has_it(strict: Flask) -> None:
    @strict.post("/enter")
    def enter() -> str:
        Auth().log_in(EMAIL, PASSWORD)
        return "in"

    client = browser(strict)
    assert client.post("/enter").status_code == 200
    hammer(strict)
    assert client.post("/enter").status_code == 200
    assert browser(strict).post("/enter").status_code == 429


def test_without_redis_each_worker_knows_it(
    strict: Flask, known: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_redis(strict, monkeypatch)
    hammer(strict)
    assert log_in(known).status_code == 303


def test_tokens_of_programs_know_no_device(strict: Flask, known: FlaskClient) -> None:
    hammer(strict)
    body = {"email": EMAIL, "password": PASSWORD}
    answer = known.post("/api/v1/tokens", json=body)
    assert answer.status_code == 429
    assert not cookies_of(answer)


# -- whose cookie ----------------------------------------------------------------------------------


def spoilt(value: str) -> str:
    return ("A" if value[0] != "A" else "B") + value[1:]


FORGERIES: dict[str, Callable[[str, str], str]] = {
    "one of another account": lambda _own, other: other,
    "a changed one": lambda own, _: spoilt(own),
    "a shortened one": lambda own, _: own[:-1],
    "one by another secret": lambda _own, _: DeviceTokens(["x" * 32]).mint(EMAIL, 1).text,
    "one behind many": lambda own, _: ".".join([*map(spoilt, [own] * 4), own]),
    "dots": lambda _own, _: "." * 4000,
    "nothing": lambda _own, _: "",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_any_other_cookie_is_none(
    strict: Flask, known: FlaskClient, forge: Callable[[str, str], str]
) -> None:
    other = browser(strict)
    log_in(other, OTHER)
    forged = carrying(strict, forge(token_of(known, DEVICE), token_of(other, DEVICE)))
    hammer(strict)
    assert log_in(forged).status_code == 429
    assert log_in(carrying(strict, token_of(known, DEVICE))).status_code == 303, "the control"


def test_a_token_of_a_session_is_none_and_the_reverse(strict: Flask) -> None:
    client = signed_in_as(strict)
    session, device = token_of(client), token_of(client, DEVICE)
    hammer(strict)
    assert log_in(carrying(strict, session)).status_code == 429
    headers = {"Cookie": f"{COOKIE}={device}"}
    assert program(strict).get("/api/v1/me", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("cookie", "status"),
    [
        ("{d}={own}; {d}={bad}", 200),
        ("{d}={bad}; {d}={own}", 200),
        ("{d}={own}; {d}={own}", 200),
        ("{d}={bad}.{bad}a.{bad}b; {d}={own}", 200),
        ("{d}={bad}0; {d}={bad}1; {d}={bad}2; {d}={bad}3; {d}={own}", 429),
        ("{d}={own},{d}={bad}", 429),
        ("{d}={bad}; {d} ={own}", 429),
    ],
)
def test_of_several_cookies_each_clean_one_counts(
    strict: Flask, known: FlaskClient, cookie: str, status: int
) -> None:
    """A browser has two after a change of the cookie's domain or path; four are looked at."""
    hammer(strict)
    own = token_of(known, DEVICE)
    headers = {"Cookie": cookie.format(d=DEVICE, own=own, bad=spoilt(own))}
    body = {"email": EMAIL, "password": PASSWORD}
    answer = program(strict).post("/api/v1/login", json=body, headers=headers)
    assert answer.status_code == status


def test_a_new_password_ends_what_was_known_but_where_it_was_chosen(
    strict: Flask, known: FlaskClient
) -> None:
    """An attacker with the old one may have logged in often, and each log-in allows guesses."""
    here = signed_in_as(strict)
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    [_session, device] = cookies_of(here.post("/account/password", data=change))
    assert device.name == DEVICE
    hammer(strict)
    assert log_in(known, password=OTHER_PASSWORD).status_code == 429
    assert log_in(here, password=OTHER_PASSWORD).status_code == 303


def test_it_survives_the_rotation_of_secret_key(make_app: MakeApp, settings: Settings) -> None:
    old = str(settings["SECRET_KEY"])
    new = "a new secret of at least thirty-two bytes"
    limit = {"LOGIN_FAILURES_PER_ACCOUNT": f"{LIMIT} per hour"}
    client = browser(before := make_app(**limit))
    sign_up(before)
    log_in(client)
    value = token_of(client, DEVICE)
    during, after = make_app(SECRET_KEY=f"{new},{old}", **limit), make_app(SECRET_KEY=new, **limit)
    hammer(during)
    assert log_in(carrying(during, value)).status_code == 303
    assert log_in(carrying(after, value)).status_code == 429, "its secret is retired"


# -- the cookie ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "__Host-", "__Secure-"])
def test_it_is_as_safe_as_that_of_the_session(make_app: MakeApp, prefix: str) -> None:
    app = make_app(SESSION_COOKIE_NAME=prefix + COOKIE)
    sign_up(app)
    client = browser(app)
    for answer in (log_in(client), by_api(client)):
        [session, device] = cookies_of(answer)
        assert (session.name, device.name) == (prefix + COOKIE, prefix + DEVICE)
        lasts = {"max-age", "expires"}
        assert device.attributes["max-age"] == str(365 * 86_400)
        assert {k: v for k, v in device.attributes.items() if k not in lasts} == {
            k: v for k, v in session.attributes.items() if k not in lasts
        }
        assert {"secure", "httponly", "samesite", "path"} <= set(device.attributes)


def test_each_log_in_has_a_cookie_of_its_own_that_says_nothing(app: Flask, person: str) -> None:
    values = set()
    for _ in range(3):
        client = signed_in_as(app)
        values.add(token_of(client, DEVICE))
        assert len(token_of(client, DEVICE)) == 64
        assert not any(part in token_of(client, DEVICE) for part in (person, EMAIL, "ada"))
    assert len(values) == 3


def test_nothing_else_sets_clears_or_reads_it(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceTokens, "check", None)
    before = token_of(signed_in, DEVICE)
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/", None),
        ("GET", "/account", None),
        ("GET", "/login", None),
        ("GET", "/api/v1/me", None),
        ("PATCH", "/api/v1/me", {"name": "Ada"}),
        ("POST", "/signup", None),
        ("POST", "/logout", None),
        ("GET", "/account", None),
    ]
    for method, path, body in asked:
        answer = signed_in.open(path, method=method, json=body)
        assert answer.status_code < 500
        assert DEVICE not in {cookie.name for cookie in cookies_of(answer)}, path
    assert token_of(signed_in, DEVICE) == before, "it is about the device, not the session"


def test_a_refusal_looks_the_same_from_a_known_device(strict: Flask, known: FlaskClient) -> None:
    seen = []
    for client in (known, browser(strict)):
        answer = by_api(client, EMAIL, "wrong")
        assert not cookies_of(answer)
        own = {"X-Request-ID", "Date", "RateLimit"}
        headers = {name: value for name, value in answer.headers if name not in own}
        seen.append((answer.status_code, headers, {**answer.get_json(), "request_id": ""}))
    assert seen[0] == seen[1]


def test_no_store_holds_it(strict: Flask, known: FlaskClient, stores: Stores) -> None:
    value = token_of(known, DEVICE)
    log_in(known, password="wrong")
    kept = everything_in(stores.redis)
    assert any(key.startswith(b"rate:") and b"login-device" in key for key in kept)
    assert not any(value.encode() in key + held for key, held in kept.items())
