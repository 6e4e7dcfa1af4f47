"""The sessions of a person on their page for administrators: devices, and the end of one."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.support import EMAIL, Page, Stores, browser, log_in, sign_up, signed_in_as

ROOT = "root@example.org"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture
def person(app: Flask) -> str:
    sign_up(app, ROOT, name="Rhoda", roles=["admin"])
    return sign_up(app, EMAIL)


@pytest.fixture
def ada(app: Flask, person: str) -> FlaskClient:
    client = browser(app)
    client.environ_base["HTTP_USER_AGENT"] = FIREFOX
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    log_in(client)
    return client


@pytest.fixture
def helper(stores: Stores) -> Iterator[str]:
    """A role that sees people and ends their sessions."""
    stores.sql(
        "INSERT INTO roles (id, name, permissions)"
        " VALUES (98, 'helper', ARRAY['users:read', 'sessions:end'])"
    )
    yield "helper"
    stores.clear()
    stores.sql("DELETE FROM roles WHERE id = 98")


def ends(client: FlaskClient, person: str) -> list[str]:
    """Where the buttons lead that end one session."""
    page = Page(client.get(f"/admin/users/{person}"))
    actions = [form["action"] for form in page.all("form") if form.get("action")]
    return [action for action in actions if action.startswith("/admin/sessions/")]


def test_one_session_ends_and_its_owner_is_told(app: Flask, person: str, ada: FlaskClient) -> None:
    other = signed_in_as(app)
    root = signed_in_as(app, ROOT)
    text = root.get(f"/admin/users/{person}").text
    assert "Firefox on Linux" in text
    assert "192.0.2.7" in text
    assert "2 active sessions." in text
    offered = ends(root, person)
    assert len(offered) == 2
    (of_ada,) = [path for path in offered if path.split("/")[3] == session_of(ada)]
    answer = root.post(of_ada, follow_redirects=True)
    assert answer.request.path == f"/admin/users/{person}"
    assert "The session was ended." in answer.text
    told = ada.get("/account", follow_redirects=True).text
    assert "an administrator ended this session" in told
    assert other.get("/account").status_code == 200
    assert of_ada not in ends(root, person)
    assert root.post(of_ada).status_code == 404, "it is over"


def session_of(client: FlaskClient) -> str:
    sessions = client.get("/api/v1/me/sessions").get_json()["sessions"]
    return next(str(session["id"]) for session in sessions if session["current"])


def test_only_those_who_may_end_sessions_see_where_they_are(
    app: Flask, helper: str, person: str, ada: FlaskClient, stores: Stores
) -> None:
    sign_up(app, "helper@example.org", roles=[helper])
    client = signed_in_as(app, "helper@example.org")
    assert "192.0.2.7" in client.get(f"/admin/users/{person}").text
    stores.sql("UPDATE roles SET permissions = ARRAY['users:read'] WHERE name = 'helper'")
    client = signed_in_as(app, "helper@example.org")
    text = client.get(f"/admin/users/{person}").text
    assert "1 active session." in text
    assert "192.0.2.7" not in text
    assert ends(client, person) == []


def test_sessions_of_those_who_may_do_more_are_not_shown_nor_ended(app: Flask, helper: str) -> None:
    person = sign_up(app, ROOT, roles=["admin"])
    sign_up(app, EMAIL, roles=[helper])
    root, client = signed_in_as(app, ROOT), signed_in_as(app)
    assert ends(client, person) == []
    answer = client.post(f"/admin/sessions/{session_of(root)}/end")
    assert answer.status_code == 403
    assert "may do more than you may" in answer.text
    assert root.get("/account").status_code == 200


def test_ones_own_session_is_marked_and_not_offered(app: Flask, person: str) -> None:
    root = signed_in_as(app, ROOT)
    own = root.get("/api/v1/me").get_json()["id"]
    assert "This device" in root.get(f"/admin/users/{own}").text
    assert ends(root, own) == []


def test_a_session_that_nobody_has_is_not_found(app: Flask, person: str) -> None:
    assert signed_in_as(app, ROOT).post(f"/admin/sessions/{uuid4()}/end").status_code == 404
