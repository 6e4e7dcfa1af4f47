"""Audit events: who did what to which account, from where. Part of the transaction they tell of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from authapp.database import Database
from authapp.errors import InvalidField
from authapp.models import AuditEvent, User
from authapp.sealing import KeyedHash

Event = Literal[
    "user.created",
    "user.activated",
    "user.deactivated",
    "profile.changed",
    "password.changed",
    "password.set",
    "roles.set",
    "role.granted",
    "role.revoked",
    "session.begun",
    "session.ended",
    "sessions.ended",
    "login.failed",
    "login.limited",
    "signup.limited",
    "password.refused",
    "password.limited",
    "login.flood",
]
EVENTS: tuple[Event, ...] = get_args(Event)


class EmailHashes:
    """Keyed hashes that stand in events for emails that nobody has.

    Args:
        secrets: the order of SECRET_KEY; hashes are made by the first.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._hashes = [KeyedHash(secret, "audit emails") for secret in secrets]

    def __call__(self, canonical_email: str) -> str:
        return self.all(canonical_email)[0]

    def all(self, canonical_email: str) -> list[str]:
        """By each of the secrets."""
        return [keyed(canonical_email.encode())[:8].hex() for keyed in self._hashes]


def record(
    db: Session,
    event: Event,
    at: datetime,
    *,
    user_id: UUID | None,
    actor_id: UUID | None = None,
    address: str = "",
    **details: Any,
) -> None:
    """Adds one event.

    Args:
        event: `noun.verb`.
        actor_id: who did it; None for the operator's command line, and where nobody can say.
        details: JSON values; no password, token or full email.
    """
    db.add(
        AuditEvent(
            at=at,
            event=event,
            user_id=user_id,
            actor_id=actor_id,
            address=address,
            details=details,
        )
    )


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody an event names, as they are called today."""

    id: UUID
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, for people.

    Attributes:
        user: about whom; None when they are gone.
        actor: who did it; None when they are gone, it was the command line, or nobody can say.
        address: from where; empty when it was not a request.
    """

    at: datetime
    event: str
    user: Person | None
    actor: Person | None
    address: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the log.

    Attributes:
        next_cursor: ask again with it for what was before; None at the beginning of the log.
    """

    entries: list[Entry]
    next_cursor: str | None


class AuditLog:
    """Reads the events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        user_id: UUID | None = None,
        event: str | None = None,
    ) -> Page:
        """Events, newest first.

        Args:
            cursor: `next_cursor` of the part before.
            user_id: only those about this person.
            event: only those of this kind.
        Raises:
            InvalidField: `cursor` is not one we gave, or there is no such kind.
            StoreUnavailable
        """
        user, actor = aliased(User), aliased(User)
        query = (
            select(AuditEvent, user.id, user.email, user.name, actor.id, actor.email, actor.name)
            .outerjoin(user, user.id == AuditEvent.user_id)
            .outerjoin(actor, actor.id == AuditEvent.actor_id)
            .order_by(AuditEvent.id.desc())
            .limit(limit + 1)
        )
        if cursor:
            query = query.where(AuditEvent.id < _read_cursor(cursor))
        if user_id is not None:
            query = query.where(AuditEvent.user_id == user_id)
        if event:
            if event not in EVENTS:
                raise InvalidField({"event": f"use one of {', '.join(EVENTS)}"})
            query = query.where(AuditEvent.event == event)
        with self._database.transaction() as db:
            rows = db.execute(query).all()
        entries = [_entry(row[0], _person(*row[1:4]), _person(*row[4:])) for row in rows[:limit]]
        return Page(entries, str(rows[limit - 1][0].id) if len(rows) > limit else None)


def _person(user_id: UUID | None, email: str, name: str) -> Person | None:
    return None if user_id is None else Person(user_id, email, name)


def _entry(row: AuditEvent, user: Person | None, actor: Person | None) -> Entry:
    return Entry(row.at, row.event, user, actor, row.address, row.details)


def _read_cursor(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):  # fits a bigint
        raise InvalidField({"cursor": "leave it out to start from the newest"})
    return int(cursor)
