"""Administrators: active people with the role `admin`. One always remains."""

from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from authapp.accounts.identity import ADMIN
from authapp.errors import LastAdmin
from authapp.storage.models import Role, User, UserRole


def active_administrators() -> Select[UUID]:
    """A query for the ids of all administrators who can act: whoever has not confirmed the email
    yet can't, and may not be whom it belongs to."""
    return (
        select(UserRole.user_id)
        .join(User, User.id == UserRole.user_id)
        .join(Role, Role.id == UserRole.role_id)
        .where(Role.name == ADMIN, User.active, ~User.email_confirmation_due)
    )


def keep_an_administrator(db: Session, without: UUID) -> None:
    """Check that an administrator remains when this user stops being one.

    Call it within the transaction that removes the administrator, after the user's row is locked:
    all such transactions lock the row of the role last, so no two wait for each other.

    Raises:
        LastAdmin: no other user is an active administrator.
    """
    # FOR NO KEY UPDATE: only removals wait for it, the foreign-key checks of grants do not.
    db.execute(select(Role.id).where(Role.name == ADMIN).with_for_update(key_share=True))
    # A new statement: one that waited for the lock would still see who was active before it waited.
    others = active_administrators().where(UserRole.user_id != without)
    if not db.scalar(select(others.exists())):
        raise LastAdmin("the last active administrator can't be removed")
