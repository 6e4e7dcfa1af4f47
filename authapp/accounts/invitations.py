"""Invitations: who may sign up by a link, with which roles, until when."""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.authority.authorization import lock_users, require_covered
from authapp.accounts.authority.roles import roles_named
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import USER, Identity, Permission
from authapp.cache.changes import Change, Changes
from authapp.errors import (
    ExceedsOwnPermissions,
    Forbidden,
    InvalidField,
    InvalidInvitation,
    NotAuthenticated,
    SignupClosed,
    UnknownRole,
)
from authapp.storage.models import Invitation, Role, User
from authapp.storage.postgres import Database

DEFAULT_DAYS: Final = 7
MAX_DAYS: Final = 90
MAX_LISTED: Final = 200
_KEPT: Final = timedelta(days=30)  # after they expired, for the list

_TOKEN_BYTES = 32
_is_spelt = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch


@dataclass(frozen=True, slots=True)
class InvitationView:
    """An invitation, for people who manage invitations.

    Attributes:
        email: the only address that may use it; empty: any.
        invited_by: id of the person who made it; None: an operator.
        state: `open`, `used`, `revoked` or `expired`.
    """

    id: UUID
    email: str
    roles: tuple[str, ...]
    mailed: bool
    invited_by: UUID | None
    created_at: datetime
    expires_at: datetime
    state: str


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation that was made just now, with its token, which is not kept.

    Attributes:
        token: empty where it was mailed; then only the mail holds it.
    """

    invitation: InvitationView
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InvitationMail:
    """What the mail to the invited person needs."""

    to: Email
    token: str = field(repr=False)
    expires_at: datetime
    invited_by: str


SendInvitation = Callable[[Session, InvitationMail], bool]


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """An invitation that can be used, as read without a lock.

    Attributes:
        proves_email: only a mail to the bound address held its token.
    """

    id: UUID
    created_by: UUID | None
    email_canonical: str
    roles: tuple[str, ...]
    proves_email: bool


class Invitations:
    """The use cases of invitations. Only the SHA-256 of a token is kept.

    Args:
        send: writes the mail down in the caller's transaction; False: mail is off, or capped.
        people_may_invite: off, only operators may.
    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        parse_email: ParseEmail,
        send: SendInvitation,
        clock: Callable[[], datetime],
        *,
        people_may_invite: bool,
    ) -> None:
        self._database = database
        self._changes = changes
        self._parse_email = parse_email
        self._send = send
        self._clock = clock
        self.people_may_invite = people_may_invite

    # -- manage --------------------------------------------------------------------------------

    def create(
        self,
        email: str = "",
        roles: Iterable[str] = (),
        days: int = DEFAULT_DAYS,
        actor: Actor = OPERATOR,
    ) -> NewInvitation:
        """Makes an invitation, and mails it where it is for an address and mail is on.

        Args:
            email: the only address that may use it; empty: whoever has the link.
            roles: names; none stands for `user`.
        Raises:
            InvalidField: `email` or `days`, with the reason.
            UnknownRole
            SignupClosed: people may not invite.
            NotAuthenticated, Forbidden: see `authorization`.
            ExceedsOwnPermissions: a role allows more than the actor may.
        """
        if not actor.is_operator:
            self._require_open()
        if not 1 <= days <= MAX_DAYS:
            raise InvalidField({"days": f"use a whole number from 1 to {MAX_DAYS}"})
        bound = self._parse_email(email) if email else None
        token = base64.urlsafe_b64encode(os.urandom(_TOKEN_BYTES)).decode().rstrip("=")
        now = self._clock()
        with self._changes.begin(acknowledged=False) as change:
            db = change.db
            _, person = lock_users(db, [], actor, Permission.USERS_WRITE)
            granted = roles_named(db, tuple(roles) or (USER,))
            require_covered(person, granted)
            db.execute(delete(Invitation).where(Invitation.expires_at < now - _KEPT))
            row = Invitation(
                id=uuid4(),
                digest=_digest(token),
                email=bound.stored if bound else "",
                email_canonical=bound.canonical if bound else "",
                roles=[role.name for role in granted],
                created_by=None if actor.is_operator else actor.id,
                created_at=now,
                expires_at=now + timedelta(days=days),
            )
            row.mailed = bound is not None and self._send(
                db, InvitationMail(bound, token, row.expires_at, _called(person))
            )
            db.add(row)
            audit.record(
                db,
                "invitation.created",
                now,
                user_id=None,
                actor=actor,
                invitation=str(row.id),
                roles=row.roles,
            )
            return NewInvitation(self._view(row), "" if row.mailed else token)

    def newest(self) -> Sequence[InvitationView]:
        """The newest `MAX_LISTED` invitations, newest first."""
        with self._database.transaction() as db:
            rows = db.scalars(
                select(Invitation)
                .order_by(Invitation.created_at.desc(), Invitation.id.desc())
                .limit(MAX_LISTED)
            )
            return [self._view(row) for row in rows]

    def revoke(self, invitation_id: UUID, actor: Actor = OPERATOR) -> bool:
        """Makes an open invitation void.

        Returns:
            False where there is no such open invitation.
        Raises:
            NotAuthenticated, Forbidden: see `authorization`.
        """
        now = self._clock()
        with self._changes.begin(acknowledged=False) as change:
            lock_users(change.db, [], actor, Permission.USERS_WRITE)
            revoked = change.db.execute(
                update(Invitation)
                .where(Invitation.id == invitation_id, *_is_open(now))
                .values(revoked_at=now)
                .returning(Invitation.id)
            ).one_or_none()
            if revoked is None:
                return False
            audit.record(
                change.db,
                "invitation.revoked",
                now,
                user_id=None,
                actor=actor,
                invitation=str(invitation_id),
            )
            return True

    # -- use -----------------------------------------------------------------------------------

    def find_open(self, token: str) -> OpenInvitation:
        """The invitation that a token names.

        Raises:
            InvalidInvitation
            SignupClosed: a person made it, and people may not invite any more.
        """
        if not _is_spelt(token):
            raise InvalidInvitation
        with self._database.transaction() as db:
            found = db.execute(
                select(Invitation, User.active)
                .outerjoin(User, User.id == Invitation.created_by)
                .where(Invitation.digest == _digest(token), *_is_open(self._clock()))
            ).one_or_none()
            if found is None:
                raise InvalidInvitation
            row, inviter_is_active = found
            if row.created_by is not None and not inviter_is_active:
                raise InvalidInvitation
            if row.created_by is not None:
                self._require_open()
            return OpenInvitation(
                row.id,
                row.created_by,
                row.email_canonical,
                tuple(row.roles),
                bool(row.mailed and row.email_canonical),
            )

    def use(self, change: Change, invited: OpenInvitation) -> list[Role]:
        """Uses an invitation up within the caller's change: of many at once, one gets it.

        The caller has locked the person who made it, if it locks another person, too.

        Returns:
            The roles that the new person gets.
        Raises:
            InvalidInvitation: it was used or revoked in the meantime, or the person who made it may
                no longer give what it gives.
        """
        db = change.db
        try:
            inviter = OPERATOR if invited.created_by is None else Actor(id=invited.created_by)
            _, person = lock_users(db, [], inviter, Permission.USERS_WRITE)
            granted = roles_named(db, invited.roles)
            require_covered(person, granted)
        except (NotAuthenticated, Forbidden, UnknownRole, ExceedsOwnPermissions):
            raise InvalidInvitation from None
        now = self._clock()
        used = db.execute(
            update(Invitation)
            .where(Invitation.id == invited.id, *_is_open(now))
            .values(used_at=now)
            .returning(Invitation.id)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if used is None:
            raise InvalidInvitation
        return granted

    def note_used_by(self, change: Change, invited: OpenInvitation, user_id: UUID) -> None:
        """Notes who used an invitation, within the change that used it up."""
        change.db.execute(
            update(Invitation)
            .where(Invitation.id == invited.id)
            .values(used_by=user_id)
            .execution_options(synchronize_session=False)
        )

    def _require_open(self) -> None:
        if not self.people_may_invite:
            raise SignupClosed(
                "Sign-up is closed here, so nobody can be invited but by an operator, at the "
                "command line."
            )

    def _view(self, row: Invitation) -> InvitationView:
        if row.used_at is not None:
            state = "used"
        elif row.revoked_at is not None:
            state = "revoked"
        else:
            state = "open" if row.expires_at > self._clock() else "expired"
        return InvitationView(
            row.id,
            row.email,
            tuple(row.roles),
            bool(row.mailed),
            row.created_by,
            row.created_at,
            row.expires_at,
            state,
        )


def _is_open(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Invitation.used_at.is_(None),
        Invitation.revoked_at.is_(None),
        Invitation.expires_at > now,
    )


def _called(person: Identity | None) -> str:
    return "" if person is None else person.name or person.email


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
