"""A change of facts after which no copy is stale: fence, commit, fence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from authapp.cache.keys import CredentialKeys, session_key, user_key
from authapp.cache.versioned_cache import VersionedCache
from authapp.errors import OutcomeUnknown, StoreUnavailable
from authapp.storage.models import PendingFence, SessionRow, User
from authapp.storage.postgres import Database, PostgresUnavailable

_log = structlog.get_logger(__name__)
_REPLAY_BATCH = 500
_PROBE = "sess:probe"  # no session has this key

# tells the triggers, which write fences for changes made by hand, that this one has its own
_FENCED = text("SELECT set_config('authapp.fenced', 'on', true)")


class Change:
    """One transaction, and the copies it makes stale.

    Attributes:
        db: run statements here.
    """

    def __init__(self, db: Session, credential_keys: CredentialKeys) -> None:
        self.db = db
        self.fences: dict[str, int] = {}
        self._credential_keys = credential_keys

    def of_session(self, digest: bytes, version: int) -> None:
        """The row of this session now has this version."""
        self.fences[session_key(digest)] = version

    def of_user(self, user: User) -> None:
        """The user, whose row the caller has locked, changed and given a new version.

        Copies of sessions carry a snapshot of the user, so each live session gets a new version.
        """
        self.db.flush()
        self._of_user_itself(user)
        touched = self.db.execute(
            update(SessionRow)
            .where(SessionRow.user_id == user.id, SessionRow.ended_at.is_(None))
            .values(ver=SessionRow.ver + 1)
            .returning(SessionRow.digest, SessionRow.ver)
            .execution_options(synchronize_session=False)
        )
        for digest, version in touched:
            self.of_session(digest, version)

    def of_unchanged(self, user: User) -> None:
        """The user, whom the caller found as they shall be.

        Whoever made them so may not have answered yet, nor set the last fences; what is answered
        here is promised as well.
        """
        self._of_user_itself(user)
        live = select(SessionRow.digest, SessionRow.ver).where(
            SessionRow.user_id == user.id, SessionRow.ended_at.is_(None)
        )
        for digest, version in self.db.execute(live):
            self.of_session(digest, version)

    def _of_user_itself(self, user: User) -> None:
        self.fences[user_key(user.id)] = user.ver
        for key in self._credential_keys.all(user.email_canonical):
            self.fences[key] = user.ver


class Changes:
    """Opens changes, and makes good for fences that could not be set.

    The copies are fenced before the commit, so that no reader can fill one from the old facts, and
    again after it, for copies that lost their fence in between (evicted, server replaced). Fences
    that Redis does not take are written down in Postgres, with the change if it is not committed
    yet; whoever reaches Redis next sets them before it trusts a copy.

    Args:
        on_pending: called, in the thread of the change, when it takes effect on other instances
            only as their copies are read anew (`REVALIDATE_SECONDS`).
    """

    def __init__(
        self,
        database: Database,
        cache: VersionedCache,
        credential_keys: CredentialKeys,
        on_pending: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._cache = cache
        self._credential_keys = credential_keys
        self._on_pending = on_pending
        self._owed: dict[str, int] = {}
        cache.breaker.recover = self._recover

    @contextmanager
    def begin(self, *, told: bool = True) -> Iterator[Change]:
        """
        Args:
            told: somebody is told that it is done; housekeeping promises nothing.
        Raises:
            StoreUnavailable: Postgres could not be asked; nothing was changed.
            OutcomeUnknown: it was lost during the commit.
        """
        try:
            with self._database.transaction() as db:
                db.execute(_FENCED)
                change = Change(db, self._credential_keys)
                yield change
                db.flush()
                # Who asks again for what was done finds nothing to change, and its fences perhaps
                # still to be set: no more can be promised than to who asked first.
                owed = told and bool(db.scalar(select(any_pending())))
                pending = not self._fenced(change.fences)
                if pending:
                    _write_down(db, change.fences)
        except PostgresUnavailable as error:
            if error.committing:
                raise OutcomeUnknown(error.store) from error
            raise
        if not pending and not self._fenced(change.fences):
            # The first fence holds unless it was lost since; then nobody may trust the copies.
            pending = True
            self._write_down_later(change.fences)
        if (pending and told) or owed:
            pending = not self.catch_up()
        if pending:
            # a recovery under way may have looked before this was committed
            self._cache.breaker.open()
            _log.warning("fences_pending", copies=len(change.fences))
            if told:
                self._on_pending()

    def replay(self) -> int:
        """Sets the fences that were written down; returns how many.

        Raises:
            StoreUnavailable: some remain.
        """
        done = 0
        while batch := self._replay_batch():
            done += batch
        return done

    def catch_up(self) -> bool:
        """Replays what was written down; whether none is left.

        While Redis is away it is done on its return.
        """
        if self._cache.breaker.is_open and not self._cache.breaker.is_half_open:
            return False
        try:
            self.replay()
        except StoreUnavailable:
            self._cache.breaker.open()  # copies that should be fenced must not be trusted
            _log.warning("fences_not_replayed")
            return False
        return True

    def pending(self) -> int:
        """How many fences are written down."""
        with self._database.transaction() as db:
            return db.scalar(select(func.count()).select_from(PendingFence)) or 0

    def _fenced(self, fences: dict[str, int]) -> bool:
        try:
            self._cache.fence(fences)
        except StoreUnavailable:
            return False
        return True

    def _write_down_later(self, fences: dict[str, int]) -> None:
        """After the commit: the change is made, whether Postgres answers once more or not."""
        try:
            with self._database.transaction() as db:
                _write_down(db, fences)
        except StoreUnavailable:
            self._owed |= fences  # at least this process trusts no copy before these are set
            self._cache.breaker.open()  # it may have recovered meanwhile, without them

    def _recover(self) -> None:
        owed, self._owed = self._owed, {}
        try:
            # at least one: a Redis that answers may still take no fence, as a replica does
            self._cache.fence_before_trust({_PROBE: 0} | owed)
        except StoreUnavailable:
            self._owed |= owed
            raise
        self._cache.breaker.half_open()  # from here on changes set their fences again
        self.replay()

    def _replay_batch(self) -> int:
        with self._database.transaction() as db:
            # Waits for who is at it already: it may not have set them yet.
            rows = db.scalars(
                select(PendingFence)
                .order_by(PendingFence.id)
                .limit(_REPLAY_BATCH)
                .with_for_update()
            ).all()
            fences: dict[str, int] = {}
            for row in rows:
                for key in self._keys_of(db, row):
                    fences[key] = max(row.ver, fences.get(key, 0))
            self._cache.fence_before_trust(fences)
            db.execute(delete(PendingFence).where(PendingFence.id.in_([row.id for row in rows])))
            return len(rows)

    def _keys_of(self, db: Session, row: PendingFence) -> list[str]:
        if row.key is not None:
            return [row.key]
        # written by a trigger, which can't know the keyed hash of an email
        assert row.user_id is not None  # noqa: S101 — a check constraint holds it
        now = db.scalar(select(User.email_canonical).where(User.id == row.user_id))
        emails = {email for email in (now, row.email) if email}
        of_credentials = [key for email in emails for key in self._credential_keys.all(email)]
        return [user_key(row.user_id), *of_credentials]


def _write_down(db: Session, fences: dict[str, int]) -> None:
    if fences:
        db.execute(
            insert(PendingFence).values(key=bindparam("key"), ver=bindparam("ver")),
            [{"key": key, "ver": version} for key, version in fences.items()],
        )


def any_pending() -> ColumnElement[bool]:
    """A column: whether fences are written down. Asked along with facts that are read anyway."""
    return select(PendingFence.id).exists()
