"""Rows of sessions in Postgres: what they say, and how they end, for whoever looks or changes."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from math import ceil
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Uuid, func, literal, select, union_all, update
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import NOBODY, Actor
from authapp.accounts.assurance import PASSWORD, Amr, together
from authapp.accounts.identity import identity_of
from authapp.cache.changes import Change
from authapp.crypto.access_tokens import AccessTokens, digest_of
from authapp.crypto.tokens import RefreshTokens, SessionToken, SessionTokens
from authapp.errors import EmailUnverified, InvalidCredentials
from authapp.sessions.ended_copies import COLUMNS, ended_copy
from authapp.sessions.generation import is_live
from authapp.sessions.records import (
    ActiveSession,
    EndReason,
    IssuedTokens,
    Kind,
    Lifetime,
    SessionPolicy,
    SessionRecord,
)
from authapp.sessions.user_agents import MAX_USER_AGENT
from authapp.storage.models import SessionRow, User

FIRST_VERSION = 1  # of a row; the copy of a session without one is older than any


class SessionRows:
    """Works within changes that their callers complete."""

    def __init__(
        self,
        tokens: SessionTokens,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        policy: SessionPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._policy = policy
        self._revalidate_seconds = policy.revalidate.total_seconds()
        self._clock = clock

    def record(
        self, row: SessionRow, user: User, *, is_outlived: bool | None = False
    ) -> SessionRecord:
        """The session as its row and the row of its user say now.

        Args:
            is_outlived: the sessions of everybody were ended since it began.
        """
        why = EndReason(row.ended_why) if row.ended_why else None
        if why is None and is_outlived:
            why = EndReason.ENDED_FOR_EVERYBODY
        if why is None and not user.active:
            why = EndReason.DEACTIVATED
        if why is None and row.epoch != user.epoch:
            why = EndReason.PASSWORD_CHANGED
        return SessionRecord(
            id=row.id,
            kind=cast(Kind, row.kind),  # a check constraint holds it
            user=identity_of(user),
            created_at=row.created_at,
            last_seen_at=row.last_seen_at,
            idle_seconds=row.idle_seconds,
            expires_at=row.expires_at,
            data=row.data,
            ver=row.ver,
            remembered=row.remembered,
            checked_at=self._clock(),
            ended_why=why,
            proved_at=row.proved_at,
            epoch=row.epoch,
            generation=row.generation or 0,  # of a new row the server knows it
            amr=tuple(row.amr),
        )

    def expired(self, record: SessionRecord) -> EndReason | None:
        """Which limit it is past, if any."""
        now = self._clock()
        if now >= record.expires_at:
            return EndReason.ABSOLUTE
        # last_seen_at moves once a revalidation, so it may lag behind by as much
        away = (now - record.last_seen_at).total_seconds()
        if away >= record.idle_seconds + self._revalidate_seconds:
            return EndReason.IDLE
        return None

    def add(
        self,
        change: Change,
        user: User,
        actor: Actor,
        *,
        remember: bool,
        lifetime: Lifetime | None = None,
        data: Mapping[str, Any] | None = None,
        proved_at: datetime | None = None,
        amr: Amr = PASSWORD,
        replaces: SessionRow | None = None,
    ) -> ActiveSession:
        """Begins a session of a browser, with `lifetime` or what the limits say.

        Args:
            proved_at: when the person last proved who they are; None: just now.
            amr: how.
            replaces: the session that goes on in this one, with its data.
        """
        row, token = self.new(user, actor, remember=remember, lifetime=lifetime, data=data)
        row.proved_at, row.amr = proved_at, list(amr)
        _go_on(row, replaces)
        change.db.add(row)
        return ActiveSession(token, self.record(row, user))

    def add_program(
        self,
        change: Change,
        user: User,
        actor: Actor,
        *,
        refreshable: bool,
        amr: Amr = PASSWORD,
        replaces: SessionRow | None = None,
    ) -> IssuedTokens:
        """Begins a session of a program; `amr` and `replaces` as for `add`."""
        session_id = uuid4()
        lifetime = self._policy.lifetime(self._clock(), remember=refreshable, kind="api")
        row = self._new(
            session_id,
            digest_of(session_id),
            user,
            actor,
            lifetime,
            kind="api",
            remember=refreshable,
            data=None,
        )
        row.amr = list(amr)
        _go_on(row, replaces)
        change.db.add(row)
        return self.issue_tokens(row, user, refreshable=refreshable)

    def add_like(
        self,
        change: Change,
        user: User,
        actor: Actor,
        replaces: SessionRow,
        added: Amr = (),
    ) -> ActiveSession | IssuedTokens:
        """Begins a session of the same kind as the one that goes on in it, with new limits.

        Args:
            added: how the person has just proved who they are, beside what they proved before.
        """
        remember, amr = replaces.remembered, together(replaces.amr, added)
        if replaces.kind == "api":
            return self.add_program(
                change, user, actor, refreshable=remember, amr=amr, replaces=replaces
            )
        return self.add(change, user, actor, remember=remember, amr=amr, replaces=replaces)

    def new(
        self,
        user: User,
        actor: Actor,
        *,
        remember: bool = False,
        lifetime: Lifetime | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> tuple[SessionRow, SessionToken]:
        """Makes the row and the token of a browser's session, and stores neither."""
        token = self._tokens.mint()
        lifetime = lifetime or self._policy.lifetime(self._clock(), remember=remember)
        row = self._new(
            uuid4(),
            token.digest,
            user,
            actor,
            lifetime,
            kind="browser",
            remember=remember,
            data=data,
        )
        return row, token

    def _new(
        self,
        session_id: UUID,
        digest: bytes,
        user: User,
        actor: Actor,
        lifetime: Lifetime,
        *,
        kind: Kind,
        remember: bool,
        data: Mapping[str, Any] | None,
    ) -> SessionRow:
        now = self._clock()
        return SessionRow(
            id=session_id,
            digest=digest,
            user_id=user.id,
            kind=kind,
            epoch=user.epoch,
            created_at=now,
            last_seen_at=now,
            idle_seconds=int(lifetime.idle.total_seconds()),
            expires_at=lifetime.expires_at,
            address=actor.address,
            user_agent=actor.user_agent[:MAX_USER_AGENT],
            data=dict(data or {}),
            ver=FIRST_VERSION,
            remembered=remember,
            amr=list(PASSWORD),
        )

    def issue_tokens(self, row: SessionRow, user: User, *, refreshable: bool) -> IssuedTokens:
        """Issues an access token for this session, and a refresh token if it can be refreshed."""
        now = self._clock()
        left = min(self._policy.access_token, row.expires_at - now)
        seconds = ceil(left.total_seconds())
        text = self._access_tokens.issue(row.id, user.id, seconds)
        refresh = self._refresh_tokens.mint(row.id) if refreshable else None
        row.refresh_digest = refresh.digest if refresh else None
        token = SessionToken(text, row.digest, user.id)
        return IssuedTokens(ActiveSession(token, self.record(row, user)), seconds, refresh)

    def enforce_cap(
        self, change: Change, user_id: UUID, kind: Kind, replaces: Collection[bytes] = ()
    ) -> None:
        """Ends the sessions that a new one replaces, and the oldest of its kind above the cap.

        Each kind has a cap of its own: programs that ask for tokens sign nobody out of a browser.

        Args:
            replaces: digests. For more than one the caller has called `hold`.
        """
        oldest = (
            select(SessionRow.id)
            .where(
                SessionRow.user_id == user_id,
                SessionRow.kind == kind,
                is_live(),
                SessionRow.expires_at > self._clock(),
                SessionRow.digest.not_in(replaces),
            )
            .order_by(SessionRow.created_at.desc())
            .offset(self._policy.max_per_user - 1)
        )
        # not `digest IN … OR id IN …`, for which Postgres looks at each session there is
        replaced = select(SessionRow.id).where(SessionRow.digest.in_(replaces))
        # Locked in one order: the replaced one may be of another user, who replaces one of ours.
        held = change.db.execute(
            select(SessionRow.id, SessionRow.digest)
            .where(SessionRow.id.in_(union_all(oldest, replaced) if replaces else oldest))
            .order_by(SessionRow.id)
            .with_for_update()
        ).all()
        for why, ids in (
            (EndReason.REPLACED, [row.id for row in held if row.digest in replaces]),
            (EndReason.EVICTED_BY_CAP, [row.id for row in held if row.digest not in replaces]),
        ):
            if ids:
                self.end(change, why, SessionRow.id.in_(ids))
        for digest in sorted(set(replaces) - {row.digest for row in held}):
            self.end_unknown(change, digest)

    def hold(self, change: Change, digests: Collection[bytes], user_id: UUID | None = None) -> None:
        """Locks what several sessions belong to, before they end together.

        All who end several sessions lock in this order, so that no two wait for each other: users
        by id, then digests, then rows of sessions by id.

        Args:
            user_id: a user whose sessions end or begin in the same change.
        """
        owners = select(SessionRow.user_id).where(SessionRow.digest.in_(digests))
        # not `id IN … OR id = …`, for which Postgres looks at each user there is
        change.db.execute(
            select(User.id)
            .where(User.id.in_(union_all(owners, select(literal(user_id, Uuid)))))
            .order_by(User.id)
            .with_for_update(key_share=True)
        )
        for digest in sorted(digests):
            _lock_digest(change.db, digest)

    def end_named(
        self, change: Change, why: EndReason, digests: Collection[bytes], actor: Actor
    ) -> None:
        """Ends the sessions with these digests, those without a row among them."""
        if len(digests) > 1:
            self.hold(change, digests)
        for digest in sorted(digests):
            if not self.end(change, why, SessionRow.digest == digest, actor):
                self.end_unknown(change, digest)

    def end_unknown(self, change: Change, digest: bytes) -> None:
        """Drops the copy of a session that has no live row: it may have begun without one."""
        _lock_digest(change.db, digest)
        if not self.end(change, EndReason.LOGOUT, SessionRow.digest == digest):
            change.touch_session(digest, FIRST_VERSION)

    def end(
        self,
        change: Change,
        why: EndReason,
        which: ColumnElement[bool],
        actor: Actor = NOBODY,
    ) -> int:
        """Ends those that have not ended; returns how many there were."""
        now = self._clock()
        ended = change.db.execute(
            update(SessionRow)
            .where(which, SessionRow.ended_at.is_(None))
            .values(ended_at=now, ended_why=why, ver=SessionRow.ver + 1)
            .returning(*COLUMNS)
            .execution_options(synchronize_session=False)
        ).all()
        for row in ended:
            change.end_session(row.digest, row.ver, ended_copy(row, why, now))
            user_id = row.user_id
            if why is EndReason.ENDED_FOR_EVERYBODY:
                continue  # one event told of them all
            audit.record(
                change.db,
                "session.ended",
                now,
                user_id=user_id,
                actor=actor.known_as(user_id) if why.by_its_owner else actor,
                why=why,
            )
        return len(ended)


def _go_on(row: SessionRow, replaced: SessionRow | None) -> None:
    """Gives a new session the data of the one that it replaces, and its generation: else it would
    outlive the end of everybody's sessions at the same moment."""
    if replaced is not None:
        row.data, row.generation = dict(replaced.data), replaced.generation


def hold_verified(change: Change, user_id: UUID, epoch: int) -> User:
    """Locks the user of these credentials, so that changes of the user wait or have been seen.

    Raises:
        InvalidCredentials: the user was changed or deactivated since they were verified.
        EmailUnverified: the user must confirm the address first.
    """
    user = change.db.scalar(
        select(User)
        .where(User.id == user_id, User.epoch == epoch, User.active)
        .with_for_update(key_share=True)
    )
    if user is None:
        raise InvalidCredentials
    if user.email_confirmation_due:
        raise EmailUnverified(user.id, user.epoch)
    return user


def _lock_digest(db: Session, digest: bytes) -> None:
    """Lets one at a time decide on a session that has no row to lock."""
    number = int.from_bytes(digest[:8], signed=True)
    db.execute(select(func.pg_advisory_xact_lock(number)))
