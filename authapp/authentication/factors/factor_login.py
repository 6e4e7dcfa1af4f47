"""The second half of a log-in: the person shows a second factor, or sets one up first."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import with_second_factor
from authapp.authentication.factors.browser_sessions import NO_BROWSER, Browser, BrowserSessions
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.set_up import ProposedSecret
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Change, Changes
from authapp.crypto.tokens import SessionToken
from authapp.errors import (
    AuthappError,
    InvalidCredentials,
    InvalidFactor,
    LoginExpired,
    SecondFactorUnavailable,
    StoreUnavailable,
    TooManyAttempts,
)
from authapp.sessions.records import EndReason, IssuedLogin, IssuedTokens
from authapp.sessions.store import SessionStore
from authapp.storage.deadlines import deadline
from authapp.storage.factors.models import PendingLogin
from authapp.storage.models import User
from authapp.telemetry import metrics


@dataclass(frozen=True, slots=True)
class CompletedLogin:
    """A log-in after its second factor.

    Attributes:
        recovery_codes: those that were made when the factor was set up; they can't be shown again.
    """

    issued: IssuedLogin | IssuedTokens
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class FactorLogin:
    """The use cases of a login token.

    Everything happens in one change: a code is used up only if the session begins.

    Args:
        timeout: seconds that a call may take.
    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        parts: FactorParts,
        changes: Changes,
        sessions: SessionStore,
        browser_sessions: BrowserSessions,
        *,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        timeout: float,
    ) -> None:
        self._pending_logins = parts.pending_logins
        self._check = parts.check
        self._set_up = parts.set_up
        self._notices = parts.notices
        self._changes = changes
        self._sessions = sessions
        self._browser_sessions = browser_sessions
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._timeout = timeout

    def begin_set_up(self, login_token: str, actor: Actor) -> ProposedSecret:
        """A secret for an authenticator app, for a person who must hold a factor and has none.

        Raises:
            LoginExpired: also if the person holds a factor.
            FactorsOff, TooManyAttempts
        """
        digest = self._pending_logins.digest_of(login_token)
        with self._bounded(actor), self._changes.begin(acknowledged=False) as change:
            user, pending = self._claim(change, digest)
            if not pending.enrols:
                raise LoginExpired("this person holds a factor")
            # the same secret again, so that a page that is loaded again shows no other
            return self._set_up.proposed(change.db, user) or self._set_up.propose(change.db, user)

    def complete(
        self,
        login_token: str,
        shown: ShownFactor,
        actor: Actor,
        browser: Browser = NO_BROWSER,
    ) -> CompletedLogin:
        """Begins the session of a log-in that waited, if the factor is right.

        Raises:
            InvalidFactor: the login token is used up by success, or by five of these.
            LoginExpired: the login token is used up, too old or void. The person starts again.
            TooManyAttempts: too many wrong factors of this account, whatever the login token.
            FactorsOff
        """
        try:
            completed = self._complete(login_token, shown, actor, browser)
        except AuthappError as error:
            refused = isinstance(error, InvalidFactor | LoginExpired)
            limited = "limited" if isinstance(error, TooManyAttempts) else "unavailable"
            metrics.LOGINS.labels("refused" if refused else limited).inc()
            raise
        metrics.LOGINS.labels("succeeded").inc()
        return completed

    def _complete(
        self, login_token: str, shown: ShownFactor, actor: Actor, browser: Browser
    ) -> CompletedLogin:
        digest = self._pending_logins.digest_of(login_token)
        with self._bounded(actor) as counted:
            user_id = self._pending_logins.owner_of(digest)
            person = actor.known_as(user_id)
            with self._refused_attempts.noting_limits("factor.limited", person):
                # before the factor is looked at, so that attempts at the same moment count
                by_account = self._limits.count_factor(user_id)
            with self._changes.begin(acknowledged=False) as change:
                user, pending = self._claim(change, digest, browser.replaces)
                shown = replace(shown, bound_to=digest)
                completed = self._finish(change, user, pending, shown, person, browser)
            if completed is None:  # raised here, as the failure must be committed
                self._refused_attempts.note("factor.refused", person)
                raise InvalidFactor("this code is wrong, or was used before")
            by_account.take_back()
        return replace(completed, issued=replace(completed.issued, rate_limit=counted.window))

    @contextmanager
    def _bounded(self, actor: Actor) -> Iterator[Attempt]:
        """Counts the call by its address, and bounds it; says of an outage what it means."""
        try:
            with deadline(self._timeout):
                with self._refused_attempts.noting_limits("login.limited", actor):
                    counted = self._limits.count_address(actor.address)
                with counted.told_by_errors():
                    yield counted
        except StoreUnavailable as error:
            raise SecondFactorUnavailable(error.store) from error

    def _claim(
        self, change: Change, digest: bytes, replaces: Sequence[SessionToken] = ()
    ) -> tuple[User, PendingLogin]:
        """The person, whose row is locked, and the log-in that waits.

        Deactivation, a new password and other factors void it.
        """
        found = self._pending_logins.find(change.db, digest)
        try:
            user = self._sessions.hold_verified(change, found.user_id, found.epoch, replaces)
        except InvalidCredentials:
            raise LoginExpired("the person was changed since") from None
        return user, self._pending_logins.claim(change.db, digest, user)

    def _finish(
        self,
        change: Change,
        user: User,
        pending: PendingLogin,
        shown: ShownFactor,
        actor: Actor,
        browser: Browser,
    ) -> CompletedLogin | None:
        """Uses up the factor and the login token, and begins the session; None if it is wrong."""
        codes: tuple[str, ...] = ()
        if pending.enrols:
            added = self._set_up.accept(change.db, user, shown, actor)
            second = added.amr if added else None
        else:
            added, second = None, self._check.verify(change.db, user, shown, actor)
        if second is None:
            if self._pending_logins.note_failure(change.db, pending):
                self._notices.factor_refused(change.db, user, actor)
            return None
        amr = with_second_factor(tuple(pending.amr), second)
        kind, remember, method = pending.kind, pending.remember, pending.method
        self._pending_logins.use_up(change.db, pending.digest)
        if added:
            self._sessions.end_all(change, user, EndReason.FACTORS_CHANGED)
            codes = added.recovery_codes
        if kind == "api":
            tell = self._notices.of_login(actor)
            tokens = self._sessions.begin_program_after_factor(
                change, user, actor, refreshable=remember, tell=tell, amr=amr
            )
            return CompletedLogin(tokens, codes)
        issued = self._browser_sessions.begin(
            change, user, actor, browser, amr, remember=remember, method=method
        )
        return CompletedLogin(issued, codes)
