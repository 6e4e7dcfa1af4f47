"""Factors and passkeys while a store is away, or has forgotten. docs/outages.md names the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from authapp.errors import StoreUnavailable
from tests.support.passkeys import Authenticator
from tests.support.services import await_trust
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.factors import API, code_of, enrol, waiting
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    log_in,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
)

SAYS = "Nobody can log in with a second factor right now"
LOGIN = {"email": EMAIL, "password": PASSWORD}


class Ada:
    """A person with an authenticator app, recovery codes and a passkey, who is signed in."""

    def __init__(self, app: Flask, stores: Stores) -> None:
        sign_up(app)
        self.web, self.stores = app, stores
        self.client = signed_in_as(app)
        self.app, self.codes = enrol(self.client, stores)
        self.device = Authenticator("http://localhost")
        options = self.client.post(f"{API}/me/passkeys/options").get_json()
        body = {"credential": self.device.create(options)}
        assert self.client.post(f"{API}/me/passkeys", json=body).status_code == 201

    def code(self) -> str:
        return code_of(self.app, self.stores)

    def answer(self) -> dict[str, Any]:
        """The answer of the passkey for a log-in."""
        return self.device.get(program(self.web).post(f"{API}/passkeys/options").get_json())


@pytest.fixture
def ada(make_app: MakeApp, stores: Stores) -> Ada:
    app = make_app(
        PUBLIC_URL="http://localhost",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    return Ada(app, stores)


@contextmanager
def away(app: Flask, store: str) -> Iterator[None]:
    """As if each attempt to reach the store failed."""
    services = services_of(app)
    breaker = services.cache.breaker if store == "redis" else services.database.breaker

    def fail() -> None:
        raise StoreUnavailable(store)

    recover, breaker.recover = breaker.recover, fail
    breaker.open()
    try:
        yield
    finally:
        breaker.recover = recover
        await_trust(services)


def complete(app: Flask, token: str, **shown: Any) -> Any:
    return program(app).post(f"{API}/login/factor", json={"login_token": token, **shown})


def test_without_postgres_sessions_go_on_and_a_log_in_says_why_it_can_not(ada: Ada) -> None:
    """The password is in a copy, and would do for somebody without a factor."""
    half = waiting(ada.web)
    code, answer = ada.code(), ada.answer()
    page = browser(ada.web)
    log_in(page)
    assert ada.client.get(f"{API}/me").status_code == 200  # which leaves a copy of the session
    with away(ada.web, "postgres"):
        assert ada.client.get(f"{API}/me").get_json()["amr"] == ["pwd", "otp", "hwk", "user"]
        assert ada.client.get("/account").status_code == 200
        client = program(ada.web)
        tried = (
            client.post(f"{API}/login", json=LOGIN),
            complete(ada.web, half["login_token"], method="totp", code=code),
            complete(ada.web, half["login_token"], method="recovery_code", code=ada.codes[0]),
            client.post(f"{API}/passkeys/login", json={"credential": answer}),
        )
        for refused in tried:
            told = problem(refused, 503, "unavailable")
            assert SAYS in told["detail"], (refused.request.path, told)
            assert int(refused.headers["Retry-After"]) > 0
        problem(client.post(f"{API}/tokens", json=LOGIN), 503, "unavailable")  # for everybody
        for path, form in (("/login", LOGIN), ("/login/factor", {"code": code})):
            refused = page.post(path, data=form)
            assert refused.status_code == 503
            assert SAYS in refused.text, path
    # nothing was used up
    assert complete(ada.web, half["login_token"], method="totp", code=code).status_code == 200
    passed = program(ada.web).post(f"{API}/passkeys/login", json={"credential": answer})
    assert passed.status_code == 200


def test_without_redis_nothing_changes(ada: Ada) -> None:
    with away(ada.web, "redis"):
        half = waiting(ada.web)
        code = ada.code()
        assert complete(ada.web, half["login_token"], method="totp", code=code).status_code == 200
        half = waiting(ada.web)
        assert_refused(ada, half, code=code)
        answer = ada.answer()
        client = program(ada.web)
        for status in (200, 401):
            passed = client.post(f"{API}/passkeys/login", json={"credential": answer})
            assert passed.status_code == status


def assert_refused(ada: Ada, half: dict[str, Any], **shown: str) -> None:
    shown = {"method": "totp", **shown}
    problem(complete(ada.web, half["login_token"], **shown), 401, "invalid_factor")


@pytest.mark.parametrize("how", ["wiped", "an older snapshot"])
def test_what_was_used_stays_used(ada: Ada, how: str) -> None:
    """A login token, a code, a recovery code, the answer of a passkey, and five failures."""
    half, spoilt, later = (waiting(ada.web) for _ in range(3))
    code, answer, recovery = ada.code(), ada.answer(), ada.codes[0]
    redis = ada.stores.redis
    snapshot: dict[bytes, Any] = {key: redis.dump(key) for key in redis.scan_iter()}

    assert complete(ada.web, half["login_token"], method="totp", code=code).status_code == 200
    [(used,)] = ada.stores.sql("SELECT last_step FROM totp_secrets")
    shown = {"method": "recovery_code", "code": recovery}
    again = waiting(ada.web)
    assert complete(ada.web, again["login_token"], **shown).status_code == 200
    client = program(ada.web)
    passed = client.post(f"{API}/passkeys/login", json={"credential": answer})
    assert passed.status_code == 200
    for _ in range(5):
        assert_refused(ada, spoilt, code="000000" if code != "000000" else "111111")

    redis.flushdb()
    if how != "wiped":
        for key, value in snapshot.items():
            redis.restore(key, 60_000, value)
    for token in (half["login_token"], spoilt["login_token"], again["login_token"]):
        problem(complete(ada.web, token, method="totp", code=ada.code()), 401, "login_expired")
    ada.stores.sql("UPDATE totp_secrets SET last_step = %s", used)
    assert_refused(ada, later, code=code)
    assert_refused(ada, later, **shown)
    problem(
        client.post(f"{API}/passkeys/login", json={"credential": answer}),
        401,
        "invalid_credentials",
    )
