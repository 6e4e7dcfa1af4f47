"""`POST /password/forgot`, `POST /password/reset`, `POST /users/<id>/reset`, and log-in with a
one-time password."""

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.authentication.recovery import forgotten
from tests.support.mails import PUBLIC_URL, WITHOUT_VERIFICATION, mails
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    bearing,
    lose_fences,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
    whole,
    without_redis,
)

FORGOT, RESET = "/api/v1/password/forgot", "/api/v1/password/reset"


@pytest.fixture(autouse=True)
def at_once_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.0, 0.0))


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(**WITHOUT_VERIFICATION)


def forgot(app: Flask, email: str = EMAIL, **headers: str) -> TestResponse:
    return program(app).post(FORGOT, json={"email": email}, headers=headers)


def reset(app: Flask, token: str, new: str = OTHER_PASSWORD) -> TestResponse:
    return program(app).post(RESET, json={"token": token, "new_password": new})


def log_in(app: Flask, password: str, call: str = "login") -> TestResponse:
    return program(app).post(f"/api/v1/{call}", json={"email": EMAIL, "password": password})


def mailed_token(app: Flask) -> str:
    assert forgot(app).status_code == 202
    return mails(services_of(app), "reset")[-1].token


def test_the_whole_way(app: Flask, person: str) -> None:
    session = token_of(signed_in_as(app))
    answer = forgot(app)
    assert (answer.status_code, answer.get_json()) == (202, {"status": "check_mail"})
    (mail,) = mails(services_of(app))
    answer = reset(app, mail.token)
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert "Set-Cookie" not in answer.headers
    answer = program(app).get("/api/v1/me", headers=bearing(session))
    problem(answer, 401, "session_invalid")
    problem(log_in(app, PASSWORD), 401, "invalid_credentials")
    assert log_in(app, OTHER_PASSWORD).get_json()["user"]["id"] == person


@pytest.fixture
def alike(app: Flask, stores: Stores) -> dict[str, str]:
    """Emails that are answered alike, by what is true of them."""
    names = ("known", "unverified", "due", "deactivated", "at its cap", "without a password")
    emails = {name: f"{name.replace(' ', '')}@example.org" for name in names}
    for email in emails.values():
        sign_up(app, email)
    stores.sql("UPDATE users SET email_verified_at = now()")
    stores.sql(
        "UPDATE users SET email_verified_at = NULL, email_confirmation_due = email LIKE 'due%%' "
        "WHERE email ~ '^(unverified|due)'"
    )
    stores.sql("UPDATE users SET active = false WHERE email LIKE 'deactivated%%'")
    stores.sql("UPDATE users SET password_hash = '' WHERE email LIKE 'without%%'")
    for _ in range(10):
        assert forgot(app, emails["at its cap"]).status_code == 202
        services_of(app).forgotten_passwords.finish()
    return emails | {"unknown": "nobody@example.org", "unknown again": "nobody2@example.org"}


def shown(answer: TestResponse) -> tuple[int, list[tuple[str, str]], str]:
    status, headers, body = whole(answer)
    return status, [pair for pair in headers if pair[0] != "ratelimit"], body


def test_every_answer_looks_the_same(app: Flask, alike: dict[str, str]) -> None:
    before = len(mails(services_of(app)))
    assert before == 10, "the cap is reached"
    services_of(app).authentication._limits._shared = None  # one address asks for all
    seen = [shown(forgot(app, email)) for email in alike.values()]
    assert seen[0][0] == 202
    assert all(each == seen[0] for each in seen)
    told = {mail.recipient for mail in mails(services_of(app))[before:]}
    assert told == {alike[name] for name in ("known", "unverified", "due", "without a password")}


def test_who_asks_decides_nothing_of_the_link(app: Flask, person: str) -> None:
    """Nor does the address that the request was sent to."""
    answer = program(app).post(
        FORGOT,
        json={"email": EMAIL},
        base_url="http://evil.example",
        headers={
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Prefix": "/evil",
            "Forwarded": "host=evil.example;proto=http",
            "X-Original-URL": "http://evil.example/",
        },
        environ_overrides={"RAW_URI": f"http://evil.example{FORGOT}"},
    )
    assert answer.status_code == 202
    (mail,) = mails(services_of(app))
    assert mail.link.startswith(f"{PUBLIC_URL}/reset?token=")
    assert "evil" not in str(mail.context)


def test_requests_are_limited_by_address_alike(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**WITHOUT_VERIFICATION, LOGIN_LIMIT_PER_ADDRESS="1 per minute")
    sign_up(app)
    for email in (EMAIL, "nobody@example.org"):
        stores.redis.flushall()
        answer = forgot(app, "first@example.org")
        assert answer.headers["RateLimit-Policy"] == '"mail-address";q=1;w=60'
        answer = forgot(app, email)
        problem(answer, 429, "too_many_attempts")
        assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "token", ["", "x", "x" * 42, "x" * 43, "x" * 44, "x" * 50_000, "ö" * 43, "\0" * 43]
)
def test_a_token_that_does_not_count(app: Flask, token: str) -> None:
    problem(reset(app, token), 400, "invalid_token")


def test_every_reason_is_one_answer(app: Flask, person: str, stores: Stores) -> None:
    used, replaced = mailed_token(app), mailed_token(app)
    assert reset(app, replaced).status_code == 204
    expired = mailed_token(app)
    stores.sql("UPDATE one_time_links SET expires_at = now() WHERE used_at IS NULL")
    refused = {shown(reset(app, token))[2] for token in (used, replaced, expired, "x" * 43)}
    assert len(refused) == 1


def test_a_password_that_is_refused_leaves_the_token(app: Flask, person: str) -> None:
    token = mailed_token(app)
    body = problem(reset(app, token, "short"), 400, "invalid_field")
    assert set(body["errors"]) == {"new_password"}
    assert reset(app, token).status_code == 204


def test_a_change_that_is_not_everywhere_is_told(
    app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = mailed_token(app)
    lose_fences(app, monkeypatch)
    answer = reset(app, token)
    assert (answer.status_code, set(answer.get_json())) == (202, {"effective_within"})


def test_without_redis_people_choose_passwords(
    app: Flask, person: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_redis(app, monkeypatch)
    assert reset(app, mailed_token(app)).status_code == 202
    assert log_in(app, OTHER_PASSWORD).status_code == 200


def test_without_mail_the_answer_says_so(make_app: MakeApp) -> None:
    app = make_app()
    problem(forgot(app), 501, "mail_off")
    problem(reset(app, "x" * 43), 400, "invalid_token")


# -- for another person ----------------------------------------------------------------------------


def test_an_administrator_has_a_person_mailed(app: Flask, person: str) -> None:
    sign_up(app, "root@example.org", roles=["admin"])
    root = signed_in_as(app, "root@example.org")
    answer = root.post(f"/api/v1/users/{person}/reset")
    assert (answer.status_code, answer.get_json()) == (202, {"status": "mailed"})
    (mail,) = mails(services_of(app))
    assert mail.recipient == EMAIL
    assert mail.token not in answer.text
    root.patch(f"/api/v1/users/{person}", json={"active": False})
    problem(root.post(f"/api/v1/users/{person}/reset"), 409, "user_inactive")
    problem(root.post("/api/v1/users/00000000-0000-0000-0000-000000000000/reset"), 404, "not_found")


# -- one-time passwords ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["login", "tokens"])
def test_a_one_time_password_leads_on(app: Flask, call: str, stores: Stores) -> None:
    services_of(app).registration.sign_up(EMAIL, PASSWORD, is_one_time=True)
    answer = log_in(app, PASSWORD, call)
    assert answer.status_code == 403
    body: dict[str, Any] = answer.get_json()
    assert body["code"] == "password_change_required"
    assert "Set-Cookie" not in answer.headers
    assert stores.sql("SELECT count(*) FROM sessions") == [(0,)]
    assert reset(app, body["reset_token"]).status_code == 204
    assert log_in(app, OTHER_PASSWORD, call).status_code == 200
