"""The store of sessions: patch, end, list. `beginning.py` begins sessions, `lookup.py` finds them,
`rotation.py` renews their tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.cache.changes import Change, Changed, Changes
from authapp.cache.keys import session_key
from authapp.cache.row_changes import RowChanges
from authapp.crypto.tokens import SessionToken
from authapp.sessions import statements
from authapp.sessions.beginning import SessionBeginning
from authapp.sessions.generation import is_live
from authapp.sessions.lookup import SessionLookup
from authapp.sessions.records import (
    ActiveSession,
    EndReason,
    IssuedTokens,
    SessionPolicy,
    SessionSummary,
    is_storable,
)
from authapp.sessions.rotation import SessionRotation, hold_row, must_have_had_row
from authapp.sessions.rows import SessionRows
from authapp.storage.driver.direct_statements import DirectStatement
from authapp.storage.models import SessionRow, User
from authapp.storage.postgres import Database

Clock = Callable[[], datetime]


class SessionStore:
    """All operations on sessions.

    Raises:
        StoreUnavailable: from every method, if no store could say. It does not mean "no session".
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        rows: SessionRows,
        lookup: SessionLookup,
        rotation: SessionRotation,
        beginning: SessionBeginning,
        *,
        policy: SessionPolicy,
        clock: Clock,
    ) -> None:
        self.begin = beginning.begin
        self.provisional = beginning.provisional
        self.begin_program = beginning.begin_program
        self.begin_or_provisional = beginning.begin_or_provisional
        self.begin_after_factor = beginning.begin_after_factor
        self.begin_program_after_factor = beginning.begin_program_after_factor
        self.hold_verified = beginning.hold_verified
        self._database = database
        self._changes = changes
        self._row_changes = RowChanges(database, changes)
        self._patch = DirectStatement(statements.PATCH)
        self._rows = rows
        self.find = lookup.find  # the session of a token
        self._reread = lookup.reread
        self.rotate = rotation.rotate
        self.regenerate = rotation.regenerate
        self.refresh = rotation.refresh
        self._policy = policy
        self._clock = clock

    # -- patch ---------------------------------------------------------------------------------

    def patch(
        self, live: ActiveSession, changed: Mapping[str, Any], removed: Sequence[str]
    ) -> Changed[bool]:
        """Saves keys of the session's data, leaving the others as they are.

        Returns:
            False if the session is no longer active: then nothing was saved, nor revived.
        Raises:
            ValueError: a value holds text that Postgres can't store.
        """
        for name, value in changed.items():
            if not is_storable({name: value}):
                raise ValueError(f"session[{name!r}] holds NUL or half a surrogate pair")
        digest = live.token.digest
        patch = {"of": digest, "removed": list(removed), "changed": dict(changed)}

        def write(db: Connection) -> Any:
            row = self._patch.first(db, patch)
            if row is None:
                must_have_had_row(live)
            return row

        return self._row_changes.run(session_key(digest), write, partial(self._reread, live))

    # -- end -----------------------------------------------------------------------------------

    def end(self, token: SessionToken, why: EndReason, actor: Actor) -> Changed[None]:
        """Ends the session of this token, unless it has ended."""
        return self.end_each([token], why, actor)

    def end_each(
        self, tokens: Sequence[SessionToken], why: EndReason, actor: Actor
    ) -> Changed[None]:
        """Ends the sessions of a handful of tokens, all or none."""
        digests = {token.digest for token in tokens}
        with self._changes.begin() as change:
            self._rows.end_named(change, why, digests, actor)
        return change.returning(None)

    def end_one(
        self, user_id: UUID, session_id: UUID, why: EndReason, actor: Actor
    ) -> Changed[bool]:
        """Ends one session of this user.

        Returns:
            False when the user has no such live session.
        """
        with self._changes.begin() as change:
            ended = self.end_within(change, user_id, session_id, why, actor)
        return change.returning(ended)

    def end_within(
        self, change: Change, user_id: UUID, session_id: UUID, why: EndReason, actor: Actor
    ) -> bool:
        """As `end_one`, within a change that the caller completes."""
        mine = (SessionRow.user_id == user_id) & (SessionRow.id == session_id) & is_live()
        return self._rows.end(change, why, mine, actor) > 0

    def owner_of(self, session_id: UUID) -> UUID | None:
        """The user of an active session."""
        active = (SessionRow.id == session_id) & is_live()
        with self._database.transaction() as db:
            return db.scalar(select(SessionRow.user_id).where(active))

    def end_others(self, live: ActiveSession, why: EndReason, actor: Actor) -> Changed[int]:
        """Ends all sessions of the user but this one; returns how many."""
        user_id = live.record.user.id
        with self._changes.begin() as change:
            # changes of several sessions hold the row of the user, or two could deadlock
            user = change.db.scalars(
                select(User).where(User.id == user_id).with_for_update(key_share=True)
            ).one()
            ended, is_kept = self.end_others_within(change, user, live.record.id, why, actor)
            if not is_kept:
                must_have_had_row(live)
        return change.returning(ended)

    def end_others_within(
        self, change: Change, user: User, kept: UUID | None, why: EndReason, actor: Actor
    ) -> tuple[int, bool]:
        """As `end_all`, but for one session of the user, which goes on.

        Args:
            kept: id of that session; None: none goes on.
        Returns:
            How many ended, and whether there is that session.
        """
        others = SessionRow.user_id == user.id
        if kept is not None:
            others &= SessionRow.id != kept
        ended = self._rows.end(change, why, others, actor)
        self._bump_epoch(change, user)
        mine = change.db.execute(  # the session that stays follows the epoch
            update(SessionRow)
            .where(SessionRow.id == kept, SessionRow.user_id == user.id)
            .values(epoch=user.epoch, ver=SessionRow.ver + 1)
            .returning(SessionRow.digest, SessionRow.ver)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if mine is not None:
            change.touch_session(*mine)
        return ended, mine is not None

    def end_all(self, change: Change, user: User, why: EndReason) -> int:
        """Ends all sessions of a user, and trust in everything that was verified of them so far.

        Within a change, completed by the caller, that holds the user's row. The caller may change
        the row further.

        Returns:
            How many of the sessions had a row.
        """
        ended = self._rows.end(change, why, SessionRow.user_id == user.id)
        self._bump_epoch(change, user)
        return ended

    def _bump_epoch(self, change: Change, user: User) -> None:
        """Ends the sessions of a user that have no row yet. The caller ends those with a row."""
        user.epoch += 1
        user.ver += 1
        user.updated_at = self._clock()
        change.touch_user_alone(user)

    # -- replace and list ----------------------------------------------------------------------

    def end_others_and_rotate(
        self,
        change: Change,
        user: User,
        live: ActiveSession,
        why: EndReason,
        actor: Actor,
        amr: Amr = (),
    ) -> ActiveSession | IssuedTokens | None:
        """Ends all sessions of the user, and begins one with the data of this one and new limits
        (NIST SP 800-63B-4, 2.1.3: re-authentication resets both).

        Within a change, completed by the caller, that holds the user's row.

        Args:
            amr: as for `rotate`.
        Returns:
            None if this session is no longer active: then none ended and none began.
        """
        row = hold_row(change, live)
        if row is None:
            return None
        self.end_all(change, user, why)
        return self._rows.add_like(change, user, actor, row, amr)

    def of_user(self, user_id: UUID) -> Sequence[SessionSummary]:
        """The user's live sessions, the most recently seen first."""
        now = self._clock()
        with self._database.transaction() as db:
            rows = db.execute(statements.LIST, {"user_id": user_id, "now": now}).all()
        grace = self._policy.revalidate
        return [
            SessionSummary(
                row.id,
                row.kind,
                row.created_at,
                row.last_seen_at,
                row.expires_at,
                row.address,
                row.user_agent,
                tuple(row.amr),
                row.proved_at or row.created_at,
            )
            for row in rows
            if row.last_seen_at + timedelta(seconds=row.idle_seconds) + grace > now
        ]
