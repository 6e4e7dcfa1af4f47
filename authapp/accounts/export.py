"""Exports: all that is known of one person, as JSON that the person may keep."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.cache.changes import Changes
from authapp.errors import UnknownUser
from authapp.storage.factors.models import Passkey, RecoveryCode, TotpSecret
from authapp.storage.models import AuditEvent, Base, Invitation, OutgoingMail, SessionRow, User
from authapp.storage.postgres import Database

MOST: Final = 5_000  # entries of one kind, the newest
# Details of events that are about the person alone. Others name a hash or an address.
_DETAILS: Final = frozenset(
    ("count", "fields", "imported", "kind", "method", "role", "roles", "sessions", "what", "why")
)


class ExportedUser(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of a person."""

    id: UUID
    email: str
    email_verified_at: datetime | None
    name: str
    image: str
    roles: list[str]
    active: bool
    created_at: datetime
    updated_at: datetime


class ExportedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that lasts, or ended not long ago. Data that apps keep in it is left to them.

    Attributes:
        amr: how the person proved who they are, in words of RFC 8176.
        proved_at: when they last did; None: when the session began.
    """

    id: UUID
    kind: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ended_why: str | None
    address: str
    user_agent: str
    amr: list[str]
    proved_at: datetime | None


class ExportedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the account.

    Attributes:
        by: `you`; `another person`, whose address is left out; empty: nobody who is known.
    """

    at: datetime
    event: str
    by: str
    address: str
    details: dict[str, Any]


class ExportedInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation that the person wrote, or used. The other side of it is left out."""

    written_by_you: bool
    roles: list[str]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


class ExportedMail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail about the account, without its content."""

    kind: str
    created_at: datetime
    sent_at: datetime | None
    failed_at: datetime | None


class ExportedPasskey(msgspec.Struct, frozen=True, kw_only=True):
    """A passkey, without what proves it."""

    name: str
    created_at: datetime
    last_used_at: datetime | None


class ExportedFactors(msgspec.Struct, frozen=True, kw_only=True):
    """The second factors of a person, without their secrets.

    Attributes:
        totp_since: when the authenticator app was set up.
    """

    totp_since: datetime | None
    recovery_codes_left: int
    passkeys: list[ExportedPasskey]


class ExportView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a person. It holds no secret, and nothing about other people.

    Attributes:
        is_complete: False where there are more entries of a kind; the newest are here.
    """

    exported_at: datetime
    is_complete: bool
    user: ExportedUser
    factors: ExportedFactors
    sessions: list[ExportedSession]
    events: list[ExportedEvent]
    invitations: list[ExportedInvitation]
    mails: list[ExportedMail]


class Exports:
    """The use case of exporting what is known of a person.

    Args:
        most: entries of one kind in an export.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        clock: Callable[[], datetime],
        most: int = MOST,
    ) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self._most = most

    def of_person(self, user_id: UUID, actor: Actor) -> bytes:
        """The export as JSON text, which is recorded as an event.

        Raises:
            UnknownUser
            StoreUnavailable
        """
        found = self._database.read(lambda db: self._read(db, user_id))
        with self._changes.begin(acknowledged=False) as change:
            user = change.db.scalar(
                select(User).where(User.id == user_id).with_for_update(key_share=True)
            )
            if user is None:
                raise UnknownUser("there is no such user")
            audit.record_act(
                change.db, "account.exported", self._clock(), user_id=user_id, actor=actor
            )
        return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"

    def _read(self, db: Session, user_id: UUID) -> ExportView:
        user = db.get(User, user_id)
        if user is None:
            raise UnknownUser("there is no such user")
        is_mine = (Invitation.created_by == user_id) | (Invitation.used_by == user_id)
        sessions = self._newest(
            db, SessionRow, SessionRow.user_id == user_id, SessionRow.created_at
        )
        events = self._newest(db, AuditEvent, AuditEvent.user_id == user_id, AuditEvent.at)
        invitations = self._newest(db, Invitation, is_mine, Invitation.created_at)
        mails = self._newest(db, OutgoingMail, _are_shown(user_id), OutgoingMail.created_at)
        kinds = (sessions, events, invitations, mails)
        return ExportView(
            exported_at=self._clock(),
            is_complete=all(len(rows) <= self._most for rows in kinds),
            user=_user(user),
            factors=_factors(db, user_id),
            sessions=[_copied(ExportedSession, row) for row in sessions[: self._most]],
            events=[_event(row, user_id) for row in events[: self._most]],
            invitations=[
                _copied(ExportedInvitation, row, written_by_you=row.created_by == user_id)
                for row in invitations[: self._most]
            ],
            mails=[_copied(ExportedMail, row) for row in mails[: self._most]],
        )

    def _newest(
        self, db: Session, model: type[Base], which: ColumnElement[bool], at: Any
    ) -> list[Any]:
        """One entry more than are shown tells that there are more."""
        query = select(model).where(which).order_by(at.desc()).limit(self._most + 1)
        return list(db.scalars(query))


def _are_shown(user_id: UUID) -> ColumnElement[bool]:
    """Mails about a person. Those to an address that the person asked for are left out: that there
    is none would tell that somebody else has the address."""
    return (OutgoingMail.user_id == user_id) & (OutgoingMail.kind != "confirm_change")


def _copied(kind: type[msgspec.Struct], row: Any, **given: object) -> Any:
    """An exported record, with the columns of a row that have the names of its fields."""
    names = set(kind.__struct_fields__) - set(given)
    return kind(**{name: getattr(row, name) for name in names}, **given)


def _user(user: User) -> ExportedUser:
    exported: ExportedUser = _copied(ExportedUser, user, roles=[role.name for role in user.roles])
    return exported


def _factors(db: Session, user_id: UUID) -> ExportedFactors:
    """Few enough to be shown in full: passkeys and recovery codes of a person are bounded."""
    passkeys = select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.created_at)
    codes_left = select(func.count()).where(
        RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None)
    )
    totp_since = select(TotpSecret.confirmed_at).where(
        TotpSecret.user_id == user_id, TotpSecret.sealed.is_not(None)
    )
    return ExportedFactors(
        totp_since=db.scalar(totp_since),
        recovery_codes_left=db.scalar(codes_left) or 0,
        passkeys=[_copied(ExportedPasskey, row) for row in db.scalars(passkeys)],
    )


def _event(row: AuditEvent, user_id: UUID) -> ExportedEvent:
    is_by_other = row.actor_id is not None and row.actor_id != user_id
    by = "another person" if is_by_other else "you" if row.actor_id else ""
    return ExportedEvent(
        at=row.at,
        event=row.event,
        by=by,
        address="" if is_by_other else row.address,
        details=_own(row.details),
    )


def _own(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if name in _DETAILS}
