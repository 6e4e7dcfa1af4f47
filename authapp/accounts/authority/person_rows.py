"""The columns that describe a person, for statements that are built once."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Text, func, select

from authapp.accounts.identity import Identity
from authapp.storage.models import Role, User, UserRole, table_of


def roles_of(user_id: ColumnElement[UUID]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The columns `person_roles` and `person_permissions` of a statement: names, and what they
    list."""
    roles, held = table_of(Role).c, table_of(UserRole).c
    mine = select().join_from(table_of(UserRole), table_of(Role)).where(held.user_id == user_id)
    names = mine.add_columns(roles.name).order_by(roles.name)
    permissions = mine.add_columns(func.unnest(roles.permissions))
    return (
        func.array(names.scalar_subquery(), type_=ARRAY(Text)).label("person_roles"),
        func.array(permissions.scalar_subquery(), type_=ARRAY(Text)).label("person_permissions"),
    )


_users = table_of(User).c

# The columns of a statement that reads `users`, for `person_in`. A statement that waits for a lock
# must not have them: it would see the roles as they were before it waited.
PERSON: Final = (
    _users.id.label("person_id"),
    _users.email.label("person_email"),
    _users.name.label("person_name"),
    _users.image.label("person_image"),
    _users.active.label("person_active"),
    _users.created_at.label("person_created_at"),
    _users.email_verified_at.label("person_email_verified_at"),
    _users.second_factor.label("person_second_factor"),
    *roles_of(_users.id),
)


def person_in(row: Row[Any]) -> Identity:
    """The person in a row that has the columns of `PERSON`."""
    return Identity(
        id=row.person_id,
        email=row.person_email,
        name=row.person_name,
        image=row.person_image,
        roles=tuple(row.person_roles),
        active=row.person_active,
        created_at=row.person_created_at,
        permissions=tuple(sorted(set(row.person_permissions))),
        email_verified=row.person_email_verified_at is not None,
        second_factor=row.person_second_factor,
    )
