"""Roles: which there are, what they allow, new ones, and those that go."""

from functools import partial

import pytest

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.audit import Filter
from authapp.accounts.authority.roles import all_roles, roles_named
from authapp.accounts.identity import Permission
from authapp.cache.changes import Changed
from authapp.errors import (
    BuiltInRole,
    InvalidField,
    NoSuchRole,
    RoleInUse,
    StoreUnavailable,
    UnknownRole,
)
from authapp.services import Services
from authapp.sessions.records import ActiveSession
from authapp.storage.models import Role
from tests.support.people import EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import await_trust, sql
from tests.support.threads import at_once


def names(services: Services, asked: list[str]) -> list[str]:
    with services.database.transaction() as db:
        return [role.name for role in roles_named(db, asked)]


def test_two_roles_are_there_from_the_start(services: Services) -> None:
    with services.database.transaction() as db:
        assert [role.name for role in all_roles(db)] == ["admin", "user"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [(["user", "admin"], ["admin", "user"]), (["user", "user"], ["user"]), ([], [])],
)
def test_roles_are_found_by_name(services: Services, asked: list[str], found: list[str]) -> None:
    assert names(services, asked) == found


@pytest.mark.parametrize("name", ["auditor", "", "Admin", "admin "])
def test_an_unknown_role_is_refused_with_those_there_are(services: Services, name: str) -> None:
    with pytest.raises(UnknownRole, match=r"no role .*: admin, user"):
        names(services, ["admin", name])


# -- new roles -------------------------------------------------------------------------------------


def roles(services: Services) -> dict[str, list[str]]:
    return {role.name: role.permissions for role in services.roles.list()}


def test_a_new_role_allows_what_is_named(services: Services) -> None:
    everything = list(Permission)
    for name, permissions in {"nothing": [], "all": [*everything, *everything]}.items():
        services.roles.create(name, permissions)
    assert roles(services)["nothing"] == []
    assert roles(services)["all"] == everything
    assert roles(services)["admin"] == everything, "as migrations left it"


def test_a_new_role_is_on_record(services: Services) -> None:
    services.roles.create("helper", ["users:read"])
    (entry,) = services.audit.page(which=Filter(event="role.created")).entries
    assert (entry.user, entry.actor, entry.address) == (None, None, "")
    assert entry.details == {"role": "helper", "permissions": ["users:read"]}


@pytest.mark.parametrize("name", ["x", "a-b_c.d:e", "7", "Upper", "x" * 63])
def test_a_name_that_is_taken_as_it_is(services: Services, name: str) -> None:
    assert services.roles.create(name, []).name == name
    assert names(services, [name]) == [name]


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", " a", "a\n", "a,b", "-a", ".a", ":a", "ä", "\0", "a\0", "x" * 64, "a\u200b"],
)
def test_an_ill_formed_name_is_refused(services: Services, name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        services.roles.create(name, [])
    assert list(caught.value.errors) == ["name"]
    assert list(roles(services)) == ["admin", "user"]


@pytest.mark.parametrize("again", ["helper", "HELPER", "Helper"])
def test_a_name_counts_once_in_any_case(services: Services, again: str) -> None:
    services.roles.create("helper", ["users:read"])
    with pytest.raises(InvalidField, match="there is a role helper already"):
        services.roles.create(again, [])
    assert roles(services)["helper"] == ["users:read"]


@pytest.mark.parametrize(
    "permission", ["users", "users:reed", "", "*", "USERS:READ", "users:read "]
)
def test_an_unknown_permission_is_refused_with_those_there_are(
    services: Services, permission: str
) -> None:
    with pytest.raises(
        InvalidField, match="the permissions are: users:read, users:write"
    ) as caught:
        services.roles.create("helper", ["users:read", permission])
    assert list(caught.value.errors) == ["permissions"]
    assert list(roles(services)) == ["admin", "user"]


def test_an_id_that_was_given_by_hand_stands_in_no_way(services: Services) -> None:
    first = services.roles.create("first", []).id
    sql(
        services,
        "INSERT INTO roles (id, name) SELECT n, 'by-hand-' || n"
        " FROM generate_series(CAST(:first AS int) + 1, :first + 3) AS n",
        first=first,
    )
    assert services.roles.create("next", []).id == first + 4


def test_of_two_who_add_a_role_at_once_one_does(
    services: Services, two_instances: Services
) -> None:
    for name in "abcde":
        outcomes = at_once(
            partial(services.roles.create, name, []),
            partial(two_instances.roles.create, name.upper(), []),
        )
        assert {type(outcome) for outcome in outcomes} == {Role, InvalidField}


def test_an_id_is_used_again(services: Services) -> None:
    """There are 32,767 ids; roles that come and go must not use them up."""
    ids = set()
    for _ in range(3):
        ids.add(services.roles.create("passing", []).id)
        services.roles.delete("passing")
    assert len(ids) == 1


def test_there_is_an_end_of_roles(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authapp.accounts.authority.roles.MAX_ROLES", 3)
    services.roles.create("third", [])
    with pytest.raises(InvalidField, match="there are 3 roles already: delete one first"):
        services.roles.create("fourth", [])


# -- roles that go ---------------------------------------------------------------------------------


def test_who_held_a_deleted_role_has_lost_it_everywhere_at_once(
    services: Services, two_instances: Services
) -> None:
    services.roles.create("helper", ["users:read"])
    services.registration.sign_up(EMAIL, PASSWORD, roles=("helper", "user"))
    sign_up(services, "bystander@example.org")
    live = log_in(services)
    for instance in (services, two_instances):  # both have a copy of the session
        found = instance.sessions.find(live.token)
        assert isinstance(found, ActiveSession)
        assert found.record.user.can("users:read")
    assert services.roles.delete("helper").value == 1
    for instance in (services, two_instances):
        found = instance.sessions.find(live.token)
        assert isinstance(found, ActiveSession), "they stay signed in"
        assert (found.record.user.roles, found.record.user.permissions) == (("user",), ())
        looked_up, _ = instance.users.look_up(live.record.user.id)
        assert looked_up is not None
        assert looked_up.roles == ("user",)
    assert roles(services) == {"admin": list(Permission), "user": []}


def test_a_deleted_role_whose_fences_redis_does_not_take_is_written_down(
    services: Services, two_instances: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.roles.create("helper", ["users:read"])
    services.registration.sign_up(EMAIL, PASSWORD, roles=("helper",))
    live = log_in(services)
    two_instances.sessions.find(live.token)

    def refuses(_fences: object, **_how: bool) -> None:
        raise StoreUnavailable("redis")

    with monkeypatch.context() as redis_refuses:
        redis_refuses.setattr(services.cache, "fence", refuses)
        redis_refuses.setattr(services.cache, "fence_before_trust", refuses)
        services.roles.delete("helper")
    assert two_instances.changes.pending() > 0
    two_instances.changes.replay()
    found = two_instances.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert found.record.user.roles == ()
    await_trust(services)


def test_a_deleted_role_is_on_record_for_each_who_held_it(services: Services) -> None:
    services.roles.create("helper", [])
    people = {
        services.registration.sign_up(f"{n}@example.org", PASSWORD, roles=("helper",)).id
        for n in "abc"
    }
    assert services.roles.holders("helper") == 3
    services.roles.delete("helper")
    (deleted,) = services.audit.page(which=Filter(event="role.deleted")).entries
    assert (deleted.user, deleted.actor, deleted.details) == (None, None, {"role": "helper"})
    revoked = services.audit.page(which=Filter(event="role.revoked")).entries
    assert {entry.user.id for entry in revoked if entry.user} == people
    assert {entry.details["role"] for entry in revoked} == {"helper"}


@pytest.mark.parametrize("name", ["admin", "user"])
def test_what_is_built_in_stays(services: Services, name: str) -> None:
    with pytest.raises(BuiltInRole):
        services.roles.delete(name)
    assert list(roles(services)) == ["admin", "user"]


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800", "x" * 10_000])
def test_a_role_that_is_not_there_can_not_go(services: Services, name: str) -> None:
    for ask in (services.roles.delete, services.roles.holders):
        with pytest.raises(NoSuchRole, match="the roles are: admin, user") as caught:
            ask(name)
        assert len(str(caught.value)) < 1_000


def test_only_an_operator_takes_a_role_from_a_crowd(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several changes, so that each is short."""
    monkeypatch.setattr("authapp.accounts.authority.roles.MAX_HOLDERS", 2)
    root = services.registration.sign_up("root@example.org", PASSWORD, roles=("admin",))
    services.roles.create("crowd", [])
    for n in "abcde":
        services.registration.sign_up(f"{n}@example.org", PASSWORD, roles=("crowd",))
    with pytest.raises(RoleInUse, match="More than 2 people hold the role crowd: an operator"):
        services.roles.delete("crowd", Actor(root.id))
    assert services.roles.holders("crowd") == 3, "more than two: nobody counts further"
    assert services.roles.delete("crowd").value == 5
    assert list(roles(services)) == ["admin", "user"]


@pytest.mark.parametrize("who", ["operator", "administrator"])
def test_a_role_that_is_given_while_it_goes_is_given_or_gone(
    services: Services, two_instances: Services, who: str
) -> None:
    """Neither fails, and nobody keeps a role that is not there."""
    root = services.registration.sign_up("root@example.org", PASSWORD, roles=("admin",))
    person = sign_up(services)
    for _ in range(8):
        services.roles.create("passing", [])
        actor = Actor(root.id) if who == "administrator" else OPERATOR
        given, gone = at_once(
            partial(
                two_instances.administration.set_roles, person.id, ["passing", "user"], OPERATOR
            ),
            partial(services.roles.delete, "passing", actor),
        )
        assert isinstance(given, (Changed, UnknownRole)), given
        assert isinstance(gone, Changed)
        assert gone.value == (1 if isinstance(given, Changed) else 0)
        now = services.users.get(person.id)
        assert now is not None
        assert now.roles == ("user",)
