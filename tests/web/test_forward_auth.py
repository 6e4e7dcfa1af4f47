"""Forward-auth: who may pass to another web app, as whom, and where the others are sent.

All of it holds for the fast path in front of Flask, and for Flask without it.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse, create_environ

from authapp.accounts.actor import OPERATOR
from authapp.errors import StoreUnavailable
from authapp.sessions.records import EndReason
from authapp.web.middleware.fast_path import FastPath
from tests.support.access_tokens import forged as forged_access_token
from tests.support.people import CLIENT
from tests.support.services import await_trust
from tests.web.conftest import MakeApp
from tests.web.factors import enrol
from tests.web.forward_auth import NAMES
from tests.web.middleware.test_metrics import Growth
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    access_token,
    browser,
    log_in,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
    whole,
)

NGINX = "/forward-auth/nginx"
REDIRECT = "/forward-auth/redirect"
BOTH = (NGINX, REDIRECT)
PAGE = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SMUGGLED = dict.fromkeys(NAMES, "root")


pytestmark = pytest.mark.usefixtures("through")


def ask(
    app: Flask, path: str = NGINX, token: str = "", method: str = "GET", **headers: str
) -> TestResponse:
    """Ask as a proxy does for a visitor who claims to be somebody else."""
    sent = SMUGGLED | {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Cookie"] = f"{COOKIE}={token}"
    answer = program(app).open(path, method=method, headers=sent)
    assert "Set-Cookie" not in answer.headers
    assert "Clear-Site-Data" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    if answer.status_code != 404:
        assert all(len(answer.headers.getlist(name)) == 1 for name in NAMES)
    return answer


def told(answer: TestResponse) -> dict[str, str]:
    """The identity that the guarded app gets, but for the time of the log-in."""
    found = {name: answer.headers[name].encode("latin-1").decode() for name in NAMES}
    assert found.pop("Remote-Auth-Time").isdecimal() is bool(found["Remote-User"])
    return found


def ada(person: str, **others: str) -> dict[str, str]:
    names = [name for name in NAMES if name != "Remote-Auth-Time"]
    expected = dict(zip(names, (person, EMAIL, "Ada", "user", "pwd", "1", ""), strict=True))
    return expected | {name.replace("_", "-"): value for name, value in others.items()}


def refused(answer: TestResponse, *statuses: int) -> TestResponse:
    assert answer.status_code in (statuses or (401, 302, 303)), answer.get_data(as_text=True)
    assert set(told(answer).values()) == {""}
    return answer


@pytest.fixture
def token(signed_in: FlaskClient) -> str:
    """Of Ada's session, which has a copy."""
    assert signed_in.get("/api/v1/me").status_code == 200
    return token_of(signed_in)


# -- who may pass ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BOTH)
def test_who_is_signed_in_passes_as_themselves(
    app: Flask, token: str, person: str, stores: Stores, path: str
) -> None:
    with stores.counted() as cost:
        answer = ask(app, path, token)
    assert (answer.status_code, told(answer)) == (200, ada(person))
    assert (cost.redis, cost.sql) == (1, [])
    assert {"Cookie", "Authorization", "X-Access-Token"} <= set(answer.vary)


@pytest.mark.parametrize("path", BOTH)
def test_a_program_passes_with_its_access_token(app: Flask, person: str, path: str) -> None:
    sound = access_token(app)
    for headers in ({"Authorization": f"Bearer {sound}"}, {"X-Access-Token": sound}):
        answer = ask(app, path, **headers)
        assert (answer.status_code, told(answer)) == (200, ada(person))
    refused(ask(app, path, Authorization=f"Bearer {forged_access_token(sound)}"))


@pytest.mark.parametrize("path", BOTH)
def test_two_identities_are_none(app: Flask, token: str, person: str, path: str) -> None:
    refused(ask(app, path, token, X_Access_Token=access_token(app)), 403)
    two = {"X_Access_Token": access_token(app), "Authorization": f"Bearer {access_token(app)}"}
    refused(ask(app, path, **two), 403)


@pytest.mark.parametrize("path", BOTH)
def test_tokens_of_the_guarded_app_are_its_own_business(
    app: Flask, token: str, person: str, path: str
) -> None:
    for theirs in ("Bearer theirs", "Bearer a.b.c", "Basic YTpi", "Bearer"):
        answer = ask(app, path, token, Authorization=theirs)
        assert (answer.status_code, told(answer)) == (200, ada(person))
        refused(ask(app, path, Authorization=theirs))


def end_by_log_out(app: Flask, client: FlaskClient, _person: str) -> None:
    client.post("/logout")


def end_by_deactivation(app: Flask, _client: FlaskClient, person: str) -> None:
    users = services_of(app).administration
    users.set_active(person, active=False, actor=OPERATOR)  # type: ignore[arg-type]  # text will do


def end_by_admin(app: Flask, client: FlaskClient, person: str) -> None:
    live = services_of(app).sessions.of_user(person)  # type: ignore[arg-type]  # as above
    for session in live:
        services_of(app).sessions.end_one(
            person,  # type: ignore[arg-type]  # as above
            session.id,
            EndReason.REVOKED_BY_ADMIN,
            CLIENT,
        )


@pytest.mark.parametrize("end", [end_by_log_out, end_by_deactivation, end_by_admin])
def test_whose_session_ended_is_stopped_at_once(
    app: Flask, signed_in: FlaskClient, token: str, person: str, stores: Stores, end: Any
) -> None:
    assert [ask(app, path, token).status_code for path in BOTH] == [200, 200]
    end(app, signed_in, person)
    for path in BOTH:
        refused(ask(app, path, token))
    with stores.counted() as cost:
        refused(ask(app, NGINX, token))
    assert (cost.redis, cost.sql) == (1, [])


MALFORMED = {
    "short": "x",
    "of the right length": "A" * 64,
    "another spelling": "+" * 64,
    "long": "A" * 8_000,
    "no ASCII": "\xe9" * 64,
}


@pytest.mark.parametrize("path", [*BOTH, "/api/v1/me"])
def test_a_forged_token_is_refused_without_asking_anybody(
    app: Flask, token: str, stores: Stores, path: str
) -> None:
    flipped = token[:20] + ("B" if token[20] == "A" else "A") + token[21:]
    with stores.counted() as cost:
        for text in (*MALFORMED.values(), flipped, token[::-1]):
            headers = {"Cookie": f"{COOKIE}={text}"}
            answer = program(app).get(path, headers=headers)
            assert answer.status_code == 401
            answer = program(app).get(path, headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == 401
    assert (cost.redis, cost.sql) == (0, [])


# -- roles -----------------------------------------------------------------------------------------

ROLES = {
    "role=user": 200,
    "role=admin&role=user": 200,
    "role=user&role=user": 200,
    "role=admin": 403,
    "role=admin&role=auditor": 403,
    "role=": 403,
    "role=user,admin": 403,
    "role=USER": 403,
    "role=%75ser": 200,
}


@pytest.mark.parametrize("path", BOTH)
def test_any_of_the_roles_is_needed(app: Flask, token: str, person: str, path: str) -> None:
    for query, status in ROLES.items():
        answer = ask(app, f"{path}?{query}", token)
        assert (answer.status_code, told(answer)) == (status, ada(person)), query
        refused(ask(app, f"{path}?{query}"))


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("query", ["roles=admin", "Role=admin", "role=user&x=1", "admin", "=x"])
def test_what_is_mistyped_lets_nobody_pass(app: Flask, token: str, path: str, query: str) -> None:
    refused(ask(app, f"{path}?{query}", token), 400)


# -- what the guarded app is told ------------------------------------------------------------------

PEOPLE = {
    "Ädä Łovelace": "Ädä Łovelace",
    "愛": "愛",
    "A\r\nRemote-Groups: admin": "A Remote-Groups: admin",
    "A\nB\rC\tD\x7fE\x85F": "A B C D E F",
    " A ": "A",
    "": "",
    "\x1b[2J": "[2J",
}


@pytest.mark.parametrize("path", BOTH)
def test_a_name_can_not_become_a_header(
    app: Flask, token: str, person: str, stores: Stores, path: str
) -> None:
    for name, expected in PEOPLE.items():
        stores.sql("UPDATE users SET name = %s", name)
        stores.redis.flushall()
        answer = ask(app, path, token)
        assert answer.status_code == 200
        assert told(answer)["Remote-Name"].strip() == expected
        assert told(answer)["Remote-Groups"] == "user"


def test_groups_are_the_roles_and_none_is_read_as_two(app: Flask, stores: Stores) -> None:
    stores.sql(
        "INSERT INTO roles (id, name, description, permissions)"
        " VALUES (98, 'auditor,admin', '', '{}'), (99, 'ops', '', '{}')"
    )
    try:
        sign_up(app, roles=["user", "ops", "auditor,admin"])
        client = browser(app)
        log_in(client)
        answer = ask(app, NGINX, token_of(client))
        assert told(answer)["Remote-Groups"] == "ops,user"
    finally:
        stores.clear()
        stores.sql("DELETE FROM roles WHERE id IN (98, 99)")


def test_the_guarded_app_is_told_of_a_change_at_once(app: Flask) -> None:
    sign_up(app)
    client = browser(app)
    log_in(client)
    for name in ("Grace", "Ada", "Grace"):
        assert client.patch("/api/v1/me", json={"name": name}).status_code == 200
        for _ in range(3):  # read, from the copy, and from the copy as it was opened before
            assert told(ask(app, NGINX, token_of(client)))["Remote-Name"] == name


# -- where the others are sent ---------------------------------------------------------------------


def test_nginx_is_told_where_to_log_in(app: Flask) -> None:
    answer = refused(ask(app, NGINX), 401)
    assert answer.headers["Location"] == "/login"
    assert program(app).get(answer.headers["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("sent", "forwarded", "status"),
    [("GET", "", 302), ("GET", "HEAD", 302), ("GET", "POST", 303), ("POST", "", 303)],
)
def test_browsers_are_sent_to_log_in(app: Flask, sent: str, forwarded: str, status: int) -> None:
    headers = PAGE | ({"X-Forwarded-Method": forwarded} if forwarded else {})
    answer = refused(ask(app, REDIRECT, method=sent, **headers), status)
    assert answer.headers["Location"] == "/login"


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        {},
        PAGE | {"Sec-Fetch-Mode": "cors"},
    ],
)
def test_programs_and_scripts_are_told_no(app: Flask, headers: dict[str, str]) -> None:
    answer = refused(ask(app, REDIRECT, **headers), 401)
    assert "Location" not in answer.headers


ALLOWED = "app.example.org"
# what was asked for → where to log in, and what log-in leads to
WAYS = {
    "/notes?x=1&y=ü": ("/login", "/notes?x=1&y=ü"),
    "http://localhost/notes": ("/login", "/notes"),
    f"https://{ALLOWED}/notes?x=%2F": ("http://localhost/login", f"https://{ALLOWED}/notes?x=%2F"),
    f"https://{ALLOWED}": ("http://localhost/login", f"https://{ALLOWED}"),
    "": ("/login", None),
    "/": ("/login", None),
    "//e.example/": ("/login", None),
    "/\\e.example": ("/login", None),
    "https://e.example/": ("/login", None),
    f"https://{ALLOWED}@e.example/": ("/login", None),
    f"https://{ALLOWED}.e.example/": ("/login", None),
    "javascript:alert(1)": ("/login", None),
    "/\tx": ("/login", None),
    "/" + "x" * 5_000: ("/login", None),
}


def onward(answer: TestResponse) -> tuple[str, str | None]:
    """Where to log in, and what that leads to."""
    assert len(answer.headers.getlist("Location")) == 1
    assert answer.headers["Location"].isascii()
    parts = urlsplit(answer.headers["Location"])
    (target,) = parse_qs(parts.query, strict_parsing=True)["next"] if parts.query else (None,)
    return parts._replace(query="").geturl(), target


def test_after_log_in_people_get_where_they_were_going(make_app: MakeApp) -> None:
    app = make_app(ALLOWED_REDIRECT_HOSTS=ALLOWED)
    for original, expected in WAYS.items():
        wire = original.encode().decode("latin-1")  # as WSGI has it
        assert onward(ask(app, NGINX, X_Original_URL=wire)) == expected, original
        if original.startswith("/") and len(original) < 5_000:
            assert onward(ask(app, NGINX, X_Original_URI=wire)) == expected, original
            answer = ask(app, REDIRECT, X_Forwarded_Uri=wire, **PAGE)
            assert onward(answer) == expected, original
    sign_up(app)
    location = ask(app, NGINX, X_Original_URL=f"https://{ALLOWED}/notes?x=1").headers["Location"]
    answer = browser(app).post(location, data={"email": EMAIL, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"https://{ALLOWED}/notes?x=1")


def test_behind_a_proxy_our_host_is_the_one_it_forwards(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS="auth.example.org")
    traefik = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": ALLOWED,
        "X-Forwarded-Uri": "/notes?x=1",
        **PAGE,
    }
    assert onward(ask(app, REDIRECT, **traefik)) == ("/login", "/notes?x=1")
    elsewhere = f"{REDIRECT}?role=user&login=https://auth.example.org/login"
    assert onward(ask(app, elsewhere, **traefik)) == (
        "https://auth.example.org/login",
        f"https://{ALLOWED}/notes?x=1",
    )
    for there in ("https://e.example/login", "//e.example", "javascript:alert(1)", "", "\x00"):
        answer = ask(app, f"{REDIRECT}?login={there}", **traefik)
        assert urlsplit(answer.headers.get("Location", "")).netloc == "", there
    nginx = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "auth.example.org",
        "X-Original-URL": "https://auth.example.org/notes",
    }
    assert onward(ask(app, NGINX, **nginx)) == ("/login", "/notes")


# -- any method, from anywhere ---------------------------------------------------------------------


def test_a_request_of_any_kind_may_be_asked_about(app: Flask, token: str) -> None:
    """It is the guarded app's business what it does with a request from another site."""
    for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        sent = {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"}
        assert ask(app, REDIRECT, token, method, **sent).status_code == 200, method
        refused(ask(app, REDIRECT, method=method, **sent), 401)


OTHER_METHODS = (
    *("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FROB", "GETX"),
)
# the path as a server hands it over: how the query and the slashes around it are written
SPELLINGS = {
    "{}": True,
    "{}?role=user": True,
    "{}?role=admin": True,
    "{}?nonsense": True,
    "/{}": True,
    "//{}": True,
    "{}/": False,
    "{}//": False,
    "/.{}": False,
    "{};x": False,
    "{}%20": False,
}


def spelled(app: Flask, target: str, token: str, method: str, **headers: str) -> TestResponse:
    """As `ask`, with a path that the client of the tests would take for another host's."""
    path, _, query = target.partition("?")
    sent = {"PATH_INFO": unquote(path), "QUERY_STRING": query, "HTTP_REMOTE_USER": "root"}
    sent |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    if token:
        sent["HTTP_COOKIE"] = f"{COOKIE}={token}"
    return program(app).open(method=method, environ_overrides=sent)


def test_nginx_is_answered_for_get_alone(app: Flask, token: str, person: str) -> None:
    """However the address is written: a proxy that forwards the method gets no yes for OPTIONS."""
    for spelling, is_ours in SPELLINGS.items():
        target = spelling.format(NGINX)
        for method in OTHER_METHODS:
            for whose in ("", token):
                answer = spelled(app, target, whose, method)
                expected = {405} if is_ours else {403, 404}  # 403: it does not say from where
                assert answer.status_code in expected, (method, target)
                if is_ours:
                    assert set(told(answer).values()) == {""}, (method, target)
                    assert answer.headers["Allow"] == "GET, HEAD", (method, target)
        for method in ("GET", "HEAD"):
            denied = (401, 400) if is_ours else (404,)
            assert spelled(app, target, "", method).status_code in denied, (method, target)
    for method in ("GET", "HEAD"):
        assert told(spelled(app, f"/{NGINX}", token, method)) == ada(person)
        assert ask(app, "/forward-auth/%6eginx", token, method).status_code == 200


def test_any_method_is_decided_as_get(app: Flask, token: str, person: str) -> None:
    for target in (spelling.format(REDIRECT) for spelling, is_ours in SPELLINGS.items() if is_ours):
        for sent in ({"ACCEPT": PAGE["Accept"]}, {"ACCEPT": "*/*"}):
            for whose in ("", token):
                as_get = spelled(app, target, whose, "GET", **sent)
                assert as_get.status_code != 200 or whose
                expected = 303 if as_get.status_code == 302 else as_get.status_code
                for method in OTHER_METHODS:
                    answer = spelled(app, target, whose, method, **sent)
                    assert answer.status_code == expected, (method, target, sent)
                    assert told(answer) == told(as_get), (method, target, sent)
                    assert answer.headers.get("Location") == as_get.headers.get("Location")


# -- when stores are away --------------------------------------------------------------------------


@contextmanager
def away(app: Flask, *stores: str) -> Iterator[None]:
    """None of these is asked while the block lasts."""
    services = services_of(app)
    breakers = {"redis": services.cache.breaker, "postgres": services.database.breaker}

    def fail() -> None:
        raise StoreUnavailable("tests")

    with ExitStack() as stack:
        for name in stores:
            stack.callback(setattr, breakers[name], "recover", breakers[name].recover)
            breakers[name].recover = fail
            breakers[name].open()
        yield
    await_trust(services)


@pytest.mark.parametrize("path", BOTH)
def test_who_is_signed_in_passes_while_one_store_is_away(
    app: Flask, token: str, person: str, path: str
) -> None:
    for store in ("redis", "postgres"):
        with away(app, store):
            answer = ask(app, path, token)
        assert (answer.status_code, told(answer)) == (200, ada(person)), store


@pytest.mark.parametrize("path", BOTH)
def test_when_nobody_can_say_nobody_is_logged_out(app: Flask, token: str, path: str) -> None:
    with away(app, "redis", "postgres"):
        for headers in (PAGE, {"Accept": "application/json"}):
            answer = refused(ask(app, path, token, **headers), 503)
            assert int(answer.headers["Retry-After"]) > 0
            assert "Location" not in answer.headers
        refused(ask(app, path, "A" * 64))  # arithmetic says no
        refused(ask(app, path))
    assert ask(app, path, token).status_code == 200


# -- the fast path ---------------------------------------------------------------------------------


def of_every_kind(app: Flask, token: str, sound: str) -> Iterator[TestResponse]:
    """An answer for each thing that can be said."""
    for path in (*BOTH, *(f"{path}?role=admin" for path in BOTH), f"{NGINX}?x=1"):
        for who in ({}, {"X-Access-Token": sound}, {"X-Access-Token": "x"}):
            for how in (PAGE, {"Accept": "application/json"}):
                yield ask(app, path, **who, **how)
        for cookie in (token, "x", "A" * 64, token[::-1]):
            yield ask(app, path, cookie, X_Original_URL="/notes", X_Forwarded_Uri="/notes", **PAGE)
        yield ask(app, path, token, "HEAD")
    with away(app, "redis", "postgres"):
        for path in BOTH:
            yield ask(app, path, token)


def test_the_fast_path_says_what_flask_says(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    if through == "flask":
        return
    sound = access_token(app)
    by_fast_path = list(map(whole, of_every_kind(app, token, sound)))
    monkeypatch.setattr(FastPath, "try_answer", lambda *_: None)
    assert by_fast_path == list(map(whole, of_every_kind(app, token, sound)))
    assert {status for status, *_ in by_fast_path} == {200, 302, 400, 401, 403, 503}


def test_what_is_plain_never_gets_to_flask(
    app: Flask, token: str, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    if through == "flask":
        return
    monkeypatch.setattr(Flask, "full_dispatch_request", None)
    for path in BOTH:
        assert ask(app, path, token).status_code == 200
        refused(ask(app, path))
        refused(ask(app, path, "x", **PAGE))


@pytest.mark.parametrize("path", BOTH)
def test_what_was_decided_is_not_decided_twice(
    app: Flask, token: str, stores: Stores, path: str
) -> None:
    with stores.counted() as cost:
        assert ask(app, f"{path}?role=admin", token).status_code == 403
    assert (cost.redis, cost.sql) == (1, [])


def test_nobody_can_send_what_was_decided(app: Flask) -> None:
    for name in ("authapp.forward_auth.refusal", "Authapp-Forward-Auth-Refusal"):
        refused(ask(app, NGINX, **{name: "x"}), 401)


@pytest.mark.parametrize("path", BOTH)
def test_it_is_counted_and_logged_as_all_requests_are(
    app: Flask, token: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Growth(program(app), "authapp_requests_total")
    timed = Growth(program(app), "authapp_request_seconds_count")
    caplog.clear()
    answers = [ask(app, path, token), ask(app, path), ask(app, f"{path}?role=admin", token)]
    logged: list[Any] = [
        json.loads(record.msg) for record in caplog.records if record.name == "authapp.request"
    ]
    assert counted()[("GET", path, "200")] == 1
    assert counted()[("GET", path, "401")] == 1
    assert counted()[("GET", path, "403")] == 1
    assert timed()[(path,)] == 3
    assert [(line["route"], line["status"], line["request_id"]) for line in logged] == [
        (path, answer.status_code, answer.headers["X-Request-ID"]) for answer in answers
    ]
    for method in ("X1", "X2"):
        refused(ask(app, REDIRECT, method=method), 401)
    grown = {labels[0] for labels in counted() if labels[1] == REDIRECT}
    assert grown <= {"GET", "other"}


def test_the_id_of_a_trusted_proxy_is_taken(make_app: MakeApp) -> None:
    for hops, expected in ((1, True), (0, False)):
        answer = ask(make_app(TRUSTED_PROXY_HOPS=hops), NGINX, X_Request_ID="a-1")
        assert (answer.headers["X-Request-ID"] == "a-1") is expected


@pytest.mark.parametrize(("path", "status"), [(NGINX, "401"), (REDIRECT, "302")])
def test_a_host_that_no_url_can_have_breaks_nothing(
    make_app: MakeApp, path: str, status: str
) -> None:
    """Asked without the client of the tests, which such a host breaks, too."""
    app = make_app(ALLOWED_REDIRECT_HOSTS="auth.example.org")
    environ = create_environ(path, query_string={"login": "https://auth.example.org/login"})
    environ |= {"HTTP_HOST": "[:.:]", "HTTP_X_ORIGINAL_URL": "/a", "HTTP_X_FORWARDED_URI": "/a"}
    environ |= {"HTTP_ACCEPT": PAGE["Accept"]}
    told: list[str] = []

    def start(status: str, *_rest: Any) -> Any:
        told.append(status[:3])

    app(environ, start)
    assert told == [status]


# -- two factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BOTH)
def test_a_second_factor_may_be_demanded(
    app: Flask, stores: Stores, person: str, path: str
) -> None:
    client = signed_in_as(app)
    before = token_of(client)
    assert ask(app, f"{path}?factor=2", before).status_code == 403
    enrol(client, stores)  # which proves it
    now = token_of(client)
    assert ask(app, f"{path}?factor=2", now).status_code == 200
    assert ask(app, f"{path}?factor=2&role=admin", now).status_code == 403
    assert ask(app, f"{path}?factor=1", now).status_code == 400
