"""Roles: which there are and what they allow; how they are added and deleted."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.authority.authorization import (
    lock_users,
    require_covered,
    require_covers_person,
)
from authapp.accounts.identity import ADMIN, USER, Permission
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import (
    BuiltInRole,
    InvalidField,
    NoSuchRole,
    OwnAccount,
    RoleInUse,
    SettingError,
    UnknownRole,
)
from authapp.storage.models import Role, User, UserRole, qualified_name
from authapp.storage.postgres import Database

# Proxies hand role names on in a list with commas, and people type them in addresses.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_NAME_RULE = "1 to 63 of a-z, A-Z, 0-9 and . _ : -, with a letter or digit first"
_SHOWN = 80  # characters of a wrong name that an error repeats

# What each of our permissions lets a person do, for the page where roles are made
_OURS = {
    Permission.USERS_READ: "See all people, and the roles there are",
    Permission.USERS_WRITE: "Change people, and deactivate or delete them",
    Permission.ROLES_GRANT: "Give and take roles, add and delete roles",
    Permission.SESSIONS_END: "Sign people out",
    Permission.AUDIT_READ: "Read the audit log",
}
_PERMISSION = re.compile(r"[a-z0-9_]+:[a-z0-9_]+")

BUILT_IN = frozenset({ADMIN, USER})  # sign-up gives `user`, and an administrator always remains
MAX_ROLES = 500
MAX_HOLDERS = 1_000  # people from whom one change takes a role


class Roles:
    """The use cases of roles.

    Attributes:
        permissions: those that a new role may give, each with its description.
    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        clock: Callable[[], datetime],
        permissions: Mapping[str, str],
    ) -> None:
        self.permissions = permissions
        self._database = database
        self._changes = changes
        self._clock = clock

    def list(self) -> Sequence[Role]:
        """The roles there are, by name."""
        with self._database.transaction() as db:
            return all_roles(db)

    def create(
        self,
        name: str,
        permissions: Iterable[str],
        actor: Actor = OPERATOR,
    ) -> Role:
        """Adds a role.

        Raises:
            InvalidField: `name` or `permissions`, with the reason.
            NotAuthenticated, Forbidden: see `authorization`.
            ExceedsOwnPermissions: the role would allow what the actor may not do.
        """
        with self._changes.begin(acknowledged=False) as change:  # nobody has the role yet
            _, person = lock_users(change.db, [], actor, Permission.ROLES_GRANT)
            role = add_role(change.db, name, permissions, self.permissions)
            require_covered(person, [role])
            audit.record(
                change.db,
                "role.created",
                self._clock(),
                user_id=None,
                actor=actor,
                role=role.name,
                permissions=role.permissions,
            )
            return role

    def holders(self, name: str) -> int:
        """How many people hold a role; beyond `MAX_HOLDERS` nobody counts.

        Raises:
            NoSuchRole
        """
        with self._database.transaction() as db:
            known = select(Role.id).where(Role.name == name)
            if not _is_storable(name) or db.scalar(known) is None:
                raise _no_such_role(db, name)
            return len(_holders(db, name))

    def delete(self, name: str, actor: Actor = OPERATOR) -> Changed[int]:
        """Deletes a role, and takes it from all who hold it. Their sessions follow at once.

        The command line takes a role from any number of people, in several changes.

        Returns:
            how many people held it.
        Raises:
            NoSuchRole
            BuiltInRole: it is `admin` or `user`.
            RoleInUse: more than `MAX_HOLDERS` people hold it, or others give it at this moment.
            OwnAccount: the actor holds it.
            NotAuthenticated, Forbidden: see `authorization`.
            ExceedsOwnPermissions: the role, or a person who holds it, may do more than the actor.
        """
        taken, everywhere = 0, True
        for _ in range(1_000_000 if actor.is_operator else 10):
            with self._changes.begin() as change:
                people, done = self._delete(change, name, actor)
            taken += people
            everywhere &= change.everywhere
            if done:
                return Changed(taken, everywhere)
        raise RoleInUse(f"The role {name} is being given to people right now: try again.")

    def _delete(self, change: Change, name: str, actor: Actor) -> tuple[int, bool]:
        """Take a role from up to `MAX_HOLDERS` people, and delete it if nobody else holds it.

        Returns:
            from how many it was taken, and whether it was deleted.
        """
        db, now = change.db, self._clock()
        if name in BUILT_IN:
            raise BuiltInRole(f"The role {name} is built in, and can't be deleted.")
        if not _is_storable(name):
            raise _no_such_role(db, name)
        holders = _holders(db, name)
        if not actor.is_operator and len(holders) > MAX_HOLDERS:
            raise RoleInUse(
                f"More than {MAX_HOLDERS:,} people hold the role {name}: an operator can delete it "
                "at the command line."
            )
        # People before the role, as in every change of a person, or two changes could deadlock.
        locked, person = lock_users(db, holders[:MAX_HOLDERS], actor, Permission.ROLES_GRANT)
        role = db.scalar(select(Role).where(Role.name == name).with_for_update())
        if role is None:
            raise _no_such_role(db, name)
        require_covered(person, [role])
        if person is not None and person.has_role(name):
            raise OwnAccount("changes their own roles")
        ids = [user.id for user in locked]
        others = set(_holders(db, name)).difference(ids)
        if others and not actor.is_operator:
            return 0, False  # given since the holders were read: begin again
        for user in locked:
            require_covers_person(person, user)
        db.execute(delete(UserRole).where(UserRole.role_id == role.id, UserRole.user_id.in_(ids)))
        changed = db.scalars(
            update(User)
            .where(User.id.in_(ids))
            .values(ver=User.ver + 1, updated_at=now)
            .returning(User)
            .execution_options(synchronize_session=False, populate_existing=True)
        ).all()
        change.touch_users(changed)
        for user_id in ids:
            audit.record(
                db,
                "role.revoked",
                now,
                user_id=user_id,
                actor=actor,
                role=name,
            )
        if not others:
            db.execute(delete(Role).where(Role.name == name))
            audit.record(db, "role.deleted", now, user_id=None, actor=actor, role=name)
        return len(ids), not others


def known_permissions(*registered: Mapping[str, str]) -> Mapping[str, str]:
    """Our permissions and those that an app registers, each with its description.

    Raises:
        SettingError: a name is ill-formed or ours, or a description is missing.
    """
    known = {str(name): description for name, description in _OURS.items()}
    for permissions in registered:
        if not isinstance(permissions, Mapping):
            raise SettingError(
                'permissions: give a description for each, like {"reports:read": "See the reports"}'
            )
        for name, description in permissions.items():
            if not isinstance(name, str) or not _PERMISSION.fullmatch(name):
                raise SettingError(
                    f"permissions: {name!r} can't be one; name it like `reports:read`, "
                    "with a-z, 0-9 and _ on both sides of the colon"
                )
            if name in _OURS:
                raise SettingError(f"permissions: {name} is one of authapp; choose another name")
            if not isinstance(description, str) or not description.strip():
                raise SettingError(f"permissions: say what {name} lets a person do")
            known[name] = description
    return known


def all_roles(db: Session) -> Sequence[Role]:
    """The roles there are, by name."""
    return db.scalars(select(Role).order_by(Role.name)).all()


def roles_named(db: Session, names: Iterable[str]) -> list[Role]:
    """The roles with these names, which nobody deletes before the transaction ends.

    Raises:
        UnknownRole: one does not exist; the message lists those that do.
    """
    wanted = sorted(set(names))
    for name in wanted:
        if not _is_storable(name):
            raise UnknownRole(_no_role(db, name))
    found = db.scalars(
        select(Role)
        .where(Role.name.in_(wanted))
        .order_by(Role.name)
        .with_for_update(read=True, key_share=True)
    ).all()
    known = {role.name for role in found}
    for name in wanted:
        if name not in known:
            raise UnknownRole(_no_role(db, name))
    return list(found)


def add_role(db: Session, name: str, permissions: Iterable[str], known: Iterable[str]) -> Role:
    """Add a role.

    Args:
        known: the permissions there are.
    Raises:
        InvalidField: `name` is ill-formed or taken in any case, or one of `permissions` is unknown.
    """
    if not _NAME.fullmatch(name):
        raise InvalidField({"name": f"{name[:_SHOWN]!r} can't be one: use {_NAME_RULE}"})
    known, asked = list(known), set(permissions)
    if unknown := sorted(asked.difference(known)):
        raise InvalidField(
            {
                "permissions": f"there is no {unknown[0][:_SHOWN]!r}; the permissions are: "
                f"{', '.join(known)}"
            }
        )
    table = qualified_name(db, Role)
    db.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))  # others may read, not add
    there_are = all_roles(db)
    for role in there_are:
        if role.name.lower() == name.lower():
            raise InvalidField({"name": f"there is a role {role.name} already"})
    if len(there_are) >= MAX_ROLES:
        raise InvalidField({"name": f"there are {MAX_ROLES} roles already: delete one first"})
    # The sequence follows the ids in use. Otherwise roles that come and go would use it up, and
    # roles that were added by hand would stand in its way.
    last = max((role.id for role in there_are), default=1)
    setting = text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :last)")
    db.execute(setting, {"table": table, "last": last})
    added = Role(name=name, permissions=[p for p in known if p in asked])
    db.add(added)
    db.flush()
    db.refresh(added)
    return added


def _holders(db: Session, name: str) -> Sequence[UUID]:
    """The ids of people who hold a role, one more than `MAX_HOLDERS` at most."""
    query = select(UserRole.user_id).join(Role, Role.id == UserRole.role_id)
    return db.scalars(query.where(Role.name == name).limit(MAX_HOLDERS + 1)).all()


def _is_storable(name: str) -> bool:
    """Whether Postgres takes it as text. No role has another name."""
    return "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)


def _no_such_role(db: Session, name: str) -> NoSuchRole:
    return NoSuchRole(_no_role(db, name))


def _no_role(db: Session, name: str) -> str:
    names = ", ".join(role.name for role in all_roles(db))
    return f"there is no role {name[:_SHOWN]!r}; the roles are: {names}"
