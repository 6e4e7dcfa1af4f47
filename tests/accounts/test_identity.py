"""`Identity` answers the same questions for a person and for nobody."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from msgspec import structs

from authapp.accounts.identity import ANONYMOUS, Identity

ADA = Identity(
    id=uuid4(),
    email="ada@example.org",
    name="Ada",
    image="",
    roles=("admin", "user"),
    active=True,
    created_at=datetime(2031, 5, 4, tzinfo=UTC),
)


def test_a_person_is_authenticated_and_nobody_is_not() -> None:
    assert ADA.is_authenticated is True
    assert ANONYMOUS.is_authenticated is False
    assert ANONYMOUS.id is None


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (["admin"], True),
        (["auditor", "user"], True),
        (["auditor"], False),
        (["adm"], False),
        (["Admin"], False),
        ([""], False),
        ([], False),
    ],
)
def test_any_of_the_roles_asked_for(asked: list[str], answer: bool) -> None:
    assert ADA.has_role(*asked) is answer
    assert ANONYMOUS.has_role(*asked) is False


def test_an_administrator_may_do_everything_and_others_what_their_roles_list() -> None:
    helper = structs.replace(ADA, roles=("helper",), permissions=("users:read",))
    assert [ADA.can("users:read"), ADA.can("what:comes")] == [True, True]
    assert [helper.can("users:read"), helper.can("users:write")] == [True, False]
    assert ANONYMOUS.can("users:read") is False


def test_an_identity_cannot_be_edited() -> None:
    with pytest.raises(AttributeError):
        ADA.roles = ("admin",)  # type: ignore[misc]
