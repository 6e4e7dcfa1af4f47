"""Notices are true: no link makes a page claim that something was done."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.web.pages.messages import DONE, DONE_SIGNED_OUT
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    cookies_of,
    log_in,
    lose_fences,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)
from tests.web.test_forward_auth import away

CHANGE = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
NAMES = ("done", "notice", "message", "why", "ended", "reason", "NOTICE")


def said(client: FlaskClient, path: str, **headers: str) -> list[str]:
    """The messages that a page claims something with."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    text = Page(answer).text
    every = (*DONE.values(), *DONE_SIGNED_OUT.values())
    return [message for message in every if message in text]


def done_by(client: FlaskClient, path: str = "/account") -> str:
    """Where an act leads."""
    answer = client.post(path)
    assert answer.status_code == 303
    return str(answer.location)


def test_no_link_makes_a_page_claim_something(signed_in: FlaskClient, app: Flask) -> None:
    services_of(app).users.grant(EMAIL, "admin")
    own = signed_in.get("/api/v1/me").get_json()["id"]
    nobody = browser(app)
    for claim in (*DONE, *DONE_SIGNED_OUT):
        query = "&".join(f"{name}={claim}" for name in NAMES) + "&within=60"
        for led in ("cross-site", "same-site", "none", ""):
            for path in ("/", "/login", "/signup"):
                sent = {"Sec-Fetch-Site": led, "Referer": "http://localhost/"}
                assert said(nobody, f"{path}?{query}", **sent) == [], (path, claim, led)
        for path in ("/", "/account", "/account/sessions", f"/admin/users/{own}", "/admin/audit"):
            assert said(signed_in, f"{path}?{query}") == [], (path, claim)
        after = log_in(browser(app), next=f"/account?{query}").location
        assert said(signed_in, after) == [], "log-in leads where a link says"
    assert (
        "logged-out.css"
        not in nobody.get("/?done=logged-out", headers={"Sec-Fetch-Site": "cross-site"}).text
    ), "nor does it make the browser forget pages"


def test_it_is_said_on_the_page_after_the_act(signed_in: FlaskClient) -> None:
    done = signed_in.post("/account/password", data=CHANGE)
    assert urlsplit(done.location).path == "/account"
    assert said(signed_in, done.location) == [DONE["password"]]
    assert said(signed_in, "/account") == []


def test_what_was_done_while_signed_out_is_said_too(client: FlaskClient, stores: Stores) -> None:
    done = client.post("/signup", data={"email": EMAIL, "password": PASSWORD}).location
    with stores.counted() as cost:
        assert said(client, done) == [DONE_SIGNED_OUT["signed-up"]]
    assert (cost.redis, cost.sql) == (0, [])
    log_in(client)
    page = client.get(done_by(client, "/logout"))
    assert DONE_SIGNED_OUT["logged-out"] in page.text
    assert "logged-out.css" in page.text
    assert said(client, "/") == []


@pytest.mark.parametrize(
    ("referer", "is_ours"),
    [
        ("http://localhost/account", True),
        ("http://localhost/", True),
        ("http://localhost", False),
        ("http://localhost.e.example/", False),
        ("http://localhost@e.example/", False),
        ("https://e.example/?http://localhost/", False),
        ("", False),
    ],
)
def test_a_browser_that_does_not_say_its_site_says_the_page(
    app: Flask, referer: str, is_ours: bool
) -> None:
    """As all do over plain http."""
    messages = said(program(app), "/?done=logged-out", Referer=referer, Accept="text/html")
    assert messages == ([DONE_SIGNED_OUT["logged-out"]] if is_ours else [])


def test_it_says_how_late_others_notice(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(REVALIDATE_SECONDS=45)
    sign_up(app)
    client = signed_in_as(app)
    client.get("/account")
    lose_fences(app, monkeypatch)
    late = "Other devices may take up to 45 seconds to notice."
    told = client.get(client.post("/account", data={"name": "Countess"}).location).text
    assert f"{DONE['profile']} {late}" in told
    assert f"{DONE_SIGNED_OUT['logged-out']} {late}" in client.get(done_by(client, "/logout")).text


def test_the_address_of_somebody_else_s_page_says_nothing(
    signed_in: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(app, "mallory@example.org")
    theirs = done_by(signed_in_as(app, "mallory@example.org"))
    own_elsewhere = done_by(signed_in_as(app))
    own = done_by(signed_in)
    assert said(signed_in, own) == [DONE["profile"]], "the control"
    # not the last letter of the signature: some of its bits belong to no byte
    flipped = own[:-2] + ("B" if own[-2] == "A" else "A") + own[-1]
    of_another = own.replace("profile", "password")
    bare = own.replace("done=", "done=password.")
    for planted in (theirs, own_elsewhere, of_another, flipped, own[:-1], f"{own}x", bare):
        assert said(signed_in, planted) == [], planted
    for address in (own, theirs):
        assert said(browser(app), address.replace("/account", "/")) == []
    monkeypatch.setattr("itsdangerous.TimestampSigner.get_timestamp", lambda _: 4_000_000_000)
    assert said(signed_in, own) == [], "a minute later"


def test_it_outlives_a_change_of_the_secret_key(make_app: MakeApp) -> None:
    old, new = "o" * 32, "n" * 32
    app = make_app(SECRET_KEY=old)
    sign_up(app)
    client = signed_in_as(app)
    done, token = done_by(client), token_of(client)
    for keys in (f"{new},{old}", f"{old},{new}"):
        cookie = f"{COOKIE}={token}"
        assert said(program(make_app(SECRET_KEY=keys)), done, Cookie=cookie) == [DONE["profile"]]


# -- error pages -----------------------------------------------------------------------------------

# what answers with an error page: method, path, status
ERRORS = [
    ("GET", "/nothing", 404),
    ("GET", "/account/nothing", 404),
    ("GET", "/logged-out.css/x", 404),
    ("GET", "/account/sessions/end-others", 405),
    ("OPTIONS", "/account", 405),
    ("POST", "/healthz", 405),
]
# whose errors ask for nobody
SILENT = [
    ("/static/nothing", 404),
    ("/bootstrap/static/nothing", 404),
    ("/api/v1/nothing", 404),
    ("/api/v1/login", 405),
    ("/forward-auth/nginx?nonsense", 400),
    ("/forward-auth/redirect?nonsense", 400),
]


def links(answer: Any) -> set[str]:
    page = Page(answer)
    return {a["href"] for a in page.all("a")} | {f["action"] for f in page.all("form")}


@pytest.mark.parametrize(("method", "path", "status"), ERRORS)
def test_an_error_page_shows_who_is_signed_in(
    app: Flask, signed_in: FlaskClient, stores: Stores, method: str, path: str, status: int
) -> None:
    signed_in.get("/account")
    with stores.counted() as cost:
        answer = signed_in.open(path, method=method)
    assert answer.status_code == status
    assert (cost.redis, cost.sql) == (1, [])
    assert {"/account", "/logout"} <= links(answer)
    assert "/login" not in links(answer)
    with stores.counted() as cost:
        other = browser(app).open(path, method=method, headers={"Cookie": f"{COOKIE}={'A' * 64}"})
    assert (other.status_code, cost.redis, cost.sql) == (status, 0, [])
    assert "/login" in links(other)


def test_a_refusal_shows_who_was_refused(signed_in: FlaskClient) -> None:
    for answer in (
        signed_in.get("/admin/users"),
        signed_in.post("/account", headers={"Sec-Fetch-Site": "cross-site"}),
        signed_in.post("/account", data={"name": "x" * 100_000}),
    ):
        assert answer.status_code in {403, 413}
        assert "/logout" in links(answer)


def test_errors_of_files_and_programs_ask_for_nobody(
    signed_in: FlaskClient, stores: Stores
) -> None:
    for path, status in SILENT:
        with stores.counted() as cost:
            assert signed_in.get(path).status_code == status, path
        assert (cost.redis, cost.sql) == (0, []), path


@pytest.mark.parametrize(("method", "path", "status"), ERRORS)
def test_an_error_page_needs_no_store(
    app: Flask, signed_in: FlaskClient, method: str, path: str, status: int
) -> None:
    done = signed_in.post("/account", data={"name": "Countess"})
    with away(app, "redis", "postgres"):
        answer = signed_in.open(path, method=method)
        assert (answer.status_code, cookies_of(answer)) == (status, [])
        assert not {"/login", "/logout"} & links(answer), "nobody can say"
        assert signed_in.get("/account").status_code == 503
    assert said(signed_in, done.location) == [DONE["profile"]]
