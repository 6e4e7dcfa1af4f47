"""Audit events: who did what to which account, from where. Part of the transaction they tell of."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Session, aliased

from authapp.accounts.actor import Actor
from authapp.accounts.emails import Email
from authapp.cache.changes import announce
from authapp.crypto.sealing import KeyedHash
from authapp.errors import InvalidField
from authapp.storage.models import AuditEvent, User
from authapp.storage.postgres import Database

Event = Literal[
    "user.created",
    "user.replaced",
    "user.activated",
    "user.deactivated",
    "user.deleted",
    "email.verified",
    "invitation.created",
    "invitation.revoked",
    "profile.changed",
    "password.changed",
    "password.set",
    "password.removed",
    "password.added",
    "identity.confirmed",
    "email.change_requested",
    "email.changed",
    "email.change_undone",
    "account.exported",
    "roles.set",
    "role.created",
    "role.deleted",
    "role.granted",
    "role.revoked",
    "session.begun",
    "session.ended",
    "sessions.ended",
    "sessions.ended_for_everybody",
    "login.failed",
    "login.limited",
    "signup.limited",
    "password.refused",
    "password.limited",
    "password.reset",
    "reset.requested",
    "reset.started",
    "reset.limited",
    "login.flood",
    "factor.added",
    "factor.removed",
    "factor.reset",
    "factor.refused",
    "factor.limited",
    "recovery_codes.made",
    "recovery_code.used",
    "passkey.counter_fell",
    "user.created_in_sql",
    "user.changed_in_sql",
    "user.deleted_in_sql",
    "roles.changed_in_sql",
    "role.changed_in_sql",
    "postgres.lost_commits",
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


@dataclass(frozen=True, slots=True)
class Fact:
    """The facts of an event, for receivers that are told of it at once.

    Attributes:
        user_id: of the person, also of one who is deleted.
    """

    event: Event
    user_id: UUID | None
    actor: Actor
    details: Mapping[str, Any]


def record(
    db: Session,
    event: Event,
    at: datetime,
    *,
    user_id: UUID | None,
    actor: Actor,
    deleted_id: UUID | None = None,
    **details: Any,
) -> None:
    """Adds one event, and announces it.

    Args:
        event: `noun.verb`.
        deleted_id: of a person whom the event can't refer to any more. It is not recorded.
        details: JSON values; no password, token or full email.
    """
    announce(db, Fact(event, user_id or deleted_id, actor, details))
    db.add(AuditEvent(**_columns(event, at, user_id, actor, details)))


def record_within(
    db: Session, event: Event, at: datetime, *, user_id: UUID, actor: Actor, **details: Any
) -> dict[str, Any]:
    """As `record`, for a caller that inserts the event as a part of its own statement."""
    announce(db, Fact(event, user_id, actor, details))
    return parameters(event, at, user_id=user_id, actor=actor, **details)


def parameters(
    event: Event, at: datetime, *, user_id: UUID | None, actor: Actor, **details: Any
) -> dict[str, Any]:
    """The parameters of an event that is a part of another statement."""
    columns = _columns(event, at, user_id, actor, details)
    return {f"event_{name}": value for name, value in columns.items()}


def _columns(
    event: Event, at: datetime, user_id: UUID | None, actor: Actor, details: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "at": at,
        "event": event,
        "user_id": user_id,
        "actor_id": actor.id,
        "address": actor.address,
        "details": details,
    }


_ALIKE = 10  # events of one kind about one person in a minute; further acts are counted in the last
_LOOK_BACK = 50  # newest events about the person that are looked at


def record_act(
    db: Session,
    event: Event,
    at: datetime,
    *,
    user_id: UUID,
    actor: Actor,
    **details: Any,
) -> None:
    """As `record`, for an act that somebody may repeat at will: it does not fill the log.

    The caller has locked the user's row.
    """
    newest = db.scalars(
        select(AuditEvent)
        .where(AuditEvent.user_id == user_id)
        .order_by(AuditEvent.at.desc(), AuditEvent.id.desc())
        .limit(_LOOK_BACK)
    )
    since = at - timedelta(minutes=1)
    alike = [row for row in newest if row.event == event and row.at > since]
    if len(alike) < _ALIKE:
        record(db, event, at, user_id=user_id, actor=actor, **details)
        return
    announce(db, Fact(event, user_id, actor, dict(details)))
    last = alike[0]
    if fields := details.get("fields"):
        details["fields"] = sorted({*fields, *last.details.get("fields", ())})
    last.details = last.details | details | {"count": last.details.get("count", 1) + 1}
    last.actor_id, last.address = actor.id, actor.address


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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for: those that meet all that is given.

    Attributes:
        user_ids: about any of these people.
        email: attempts on this email, which nobody has.
        address: from this address, as events spell it.
        since: at this time or later.
    """

    user_ids: Collection[UUID] | None = None
    email: Email | None = None
    event: str = ""
    address: str = ""
    since: datetime | None = None


EVERYTHING = Filter()


def read_filter(event: str, address: str, since: str, now: datetime) -> Filter:
    """The filter that a person wrote; what is empty is not asked for.

    Raises:
        InvalidField: all that can't be read, by field, and what to write instead.
    """
    errors: dict[str, str] = {}
    if event and event not in EVENTS:
        errors["event"] = f"use one of {', '.join(EVENTS)}"
    try:
        address = _read_address(address)
    except ValueError:
        errors["address"] = "write one IP address, like 192.0.2.7 or 2001:db8::7"
    at = None
    try:
        at = _read_since(since, now)
    except (ValueError, OverflowError):
        errors["since"] = "write a time in UTC, like 2026-11-27 10:30, or how long ago: 15m, 2h, 7d"
    if errors:
        raise InvalidField(errors)
    return Filter(event=event, address=address, since=at)


def _read_address(text: str) -> str:
    if not text:
        return ""
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


_AGO = re.compile(r"([0-9]{1,6}) ?([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # seconds


def _read_since(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    if ago := _AGO.fullmatch(text):
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


class AuditLog:
    """Reads the events."""

    def __init__(
        self, database: Database, email_hashes: EmailHashes, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._email_hashes = email_hashes
        self._clock = clock

    def filter(self, event: str = "", address: str = "", since: str = "") -> Filter:
        """As `read_filter`, now."""
        return read_filter(event, address, since, self._clock())

    def people(self, part: str, limit: int) -> list[Person]:
        """People with this part in their name or email, in any case."""
        matches = (column.icontains(part, autoescape=True) for column in (User.name, User.email))
        query = select(User.id, User.email, User.name).where(or_(*matches)).limit(limit)
        with self._database.transaction() as db:
            return [Person(*row) for row in db.execute(query)]

    def page(
        self,
        cursor: str | None = None,
        limit: int = 50,
        which: Filter = EVERYTHING,
    ) -> Page:
        """Events by the time at which they happened, newest first.

        Refused attempts are recorded a moment after they happened, so an event may still be added
        among those that were read already.

        Args:
            cursor: `next_cursor` of the part before.
        Raises:
            InvalidField: `cursor` is not one we gave.
            StoreUnavailable
        """
        user, actor = aliased(User), aliased(User)
        query = (
            select(AuditEvent, user.id, user.email, user.name, actor.id, actor.email, actor.name)
            .outerjoin(user, user.id == AuditEvent.user_id)
            .outerjoin(actor, actor.id == AuditEvent.actor_id)
            .order_by(AuditEvent.at.desc(), AuditEvent.id.desc())
            .limit(limit + 1)
        )
        if cursor:
            query = query.where(tuple_(AuditEvent.at, AuditEvent.id) < _read_cursor(cursor))
        if which.user_ids is not None:
            query = query.where(_any_of(AuditEvent.user_id, which.user_ids))
        if which.email:
            found = AuditEvent.details["email_hash"].astext
            query = query.where(_any_of(found, self._email_hashes.all(which.email.canonical)))
        if which.event:
            query = query.where(AuditEvent.event == which.event)
        if which.address:
            query = query.where(AuditEvent.address == which.address)
        if which.since is not None:
            query = query.where(AuditEvent.at >= which.since)
        with self._database.transaction() as db:
            rows = db.execute(query).all()
        entries = [_entry(row[0], _person(*row[1:4]), _person(*row[4:])) for row in rows[:limit]]
        return Page(entries, _write_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


def _any_of(column: Any, values: Collection[object]) -> ColumnElement[bool]:
    """That a column has any of these values. For one an index tells the order, too."""
    one: ColumnElement[bool] = column == next(iter(values), None)
    return one if len(values) == 1 else column.in_(values)


def _person(user_id: UUID | None, email: str, name: str) -> Person | None:
    return None if user_id is None else Person(user_id, email, name)


def _entry(row: AuditEvent, user: Person | None, actor: Person | None) -> Entry:
    return Entry(row.at, row.event, user, actor, row.address, row.details)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"(-?[0-9]{1,18})_([0-9]{1,18})")  # microseconds since 1970, and the id


def _write_cursor(last: AuditEvent) -> str:
    return f"{(last.at - _EPOCH) // timedelta(microseconds=1)}_{last.id}"


def _read_cursor(cursor: str) -> tuple[datetime, int]:
    refused = InvalidField({"cursor": "leave it out to start from the newest"})
    if (parts := _CURSOR.fullmatch(cursor)) is None:
        raise refused
    try:
        return _EPOCH + timedelta(microseconds=int(parts[1])), int(parts[2])
    except OverflowError:
        raise refused from None
