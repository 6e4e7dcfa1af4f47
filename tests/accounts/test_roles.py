"""Roles: which there are, what they allow, and new ones."""

from functools import partial

import pytest

from authapp.accounts.audit import Filter
from authapp.accounts.identity import Permission
from authapp.accounts.roles import all_roles, roles_named
from authapp.errors import InvalidField, UnknownRole
from authapp.services import Services
from authapp.storage.models import Role
from tests.support.services import sql
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
    return {role.name: role.permissions for role in services.users.roles()}


def test_a_new_role_allows_what_is_named(services: Services) -> None:
    everything = list(Permission)
    for name, permissions in {"nothing": [], "all": [*everything, *everything]}.items():
        services.users.create_role(name, permissions)
    assert roles(services)["nothing"] == []
    assert roles(services)["all"] == everything
    assert roles(services)["admin"] == everything, "as migrations left it"


def test_a_new_role_is_on_record(services: Services) -> None:
    services.users.create_role("helper", ["users:read"])
    (entry,) = services.audit.page(which=Filter(event="role.created")).entries
    assert (entry.user, entry.actor, entry.address) == (None, None, "")
    assert entry.details == {"role": "helper", "permissions": ["users:read"]}


@pytest.mark.parametrize("name", ["x", "a-b_c.d:e", "7", "Upper", "x" * 63])
def test_a_name_that_is_taken_as_it_is(services: Services, name: str) -> None:
    assert services.users.create_role(name, []).name == name
    assert names(services, [name]) == [name]


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", " a", "a\n", "a,b", "-a", ".a", ":a", "ä", "\0", "a\0", "x" * 64, "a\u200b"],
)
def test_an_ill_formed_name_is_refused(services: Services, name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        services.users.create_role(name, [])
    assert list(caught.value.errors) == ["name"]
    assert list(roles(services)) == ["admin", "user"]


@pytest.mark.parametrize("again", ["helper", "HELPER", "Helper"])
def test_a_name_counts_once_in_any_case(services: Services, again: str) -> None:
    services.users.create_role("helper", ["users:read"])
    with pytest.raises(InvalidField, match="there is a role helper already"):
        services.users.create_role(again, [])
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
        services.users.create_role("helper", ["users:read", permission])
    assert list(caught.value.errors) == ["permission"]
    assert list(roles(services)) == ["admin", "user"]


def test_an_id_that_was_given_by_hand_stands_in_no_way(services: Services) -> None:
    first = services.users.create_role("first", []).id
    sql(
        services,
        "INSERT INTO roles (id, name) SELECT n, 'by-hand-' || n"
        " FROM generate_series(CAST(:first AS int) + 1, :first + 3) AS n",
        first=first,
    )
    assert services.users.create_role("next", []).id == first + 4


def test_of_two_who_add_a_role_at_once_one_does(
    services: Services, two_instances: Services
) -> None:
    for name in "abcde":
        outcomes = at_once(
            partial(services.users.create_role, name, []),
            partial(two_instances.users.create_role, name.upper(), []),
        )
        assert {type(outcome) for outcome in outcomes} == {Role, InvalidField}
