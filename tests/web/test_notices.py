"""Notices are true: no link makes a page claim that something was done."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.web.pages.messages import DONE
from authapp.web.session.visitor_data import VisitorData, VisitorDataTooLarge
from tests.support.mails import MAIL_SETTINGS
from tests.support.people import grant_role
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
    services_of,
    sign_up,
    signed_in_as,
)
from tests.web.test_forward_auth import away

CHANGE = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
NEW = {"email": EMAIL, "password": PASSWORD}
NAMES = ("done", "notice", "message", "why", "ended", "reason", "NOTICE", "_flashes")


def said(client: FlaskClient, path: str, **headers: str) -> list[str]:
    """The messages that a page claims something with."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    text = Page(answer).text
    return [message for message in DONE.values() if message in text]


def done_by(client: FlaskClient, path: str = "/account", **data: str) -> str:
    """Where an act leads."""
    answer = client.post(path, data=data)
    assert answer.status_code == 303
    return str(answer.location)


def test_no_link_makes_a_page_claim_something(signed_in: FlaskClient, app: Flask) -> None:
    grant_role(services_of(app), EMAIL, "admin")
    own = signed_in.get("/api/v1/me").get_json()["id"]
    nobody, visitor = browser(app), browser(app)
    for number, claim in enumerate(DONE):
        query = "&".join(f"{name}={claim}" for name in NAMES) + "&within=60"
        for led in ("cross-site", "same-site", "same-origin", "none", ""):
            for path in ("/", "/login", "/signup"):
                sent = {"Sec-Fetch-Site": led, "Referer": "http://localhost/"}
                assert said(nobody, f"{path}?{query}", **sent) == [], (path, claim, led)
        for path in ("/", "/account", "/account/sessions", f"/admin/users/{own}", "/admin/audit"):
            assert said(signed_in, f"{path}?{query}") == [], (path, claim)
        visitor.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"  # each has a limit of its own
        after = log_in(visitor, next=f"/account?{query}").location
        assert said(signed_in, after) == [], "log-in leads where a link says"
    assert "logged-out.css" not in nobody.get("/?done=logged-out").text, (
        "nor does it make the browser forget pages"
    )


def test_it_is_said_once_on_the_page_after_the_act(signed_in: FlaskClient) -> None:
    assert done_by(signed_in, "/account/password", **CHANGE) == "/account"
    assert said(signed_in, "/account") == [DONE["password"]]
    assert said(signed_in, "/account") == []
    assert done_by(signed_in, name="Countess") == "/account"
    assert said(signed_in, "/") == [DONE["profile"]], "whichever page comes next"
    assert said(signed_in, "/account") == []


def test_what_was_done_while_signed_out_is_said_too(client: FlaskClient, stores: Stores) -> None:
    assert done_by(client, "/signup", **NEW) == "/"
    assert said(client, "/account") == [DONE["welcome"]]
    assert said(client, "/account") == []
    assert done_by(client, "/logout") == "/"
    with stores.counted() as cost:
        page = client.get("/")
        assert said(client, "/") == []
    assert (cost.redis, cost.sql) == (0, [])
    assert DONE["logged-out"] in page.text
    assert "logged-out.css" in page.text
    assert client.get_cookie("VISITOR-DATA") is None


def test_a_notice_says_how_late_others_notice(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(REVALIDATE_SECONDS=45)
    sign_up(app)
    client = signed_in_as(app)
    client.get("/account")
    lose_fences(app, monkeypatch)
    late = "Other devices may take up to 45 seconds to notice."
    told = client.get(done_by(client, name="Countess")).text
    assert f"{DONE['profile']} {late}" in told
    assert late not in client.get("/account").text
    told = client.get(done_by(client, "/logout")).text
    assert f"{DONE['logged-out']} {late}" in told
    assert "logged-out.css" in told


def test_a_notice_of_somebody_else_is_not_shown(signed_in: FlaskClient, app: Flask) -> None:
    """A cookie with a notice that another host planted counts for nobody who is signed in."""
    sign_up(app, "mallory@example.org")
    theirs = signed_in_as(app, "mallory@example.org")
    done_by(theirs, "/logout")
    planted = theirs.get_cookie("VISITOR-DATA")
    assert planted is not None
    assert said(theirs, "/") == [DONE["logged-out"]], "the control"
    signed_in.set_cookie("VISITOR-DATA", planted.value)
    assert said(signed_in, "/account") == []


def test_a_message_of_the_app_is_shown_as_text(make_app: MakeApp) -> None:
    app = make_app()
    client = browser(app)
    with client.session_transaction() as opened:
        opened["_flashes"] = [("message", "<b>bold</b>")]
    assert "&lt;b&gt;bold&lt;/b&gt;" in client.get("/").text


def test_there_is_always_room_for_the_act(make_app: MakeApp, stores: Stores) -> None:
    """A visitor's full basket leaves none for the proof that the password was typed here."""
    app = make_app(**MAIL_SETTINGS)
    client = browser(app)
    full = next(size for size in range(3_000, 0, -1) if fits({"basket": "x" * size}))
    with client.session_transaction() as opened:
        opened["basket"] = "x" * full
    assert done_by(client, "/signup", **NEW) == "/verify"
    page = client.get("/verify").text
    assert 'name="password"' in page, "it is asked for again"
    with client.session_transaction() as opened:
        assert opened["basket"] == "x" * full


def fits(data: dict[str, Any]) -> bool:
    try:
        return bool(VisitorData(["k" * 32], COOKIE).write(data))
    except VisitorDataTooLarge:
        return False


def test_a_page_with_a_notice_needs_no_more_than_one_without(
    app: Flask, signed_in: FlaskClient
) -> None:
    """Postgres can't cross the notice out, so it is shown once more."""
    done_by(signed_in, name="Countess")
    assert signed_in.get("/api/v1/me").status_code == 200  # there is a copy
    with away(app, "postgres"):
        assert said(signed_in, "/account") == [DONE["profile"]]
    assert said(signed_in, "/account") == [DONE["profile"]]
    assert said(signed_in, "/account") == []


# -- error pages -----------------------------------------------------------------------------------

# what answers with an error page: method, path, status
ERRORS = [
    ("GET", "/nothing", 404),
    ("GET", "/account/nothing", 404),
    ("GET", "/logged-out.css/x", 404),
    ("DELETE", "/account/sessions/end-others", 405),
    ("OPTIONS", "/account", 405),
    ("POST", "/healthz", 405),
]
# whose errors ask for nobody
SILENT = [
    ("/static/authapp/nothing", 404),
    ("/static/authapp/nothing.css", 404),
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
def test_an_error_page_leaves_notices_for_the_next_page(
    app: Flask, signed_in: FlaskClient, method: str, path: str, status: int
) -> None:
    """A browser that asks for a missing picture shows nobody the page."""
    leaving = browser(app)
    done_by(leaving, "/logout")
    done_by(signed_in, name="Countess")
    for client, next_page, notice in (
        (leaving, "/", DONE["logged-out"]),
        (signed_in, "/account", DONE["profile"]),
    ):
        answer = client.open(path, method=method)
        assert answer.status_code == status
        assert notice not in answer.text
        assert cookies_of(answer) == []
        assert said(client, next_page) == [notice]


@pytest.mark.parametrize(("method", "path", "status"), ERRORS)
def test_an_error_page_needs_no_store(
    app: Flask, signed_in: FlaskClient, method: str, path: str, status: int
) -> None:
    done_by(signed_in, name="Countess")
    with away(app, "redis", "postgres"):
        answer = signed_in.open(path, method=method)
        assert (answer.status_code, cookies_of(answer)) == (status, [])
        assert not {"/login", "/logout"} & links(answer), "nobody can say"
        assert signed_in.get("/account").status_code == 503
    assert said(signed_in, "/account") == [DONE["profile"]], "no error page has shown it"
