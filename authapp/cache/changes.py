"""Changes of facts that leave no stale cache entry: fence, commit, fence again."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from authapp.cache.keys import LIFE_KEY, CredentialKeys, session_key, user_key
from authapp.cache.versioned_cache import Copy, Lease, VersionedCache
from authapp.errors import OutcomeUnknown, StoreUnavailable
from authapp.storage.models import PendingFence, SessionRow, User, table_of
from authapp.storage.postgres import Database, PostgresUnavailable
from authapp.telemetry.logging import get_logger

_log = get_logger(__name__)
_REPLAY_BATCH = 500
_PROBE = "sess:probe"  # no session has this key

# tells the triggers, which write fences for changes made by hand, that this change has its own
_FENCED = text("SELECT set_config('authapp.fenced', 'on', true)")


def is_fenced() -> ColumnElement[bool]:
    """A condition that is always true. With it in a statement, the triggers learn that this change
    sets its own fences, before they look at a row."""
    return func.set_config("authapp.fenced", "on", True) == "on"


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Changed(Generic[T_co]):
    """The result of a change, and whether every instance sees the change already.

    Attributes:
        everywhere: False means that some instances may see the change late, within
            `REVALIDATE_SECONDS`.
    """

    value: T_co
    everywhere: bool


_ANNOUNCED = "announced"  # the facts of a transaction, in `Session.info`


def announce(db: Session, fact: object) -> None:
    """Tells the observer of changes about a fact, once this transaction is committed."""
    db.info.setdefault(_ANNOUNCED, []).append(fact)


class Change:
    """One transaction, and the cache entries that it makes stale.

    Attributes:
        db: run statements here.
        everywhere: whether every instance sees the change; not before the change has ended.
    """

    everywhere = False

    def __init__(self, db: Session, credential_keys: CredentialKeys) -> None:
        self.db = db
        self.fences: dict[str, int] = {}
        self.copies: dict[str, Copy] = {}
        self._credential_keys = credential_keys

    def touch_session(self, digest: bytes, version: int) -> None:
        """Notes that the row of this session now has this version."""
        self.fences[session_key(digest)] = version

    def touch_user(self, user: User) -> None:
        """Notes a user whose row the caller has locked, changed and given a new version.

        Session entries carry a snapshot of the user, so each active session gets a new version.
        """
        self.touch_users([user])

    def touch_users(self, users: Collection[User]) -> None:
        """As `touch_user`, in one statement for all of these users."""
        self.db.flush()
        for user in users:
            self.touch_user_alone(user)
        touched = self.db.execute(
            update(SessionRow)
            .where(
                SessionRow.user_id.in_([user.id for user in users]), SessionRow.ended_at.is_(None)
            )
            .values(ver=SessionRow.ver + 1)
            .returning(SessionRow.digest, SessionRow.ver)
            .execution_options(synchronize_session=False)
        )
        for digest, version in touched:
            self.touch_session(digest, version)

    def touch_user_alone(self, user: User) -> None:
        """As `touch_user`, where the caller has ended or touched each session of the user."""
        self.fences[user_key(user.id)] = user.ver
        for key in self._credential_keys.all(user.email_canonical):
            self.fences[key] = user.ver

    def touch_unchanged_user(self, user: User) -> None:
        """Notes a user whom the caller found unchanged, already in the wanted state.

        The change that brought the user into this state may still have to set its last fences. The
        caller's answer promises this state, too, so its fences are set here as well.
        """
        self.touch_user_alone(user)
        live = select(SessionRow.digest, SessionRow.ver).where(
            SessionRow.user_id == user.id, SessionRow.ended_at.is_(None)
        )
        for digest, version in self.db.execute(live):
            self.touch_session(digest, version)

    def touch_all_sessions(self, generation: int) -> None:
        """Notes that sessions of an older generation have ended, however many there are."""
        self.fences[LIFE_KEY] = generation

    def end_session(self, digest: bytes, version: int, copy: Copy | None) -> None:
        """As `touch_session`, for a session that has ended. Its copy, if any, is stored after the
        commit. No later change alters such a session, so nothing is read again."""
        self.touch_session(digest, version)
        if copy is not None:
            self.copies[session_key(digest)] = copy

    def returning(self, value: T) -> Changed[T]:
        """The result of this change for its caller. Call it once the change has ended."""
        return Changed(value, self.everywhere)


class Changes:
    """The entrance to every change of facts, and the replay of fences that could not be set.

    Entries are fenced before the commit, so that no reader can fill one from the old facts. They
    are fenced again after it, because an entry may have lost its fence in between (evicted, server
    replaced). Fences that Redis does not take are written down in Postgres, in the transaction of
    the change if that is still open. The next instance that reaches Redis sets them before it
    trusts an entry.

    Args:
        observe: called with each fact that a change announced, when the change has ended. It
            raises nothing.
    """

    def __init__(
        self,
        database: Database,
        cache: VersionedCache,
        credential_keys: CredentialKeys,
        observe: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self._observe = observe
        self._database = database
        self._cache = cache
        self._credential_keys = credential_keys
        self._unreplayed: dict[str, int] = {}
        cache.breaker.recover = self._recover

    @contextmanager
    def begin(self, *, acknowledged: bool = True) -> Iterator[Change]:
        """Opens a change: fence, commit, fence again, and catch up where a fence is missing.

        Args:
            acknowledged: the caller learns whether every instance sees the change. Log-in and
                housekeeping promise nothing about other instances, and save the effort.
        Raises:
            StoreUnavailable: Postgres could not be asked; nothing was changed.
            OutcomeUnknown: the connection was lost during the commit.
        """
        try:
            with self._database.transaction() as db:
                db.execute(_FENCED)
                change = Change(db, self._credential_keys)
                yield change
                db.flush()
                leases = self.fence_first(change.fences, change.copies)
                copies = {k: (leases[k], copy) for k, copy in change.copies.items() if leases}
                # A caller that repeats a change finds nothing to do, while the fences of the first
                # attempt may be unreplayed. Neither caller may be promised more than the other.
                unreplayed = acknowledged and bool(db.scalar(select(any_pending())))
                if leases is None:
                    write_down(db, change.fences)
        except PostgresUnavailable as error:
            if error.committing:
                raise OutcomeUnknown(error.store) from error
            raise
        change.everywhere = self.complete(
            change.fences,
            copies,
            fenced=leases is not None,
            unreplayed=unreplayed,
            acknowledged=acknowledged,
        )
        for fact in change.db.info.pop(_ANNOUNCED, ()):
            self._observe(fact)

    def fence_first(
        self, fences: Mapping[str, int], leased: Collection[str]
    ) -> dict[str, Lease] | None:
        """Fences before the commit.

        Args:
            leased: keys whose copies the change may store.
        Returns:
            the leases, or None where Redis does not take the fences.
        """
        try:
            return self._cache.fence(fences, committed=False, leased=leased)
        except StoreUnavailable:
            return None

    def complete(
        self,
        fences: Mapping[str, int],
        copies: Mapping[str, tuple[Lease, Copy]],
        *,
        fenced: bool,
        unreplayed: bool,
        acknowledged: bool = True,
    ) -> bool:
        """Fences after a commit whose outcome is known. Catches up where a fence is missing.

        Args:
            copies: stored in place of a fence, if the entry has not changed since the lease.
            fenced: Redis took the fences before the commit.
            unreplayed: fences of earlier changes are written down.
            acknowledged: as for `begin`.
        Returns:
            whether every instance sees the change.
        """
        fenced = fenced and self._fence_again(fences, copies)
        # on a Cluster copies are not dropped at once; each is believed until its revalidation
        at_once = LIFE_KEY not in fences or self._cache.can_fence_all
        if fenced and not unreplayed:
            return at_once
        if acknowledged and self.catch_up():
            return at_once  # the missing fences were written down, and are set now
        # Pending. A recovery that is running may have looked before this change was committed.
        self._cache.breaker.open()
        _log.warning("fences_pending", copies=len(fences))
        return False

    def replay(self) -> int:
        """Sets the pending fences; returns how many.

        Raises:
            StoreUnavailable: some are still pending.
        """
        done = 0
        while batch := self._replay_batch():
            done += batch
        return done

    def catch_up(self) -> bool:
        """Sets the pending fences; returns whether all of them are set.

        While Redis is unreachable it does nothing: the recovery replays them.
        """
        if self._cache.breaker.is_open and not self._cache.breaker.is_half_open:
            return False
        try:
            self.replay()
        except StoreUnavailable:
            self._cache.breaker.open()  # entries that should be fenced must not be trusted
            _log.warning("fences_not_replayed")
            return False
        return True

    def pending(self) -> int:
        """How many fences are pending."""
        with self._database.transaction() as db:
            return db.scalar(select(func.count()).select_from(PendingFence)) or 0

    def _fence_again(
        self, fences: Mapping[str, int], copies: Mapping[str, tuple[Lease, Copy]]
    ) -> bool:
        """Fences after the commit; writes the fences down if Redis does not take them.

        The first fence may be lost by now. If the second one fails, nobody may trust the entries.
        """
        try:
            self._cache.fence(fences, copies=copies)
        except StoreUnavailable:
            self._write_down_later(fences)
            return False
        return True

    def _write_down_later(self, fences: Mapping[str, int]) -> None:
        """Writes fences down after the commit, in a transaction of their own; may fail."""
        try:
            with self._database.transaction() as db:
                write_down(db, fences)
        except StoreUnavailable:
            # at least this process trusts no entry before these are set
            self._unreplayed.update(fences)
            self._cache.breaker.open()  # it may have recovered without these fences

    def _recover(self) -> None:
        unreplayed, self._unreplayed = self._unreplayed, {}
        try:
            # at least one: a Redis that answers may still take no fence, as a replica does
            self._cache.fence_before_trust({_PROBE: 0} | unreplayed)
        except StoreUnavailable:
            self._unreplayed |= unreplayed
            raise
        self._cache.breaker.half_open()  # from here on changes set their fences again
        self.replay()

    def _replay_batch(self) -> int:
        with self._database.transaction() as db:
            # Waits for another instance that is replaying: it may not have set these fences yet.
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


def write_down(db: Session | Connection, fences: Mapping[str, int]) -> None:
    """Writes pending fences, in the transaction of their change."""
    if fences:
        db.execute(
            insert(PendingFence).values(key=bindparam("key"), ver=bindparam("ver")),
            [{"key": key, "ver": version} for key, version in fences.items()],
        )


def any_pending() -> ColumnElement[bool]:
    """A column that tells whether fences are pending, to be read along with other facts."""
    return select(table_of(PendingFence).c.id).exists()
