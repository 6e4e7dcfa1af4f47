"""A change of facts after which no copy is stale: fence, commit, fence."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from authapp.database import Database
from authapp.errors import StoreUnavailable
from authapp.models import SessionRow
from authapp.versioned_cache import VersionedCache

_log = structlog.get_logger(__name__)


def session_key(digest: bytes) -> str:
    """Where the copy of a session is kept. The digest is no usable token."""
    return f"sess:{digest.hex()}"


class Change:
    """One transaction, and the copies it makes stale.

    Attributes:
        db: run statements here.
    """

    def __init__(self, db: Session) -> None:
        self.db = db
        self.fences: dict[str, int] = {}

    def of_session(self, digest: bytes, version: int) -> None:
        """The row of this session now has this version."""
        self.fences[session_key(digest)] = version

    def of_user(self, user_id: UUID) -> None:
        """The user, whose row the caller has updated and so locked, changed.

        Copies of sessions carry a snapshot of the user, so each live session gets a new version.
        """
        touched = self.db.execute(
            update(SessionRow)
            .where(SessionRow.user_id == user_id, SessionRow.ended_at.is_(None))
            .values(ver=SessionRow.ver + 1)
            .returning(SessionRow.digest, SessionRow.ver)
        )
        for digest, version in touched:
            self.of_session(digest, version)


class Changes:
    """Opens changes.

    The copies are fenced before the commit, so that no reader can fill one from the old facts, and
    again after it, for copies that lost their fence in between (evicted, server replaced).
    """

    def __init__(self, database: Database, cache: VersionedCache) -> None:
        self._database = database
        self._cache = cache

    @contextmanager
    def begin(self) -> Iterator[Change]:
        """
        Raises:
            StoreUnavailable: nothing was changed; either store could not be asked.
        """
        with self._database.transaction() as db:
            change = Change(db)
            yield change
            db.flush()
            self._cache.fence(change.fences)
        try:
            self._cache.fence(change.fences)
        except StoreUnavailable:
            # The first fence holds unless that server lost it as well as itself; then its copies
            # are void anyway, by run_id.
            _log.warning("second_fence_failed", copies=len(change.fences))
