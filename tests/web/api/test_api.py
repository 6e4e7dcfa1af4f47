"""The JSON API: what each call answers, and how it says no."""

import json
import unicodedata
import uuid
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.redis_contents import everything_in
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    bearing,
    cookies_of,
    is_utc,
    problem,
    program,
    sign_up,
)

LOGIN = {"email": EMAIL, "password": PASSWORD}


@pytest.fixture
def api(app: Flask) -> FlaskClient:
    return program(app)


def post(api: FlaskClient, call: str, **body: Any) -> TestResponse:
    return api.post(f"/api/v1/{call}", json=body)


def token_in(answer: TestResponse) -> str:
    [cookie, _device] = cookies_of(answer)
    return cookie.value


# -- answers ---------------------------------------------------------------------------------------


def test_sign_up(api: FlaskClient, stores: Stores) -> None:
    answer = post(api, "signup", email="Ada@Example.org", password=PASSWORD, name=" Ada  King ")
    assert answer.status_code == 201
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not cookies_of(answer)
    body = answer.get_json()
    [(user_id,)] = stores.sql("SELECT id FROM users")
    assert is_utc(body.pop("created_at"))
    assert body == {
        "id": str(user_id),
        "email": "Ada@example.org",
        "name": "Ada King",
        "image": "",
        "roles": ["user"],
        "active": True,
        "email_verified": False,
    }


def test_a_name_may_be_left_out(api: FlaskClient) -> None:
    assert post(api, "signup", **LOGIN).get_json()["name"] == ""


def test_log_in_and_me(api: FlaskClient, person: str, stores: Stores) -> None:
    answer = api.post("/api/v1/login", json=LOGIN, headers={"User-Agent": "curl/8.5"})
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    [cookie, _device] = cookies_of(answer)
    assert (cookie.name, "max-age" in cookie.attributes) == (COOKIE, False)

    body = answer.get_json()
    assert set(body) == {"user", "session"}
    user, session = body["user"], body["session"]
    fields = {"id", "email", "email_verified", "name", "image", "roles", "active", "created_at"}
    assert set(user) == fields
    assert (user["id"], user["email"], user["roles"]) == (person, EMAIL, ["user"])
    [(session_id,)] = stores.sql("SELECT id FROM sessions")
    assert is_utc(session.pop("created_at"))
    when = session.pop("auth_time")
    assert is_utc(when)
    assert is_utc(session.pop("last_seen_at"))
    lasts = datetime.fromisoformat(session.pop("expires_at"))
    assert timedelta(hours=11, minutes=59) < lasts - datetime.now(lasts.tzinfo)
    assert session == {
        "id": str(session_id),
        "kind": "browser",
        "current": True,
        "address": "127.0.0.1",
        "user_agent": "curl/8.5",
        "device": "curl",
        "amr": ["pwd"],
        "assurance_level": 1,
    }

    me = api.get("/api/v1/me", headers=bearing(cookie.value))
    proof = {"amr": ["pwd"], "auth_time": when, "assurance_level": 1}
    assert (me.status_code, me.get_json()) == (200, user | proof)
    assert me.headers["Cache-Control"] == "no-store"


def test_remember(api: FlaskClient, person: str) -> None:
    [kept, _device] = cookies_of(post(api, "login", **LOGIN, remember=True))
    [plain, _device] = cookies_of(post(api, "login", **LOGIN, remember=False))
    assert kept.attributes["max-age"] == "2592000"
    assert "max-age" not in plain.attributes


def test_log_out(api: FlaskClient, person: str) -> None:
    token = token_in(post(api, "login", **LOGIN))
    answer = api.post("/api/v1/logout", headers=bearing(token))
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    problem(api.get("/api/v1/me", headers=bearing(token)), 401, "session_invalid")
    assert post(api, "logout").status_code == 204, "without a session there is nothing to end"


def test_no_session_and_a_session_that_is_none(api: FlaskClient, person: str) -> None:
    problem(api.get("/api/v1/me"), 401, "session_missing")
    problem(api.get("/api/v1/me", headers={"Cookie": "other=1"}), 401, "session_missing")
    problem(api.get("/api/v1/me", headers=bearing("x")), 401, "session_invalid")
    problem(api.get("/api/v1/me", headers=bearing("A" * 64)), 401, "session_invalid")


# -- refusals --------------------------------------------------------------------------------------


def test_a_taken_email_in_any_spelling(api: FlaskClient, person: str) -> None:
    for spelling in (EMAIL, EMAIL.upper(), f" {EMAIL}\n", "\uff41da.lovelace@example.ORG"):
        told = problem(post(api, "signup", email=spelling, password=PASSWORD), 409, "email_taken")
        assert "example" not in json.dumps(told).lower()


def test_unknown_wrong_and_inactive_look_the_same(
    api: FlaskClient, app: Flask, stores: Stores
) -> None:
    sign_up(app)
    sign_up(app, "gone@example.org")
    stores.sql("UPDATE users SET active = false WHERE email = 'gone@example.org'")
    seen = []
    for email, password in (
        ("nobody@example.org", PASSWORD),
        (EMAIL, "not the password"),
        (EMAIL, ""),
        ("gone@example.org", PASSWORD),
        ("gone@example.org", "not the password"),
    ):
        answer = post(api, "login", email=email, password=password)
        body = problem(answer, 401, "invalid_credentials")
        assert not cookies_of(answer)
        headers = {
            n: v for n, v in answer.headers if n not in {"X-Request-ID", "Date", "RateLimit"}
        }
        del body["request_id"]
        seen.append((body, headers))
    assert all(each == seen[0] for each in seen)


def test_too_many_attempts(api: FlaskClient, person: str) -> None:
    for _ in range(10):
        problem(post(api, "login", email=EMAIL, password="x"), 401, "invalid_credentials")
    for email in (EMAIL, EMAIL.upper()):
        answer = post(api, "login", email=email, password=PASSWORD)
        problem(answer, 429, "too_many_attempts")
        assert 0 < int(answer.headers["Retry-After"]) <= 900
        assert not cookies_of(answer)


def test_an_account_that_does_not_exist_is_limited_alike(api: FlaskClient) -> None:
    for _ in range(10):
        post(api, "login", email="nobody@example.org", password="x")
    answer = post(api, "login", email="nobody@example.org", password="x")
    problem(answer, 429, "too_many_attempts")


def test_errors_of_http_itself_are_problems_too(api: FlaskClient) -> None:
    problem(api.get("/api/v1/nothing"), 404, "not_found")
    problem(api.get("/api/v1/login"), 405, "method_not_allowed")
    assert "POST" in api.get("/api/v1/login").headers["Allow"]


# -- bodies ----------------------------------------------------------------------------------------

NO_JSON = {
    "nothing": b"",
    "blanks": b"  \n",
    "malformed": b'{"email": ',
    "two values": b"{}{}",
    "a comment": b"{} // x",
    "single quotes": b"{'email': 'x'}",
    "trailing comma": b'{"email": "x",}',
    "NaN": b'{"email": NaN}',
    "Infinity": b'{"email": -Infinity}',
    "invalid UTF-8": b'{"email": "\xff"}',
    "overlong UTF-8": b'{"email": "\xc0\x80"}',
    "UTF-16": '{"email": "x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"email": "x"}',
    "raw newline in text": b'{"email": "a\nb"}',
    "raw NUL in text": b'{"email": "a\x00b"}',
    "lone high surrogate": b'{"email": "\\ud800"}',
    "lone low surrogate": b'{"email": "\\udc00x"}',
    "encoded surrogate": b'{"email": "\xed\xa0\x80"}',
    "deep lists": b'{"email": ' + b"[" * 30_000,
    "deep closed lists": b'{"email": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "list": b"[]",
    "list of objects": b"[{}]",
    "text": b'"email"',
    "number": b"1",
    "true": b"true",
    "null": b"null",
    "form": b"email=x&password=y",
}


@pytest.mark.parametrize("call", ["login", "signup"])
def test_what_is_no_json_object(api: FlaskClient, call: str) -> None:
    for number, (name, body) in enumerate(NO_JSON.items()):
        api.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"  # each address may send but a few
        answer = api.post(f"/api/v1/{call}", data=body, content_type="application/json")
        assert answer.status_code == 400, name
        told = problem(answer, 400, "invalid_json")
        assert "errors" not in told, name


@pytest.mark.parametrize("call", ["login", "signup"])
@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data"],
)
def test_what_does_not_call_itself_json(api: FlaskClient, call: str, kind: str) -> None:
    answer = api.post(f"/api/v1/{call}", data=json.dumps(LOGIN), content_type=kind)
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_what_calls_itself_json(api: FlaskClient, person: str, kind: str) -> None:
    answer = api.post("/api/v1/login", data=json.dumps(LOGIN), content_type=kind)
    assert answer.status_code == 200


NO_TEXT: list[object] = [None, 1, 1.5, True, [], ["x"], {}, {"x": 1}, 10**400]
NO_SWITCH: list[object] = [None, 1, 0, "true", "", []]


@pytest.mark.parametrize(
    ("call", "change", "field"),
    [
        *(
            (call, {field: value}, field)
            for call in ("login", "signup")
            for field in ("email", "password")
            for value in NO_TEXT
        ),
        *(("signup", {"name": value}, "name") for value in NO_TEXT),
        *(("login", {"remember": value}, "remember") for value in NO_SWITCH),
        ("signup", {"roles": ["admin"]}, "roles"),
        ("signup", {"active": True}, "active"),
        ("signup", {"id": str(uuid.uuid4())}, "id"),
        ("signup", {"remember": True}, "remember"),
        ("login", {"name": "x"}, "name"),
        ("login", {"": "x"}, ""),
        ("login", {"Email": EMAIL}, "Email"),
        ("login", {"email": "no email"}, "email"),
        ("login", {"email": ""}, "email"),
        ("login", {"email": "a\x00@example.org"}, "email"),
        ("signup", {"email": "no email"}, "email"),
        ("signup", {"email": "a\x00da@example.org"}, "email"),
        ("signup", {"email": "ada@example.org\x00"}, "email"),
        ("signup", {"email": "ada@exa\x00mple.org"}, "email"),
        ("signup", {"email": "\u202eada@example.org"}, "email"),
        ("signup", {"email": "a" * 300 + "@example.org"}, "email"),
        ("signup", {"name": "a\x00"}, "name"),
        ("signup", {"name": "n" * 101}, "name"),
        ("signup", {"name": "\U0001f600" * 101}, "name"),
        ("signup", {"name": "n" + " " * 100}, "name"),  # 1 would be stored
        ("signup", {"password": ""}, "password"),
        ("signup", {"password": "x" * 14}, "password"),
        ("signup", {"password": "x" * 129}, "password"),
        ("signup", {"password": "\x00" * 20}, "password"),
        ("signup", {"password": EMAIL}, "password"),
    ],
)
def test_a_wrong_field_is_named_with_its_reason(
    api: FlaskClient, stores: Stores, call: str, change: dict[str, Any], field: str
) -> None:
    told = problem(post(api, call, **(LOGIN | change)), 400, "invalid_field")
    assert list(told["errors"]) == [field]
    assert told["errors"][field]
    assert PASSWORD not in json.dumps(told)
    assert stores.sql("SELECT 1 FROM users") == []


def test_all_wrong_fields_are_named(api: FlaskClient) -> None:
    told = problem(post(api, "login", other=1), 400, "invalid_field")
    assert set(told["errors"]) == {"email", "password", "other"}
    told = problem(post(api, "signup", email="x", password="x", name="\x00"), 400, "invalid_field")
    assert set(told["errors"]) == {"email", "password", "name"}


def test_many_unknown_fields_get_an_answer_of_bounded_size(api: FlaskClient) -> None:
    unknown = {f"f{number}" + "x" * 100: 1 for number in range(400)}
    told = problem(post(api, "login", **LOGIN, **unknown), 400, "invalid_field")
    assert len(told["errors"]) == 10
    assert max(len(name) for name in told["errors"]) == 50


TWICE = {
    "in two values": '"password": "x", "password": "{password}"',
    "in one value": '"password": "{password}", "password": "{password}"',
    "spelled otherwise": '"password": "{password}", "pass\\u0077ord": "x"',
    "unknown": '"password": "{password}", "f": 1, "f": 2',
    "below": '"password": "{password}", "email": {{"f": 1, "f": 2}}',
    "a long one": '"password": "{password}", "{f50}": 1, "{f50}": 2',
}


@pytest.mark.parametrize("fields", TWICE.values(), ids=TWICE)
def test_a_field_given_twice_is_refused(api: FlaskClient, person: str, fields: str) -> None:
    text = f'{{"email": "{EMAIL}", {fields.format(password=PASSWORD, f50="f" * 90)}}}'
    answer = api.post("/api/v1/login", data=text, content_type="application/json")
    [(name, reason)] = problem(answer, 400, "invalid_field")["errors"].items()
    assert name in {"password", "f", "f" * 50}
    assert reason == "this field is given more than once"


def test_any_depth_is_refused(api: FlaskClient) -> None:
    """Also those where one reader gives up and the other does not yet."""
    for depth in range(100, 1_100, 7):
        api.environ_base["REMOTE_ADDR"] = f"192.0.2.{depth % 251}"
        text = '{"f":' * depth + "1" + "}" * depth
        answer = api.post("/api/v1/login", data=text, content_type="application/json")
        assert answer.status_code == 400, depth


@pytest.mark.parametrize("number", ["9" * 5_000, "1." + "9" * 5_000, "1e5000", "-" + "9" * 9_999])
def test_a_number_of_any_length(api: FlaskClient, number: str) -> None:
    text = f'{{"email": "{EMAIL}", "password": {number}}}'
    answer = api.post("/api/v1/login", data=text, content_type="application/json")
    assert answer.status_code == 400
    assert answer.get_json()["code"] in {"invalid_field", "invalid_json"}


@pytest.mark.parametrize("call", ["login", "signup", "logout"])
def test_a_body_of_a_megabyte(api: FlaskClient, call: str) -> None:
    answer = post(api, call, email=EMAIL, password="x" * 1_000_000)
    problem(answer, 413, "request_entity_too_large")


# -- passwords, exactly ----------------------------------------------------------------------------


def log_in_as(api: FlaskClient, password: str) -> int:
    return post(api, "login", email=EMAIL, password=password).status_code


def test_the_73rd_byte_counts(api: FlaskClient) -> None:
    kept = "correct horse battery staple, and again: seventy-two bytes are not all .."
    assert len(kept) == 73
    assert post(api, "signup", email=EMAIL, password=kept).status_code == 201
    assert log_in_as(api, kept[:72] + "x") == 401
    assert log_in_as(api, kept[:72]) == 401
    assert log_in_as(api, kept + "x") == 401
    assert log_in_as(api, kept) == 200


@pytest.mark.parametrize("length", [15, 72, 128])
def test_lengths_are_in_characters(api: FlaskClient, length: int) -> None:
    password = ("žluťoučký kůň pěl ďábelské ódy " * 5)[:length]
    assert post(api, "signup", email=EMAIL, password=password).status_code == 201
    assert log_in_as(api, password) == 200
    assert log_in_as(api, password[:-1]) == 401


def test_a_nul_in_a_password_hides_nothing(api: FlaskClient) -> None:
    password = "before the nul\x00and behind"
    assert post(api, "signup", email=EMAIL, password=password).status_code == 201
    assert log_in_as(api, "before the nul\x00and beside") == 401
    assert log_in_as(api, "before the nul") == 401
    assert log_in_as(api, password) == 200


def test_composed_and_decomposed_are_one_password(api: FlaskClient) -> None:
    composed = unicodedata.normalize("NFC", "crème brûlée à la carte")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert post(api, "signup", email=EMAIL, password=decomposed).status_code == 201
    assert log_in_as(api, composed) == 200
    assert log_in_as(api, decomposed) == 200
    assert log_in_as(api, "creme brulee a la carte") == 401
    assert log_in_as(api, composed.upper()) == 401


def test_a_password_longer_than_any_can_be_costs_no_error(api: FlaskClient, person: str) -> None:
    for password in ("x" * 60_000, "\U0001f600" * 5_000, "é" * 73):
        assert log_in_as(api, password) == 401


# -- stored and logged -----------------------------------------------------------------------------


def test_nothing_that_is_stored_can_be_replayed(
    api: FlaskClient, person: str, stores: Stores
) -> None:
    token = token_in(post(api, "login", **LOGIN))
    api.get("/api/v1/me", headers=bearing(token))
    post(api, "login", email=EMAIL, password="x")
    in_redis = b"\n".join(chain.from_iterable(everything_in(stores.redis).items()))
    rows = str([stores.sql(f"SELECT t::text FROM {table} t") for table in stores.rows()])
    for secret in (token, PASSWORD):
        assert secret not in rows
        assert secret.encode() not in in_redis
    assert b"lovelace" not in in_redis.lower()
    lasting = [key for key in everything_in(stores.redis) if stores.redis.ttl(key) == -1]
    assert lasting == [], "each key has an end"


def test_several_secrets_rotate(make_app: MakeApp, settings: dict[str, Any]) -> None:
    old = make_app()
    sign_up(old)
    token = token_in(post(program(old), "login", **LOGIN))
    secrets = ",".join(["n" * 32, settings["SECRET_KEY"]])
    peppers = ",".join(["n" * 32, settings["PASSWORD_PEPPER"]])
    rotated = make_app(SECRET_KEY=secrets, PASSWORD_PEPPER=peppers)
    assert program(rotated).get("/api/v1/me", headers=bearing(token)).status_code == 200
    fresh = token_in(post(program(rotated), "login", **LOGIN))
    done = make_app(SECRET_KEY="n" * 32, PASSWORD_PEPPER="n" * 32)
    assert program(done).get("/api/v1/me", headers=bearing(fresh)).status_code == 200
    assert program(done).get("/api/v1/me", headers=bearing(token)).status_code == 401
    assert log_in_as(program(done), PASSWORD) == 200, "the log-in before hashed it anew"
