"""Roles: which there are."""

import pytest

from authapp.errors import UnknownRole
from authapp.roles import all_roles, roles_named
from authapp.services import Services


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
