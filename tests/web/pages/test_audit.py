"""`/admin/audit`: what happened to whom, by whom, from where; and that all acts get there."""

from collections import Counter
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.accounts.audit import EVENTS
from authapp.web.pages import audit_question
from authapp.web.pages.messages import HAPPENED
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    services_of,
    sign_up,
    signed_in_as,
)
from tests.web.test_limits import CALLS, LIMIT, limited, post

ROOT = "root@example.org"
HERE, THERE = "192.0.2.1", "192.0.2.9"


@pytest.fixture
def admin(app: Flask) -> FlaskClient:
    sign_up(app, ROOT, name="Root", roles=["admin"])
    client = signed_in_as(app, ROOT)
    client.environ_base["REMOTE_ADDR"] = THERE
    return client


def recorded(app: Flask, stores: Stores, *events: str) -> list[tuple[str, str, str, str]]:
    """Event, about whom, by whom (emails), from where; oldest first."""
    services_of(app).refused_attempts.flush()
    return stores.sql(
        "SELECT event, u.email, a.email, address FROM audit_events e"
        " LEFT JOIN users u ON u.id = user_id LEFT JOIN users a ON a.id = actor_id"
        " WHERE event = ANY(%s) ORDER BY e.at, e.id",
        list(events),
    )


def test_every_event_has_words_for_people() -> None:
    assert set(HAPPENED) == set(EVENTS)


# -- what people and administrators do is on record ------------------------------------------------


def test_what_a_person_does_is_on_record(app: Flask, stores: Stores) -> None:
    client = browser(app)
    client.environ_base["REMOTE_ADDR"] = HERE
    name = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/signup", data=name).status_code == 303
    assert log_in(client, password="not the password").status_code == 401
    assert log_in(client).status_code == 303
    assert client.post("/account", data={"name": "Ada King"}).status_code == 303
    assert client.patch("/api/v1/me", json={"name": "Ada"}).status_code == 200
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert client.post("/account/password", data=change).status_code == 303
    assert client.post("/logout").status_code == 303
    events = ("user.created", "login.failed", "session.begun", "profile.changed")
    assert recorded(app, stores, *events, "password.changed") == [
        ("user.created", EMAIL, EMAIL, HERE),
        ("session.begun", EMAIL, EMAIL, HERE),  # people are in after sign-up
        ("login.failed", EMAIL, None, HERE),
        ("session.begun", EMAIL, EMAIL, HERE),
        ("profile.changed", EMAIL, EMAIL, HERE),
        ("profile.changed", EMAIL, EMAIL, HERE),
        ("password.changed", EMAIL, EMAIL, HERE),
    ]
    assert recorded(app, stores, "session.ended")[-1][3] == HERE


def test_signing_up_by_the_api_is_on_record(app: Flask, stores: Stores) -> None:
    client = browser(app)
    client.environ_base["REMOTE_ADDR"] = HERE
    body = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/api/v1/signup", json=body).status_code == 201
    assert recorded(app, stores, "user.created") == [("user.created", EMAIL, EMAIL, HERE)]


Act = tuple[str, str, str, dict[str, Any]]
ACTS: list[Act] = [
    ("roles.set", "POST", "/admin/users/*/roles", {"data": {"roles": ["admin"]}}),
    ("user.deactivated", "POST", "/admin/users/*/deactivate", {}),
    ("user.activated", "POST", "/admin/users/*/activate", {}),
    ("sessions.ended", "POST", "/admin/users/*/end-sessions", {}),
    ("roles.set", "PUT", "/api/v1/users/*/roles", {"json": {"roles": ["admin"]}}),
    ("user.deactivated", "PATCH", "/api/v1/users/*", {"json": {"active": False}}),
    ("user.activated", "PATCH", "/api/v1/users/*", {"json": {"active": True}}),
    ("profile.changed", "PATCH", "/api/v1/users/*", {"json": {"name": "Other"}}),
    ("sessions.ended", "DELETE", "/api/v1/users/*/sessions", {}),
]


@pytest.mark.parametrize("act", ACTS, ids=[f"{a[1]} {a[2]} {a[0]}" for a in ACTS])
def test_what_an_administrator_does_is_on_record(
    app: Flask, admin: FlaskClient, person: str, stores: Stores, act: Act
) -> None:
    event, method, path, sent = act
    answer = admin.open(path.replace("*", person), method=method, **sent)
    assert answer.status_code in {200, 204, 303}
    assert recorded(app, stores, event) == [(event, EMAIL, ROOT, THERE)]


@pytest.mark.parametrize("path", CALLS)
def test_attempts_and_what_limits_refuse_are_on_record(
    make_app: MakeApp, stores: Stores, path: str
) -> None:
    """By every call that takes a password: what failed, and by which limit others were stopped."""
    app = limited(make_app)
    client = browser(app)
    signed_in = path.endswith(("/password", "/confirm"))
    if signed_in:
        sign_up(app)
        client = signed_in_as(app)
    client.environ_base["REMOTE_ADDR"] = HERE
    for number in range(LIMIT + 2):
        post(client, path, number)
    window = "login-address"
    if signed_in:
        window = "password-account"
    elif path.endswith("/signup"):
        window = "signup-address"
    services_of(app).refused_attempts.flush()
    found = stores.sql(
        "SELECT event, sum(coalesce((details->>'count')::int, 1))::int, max(details->>'window')"
        " FROM audit_events WHERE address = %s GROUP BY event",
        HERE,
    )
    expected: set[tuple[str, int, str | None]] = {
        (window.partition("-")[0] + ".limited", 2, window)
    }
    if signed_in:
        expected.add(("password.refused", LIMIT, None))
    elif window == "login-address":
        expected.add(("login.failed", LIMIT, None))
    else:
        expected.add(("user.created", LIMIT, None))
        if path == "/signup":
            expected.add(("session.begun", LIMIT, None))  # people are in after sign-up
    assert set(found) == expected


OWN_ACTS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "API": ("PATCH", "/api/v1/me", [{"json": {"name": "One"}}, {"json": {"name": "Two"}}]),
    "page": ("POST", "/account", [{"data": {"name": "One"}}, {"data": {"name": "Two"}}]),
}
ADMIN_ACTS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "name": (
        *("PATCH", "/api/v1/users/*"),
        [{"json": {"name": "One"}}, {"json": {"name": "Two"}}],
    ),
    "activation": (
        *("PATCH", "/api/v1/users/*"),
        [{"json": {"active": False}}, {"json": {"active": True}}],
    ),
    "activation that is none": ("POST", "/admin/users/*/activate", [{}]),
    "roles": (
        *("PUT", "/api/v1/users/*/roles"),
        [{"json": {"roles": ["admin"]}}, {"json": {"roles": ["user"]}}],
    ),
    "sessions": ("DELETE", "/api/v1/users/*/sessions", [{}]),
}
REPEATED = {
    **{f"own {name}": (True, *act) for name, act in OWN_ACTS.items()},
    **{f"another's {name}": (False, *act) for name, act in ADMIN_ACTS.items()},
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_act_that_is_repeated_does_not_fill_the_log(
    app: Flask, admin: FlaskClient, person: str, stores: Stores, name: str
) -> None:
    is_own, method, path, bodies = REPEATED[name]
    client = signed_in_as(app) if is_own else admin
    stores.sql("DELETE FROM audit_events")
    for number in range(60):
        sent = bodies[number % len(bodies)]
        answer = client.open(path.replace("*", person), method=method, **sent)
        assert answer.status_code in {200, 204, 303}
    found = stores.sql("SELECT event, details FROM audit_events WHERE event <> 'session.ended'")
    assert sum(details.get("count", 1) for _, details in found) == 60, "none is lost"
    by_event = Counter(event for event, _ in found)
    assert max(by_event.values()) == 10
    assert recorded(app, stores, *by_event)[-1][1] == EMAIL


def test_acts_with_others_in_between_are_counted_together(
    app: Flask, signed_in: FlaskClient, person: str, stores: Stores
) -> None:
    for number in range(40):
        signed_in.patch("/api/v1/me", json={"name": f"Ada {number}"})
        signed_in.patch("/api/v1/me", json={"image": f"https://example.org/{number}.png"})
        if number % 8 == 0:
            log_in(browser(app))
    found = stores.sql(
        "SELECT details FROM audit_events WHERE event = 'profile.changed' ORDER BY id"
    )
    assert len(found) == 10
    assert found[-1][0] == {"fields": ["image", "name"], "count": 71}


# -- the page --------------------------------------------------------------------------------------


def rows(page: Page) -> int:
    return len([a for a in page.all("tr") if a.get("role") == "row"]) - 1


def test_the_page_tells_who_did_what_to_whom_from_where(
    app: Flask, admin: FlaskClient, person: str
) -> None:
    admin.post(f"/admin/users/{person}/roles", data={"roles": ["admin", "user"]})
    page = Page(admin.get("/admin/audit"))
    assert rows(page) == 4
    told = " ".join(page.text.split())
    newest, rest = told.index("Roles set roles: admin, user"), told.index("Logged in kind: browser")
    assert newest < rest, "the newest first"
    line = told[newest:rest]
    assert "Ada" in line
    assert "Root" in line
    assert THERE in line
    links = [a["href"] for a in page.all("a")]
    assert f"/admin/users/{person}" in links
    (time, *_) = page.all("time")
    assert time["datetime"].endswith("+00:00")


def test_a_user_leads_to_what_happened_to_them(app: Flask, admin: FlaskClient, person: str) -> None:
    log_in(browser(app), password="not the password")
    services_of(app).refused_attempts.flush()
    links = [a["href"] for a in Page(admin.get(f"/admin/users/{person}")).all("a")]
    assert f"/admin/audit?user={person}" in links
    page = Page(admin.get(f"/admin/audit?user={person}"))
    assert rows(page) == 2
    assert "Only about Ada." in page.text
    assert page.by_id("user")["value"] == person
    assert "Root" not in page.text
    page = Page(admin.get(f"/admin/audit?user={person}&event=login.failed"))
    assert rows(page) == 1
    (chosen,) = [a for a in page.all("option") if "selected" in a]
    assert chosen["value"] == "login.failed"


def test_the_next_page_keeps_what_was_asked_for(
    admin: FlaskClient, person: str, stores: Stores
) -> None:
    stores.sql(
        "INSERT INTO audit_events (at, event, user_id)"
        " SELECT now(), 'session.begun', %s FROM generate_series(1, 120)",
        person,
    )
    path, counts = f"/admin/audit?user={person}&event=session.begun", []
    while path:
        page = Page(admin.get(path))
        counts.append(rows(page))
        path = next((a["href"] for a in page.all("a") if a.get("rel") == "next"), "")
    assert counts == [50, 50, 20]


TYPOS = {
    "user=nemo": "Nobody matches; write an email",
    "user=%00": "Nobody matches",
    "event=x": "Choose one from the list",
    "cursor=x": "Leave it out to start from the newest",
    "cursor=-1": "Leave it out",
    "address=192.0.2": "Write one IP address, like 192.0.2.7",
    "since=yesterday": "Write a time in UTC, like 2026-11-27 10:30",
}


@pytest.mark.parametrize("query", TYPOS)
def test_a_typo_is_answered_with_the_form_and_what_to_write(admin: FlaskClient, query: str) -> None:
    answer = admin.get(f"/admin/audit?{query}&address=192.0.2.9")
    assert answer.status_code == 400
    page = Page(answer)
    assert "Error 400" not in page.text
    assert TYPOS[query] in page.text
    name, _, value = query.partition("=")
    if name not in {"cursor", "event"} and value != "%00":
        assert page.by_id(name)["value"] == unquote(value).strip()
        assert page.by_id(name)["aria-invalid"] == "true"
    if name != "address":
        assert page.by_id("address")["value"] == "192.0.2.9", "the rest is kept"
    assert "There are no such events" not in page.text


def test_all_typos_are_told_at_once(admin: FlaskClient) -> None:
    page = Page(admin.get("/admin/audit?user=nemo&address=x&since=x&event=x"))
    for name in ("user", "address", "since", "event"):
        assert page.by_id(f"{name}-error")


@pytest.fixture
def tried(app: Flask, person: str) -> None:
    """Somebody tried passwords, for Ada and for an email that nobody has."""
    elsewhere = browser(app)
    elsewhere.environ_base["REMOTE_ADDR"] = HERE
    for email in (EMAIL, "nobody@example.org"):
        log_in(elsewhere, email, "not the password")
    services_of(app).refused_attempts.flush()


QUESTIONS = {
    "user=ada.lovelace@example.org": 2,
    "user=ADA.Lovelace@Example.org": 2,
    "user=nobody@example.org": 1,
    "user=ada": 2,
    "user=lovelace": 2,
    "user=o": 4,  # in both emails, and in Root's name
    "address=192.0.2.1": 2,
    "address=::ffff:192.0.2.1": 2,
    "since=1h": 5,
    "since=2999-01-01": 0,
    "user=ada&event=login.failed&address=192.0.2.1&since=1d": 1,
}


@pytest.mark.parametrize("query", QUESTIONS)
def test_events_are_found(admin: FlaskClient, tried: None, query: str) -> None:
    answer = admin.get(f"/admin/audit?{query}")
    assert answer.status_code == 200
    page = Page(answer)
    assert (rows(page) if QUESTIONS[query] else -1) == (QUESTIONS[query] or -1)


def test_too_many_people_are_no_answer(
    admin: FlaskClient, tried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_question, "MAX_PEOPLE", 1)
    answer = admin.get("/admin/audit?user=example.org")
    assert answer.status_code == 400
    assert "More than 1 people match; write more of the name." in Page(answer).text


def test_nothing_that_is_there(admin: FlaskClient) -> None:
    page = Page(admin.get("/admin/audit?event=password.set"))
    assert "There are no such events." in page.text
    page = Page(admin.get(f"/admin/audit?user={'0' * 8}-0000-0000-0000-{'0' * 12}&event="))
    assert "There are no such events." in page.text


def test_what_others_typed_is_text(admin: FlaskClient, app: Flask, stores: Stores) -> None:
    markup = "<b id=planted>"
    sign_up(app, "x@example.org", name=markup)
    stores.sql("UPDATE audit_events SET address = %s", markup)
    page = Page(admin.get("/admin/audit"))
    assert markup in page.text
    assert not [a for _, a in page.elements if a.get("id") == "planted"]


def test_whoever_may_read_the_log_alone_sees_ids_and_finds_people_by_id(
    app: Flask, stores: Stores, person: str
) -> None:
    stores.sql(
        "INSERT INTO roles (id, name, permissions) VALUES (99, 'auditor', ARRAY['audit:read'])"
    )
    try:
        sign_up(app, "looks@example.org", name="Eve", roles=["auditor"])
        looks = signed_in_as(app, "looks@example.org")
        nameless = sign_up(app, "nameless@example.org", name="")
        page = Page(looks.get("/admin/audit"))
        assert person in page.text
        assert nameless in page.text
        assert "The id of a person." in page.text
        for shown in (page.text, Page(looks.get(f"/admin/audit?user={person}")).text):
            assert not [part for part in ("Ada", EMAIL, "nameless@") if part in shown]
        assert rows(Page(looks.get(f"/admin/audit?user={person}"))) == 1
        missing = Page(looks.get(f"/admin/audit?user={'0' * 8}-0000-0000-0000-{'0' * 12}"))
        assert "There are no such events." in missing.text
        answers = set()
        for part in ("ada", "Ada", EMAIL, "lovelace", "nobody@example.org", "e@", "nobody"):
            answer = looks.get(f"/admin/audit?user={part}")
            assert answer.status_code == 400, "nobody finds out emails and names by searching"
            answers.add(Page(answer).text)
        assert len(answers) == 1, "whether there is such a person is not told"
        links = [a["href"] for a in page.all("a")]
        assert not [link for link in links if link.startswith("/admin/users")]
        assert "/admin/audit" in links, "in the menu"
        assert looks.get("/admin/users").status_code == 403
    finally:
        stores.clear()
        stores.sql("DELETE FROM roles WHERE id = 99")


def test_who_may_see_users_alone_is_shown_no_way_to_the_log(
    app: Flask, stores: Stores, person: str
) -> None:
    stores.sql(
        "INSERT INTO roles (id, name, permissions) VALUES (99, 'reader', ARRAY['users:read'])"
    )
    try:
        sign_up(app, "looks@example.org", roles=["reader"])
        looks = signed_in_as(app, "looks@example.org")
        page = Page(looks.get(f"/admin/users/{person}"))
        assert not [a for a in page.all("a") if "audit" in a["href"]]
    finally:
        stores.clear()
        stores.sql("DELETE FROM roles WHERE id = 99")
