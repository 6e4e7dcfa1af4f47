"""The pages of administrators: users, their roles, activation and sessions."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
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

ROOT = "root@example.org"


@pytest.fixture
def admin(app: Flask) -> FlaskClient:
    sign_up(app, ROOT, name="Root", roles=["admin"])
    return signed_in_as(app, ROOT)


@pytest.fixture
def root(admin: FlaskClient) -> str:
    """The administrator's id."""
    return str(admin.get("/api/v1/me").get_json()["id"])


@pytest.fixture
def reader(stores: Stores) -> Iterator[str]:
    """A role of the operator's own, which may read only."""
    stores.sql(
        "INSERT INTO roles (id, name, description, permissions)"
        " VALUES (99, 'reader', 'May look', ARRAY['users:read'])"
    )
    yield "reader"
    stores.clear()
    stores.sql("DELETE FROM roles WHERE id = 99")


def of(user_id: str, act: str = "") -> str:
    return f"/admin/users/{user_id}" + (f"/{act}" if act else "")


def done(client: FlaskClient, user_id: str, act: str, **form: Any) -> Page:
    """Does it, and returns the page that says so."""
    answer = client.post(of(user_id, act), data=form)
    assert answer.status_code == 303, answer.get_data(as_text=True)
    assert answer.location == of(user_id)
    return Page(client.get(answer.location))


def alert_of(answer: TestResponse) -> str:
    """The text of the alert on a page."""
    text = answer.get_data(as_text=True)
    assert text.count('role="alert"') == 1
    return text.partition('role="alert">')[2].partition("<")[0]


def held(page: Page) -> dict[str, bool]:
    """Each role there is, and whether it is ticked."""
    boxes = [a for a in page.all("input") if a.get("name") == "roles"]
    return {box["value"]: "checked" in box for box in boxes}


def forms(page: Page) -> set[str]:
    """The acts that a page offers, at once or on a page that asks first, by the last part of the
    address."""
    leads = [a.get("action", "") for a in page.all("form")] + [a["href"] for a in page.all("a")]
    found = (re.fullmatch(r"/admin/users/[0-9a-f-]{36}/([a-z-]+)", lead) for lead in leads)
    return {act[1] for act in found if act}


def facts(stores: Stores) -> list[tuple[Any, ...]]:
    """All that a page could change; when somebody was last seen aside."""
    tables = ("users", "user_roles", "audit_events")
    found = [row for t in tables for row in stores.sql(f"SELECT t::text FROM {t} t ORDER BY 1")]
    return found + stores.sql("SELECT id, ended_at, ver FROM sessions ORDER BY id")


@pytest.mark.parametrize("act", ["roles", "activate", "deactivate", "end-sessions"])
def test_another_site_makes_an_administrator_do_nothing(
    admin: FlaskClient, person: str, stores: Stores, act: str
) -> None:
    before = facts(stores)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert admin.post(of(person, act), headers=foreign).status_code == 403
    asks_first = act != "activate"
    assert admin.get(of(person, act)).status_code == (200 if asks_first else 405), "nor does a link"
    assert facts(stores) == before


def test_the_menu_leads_there_who_may_go_there(
    admin: FlaskClient, signed_in: FlaskClient, app: Flask
) -> None:
    assert "/admin/users" in [a["href"] for a in Page(admin.get("/")).all("a")]
    assert "/admin/users" not in [a["href"] for a in Page(signed_in.get("/")).all("a")]


# -- one user --------------------------------------------------------------------------------------


def test_the_list_leads_to_each_user(admin: FlaskClient, person: str, root: str) -> None:
    page = Page(admin.get("/admin/users"))
    assert {of(person), of(root)} <= {a["href"] for a in page.all("a")}


def test_a_user(admin: FlaskClient, app: Flask, person: str) -> None:
    page = Page(admin.get(of(person)))
    assert EMAIL in page.text
    assert "Active" in page.text
    assert "0 active sessions." in page.text
    assert held(page) == {"admin": False, "user": True}
    assert forms(page) == {"roles", "deactivate", "delete", "email"}
    signed_in_as(app)
    page = Page(admin.get(of(person)))
    assert "1 active session." in page.text
    assert forms(page) == {"roles", "deactivate", "delete", "email", "end-sessions"}


def test_who_may_only_look_is_shown_no_buttons(app: Flask, person: str, reader: str) -> None:
    sign_up(app, "looks@example.org", roles=[reader])
    signed_in_as(app)
    page = Page(signed_in_as(app, "looks@example.org").get(of(person)))
    assert EMAIL in page.text
    assert forms(page) == set()
    assert held(page) == {}


@pytest.mark.parametrize("act", ["", "roles", "activate", "deactivate", "end-sessions"])
def test_a_user_who_is_not_there(admin: FlaskClient, act: str) -> None:
    answer = admin.open(of(str(uuid4()), act), method="POST" if act else "GET")
    assert answer.status_code == 404
    assert "Error 404" in Page(answer).text


def test_a_name_is_text(admin: FlaskClient, app: Flask) -> None:
    name = "<script>alert(1)</script>"
    user = sign_up(app, "x@example.org", name=name)
    for path in ("/admin/users", of(user)):
        page = Page(admin.get(path))
        assert name in page.text
        assert not [a for a in page.all("script") if "src" not in a]


# -- what is done counts at once -------------------------------------------------------------------


def test_roles_are_set(admin: FlaskClient, app: Flask, person: str) -> None:
    theirs = signed_in_as(app)
    assert theirs.get("/admin/users").status_code == 403
    page = done(admin, person, "roles", roles=["admin", "user"])
    assert "The roles were saved." in page.text
    assert held(page) == {"admin": True, "user": True}
    assert theirs.get("/admin/users").status_code == 200
    assert held(done(admin, person, "roles")) == {"admin": False, "user": False}
    assert theirs.get("/admin/users").status_code == 403
    assert theirs.get("/account").status_code == 200


def test_a_role_there_is_not(admin: FlaskClient, stores: Stores, person: str) -> None:
    before = facts(stores)
    answer = admin.post(of(person, "roles"), data={"roles": ["user", "pope"]})
    assert answer.status_code == 400
    assert facts(stores) == before


def test_a_deactivated_person_is_out_and_told_why(
    admin: FlaskClient, app: Flask, person: str
) -> None:
    theirs = signed_in_as(app)
    page = done(admin, person, "deactivate")
    assert "The account is deactivated and signed out everywhere." in page.text
    assert "Deactivated" in page.text
    assert "0 active sessions." in page.text
    assert forms(page) == {"roles", "activate", "delete", "email"}
    answer = theirs.get("/account", follow_redirects=True)
    assert "because this account was deactivated" in answer.get_data(as_text=True)
    assert log_in(browser(app)).status_code == 401

    page = done(admin, person, "activate")
    assert "The account is active." in page.text
    assert forms(page) == {"roles", "deactivate", "delete", "email"}
    assert theirs.get("/account").status_code == 302, "what ended stays ended"
    assert log_in(browser(app)).status_code == 303


def test_sessions_are_ended_and_their_owner_is_told_why(
    admin: FlaskClient, app: Flask, person: str
) -> None:
    theirs = [signed_in_as(app), signed_in_as(app)]
    page = done(admin, person, "end-sessions")
    assert "All sessions of this person were ended." in page.text
    assert "0 active sessions." in page.text
    for each in theirs:
        answer = each.get("/account", follow_redirects=True)
        assert "an administrator ended this session" in answer.get_data(as_text=True)
    assert admin.get(of(person)).status_code == 200
    assert log_in(browser(app)).status_code == 303


@pytest.mark.parametrize(
    ("act", "form", "status"),
    [
        ("roles", {"roles": ["admin"]}, 200),
        ("roles", {}, 403),
        ("deactivate", {}, 302),
        ("end-sessions", {}, 302),
    ],
)
def test_the_next_request_notices_on_another_instance_too(
    make_app: MakeApp, act: str, form: dict[str, Any], status: int
) -> None:
    here, there = make_app(), make_app()
    sign_up(here, ROOT, roles=["admin"])
    person = sign_up(here)
    admin, theirs = signed_in_as(here, ROOT), signed_in_as(there)
    assert theirs.get("/admin/users").status_code == 403
    done(admin, person, act, **form)
    assert theirs.get("/admin/users").status_code == status


# -- the last administrator ------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "form"), [("roles", {"roles": ["user"]}), ("deactivate", {})])
def test_the_last_administrator_stays(
    admin: FlaskClient, root: str, app: Flask, stores: Stores, act: str, form: dict[str, Any]
) -> None:
    before = facts(stores)
    answer = admin.post(of(root, act), data=form)
    assert answer.status_code == 409
    assert alert_of(answer) == "the last active administrator can&#39;t be removed"
    page = Page(answer)
    assert ROOT in page.text
    assert not cookies_of(answer)
    assert facts(stores) == before
    assert admin.get("/admin/users").status_code == 200


@pytest.mark.parametrize(("act", "form"), [("roles", {"roles": ["user"]}), ("deactivate", {})])
def test_nobody_removes_themselves(
    admin: FlaskClient, root: str, app: Flask, stores: Stores, act: str, form: dict[str, Any]
) -> None:
    sign_up(app, "second@example.org", roles=["admin"])
    before = facts(stores)
    answer = admin.post(of(root, act), data=form)
    assert answer.status_code == 403
    assert "another administrator, or an operator" in alert_of(answer)
    assert facts(stores) == before
    assert done(signed_in_as(app, "second@example.org"), root, act, **form).text
    assert admin.get("/admin/users").status_code in {302, 403}


def test_one_s_own_page_has_no_controls_of_what_others_decide(
    admin: FlaskClient, root: str
) -> None:
    page = Page(admin.get(of(root)))
    assert forms(page) == {"end-sessions"}
    assert held(page) == {}
    assert "Nobody changes their own roles" in page.text
    assert "Nobody deactivates themselves" in page.text


def test_who_may_not_see_a_user_is_not_shown_one_by_a_refusal(
    admin: FlaskClient, root: str, app: Flask, reader: str, stores: Stores
) -> None:
    grants = "UPDATE roles SET permissions = ARRAY['roles:grant'] WHERE name = 'reader'"
    stores.sql(grants)
    sign_up(app, "grants@example.org", roles=[reader])
    answer = signed_in_as(app, "grants@example.org").post(of(root, "roles"), data={})
    assert answer.status_code == 403
    assert ROOT not in answer.get_data(as_text=True)
    assert "may do more than you may: ask an administrator" in Page(answer).text


# acts that end sessions or give power → what the page that asks first says
ASKED = {
    "roles?roles=admin": ["Set the roles of Ada?", "Gains: admin.", "Loses: user."],
    "roles?roles=user": ["Nothing would change."],
    "deactivate": ["Deactivate Ada?", "signed out everywhere"],
    "end-sessions": ["End all sessions of Ada?", "signed out everywhere"],
}


@pytest.mark.parametrize("act", ASKED)
def test_a_page_asks_before_an_act_and_changes_nothing(
    admin: FlaskClient, person: str, stores: Stores, act: str
) -> None:
    before = facts(stores)
    page = Page(admin.get(of(person, act)))
    assert [said for said in ASKED[act] if said not in page.text] == []
    assert facts(stores) == before
    (form,) = [a for a in page.all("form") if a["action"] != "/logout"]
    assert (form["method"], form["action"]) == ("post", of(person, act.partition("?")[0]))
    fields = {a["value"] for a in page.all("input") if a.get("name") == "roles"}
    assert fields == ({act.partition("=")[2]} if "=" in act else set())
    assert admin.post(form["action"], data={"roles": list(fields)}).status_code == 303
    assert of(person) in [a.get("href") for a in page.all("a")], "the way back"


def test_a_page_that_asks_names_nobody_to_those_who_may_not_read_users(
    app: Flask, person: str, reader: str, stores: Stores
) -> None:
    every = "ARRAY['roles:grant', 'users:write', 'sessions:end']"
    stores.sql(f"UPDATE roles SET permissions = {every} WHERE name = 'reader'")
    sign_up(app, "acts@example.org", roles=[reader])
    acts = signed_in_as(app, "acts@example.org")
    for act in ASKED:
        text = acts.get(of(person, act)).text
        assert "this person?" in text
        assert "Ada" not in text
        assert EMAIL not in text


def test_what_an_administrator_did_is_on_record(
    admin: FlaskClient, root: str, person: str, stores: Stores
) -> None:
    done(admin, person, "roles", roles=["admin"])
    done(admin, person, "deactivate")
    done(admin, person, "activate")
    done(admin, person, "end-sessions")
    recorded = stores.sql(
        "SELECT event FROM audit_events WHERE user_id = %s AND actor_id = %s ORDER BY id",
        person,
        root,
    )
    events = ["roles.set", "user.deactivated", "user.activated", "sessions.ended"]
    assert [event for (event,) in recorded] == events


def test_a_form_that_is_too_large(admin: FlaskClient, person: str) -> None:
    answer = admin.post(of(person, "roles"), data={"roles": "x" * 70_000})
    assert answer.status_code == 413


def test_a_permission_taken_from_a_role_counts_at_once_for_who_is_read_anew(
    app: Flask, stores: Stores, reader: str
) -> None:
    """Permissions are changed by hand, in SQL; whoever is read from the facts has the new ones."""
    sign_up(app, "looks@example.org", roles=[reader])
    looks = signed_in_as(app, "looks@example.org")
    assert looks.get("/admin/users").status_code == 200
    stores.sql("UPDATE roles SET permissions = '{}' WHERE id = 99")
    services_of(app).changes.replay()
    assert looks.get("/admin/users").status_code == 403


@pytest.mark.parametrize("act", ["roles", "deactivate", "end-sessions"])
def test_a_change_that_others_notice_late_says_so(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    app = make_app(REVALIDATE_SECONDS=45)
    sign_up(app, ROOT, roles=["admin"])
    person = sign_up(app)
    admin = signed_in_as(app, ROOT)
    lose_fences(app, monkeypatch)
    page = done(admin, person, act)
    assert "may take up to 45 seconds to notice" in page.text
