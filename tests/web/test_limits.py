"""Whatever costs a hash, or could be guessed at, is limited before it costs anything."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.assembly.capacity import REQUEST_THREADS, logins_at_once
from authapp.web.api.description import document
from tests.support.hashing import hashing
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    browser,
    log_in,
    services_of,
    session_cookies_of,
    sign_up,
    signed_in_as,
    without_redis,
)

LOGINS_AT_ONCE = logins_at_once(REQUEST_THREADS)  # in a worker without more threads

LIMIT = 3
WRONG = {"current_password": "wrong", "new_password": OTHER_PASSWORD}

# what hashes a password; the number makes each attempt one of its own
CALLS: dict[str, dict[str, Any]] = {
    "/login": {"data": {"email": "nobody{}@example.org", "password": PASSWORD}},
    "/api/v1/login": {"json": {"email": "nobody{}@example.org", "password": PASSWORD}},
    "/api/v1/tokens": {"json": {"email": "nobody{}@example.org", "password": PASSWORD}},
    "/signup": {"data": {"email": "new{}@example.org", "password": PASSWORD}},
    "/api/v1/signup": {"json": {"email": "new{}@example.org", "password": PASSWORD}},
    "/account/password": {"data": WRONG},
    "/api/v1/me/password": {"json": WRONG},
    "/account/confirm": {"data": {"password": "wrong"}},
    "/api/v1/me/confirm": {"json": {"password": "wrong"}},
}


def limited(make_app: MakeApp, **settings: object) -> Flask:
    limits = {
        "LOGIN_LIMIT_PER_ADDRESS": f"{LIMIT} per hour",
        "LOGIN_FAILURES_PER_ACCOUNT": f"{LIMIT} per hour",
    }
    return make_app(**(limits | settings))


@contextmanager
def every_slot_taken(app: Flask) -> Iterator[None]:
    """As many passwords are hashed as may be at once."""
    with ExitStack() as taken:
        for _ in range(LOGINS_AT_ONCE):
            taken.enter_context(services_of(app).authentication._passwords.queue.place())
        yield


def post(client: FlaskClient, path: str, number: int, **headers: str) -> TestResponse:
    ((kind, fields),) = CALLS[path].items()
    numbered = {name: value.format(number) for name, value in fields.items()}
    sent: Any = {kind: numbered, "headers": headers}
    return client.post(path, **sent)


@pytest.mark.parametrize("path", CALLS)
def test_what_costs_a_hash_is_refused_before_it(make_app: MakeApp, path: str) -> None:
    app = limited(make_app)
    client = browser(app)
    if "/account/" in path or "/me/" in path:
        sign_up(app)
        client = signed_in_as(app)
    with hashing() as costs:
        statuses = [post(client, path, n).status_code for n in range(LIMIT)]
    assert 429 not in statuses
    assert len(costs) == LIMIT
    with hashing() as costs:
        for number in range(LIMIT, LIMIT + 3):
            refused = post(client, path, number)
            assert refused.status_code == 429
            assert 0 < int(refused.headers["Retry-After"]) <= 3600
            assert not session_cookies_of(refused)
    assert costs == []


@pytest.mark.parametrize("path", CALLS)
def test_what_is_over_its_limit_takes_no_place(make_app: MakeApp, path: str) -> None:
    """Refused before it asks for a hashing slot, and so even where there is none."""
    app = limited(make_app)
    client = browser(app)
    if "/account/" in path or "/me/" in path:
        sign_up(app)
        client = signed_in_as(app)
    for number in range(LIMIT):
        post(client, path, number)
    with every_slot_taken(app):
        assert post(client, path, LIMIT).status_code == 429


@pytest.mark.parametrize("path", CALLS)
def test_who_finds_no_place_has_used_up_no_attempt(make_app: MakeApp, path: str) -> None:
    app = limited(make_app)
    client = browser(app)
    if "/account/" in path or "/me/" in path:
        sign_up(app)
        client = signed_in_as(app)
    with every_slot_taken(app):
        for number in range(2 * LIMIT):
            assert post(client, path, number).status_code == 503
    assert post(client, path, 2 * LIMIT).status_code in {201, 303, 400, 401}


OTHERS = 10


def test_an_address_over_its_limit_slows_nobody(make_app: MakeApp) -> None:
    """Seen before: 24 connections of one address made 19 of 30 log-ins of others 503."""
    app = limited(make_app)
    sign_up(app)
    flood, others = browser(app), browser(app)
    flood.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    for number in range(LIMIT):
        assert post(flood, "/login", number).status_code == 401
    over = threading.Event()

    def flooding() -> set[int]:
        client = browser(app)
        client.environ_base["REMOTE_ADDR"] = "203.0.113.9"
        seen = set()
        while not over.is_set():
            seen.add(log_in(client, "nobody@example.org", "guess").status_code)
        return seen

    with ThreadPoolExecutor(24) as threads:
        floods = [threads.submit(flooding) for _ in range(24)]
        try:
            statuses = []
            for number in range(OTHERS):
                others.environ_base["REMOTE_ADDR"] = f"198.51.100.{number}"
                statuses.append(log_in(others).status_code)
        finally:
            over.set()
        assert set().union(*(each.result(30) for each in floods)) == {429}
    assert statuses == [303] * OTHERS


UNREADABLE: dict[str, dict[str, Any]] = {
    "a long email": {"email": "\u0327\u0300" * 5_000, "password": PASSWORD},
    "no email": {"email": "ada", "password": PASSWORD},
    "an empty email": {"email": "", "password": PASSWORD},
    "a field missing": {"email": EMAIL},
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("path", ["/login", "/api/v1/login", "/api/v1/tokens"])
def test_a_log_in_that_cannot_be_read_counts_by_its_address_alone(
    make_app: MakeApp, path: str, sent: dict[str, Any]
) -> None:
    app = limited(make_app)
    sign_up(app)
    kind = "json" if path.startswith("/api/") else "data"
    client = browser(app)
    statuses = [client.post(path, **{kind: sent}).status_code for _ in range(LIMIT + 2)]
    assert statuses[-2:] == [429, 429]
    assert set(statuses[:LIMIT]) <= {400, 413}
    client.environ_base["REMOTE_ADDR"] = "192.0.2.99"
    assert log_in(client).status_code == 303, "it costs the account nothing"


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'{"a":1}', b"x" * 70_000, b"[" * 60_000])
@pytest.mark.parametrize("path", ["/api/v1/login", "/api/v1/tokens"])
def test_a_body_that_cannot_be_read_counts_too(make_app: MakeApp, path: str, body: bytes) -> None:
    client = browser(limited(make_app))
    how: Any = {"data": body, "content_type": "application/json"}
    statuses = [client.post(path, **how).status_code for _ in range(LIMIT + 1)]
    assert statuses[-1] == 429
    assert set(statuses[:-1]) <= {400, 413}


POLICIES = {"login": "login-address", "tokens": "login-address", "signup": "signup-address"}


@pytest.mark.parametrize("path", CALLS)
def test_it_tells_what_is_left(make_app: MakeApp, path: str) -> None:
    """As draft-ietf-httpapi-ratelimit-headers-10 has it, also when it refuses."""
    app = limited(make_app)
    client = browser(app)
    if "/account/" in path or "/me/" in path:
        sign_up(app)
        client = signed_in_as(app)
    policy = POLICIES.get(path.rpartition("/")[2], "password-account")
    for number in range(LIMIT + 1):
        answer = post(client, path, number)
        assert answer.headers.getlist("RateLimit-Policy") == [f'"{policy}";q={LIMIT};w=3600']
        (told,) = answer.headers.getlist("RateLimit")
        name, left, more_in = re.fullmatch(r'"([a-z-]+)";r=(\d+);t=(\d+)', told).groups()  # type: ignore[union-attr]
        assert (name, int(left)) == (policy, max(0, LIMIT - number - 1))
        assert 3000 <= int(more_in) <= 3600
    assert answer.headers.getlist("Retry-After") == [more_in]
    if path.startswith("/api/"):
        calls = document(app, COOKIE, "0", least_password=15)["paths"][path]["post"]["responses"]
        announced = [
            set(told.get("headers", ())) for status, told in calls.items() if status < "300"
        ]
        assert announced
        assert all({"RateLimit", "RateLimit-Policy"} <= names for names in announced)
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} == set(calls["429"]["headers"])
    quiet = client.get("/api/v1/me")
    assert not {"RateLimit", "RateLimit-Policy"} & set(quiet.headers.keys())


def test_nobody_is_told_how_often_an_account_was_tried(make_app: MakeApp) -> None:
    """It would show when the owner logged in, and so that there is one."""
    app = limited(make_app, LOGIN_LIMIT_PER_ADDRESS="1000 per hour")
    sign_up(app)
    there, nowhere = browser(app), browser(app)
    for client, email in ((there, EMAIL), (nowhere, "nobody@example.org")):
        for _ in range(LIMIT):
            assert log_in(client, email, "wrong").status_code == 401
    answers = [log_in(there, EMAIL), log_in(nowhere, "nobody@example.org")]
    for answer in answers:
        assert answer.status_code == 429
        assert answer.headers["RateLimit-Policy"] == '"login-address";q=1000;w=3600'
    assert dict(answers[0].headers).keys() == dict(answers[1].headers).keys()


def test_without_redis_it_tells_what_this_worker_has_left(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = limited(make_app, WEB_CONCURRENCY=2, LOGIN_LIMIT_PER_ADDRESS="8 per hour")
    without_redis(app, monkeypatch)
    answer = post(browser(app), "/login", 0)
    assert answer.status_code == 401
    assert answer.headers["RateLimit-Policy"] == '"login-address";q=4;w=3600'
    assert answer.headers["RateLimit"].startswith('"login-address";r=3;')


def test_who_hammers_the_log_in_keeps_nobody_from_a_new_password(make_app: MakeApp) -> None:
    app = limited(make_app, LOGIN_LIMIT_PER_ADDRESS="1000 per hour")
    sign_up(app)
    owner, attacker = signed_in_as(app), browser(app)
    assert [log_in(attacker, EMAIL, "wrong").status_code for _ in range(LIMIT + 1)][-1] == 429
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert owner.post("/account/password", data=change).status_code == 303


def test_no_call_that_hashes_is_missing_from_the_table(app: Flask) -> None:
    named = ("login", "signup", "password", "confirm", "tokens")
    without_a_password = {"/api/v1/passkeys/login", "/api/v1/me/factors/totp/confirm"}
    there_are = {
        rule.rule
        for rule in app.url_map.iter_rules()
        if "POST" in (rule.methods or ()) and rule.rule.endswith(named)
    }
    assert there_are - without_a_password == set(CALLS)


def test_sign_ups_and_log_ins_are_counted_apart(make_app: MakeApp) -> None:
    client = browser(limited(make_app))
    for number in range(LIMIT):
        path = ("/signup", "/api/v1/signup")[number % 2]
        assert post(client, path, number).status_code in {201, 303}
    assert post(client, "/signup", LIMIT).status_code == 429
    assert post(client, "/login", LIMIT + 1).status_code == 401


@pytest.mark.parametrize("path", ["/login", "/signup", "/api/v1/login", "/api/v1/signup"])
def test_what_a_client_says_of_its_address_buys_no_window(make_app: MakeApp, path: str) -> None:
    client = browser(limited(make_app))
    for number in range(LIMIT + 1):
        said = f"203.0.113.{number}"
        headers = {"X-Forwarded-For": said, "X-Real-IP": said, "Forwarded": f"for={said}"}
        answer = post(client, path, number, **headers)
        assert (answer.status_code == 429) is (number == LIMIT)


@pytest.mark.parametrize("path", ["/login", "/signup", "/api/v1/login", "/api/v1/signup"])
def test_an_ipv6_customer_has_one_window(make_app: MakeApp, path: str) -> None:
    client = browser(limited(make_app))

    def status(number: int, address: str) -> int:
        client.environ_base["REMOTE_ADDR"] = address
        return post(client, path, number).status_code

    for number in range(LIMIT):
        assert status(number, f"2001:db8:0:1:{number}::{number}") != 429
    assert status(90, "2001:db8:0:1:ffff:ffff:ffff:ffff") == 429
    assert status(91, "2001:db8:0:2::1") != 429, "a neighbour is not concerned"


SPELLINGS = [
    EMAIL.upper(),
    f"  {EMAIL}\t",
    "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in EMAIL.partition("@")[0])
    + "@example.org",
    EMAIL.title(),
]


@pytest.mark.parametrize("kind", ["data", "json"])
def test_spellings_of_an_email_share_a_window(make_app: MakeApp, kind: str) -> None:
    app = limited(make_app, LOGIN_LIMIT_PER_ADDRESS="1000 per hour")
    sign_up(app)
    path = "/login" if kind == "data" else "/api/v1/login"
    for number, spelling in enumerate(SPELLINGS):
        sent: Any = {kind: {"email": spelling, "password": "wrong"}}
        answer = browser(app).post(path, **sent)
        assert answer.status_code == (401 if number < LIMIT else 429), spelling
