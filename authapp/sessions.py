"""Sessions: begin, find, patch, end, list. Facts in Postgres, copies in Redis."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, cast
from uuid import UUID

import msgspec
from sqlalchemy import ARRAY, ColumnElement, Text, delete, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from authapp import audit
from authapp.changes import Change, Changes, any_pending
from authapp.copy_keys import session_key
from authapp.database import Database
from authapp.errors import InvalidCredentials, StoreUnavailable
from authapp.identity import Identity
from authapp.models import SessionRow, User
from authapp.tokens import SessionToken, SessionTokens
from authapp.users import identity_of
from authapp.versioned_cache import Lease, VersionedCache, decode_copy

# in JSON; behind an escaped backslash it is only text that looks so
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Clock = Callable[[], datetime]
Kind = Literal["browser", "api"]


class EndReason(StrEnum):
    """Why a session ended; people are told (`messages.py`)."""

    LOGOUT = "logout"
    IDLE = "idle"
    ABSOLUTE = "absolute"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 — a reason, no password
    REVOKED_BY_USER = "revoked_by_user"
    REVOKED_BY_ADMIN = "revoked_by_admin"
    DEACTIVATED = "deactivated"
    EVICTED_BY_CAP = "evicted_by_cap"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long sessions last (OWASP ASVS 5.0, 7.3.1 and 7.3.2) and how many a user has (7.1.2)."""

    idle: timedelta
    absolute: timedelta
    remember: timedelta
    revalidate: timedelta
    max_per_user: int


@dataclass(frozen=True, slots=True)
class _Lifetime:
    idle: timedelta
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as far as it says."""

    address: str = ""
    user_agent: str = ""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A session and a snapshot of its user, as read at `checked_at`."""

    id: UUID
    kind: Kind
    user: Identity
    created_at: datetime
    last_seen_at: datetime
    idle_seconds: int
    expires_at: datetime
    data: dict[str, Any]
    ver: int
    checked_at: datetime
    ended_why: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A session that may act for its user."""

    token: SessionToken
    record: SessionRecord


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that was, and why it is no more."""

    why: EndReason


Found = Live | Ended | None


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as its user sees it in a list. `device` is the raw User-Agent text."""

    id: UUID
    kind: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


class SessionStore:
    """Sessions.

    Raises:
        StoreUnavailable: from every method, when nobody could say. It is not "no session".
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        cache: VersionedCache,
        tokens: SessionTokens,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._changes = changes
        self._cache = cache
        self._tokens = tokens
        self._limits = limits
        self._clock = clock

    # -- begin ---------------------------------------------------------------------------------

    def begin(
        self,
        user_id: UUID,
        epoch: int,
        client: Client,
        *,
        kind: Kind = "browser",
        remember: bool = False,
        replaces: SessionToken | None = None,
    ) -> Live:
        """Starts a session with a new token (OWASP ASVS 5.0, 7.2.4), ending the one it replaces.

        Args:
            epoch: of the credentials that were verified.
        Raises:
            InvalidCredentials: the user was changed or deactivated since they were verified.
        """
        with self._changes.begin() as change:
            user = change.db.scalar(
                select(User)
                .where(User.id == user_id, User.epoch == epoch, User.active)
                .with_for_update(key_share=True)  # changes of this user wait, or have been seen
            )
            if user is None:
                raise InvalidCredentials
            if replaces is not None:
                self._end(change, EndReason.REPLACED, SessionRow.digest == replaces.digest)
            self._make_room(change, user_id)
            live = self._insert(change, user, client, kind, self._lifetime(remember=remember))
            audit.record(
                change.db,
                "session.begun",
                live.record.created_at,
                user_id=user_id,
                actor_id=user_id,
                address=client.address,
                kind=kind,
            )
        return live

    def _lifetime(self, *, remember: bool) -> "_Lifetime":
        now = self._clock()
        if remember:
            return _Lifetime(self._limits.remember, now + self._limits.remember)
        return _Lifetime(self._limits.idle, now + self._limits.absolute)

    def _insert(
        self,
        change: Change,
        user: User,
        client: Client,
        kind: Kind,
        lifetime: "_Lifetime",
        data: Mapping[str, Any] | None = None,
    ) -> Live:
        now = self._clock()
        token = self._tokens.mint()
        row = SessionRow(
            digest=token.digest,
            user_id=user.id,
            kind=kind,
            epoch=user.epoch,
            created_at=now,
            last_seen_at=now,
            idle_seconds=int(lifetime.idle.total_seconds()),
            expires_at=lifetime.expires_at,
            address=client.address,
            user_agent=client.user_agent[:400],
            data=dict(data or {}),
            ver=1,
        )
        change.db.add(row)
        change.db.flush()
        return Live(token, _record(row, user, now))

    def _make_room(self, change: Change, user_id: UUID) -> None:
        now = self._clock()
        live = change.db.scalars(
            select(SessionRow.id)
            .where(
                SessionRow.user_id == user_id,
                SessionRow.ended_at.is_(None),
                SessionRow.expires_at > now,
            )
            .order_by(SessionRow.created_at.desc())
            .offset(self._limits.max_per_user - 1)
        ).all()
        if live:
            self._end(change, EndReason.EVICTED_BY_CAP, SessionRow.id.in_(live))

    # -- find ----------------------------------------------------------------------------------

    def find(self, token: SessionToken) -> Found:
        """The session of a token: one Redis round trip, no SQL, no write while its copy is fresh.

        When Redis can't be asked Postgres answers; when Postgres can't, an old copy does, up to
        its hard limit.
        """
        key = session_key(token.digest)
        try:
            acquired = self._cache.acquire(key)
            copy = decode_copy(acquired.value, SessionRecord)
            if copy is not None and self._is_fresh(copy):
                return self._judge(token, copy)
            lease = acquired.lease or self._cache.acquire(key, renew=True).lease
        except StoreUnavailable:
            return self._judge(token, self._read(token))
        try:
            record = self._read(token, seen=copy.last_seen_at if copy else None)
        except StoreUnavailable:
            if copy is None:
                raise
            return self._serve_stale(token, key, lease, copy)
        if record is not None and lease is not None:
            self._fill(key, lease, record)
        return self._judge(token, record)

    def _is_fresh(self, copy: SessionRecord) -> bool:
        """Whether the facts were read and the visit was noted not long ago."""
        oldest = min(copy.checked_at, copy.last_seen_at)
        return self._clock() - oldest < self._limits.revalidate

    def _serve_stale(
        self, token: SessionToken, key: str, lease: Lease | None, copy: SessionRecord
    ) -> Found:
        """Answers from an old copy while Postgres can't be asked.

        The visit is noted in the copy, so that who is active meanwhile is not found idle later.
        """
        found = self._judge(token, copy)
        if isinstance(found, Live) and lease is not None:
            self._fill(key, lease, msgspec.structs.replace(copy, last_seen_at=self._clock()))
        return found

    def _judge(self, token: SessionToken, record: SessionRecord | None) -> Found:
        if record is None:
            return None
        why = record.ended_why or self._expired(record)
        return Ended(why) if why else Live(token, record)

    def _expired(self, record: SessionRecord) -> EndReason | None:
        now = self._clock()
        if now >= record.expires_at:
            return EndReason.ABSOLUTE
        # last_seen_at moves once a revalidation, so it may lag behind by as much
        idle = timedelta(seconds=record.idle_seconds) + self._limits.revalidate
        if now >= record.last_seen_at + idle:
            return EndReason.IDLE
        return None

    def _read(self, token: SessionToken, seen: datetime | None = None) -> SessionRecord | None:
        """Reads the facts, and notes that the person was here if that is due.

        Args:
            seen: when the copy saw the person last; later than the row knows after an outage.
        """
        now = self._clock()
        with self._database.transaction() as db:
            found = db.execute(
                select(SessionRow, User, any_pending())
                .join(User, User.id == SessionRow.user_id)
                .where(SessionRow.digest == token.digest)
            ).one_or_none()
            if found is None:
                if db.scalar(select(any_pending())):  # removed by hand, perhaps
                    self._changes.catch_up()
                return None
            row, user, fences_pending = found
            if fences_pending:
                self._changes.catch_up()
            record = _record(row, user, now)
            if seen is not None and seen > record.last_seen_at:
                record = msgspec.structs.replace(record, last_seen_at=seen)
            due = now - row.last_seen_at >= self._limits.revalidate / 2
            if due and record.ended_why is None and self._expired(record) is None:
                # Not a change that copies must not miss, so no new version. The condition leaves
                # a session that ended meanwhile as it is.
                db.execute(
                    update(SessionRow)
                    .where(SessionRow.id == row.id, SessionRow.ended_at.is_(None))
                    .values(last_seen_at=now)
                    .execution_options(synchronize_session=False)
                )
                record = msgspec.structs.replace(record, last_seen_at=now)
            return record

    def _fill(self, key: str, lease: Lease, record: SessionRecord) -> None:
        remaining = (record.expires_at - self._clock()).total_seconds()
        ttl = min(max(remaining, 60.0), record.idle_seconds + 3_600.0)
        self._cache.fill_quietly(key, lease, record.ver, record, ttl)

    # -- patch ---------------------------------------------------------------------------------

    def patch(self, live: Live, changed: Mapping[str, Any], removed: Sequence[str]) -> bool:
        """Saves keys of the session's data, leaving the others as they are.

        Returns:
            False when the session is no longer live: then nothing was saved, nor revived.
        Raises:
            ValueError: a value holds text that Postgres can't store.
        """
        for name, value in changed.items():
            if not _is_storable({name: value}):
                raise ValueError(f"session[{name!r}] holds NUL or half a surrogate pair")
        with self._changes.begin() as change:
            # in SQL `-` binds closer than `||`
            kept = SessionRow.data.op("-")(literal(list(removed), ARRAY(Text)))
            data = kept.op("||")(literal(dict(changed), JSONB))
            row = change.db.execute(
                update(SessionRow)
                .where(SessionRow.digest == live.token.digest, SessionRow.ended_at.is_(None))
                .values(data=data, ver=SessionRow.ver + 1)
                .returning(SessionRow.digest, SessionRow.ver)
            ).one_or_none()
            if row is not None:
                change.of_session(*row)
        return row is not None

    # -- end -----------------------------------------------------------------------------------

    def end(self, token: SessionToken, why: EndReason, client: Client) -> None:
        """Ends the session of this token; nothing happens when it has ended."""
        with self._changes.begin() as change:
            self._end(change, why, SessionRow.digest == token.digest, client)

    def end_one(self, user_id: UUID, session_id: UUID, why: EndReason, client: Client) -> bool:
        """Ends one session of this user.

        Returns:
            False when the user has no such live session.
        """
        with self._changes.begin() as change:
            mine = (SessionRow.user_id == user_id) & (SessionRow.id == session_id)
            return self._end(change, why, mine, client) > 0

    def end_others(self, live: Live, why: EndReason, client: Client) -> int:
        """Ends all sessions of the user but this one; returns how many."""
        user_id = live.record.user.id
        with self._changes.begin() as change:
            # who touches several sessions of a user holds the user's row, or two could deadlock
            change.db.scalar(
                select(User.id).where(User.id == user_id).with_for_update(key_share=True)
            )
            others = (SessionRow.user_id == user_id) & (SessionRow.id != live.record.id)
            return self._end(change, why, others, client)

    def end_all(self, change: Change, user_id: UUID, why: EndReason) -> int:
        """Ends all sessions of a user within a change the caller completes; returns how many."""
        return self._end(change, why, SessionRow.user_id == user_id)

    def end_expired(self, limit: int) -> int:
        """Ends up to `limit` sessions that are past their limits; returns how many."""
        now = self._clock()
        idle_end = SessionRow.last_seen_at + SessionRow.idle_seconds * text("interval '1 second'")
        with self._changes.begin(told=False) as change:
            rows = change.db.execute(
                select(SessionRow.id, SessionRow.expires_at <= now)
                .where(
                    SessionRow.ended_at.is_(None),
                    (SessionRow.expires_at <= now) | (idle_end + self._limits.revalidate <= now),
                )
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for why in (EndReason.ABSOLUTE, EndReason.IDLE):
                ids = [row.id for row in rows if row[1] is (why is EndReason.ABSOLUTE)]
                self._end(change, why, SessionRow.id.in_(ids))
        return len(rows)

    def prune(self, retention: timedelta, limit: int) -> int:
        """Removes up to `limit` sessions that ended longer ago than `retention`; returns how many.

        No copy is dropped: one that says "ended" stays true, and none that is live is left.
        """
        with self._changes.begin(told=False) as change:
            old = (
                select(SessionRow.id)
                .where(SessionRow.ended_at < self._clock() - retention)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            removed = change.db.scalars(
                delete(SessionRow)
                .where(SessionRow.id.in_(old))
                .returning(SessionRow.id)
                .execution_options(synchronize_session=False)
            ).all()
        return len(removed)

    def _end(
        self,
        change: Change,
        why: EndReason,
        which: ColumnElement[bool],
        client: Client | None = None,
    ) -> int:
        now = self._clock()
        ended = change.db.execute(
            update(SessionRow)
            .where(which, SessionRow.ended_at.is_(None))
            .values(ended_at=now, ended_why=why, ver=SessionRow.ver + 1)
            .returning(SessionRow.digest, SessionRow.ver, SessionRow.user_id)
            .execution_options(synchronize_session=False)
        ).all()
        for digest, version, user_id in ended:
            change.of_session(digest, version)
            audit.record(
                change.db,
                "session.ended",
                now,
                user_id=user_id,
                address=client.address if client else "",
                why=why,
            )
        return len(ended)

    # -- replace and list ----------------------------------------------------------------------

    def renew_alone(
        self, change: Change, live: Live, why: EndReason, client: Client
    ) -> Live | None:
        """Ends all sessions of the user, and begins one with the data of this one and new limits
        (NIST SP 800-63B-4, 2.1.3: re-authentication resets both).

        Within a change, completed by the caller, that holds the user's row.

        Returns:
            None when this session is no longer live: then none is ended nor begun.
        """
        row = self._held(change, live)
        if row is None:
            return None
        data = dict(row.data)
        self.end_all(change, live.record.user.id, why)
        user = change.db.get_one(User, live.record.user.id)
        lifetime = self._lifetime(remember=self.is_remembered(live.record))
        return self._insert(change, user, client, live.record.kind, lifetime, data)

    def _held(self, change: Change, live: Live) -> SessionRow | None:
        return change.db.scalar(
            select(SessionRow)
            .where(SessionRow.digest == live.token.digest, SessionRow.ended_at.is_(None))
            .with_for_update()
        )

    def is_remembered(self, record: SessionRecord) -> bool:
        """Whether the person asked to stay signed in on this device."""
        return record.idle_seconds == int(self._limits.remember.total_seconds())

    def regenerate(self, live: Live, client: Client) -> Live | None:
        """A new token for a session that goes on, with its limits and data; the old one is dead.

        Returns:
            None when the session is no longer live.
        """
        with self._changes.begin() as change:
            user = change.db.scalars(
                select(User).where(User.id == live.record.user.id).with_for_update(key_share=True)
            ).one()
            row = self._held(change, live)
            if row is None or not user.active or row.epoch != user.epoch:
                return None
            lifetime = _Lifetime(timedelta(seconds=row.idle_seconds), row.expires_at)
            data = dict(row.data)
            self._end(change, EndReason.REPLACED, SessionRow.digest == live.token.digest)
            return self._insert(change, user, client, live.record.kind, lifetime, data)

    def of_user(self, user_id: UUID) -> Sequence[SessionSummary]:
        """The user's live sessions, the most recently seen first."""
        now = self._clock()
        with self._database.transaction() as db:
            rows = db.scalars(
                select(SessionRow)
                .where(
                    SessionRow.user_id == user_id,
                    SessionRow.ended_at.is_(None),
                    SessionRow.expires_at > now,
                )
                .order_by(SessionRow.last_seen_at.desc(), SessionRow.id)
            ).all()
        grace = self._limits.revalidate
        return [
            SessionSummary(
                row.id,
                row.kind,
                row.created_at,
                row.last_seen_at,
                row.expires_at,
                row.address,
                row.user_agent,
            )
            for row in rows
            if row.last_seen_at + timedelta(seconds=row.idle_seconds) + grace > now
        ]


def _record(row: SessionRow, user: User, now: datetime) -> SessionRecord:
    why = EndReason(row.ended_why) if row.ended_why else None
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
        checked_at=now,
        ended_why=why,
    )


def _is_storable(value: object) -> bool:
    try:
        return _NUL.search(msgspec.json.encode(value)) is None
    except UnicodeEncodeError:
        return False
