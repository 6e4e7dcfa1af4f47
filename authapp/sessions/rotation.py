"""Rotation: new tokens for sessions that go on."""

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import select

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.accounts.identity import identity_of
from authapp.cache.changes import Change, Changed, Changes
from authapp.crypto.tokens import RefreshToken
from authapp.errors import NotAuthenticated, StoreUnavailable
from authapp.sessions.generation import is_live, is_outlived
from authapp.sessions.records import ActiveSession, EndReason, IssuedTokens, Lifetime
from authapp.sessions.rows import SessionRows
from authapp.storage.models import SessionRow, User


class SessionRotation:
    """Replaces a session by one with its data and a new token; the old token is dead. A program's
    session goes on with a new pair of tokens.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self, changes: Changes, rows: SessionRows, *, clock: Callable[[], datetime]
    ) -> None:
        self._changes = changes
        self._rows = rows
        self._clock = clock

    def rotate(
        self, change: Change, user: User, live: ActiveSession, actor: Actor, amr: Amr = ()
    ) -> ActiveSession | IssuedTokens | None:
        """A new token and new limits, for a person who has just proved who they are
        (NIST SP 800-63B-4, 2.1.3: re-authentication resets both).

        Within a change, completed by the caller, that holds the user's row.

        Args:
            amr: the methods of this proof, which add to the earlier ones.
        Returns:
            None when the session is no longer live.
        """
        row = hold_row(change, live)
        if row is None:
            return None
        self._rows.end(change, EndReason.REPLACED, SessionRow.digest == live.token.digest)
        return self._rows.add_like(change, user, actor, row, amr)

    def regenerate(self, live: ActiveSession, actor: Actor) -> Changed[ActiveSession | None]:
        """A new token for a browser's session. Its limits and the time of its proof stay.

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
        proved_at = row.proved_at or row.created_at
        return self._rows.add_successor(
            change, user, actor, row, amr=row.amr, lifetime=lifetime, proved_at=proved_at
        )

    def refresh(self, token: RefreshToken, actor: Actor) -> IssuedTokens:
        """A new access token for a session that goes on, and the next refresh token.

        A refresh token counts once. A second use means that the token was stolen, by its sender or
        from its sender. Nobody can tell which, so the session ends, with all of its tokens
        (RFC 9700, 4.14.2). That holds for a program that lost the answer, too.

        Raises:
            NotAuthenticated: the session has ended, just now perhaps.
        """
        with self._changes.begin(acknowledged=False) as change:
            issued = self._refresh(change, token, actor)
        if issued is None:  # raised here, as ending the session must be committed
            raise NotAuthenticated(presented=True)
        return issued

    def _refresh(self, change: Change, token: RefreshToken, actor: Actor) -> IssuedTokens | None:
        found = change.db.execute(
            select(SessionRow, User, is_outlived())
            .join(User, User.id == SessionRow.user_id)
            .where(SessionRow.id == token.session_id, SessionRow.ended_at.is_(None))
            .with_for_update(of=SessionRow)  # of two at once one comes second
        ).one_or_none()
        if found is None:
            return None
        row, user, outlived = found
        now = self._clock()
        person = identity_of(user)
        record = self._rows.record(row, person, user.epoch, is_outlived=outlived)
        if record.ended_why or self._rows.expired(record):
            return None
        if not hmac.compare_digest(row.refresh_digest or b"", token.digest):
            # we made it for this session, and it is not the next: it was used
            self._rows.end(change, EndReason.REFRESH_REUSED, SessionRow.id == row.id, actor)
            return None
        row.last_seen_at = now
        refresh = self._rows.next_refresh_token(row)
        return self._rows.issue_tokens(row, person, user.epoch, refresh)


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
    """Returns if a session without an active row has ended.

    Raises:
        StoreUnavailable: it never had a row, because Postgres came back only after it was read.
    """
    if live.record.provisional is not None:
        raise StoreUnavailable("postgres")
