"""The cookie: what it says, when it changes, and what counts as none."""

import base64
import os

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    bearing,
    browser,
    cookies_of,
    log_in,
    program,
    session_cookies_of,
    sign_up,
    token_of,
)

ATTRIBUTES = {"httponly": "", "secure": "", "samesite": "Lax", "path": "/"}


def status_of(app: Flask, token: str) -> int:
    """The status of the API for a program that sends this token."""
    return program(app).get("/api/v1/me", headers=bearing(token)).status_code


@pytest.mark.parametrize("name", [COOKIE, f"__Host-{COOKIE}", f"__Secure-{COOKIE}"])
def test_each_name_has_the_same_attributes_when_set_and_when_cleared(
    make_app: MakeApp, name: str
) -> None:
    app = make_app(SESSION_COOKIE_NAME=name)
    sign_up(app)
    client = browser(app)

    [at_login, _device] = cookies_of(log_in(client))
    assert (at_login.name, at_login.attributes) == (name, ATTRIBUTES)
    assert client.get("/account").status_code == 200

    [at_logout] = session_cookies_of(client.post("/logout"))
    assert (at_logout.name, at_logout.value) == (name, "")
    expiry = {"expires": "Thu, 01 Jan 1970 00:00:00 GMT", "max-age": "0"}
    assert at_logout.attributes == ATTRIBUTES | expiry
    assert client.get("/account").status_code == 302


def test_a_domain_and_plain_http_are_followed_at_both_ends(make_app: MakeApp) -> None:
    app = make_app(SESSION_COOKIE_DOMAIN="example.org", SESSION_COOKIE_SECURE=False)
    sign_up(app)
    [at_login, _device] = cookies_of(log_in(browser(app)))
    *_other, at_logout = session_cookies_of(
        program(app).post("/logout", headers=bearing(at_login.value))
    )
    for cookie in (at_login, at_logout):
        assert cookie.attributes["domain"] == "example.org"
        assert "secure" not in cookie.attributes


def test_the_value_says_nothing(signed_in: FlaskClient, person: str) -> None:
    token = token_of(signed_in)
    assert len(base64.urlsafe_b64decode(token)) == 48
    for clear in (person, EMAIL, "lovelace"):
        assert clear not in token
        assert clear.encode() not in base64.urlsafe_b64decode(token)


def test_each_login_brings_a_new_value_and_the_old_one_is_dead(
    signed_in: FlaskClient, app: Flask
) -> None:
    tokens = [token_of(signed_in)]
    for _ in range(2):
        log_in(signed_in)
        tokens.append(token_of(signed_in))
    assert len(set(tokens)) == 3
    assert [status_of(app, token) for token in tokens] == [401, 401, 200]


def test_by_json_too(signed_in: FlaskClient, app: Flask) -> None:
    old = token_of(signed_in)
    signed_in.post("/api/v1/login", json={"email": EMAIL, "password": PASSWORD})
    assert status_of(app, old) == 401
    assert status_of(app, token_of(signed_in)) == 200


def test_a_second_browser_leaves_the_first_alone(signed_in: FlaskClient, app: Flask) -> None:
    log_in(browser(app))
    assert signed_in.get("/account").status_code == 200


def test_a_value_the_visitor_chose_is_never_adopted(
    client: FlaskClient, app: Flask, person: str
) -> None:
    chosen = base64.urlsafe_b64encode(os.urandom(48)).decode()
    client.set_cookie(COOKIE, chosen)
    log_in(client)
    assert token_of(client) != chosen
    assert status_of(app, chosen) == 401


def test_a_session_planted_in_a_browser_does_not_become_the_victims(
    client: FlaskClient, app: Flask, person: str
) -> None:
    sign_up(app, "mallory@example.org")
    attacker = browser(app)
    log_in(attacker, "mallory@example.org")
    planted = token_of(attacker)

    client.set_cookie(COOKIE, planted)
    log_in(client)

    assert token_of(client) != planted
    assert status_of(app, planted) == 401
    me = client.get("/api/v1/me").get_json()
    assert me["email"] == EMAIL


def test_reading_pages_sets_no_cookie(client: FlaskClient, signed_in: FlaskClient) -> None:
    for path in ("/", "/login", "/account", "/account/sessions", "/api/v1/me", "/nothing"):
        assert not cookies_of(client.get(path)), path


@pytest.mark.parametrize("path", ["/logout", "/api/v1/logout"])
def test_after_logout_the_token_is_dead_and_the_cookie_cleared_however_often(
    signed_in: FlaskClient, app: Flask, path: str
) -> None:
    token = token_of(signed_in)
    for _ in range(2):
        [cleared] = session_cookies_of(program(app).post(path, headers=bearing(token)))
        assert cleared.value == ""
        assert status_of(app, token) == 401


@pytest.mark.parametrize("path", ["/logout", "/api/v1/logout"])
def test_logging_out_ends_all_that_was_sent(signed_in: FlaskClient, app: Flask, path: str) -> None:
    """The page "You are logged out" is true, though two cookies count as none elsewhere."""
    token, other = token_of(signed_in), browser(app)
    log_in(other)
    for cookie, ended in (
        (f"{COOKIE}={token}; {COOKIE}=planted", [token]),
        (f"{COOKIE}=planted,{COOKIE}={token_of(other)}; {COOKIE} = {token}", [token_of(other)]),
    ):
        headers = {"Cookie": cookie}
        [cleared] = session_cookies_of(program(app).post(path, headers=headers))
        assert cleared.value == ""
        assert {status_of(app, each) for each in ended} == {401}


@pytest.mark.parametrize("path", ["/logout", "/api/v1/logout"])
def test_logging_out_with_two_sessions_ends_both(
    signed_in: FlaskClient, app: Flask, path: str
) -> None:
    second = browser(app)
    log_in(second)
    tokens = [token_of(signed_in), token_of(second)]
    log_in(third := browser(app))
    cookie = "; ".join(f"{COOKIE}={token}" for token in tokens)
    headers = {"Cookie": cookie}
    [cleared] = session_cookies_of(program(app).post(path, headers=headers))
    assert cleared.value == ""
    assert [status_of(app, token) for token in tokens] == [401, 401]
    assert status_of(app, token_of(third)) == 200, "what was not sent goes on"


def altered(token: str) -> list[str]:
    """Tokens of the right shape that we did not mint."""
    raw = base64.urlsafe_b64decode(token)
    flipped = [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :] for i in (0, 31, 32, 47)]
    return [base64.urlsafe_b64encode(r).decode() for r in (*flipped, bytes(48), os.urandom(48))]


def test_a_forged_token_costs_no_io(signed_in: FlaskClient, app: Flask, stores: Stores) -> None:
    asks = program(app)
    for forged in altered(token_of(signed_in)):
        headers = bearing(forged)
        with stores.counted() as cost:
            me = asks.get("/api/v1/me", headers=headers)
            pages = [asks.get(p, headers=headers).status_code for p in ("/account", "/", "/login")]
            out = asks.post("/api/v1/logout", headers=headers)
        assert (me.status_code, me.get_json()["code"]) == (401, "session_invalid")
        assert pages == [302, 200, 200]
        assert out.status_code == 204
        assert (cost.redis, cost.sql) == (0, [])


CLEAN = [
    "{c}={t}",
    "a=1; {c}={t}",
    "{c}={t}; b=2",
    "a=1;{c}={t};b=2",
    "{c}={t};",
    "a={c}; {c}={t}",
    "a={c}=x; {c}={t}",
    "__Host-{c}=x; {c}={t}; {c}2=x",
    "{c}={t}; session-token=x",
    # several clean ones: what is not a token of ours counts for nothing
    "{c}={t}; {c}={t}",
    "{c}=x; {c}={t}",
    "{c}={t}; {c}=x",
    "{c}={t}; {c}=",
    "{c}={f}; {c}={t}",
    "{c}={t}; {c}={f}",
    "a=" + "A" * 16_000 + "; {c}={t}; {c}={t}",
    "; ".join(["{c}={t}"] * 150),
]


@pytest.mark.parametrize("header", CLEAN)
def test_one_clean_cookie_counts(signed_in: FlaskClient, app: Flask, header: str) -> None:
    token = token_of(signed_in)
    cookie = header.format(c=COOKIE, t=token, f=altered(token)[0])
    assert program(app).get("/api/v1/me", headers={"Cookie": cookie}).status_code == 200


NONE = {
    "one without a value behind": "{c}={t}; {c}",
    "two headers, joined": "{c}={t},{c}={t}",
    "two headers, wrong one first": "{c}=x,{c}={t}",
    "two headers, other one first": "a=1,{c}={t}",
    "two headers, other one behind": "{c}={t},a=1",
    "two headers, the second repeats it": "{c}={t}; a=1,{c}=x",
    "two headers, the second is clean": "{c}=x; a=1, {c}={t}",
    "two headers, the first hides it": "a=1,{c}=x; {c}={t}",
    "leading tab": "\t{c}={t}",
    "leading tab, behind another": "a=1;\t{c}={t}",
    "two leading blanks": "a=1;  {c}={t}",
    "trailing blank": "{c} ={t}",
    "trailing tab": "{c}\t={t}",
    "tabbed one behind the clean one": "{c}={t}; \t{c}=x",
    "blank before the value": "{c}= {t}",
    "quoted": '{c}="{t}"',
    "quoted name": '"{c}"={t}',
    "percent-encoded": "{c}=%{t}",
    "lower case": "session-token={t}",
    "no value": "{c}",
    "empty": "{c}=",
    "no name": "={t}",
    "one character short": "{c}={s}",
    "one character more": "{c}={t}A",
    "padded": "{c}={t}=",
    "16 KB": "{c}={t}" + "A" * 16_000,
    "not ASCII": "{c}=\xe9" + "A" * 63,
    "no base64": "{c}=" + "!" * 64,
}


@pytest.mark.parametrize("header", NONE.values(), ids=NONE.keys())
def test_anything_else_counts_as_none(
    signed_in: FlaskClient, app: Flask, stores: Stores, header: str
) -> None:
    token = token_of(signed_in)
    cookie = header.format(c=COOKIE, t=token, s=token[:-1])
    with stores.counted() as cost:
        answer = program(app).get("/api/v1/me", headers={"Cookie": cookie})
        page = program(app).get("/account", headers={"Cookie": cookie})
    assert (answer.status_code, page.status_code) == (401, 302)
    assert not cookies_of(answer)
    assert not cookies_of(page)
    assert (cost.redis, cost.sql) == (0, [])
    assert signed_in.get("/account").status_code == 200, "the session itself goes on"
