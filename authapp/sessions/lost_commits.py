"""Puts back facts that Postgres has lost and copies in Redis still hold. An asynchronous standby
that is promoted lacks the last commits.

A copy is filled from committed rows alone. So a copy with a higher version than its row proves that
the row went back. A fence proves nothing: changes in flight and rollbacks leave fences.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import NOBODY, Actor
from authapp.accounts.identity import identity_of
from authapp.cache.changes import Change, Changes
from authapp.cache.entries import decode_entry
from authapp.cache.keys import session_key, user_key
from authapp.cache.versioned_cache import Lease, VersionedCache
from authapp.errors import StoreUnavailable
from authapp.sessions.generation import is_live, put_back_generation
from authapp.sessions.records import EndReason, SessionRecord
from authapp.sessions.rows import SessionRows
from authapp.storage.models import AuditEvent, PendingFence, SessionRow, User
from authapp.storage.postgres import Database
from authapp.telemetry import metrics
from authapp.telemetry.logging import get_logger

INCIDENT = timedelta(hours=1)  # what is found within it counts as one event
SHOWN = timedelta(days=1)  # how long probes and `doctor` tell of it
EVENT: Literal["postgres.lost_commits"] = "postgres.lost_commits"
_NOTING = 0x6C6F7374  # names the advisory lock: "lost"

What = Literal["end", "data", "session", "end_of_all", "password"]

_log = get_logger(__name__)


class LostCommits:
    """Compares copies of sessions with their rows, and puts back what the rows have lost.

    Raises:
        StoreUnavailable: from every method that settles; nothing was put back.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        cache: VersionedCache,
        rows: SessionRows,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._changes = changes
        self._cache = cache
        self._rows = rows
        self._clock = clock

    def problem(self) -> str | None:
        """The time of the last incident, in words; None if there was none lately, or Postgres can't
        be asked."""
        since = self._clock() - SHOWN
        noted = select(func.max(AuditEvent.at)).where(
            AuditEvent.event == EVENT, AuditEvent.at > since
        )
        try:
            with self._database.transaction() as db:
                at = db.scalar(noted)
        except StoreUnavailable:
            return None
        return f"it lost its last changes before {at:%Y-%m-%dT%H:%M:%SZ}" if at else None

    def note(self, change: Change, what: What) -> None:
        """Notes, within a change, that Postgres lost a commit. Each incident gets an event and a
        log line, and each fact is counted."""
        metrics.LOST_COMMITS.labels(what).inc()
        if _is_noted(change.db, self._clock()):
            return
        change.db.execute(select(func.pg_advisory_xact_lock(_NOTING)))
        if _is_noted(change.db, self._clock()):
            return
        audit.record(change.db, EVENT, self._clock(), user_id=None, actor=NOBODY, found=what)
        _log.error("postgres_lost_commits", found=what)

    def settle(
        self, digest: bytes, record: SessionRecord, entry: SessionRecord | None, lease: Lease | None
    ) -> SessionRecord:
        """The truth about a session: its row, unless Redis knows better.

        Args:
            record: the session by its row.
            entry: the copy from before the row was read.
            lease: of the read; it names the generation that copies know.
        """
        if record.ended_why is not None:
            return record
        if lease is not None and record.generation < lease.generation:
            self._end_all_again(lease.generation)
            return msgspec.structs.replace(record, ended_why=EndReason.ENDED_FOR_EVERYBODY)
        if entry is None or entry.provisional is not None or entry.id != record.id:
            return record
        if entry.ended_why is not None and entry.ver >= record.ver:  # ended is final
            return self._end_again(digest, entry, entry.ended_why)
        if entry.ver > record.ver:
            return self._put_back_data(digest, record, entry)
        return record

    def settle_without_row(self, digest: bytes, entry: SessionRecord) -> SessionRecord | None:
        """The truth about a session that has a copy and no row.

        The session goes on with a row like the one that was lost, if its user is as the session
        knew them. Otherwise the person has to log in again, and is told why.

        Returns:
            None where the row was removed, not lost.
        """
        if entry.ended_why is not None:
            return msgspec.structs.replace(entry, checked_at=self._clock())
        with self._changes.begin(acknowledged=False) as change:
            self._rows.hold(change, [digest], entry.user.id)
            known = change.db.scalar(select(SessionRow.id).where(SessionRow.digest == digest))
            if known is not None:  # put back at the same moment
                return entry
            if not self._stands(change.db, digest, entry):
                return None
            self.note(change, "session")
            user = change.db.scalar(_unchanged_user(entry))
            if user is None or entry.kind != "browser":
                return msgspec.structs.replace(entry, ended_why=EndReason.LOST)
            row = _row_like(entry, digest)
            change.db.add(row)
            change.db.flush()
            audit.record(
                change.db,
                "session.begun",
                entry.created_at,
                user_id=user.id,
                actor=Actor(user.id, ""),
                kind=entry.kind,
                put_back=True,
            )
            outlived = change.db.scalar(
                select(SessionRow.id).where(SessionRow.id == row.id, ~is_live())
            )
            return self._rows.record(
                row, identity_of(user), user.epoch, is_outlived=outlived is not None
            )

    def _stands(self, db: Session, digest: bytes, entry: SessionRecord) -> bool:
        """Whether the copy still stands and no fence is pending. The removal of a row writes a
        pending fence in its transaction, which is deleted only after the fence is set."""
        keys = [session_key(digest), user_key(entry.user.id)]
        pending = db.scalar(
            select(PendingFence.id)
            .where(or_(PendingFence.key.in_(keys), PendingFence.user_id == entry.user.id))
            .limit(1)
        )
        if pending is not None:
            return False
        now = decode_entry(self._cache.acquire(keys[0]).value, SessionRecord)
        return now is not None and (now.id, now.ver) == (entry.id, entry.ver)

    def _end_again(self, digest: bytes, entry: SessionRecord, why: EndReason) -> SessionRecord:
        """Ends a session as its copy says. Nothing is fenced, because until the commit the copy is
        the only evidence of the end; the caller replaces it."""
        now, version = self._clock(), entry.ver + 1
        with self._changes.begin(acknowledged=False) as change:
            user_id = change.db.scalar(
                update(SessionRow)
                .where(
                    SessionRow.digest == digest,
                    SessionRow.ended_at.is_(None),
                    SessionRow.ver <= entry.ver,
                )
                .values(ended_at=now, ended_why=why, ver=version)
                .returning(SessionRow.user_id)
                .execution_options(synchronize_session=False)
            )
            if user_id is not None:
                self.note(change, "end")
                audit.record(
                    change.db,
                    "session.ended",
                    now,
                    user_id=user_id,
                    actor=NOBODY,
                    why=why,
                    put_back=True,
                )
        return msgspec.structs.replace(entry, ver=version, checked_at=now)

    def _put_back_data(
        self, digest: bytes, record: SessionRecord, entry: SessionRecord
    ) -> SessionRecord:
        """Gives a session its newest data, and a version above every copy's. If two different rows
        had one version, one would hide the other."""
        with self._changes.begin(acknowledged=False) as change:
            version = change.db.scalar(
                update(SessionRow)
                .where(
                    SessionRow.digest == digest,
                    SessionRow.ended_at.is_(None),
                    SessionRow.ver < entry.ver,
                )
                .values(data=entry.data, ver=entry.ver + 1)
                .returning(SessionRow.ver)
                .execution_options(synchronize_session=False)
            )
            if version is None:  # put back, or changed, at the same moment
                return record
            self.note(change, "data")
        return msgspec.structs.replace(record, data=entry.data, ver=version)

    def _end_all_again(self, generation: int) -> None:
        with self._changes.begin(acknowledged=False) as change:
            if put_back_generation(change, generation):
                self.note(change, "end_of_all")


def _row_like(entry: SessionRecord, digest: bytes) -> SessionRow:
    """A row for a session that has a copy, at a version above it."""
    return SessionRow(
        id=entry.id,
        digest=digest,
        user_id=entry.user.id,
        kind=entry.kind,
        epoch=entry.epoch,
        created_at=entry.created_at,
        last_seen_at=entry.last_seen_at,
        idle_seconds=entry.idle_seconds,
        expires_at=entry.expires_at,
        data=entry.data,
        ver=entry.ver + 1,
        remembered=entry.remembered,
        generation=entry.generation,
        proved_at=entry.proved_at,
        amr=list(entry.amr),
    )


def _unchanged_user(entry: SessionRecord) -> Select[User]:
    """The user of a session, if unchanged since it began: a change that ends all sessions of a user
    can't see a session without a row."""
    return select(User).where(
        User.id == entry.user.id,
        User.active,
        User.epoch == entry.epoch,
        User.updated_at <= entry.created_at,
        ~User.email_confirmation_due,
    )


def _is_noted(db: Session, now: datetime) -> bool:
    noted = select(AuditEvent.id).where(AuditEvent.event == EVENT, AuditEvent.at > now - INCIDENT)
    return db.scalar(noted.limit(1)) is not None
