"""Roles: which there are."""

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from authapp.errors import UnknownRole
from authapp.models import Role


def all_roles(db: Session) -> Sequence[Role]:
    return db.scalars(select(Role).order_by(Role.name)).all()


def roles_named(db: Session, names: Iterable[str]) -> list[Role]:
    """The roles with these names.

    Raises:
        UnknownRole: one does not exist; the message lists those that do.
    """
    known = {role.name: role for role in all_roles(db)}
    wanted = sorted(set(names))
    for name in wanted:
        if name not in known:
            raise UnknownRole(f"there is no role {name!r}; the roles are: {', '.join(known)}")
    return [known[name] for name in wanted]
