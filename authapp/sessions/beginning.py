"""How sessions begin: in Postgres, or in Redis alone while Postgres is away."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import PASSWORD, Amr, SecondFactorRule
from authapp.accounts.credentials import Credentials
from authapp.accounts.identity import identity_of, identity_with
from authapp.cache.changes import Change, Changes
from authapp.crypto.tokens import SessionToken
from authapp.errors import (
    EmailUnverified,
    InvalidCredentials,
    SecondFactorDue,
    SecondFactorUnavailable,
    StoreUnavailable,
)
from authapp.sessions import statements
from authapp.sessions.provisional import ProvisionalSessions
from authapp.sessions.records import ActiveSession, IssuedTokens
from authapp.sessions.rows import SessionRows
from authapp.storage.models import User
from authapp.storage.postgres import again_if_lost

Tell = Callable[[Session, User], None]


class SessionBeginning:
    """Begins sessions. No session begins while a second factor is due.

    Args:
        second_factors: who needs one.
    Raises:
        StoreUnavailable: from every method; no session began.
    """

    def __init__(
        self,
        changes: Changes,
        rows: SessionRows,
        provisional: ProvisionalSessions,
        second_factors: SecondFactorRule,
    ) -> None:
        self._changes = changes
        self._rows = rows
        self.provisional = provisional
        self._second_factors = second_factors

    def begin(
        self,
        user_id: UUID,
        epoch: int,
        actor: Actor,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        data: Mapping[str, Any] | None = None,
        tell: Tell | None = None,
        amr: Amr = PASSWORD,
        trusted: int | None = None,
        **how: str,
    ) -> ActiveSession:
        """Starts a browser's session with a new token (OWASP ASVS 5.0, 7.2.4), ending those it
        replaces.

        Args:
            epoch: of the credentials that were verified.
            remember: it lasts long.
            replaces: a handful of different tokens.
            data: that it begins with, as JSON.
            tell: is called within the change, before there is a row.
            amr: how the person proved who they are.
            trusted: the version of factors for which the browser is trusted without a second one.
            how: details of the log-in for the event in the audit log.
        Raises:
            InvalidCredentials: the user was changed or deactivated since they were verified.
            SecondFactorDue
        """
        with self._changes.begin(acknowledged=False) as change:
            user = self.hold_verified(change, user_id, epoch, replaces)
            self._expect_second_factor(user, amr, trusted)
            return self.begin_after_factor(
                change,
                user,
                actor,
                remember=remember,
                replaces=replaces,
                data=data,
                tell=tell,
                amr=amr,
                **how,
            )

    def hold_verified(
        self, change: Change, user_id: UUID, epoch: int, replaces: Sequence[SessionToken] = ()
    ) -> User:
        """Locks the user of verified credentials, and the sessions to be replaced. So a change of
        the user waits for this one, or is seen by it.

        Raises:
            InvalidCredentials: the user was changed or deactivated since they were verified.
            EmailUnverified: the user must confirm the address first.
        """
        if len(replaces) > 1:
            self._rows.hold(change, {token.digest for token in replaces}, user_id)
        found = {"user_id": user_id, "of_epoch": epoch}
        user = change.db.scalar(statements.HOLD_VERIFIED, found)
        if user is None:
            raise InvalidCredentials
        if user.email_confirmation_due:
            raise EmailUnverified(user.id, user.epoch)
        return user

    def begin_after_factor(
        self,
        change: Change,
        user: User,
        actor: Actor,
        *,
        remember: bool,
        replaces: Sequence[SessionToken],
        data: Mapping[str, Any] | None,
        tell: Tell | None,
        amr: Amr,
        **how: str,
    ) -> ActiveSession:
        """As `begin`, within a change of the caller, who has locked the user by `hold_verified` and
        checked the factors."""
        digests = tuple(token.digest for token in replaces)
        self._rows.enforce_cap(change, user.id, "browser", digests)
        if tell is not None:
            tell(change.db, user)
        return self._rows.begin(change, user, actor, remember=remember, data=data, amr=amr, **how)

    def _expect_second_factor(self, user: User, amr: Amr, trusted: int | None = None) -> None:
        # the roles are read only where the rule names some
        person = identity_of(user) if self._second_factors.roles else identity_with(user, (), ())
        if not self._second_factors.is_due(person, amr):
            return
        is_trusted = self._second_factors.trusts_browsers and trusted == user.factors_version
        if not is_trusted:
            raise SecondFactorDue(user.id, user.epoch)

    def begin_program(
        self,
        user_id: UUID,
        epoch: int,
        actor: Actor,
        *,
        refreshable: bool = False,
        tell: Tell | None = None,
        amr: Amr = PASSWORD,
    ) -> IssuedTokens:
        """As `begin`, for a program.

        Args:
            refreshable: the session outlives its first access token.
            tell, amr: as for `begin`.
        Raises:
            InvalidCredentials, SecondFactorDue: as `begin`.
        """
        with self._changes.begin(acknowledged=False) as change:
            user = self.hold_verified(change, user_id, epoch)
            self._expect_second_factor(user, amr)
            return self.begin_program_after_factor(
                change, user, actor, refreshable=refreshable, tell=tell, amr=amr
            )

    def begin_program_after_factor(
        self,
        change: Change,
        user: User,
        actor: Actor,
        *,
        refreshable: bool,
        tell: Tell | None,
        amr: Amr,
    ) -> IssuedTokens:
        """As `begin_program`, within a change of the caller, as `begin_after_factor`."""
        self._rows.enforce_cap(change, user.id, "api")
        if tell is not None:
            tell(change.db, user)
        return self._rows.begin_program(change, user, actor, refreshable=refreshable, amr=amr)

    def begin_or_provisional(
        self,
        credentials: Credentials,
        actor: Actor,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        data: Mapping[str, Any] | None = None,
        tell: Tell | None = None,
        trusted: int | None = None,
    ) -> ActiveSession:
        """As `begin` after a password, for a browser. While Postgres is down the session begins in
        Redis, and no notice is mailed.

        Raises:
            InvalidCredentials, SecondFactorDue: as `begin`.
            SecondFactorUnavailable: Postgres is down, and the person needs a second factor.
            StoreUnavailable: neither store took it.
        """
        begin = partial(
            self.begin,
            credentials.user.id,
            credentials.epoch,
            actor,
            remember=remember,
            replaces=replaces,
            data=data,
            tell=tell,
            trusted=trusted,
        )
        try:
            return again_if_lost(begin)  # as a session without a row may be lost
        except StoreUnavailable as error:
            if self._second_factors.is_due(credentials.user, PASSWORD):
                # which codes are used up, Postgres alone knows
                raise SecondFactorUnavailable(error.store) from error
            return self.provisional.begin(
                credentials, actor, remember=remember, replaces=replaces, data=data
            )
