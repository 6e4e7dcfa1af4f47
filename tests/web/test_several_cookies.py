"""Browsers with several cookies of our name: after a change of its domain, path or prefix, or after
another site of the same domain planted one."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.accounts.actor import OPERATOR, Actor
from authapp.errors import StoreUnavailable
from authapp.web.cookies.scopes import MAX_EXPIRED, Scope, other_scopes, path_prefixes
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    access_token,
    cookies_of,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

MALLORY = "mallory@example.org"
HOST = "auth.shop.example.org"
CHECKS = ("/api/v1/me", "/forward-auth/nginx", "/account")


def sent(*tokens: str, name: str = COOKIE, **headers: str) -> dict[str, str]:
    cookie = "; ".join(f"{name}={token}" for token in tokens)
    return {"Cookie": cookie, **headers}


def status(app: Flask, path: str, *tokens: str) -> int:
    return program(app).get(path, headers=sent(*tokens)).status_code


def refused(path: str) -> int:
    return 302 if path == "/account" else 401


@pytest.fixture
def two(app: Flask, person: str) -> tuple[str, str]:
    """Tokens of two live sessions of one person, the older one first."""
    return token_of(signed_in_as(app)), token_of(signed_in_as(app))


@pytest.fixture
def theirs(app: Flask) -> str:
    """A token of a live session of somebody else."""
    sign_up(app, MALLORY)
    return token_of(signed_in_as(app, MALLORY))


def session_of(app: Flask, *tokens: str) -> str:
    """Which session counts, as the person sees it."""
    listed = program(app).get("/api/v1/me/sessions", headers=sent(*tokens)).get_json()["sessions"]
    (current,) = [session["id"] for session in listed if session["current"]]
    return str(current)


# -- which one counts ------------------------------------------------------------------------------


def test_the_newest_live_session_counts_in_either_order(app: Flask, two: tuple[str, str]) -> None:
    older, newer = (session_of(app, token) for token in two)
    assert older != newer
    assert session_of(app, *two) == session_of(app, *reversed(two)) == newer
    program(app).post("/api/v1/logout", headers=sent(two[1]))
    assert session_of(app, *two) == session_of(app, *reversed(two)) == older


@pytest.mark.parametrize("path", CHECKS)
def test_an_ended_session_beside_a_live_one_stands_in_nobodys_way(
    app: Flask, two: tuple[str, str], path: str, through: str
) -> None:
    program(app).post("/api/v1/logout", headers=sent(two[0]))
    unknown = services_of(app).tokens.mint().text
    for tokens in (two, two[::-1], (unknown, two[1]), (two[1], unknown)):
        assert status(app, path, *tokens) == 200
    program(app).post("/api/v1/logout", headers=sent(two[1]))
    assert status(app, path, *two) == refused(path)


@pytest.mark.parametrize("path", CHECKS)
def test_live_sessions_of_two_people_count_as_none(
    app: Flask, two: tuple[str, str], theirs: str, path: str, through: str
) -> None:
    """One of them may be an attacker who planted a cookie, and nobody can tell which."""
    for tokens in ((two[0], theirs), (theirs, two[0]), (*two, theirs)):
        assert status(app, path, *tokens) == refused(path)
    for token in (*two, theirs):
        assert status(app, path, token) == 200, "no session ended"


@pytest.mark.parametrize("path", CHECKS)
def test_one_cookie_costs_one_look_and_several_as_many(
    app: Flask, two: tuple[str, str], stores: Stores, path: str, through: str
) -> None:
    third = token_of(signed_in_as(app))
    for tokens in (two[:1], two, (*two, third), (*two, third, third)):
        status(app, path, *tokens)  # fills copies
        with stores.counted() as cost:
            assert status(app, path, *tokens) == 200
        assert (cost.redis, cost.sql) == (len(set(tokens)), [])


@pytest.mark.parametrize("path", CHECKS)
def test_when_a_store_cannot_say_of_one_nobody_is_logged_out(
    app: Flask, two: tuple[str, str], path: str, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = services_of(app).sessions
    find = sessions.find

    def fails(token: Any) -> Any:
        if token.text == two[0]:
            raise StoreUnavailable("redis")
        return find(token)

    monkeypatch.setattr(sessions, "find", fails)
    for tokens in (two, two[::-1]):
        answer = program(app).get(path, headers=sent(*tokens))
        assert answer.status_code == 503
        assert not cookies_of(answer)
    assert status(app, path, two[1]) == 200


@pytest.mark.parametrize("path", CHECKS)
def test_more_than_four_of_ours_are_refused(
    app: Flask, person: str, stores: Stores, path: str, through: str
) -> None:
    tokens = [services_of(app).tokens.mint().text for _ in range(5)]
    with stores.counted() as cost:
        found = status(app, path, *tokens)
    assert found == (403 if path.startswith("/forward-auth") else 400)
    assert (cost.redis, cost.sql) == (0, [])
    assert status(app, path, *tokens[:4]) == refused(path)


def test_a_cookie_beside_an_access_token_is_refused_however_many(
    app: Flask, two: tuple[str, str]
) -> None:
    headers = sent(*two, **{"X-Access-Token": access_token(app)})
    problem(program(app).get("/api/v1/me", headers=headers), 400, "two_identities")


# -- log-in and log-out ----------------------------------------------------------------------------

LogIn = Callable[[Flask, dict[str, str]], TestResponse]
KNOWN = {"email": EMAIL, "password": PASSWORD}


def by_page(app: Flask, headers: dict[str, str]) -> TestResponse:
    return program(app).post("/login", data=KNOWN, headers=headers)


def by_api(app: Flask, headers: dict[str, str]) -> TestResponse:
    return program(app).post("/api/v1/login", json=KNOWN, headers=headers)


def out_by_page(app: Flask, headers: dict[str, str]) -> TestResponse:
    return program(app).post("/logout", headers=headers)


def out_by_api(app: Flask, headers: dict[str, str]) -> TestResponse:
    return program(app).post("/api/v1/logout", headers=headers)


LOG_INS, LOG_OUTS = [by_page, by_api], [out_by_page, out_by_api]


@pytest.mark.parametrize("log_in", LOG_INS)
def test_a_log_in_ends_every_session_whose_token_came_along(
    app: Flask, two: tuple[str, str], theirs: str, log_in: LogIn
) -> None:
    headers = {"Cookie": f"{COOKIE}={two[0]}; {COOKIE}={theirs},\t__Host-{COOKIE} = {two[1]}"}
    answer = log_in(app, headers)
    assert answer.status_code in {200, 303}
    assert {status(app, "/api/v1/me", token) for token in (*two, theirs)} == {401}
    (fresh,) = [cookie for cookie in cookies_of(answer) if cookie.value and cookie.name == COOKIE]
    assert status(app, "/api/v1/me", fresh.value, two[0], theirs) == 200


@pytest.mark.parametrize("log_in", LOG_INS)
def test_a_log_in_that_is_refused_ends_and_clears_nothing(
    app: Flask, two: tuple[str, str], log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "password", "wrong")
    answer = log_in(app, sent(*two))
    assert answer.status_code == 401
    assert not cookies_of(answer)
    assert {status(app, "/api/v1/me", token) for token in two} == {200}


def expired(answer: TestResponse) -> set[tuple[str, str | None, str]]:
    """Name, domain and path of each cookie that the answer expires."""
    found = [cookie for cookie in cookies_of(answer) if not cookie.value]
    assert all(cookie.attributes["max-age"] == "0" for cookie in found)
    return {(c.name, c.attributes.get("domain"), c.attributes["path"]) for c in found}


DOMAINS = ("example.org", "shop.example.org", HOST)


@pytest.mark.parametrize("log_in", LOG_INS)
@pytest.mark.parametrize("log_out", LOG_OUTS)
@pytest.mark.parametrize("configured", ["", "example.org", "shop.example.org"])
def test_both_expire_the_cookie_in_all_other_scopes(
    make_app: MakeApp, log_in: LogIn, log_out: LogIn, configured: str
) -> None:
    app = make_app(SESSION_COOKIE_DOMAIN=configured)
    sign_up(app)
    everywhere = {(COOKIE, domain, "/") for domain in (None, *DOMAINS)}
    own = (COOKIE, configured or None, "/")
    for _ in range(2):
        token = token_of_new_session(app)
        answer = log_in(app, sent(token, Host=f"{HOST}:8443"))
        assert expired(answer) == everywhere - {own}
        *first, fresh, _device = cookies_of(answer)
        assert fresh.value, "it is set behind those that are expired"
        assert not any(cookie.value for cookie in first)
        assert expired(log_out(app, sent(fresh.value, token, Host=HOST))) == everywhere


def token_of_new_session(app: Flask) -> str:
    """One of the only person there is, begun past the limits of log-in."""
    (user,) = services_of(app).users.page(None).users
    return services_of(app).sessions.begin(user.id, 1, Actor()).token.text


@pytest.mark.parametrize("log_in", LOG_INS)
def test_a_first_log_in_expires_nothing(make_app: MakeApp, log_in: LogIn) -> None:
    app = make_app(SESSION_COOKIE_DOMAIN="example.org")
    sign_up(app)
    assert expired(log_in(app, {"Host": HOST})) == set()


@pytest.mark.parametrize("how", [*LOG_INS, *LOG_OUTS])
def test_what_may_be_another_apps_is_left_alone(
    app: Flask, two: tuple[str, str], how: LogIn
) -> None:
    """A neighbour on a parent domain may use the same name."""
    answer = how(app, sent(two[0], "a-token-of-another-app", Host=HOST))
    assert expired(answer) <= {(COOKIE, None, "/")}


@pytest.mark.parametrize("how", [*LOG_INS, *LOG_OUTS])
def test_cookies_under_another_prefix_are_expired_as_browsers_demand(
    app: Flask, two: tuple[str, str], how: LogIn
) -> None:
    names = (f"__Host-{COOKIE}", f"__Secure-{COOKIE}")
    cookie = "; ".join(f"{name}={token}" for name, token in zip(names, two, strict=True))
    answer = how(app, {"Cookie": cookie, "Host": HOST})
    assert expired(answer) - {(COOKIE, None, "/")} == {
        (names[0], None, "/"),
        *((names[1], domain, "/") for domain in (None, *DOMAINS)),
    }
    assert all("secure" in cookie.attributes for cookie in cookies_of(answer))
    assert {status(app, "/api/v1/me", token) for token in two} == {401}


def test_a_name_with_another_prefix_names_nobody(app: Flask, two: tuple[str, str]) -> None:
    for name in (f"__Host-{COOKIE}", f"__Secure-{COOKIE}"):
        answer = program(app).get("/api/v1/me", headers=sent(two[0], name=name))
        assert answer.status_code == 401


def test_the_old_cookie_of_the_device_is_expired_where_two_came_along(
    make_app: MakeApp,
) -> None:
    app = make_app(SESSION_COOKIE_DOMAIN="example.org")
    sign_up(app)
    device = "DEVICE-TOKEN"
    for sent_devices, count in ((1, 0), (2, 3)):
        cookie = "; ".join(f"{device}=x{number}" for number in range(sent_devices))
        answer = by_page(app, {"Cookie": cookie, "Host": HOST})
        found = [scope for scope in expired(answer) if scope[0] == device]
        assert len(found) == count
        assert (device, "example.org", "/") not in found


def test_the_number_of_cookies_that_an_answer_expires_is_bounded(make_app: MakeApp) -> None:
    app = make_app()
    sign_up(app)
    token = token_of_new_session(app)
    host = ".".join("abcdefghijklmnop") + ".example.org"
    answer = out_by_api(app, sent(token, token, Host=host))
    assert len(cookies_of(answer)) == MAX_EXPIRED + 1


# -- an attacker on a neighbouring host ------------------------------------------------------------


def test_a_cookie_planted_for_one_path_does_not_keep_its_owner_out(
    app: Flask, two: tuple[str, str], theirs: str
) -> None:
    """The log-in page does not see it, so it would lead back and forth for ever."""
    headers = sent(two[0], theirs, Host=HOST, Accept="text/html")
    answer = program(app).get("/account", headers=headers)
    assert answer.status_code == 302
    assert expired(answer) == {
        (COOKIE, domain, path) for domain in (None, *DOMAINS) for path in ("/", "/account")
    }
    assert status(app, "/account", two[0]) == status(app, "/account", theirs) == 200


def test_too_many_are_cleared_by_a_page(app: Flask, person: str) -> None:
    tokens = [services_of(app).tokens.mint().text for _ in range(5)]
    headers = sent(*tokens, Host=HOST, Accept="text/html")
    answer = program(app).get("/login", headers=headers)
    assert answer.status_code == 400
    assert "too many session cookies" in answer.get_data(as_text=True)
    assert {(COOKIE, domain, "/") for domain in (None, *DOMAINS)} <= expired(answer)
    by_program = program(app).get("/api/v1/me", headers=sent(*tokens, Host=HOST))
    problem(by_program, 400, "too_many_tokens")
    assert not cookies_of(by_program)


def test_cookies_of_another_prefix_cannot_fill_the_handful(app: Flask, person: str) -> None:
    """Any host of the domain can plant these."""
    own = token_of(signed_in_as(app))
    planted = [services_of(app).tokens.mint().text for _ in range(20)]
    cookie = "; ".join([*(f"__Secure-{COOKIE}={token}" for token in planted), f"{COOKIE}={own}"])
    headers = {"Cookie": cookie}
    assert program(app).get("/api/v1/me", headers=headers).status_code == 200
    assert out_by_api(app, headers).status_code == 204
    assert status(app, "/api/v1/me", own) == 401


def test_a_reason_is_told_that_the_person_did_not_give(app: Flask, two: tuple[str, str]) -> None:
    """Of two ended sessions the log-in page tells of the one that ended by itself."""
    program(app).post("/api/v1/logout", headers=sent(two[0]))
    user = services_of(app).users.page(None).users[0]
    services_of(app).administration.end_sessions_of(user.id, OPERATOR)
    for tokens in (two, two[::-1]):
        page = program(app).get("/login", headers=sent(*tokens, Accept="text/html")).text
        assert "an administrator ended this session" in page


# -- scopes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "domains"),
    [
        ("localhost:8000", []),
        ("127.0.0.1", []),
        ("[::1]:8000", []),
        ("auth", []),
        ("", []),
        ("a..b", []),
        ("a b.example.org", []),
        ("x\r\n.example.org", []),
        ("Example.ORG.", ["example.org"]),
        ("a.b.example.org:1", ["a.b.example.org", "b.example.org", "example.org"]),
        ("xn--bcher-kva.example", ["xn--bcher-kva.example"]),
    ],
)
def test_domains_that_a_host_can_have_cookies_of(host: str, domains: list[str]) -> None:
    found = other_scopes(Scope(COOKIE, None, "/"), f"{COOKIE}=x", host, ["/"])
    assert [scope.domain for scope in found] == domains


def test_a_leading_dot_of_the_configured_domain_means_nothing() -> None:
    own = Scope(COOKIE, ".Example.org", "/")
    found = other_scopes(own, f"{COOKIE}=x", "example.org", ["/"])
    assert found == [Scope(COOKIE, None, "/")]


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [("/", ["/"]), ("/a", ["/", "/a"]), ("/a/b/", ["/", "/a", "/a/b"]), ("", ["/"])],
)
def test_paths_that_a_request_sends_cookies_of(path: str, prefixes: list[str]) -> None:
    assert path_prefixes(path) == prefixes


def test_the_path_of_before_is_expired_too(make_app: MakeApp) -> None:
    app = make_app()
    sign_up(app)
    app.config["SESSION_COOKIE_PATH"] = "/auth"
    answer = out_by_api(app, sent(token_of_new_session(app)))
    assert expired(answer) == {(COOKIE, None, "/auth"), (COOKIE, None, "/")}
