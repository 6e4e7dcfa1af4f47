"""Step-up: a person who is logged in proves again who they are, before a sensitive act."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.emails import ParseEmail
from authapp.authentication.reauthentication import Reauthentication
from authapp.cache.changes import Changed, Changes
from authapp.errors import NotAuthenticated, StepUpRequired
from authapp.sessions.records import ActiveSession, IssuedLogin, IssuedTokens
from authapp.sessions.store import SessionStore


class StepUp:
    """How long a proof counts, and the proof by the current password.

    Args:
        lasts: how long a proof counts for sensitive acts.
    """

    def __init__(
        self,
        sessions: SessionStore,
        changes: Changes,
        reauthentication: Reauthentication,
        *,
        parse_email: ParseEmail,
        clock: Callable[[], datetime],
        lasts: timedelta,
    ) -> None:
        self._sessions = sessions
        self._changes = changes
        self._reauthentication = reauthentication
        self._parse_email = parse_email
        self._clock = clock
        self._lasts = lasts

    def require_fresh(self, live: ActiveSession) -> None:
        """Lets only a session pass in which the person proved who they are not long ago. A log-in
        is such a proof (OWASP ASVS 5.0, 7.5.1 and 7.5.3).

        Raises:
            StepUpRequired
        """
        proved_at = live.record.proved_at or live.record.created_at
        # A proof of the future, by a clock that was set back, does not count until that time comes.
        if abs(self._clock() - proved_at) >= self._lasts:
            raise StepUpRequired("the last proof is too old")

    def confirm(
        self, live: ActiveSession, password: str, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Proves who the person is by the current password. The session goes on under a new token,
        with new limits (OWASP ASVS 5.0, 7.2.4); other sessions of the person prove nothing by it.

        Raises:
            InvalidField: `password` is wrong.
            InvalidCredentials: the user was changed, deactivated or removed in the meantime.
            TooManyAttempts: too many wrong passwords.
            Busy: the password hashing queue is full.
            NotAuthenticated: the session ended in the meantime.
            StoreUnavailable: Postgres could not be asked; nothing was changed.
        """
        user = live.record.user
        actor = actor.known_as(user.id)
        email = self._parse_email(user.email)
        verified = self._reauthentication.verified(email, password, actor, field="password")
        with verified as (found, counted):
            pass  # nothing else is hashed
        with counted.told_by_errors(), self._changes.begin() as change:
            person = self._sessions.hold_verified(change, found.user.id, found.epoch)
            fresh = self._sessions.rotate(change, person, live, actor)
            if fresh is None:  # logged out while this ran
                raise NotAuthenticated(presented=True)
            audit.record_act(
                change.db, "identity.confirmed", self._clock(), user_id=user.id, actor=actor
            )
        if isinstance(fresh, IssuedTokens):
            return change.returning(replace(fresh, rate_limit=counted.window))
        return change.returning(IssuedLogin(fresh, rate_limit=counted.window))
