"""Authorization of a change: what the actor may do to a person, by the facts and not by a session.

A session carries the permissions that its person had when it was last read. A change reads them
again, in its own transaction and with the actor's row locked. So a permission that is taken away at
the same moment either comes too late for the change, or the change is refused.
"""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from authapp.accounts.actor import Actor
from authapp.accounts.identity import ADMIN, Identity, Permission, identity_of
from authapp.errors import ExceedsOwnPermissions, Forbidden, NotAuthenticated, UnknownUser
from authapp.storage.models import Role, User


def lock_user(
    db: Session, user_id: UUID, actor: Actor, permission: Permission
) -> tuple[User, Identity | None]:
    """Lock a user and the actor, and check that the actor may change this user.

    Args:
        actor: makes the change. The operator may do everything.
        permission: what the change needs.
    Returns:
        The user, and the person who acts as of now (None for the operator).
    Raises:
        UnknownUser
        NotAuthenticated: nobody is known to act, or the person was deactivated or removed in the
            meantime.
        Forbidden: the actor lost the permission in the meantime.
        ExceedsOwnPermissions: the user has a permission that the actor lacks.
    """
    found, person = lock_users(db, [user_id], actor, permission)
    if not found:
        raise UnknownUser("there is no such user")
    require_covers_person(person, found[0])
    return found[0], person


def lock_users(
    db: Session, user_ids: Iterable[UUID], actor: Actor, permission: Permission | None
) -> tuple[list[User], Identity | None]:
    """Lock users and the actor, and check that the actor still has the permission.

    Args:
        actor, permission: as for `lock_user`; None needs no permission.
    Returns:
        The users that exist, and the person who acts as of now (None for the operator).
    Raises:
        NotAuthenticated, Forbidden: as `lock_user`.
    """
    wanted = {str(user_id) for user_id in user_ids}  # by text, because callers may have no more
    ids = wanted if actor.id is None else wanted | {str(actor.id)}
    # Locked in one order, or two people who change each other would wait for each other.
    rows = db.scalars(
        select(User).where(User.id.in_(ids)).order_by(User.id).with_for_update(key_share=True)
    )
    locked = {str(user.id): user for user in rows}
    person = None
    if not actor.is_operator:
        row = locked.get(str(actor.id))
        if row is None or not row.active:
            raise NotAuthenticated(presented=True)
        person = identity_of(row)
        if permission is not None and not person.can(permission):
            raise Forbidden(f"this needs the permission {permission}")
    return [user for key, user in locked.items() if key in wanted], person


def require_covers_person(person: Identity | None, user: User) -> None:
    """Check that a person may change this user, whose row is locked; the operator (None) may.

    Raises:
        ExceedsOwnPermissions: the user has a permission that the person lacks.
    """
    if not _covers(person, user.roles):
        raise ExceedsOwnPermissions(
            "This person may do more than you may: ask an administrator to change their account."
        )


def require_administrator(person: Identity | None) -> None:
    """Check that a person may change everybody; the operator (None) may.

    Raises:
        ExceedsOwnPermissions: the person is no administrator, who may do more.
    """
    if person is not None and not person.covers(ADMIN, ()):
        raise ExceedsOwnPermissions(
            "This concerns people who may do more than you may: ask an administrator to do it."
        )


def require_covered(person: Identity | None, roles: Iterable[Role]) -> None:
    """Check that a person may give, take, add and delete these roles; the operator (None) may.

    Raises:
        ExceedsOwnPermissions: one of them has a permission that the person lacks.
    """
    for role in roles:
        if not _covers(person, [role]):
            raise ExceedsOwnPermissions(
                f"The role {role.name} allows more than you may do yourself: ask an administrator."
            )


def _covers(person: Identity | None, roles: Iterable[Role]) -> bool:
    return person is None or all(person.covers(role.name, role.permissions) for role in roles)
