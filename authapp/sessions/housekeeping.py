"""Housekeeping of the session table: sessions expire and are removed, one page range at a time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, delete, select, text

from authapp.cache.changes import Changes
from authapp.sessions.generation import is_outlived
from authapp.sessions.records import EndReason, SessionPolicy
from authapp.sessions.rows import SessionRows
from authapp.storage.models import SessionRow, qualified_name
from authapp.storage.postgres import Database

PAGES_PER_RANGE = 4096  # table pages that one statement examines: 32 MB


class SessionHousekeeping:
    """Batches over the session table; each batch is one short transaction.

    Raises:
        StoreUnavailable: from every method.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        rows: SessionRows,
        policy: SessionPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._changes = changes
        self._rows = rows
        self._policy = policy
        self._clock = clock

    def page_ranges(self) -> Sequence[range]:
        """Divides the pages of the table into ranges for the methods below.

        A statement over one range takes equally long however many sessions there are. It needs no
        index; an index would cost time at every log-in, and one on `last_seen_at` at every visit.
        """
        with self._database.transaction() as db:
            size, page = db.execute(
                text(
                    "SELECT pg_relation_size(CAST(:sessions AS regclass)),"
                    " current_setting('block_size')::int"
                ),
                {"sessions": qualified_name(db, SessionRow)},
            ).one()
        pages, step = size // page, PAGES_PER_RANGE
        return [range(first, first + step) for first in range(0, pages, step)]

    def end_expired(self, limit: int, pages: range) -> int:
        """Ends up to `limit` sessions that are past their limits, and marks those that ended with
        everybody's; returns how many.

        Args:
            pages: the page range to search. A row that moves to another page at the same time may
                be missed until the next run.
        """
        now = self._clock()
        idle_end = SessionRow.last_seen_at + SessionRow.idle_seconds * text("interval '1 second'")
        with self._changes.begin(acknowledged=False) as change:
            rows = change.db.execute(
                select(SessionRow.id, is_outlived(), SessionRow.expires_at <= now)
                .where(
                    _in_range(pages),
                    SessionRow.ended_at.is_(None),
                    is_outlived()
                    | (SessionRow.expires_at <= now)
                    | (idle_end + self._policy.revalidate <= now),
                )
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            by_reason: dict[EndReason, list[UUID]] = {}
            for session_id, outlived, is_over in rows:
                why = EndReason.ABSOLUTE if is_over else EndReason.IDLE
                if outlived:
                    why = EndReason.ENDED_FOR_EVERYBODY
                by_reason.setdefault(why, []).append(session_id)
            for why, ids in by_reason.items():
                self._rows.end(change, why, SessionRow.id.in_(ids))
        return len(rows)

    def prune(self, retention: timedelta, limit: int, pages: range) -> int:
        """Removes up to `limit` sessions that ended longer ago than `retention`; returns how many.

        No cache entry is dropped: an entry that says "ended" stays true, and no entry of an ended
        session says anything else.

        Args:
            pages: as for `end_expired`.
        """
        with self._changes.begin(acknowledged=False) as change:
            old = (
                select(SessionRow.id)
                .where(_in_range(pages), SessionRow.ended_at < self._clock() - retention)
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


def _in_range(pages: range) -> TextClause:
    """The condition that a row lies on one of these pages."""
    return text(
        "sessions.ctid >= CAST(:first AS tid) AND sessions.ctid < CAST(:end AS tid)"
    ).bindparams(first=f"({pages.start},0)", end=f"({pages.stop},0)")
