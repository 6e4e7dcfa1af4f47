"""Step-up: a person who is logged in proves again who they are, before a sensitive act."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import PASSWORD, Amr, proves_second_factor
from authapp.accounts.emails import ParseEmail
from authapp.authentication.factors.check import FactorCheck, ShownFactor
from authapp.authentication.limits import LoginLimits
from authapp.authentication.reauthentication import Reauthentication
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import InvalidField, NotAuthenticated, StepUpRequired
from authapp.sessions.records import ActiveSession, IssuedLogin, IssuedTokens
from authapp.sessions.store import SessionStore
from authapp.storage.models import User

_NO_PASSWORD = {"password": "show your second factor instead: the password alone is no proof"}


class StepUp:
    """How long a proof counts, and the proof by the current password or by a second factor.

    Args:
        lasts: how long a proof counts for sensitive acts.
    """

    def __init__(
        self,
        sessions: SessionStore,
        changes: Changes,
        reauthentication: Reauthentication,
        check: FactorCheck,
        *,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        parse_email: ParseEmail,
        clock: Callable[[], datetime],
        lasts: timedelta,
    ) -> None:
        self._sessions = sessions
        self._changes = changes
        self._reauthentication = reauthentication
        self._check = check
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._parse_email = parse_email
        self._clock = clock
        self._lasts = lasts

    def require_fresh(self, live: ActiveSession) -> None:
        """Lets only a session pass in which the person proved who they are not long ago. A log-in
        is such a proof (OWASP ASVS 5.0, 7.5.1 and 7.5.3). People who hold a
        second factor have shown it.

        Raises:
            StepUpRequired
        """
        record = live.record
        if record.user.second_factor and not proves_second_factor(record.amr):
            raise StepUpRequired("a second factor is needed")
        proved_at = record.auth_time
        # A proof of the future, by a clock that was set back, does not count until that time comes.
        if abs(self._clock() - proved_at) >= self._lasts:
            raise StepUpRequired("the last proof is too old")

    def confirm(
        self, live: ActiveSession, password: str, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Proves who the person is by the current password. The session goes on under a new token,
        with new limits (OWASP ASVS 5.0, 7.2.4); other sessions of the person prove nothing by it.

        Raises:
            InvalidField: `password` is wrong, or the person holds a second factor, without which
                the password is no proof.
            InvalidCredentials: the user was changed, deactivated or removed in the meantime.
            TooManyAttempts: too many wrong passwords.
            Busy: the password hashing queue is full.
            NotAuthenticated: the session ended in the meantime.
            StoreUnavailable: Postgres could not be asked; nothing was changed.
        """
        user = live.record.user
        if user.second_factor:
            raise InvalidField(_NO_PASSWORD)
        actor = actor.known_as(user.id)
        email = self._parse_email(user.email)
        verified = self._reauthentication.verified(email, password, actor, field="password")
        with verified as (found, counted):
            pass  # nothing else is hashed
        with counted.told_by_errors(), self._changes.begin() as change:
            person = self._sessions.hold_verified(change, found.user.id, found.epoch)
            if person.second_factor:  # since the session was read
                raise InvalidField(_NO_PASSWORD)
            issued = self._go_on(change, person, live, actor, PASSWORD)
        return change.returning(replace(issued, rate_limit=counted.window))

    def confirm_by_factor(
        self, live: ActiveSession, shown: ShownFactor, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """As `confirm`, by a second factor of the person, which is used up by it.

        Raises:
            InvalidField: the factor is wrong, or was used before; the person holds none.
            TooManyAttempts: too many wrong factors, at log-in and here.
            FactorsOff, NotAuthenticated, StoreUnavailable: as `confirm`.
        """
        user = live.record.user
        actor = actor.known_as(user.id)
        shown = replace(shown, bound_to=live.record.id.bytes)
        with self._refused_attempts.noting_limits("factor.limited", actor):
            counted = self._limits.count_factor(user.id)
        with counted.told_by_errors():
            with self._changes.begin() as change:
                person = change.db.scalar(
                    select(User)
                    .where(User.id == user.id, User.active)
                    .with_for_update(key_share=True)
                )
                if person is None:
                    raise NotAuthenticated(presented=True)
                amr = self._check.verify(change.db, person, shown, actor)
                issued = self._go_on(change, person, live, actor, amr) if amr else None
            if issued is None:  # raised here, as the failure must be committed
                self._refused_attempts.note("factor.refused", actor)
                if shown.method == "passkey":
                    raise InvalidField({"credential": "this passkey was not accepted; try again"})
                raise InvalidField({"code": "this code is not right, or was used before"})
        counted.take_back()
        return change.returning(replace(issued, rate_limit=counted.window))

    def _go_on(
        self, change: Change, person: User, live: ActiveSession, actor: Actor, amr: Amr
    ) -> IssuedLogin | IssuedTokens:
        """Gives the session a new token, within a change that holds the person's row."""
        fresh = self._sessions.rotate(change, person, live, actor, amr)
        if fresh is None:  # logged out while this ran
            raise NotAuthenticated(presented=True)
        audit.record_act(
            change.db, "identity.confirmed", self._clock(), user_id=person.id, actor=actor
        )
        return fresh if isinstance(fresh, IssuedTokens) else IssuedLogin(fresh)
