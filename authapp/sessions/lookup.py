"""Finds the session of a token: in its entry in Redis while that is fresh, otherwise in its row."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.authority.person_rows import person_in
from authapp.accounts.identity import identity_of
from authapp.cache.changes import Change, Changes, any_pending
from authapp.cache.entries import decode_entry, prepare
from authapp.cache.keys import session_key
from authapp.cache.row_changes import Reread
from authapp.cache.versioned_cache import Copy, Lease, VersionedCache
from authapp.crypto.tokens import SessionToken
from authapp.errors import StoreUnavailable
from authapp.sessions import statements
from authapp.sessions.lost_commits import LostCommits
from authapp.sessions.provisional import ProvisionalSessions
from authapp.sessions.records import (
    ActiveSession,
    EndedSession,
    LookupResult,
    Provisional,
    SessionPolicy,
    SessionRecord,
)
from authapp.sessions.rows import FIRST_VERSION, SessionRows
from authapp.sessions.user_agents import MAX_USER_AGENT
from authapp.storage.deadlines import deadline
from authapp.storage.deployments import current_generation
from authapp.storage.driver.direct_statements import DirectStatement
from authapp.storage.models import PendingFence, SessionRow, User
from authapp.storage.postgres import Database, FailureKind, PostgresUnavailable, again_if_lost
from authapp.telemetry import metrics

REVALIDATION_PATIENCE = 0.8  # seconds that Postgres has while there is an entry to serve


prepare(SessionRecord)


class SessionLookup:
    """Finds the session of a token, in the cache or in Postgres.

    Raises:
        StoreUnavailable: from `find`, if neither store could say.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        cache: VersionedCache,
        rows: SessionRows,
        provisional: ProvisionalSessions,
        lost: LostCommits,
        *,
        policy: SessionPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._facts = DirectStatement(statements.FACTS)
        self._versions = DirectStatement(statements.VERSIONS)
        self._changes = changes
        self._cache = cache
        self._rows = rows
        self._provisional = provisional
        self._lost = lost
        self._policy = policy
        self._clock = clock

    def find(self, token: SessionToken) -> LookupResult:
        """The session of a token: one Redis round trip, no SQL, no write while its entry is fresh.

        If Redis can't be asked, Postgres answers. If Postgres can't be asked, an old entry answers,
        until the limits of the session.
        """
        key = session_key(token.digest)
        try:
            entry, lease = self._cache.recall(key, SessionRecord)
            if entry is not None and self._is_fresh(entry):
                return self._judge(token, entry)
            lease = lease or self._lease(key, entry)
        except StoreUnavailable:
            return self._judge(token, self._read_without_cache(token))
        if entry is None:
            record = self._read(token.digest)
            if record is not None:
                record = self._lost.settle(token.digest, record, None, lease)
            self._fill(key, lease, record)
            return self._judge(token, record)
        try:
            record = self._revalidate(token, entry, lease)
        except StoreUnavailable:
            return self._serve_stale(token, key, lease, entry)
        if record is None and entry.provisional is None:
            record = self._lost.settle_without_row(token.digest, entry)
        self._fill(key, lease, record)
        return self._judge(token, record)

    def _lease(self, key: str, entry: SessionRecord | None) -> Lease | None:
        """A lease to fill an entry that is not fresh, or can't be read.

        Returns:
            None if nothing will be filled: Postgres is known to be down, and no visit is due.
        """
        if entry is not None and self._database.breaker.is_open and not self._is_visit_due(entry):
            return None
        return self._cache.acquire(key, renew=True).lease

    def _read_without_cache(self, token: SessionToken) -> SessionRecord | None:
        # no catching up: the caller would wait for Redis once more
        record = self._read(token.digest, catch_up=False)
        if record is None and token.user_id is None:
            # Only Redis knows of a session that began while Postgres was away.
            raise StoreUnavailable("redis")
        return record

    def _is_fresh(self, entry: SessionRecord) -> bool:
        """Whether the facts were read and the visit was noted not long ago."""
        if entry.provisional is not None:
            return False
        # what is of the future, by a clock that was set back, is not recent until that time comes
        now, revalidate = self._clock(), self._policy.revalidate
        if abs(now - entry.checked_at) >= revalidate:
            return False
        if abs(now - entry.last_seen_at) < revalidate:
            return True
        # no visit is noted in one that is over
        return entry.ended_why is not None or self._rows.expired(entry) is not None

    def _is_visit_due(self, entry: SessionRecord) -> bool:
        """Whether the visit must be noted, in the row or in the entry."""
        return self._clock() - entry.last_seen_at >= self._policy.revalidate / 2

    def _revalidate(
        self, token: SessionToken, entry: SessionRecord, lease: Lease | None
    ) -> SessionRecord | None:
        # with an entry to serve, nobody waits long for a Postgres that does not answer
        with deadline(REVALIDATION_PATIENCE):
            if entry.provisional is not None:
                self._make_durable(token.digest, entry, entry.provisional)
            record = self._read(token.digest, seen=entry.last_seen_at)
            return record and self._lost.settle(token.digest, record, entry, lease)

    def _serve_stale(
        self, token: SessionToken, key: str, lease: Lease | None, entry: SessionRecord
    ) -> LookupResult:
        """Answers from an old entry while Postgres can't be asked.

        The visit is noted in the entry, so that an active person is not found idle later.
        """
        if entry.provisional is not None:
            user = self._provisional.user_of(entry)
            entry = msgspec.structs.replace(entry, user=user)
        metrics.STALE_COPIES.inc()
        found = self._judge(token, entry)
        if isinstance(found, ActiveSession) and self._is_visit_due(entry):
            seen = msgspec.structs.replace(entry, last_seen_at=self._clock())
            self._fill(key, lease, seen)
        return found

    def _judge(self, token: SessionToken, record: SessionRecord | None) -> LookupResult:
        if record is None or not _names(token, record):
            return None
        why = record.ended_why or self._rows.expired(record)
        if why:
            return EndedSession(why)
        return ActiveSession(token, record)

    def _read(
        self, digest: bytes, seen: datetime | None = None, *, catch_up: bool = True
    ) -> SessionRecord | None:
        """Reads the facts, and notes the visit if that is due.

        Args:
            seen: the last visit in the entry, which is newer than the row's after an outage.
            catch_up: set the pending fences, if there are any.
        """

        def read(*, note: bool) -> tuple[SessionRecord | None, bool]:
            with self._database.connection() as db:
                return self._query(db, digest, seen, note=note)

        try:
            record, fences_pending = again_if_lost(lambda: read(note=True))
        except PostgresUnavailable as error:
            if error.kind not in {FailureKind.READ_ONLY, FailureKind.REFUSED}:
                raise
            # it takes no changes, perhaps for want of room; that keeps nobody from reading
            record, fences_pending = again_if_lost(lambda: read(note=False))
        if catch_up and fences_pending:
            self._changes.catch_up()
        return record

    def _query(
        self, db: Connection, digest: bytes, seen: datetime | None, *, note: bool
    ) -> tuple[SessionRecord | None, bool]:
        """The facts, and whether fences are pending."""
        now = self._clock()
        row = self._facts.first(db, {"digest": digest}, alone=True)
        if row is None:  # removed by hand, perhaps
            return None, bool(db.scalar(select(any_pending())))
        record = self._rows.record(
            row,
            person_in(row),
            row.person_epoch,
            is_outlived=row.outlived,
            user_ver=row.person_ver,
        )
        if seen is not None and seen > record.last_seen_at:
            record = msgspec.structs.replace(record, last_seen_at=seen)
        due = now - row.last_seen_at >= self._policy.revalidate / 2
        if note and due and record.ended_why is None and self._rows.expired(record) is None:
            db.execute(statements.NOTE_VISIT, {"session_id": row.id, "now": now})
            record = msgspec.structs.replace(record, last_seen_at=now)
        return record, row.fences_pending

    def _make_durable(self, digest: bytes, entry: SessionRecord, begun: Provisional) -> None:
        """Gives a session that began while Postgres was down its row, once."""
        with self._changes.begin(acknowledged=False) as change:
            db = change.db
            self._rows.hold(change, {digest, *begun.replaces}, entry.user.id)
            user = db.scalar(
                select(User).where(User.id == entry.user.id).with_for_update(key_share=True)
            )
            known = db.scalar(select(SessionRow.id).where(SessionRow.digest == digest))
            if user is None or known is not None or self._rows.expired(entry):
                return
            if not self._still_begun(change, digest, entry):
                return
            self._rows.enforce_cap(change, user.id, entry.kind, begun.replaces)
            row = SessionRow(
                id=entry.id,
                digest=digest,
                user_id=user.id,
                kind=entry.kind,
                epoch=begun.epoch,
                created_at=entry.created_at,
                last_seen_at=entry.last_seen_at,
                idle_seconds=entry.idle_seconds,
                expires_at=begun.expires_at,
                address=begun.address,
                user_agent=begun.user_agent[:MAX_USER_AGENT],
                data=entry.data,
                ver=FIRST_VERSION,
                remembered=entry.remembered,
                generation=begun.generation,
                amr=list(entry.amr),
            )
            db.add(row)
            db.flush()
            change.touch_session(digest, FIRST_VERSION)
            audit.record(
                db,
                "session.begun",
                entry.created_at,
                user_id=user.id,
                actor=Actor(user.id, begun.address),
                kind=entry.kind,
                while_postgres_was_away=True,
            )
            # ended by a change that could not see it
            outlived = db.scalar(select(begun.generation < current_generation()))
            record = self._rows.record(row, identity_of(user), user.epoch, is_outlived=outlived)
            if (why := record.ended_why) is not None:
                self._rows.end(change, why, SessionRow.id == row.id)

    def _still_begun(self, change: Change, digest: bytes, entry: SessionRecord) -> bool:
        """Whether the entry still stands. A log-out without a row drops it under the same lock."""
        key = session_key(digest)
        unreplayed = change.db.scalar(
            select(PendingFence.id).where(PendingFence.key == key).limit(1)
        )
        now = decode_entry(self._cache.acquire(key).value, SessionRecord)
        return unreplayed is None and now is not None and now.id == entry.id

    def reread(self, live: ActiveSession, db: Connection, row: Any, lease: Lease) -> Reread:
        """The facts of a session, for its copy, after a change of its data was committed.

        Only the data of a session changes without a change of its user. So if the user still has
        the version that the request's record noted, nothing else is read. The copy then keeps the
        time of its last check, so writes postpone no revalidation. Another change of the session
        since the commit has taken the lease.

        Args:
            live: the session as the request found it.
            row: `ver` and `data` of the row, as written.
            lease: of the change's first fence.
        """
        known = live.record
        now = self._versions.first(db, {"user_id": known.user.id}, alone=True)
        if now is None:  # the account was deleted
            return Reread(None, fences_pending=False)
        if now.user_ver == known.user_ver:
            found: SessionRecord | None = msgspec.structs.replace(known, ver=row.ver, data=row.data)
        else:
            found, _ = self._query(db, live.token.digest, known.last_seen_at, note=False)
        # a copy of an older generation than Redis knows is left to `LostCommits`
        if found is None or found.generation < max(now.generation, lease.generation):
            return Reread(None, now.fences_pending)
        return Reread(self._copy(found), now.fences_pending)

    def _copy(self, record: SessionRecord) -> Copy:
        remaining = (record.expires_at - self._clock()).total_seconds()
        ttl = max(remaining, 60.0)
        if record.ended_why is None:  # one that has ended is kept, see `LostCommits`
            ttl = min(ttl, record.idle_seconds + 3_600.0)
        return Copy(record, ttl)

    def _fill(self, key: str, lease: Lease | None, record: SessionRecord | None) -> None:
        if lease is not None and record is not None:
            self._cache.fill_quietly(key, lease, self._copy(record))


def _names(token: SessionToken, record: SessionRecord) -> bool:
    """Whether such a token may name this session."""
    if token.user_id is None:
        return record.kind == "browser"
    return record.kind == "api" and record.user.id == token.user_id
