"""Nobody gives, takes or changes what allows more than they may do themselves."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import product
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.accounts.actor import NOBODY, OPERATOR, Actor
from authapp.accounts.identity import Permission
from authapp.errors import ExceedsOwnPermissions, NotAuthenticated, OwnAccount
from authapp.services import Services
from tests.support.people import CLIENT, grant_role, revoke_role
from tests.support.threads import at_once
from tests.web.conftest import MakeApp
from tests.web.support import (
    Page,
    Stores,
    access_token,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
)

ACTOR, TARGET, ROOT = "actor@example.org", "target@example.org", "root@example.org"
CODE = "exceeds_own_permissions"

# roles of the operator's own, with what they allow; "all" lists everything there is today
ROLES: dict[str, list[str]] = {
    "plain": [],
    "reads": ["users:read"],
    "writes": ["users:write"],
    "grants": ["roles:grant"],
    "ends": ["sessions:end"],
    "helps": ["users:read", "users:write", "roles:grant", "sessions:end"],
    "all": [str(permission) for permission in Permission],
}


@pytest.fixture
def site(app: Flask, stores: Stores) -> Iterator[Flask]:
    """The application with these roles, and an administrator who always remains."""
    for name, permissions in ROLES.items():
        services_of(app).roles.create(name, permissions)
    sign_up(app, ROOT, roles=["admin"])
    yield app
    stores.clear()
    stores.sql("DELETE FROM roles WHERE name NOT IN ('admin', 'user')")


def allowed(roles: list[str]) -> set[str]:
    """The permissions of somebody with these roles; `admin` has more than any list says."""
    if "admin" in roles:
        return {*Permission, "what later versions add"}
    return {permission for role in roles for permission in ROLES.get(role, [])}


def state(stores: Stores) -> list[tuple[Any, ...]]:
    """All that a change could change; when somebody was last seen, and notices, aside."""
    tables = ("users", "user_roles", "audit_events")
    found = [row for t in tables for row in stores.sql(f"SELECT t::text FROM {t} t ORDER BY 1")]
    return found + stores.sql("SELECT id, ended_at, data - '_flashes' FROM sessions ORDER BY id")


# -- every change of a person ----------------------------------------------------------------------

Send = Callable[[FlaskClient, str], TestResponse]


def page(act: str, **form: Any) -> Send:
    return lambda client, user: client.post(f"/admin/users/{user}/{act}", data=form)


def call(method: str, path: str = "", **body: Any) -> Send:
    return lambda client, user: client.open(
        f"/api/v1/users/{user}{path}", method=method, json=body or None
    )


# what is sent, and the permission that it needs
CHANGES: dict[str, tuple[str, Send]] = {
    "page: roles": ("roles:grant", page("roles", roles=["user"])),
    "page: activate": ("users:write", page("activate")),
    "page: deactivate": ("users:write", page("deactivate")),
    "page: end sessions": ("sessions:end", page("end-sessions")),
    "call: roles": ("roles:grant", call("PUT", "/roles", roles=["user"])),
    "call: name": ("users:write", call("PATCH", name="Other")),
    "call: image": ("users:write", call("PATCH", image="https://example.org/x.png")),
    "call: as it is": ("users:write", call("PATCH", active=True)),
    "call: deactivate": ("users:write", call("PATCH", active=False)),
    "call: end sessions": ("sessions:end", call("DELETE", "/sessions")),
}
HELD = [["writes"], ["grants"], ["ends"], ["helps"], ["reads", "grants"], ["all"], ["admin"]]


@pytest.mark.parametrize("held", HELD, ids="+".join)
def test_nobody_changes_a_person_who_may_do_more(
    site: Flask, stores: Stores, held: list[str]
) -> None:
    sign_up(site, ACTOR, roles=held)
    client = signed_in_as(site, ACTOR)
    outcomes = set()
    cases = product([*ROLES, "admin"], CHANGES.items())
    for number, (role, (name, (needed, send))) in enumerate(cases):
        if needed not in allowed(held):
            continue
        person = sign_up(site, f"p{number}@example.org", roles=[role])
        case, may = (held, role, name), allowed([role]) <= allowed(held)
        before = [] if may else state(stores)
        answer = send(client, person)
        if may:
            assert answer.status_code in {200, 204, 303}, (case, answer.text)
        else:
            assert answer.status_code == 403, (case, answer.text)
            assert "may do more than you may" in answer.text, case
            assert state(stores) == before, case
            if name.startswith("call"):
                problem(answer, 403, CODE)
        outcomes.add(answer.status_code == 403)
    assert outcomes == ({False} if held == ["admin"] else {False, True})


@pytest.mark.parametrize("name", [name for name in CHANGES if name.startswith("call")])
def test_an_access_token_is_refused_as_a_cookie_is(site: Flask, stores: Stores, name: str) -> None:
    sign_up(site, ACTOR, roles=["helps"])
    person = sign_up(site, TARGET, roles=["admin"])
    client = program(site)
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {access_token(site, ACTOR)}"
    before = state(stores)
    problem(CHANGES[name][1](client, person), 403, CODE)
    assert state(stores) == before


def test_a_deactivated_person_is_judged_by_their_roles_too(site: Flask) -> None:
    """Or whoever may only change people could let an administrator in again."""
    sign_up(site, ACTOR, roles=["writes"])
    person = sign_up(site, TARGET, roles=["admin"])
    services_of(site).administration.set_active(UUID(person), active=False, actor=OPERATOR)
    client = signed_in_as(site, ACTOR)
    problem(client.patch(f"/api/v1/users/{person}", json={"active": True}), 403, CODE)
    assert client.post(f"/admin/users/{person}/activate").status_code == 403
    assert signed_in_as(site, ROOT).post(f"/admin/users/{person}/activate").status_code == 303


def test_one_s_own_account_never_has_more_than_oneself(site: Flask) -> None:
    own = sign_up(site, ACTOR, roles=["helps"])
    client = signed_in_as(site, ACTOR)
    assert client.patch(f"/api/v1/users/{own}", json={"name": "New"}).status_code == 200
    assert client.delete(f"/api/v1/users/{own}/sessions").status_code == 204


# -- giving and taking roles -----------------------------------------------------------------------


@pytest.mark.parametrize("held", HELD, ids="+".join)
@pytest.mark.parametrize("way", ["page", "call"])
def test_nobody_gives_a_role_that_allows_more(
    site: Flask, stores: Stores, held: list[str], way: str
) -> None:
    if "roles:grant" not in allowed(held):
        held = [*held, "grants"]
    sign_up(site, ACTOR, roles=held)
    client = signed_in_as(site, ACTOR)
    for role in [*ROLES, "admin"]:
        person = sign_up(site, f"{role}@example.org")
        before = state(stores)
        roles = {"roles": ["user", role]}
        if way == "page":
            answer = client.post(f"/admin/users/{person}/roles", data=roles)
        else:
            answer = client.put(f"/api/v1/users/{person}/roles", json=roles)
        if allowed([role]) <= allowed(held):
            assert answer.status_code in {200, 303}, role
            continue
        assert answer.status_code == 403, role
        assert f"The role {role} allows more than you may do yourself" in answer.text
        assert state(stores) == before
        if way == "call":
            problem(answer, 403, CODE)


def test_whoever_may_only_grant_roles_makes_nobody_an_administrator(site: Flask) -> None:
    """They would sign up a second account, and be made an administrator by it."""
    first = sign_up(site, ACTOR, roles=["grants"])
    second = sign_up(site, TARGET)
    clients = {first: signed_in_as(site, ACTOR), second: signed_in_as(site, TARGET)}
    for roles in (["admin"], ["admin", "user"], ["helps"], ["grants", "reads"]):
        body = {"roles": roles}
        answer = clients[first].put(f"/api/v1/users/{second}/roles", json=body)
        problem(answer, 403, CODE)
    # what they have themselves they may give, which gains nobody anything
    body = {"roles": ["grants", "user"]}
    assert clients[first].put(f"/api/v1/users/{second}/roles", json=body).status_code == 200
    problem(clients[second].put(f"/api/v1/users/{first}/roles", json={"roles": ["all"]}), 403, CODE)
    assert {clients[user].get("/admin/users").status_code for user in clients} == {403}


def test_a_role_that_stays_is_no_reason_for_a_refusal(site: Flask, stores: Stores) -> None:
    sign_up(site, ACTOR, roles=["reads", "grants"])
    person = sign_up(site, TARGET, roles=["reads", "user"])
    client = signed_in_as(site, ACTOR)
    for roles in (["reads", "user"], ["reads"], ["reads", "grants", "plain"], []):
        answer = client.put(f"/api/v1/users/{person}/roles", json={"roles": roles})
        assert answer.status_code == 200, answer.text
    grant_role(services_of(site), TARGET, "ends")
    answer = client.put(f"/api/v1/users/{person}/roles", json={"roles": ["ends", "reads"]})
    problem(answer, 403, CODE)  # it stays, but the person may do more


def test_a_role_with_every_permission_of_today_is_less_than_admin(site: Flask) -> None:
    """Because `admin` has those of later versions, too."""
    sign_up(site, ACTOR, roles=["all"])
    person = sign_up(site, TARGET)
    answer = signed_in_as(site, ACTOR).put(
        f"/api/v1/users/{person}/roles", json={"roles": ["admin"]}
    )
    problem(answer, 403, CODE)


@pytest.mark.parametrize(
    "act",
    [
        lambda s, person, actor: s.administration.set_roles(person, ["all"], actor),
        lambda s, person, actor: s.administration.grant_role(person, "all", actor),
        lambda s, person, actor: s.administration.revoke_role(person, "user", actor),
        lambda s, person, actor: s.administration.set_active(person, active=False, actor=actor),
        lambda s, person, actor: s.administration.end_sessions_of(person, actor),
        lambda s, person, actor: s.administration.update_user(
            person, "Countess", None, active=None, actor=actor
        ),
    ],
)
def test_nobody_is_taken_for_the_operator_because_they_are_not_known(
    site: Flask, act: Callable[[Services, UUID, Actor], object]
) -> None:
    person = UUID(sign_up(site, TARGET))
    services = services_of(site)
    for actor in (NOBODY, CLIENT, Actor(uuid4())):
        with pytest.raises(NotAuthenticated):
            act(services, person, actor)
    found = services.users.get(person)
    assert found is not None
    assert (found.name, found.active, found.roles) == ("Ada", True, ("user",))


def test_one_role_is_given_and_taken_by_the_same_rules_as_all(site: Flask) -> None:
    person, helper = UUID(sign_up(site, TARGET)), Actor(UUID(sign_up(site, ACTOR, roles=["helps"])))
    administration = services_of(site).administration
    for name in ("all", "admin"):
        with pytest.raises(ExceedsOwnPermissions):
            administration.grant_role(person, name, helper)
    assert administration.grant_role(person, "helps", helper).value.roles == ("helps", "user")
    assert administration.revoke_role(person, "helps", helper).value.roles == ("user",)
    assert helper.id
    for change, name in (
        (administration.grant_role, "plain"),
        (administration.revoke_role, "helps"),
    ):
        with pytest.raises(OwnAccount):
            change(helper.id, name, helper)
    grant_role(services_of(site), TARGET, "all")
    with pytest.raises(ExceedsOwnPermissions):
        administration.revoke_role(person, "user", helper)


def test_the_operator_may_do_all(site: Flask) -> None:
    person = UUID(sign_up(site, TARGET))
    services = services_of(site)
    given = services.administration.set_roles(person, ["admin", "all"], OPERATOR).value
    assert given.roles == ("admin", "all")
    assert revoke_role(services, TARGET, "admin").value.roles == ("all",)
    assert grant_role(services, TARGET, "admin").value.roles == ("admin", "all")
    services.administration.end_sessions_of(person, OPERATOR)
    left = services.administration.set_active(person, active=False, actor=OPERATOR).value
    assert not left.active


# -- the page offers what may be done --------------------------------------------------------------


def offered(client: FlaskClient, user_id: str) -> tuple[set[str], set[str]]:
    """The changes that the page of a user has buttons for, and the roles it has boxes for."""
    shown = Page(client.get(f"/admin/users/{user_id}"))
    ways = [a["action"] for a in shown.all("form")] + [a["href"] for a in shown.all("a")]
    acts = {way.rpartition("/")[2] for way in ways if f"/{user_id}/" in way or "/admin/s" in way}
    return acts, {a["value"] for a in shown.all("input") if a["name"] == "roles"}


def test_the_page_offers_no_more_than_may_be_done(site: Flask) -> None:
    sign_up(site, ACTOR, roles=["helps"])
    client = signed_in_as(site, ACTOR)
    plain, more = sign_up(site, TARGET), sign_up(site, "more@example.org", roles=["all"])
    signed_in_as(site, TARGET)
    signed_in_as(site, "more@example.org")
    changes = {"roles", "email", "deactivate", "delete", "end-sessions", "end"}
    covered = {"plain", "reads", "writes", "grants", "ends", "helps", "user"}
    assert offered(client, plain) == (changes, covered)
    assert offered(client, more) == (set(), set())
    shown = client.get(f"/admin/users/{more}").text
    assert "This person may do more than you may: ask an administrator" in shown
    assert offered(signed_in_as(site, ROOT), more) == (changes, covered | {"all", "admin"})


def test_whoever_only_looks_is_told_of_no_change_that_they_could_not_make(site: Flask) -> None:
    sign_up(site, ACTOR, roles=["reads"])
    person = sign_up(site, TARGET, roles=["admin"])
    assert "more than you" not in signed_in_as(site, ACTOR).get(f"/admin/users/{person}").text


# -- at the same moment ----------------------------------------------------------------------------

# what the actor loses while the change waits for their row, and the code that it is refused with
LOSSES: dict[str, tuple[str, int, str]] = {
    "the permission": (
        "DELETE FROM user_roles WHERE user_id = %s AND role_id <>"
        " (SELECT id FROM roles WHERE name = 'user')",
        *(403, "forbidden"),
    ),
    "the permissions of the role": (
        "UPDATE roles SET permissions = '{}' WHERE name = 'helps'",
        *(403, "forbidden"),
    ),
    "another permission": (
        "UPDATE roles SET permissions = ARRAY['users:write', 'roles:grant', 'sessions:end']"
        " WHERE name = 'helps'",
        *(403, CODE),
    ),
    "the account": ("UPDATE users SET active = false WHERE id = %s", 401, "session_invalid"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("change", ["call: roles", "call: name", "call: end sessions"])
def test_a_change_that_waits_for_the_actor_s_loss_is_refused(
    site: Flask, settings: dict[str, Any], loss: str, change: str
) -> None:
    statement, status, code = LOSSES[loss]
    actor = sign_up(site, ACTOR, roles=["helps", "user"])
    person = sign_up(site, TARGET, roles=["reads"])
    client = signed_in_as(site, ACTOR)
    answers: list[TestResponse] = []
    thread = Thread(target=lambda: answers.append(CHANGES[change][1](client, person)), daemon=True)
    with (
        closing(psycopg2.connect(settings["DATABASE_URL"])) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL authapp.fenced = 'on'")  # no copy says that it changed
        cursor.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", (actor,))
        cursor.execute(statement, (actor,) if "%s" in statement else None)
        thread.start()
        thread.join(0.3)
        assert not answers, "it waits"
    thread.join(10)
    problem(answers[0], status, code)
    assert services_of(site).users.get(UUID(person)).roles == ("reads",)  # type: ignore[union-attr]


def test_a_role_is_given_before_the_giver_loses_theirs_or_not_at_all(
    make_app: MakeApp, site: Flask, stores: Stores
) -> None:
    """Two instances; the log says what came first, because events are written under the locks."""
    limits = {"LOGIN_LIMIT_PER_ADDRESS": "100000 per minute"}
    here, there = make_app(**limits), make_app(**limits)
    actor, person = sign_up(here, ACTOR, roles=["helps"]), sign_up(here, TARGET)
    root, helper = signed_in_as(there, ROOT), signed_in_as(here, ACTOR)
    give = partial(helper.put, f"/api/v1/users/{person}/roles", json={"roles": ["helps"]})
    take = partial(root.put, f"/api/v1/users/{actor}/roles", json={"roles": []})
    for _ in range(10):
        grant_role(services_of(here), ACTOR, "helps")
        services_of(here).administration.set_roles(UUID(person), ["user"], OPERATOR)
        stores.sql("DELETE FROM audit_events")
        given, taken = at_once(give, take)
        assert isinstance(given, TestResponse), given
        assert isinstance(taken, TestResponse), taken
        assert (given.status_code, taken.status_code) in {(200, 200), (403, 200)}
        events = stores.sql("SELECT user_id::text FROM audit_events ORDER BY id")
        came = [user for (user,) in events]
        assert came == ([person, actor] if given.status_code == 200 else [actor])


@pytest.mark.parametrize("change", ["call: roles", "call: name", "call: end sessions"])
@pytest.mark.parametrize("lower_is", ["the actor", "the person"])
def test_people_who_change_each_other_at_once_do_not_wait_for_each_other(
    site: Flask, settings: dict[str, Any], change: str, lower_is: str
) -> None:
    """Whoever acts on whom, the row with the lower id is locked first."""
    emails = {sign_up(site, email, roles=["helps"]): email for email in (ACTOR, TARGET)}
    lower, higher = sorted(emails)
    actor, person = (lower, higher) if lower_is == "the actor" else (higher, lower)
    client = signed_in_as(site, emails[actor])
    answers: list[TestResponse] = []
    thread = Thread(target=lambda: answers.append(CHANGES[change][1](client, person)), daemon=True)
    with (
        closing(psycopg2.connect(settings["DATABASE_URL"])) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", (lower,))
        thread.start()
        thread.join(0.3)
        assert not answers, "it waits"
        cursor.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE NOWAIT", (higher,))
    thread.join(10)
    assert answers[0].status_code in {200, 204}
