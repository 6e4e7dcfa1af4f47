"""Log-in by a passkey, which is two factors at once: no password, no email."""

from dataclasses import replace

from authapp.accounts.actor import Actor
from authapp.authentication.factors.browser_sessions import Browser, BrowserSessions
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.passkeys.check import credential_id_of
from authapp.authentication.factors.passkeys.json_forms import (
    AuthenticationCredential,
    RequestOptions,
)
from authapp.authentication.factors.passkeys.rows import Owner, descriptors
from authapp.authentication.limits import LoginLimits
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Changes
from authapp.errors import (
    AuthappError,
    EmailUnverified,
    InvalidCredentials,
    InvalidPasskey,
    SecondFactorUnavailable,
    StoreUnavailable,
    TooManyAttempts,
    UnknownAddress,
    UnknownPasskey,
)
from authapp.sessions.records import IssuedLogin
from authapp.sessions.store import SessionStore
from authapp.storage.deadlines import deadline
from authapp.storage.models import User
from authapp.storage.postgres import Database
from authapp.telemetry import metrics


class PasskeyLogin:
    """The use case of logging in by a passkey.

    Args:
        timeout: seconds that a log-in may take.
    Raises:
        PasskeysOff: from every method.
    """

    def __init__(
        self,
        parts: FactorParts,
        database: Database,
        changes: Changes,
        sessions: SessionStore,
        browser_sessions: BrowserSessions,
        *,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        timeout: float,
    ) -> None:
        self._check = parts.passkey_check
        self._rows = parts.passkey_rows
        self._pending_logins = parts.pending_logins
        self._database = database
        self._changes = changes
        self._sessions = sessions
        self._browser_sessions = browser_sessions
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._timeout = timeout

    def options(self) -> RequestOptions:
        """The options for a stranger, alike for everybody. Nothing is stored, and no store asked:
        the browser knows which passkeys there are for us."""
        return self._check.ceremonies.request_options("log in")

    def second_factor_options(self, login_token: str) -> RequestOptions:
        """The options for the second factor of a log-in that waits, which name the passkeys of the
        person: whoever asks has shown the password.

        Raises:
            LoginExpired: the login token is used up, too old or void.
            StoreUnavailable
        """
        ceremonies = self._check.ceremonies
        digest = self._pending_logins.digest_of(login_token)
        with self._database.transaction() as db:
            waiting = self._pending_logins.find(db, digest)
            allowed = descriptors(self._rows.of(db, waiting.user_id))
        return ceremonies.request_options("second factor", digest, allowed)

    def log_in(
        self,
        credential: AuthenticationCredential,
        actor: Actor,
        browser: Browser,
        *,
        remember: bool = False,
    ) -> IssuedLogin:
        """Starts a session for a browser whose user holds the passkey.

        Raises:
            TooManyAttempts, UnknownAddress: raised before anything is verified.
            InvalidPasskey: it is nobody's, or its answer is not accepted.
            EmailUnverified
            StoreUnavailable: no session began.
        """
        try:
            with deadline(self._timeout):
                issued = self._log_in(credential, actor, browser, remember=remember)
        except AuthappError as error:
            metrics.LOGINS.labels(_outcome_of(error)).inc()
            if isinstance(error, StoreUnavailable):
                raise SecondFactorUnavailable(error.store) from error
            raise
        metrics.LOGINS.labels("succeeded").inc()
        return issued

    def _log_in(
        self,
        credential: AuthenticationCredential,
        actor: Actor,
        browser: Browser,
        *,
        remember: bool,
    ) -> IssuedLogin:
        """Counts the attempt by its address and looks at its challenge, before a store is asked."""
        with self._refused_attempts.noting_limits("login.limited", actor):
            counted = self._limits.count_address(actor.address)
        with counted.told_by_errors():
            self._check.ceremonies.check_challenge(credential.response, "log in")
            with self._database.transaction() as db:
                owner = self._rows.owner_of(db, credential_id_of(credential))
            if owner is None:
                self._refused_attempts.note("login.failed", actor)
                raise UnknownPasskey("nobody has this passkey")
            person = actor.known_as(owner.user_id)
            try:
                issued = self._begin(owner, credential, person, browser, remember=remember)
            except InvalidCredentials:
                issued = None
            if issued is None:  # raised here, as a counter that fell must be committed
                self._refused_attempts.note("factor.refused", person)
                raise InvalidPasskey("the passkey is not accepted")
        return replace(issued, rate_limit=counted.window)

    def _begin(
        self,
        owner: Owner,
        credential: AuthenticationCredential,
        actor: Actor,
        browser: Browser,
        *,
        remember: bool,
    ) -> IssuedLogin | None:
        """Uses the passkey and begins the session in one change; None if its counter fell."""
        unconfirmed: EmailUnverified | None = None
        with self._changes.begin(acknowledged=False) as change:
            try:
                user = self._sessions.hold_verified(
                    change, owner.user_id, owner.epoch, browser.replaces
                )
            except EmailUnverified as error:  # said to those alone who hold the passkey
                user, unconfirmed = change.db.get_one(User, owner.user_id), error
            amr = self._check.use(change.db, user, credential, actor, ceremony="log in")
            if amr is None:
                return None
            if unconfirmed is None:
                issued = self._browser_sessions.begin(
                    change, user, actor, browser, amr, remember=remember, method="passkey"
                )
        if unconfirmed is not None:  # raised here, as the use of the answer must be committed
            raise unconfirmed
        return issued


def _outcome_of(error: AuthappError) -> str:
    if isinstance(error, TooManyAttempts):
        return "limited"
    is_refusal = isinstance(error, InvalidCredentials | EmailUnverified | UnknownAddress)
    return "refused" if is_refusal else "unavailable"
