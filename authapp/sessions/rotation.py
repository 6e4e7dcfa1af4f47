"""New tokens for sessions that go on."""

from datetime import timedelta

from sqlalchemy import select

from authapp.accounts.actor import Actor
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import StoreUnavailable
from authapp.sessions.generation import is_live
from authapp.sessions.records import ActiveSession, EndReason, IssuedTokens, Lifetime
from authapp.sessions.rows import SessionRows
from authapp.storage.models import SessionRow, User


class SessionRotation:
    """Replaces a session by one with its data and a new token; the old token is dead.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(self, changes: Changes, rows: SessionRows) -> None:
        self._changes = changes
        self._rows = rows

    def rotate(
        self, change: Change, user: User, live: ActiveSession, actor: Actor
    ) -> ActiveSession | IssuedTokens | None:
        """A new token and new limits, for a person who has just proved who they are
        (NIST SP 800-63B-4, 2.1.3: re-authentication resets both).

        Within a change, completed by the caller, that holds the user's row.

        Returns:
            None when the session is no longer live.
        """
        row = hold_row(change, live)
        if row is None:
            return None
        self._rows.end(change, EndReason.REPLACED, SessionRow.digest == live.token.digest)
        return self._rows.add_like(change, user, actor, row)

    def regenerate(self, live: ActiveSession, actor: Actor) -> Changed[ActiveSession | None]:
        """A new token for a browser's session, with its limits. The proof stays as old as it was.

        Returns:
            None when the session is no longer live, or is a program's.
        """
        with self._changes.begin() as change:
            fresh = self._regenerate(change, live, actor)
        return change.returning(fresh)

    def _regenerate(
        self, change: Change, live: ActiveSession, actor: Actor
    ) -> ActiveSession | None:
        user = change.db.scalars(
            select(User).where(User.id == live.record.user.id).with_for_update(key_share=True)
        ).one()
        row = hold_row(change, live)
        if row is None or not user.active or row.epoch != user.epoch:
            return None
        if row.kind != "browser":
            return None
        lifetime = Lifetime(timedelta(seconds=row.idle_seconds), row.expires_at)
        self._rows.end(change, EndReason.REPLACED, SessionRow.digest == live.token.digest)
        return self._rows.add(
            change,
            user,
            actor,
            remember=live.record.remembered,
            lifetime=lifetime,
            proved_at=row.proved_at or row.created_at,
            replaces=row,
        )


def hold_row(change: Change, live: ActiveSession) -> SessionRow | None:
    """Locks the row of a session while it is live.

    Raises:
        StoreUnavailable: as `must_have_had_row`.
    """
    row = change.db.scalar(
        select(SessionRow)
        .where(SessionRow.digest == live.token.digest, is_live())
        .with_for_update()
    )
    if row is None:
        must_have_had_row(live)
    return row


def must_have_had_row(live: ActiveSession) -> None:
    """That no live row is found says that the session ended, if it had one.

    Raises:
        StoreUnavailable: it had none; Postgres came back between the reading of it and now.
    """
    if live.record.provisional is not None:
        raise StoreUnavailable("postgres")
