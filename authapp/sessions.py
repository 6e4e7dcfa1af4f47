"""Sessions: begin, find, patch, end, list. Facts in Postgres, copies in Redis."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ARRAY, ColumnElement, Text, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from authapp import audit, metrics
from authapp.access_tokens import AccessTokens, Claim, digest_of
from authapp.changes import Change, Changes, any_pending
from authapp.copy_keys import session_key
from authapp.credentials import Credentials
from authapp.database import Database, PostgresUnavailable, Trouble
from authapp.errors import InvalidCredentials, NotAuthenticated, StoreUnavailable
from authapp.models import PendingFence, SessionRow, User
from authapp.provisional_sessions import FIRST_VERSION, ProvisionalSessions
from authapp.resilience import deadline
from authapp.session_records import (
    Client,
    Ended,
    EndReason,
    Found,
    Grant,
    Kind,
    Lifetime,
    Limits,
    Live,
    Provisional,
    SessionRecord,
    SessionSummary,
    VerifiedToken,
    is_storable,
)
from authapp.tokens import RefreshToken, RefreshTokens, SessionToken, SessionTokens
from authapp.users import identity_of
from authapp.versioned_cache import Lease, VersionedCache, decode_copy

Clock = Callable[[], datetime]

REVALIDATION_PATIENCE = 0.8  # seconds that Postgres has while there is a copy to serve
MAX_VERIFIED = 4  # access tokens that the copy of a session knows; the others are checked again


@dataclass(frozen=True, slots=True)
class _Proof:
    """That a token is ours.

    Attributes:
        claim: what it says, if it is an access token.
        verified: the access tokens that a copy of the session shall know.
        is_new: whether the copy does not know this one yet.
    """

    token: SessionToken
    claim: Claim | None = None
    verified: tuple[VerifiedToken, ...] = ()
    is_new: bool = False

    def fits(self, record: SessionRecord) -> bool:
        """Whether such a token may name this session."""
        if self.claim is None:
            return record.kind == "browser"
        return record.kind == "api" and record.user.id == self.claim.user_id


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
        provisional: ProvisionalSessions,
        limits: Limits,
        clock: Clock,
        *,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
    ) -> None:
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._provisional = provisional
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
            remember: it lasts long; one of kind `api` can be refreshed.
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
            self._make_room(change, user_id, replaces.digest if replaces else None)
            live = self._insert(change, user, client, kind, remember=remember)
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

    def begin_verified(
        self,
        credentials: Credentials,
        client: Client,
        *,
        remember: bool = False,
        replaces: SessionToken | None = None,
    ) -> Live:
        """As `begin`, for a browser; while Postgres is away the session begins in Redis.

        Raises:
            InvalidCredentials: as `begin`.
            StoreUnavailable: neither store took it.
        """
        user = credentials.user
        try:
            return self.begin(
                user.id, credentials.epoch, client, remember=remember, replaces=replaces
            )
        except StoreUnavailable:
            return self._provisional.begin(
                credentials, client, remember=remember, replaces=replaces
            )

    def _insert(
        self,
        change: Change,
        user: User,
        client: Client,
        kind: Kind,
        *,
        remember: bool,
        lifetime: Lifetime | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Live:
        now, session_id = self._clock(), uuid4()
        lifetime = lifetime or self._limits.lifetime(now, remember=remember, kind=kind)
        token = self._tokens.mint() if kind == "browser" else None
        row = SessionRow(
            id=session_id,
            digest=token.digest if token else digest_of(session_id),
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
        if token:
            return Live(token, _record(row, user, now))
        return self._grant(change.db, row, user, refreshable=remember)

    def _grant(self, db: Session, row: SessionRow, user: User, *, refreshable: bool) -> Live:
        """An access token for this session, and what the next can be had for."""
        now = self._clock()
        left = min(self._limits.access_token, row.expires_at - now)
        seconds = ceil(left.total_seconds())
        text = self._access_tokens.issue(row.id, user.id, seconds)
        refresh = self._refresh_tokens.mint(row.id) if refreshable else None
        row.refresh_digest = refresh.digest if refresh else None
        db.flush()
        return Live(
            SessionToken(text, row.digest), _record(row, user, now), Grant(seconds, refresh)
        )

    def _make_room(self, change: Change, user_id: UUID, replaces: bytes | None) -> None:
        """Ends the session that the new one replaces, and the oldest above the cap."""
        oldest = (
            select(SessionRow.id)
            .where(
                SessionRow.user_id == user_id,
                SessionRow.ended_at.is_(None),
                SessionRow.expires_at > self._clock(),
                SessionRow.digest.is_distinct_from(replaces),
            )
            .order_by(SessionRow.created_at.desc())
            .offset(self._limits.max_per_user - 1)
        )
        # Locked in one order: the replaced one may be of another user, who replaces one of ours.
        held = change.db.execute(
            select(SessionRow.id, SessionRow.digest)
            .where((SessionRow.digest == replaces) | SessionRow.id.in_(oldest))
            .order_by(SessionRow.id)
            .with_for_update()
        ).all()
        for session_id, digest in held:
            why = EndReason.REPLACED if digest == replaces else EndReason.EVICTED_BY_CAP
            self._end(change, why, SessionRow.id == session_id)
        if replaces is not None and all(digest != replaces for _, digest in held):
            self._end_unknown(change, replaces)

    # -- find ----------------------------------------------------------------------------------

    def find(self, token: SessionToken | Claim) -> Found:
        """The session of a token: one Redis round trip, no SQL, no write while its copy is fresh.

        When Redis can't be asked Postgres answers; when Postgres can't, an old copy does, up to
        its hard limit. The signature of an access token is checked at its first use alone: from
        then on the copy knows the token.
        """
        key = session_key(token.digest)
        try:
            # nobody has checked the signature of an access token yet
            acquired = self._cache.acquire(key, leave_nothing=isinstance(token, Claim))
            copy = decode_copy(acquired.value, SessionRecord)
            proof = self._prove(token, copy)
            if proof is None:
                return None
            if copy is not None and self._is_fresh(copy):
                if proof.is_new:
                    self._remember(key, proof)
                return self._judge(proof, copy)
            if copy is not None and self._database.breaker.is_open and not self._visit_is_due(copy):
                return self._serve_stale(proof, key, None, copy)
            lease = acquired.lease or self._cache.acquire(key, renew=True).lease
        except StoreUnavailable:
            proof = self._prove(token, None)
            return self._judge(proof, self._find_without_copies(proof)) if proof else None
        try:
            record = self._revalidate(proof.token, copy)
        except StoreUnavailable:
            if copy is None:
                raise
            return self._serve_stale(proof, key, lease, copy)
        if record is not None and lease is not None:
            self._fill(key, lease, record, proof.verified)
        return self._judge(proof, record)

    def _prove(self, token: SessionToken | Claim, copy: SessionRecord | None) -> _Proof | None:
        """That we made this token; None when we did not."""
        if isinstance(token, SessionToken):
            return _Proof(token)
        known = copy.verified if copy else ()
        checked = SessionToken(token.text, token.digest)
        if token.is_among([one.fingerprint for one in known]):
            return _Proof(checked, token, known)
        fingerprint = self._access_tokens.verify(token)
        if fingerprint is None:
            return None
        now = self._clock()
        lasting = [one for one in known if one.expires_at > now]
        verified = (VerifiedToken(fingerprint, token.expires_at), *lasting)[:MAX_VERIFIED]
        return _Proof(checked, token, verified, is_new=True)

    def _remember(self, key: str, proof: _Proof) -> None:
        """Has the copy know this access token; if Redis does not take it, it is checked again."""
        try:
            acquired = self._cache.acquire(key, renew=True)
        except StoreUnavailable:
            return
        # not the copy from before the lease: a fence between the two would be missed
        copy = decode_copy(acquired.value, SessionRecord)
        if copy is not None and acquired.lease is not None:
            self._fill(key, acquired.lease, copy, proof.verified)

    def _find_without_copies(self, proof: _Proof) -> SessionRecord | None:
        # Redis would keep who catches up waiting once more
        record = self._read(proof.token, catch_up=False)
        if record is None and proof.claim is None:
            # Only Redis knows of a session that began while Postgres was away.
            raise StoreUnavailable("redis")
        return record

    def _is_fresh(self, copy: SessionRecord) -> bool:
        """Whether the facts were read and the visit was noted not long ago."""
        oldest = min(copy.checked_at, copy.last_seen_at)
        # a copy from the future, of a clock that was set back, is not fresh until that time comes
        age = abs(self._clock() - oldest)
        return age < self._limits.revalidate and copy.provisional is None

    def _visit_is_due(self, copy: SessionRecord) -> bool:
        """Whether it must be noted, in the row or the copy, that the person is here."""
        return self._clock() - copy.last_seen_at >= self._limits.revalidate / 2

    def _revalidate(self, token: SessionToken, copy: SessionRecord | None) -> SessionRecord | None:
        if copy is None:
            return self._read(token)
        # who has a copy to serve is not kept waiting for a Postgres that does not answer
        with deadline(REVALIDATION_PATIENCE):
            if copy.provisional is not None:
                self._make_durable(token, copy, copy.provisional)
            return self._read(token, seen=copy.last_seen_at)

    def _serve_stale(
        self, proof: _Proof, key: str, lease: Lease | None, copy: SessionRecord
    ) -> Found:
        """Answers from an old copy while Postgres can't be asked.

        The visit is noted in the copy, so that who is active meanwhile is not found idle later.
        """
        if copy.provisional is not None:
            user = self._provisional.user_of(copy)
            copy = msgspec.structs.replace(copy, user=user)
        metrics.STALE_COPIES.inc()
        found = self._judge(proof, copy)
        if isinstance(found, Live) and lease is not None and self._visit_is_due(copy):
            seen = msgspec.structs.replace(copy, last_seen_at=self._clock())
            self._fill(key, lease, seen, proof.verified)
        return found

    def _judge(self, proof: _Proof, record: SessionRecord | None) -> Found:
        if record is None or not proof.fits(record):
            return None
        why = record.ended_why or self._expired(record)
        return Ended(why) if why else Live(proof.token, record)

    def _expired(self, record: SessionRecord) -> EndReason | None:
        now = self._clock()
        if now >= record.expires_at:
            return EndReason.ABSOLUTE
        # last_seen_at moves once a revalidation, so it may lag behind by as much
        idle = timedelta(seconds=record.idle_seconds) + self._limits.revalidate
        if now >= record.last_seen_at + idle:
            return EndReason.IDLE
        return None

    def _read(
        self, token: SessionToken, seen: datetime | None = None, *, catch_up: bool = True
    ) -> SessionRecord | None:
        """Reads the facts, and notes that the person was here if that is due.

        Args:
            seen: when the copy saw the person last; later than the row knows after an outage.
            catch_up: set fences that are written down, if any are.
        """

        def read(*, note: bool) -> tuple[SessionRecord | None, bool]:
            return self._database.read(lambda db: self._query(db, token, seen, note=note))

        try:
            record, fences_pending = read(note=True)
        except PostgresUnavailable as error:
            if error.trouble not in {Trouble.READ_ONLY, Trouble.REFUSED}:
                raise
            # it takes no changes, perhaps for want of room; that keeps nobody from reading
            record, fences_pending = read(note=False)
        if catch_up and fences_pending:
            self._changes.catch_up()
        return record

    def _query(
        self, db: Session, token: SessionToken, seen: datetime | None, *, note: bool
    ) -> tuple[SessionRecord | None, bool]:
        """The facts, and whether fences are written down."""
        now = self._clock()
        found = db.execute(
            select(SessionRow, User, any_pending())
            .join(User, User.id == SessionRow.user_id)
            .where(SessionRow.digest == token.digest)
        ).one_or_none()
        if found is None:  # removed by hand, perhaps
            return None, bool(db.scalar(select(any_pending())))
        row, user, fences_pending = found
        record = _record(row, user, now)
        if seen is not None and seen > record.last_seen_at:
            record = msgspec.structs.replace(record, last_seen_at=seen)
        due = now - row.last_seen_at >= self._limits.revalidate / 2
        if note and due and record.ended_why is None and self._expired(record) is None:
            # Not a change that copies must not miss, so no new version. The conditions leave a
            # session that ended meanwhile as it is, and wait for nobody who is changing it.
            free = (
                select(SessionRow.id)
                .where(SessionRow.id == row.id, SessionRow.ended_at.is_(None))
                .with_for_update(skip_locked=True)
            )
            db.execute(
                update(SessionRow)
                .where(SessionRow.id.in_(free))
                .values(last_seen_at=now)
                .execution_options(synchronize_session=False)
            )
            record = msgspec.structs.replace(record, last_seen_at=now)
        return record, fences_pending

    def _make_durable(self, token: SessionToken, copy: SessionRecord, begun: Provisional) -> None:
        """Gives a session that began while Postgres was away its row, once."""
        with self._changes.begin(told=False) as change:
            db = change.db
            _hold_token(db, token.digest)
            user = db.scalar(
                select(User).where(User.id == copy.user.id).with_for_update(key_share=True)
            )
            known = db.scalar(select(SessionRow.id).where(SessionRow.digest == token.digest))
            if user is None or known is not None or self._expired(copy):
                return
            if not self._still_begun(change, token, copy):
                return
            self._make_room(change, user.id, begun.replaces)
            row = SessionRow(
                id=copy.id,
                digest=token.digest,
                user_id=user.id,
                kind=copy.kind,
                epoch=begun.epoch,
                created_at=copy.created_at,
                last_seen_at=copy.last_seen_at,
                idle_seconds=copy.idle_seconds,
                expires_at=begun.expires_at,
                address=begun.address,
                user_agent=begun.user_agent[:400],
                data=copy.data,
                ver=FIRST_VERSION,
            )
            db.add(row)
            db.flush()
            change.of_session(token.digest, FIRST_VERSION)
            audit.record(
                db,
                "session.begun",
                copy.created_at,
                user_id=user.id,
                actor_id=user.id,
                address=begun.address,
                kind=copy.kind,
                while_postgres_was_away=True,
            )
            # ended by a change that could not see it
            if (why := _record(row, user, self._clock()).ended_why) is not None:
                self._end(change, why, SessionRow.id == row.id)

    def _still_begun(self, change: Change, token: SessionToken, copy: SessionRecord) -> bool:
        """Whether the copy stands. Who logs out without a row drops it under the same lock."""
        key = session_key(token.digest)
        owed = change.db.scalar(select(PendingFence.id).where(PendingFence.key == key).limit(1))
        now = decode_copy(self._cache.acquire(key).value, SessionRecord)
        return owed is None and now is not None and now.id == copy.id

    def _fill(
        self,
        key: str,
        lease: Lease,
        record: SessionRecord,
        verified: tuple[VerifiedToken, ...],
    ) -> None:
        now = self._clock()
        remaining = (record.expires_at - now).total_seconds()
        ttl = min(max(remaining, 60.0), record.idle_seconds + 3_600.0)
        if verified:  # no token is known for longer than it lasts
            ttl = min(ttl, (max(one.expires_at for one in verified) - now).total_seconds())
        record = msgspec.structs.replace(record, verified=verified)
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
            if not is_storable({name: value}):
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
            if row is None:
                _must_have_had_row(live)
            else:
                change.of_session(*row)
        return row is not None

    # -- end -----------------------------------------------------------------------------------

    def end(self, token: SessionToken, why: EndReason, client: Client) -> None:
        """Ends the session of this token; nothing happens when it has ended."""
        with self._changes.begin() as change:
            if not self._end(change, why, SessionRow.digest == token.digest, client):
                self._end_unknown(change, token.digest)

    def _end_unknown(self, change: Change, digest: bytes) -> None:
        """Drops the copy of a session that has no live row: it may have begun without one."""
        _hold_token(change.db, digest)
        if not self._end(change, EndReason.LOGOUT, SessionRow.digest == digest):
            change.of_session(digest, FIRST_VERSION)

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
            user = change.db.scalars(
                select(User).where(User.id == user_id).with_for_update(key_share=True)
            ).one()
            others = (SessionRow.user_id == user_id) & (SessionRow.id != live.record.id)
            ended = self._end(change, why, others, client)
            # those that have no row yet end by the epoch, which this one follows
            user.epoch += 1
            user.ver += 1
            mine = change.db.scalars(
                update(SessionRow)
                .where(SessionRow.id == live.record.id)
                .values(epoch=user.epoch)
                .returning(SessionRow.id)
                .execution_options(synchronize_session=False)
            ).all()
            if not mine:
                _must_have_had_row(live)
            change.of_user(user)
            return ended

    def end_all(self, change: Change, user_id: UUID, why: EndReason) -> int:
        """Ends all sessions of a user within a change that the caller completes, and that raises
        the user's epoch: this ends those that have no row yet. Returns how many had one."""
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
                actor_id=user_id if why.by_its_owner else None,
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
        remember = self.is_remembered(live.record)
        return self._insert(change, user, client, live.record.kind, remember=remember, data=data)

    def _held(self, change: Change, live: Live) -> SessionRow | None:
        row = change.db.scalar(
            select(SessionRow)
            .where(SessionRow.digest == live.token.digest, SessionRow.ended_at.is_(None))
            .with_for_update()
        )
        if row is None:
            _must_have_had_row(live)
        return row

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
            lifetime = Lifetime(timedelta(seconds=row.idle_seconds), row.expires_at)
            data = dict(row.data)
            self._end(change, EndReason.REPLACED, SessionRow.digest == live.token.digest)
            return self._insert(
                change,
                user,
                client,
                live.record.kind,
                remember=self.is_remembered(live.record),
                lifetime=lifetime,
                data=data,
            )

    def refresh(self, token: RefreshToken, client: Client) -> Live:
        """A new access token for a session that goes on, and the next refresh token.

        A refresh token counts once. Who sends one again has it from somebody who used it, or had it
        stolen and used: nobody can tell which, so the session ends, with all of its tokens
        (RFC 9700, 4.14.2). That holds for a program that lost the answer, too.

        Raises:
            NotAuthenticated: the session has ended, just now perhaps.
        """
        with self._changes.begin() as change:
            live = self._refresh(change, token, client)
        if live is None:  # raised here, as ending the session must be committed
            raise NotAuthenticated(presented=True)
        return live

    def _refresh(self, change: Change, token: RefreshToken, client: Client) -> Live | None:
        found = change.db.execute(
            select(SessionRow, User)
            .join(User, User.id == SessionRow.user_id)
            .where(SessionRow.id == token.session_id, SessionRow.ended_at.is_(None))
            .with_for_update(of=SessionRow)  # of two at once one comes second
        ).one_or_none()
        if found is None:
            return None
        row, user = found
        now = self._clock()
        record = _record(row, user, now)
        if record.ended_why or self._expired(record):
            return None
        if not hmac.compare_digest(row.refresh_digest or b"", token.digest):
            # we made it for this session, and it is not the next: it was used
            self._end(change, EndReason.REFRESH_REUSED, SessionRow.id == row.id, client)
            return None
        row.last_seen_at = now
        return self._grant(change.db, row, user, refreshable=True)

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


def _must_have_had_row(live: Live) -> None:
    """That no live row is found says that the session ended, if it had one.

    Raises:
        StoreUnavailable: it had none; Postgres came back between the reading of it and now.
    """
    if live.record.provisional is not None:
        raise StoreUnavailable("postgres")


def _hold_token(db: Session, digest: bytes) -> None:
    """Lets one at a time decide on a session that has no row to lock."""
    number = int.from_bytes(digest[:8], signed=True)
    db.execute(select(func.pg_advisory_xact_lock(number)))
