"""Logs: one JSON object a line, with the id of its request, and nothing that is secret."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.errors import StoreUnavailable
from authapp.telemetry.logging import BufferedHandler, write_lines
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    access_token,
    browser,
    log_in,
    services_of,
    sign_up,
    token_of,
)


def handler() -> BufferedHandler:
    """The one that writes the application's log."""
    (found,) = [h for h in logging.getLogger().handlers if isinstance(h, BufferedHandler)]
    return found


@pytest.fixture
def log(shared_app: Flask) -> Iterator[io.StringIO]:
    """The log of the application while the test runs."""
    stream = io.StringIO()
    before = handler().setStream(stream)
    yield stream
    handler().setStream(before)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    write_lines()
    return [json.loads(line) for line in log.getvalue().splitlines()]


def assert_clean(log: io.StringIO, *secrets: str) -> None:
    write_lines()
    text = log.getvalue()
    for secret in (PASSWORD, OTHER_PASSWORD, EMAIL, "lovelace", *secrets):
        assert secret.lower() not in text.lower(), secret


def test_what_people_do_is_logged_without_what_they_keep_secret(
    app: Flask, log: io.StringIO
) -> None:
    client = browser(app)
    secrets = ["a wrong password", "typo-in@example.net"]
    ids = []
    for answer in (
        client.post("/signup", data={"email": EMAIL, "password": PASSWORD}),
        client.post("/signup", data={"email": EMAIL, "password": PASSWORD}),
        client.post("/signup", data={"email": EMAIL, "password": "lovelace"}),
        log_in(client, password="a wrong password"),
        log_in(client, "typo-in@example.net"),
        log_in(client),
    ):
        ids.append(answer.headers["X-Request-ID"])
    secrets.append(token_of(client))
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    for answer in (
        client.get("/account?email=" + EMAIL),
        client.get("/" + EMAIL),
        client.post("/account/password", data=change),
        client.post("/api/v1/login", json={"email": EMAIL, "password": OTHER_PASSWORD, "x": 1}),
        client.post("/api/v1/login", json={"email": EMAIL, "password": OTHER_PASSWORD}),
        client.post("/logout"),
        client.get("/account", headers={"Cookie": f"SESSION-TOKEN={secrets[-1]}"}),
    ):
        ids.append(answer.headers["X-Request-ID"])

    logged = lines(log)
    assert [line["request_id"] for line in logged if line["event"] == "request"] == ids
    assert all(line.get("request_id") in ids for line in logged)
    first = next(line for line in logged if line["event"] == "request")
    assert (first["method"], first["route"], first["status"]) == ("POST", "/signup", 303)
    assert_clean(log, *secrets)


def test_a_failing_view_is_one_line_too(make_app: MakeApp, log: io.StringIO) -> None:
    app = make_app()

    def boom() -> str:
        raise RuntimeError("two\nlines")

    app.add_url_rule("/boom", view_func=boom)
    handler().setStream(log)  # `make_app` set logging up again
    answer = browser(app).get("/boom")
    failed = [line for line in lines(log) if line["level"] == "error"]
    assert len(failed) == 1
    assert "RuntimeError" in failed[0]["exception"]
    assert failed[0]["request_id"] == answer.headers["X-Request-ID"]


def test_a_statement_that_fails_is_logged_without_its_values(
    make_app: MakeApp, stores: Stores, log: io.StringIO
) -> None:
    app = make_app()
    sign_up(app)
    services_of(app).background.drain()
    handler().setStream(log)
    stores.sql("ALTER TABLE users RENAME COLUMN password_hash TO other")
    try:
        assert log_in(browser(app)).status_code == 500
        sign_up_fields = {"email": "new.lovelace@example.org", "password": PASSWORD}
        assert browser(app).post("/signup", data=sign_up_fields).status_code == 500
    finally:
        stores.sql("ALTER TABLE users RENAME COLUMN other TO password_hash")
    assert len([line for line in lines(log) if line["level"] == "error"]) == 2
    assert_clean(log)


# -- from where, and who ---------------------------------------------------------------------------

HERE = "192.0.2.44"


def last(log: io.StringIO) -> tuple[object, object]:
    """The address and the user of the last request."""
    line = [line for line in lines(log) if line["event"] == "request"][-1]
    return line["address"], line.get("user_id")


@pytest.fixture
def here(app: Flask) -> FlaskClient:
    client = browser(app)
    client.environ_base["REMOTE_ADDR"] = HERE
    return client


@pytest.mark.parametrize(
    "path",
    ["/", "/account", "/api/v1/me", "/api/v1/me/sessions", "/forward-auth/nginx"],
)
def test_a_line_names_the_person_by_id(
    app: Flask, here: FlaskClient, person: str, log: io.StringIO, through: str, path: str
) -> None:
    here.get(path)
    assert last(log) == (HERE, None), "nobody is known yet"
    log_in(here)
    assert last(log) == (HERE, person)
    assert here.get(path).status_code == 200
    assert last(log) == (HERE, person)
    bearer = {"Authorization": f"Bearer {access_token(app)}"}
    assert app.test_client().get(path, headers=bearer).status_code == 200
    assert last(log) == ("127.0.0.1", person)


def test_a_refusal_names_the_person_too(
    here: FlaskClient, person: str, log: io.StringIO, through: str
) -> None:
    log_in(here)
    for path in ("/admin/users", "/api/v1/users", "/forward-auth/nginx?role=admin"):
        assert here.get(path).status_code == 403
        assert last(log) == (HERE, person)


def test_whoever_gets_an_account_or_a_session_is_named(here: FlaskClient, log: io.StringIO) -> None:
    given = {"email": EMAIL, "password": PASSWORD}
    person = here.post("/api/v1/signup", json=given).get_json()["id"]
    assert last(log) == (HERE, person)
    here.post("/api/v1/login", json=given)
    assert last(log) == (HERE, person)
    tokens = here.post("/api/v1/tokens", json=given | {"refresh": True}).get_json()
    assert last(log) == (HERE, person)
    here.post("/api/v1/tokens/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert last(log) == (HERE, person)
    here.post("/api/v1/login", json=given | {"password": "not the password"})
    assert last(log) == (HERE, None), "what somebody claims is not who they are"
    here.get("/api/v1/me")
    here.post("/logout")
    here.get("/api/v1/me")
    assert last(log) == (HERE, None)


def test_all_lines_of_a_request_tell_from_where(
    here: FlaskClient,
    person: str,
    app: Flask,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_in(here)

    def away(*_: object) -> None:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services_of(app).sessions, "of_user", away)
    assert here.get("/account/sessions").status_code == 503
    warned = next(line for line in lines(log) if line["event"] == "store_unavailable")
    assert (warned["address"], warned["user_id"]) == (HERE, person)


ADDRESSES = {
    "IPv4": "192.0.2.1",
    "IPv6": "2001:db8::1",
    "empty": "",
    "a name": "unknown",
    "a field": 'x","status":200,"y":"',
    "a backslash": "a\\",
    "line break": "a\nb",
    "escape": "a\x1b[2Jb",
    "NUL and others": "a\x00b\x7f\x85",
    "text that runs backwards": "\u202e1.2.3.4",
    "no ASCII": "\xe91.2.3.4",
    "long": "1" * 8_000,
}


@pytest.mark.parametrize("sent", ADDRESSES.values(), ids=ADDRESSES)
def test_no_address_breaks_a_line_or_moves_a_cursor(
    make_app: MakeApp, log: io.StringIO, sent: str
) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    handler().setStream(log)
    client = browser(app)
    client.environ_base["REMOTE_ADDR"] = "192.0.2.9"
    client.environ_base["HTTP_X_FORWARDED_FOR"] = sent  # as a server passes it on
    assert client.get("/healthz").status_code == 200
    (line,) = lines(log)
    told = line["address"]
    assert len(told) <= 45
    assert told.isascii()
    assert told.isprintable()
    assert '"' not in told
    assert "\\" not in told
    assert log.getvalue().count("\n") == 1


# -- the id ----------------------------------------------------------------------------------------

ID = "0af7651916cd43dd8448eb211c80319c"
ACCEPTED = [
    ID,
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "a",
    "Root.1_abc-2",
    "x" * 64,
]
REFUSED = {
    "empty": "",
    "too long": "x" * 65,
    "far too long": "x" * 8_000,
    "blank": "a b",
    "blank around": f" {ID}",
    "line break": f'{ID}\n{{"event": "planted"}}',
    "line break at the end": f"{ID}\n",
    "carriage return": f"{ID}\r\nSet-Cookie: a=b",
    "escape": "\x1b[2J",
    "NUL": f"{ID}\0",
    "quote": 'a"b',
    "markup": "<b>",
    "no ASCII": "Ã©tude",
    "digits of another script": "\u0663",
    "two": f"{ID},{ID}",
}


def ids(app: Flask, log: io.StringIO, sent: str | None) -> set[str]:
    """Wherever the id of a request is told: header, body and log."""
    handler().setStream(log)  # `make_app` set logging up again
    client = browser(app)
    if sent is not None:
        client.environ_base["HTTP_X_REQUEST_ID"] = sent  # as a server passes it on
    answer = client.get("/api/v1/me")
    assert answer.status_code == 401
    assert len(answer.headers.getlist("X-Request-ID")) == 1
    assert len(lines(log)) == 1, "one line each"
    told = {line["request_id"] for line in lines(log)}
    return told | {answer.headers["X-Request-ID"], answer.get_json()["request_id"]}


@pytest.mark.parametrize("sent", ACCEPTED)
def test_the_id_of_a_trusted_proxy_is_taken(make_app: MakeApp, log: io.StringIO, sent: str) -> None:
    assert ids(make_app(TRUSTED_PROXY_HOPS=1), log, sent) == {sent}


@pytest.mark.parametrize("sent", [*REFUSED.values(), None], ids=[*REFUSED, "none"])
def test_what_is_no_id_is_not_taken(make_app: MakeApp, log: io.StringIO, sent: str | None) -> None:
    (told,) = ids(make_app(TRUSTED_PROXY_HOPS=1), log, sent)
    assert re.fullmatch("[0-9a-f]{32}", told)
    assert told != ID
    assert "planted" not in log.getvalue()


def test_without_a_trusted_proxy_no_id_is_taken(make_app: MakeApp, log: io.StringIO) -> None:
    (told,) = ids(make_app(), log, ID)
    assert re.fullmatch("[0-9a-f]{32}", told)
    assert told != ID


def test_each_request_has_its_own_id(make_app: MakeApp) -> None:
    """Also on a connection that is kept: what one request brought is not the next one's."""
    app = make_app(TRUSTED_PROXY_HOPS=1)
    client = browser(app)
    sent = [{"X-Request-ID": ID}, {}, {}]
    told = [client.get("/healthz", headers=one).headers["X-Request-ID"] for one in sent]
    assert told[0] == ID
    assert len(set(told)) == 3


def test_the_error_page_quotes_the_id(make_app: MakeApp) -> None:
    client = browser(make_app(TRUSTED_PROXY_HOPS=1))
    page = client.get("/nowhere", headers={"X-Request-ID": ID}).get_data(as_text=True)
    assert f"<code>{ID}</code>" in page


def test_a_line_is_written_as_a_record_would_be(
    make_app: MakeApp, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody else listens, which under pytest somebody does, it is written past records."""
    client = browser(make_app())
    handler().setStream(log)
    client.get("/healthz")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler()])
    client.get("/healthz")
    monkeypatch.setattr(logging.getLogger("authapp.request"), "handlers", [own := Kept()])
    client.get("/healthz")
    told = lines(log)
    assert [line["route"] for line in told] == ["/healthz"] * 3
    assert {tuple(line) for line in told} == {tuple(told[0])}, "the same fields"
    assert [json.loads(record.getMessage()) for record in own.records] == told[2:]


class Kept(logging.Handler):
    """Keeps records, as what sends logs elsewhere does."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize(("setting", "expected"), [("on", [200, 401, 200]), ("off", [401, 200])])
def test_requests_that_forward_auth_lets_pass_may_go_without_a_line(
    make_app: MakeApp, log: io.StringIO, setting: str, expected: list[int]
) -> None:
    """Whatever is refused has its line, and so has every other request."""
    app = make_app(LOG_ALLOWED_CHECKS=setting)
    client = browser(app)
    sign_up(app)
    log_in(client)
    write_lines()
    handler().setStream(log)  # `make_app` set logging up again
    for path in ("nginx", "redirect"):
        assert client.get(f"/forward-auth/{path}").status_code == 200
    assert browser(app).get("/forward-auth/nginx").status_code == 401
    assert client.get("/api/v1/me").status_code == 200
    told = [line["status"] for line in lines(log) if line["event"] == "request"]
    assert told == ([200] if setting == "on" else []) + expected
