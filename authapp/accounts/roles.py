"""Roles: which there are, what they allow, and new ones."""

import re
from collections.abc import Iterable, Sequence

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from authapp.accounts.identity import Permission
from authapp.errors import InvalidField, UnknownRole
from authapp.storage.models import Role

# Proxies hand role names on in a list with commas, and people type them in addresses.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_NAME_RULE = "1 to 63 of a-z, A-Z, 0-9 and . _ : -, with a letter or digit first"


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


def add_role(db: Session, name: str, permissions: Iterable[str]) -> Role:
    """Add a role.

    Raises:
        InvalidField: `name` is ill-formed or taken in any case, or there is no such `permission`.
    """
    if not _NAME.fullmatch(name):
        raise InvalidField({"name": f"{name!r} can't be one: use {_NAME_RULE}"})
    known = [str(permission) for permission in Permission]
    asked = set(permissions)
    if unknown := sorted(asked.difference(known)):
        raise InvalidField(
            {"permission": f"there is no {unknown[0]!r}; the permissions are: {', '.join(known)}"}
        )
    db.execute(text("LOCK TABLE roles IN SHARE ROW EXCLUSIVE MODE"))  # others may read, not add
    for role in all_roles(db):
        if role.name.lower() == name.lower():
            raise InvalidField({"name": f"there is a role {role.name} already"})
    allowed = [permission for permission in known if permission in asked]
    adding = insert(Role).values(name=name, permissions=allowed).on_conflict_do_nothing()
    # The next id of the sequence may be in use, by a role that was added by hand. Then take the
    # one after it.
    while (role_id := db.scalar(adding.returning(Role.id))) is None:
        pass
    return db.get_one(Role, role_id)
