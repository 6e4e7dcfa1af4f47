"""Helpers of the web tests: browsers and programs, cookies, and counters of I/O."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import psycopg2
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.pool import Pool
from werkzeug.test import TestResponse

from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.web.app_state import state_of
from tests.support.traffic import traffic

COOKIE = "SESSION-TOKEN"
EMAIL = "ada.lovelace@example.org"
PASSWORD = "seven quiet rivers meet"
OTHER_PASSWORD = "nine loud kettles sing"


# -- who asks --------------------------------------------------------------------------------------


def browser(app: Flask) -> FlaskClient:
    """Sends what a browser sends from our own pages."""
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    client.environ_base["HTTP_ACCEPT"] = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
    return client


def program(app: Flask) -> FlaskClient:
    """Sends nothing by itself and keeps no cookies."""
    return app.test_client(use_cookies=False)


def behind_proxy(client: FlaskClient) -> FlaskClient:
    """Has a proxy say where the client asks from."""
    client.environ_base["HTTP_X_FORWARDED_FOR"] = "192.0.2.1"
    return client


def services_of(app: Flask) -> Services:
    return state_of(app).services


def sign_up(app: Flask, email: str = EMAIL, *, name: str = "Ada", roles: Any = ("user",)) -> str:
    """Adds a person with PASSWORD; returns their id."""
    user = services_of(app).registration.sign_up(email, PASSWORD, name, roles, verified=True)
    return str(user.id)


def log_in(
    client: FlaskClient, email: str = EMAIL, password: str = PASSWORD, **fields: str
) -> TestResponse:
    """Logs in by the page."""
    return client.post("/login", data={"email": email, "password": password, **fields})


def lose_fences(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis takes no fence of this instance from now on, as when it can't be reached."""
    cache = services_of(app).cache

    def fails(_versions: Mapping[str, int], **_how: bool) -> None:
        cache.breaker.open()
        raise StoreUnavailable("redis")

    monkeypatch.setattr(cache, "fence", fails)


def without_redis(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """This instance does not ask Redis from now on."""
    breaker = services_of(app).cache.breaker

    def fails() -> None:
        raise StoreUnavailable("redis")

    monkeypatch.setattr(breaker, "recover", fails)
    breaker.open()


def token_of(client: FlaskClient, name: str = COOKIE) -> str:
    cookie = client.get_cookie(name)
    assert cookie is not None, "there is no session cookie"
    return cookie.value


def bearing(token: str, **more: str) -> dict[str, str]:
    """Headers of a program that sends this token as the cookie."""
    return {"Cookie": f"{COOKIE}={token}", **more}


def signed_in_as(app: Flask, email: str = EMAIL, password: str = PASSWORD) -> FlaskClient:
    """A browser of this person, for pages and for the API."""
    client = browser(app)
    assert log_in(client, email, password).status_code == 303
    return client


# -- the API -------------------------------------------------------------------------------------


def problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Asserts that the answer is this problem, in the form that is promised."""
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    challenge = answer.headers.get("WWW-Authenticate", "")
    assert challenge.startswith('Bearer realm="authapp"') is (status == 401), challenge
    body: dict[str, Any] = answer.get_json()
    expected = {"type", "title", "status", "detail", "code", "request_id"}
    assert set(body) - {"errors"} == expected
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["title"]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return body


def is_utc(text: str) -> bool:
    """Whether it is RFC 3339 in UTC, of just now."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text), text
    at = datetime.fromisoformat(text)
    return abs(datetime.now(at.tzinfo) - at) < timedelta(minutes=1)


def access_token(app: Flask, email: str = EMAIL) -> str:
    """A new one of this person."""
    body = {"email": email, "password": PASSWORD}
    found: str = program(app).post("/api/v1/tokens", json=body).get_json()["access_token"]
    return found


def whole(answer: TestResponse) -> tuple[int, list[tuple[str, str]], str]:
    """All of an answer but the id of the request."""
    request_id = answer.headers["X-Request-ID"]
    assert len(request_id) == 32
    headers = [(k.lower(), v) for k, v in answer.headers if v != request_id]
    return answer.status_code, sorted(headers), answer.text.replace(request_id, "")


# -- cookies ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetCookie:
    """A Set-Cookie header: attributes in lower case, those without a value with an empty one."""

    name: str
    value: str
    attributes: Mapping[str, str]


def cookies_of(response: TestResponse) -> list[SetCookie]:
    found = []
    for header in response.headers.getlist("Set-Cookie"):
        pair, *rest = header.split("; ")
        name, _, value = pair.partition("=")
        attributes = {k.lower(): v for k, _, v in (part.partition("=") for part in rest)}
        found.append(SetCookie(name, value, attributes))
    return found


def session_cookies_of(response: TestResponse) -> list[SetCookie]:
    """As `cookies_of`, without the cookie that a notice for a visitor is in."""
    return [cookie for cookie in cookies_of(response) if not cookie.name.endswith("VISITOR-DATA")]


# -- what it cost, and what it left ----------------------------------------------------------------


@dataclass
class Cost:
    """Attributes:
    sql: statements, and connections taken from a pool.
    redis: round trips, those of connecting among them.
    """

    sql: list[str] = field(default_factory=list)
    redis: int = 0


Rows = dict[str, str | None]
"""The rows of each table, as JSON."""


class Stores:
    """The engines, seen from beside the application."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._connection = psycopg2.connect(database_url)
        self._connection.autocommit = True
        self.redis: redis.Redis = redis.Redis.from_url(redis_url)

    def close(self) -> None:
        self._connection.close()
        self.redis.close()

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return {t: self.sql(f'SELECT count(*) FROM "{t}"')[0][0] for (t,) in sorted(tables)}

    def all_keys(self) -> set[bytes]:
        """Redis keys, limiter windows aside."""
        found: Any = self.redis.keys("*")
        return {key for key in found if not key.lower().startswith(b"rate:")}

    def clear(self) -> None:
        # not as a change by hand, whose fences would hit the next people with these emails
        self.sql("SET LOCAL authapp.fenced = 'on'; DELETE FROM users")
        self.sql("DELETE FROM outgoing_mails")
        self.sql("DELETE FROM invitations")  # those of operators are nobody's
        self.sql("DELETE FROM pending_fences")
        self.sql("DELETE FROM audit_events")
        self.redis.flushall()

    def keep(self) -> Rows:
        """All rows there are, for `restore`."""
        tables = [name for name in self.rows() if name not in {"alembic_version", "compatibility"}]
        query = " UNION ALL ".join(
            f"SELECT '{name}', jsonb_agg(to_jsonb(t))::text FROM \"{name}\" t" for name in tables
        )
        return dict(self.sql(query))

    def restore(self, kept: Rows) -> None:
        """Exactly the rows that were kept, and no keys in Redis."""
        statements = ["SET LOCAL session_replication_role = replica"]  # no trigger runs
        values: list[str] = []
        for name, rows in kept.items():
            statements.append(f'DELETE FROM "{name}"')
            if rows is not None:
                statements.append(
                    f'INSERT INTO "{name}" OVERRIDING SYSTEM VALUE '
                    f'SELECT * FROM jsonb_populate_recordset(NULL::"{name}", %s::jsonb)'
                )
                values.append(rows)
        self.sql(";".join(statements), *values)
        self.redis.flushall()

    def age_proofs(self, seconds: int = 600) -> None:
        """All people proved by so many seconds earlier who they are."""
        self.sql(
            "SET LOCAL authapp.fenced = 'on';"
            " UPDATE sessions SET created_at = created_at - %s * interval '1 second',"
            " proved_at = proved_at - %s * interval '1 second', ver = ver + 1",
            *(seconds, seconds),
        )
        self.redis.flushall()

    @contextmanager
    def counted(self) -> Iterator[Cost]:
        """Counts what the block costs; the cost is complete at its end."""
        cost = Cost()

        def checkout(*_args: object) -> None:
            cost.sql.append("(connection)")

        event.listen(Pool, "checkout", checkout)
        try:
            with traffic() as seen:
                yield cost
        finally:
            cost.sql += seen.sql
            cost.redis = len(seen.redis)
            event.remove(Pool, "checkout", checkout)


# -- pages -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        assert response.mimetype == "text/html", response.mimetype
        self.feed(response.get_data(as_text=True))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def by_id(self, name: str) -> dict[str, str]:
        found = [a for _, a in self.elements if a.get("id") == name]
        assert len(found) == 1, f"{len(found)} elements have the id {name}"
        return found[0]
