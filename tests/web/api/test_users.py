"""The JSON API about users and roles: who may do what, and that it counts at once."""

import base64
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.people import grant_role, revoke_role
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    log_in,
    lose_fences,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
)

API = "/api/v1"
ROOT = "root@example.org"
READER = "reader@example.org"


@pytest.fixture
def admin(app: Flask) -> FlaskClient:
    sign_up(app, ROOT, name="Root", roles=["admin"])
    return signed_in_as(app, ROOT)


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


def id_of(client: FlaskClient) -> str:
    return str(client.get(f"{API}/me").get_json()["id"])


def facts(stores: Stores) -> list[tuple[Any, ...]]:
    """All that a call could change; when somebody was last seen aside."""
    tables = ("users", "user_roles", "audit_events")
    found = [row for t in tables for row in stores.sql(f"SELECT t::text FROM {t} t ORDER BY 1")]
    return found + stores.sql("SELECT id, ended_at, ver FROM sessions ORDER BY id")


# -- GET /users/<id> -------------------------------------------------------------------------------


def test_a_user(admin: FlaskClient, app: Flask, person: str) -> None:
    own = signed_in_as(app)
    for client in (own, admin):
        answer = client.get(f"{API}/users/{person}")
        assert answer.status_code == 200
        me = own.get(f"{API}/me").get_json()
        assert me | answer.get_json() == me
        assert {*me} - {*answer.get_json()} == {"amr", "assurance_level", "auth_time"}
    problem(admin.get(f"{API}/users/{uuid4()}"), 404, "not_found")
    problem(admin.get(f"{API}/users/x"), 404, "not_found")


def cache_of(client: FlaskClient, user_id: str) -> str:
    answer = client.get(f"{API}/users/{user_id}")
    assert answer.status_code == 200
    return answer.headers["X-Cache"]


CHANGES: dict[str, Callable[[Flask, FlaskClient, FlaskClient, str], object]] = {
    "PATCH /me": lambda _app, own, _admin, _id: own.patch(f"{API}/me", json={"name": "B"}),
    "the page of the profile": lambda _app, own, _admin, _id: own.post(
        "/account", data={"name": "B"}
    ),
    "the password": lambda _app, own, _admin, _id: own.post(
        f"{API}/me/password",
        json={"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    ),
    "PATCH /users name": lambda _app, _own, admin, id_: admin.patch(
        f"{API}/users/{id_}", json={"name": "B"}
    ),
    "PATCH /users image": lambda _app, _own, admin, id_: admin.patch(
        f"{API}/users/{id_}", json={"image": "https://example.org/b.png"}
    ),
    "PATCH /users active": lambda _app, _own, admin, id_: admin.patch(
        f"{API}/users/{id_}", json={"active": False}
    ),
    "PUT roles": lambda _app, _own, admin, id_: admin.put(
        f"{API}/users/{id_}/roles", json={"roles": ["admin", "user"]}
    ),
    "grant": lambda app, _own, _admin, _id: grant_role(services_of(app), EMAIL, "admin"),
    "revoke": lambda app, _own, _admin, _id: revoke_role(services_of(app), EMAIL, "user"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_copy_is_used_until_a_change(
    admin: FlaskClient,
    app: Flask,
    person: str,
    change: Callable[[Flask, FlaskClient, FlaskClient, str], object],
) -> None:
    own = signed_in_as(app)
    assert [cache_of(admin, person) for _ in range(3)] == ["miss", "hit", "hit"]
    change(app, own, admin, person)
    fresh = services_of(app).users.get(person)  # type: ignore[arg-type]  # text will do
    assert fresh is not None
    for expected in ("miss", "hit"):
        answer = admin.get(f"{API}/users/{person}")
        assert answer.headers["X-Cache"] == expected
        body = answer.get_json()
        assert body["roles"] == list(fresh.roles)
        assert (body["name"], body["image"], body["active"]) == (
            fresh.name,
            fresh.image,
            fresh.active,
        )


def test_a_change_of_somebody_else_drops_no_copy(
    admin: FlaskClient, app: Flask, person: str
) -> None:
    other = sign_up(app, "other@example.org")
    cache_of(admin, person)
    admin.patch(f"{API}/users/{other}", json={"name": "B"})
    assert cache_of(admin, person) == "hit"


def test_a_copy_costs_no_sql(admin: FlaskClient, app: Flask, person: str, stores: Stores) -> None:
    cache_of(admin, person)
    cache_of(admin, person)
    with stores.counted() as cost:
        assert cache_of(admin, person) == "hit"
    assert cost.sql == []
    assert cost.redis == 2, "the session and the user"


def test_who_is_not_there_is_not_remembered(admin: FlaskClient, stores: Stores) -> None:
    id_of(admin)
    before = stores.all_keys()
    unknown = str(uuid4())
    problem(admin.get(f"{API}/users/{unknown}"), 404, "not_found")
    values = [stores.redis.hget(key.decode(), "v") for key in stores.all_keys() - before]
    assert values in ([], [None]), "a lease at most"


# -- GET /users ------------------------------------------------------------------------------------


def emails(client: FlaskClient, **query: Any) -> list[str]:
    answer = client.get(f"{API}/users", query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert set(answer.get_json()) == {"users", "next_cursor"}
    return [user["email"] for user in answer.get_json()["users"]]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 200])
def test_the_cursor_leads_through_all_once(
    admin: FlaskClient, app: Flask, stores: Stores, limit: int
) -> None:
    """Newest first; some were made at the same moment."""
    for number in range(6):
        sign_up(app, f"p{number}@example.org")
    stores.sql("UPDATE users SET created_at = now() WHERE email < 'p3'")
    seen: list[str] = []
    times: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = admin.get(f"{API}/users", query_string={"limit": limit, **cursor}).get_json()
        assert 1 <= len(body["users"]) <= limit
        seen += [user["email"] for user in body["users"]]
        times += [user["created_at"] for user in body["users"]]
        if body["next_cursor"] is None:
            break
        assert len(body["users"]) == limit
        cursor = {"cursor": body["next_cursor"]}
    assert sorted(seen) == sorted([ROOT, *(f"p{n}@example.org" for n in range(6))])
    assert times == sorted(times, reverse=True)


def test_who_signs_up_meanwhile_moves_nobody_to_another_page(
    admin: FlaskClient, app: Flask
) -> None:
    for number in range(3):
        sign_up(app, f"p{number}@example.org")
    first = admin.get(f"{API}/users?limit=2").get_json()
    sign_up(app, "late@example.org")
    rest = emails(admin, cursor=first["next_cursor"])
    assert [u["email"] for u in first["users"]] == ["p2@example.org", "p1@example.org"]
    assert rest == ["p0@example.org", ROOT]


def test_users_are_found_by_part_of_email_or_name(admin: FlaskClient, app: Flask) -> None:
    sign_up(app, "grace@example.org", name="Grace 100% Hopper_")
    sign_up(app, "ada@example.org", name="Àda")
    for q, found in {
        "GRACE": ["grace@example.org"],
        "hopper": ["grace@example.org"],
        "àDA": ["ada@example.org"],
        "0%": ["grace@example.org"],
        "%": ["grace@example.org"],
        "_": ["grace@example.org"],
        "\\": [],
        "' OR true --": [],
        "nobody": [],
        "": ["ada@example.org", "grace@example.org", ROOT],
        "\0": ["ada@example.org", "grace@example.org", ROOT],
        "x" * 5_000: [],
    }.items():
        assert emails(admin, q=q) == found, q
    both = admin.get(f"{API}/users?q=example&limit=2").get_json()
    assert emails(admin, q="example", cursor=both["next_cursor"]) == [ROOT]


@pytest.mark.parametrize(
    "limit",
    ["0", "201", "-1", "+5", " 5", "1.5", "1e2", "x", "", "١٠", "5\0", "9" * 30, "9" * 5000],
)
def test_a_limit_that_is_none_is_refused(admin: FlaskClient, limit: str) -> None:
    answer = admin.get(f"{API}/users", query_string={"limit": limit})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["limit"]


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "xxxxx",
        "é",
        "\0",
        "!" * 40,
        "A" * 4_000,
        base64.urlsafe_b64encode(b"\xff" * 30).decode(),
        encoded("x"),
        encoded("2031-01-01"),
        encoded("2031-13-01T00:00:00+00:00 6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
        encoded("2031-01-01T00:00:00+00:00 x"),
        encoded("infinity 6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
        encoded("0001-01-01T00:00:00+23:59 6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
        encoded("9999-12-31T23:59:59-23:59 6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
        encoded("2031-01-01T00:00:00 6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
    ],
)
def test_a_cursor_we_did_not_give_is_refused(admin: FlaskClient, cursor: str) -> None:
    answer = admin.get(f"{API}/users", query_string={"cursor": cursor})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == ["cursor"]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
def test_a_cursor_of_any_time_breaks_nothing(admin: FlaskClient, at: str) -> None:
    assert emails(admin, cursor=encoded(f"{at} {uuid4()}")) == ([ROOT] if at > "2" else [])


# -- PATCH /users/<id> -----------------------------------------------------------------------------


def test_a_profile_is_changed(admin: FlaskClient, person: str) -> None:
    before = admin.get(f"{API}/users/{person}").get_json()
    for change in ({"name": "Countess"}, {"image": "https://example.org/c.png"}, {}):
        answer = admin.patch(f"{API}/users/{person}", json=change)
        before |= change
        assert (answer.status_code, answer.get_json()) == (200, before)
    assert admin.get(f"{API}/users/{person}").get_json() == before


def test_a_deactivated_person_is_out_and_stays_out_until_activated(
    admin: FlaskClient, app: Flask, person: str
) -> None:
    theirs = signed_in_as(app)
    answer = admin.patch(f"{API}/users/{person}", json={"active": False})
    assert (answer.status_code, answer.get_json()["active"]) == (200, False)
    problem(theirs.get(f"{API}/me"), 401, "session_invalid")
    assert log_in(browser(app)).status_code == 401
    answer = admin.patch(f"{API}/users/{person}", json={"active": True})
    assert (answer.status_code, answer.get_json()["active"]) == (200, True)
    problem(theirs.get(f"{API}/me"), 401, "session_invalid")
    assert log_in(browser(app)).status_code == 303


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"roles": ["admin"]}, "roles"),
        ({"email": "x@example.org"}, "email"),
        ({"password": OTHER_PASSWORD}, "password"),
        ({"id": str(uuid4())}, "id"),
        ({"active": "yes"}, "active"),
        ({"active": 1}, "active"),
        ({"active": None}, "active"),
        ({"name": "\0"}, "name"),
        ({"image": "data:,x"}, "image"),
    ],
)
def test_nothing_else_can_be_assigned(
    admin: FlaskClient, stores: Stores, person: str, body: dict[str, Any], field: str
) -> None:
    before = facts(stores)
    answer = admin.patch(f"{API}/users/{person}", json={"active": False} | body)
    assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
    assert facts(stores) == before


# -- PUT /users/<id>/roles, GET /roles -------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "held"),
    [(["admin"], ["admin"]), (["user", "admin", "user"], ["admin", "user"]), ([], [])],
)
def test_roles_are_set(
    admin: FlaskClient, app: Flask, person: str, roles: list[str], held: list[str]
) -> None:
    theirs = signed_in_as(app)
    for _ in range(2):  # again is no mistake
        answer = admin.put(f"{API}/users/{person}/roles", json={"roles": roles})
        assert (answer.status_code, answer.get_json()["roles"]) == (200, held)
        assert theirs.get(f"{API}/me").get_json()["roles"] == held


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"roles": ["pope"]}, "unknown_role"),
        ({"roles": ["user", "Admin"]}, "unknown_role"),
        ({"roles": ["admin\0"]}, "unknown_role"),
        ({"roles": "admin"}, "invalid_field"),
        ({"roles": [1]}, "invalid_field"),
        ({"roles": None}, "invalid_field"),
        ({}, "invalid_field"),
        ({"roles": [], "active": True}, "invalid_field"),
    ],
)
def test_roles_that_can_not_be_set(
    admin: FlaskClient, stores: Stores, person: str, body: dict[str, Any], code: str
) -> None:
    before = facts(stores)
    problem(admin.put(f"{API}/users/{person}/roles", json=body), 400, code)
    assert facts(stores) == before


def test_the_roles_there_are(admin: FlaskClient, reader: str) -> None:
    answer = admin.get(f"{API}/roles")
    assert answer.status_code == 200
    roles = {role["name"]: role for role in answer.get_json()["roles"]}
    assert list(roles) == ["admin", "reader", "user"]
    everything = ["users:read", "users:write", "roles:grant", "sessions:end", "audit:read"]
    assert roles["admin"]["permissions"] == everything
    assert roles["reader"] == {
        "name": "reader",
        "description": "May look",
        "permissions": ["users:read"],
    }


# -- DELETE /users/<id>/sessions -------------------------------------------------------------------


def test_all_sessions_of_a_person_are_ended(
    admin: FlaskClient, app: Flask, stores: Stores, person: str
) -> None:
    theirs = [signed_in_as(app), signed_in_as(app)]
    answer = admin.delete(f"{API}/users/{person}/sessions")
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert not cookies_of(answer)
    for each in theirs:
        problem(each.get(f"{API}/me"), 401, "session_invalid")
    assert admin.get(f"{API}/me").status_code == 200
    why = stores.sql("SELECT DISTINCT ended_why FROM sessions WHERE user_id = %s", person)
    assert why == [("revoked_by_admin",)]
    assert log_in(browser(app)).status_code == 303


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"name": "N"}),
        ("PATCH", "", {"active": False}),
        ("PATCH", "", {}),
        ("PUT", "/roles", {"roles": []}),
        ("DELETE", "/sessions", None),
    ],
)
def test_a_user_who_is_not_there(
    admin: FlaskClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = admin.open(f"{API}/users/{uuid4()}{path}", method=method, json=body)
    problem(answer, 404, "not_found")


# -- the last administrator ------------------------------------------------------------------------

REMOVALS: list[tuple[str, str, dict[str, Any]]] = [
    ("PATCH", "", {"active": False}),
    ("PUT", "/roles", {"roles": ["user"]}),
    ("PUT", "/roles", {"roles": []}),
]


@pytest.mark.parametrize(("method", "path", "body"), REMOVALS)
def test_the_last_administrator_stays(
    admin: FlaskClient, app: Flask, stores: Stores, method: str, path: str, body: dict[str, Any]
) -> None:
    own = id_of(admin)
    sign_up(app, "gone@example.org", roles=["admin"])  # one who is not active does not count
    stores.sql("UPDATE users SET active = false WHERE email = 'gone@example.org'")
    before = facts(stores)
    answer = admin.open(f"{API}/users/{own}{path}", method=method, json=body)
    assert "last active administrator" in problem(answer, 409, "last_admin")["detail"]
    assert facts(stores) == before
    assert admin.get(f"{API}/users").status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), REMOVALS)
def test_nobody_removes_themselves(
    admin: FlaskClient, app: Flask, stores: Stores, method: str, path: str, body: dict[str, Any]
) -> None:
    own = id_of(admin)
    sign_up(app, "second@example.org", roles=["admin"])
    before = facts(stores)
    answer = admin.open(f"{API}/users/{own}{path}", method=method, json=body)
    assert "ask another administrator" in problem(answer, 403, "own_account")["detail"]
    assert facts(stores) == before
    second = signed_in_as(app, "second@example.org")
    answer = second.open(f"{API}/users/{own}{path}", method=method, json=body)
    assert answer.status_code == 200
    assert admin.get(f"{API}/users").status_code in {401, 403}, "and they are none at once"


def test_what_changes_nothing_of_oneself_is_done(admin: FlaskClient) -> None:
    """A program may send back what it was shown, with a new name."""
    own = f"{API}/users/{id_of(admin)}"
    assert admin.patch(own, json={"active": True, "name": "New"}).get_json()["name"] == "New"
    roles = {"roles": admin.get(own).get_json()["roles"]}
    assert admin.put(f"{own}/roles", json=roles).status_code == 200


# -- on another instance ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "then"),
    [
        ("PUT", "/roles", {"roles": ["admin"]}, (200, 200)),
        ("PUT", "/roles", {"roles": []}, (200, 403)),
        ("PATCH", "", {"active": False}, (401, 401)),
        ("DELETE", "/sessions", None, (401, 401)),
    ],
)
def test_changes_act_on_the_next_request_of_who_is_signed_in(
    make_app: MakeApp,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    then: tuple[int, int],
) -> None:
    here, there = make_app(), make_app()
    sign_up(here, ROOT, roles=["admin"])
    person = sign_up(here)
    admin, theirs = signed_in_as(here, ROOT), signed_in_as(there)
    assert statuses(theirs) == (200, 403)
    answer = admin.open(f"{API}/users/{person}{path}", method=method, json=body)
    assert answer.status_code < 300
    assert statuses(theirs) == then


def statuses(client: FlaskClient) -> tuple[int, int]:
    """The statuses of a call for everybody, and of one for administrators."""
    return (
        client.get(f"{API}/me").status_code,
        client.get(f"{API}/users").status_code,
    )


def test_who_loses_a_role_loses_what_it_allowed_at_once(
    make_app: MakeApp, reader: str, stores: Stores
) -> None:
    here, there = make_app(), make_app()
    sign_up(here, ROOT, roles=["admin"])
    person = sign_up(here, roles=["reader"])
    admin, theirs = signed_in_as(here, ROOT), signed_in_as(there)
    assert statuses(theirs) == (200, 200)
    admin.put(f"{API}/users/{person}/roles", json={"roles": ["user"]})
    assert statuses(theirs) == (200, 403)


def test_a_copy_on_one_instance_is_dropped_by_another(make_app: MakeApp) -> None:
    here, there = make_app(), make_app()
    sign_up(here, ROOT, roles=["admin"])
    person = sign_up(here)
    admin, other = signed_in_as(here, ROOT), signed_in_as(there, ROOT)
    assert [cache_of(admin, person), cache_of(other, person)] == ["miss", "hit"]
    admin.patch(f"{API}/users/{person}", json={"name": "Countess"})
    answer = other.get(f"{API}/users/{person}")
    assert (answer.headers["X-Cache"], answer.get_json()["name"]) == ("miss", "Countess")


# -- while Redis is away ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"name": "Countess"}),
        ("PATCH", "", {"active": False}),
        ("PUT", "/roles", {"roles": ["admin"]}),
        ("DELETE", "/sessions", None),
    ],
)
def test_a_change_that_others_notice_late_says_so(
    make_app: MakeApp,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    app = make_app(REVALIDATE_SECONDS=45)
    sign_up(app, ROOT, roles=["admin"])
    person = sign_up(app)
    theirs, admin = signed_in_as(app), signed_in_as(app, ROOT)
    lose_fences(app, monkeypatch)
    answer = admin.open(f"{API}/users/{person}{path}", method=method, json=body)
    assert answer.status_code == 202
    told = answer.get_json()
    assert told.pop("effective_within") == 45
    assert set(told) == (set() if method == "DELETE" else set(theirs_view()))
    if path or body == {"active": False}:
        assert statuses(theirs) != (200, 403), "here it counts at once"


def theirs_view() -> tuple[str, ...]:
    return ("id", "email", "email_verified", "name", "image", "roles", "active", "created_at")


def test_a_refusal_stays_one(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    own = sign_up(app, ROOT, roles=["admin"])
    admin = signed_in_as(app, ROOT)
    lose_fences(app, monkeypatch)
    answer = admin.put(f"{API}/users/{own}/roles", json={"roles": []})
    problem(answer, 409, "last_admin")
    problem(program(app).get(f"{API}/users"), 401, "session_missing")


def test_a_refused_change_of_two_things_changes_neither(admin: FlaskClient, stores: Stores) -> None:
    before = facts(stores)
    answer = admin.patch(f"{API}/users/{id_of(admin)}", json={"name": "New", "active": False})
    problem(answer, 409, "last_admin")
    assert facts(stores) == before


def test_two_who_change_different_fields_at_once_keep_both(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    sign_up(app)
    client = signed_in_as(app)
    other = signed_in_as(app)
    users = services_of(app).users
    update = users.update_profile

    def after_the_other(*args: Any) -> Any:
        monkeypatch.setattr(users, "update_profile", update)
        other.patch(f"{API}/me", json={"image": "https://example.org/x.png"})
        return update(*args)

    monkeypatch.setattr(users, "update_profile", after_the_other)
    client.patch(f"{API}/me", json={"name": "Countess"})
    body = client.get(f"{API}/me").get_json()
    assert (body["name"], body["image"]) == ("Countess", "https://example.org/x.png")
