"""Rows of sessions in Postgres: read, inserted and ended."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from math import ceil
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    Executable,
    Row,
    Uuid,
    literal,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import NOBODY, Actor
from authapp.accounts.assurance import PASSWORD, Amr, proves_second_factor, together
from authapp.accounts.identity import Identity, identity_with
from authapp.cache.changes import Change, announce
from authapp.crypto.access_tokens import AccessTokens, digest_of
from authapp.crypto.tokens import RefreshToken, RefreshTokens, SessionToken, SessionTokens
from authapp.sessions import statements
from authapp.sessions.ended_copies import ended_copy
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
    """Reads, inserts and ends rows, within changes that the callers complete."""

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
        self,
        row: SessionRow | Row[Any],
        user: Identity,
        epoch: int,
        *,
        is_outlived: bool | None = False,
        user_ver: int = 0,
    ) -> SessionRecord:
        """The session by its row and the row of its user.

        Args:
            epoch, user_ver: of the user.
            is_outlived: the sessions of everybody were ended since it began.
        """
        why = EndReason(row.ended_why) if row.ended_why else None
        if why is None and is_outlived:
            why = EndReason.ENDED_FOR_EVERYBODY
        if why is None and not user.active:
            why = EndReason.DEACTIVATED
        if why is None and row.epoch != epoch:
            why = EndReason.PASSWORD_CHANGED
        return SessionRecord(
            id=row.id,
            kind=cast(Kind, row.kind),  # a check constraint holds it
            user=user,
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
            user_ver=user_ver,
        )

    def expired(self, record: SessionRecord) -> EndReason | None:
        """The limit that the session is past, if any."""
        now = self._clock()
        if now >= record.expires_at:
            return EndReason.ABSOLUTE
        # last_seen_at moves once a revalidation, so it may lag behind by as much
        away = (now - record.last_seen_at).total_seconds()
        if away >= record.idle_seconds + self._revalidate_seconds:
            return EndReason.IDLE
        return None

    def begin(
        self,
        change: Change,
        user: User,
        actor: Actor,
        *,
        remember: bool,
        data: Mapping[str, Any] | None = None,
        amr: Amr = PASSWORD,
        **how: str,
    ) -> ActiveSession:
        """Begins a session of a browser, and records that it began.

        Args:
            amr: how the person proved who they are.
            how: details of the log-in for the event.
        """
        row, token = self.new(user, actor, remember=remember)
        row.data, row.amr = dict(data or {}), list(amr)
        person = _insert(change, row, user, _begun(change, row, actor, how))
        return ActiveSession(token, self.record(row, person, user.epoch))

    def begin_program(
        self, change: Change, user: User, actor: Actor, *, refreshable: bool, amr: Amr = PASSWORD
    ) -> IssuedTokens:
        """Begins a session of a program, and records that it began; `amr` as for `begin`."""
        row, refresh = self._new_program(user, actor, refreshable=refreshable)
        row.amr = list(amr)
        person = _insert(change, row, user, _begun(change, row, actor, {}))
        return self.issue_tokens(row, person, user.epoch, refresh)

    def add_like(
        self, change: Change, user: User, actor: Actor, replaces: SessionRow, added: Amr = ()
    ) -> ActiveSession | IssuedTokens:
        """Begins a session of the same kind as the one that goes on in it, with new limits.

        Args:
            added: how the person has just proved who they are, beside what they proved before.
        """
        amr = together(replaces.amr, added)
        # A password is no fresh proof of a person who holds a second factor.
        is_proved = proves_second_factor(added) or not user.second_factor
        proved_at = None if is_proved else replaces.proved_at or replaces.created_at
        if replaces.kind == "api":
            row, refresh = self._new_program(user, actor, refreshable=replaces.remembered)
            row.proved_at, row.amr = proved_at, list(amr)
            person = _insert_after(change, row, user, replaces)
            return self.issue_tokens(row, person, user.epoch, refresh)
        return self.add_successor(change, user, actor, replaces, amr=amr, proved_at=proved_at)

    def add_successor(
        self,
        change: Change,
        user: User,
        actor: Actor,
        replaces: SessionRow,
        *,
        amr: Iterable[str],
        lifetime: Lifetime | None = None,
        proved_at: datetime | None = None,
    ) -> ActiveSession:
        """Begins a session of a browser in which another goes on.

        Args:
            amr: how the person proved who they are.
            lifetime: its limits; None: those of a session that begins now.
            proved_at: when they last did; None: just now.
        """
        row, token = self.new(user, actor, remember=replaces.remembered, lifetime=lifetime)
        row.proved_at, row.amr = proved_at, list(amr)
        person = _insert_after(change, row, user, replaces)
        return ActiveSession(token, self.record(row, person, user.epoch))

    def new(
        self,
        user: User,
        actor: Actor,
        *,
        remember: bool = False,
        lifetime: Lifetime | None = None,
    ) -> tuple[SessionRow, SessionToken]:
        """Makes the row and the token of a browser's session, and stores neither."""
        token = self._tokens.mint()
        lifetime = lifetime or self._policy.lifetime(self._clock(), remember=remember)
        row = self._new("browser", uuid4(), token.digest, user, actor, lifetime, remember=remember)
        return row, token

    def _new_program(
        self, user: User, actor: Actor, *, refreshable: bool
    ) -> tuple[SessionRow, RefreshToken | None]:
        session_id = uuid4()
        lifetime = self._policy.lifetime(self._clock(), remember=refreshable, kind="api")
        digest = digest_of(session_id)
        row = self._new("api", session_id, digest, user, actor, lifetime, remember=refreshable)
        return row, self.next_refresh_token(row) if refreshable else None

    def _new(
        self,
        kind: Kind,
        session_id: UUID,
        digest: bytes,
        user: User,
        actor: Actor,
        lifetime: Lifetime,
        *,
        remember: bool,
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
            data={},
            ver=FIRST_VERSION,
            remembered=remember,
            amr=list(PASSWORD),
        )

    def next_refresh_token(self, row: SessionRow) -> RefreshToken:
        """Makes the only refresh token that counts from now on for this session."""
        refresh = self._refresh_tokens.mint(row.id)
        row.refresh_digest = refresh.digest
        return refresh

    def issue_tokens(
        self, row: SessionRow, user: Identity, epoch: int, refresh: RefreshToken | None
    ) -> IssuedTokens:
        """Issues an access token for this session, beside its refresh token.

        Args:
            epoch: of the user.
        """
        left = min(self._policy.access_token, row.expires_at - self._clock())
        seconds = ceil(left.total_seconds())
        proved_at = row.proved_at or row.created_at
        text = self._access_tokens.issue(row.id, user.id, seconds, row.amr, proved_at)
        token = SessionToken(text, row.digest, user.id)
        return IssuedTokens(ActiveSession(token, self.record(row, user, epoch)), seconds, refresh)

    def enforce_cap(
        self, change: Change, user_id: UUID, kind: Kind, replaces: Collection[bytes] = ()
    ) -> None:
        """Ends the sessions that a new one replaces, and the oldest of its kind above the cap.

        Each kind has a cap of its own: programs that ask for tokens sign nobody out of a browser.

        Args:
            replaces: digests. For more than one the caller has called `hold`.
        """
        held = change.db.execute(
            statements.HOLD_ENDING,
            {
                "user_id": user_id,
                "kind": kind,
                "now": self._clock(),
                "replaces": list(replaces),
                "without": list(replaces),
                "kept": self._policy.max_per_user - 1,
            },
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
        """Locks the users and digests of several sessions before they end together.

        Every change that ends several sessions locks in this order, which prevents deadlocks:
        users by id, then digests, then rows of sessions by id.

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
            if not self._end_one(change, why, digest, actor):
                self.end_unknown(change, digest)

    def end_unknown(self, change: Change, digest: bytes) -> None:
        """Drops the copy of a session without an active row, which may be provisional."""
        _lock_digest(change.db, digest)
        if not self._end_one(change, EndReason.LOGOUT, digest):
            change.touch_session(digest, FIRST_VERSION)

    def end(
        self,
        change: Change,
        why: EndReason,
        which: ColumnElement[bool],
        actor: Actor = NOBODY,
    ) -> int:
        """Ends those of these sessions that have not ended; returns how many."""
        silently = why is EndReason.ENDED_FOR_EVERYBODY  # one event told of them all
        statement = statements.end_silently(which) if silently else statements.end(which)
        return self._end(change, why, statement, actor)

    def _end_one(
        self, change: Change, why: EndReason, digest: bytes, actor: Actor = NOBODY
    ) -> bool:
        return self._end(change, why, statements.END_ONE, actor, of_digest=digest) > 0

    def _end(
        self,
        change: Change,
        why: EndReason,
        statement: Executable,
        actor: Actor,
        **which: bytes,
    ) -> int:
        now, by_owner = self._clock(), why.by_its_owner
        event = audit.parameters("session.ended", now, user_id=None, actor=actor, why=why)
        found = {"now": now, "why": why, "by_owner": by_owner, **event, **which}
        ended = change.db.execute(statement, found).all()
        for row in ended:
            change.end_session(row.digest, row.ver, ended_copy(row, why, now))
            if why is not EndReason.ENDED_FOR_EVERYBODY:
                by = actor.known_as(row.user_id) if by_owner else actor
                announce(change.db, audit.Fact("session.ended", row.user_id, by, {"why": why}))
        return len(ended)


def _insert(
    change: Change, row: SessionRow, user: User, event: dict[str, Any] | None = None
) -> Identity:
    """Inserts a new session, and its event, if any; returns its user."""
    statement = statements.INSERT if event is None else statements.INSERT_AND_RECORD
    parameters = statements.parameters_of(row) | (event or {})
    # not by the Session, which would first write the user, whom the caller goes on to change
    read = change.db.connection().execute(statement, parameters).one()
    return identity_with(user, read.person_roles, read.person_permissions)


def _insert_after(change: Change, row: SessionRow, user: User, replaced: SessionRow) -> Identity:
    """Inserts a session with the data and the generation of the one that it replaces. With a newer
    generation it could survive an end of everybody's sessions at the same moment."""
    row.data, row.generation = dict(replaced.data), replaced.generation
    return _insert(change, row, user)


def _begun(change: Change, row: SessionRow, actor: Actor, how: Mapping[str, str]) -> dict[str, Any]:
    """The event that a session began, for `_insert`."""
    return audit.record_within(
        change.db,
        "session.begun",
        row.created_at,
        user_id=row.user_id,
        actor=actor.known_as(row.user_id),
        kind=row.kind,
        **how,
    )


def _lock_digest(db: Session, digest: bytes) -> None:
    """Locks a session that has no row to lock."""
    db.execute(statements.LOCK, {"number": int.from_bytes(digest[:8], signed=True)})
