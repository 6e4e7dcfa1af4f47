"""Pages of the list of users, and the cursors that lead from one page to the next."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from authapp.accounts.identity import Identity, identity_of
from authapp.errors import InvalidField
from authapp.storage.models import User

_LONGEST_CURSOR = 200  # characters; ours have about 100


@dataclass(frozen=True, slots=True)
class UserPage:
    """One page of the list of users.

    Attributes:
        next_cursor: leads to the next page; None on the last one.
    """

    users: list[Identity]
    next_cursor: str | None


def read_page(db: Session, cursor: str | None, limit: int, search: str) -> UserPage:
    """Reads one page of users, newest first; see `UserStore.page`."""
    query = select(User).order_by(User.created_at.desc(), User.id.desc()).limit(limit + 1)
    if search:
        query = query.where(
            or_(
                User.email.icontains(search, autoescape=True),
                User.name.icontains(search, autoescape=True),
            )
        )
    if cursor:
        query = query.where(tuple_(User.created_at, User.id) < _read_cursor(cursor))
    found: Sequence[User] = db.scalars(query).all()
    users = [identity_of(user) for user in found[:limit]]
    more = len(found) > limit
    return UserPage(users, _write_cursor(users[-1]) if more else None)


def _write_cursor(last: Identity) -> str:
    text = f"{last.created_at.isoformat()} {last.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    refused = InvalidField({"cursor": "leave it out to start from the beginning"})
    if len(cursor) > _LONGEST_CURSOR:
        raise refused
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, user_id = text.partition(" ")
        created_at, last = datetime.fromisoformat(at), UUID(user_id)
    except (binascii.Error, ValueError):
        raise refused from None
    if created_at.utcoffset() != timedelta(0):  # ours are UTC; Postgres can't read some others
        raise refused
    return created_at, last
