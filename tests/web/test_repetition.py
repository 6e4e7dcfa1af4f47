"""A request costs the stores no more when its client repeats a part of it."""

import base64
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.crypto.tokens import DeviceTokens, _Signer
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    access_token,
    bearing,
    program,
    sign_up,
    signed_in_as,
    token_of,
)

DEVICE = "DEVICE-TOKEN"
OFTEN = 300
FORWARD_AUTH = ("/forward-auth/nginx", "/forward-auth/redirect")


@dataclass
class Visitor:
    """Somebody who is signed in, with all that they could repeat."""

    app: Flask
    cookie: str = ""
    access: str = ""
    other_id: str = ""
    forged: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, **how: Any) -> TestResponse:
        return program(self.app).open(path, method=method, **how)


@pytest.fixture
def visitor(app: Flask, stores: Stores) -> Visitor:
    """An administrator, in whose cookie a new session has been looked up once."""
    sign_up(app, roles=("admin", "user"))
    other = sign_up(app, "other@example.org")
    cookie = token_of(signed_in_as(app))
    assert program(app).get("/api/v1/me", headers=bearing(cookie)).status_code == 200
    forged = [base64.urlsafe_b64encode(os.urandom(48)).decode() for _ in range(OFTEN)]
    return Visitor(app, cookie, access_token(app), other, forged)


Ask = Callable[[Visitor, int], TestResponse]


def cookies(values: list[str], name: str = COOKIE) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for value in values)}


def copies(method: str, path: str, **how: Any) -> Ask:
    return lambda v, n: v.ask(method, path, headers=cookies([v.cookie] * n), **how)


def joined(method: str, path: str) -> Ask:
    """As gunicorn joins headers of one name."""
    return lambda v, n: v.ask(
        method, path, headers={"Cookie": ",".join([f"{COOKIE}={v.cookie}"] * n)}
    )


def blank(method: str, path: str) -> Ask:
    return lambda v, n: v.ask(
        method, path, headers={"Cookie": "; ".join([f"\t{COOKIE} = {v.cookie}"] * n)}
    )


def forged(method: str, path: str, **how: Any) -> Ask:
    return lambda v, n: v.ask(method, path, headers=cookies([v.cookie, *v.forged[: n - 1]]), **how)


def header(name: str, method: str, path: str, start: str = "") -> Ask:
    return lambda v, n: v.ask(method, path, headers={name: ",".join([f"{start}{v.access}"] * n)})


def devices(path: str, separator: str) -> Ask:
    def ask(v: Visitor, n: int) -> TestResponse:
        known = DeviceTokens([v.app.config["SECRET_KEY"]])
        tokens = [known.mint(EMAIL, 1).text for _ in range(min(n, 200))]
        value = {"Cookie": f"{DEVICE}=" + separator.join(tokens)}
        return v.ask("POST", path, headers=value, json={"email": EMAIL, "password": PASSWORD})

    return ask


def roles_json(v: Visitor, n: int) -> TestResponse:
    return v.ask(
        "PUT",
        f"/api/v1/users/{v.other_id}/roles",
        headers=cookies([v.cookie]),
        json={"roles": ["user"] * n},
    )


def roles_unknown(v: Visitor, n: int) -> TestResponse:
    return v.ask(
        "PUT",
        f"/api/v1/users/{v.other_id}/roles",
        headers=cookies([v.cookie]),
        json={"roles": [f"role {number}" for number in range(n)]},
    )


def roles_form(v: Visitor, n: int) -> TestResponse:
    return v.ask(
        "POST",
        f"/admin/users/{v.other_id}/roles",
        headers=cookies([v.cookie]),
        data={"roles": ["user"] * n},
    )


def query(path: str, key: str, value: str) -> Ask:
    return lambda v, n: v.ask(
        "GET", path, headers=cookies([v.cookie]), query_string="&".join([f"{key}={value}"] * n)
    )


def fields(path: str) -> Ask:
    """A form, each field of it many times."""
    return lambda v, n: v.ask(
        "POST",
        path,
        headers=cookies([v.cookie]),
        data={name: [value] * min(n, 200) for name, value in (("name", "Ada"), ("image", ""))},
    )


LOG_IN = {"email": EMAIL, "password": PASSWORD}

REPEATED: dict[str, Ask] = {
    **{
        f"{kind.__name__}, {method} {path}": kind(method, path)
        for kind in (copies, joined, blank, forged)
        for method, path in (
            ("POST", "/logout"),
            ("POST", "/api/v1/logout"),
            ("GET", "/account"),
            ("GET", "/"),
            ("GET", "/login"),
            ("GET", "/api/v1/me"),
            *(("GET", path) for path in FORWARD_AUTH),
        )
    },
    "copies, log-in": copies("POST", "/api/v1/login", json=LOG_IN),
    "forged, log-in": forged("POST", "/api/v1/login", json=LOG_IN),
    "copies, log-in by the page": copies("POST", "/login", data=LOG_IN),
    **{
        f"{name}, {method} {path}": header(name, method, path, start)
        for name, start in (("X-Access-Token", ""), ("Authorization", "Bearer "))
        for method, path in (
            ("GET", "/api/v1/me"),
            ("POST", "/api/v1/logout"),
            *(("GET", path) for path in FORWARD_AUTH),
        )
    },
    "parts of DEVICE-TOKEN": devices("/api/v1/login", "."),
    "copies of DEVICE-TOKEN": devices("/api/v1/login", f"; {DEVICE}="),
    "roles": roles_json,
    "roles that are none": roles_unknown,
    "roles in the form": roles_form,
    "fields of a form": fields("/account"),
    "role of forward-auth": query(FORWARD_AUTH[0], "role", "admin"),
    "role that nobody has": query(FORWARD_AUTH[1], "role", "none"),
    "next": query("/login", "next", "/account"),
    "done": query("/account", "done", "profile"),
    "q": query("/api/v1/users", "q", "ada"),
    "cursor": query("/api/v1/users", "cursor", ""),
    "event": query("/admin/audit", "event", "session.begun"),
    "user": query("/admin/audit", "user", "00000000-0000-0000-0000-000000000000"),
}


@pytest.mark.parametrize("ask", REPEATED.values(), ids=REPEATED)
def test_what_is_repeated_costs_the_stores_no_more(
    visitor: Visitor, stores: Stores, ask: Ask
) -> None:
    """Each begins with a new session, so that all find the stores in the same state."""
    costs = []
    for often in (1, 2, OFTEN):
        visitor.cookie = token_of(signed_in_as(visitor.app))
        visitor.access = access_token(visitor.app)
        for headers in (bearing(visitor.cookie), {"X-Access-Token": visitor.access}):
            assert program(visitor.app).get("/api/v1/me", headers=headers).status_code == 200
        with stores.counted() as counted:
            answer = ask(visitor, often)
        assert answer.status_code < 500
        costs.append((len(counted.sql), counted.redis))
    *few, many = costs
    assert many[0] <= max(sql for sql, _ in few), costs
    assert many[1] <= max(redis for _, redis in few), costs


MANY = OFTEN
MACS = 64  # that a request may have checked, whatever it sends


def everything(kind: str, ended: str, forged: list[str], often: int) -> dict[str, str]:
    """The headers that authapp reads, each of them repeated, with one kind of identity."""
    passed_on = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.org",
        "X-Forwarded-Prefix": "/a",
        "Forwarded": "for=192.0.2.1",
        "X-Request-ID": "a",
        "Accept": "text/html;q=0.5",
        "Accept-Language": "en",
        "Origin": "http://localhost",
        "Sec-Fetch-Site": "same-origin",
    }
    headers = {name: ",".join([value] * often) for name, value in passed_on.items()}
    names = (COOKIE, f"__Host-{COOKIE}", f"__Secure-{COOKIE}", f"\t{COOKIE} ")
    distinct = [f"{forged[number % OFTEN]}{number}" for number in range(often)]
    others = [f"{name}={value}" for name in (DEVICE, "VISITOR-DATA") for value in distinct]
    cookies = {
        "copies": [f"{name}={ended}" for name in names for _ in range(often)] + others,
        "forged": [f"{COOKIE}={value}" for value in distinct],
    }
    if kind in cookies:
        return headers | {"Cookie": "; ".join(cookies[kind])}
    token = ",".join(f"Bearer {value}" for value in forged[:1] * often)
    return headers | {"Authorization": token, "X-Access-Token": token}


@pytest.mark.parametrize("kind", ["copies", "forged", "access tokens"])
def test_no_call_does_more_for_headers_that_repeat(
    make_app: MakeApp, stores: Stores, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every route and method; the session has ended, so that no call changes anything."""
    app = make_app(LOGIN_LIMIT_PER_ADDRESS=UNLIMITED, TRUSTED_PROXY_HOPS="1", SIGNUP="open")
    sign_up(app)
    ended = token_of(signed_in_as(app))
    program(app).post("/api/v1/logout", headers=bearing(ended))
    program(app).get("/api/v1/me", headers=bearing(ended))
    forged = [base64.urlsafe_b64encode(os.urandom(48)).decode() for _ in range(OFTEN)]
    macs = [0]
    open_token = _Signer.open

    def counting(signer: _Signer, text: str, about: bytes = b"") -> Any:
        macs[0] += 1
        return open_token(signer, text, about)

    monkeypatch.setattr(_Signer, "open", counting)

    def cost(method: str, path: str, often: int) -> tuple[int, int, int]:
        macs[0] = 0
        with stores.counted() as counted:
            headers = everything(kind, ended, forged, often)
            answer = program(app).open(path, method=method, headers=headers)
        assert answer.status_code < 500 or answer.status_code == 501, (method, path)
        return len(counted.sql), counted.redis, macs[0]

    seen = 0
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "00000000-0000-4000-8000-000000000000", rule.rule)
        for method in sorted(rule.methods or {"GET", "POST"}):
            few, many = cost(method, path, 2), cost(method, path, MANY)
            assert many[0] <= few[0], (method, path, few, many)
            assert many[1] <= few[1], (method, path, few, many)
            assert max(few[2], many[2]) <= MACS, (method, path, few, many)
            seen += 1
    assert seen > 150


def cost_of_logging_out(visitor: Visitor, stores: Stores, count: int) -> tuple[int, int, int]:
    """Status, transactions and Redis commands of a log-out with so many live sessions."""
    tokens = [token_of(signed_in_as(visitor.app)) for _ in range(count)]
    with stores.counted() as cost:
        answer = visitor.ask("POST", "/api/v1/logout", headers=cookies(tokens))
    ended = [
        program(visitor.app).get("/api/v1/me", headers=bearing(token)).status_code == 401
        for token in tokens
    ]
    assert set(ended) == {answer.status_code == 204}, "all, or none"
    return answer.status_code, cost.sql.count("(connection)"), cost.redis


def test_a_handful_of_sessions_ends_in_one_transaction(visitor: Visitor, stores: Stores) -> None:
    assert [cost_of_logging_out(visitor, stores, count) for count in (1, 2, 4)] == [(204, 1, 2)] * 3


@pytest.mark.parametrize("path", ["/logout", "/api/v1/logout"])
def test_more_are_refused_and_end_nothing(visitor: Visitor, stores: Stores, path: str) -> None:
    assert cost_of_logging_out(visitor, stores, 5) == (400, 0, 0)
    answer = visitor.ask("POST", path, headers=cookies([visitor.cookie, *visitor.forged[:16]]))
    assert answer.status_code == 400
    assert "too many session cookies" in answer.get_data(as_text=True)
    assert (
        program(visitor.app).get("/api/v1/me", headers=bearing(visitor.cookie)).status_code == 200
    )


def test_a_header_that_is_too_long_to_look_at_ends_nothing(visitor: Visitor) -> None:
    """Nobody is told "you are logged out" who is not."""
    headers = cookies(["A" * 300_000, visitor.cookie])
    assert visitor.ask("POST", "/api/v1/logout", headers=headers).status_code == 400
    assert (
        program(visitor.app).get("/api/v1/me", headers=bearing(visitor.cookie)).status_code == 200
    )
    by_token = {"Cookie": "a=" + COOKIE + "A" * 300_000, "X-Access-Token": visitor.access}
    assert visitor.ask("POST", "/api/v1/logout", headers=by_token).status_code == 204


def test_2000_copies_of_one_token_end_one_session(visitor: Visitor, stores: Stores) -> None:
    other = token_of(signed_in_as(visitor.app))
    with stores.counted() as cost:
        answer = visitor.ask("POST", "/api/v1/logout", headers=cookies([visitor.cookie] * 2_000))
    assert answer.status_code == 204
    assert cost.sql.count("(connection)") == 1
    assert (
        program(visitor.app).get("/api/v1/me", headers=bearing(visitor.cookie)).status_code == 401
    )
    assert program(visitor.app).get("/api/v1/me", headers=bearing(other)).status_code == 200
