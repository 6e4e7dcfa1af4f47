"""Log-in and log-out: a person proves who they are, and a session begins or ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import PASSWORD, Amr
from authapp.accounts.credentials import Credentials
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import Identity
from authapp.accounts.store import UserStore
from authapp.authentication.factors.pending_logins import PendingLogins
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.notices import Notices
from authapp.authentication.password_check import PasswordCheck
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Changed
from authapp.crypto.tokens import DeviceToken, SessionToken
from authapp.errors import (
    AuthappError,
    Busy,
    EmailUnverified,
    InvalidCredentials,
    InvalidField,
    PasswordChangeRequired,
    ReplacedPassword,
    SecondFactorDue,
    SecondFactorRequired,
    TooManyAttempts,
    UnknownAddress,
    Window,
)
from authapp.passwords.constant_time import ConstantTimeRefusal
from authapp.sessions.records import EndReason, IssuedLogin, IssuedTokens, Kind
from authapp.sessions.store import SessionStore
from authapp.storage.deadlines import deadline
from authapp.telemetry import metrics

# how each refusal counts in the metric of log-ins; every other error counts as "unavailable"
_OUTCOMES: dict[type[AuthappError], str] = {
    InvalidField: "refused",
    UnknownAddress: "refused",
    InvalidCredentials: "refused",
    ReplacedPassword: "refused",
    PasswordChangeRequired: "refused",
    SecondFactorRequired: "waiting",
    EmailUnverified: "refused",
    TooManyAttempts: "limited",
    Busy: "busy",
}

Issued = TypeVar("Issued", IssuedLogin, IssuedTokens)


class Authentication:
    """The use cases of logging in and out.

    Args:
        timeout: seconds that a log-in may take.
    Raises:
        StoreUnavailable: from every method; nothing was changed.
        Busy: from every method that takes a password; the password hashing queue is full.
    """

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        *,
        passwords: PasswordCheck,
        limits: LoginLimits,
        known_devices: KnownDevices,
        refused_attempts: RefusedAttempts,
        pending_logins: PendingLogins,
        notices: Notices,
        parse_email: ParseEmail,
        timeout: float,
    ) -> None:
        self._pending_logins = pending_logins
        self._notices = notices
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._limits = limits
        self._known_devices = known_devices
        self._refused_attempts = refused_attempts
        self._parse_email = parse_email
        self._timeout = timeout

    def log_in(
        self,
        email: str,
        password: str,
        actor: Actor,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        devices: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
    ) -> IssuedLogin:
        """Starts a session for a browser whose user knows the password.

        Args:
            replaces: tokens of the sessions that the browser had so far, a handful; these end.
            data: that the session begins with, as JSON.
            devices: the device tokens that the browser sent.
        Raises:
            InvalidField: `email` is not an email address.
            TooManyAttempts: raised before anything is hashed.
            InvalidCredentials: unknown email, wrong password or inactive user, in equal time.
            PasswordChangeRequired: the password is a one-time one; no session begins.
            EmailUnverified: the password is right, and the address must be confirmed first.
            SecondFactorRequired: the password is right, and a second factor is needed.
        """

        def begin(parsed: Email, verified: Credentials) -> IssuedLogin:
            device = self._known_devices.match_device(parsed, devices)
            tell = self._notices.of_login(actor, is_known_device=device is not None)
            trust = self._known_devices.trust_in(device, verified.epoch)
            with self._waiting_for_factor("browser", remember=remember):
                live = self._sessions.begin_or_provisional(
                    verified,
                    actor,
                    remember=remember,
                    replaces=replaces,
                    data=data,
                    tell=tell,
                    trusted=trust.factors_version if trust else None,
                )
            known = self._known_devices.issue_device_token(parsed, verified.epoch, devices, trust)
            return IssuedLogin(live, known)

        return self._log_in(email, password, actor, begin, devices)

    def log_in_as(
        self,
        user_id: UUID,
        actor: Actor,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        data: Mapping[str, Any] | None = None,
        amr: Amr = (),
    ) -> IssuedLogin:
        """Starts a session for a browser whose user an embedding app has verified by its own means.

        No limit counts it, and no session begins without Postgres.

        Args:
            replaces, data: as for `log_in`.
            amr: how the app verified the user, in words of RFC 8176. With `mfa`, `otp`, `hwk` or
                `swk` among them no second factor is asked for.
        Raises:
            InvalidCredentials: there is no such user, or the user is inactive.
            EmailUnverified: the address must be confirmed first.
            SecondFactorRequired
        """
        found = self._users.read(user_id)
        if found is None:
            raise InvalidCredentials
        with self._waiting_for_factor("browser", amr, remember=remember, method="application"):
            live = self._sessions.begin(
                found.user.id,
                found.epoch,
                actor,
                remember=remember,
                replaces=replaces,
                data=data,
                tell=self._notices.of_login(actor),
                amr=amr,
                method="application",
            )
        metrics.LOGINS.labels("succeeded").inc()
        return IssuedLogin(live)

    def log_in_proved(
        self,
        user: Identity,
        epoch: int,
        actor: Actor,
        *,
        replaces: Sequence[SessionToken] = (),
        devices: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
        method: str,
        amr: Amr = PASSWORD,
    ) -> IssuedLogin:
        """Starts a session for a browser whose user has just shown the password in another way than
        by a log-in: at sign-up, or when confirming the address; or has just made a passkey.

        No limit counts it, and no session begins without Postgres.

        Args:
            epoch: of the credentials that were verified.
            replaces, devices, data: as for `log_in`.
            method: what the event in the audit log says of it.
            amr: what the user has shown.
        Raises:
            InvalidCredentials: the user was changed or deactivated in the meantime.
            EmailUnverified, SecondFactorRequired
        """
        with self._waiting_for_factor("browser", amr, method=method):
            live = self._sessions.begin(
                user.id, epoch, actor, replaces=replaces, data=data, amr=amr, method=method
            )
        email = self._parse_email(user.email)
        metrics.LOGINS.labels("succeeded").inc()
        if amr != PASSWORD:
            return IssuedLogin(live)
        return IssuedLogin(live, self._known_devices.issue_device_token(email, epoch, devices))

    def issue_token(
        self, email: str, password: str, actor: Actor, *, refreshable: bool = False
    ) -> IssuedTokens:
        """Starts a session for a program whose user knows the password; it gets an access token.

        Args:
            refreshable: the session outlives its first token; the program gets a refresh token.
        Raises:
            InvalidField, TooManyAttempts, InvalidCredentials, EmailUnverified,
            PasswordChangeRequired, SecondFactorRequired: as `log_in`.
            StoreUnavailable: also while Postgres alone is unreachable.
        """

        def begin(_: Email, verified: Credentials) -> IssuedTokens:
            tell = self._notices.of_login(actor)
            with self._waiting_for_factor("api", remember=refreshable):
                return self._sessions.begin_program(
                    verified.user.id, verified.epoch, actor, refreshable=refreshable, tell=tell
                )

        return self._log_in(email, password, actor, begin)

    @contextmanager
    def _waiting_for_factor(
        self, kind: Kind, amr: Amr = PASSWORD, *, remember: bool = False, method: str = ""
    ) -> Iterator[None]:
        """Has a log-in wait that the block could not complete without a second factor."""
        try:
            yield
        except SecondFactorDue as due:
            raise self._pending_logins.issue(
                due, kind=kind, remember=remember, amr=amr, method=method
            ) from None

    def count_unreadable(self, actor: Actor) -> Window | None:
        """Counts a log-in request that could not be read, by its address like any other.

        Returns:
            The window that counted it, see `Attempt`.
        Raises:
            TooManyAttempts
        """
        try:
            with self._refused_attempts.noting_limits("login.limited", actor):
                counted = self._limits.count_address(actor.address)
        except TooManyAttempts:
            metrics.LOGINS.labels(_OUTCOMES[TooManyAttempts]).inc()
            raise
        metrics.LOGINS.labels(_OUTCOMES[InvalidField]).inc()
        return counted.window

    def log_out(self, token: SessionToken, actor: Actor) -> Changed[None]:
        """Ends the session of this token."""
        return self.log_out_of([token], actor)

    def log_out_of(self, tokens: Sequence[SessionToken], actor: Actor) -> Changed[None]:
        """Ends the sessions of a handful of tokens, all or none of them."""
        return self._sessions.end_each(tokens, EndReason.LOGOUT, actor)

    def _log_in(
        self,
        text: str,
        password: str,
        actor: Actor,
        begin: Callable[[Email, Credentials], Issued],
        devices: Sequence[str] = (),
    ) -> Issued:
        """Logs in, and counts the outcome.

        The attempt counts by its address before the email is read: an unreadable one counts, too.

        Args:
            text: the email as it was typed.
            begin: begins the session for credentials that were verified.
        """

        def hashing_seconds() -> float:
            return self._passwords.refusal_seconds(password)

        try:
            with ConstantTimeRefusal(hashing_seconds) as refusal, deadline(self._timeout):
                with self._refused_attempts.noting_limits("login.limited", actor):
                    counted = self._limits.count_address(actor.address)
                with counted.told_by_errors():
                    email = self._parse_email(text)
                    with self._noting_refusals(email, actor):
                        issued = self._log_in_counted(
                            counted, email, password, actor.address, begin, devices, refusal
                        )
        except AuthappError as error:
            metrics.LOGINS.labels(_OUTCOMES.get(type(error), "unavailable")).inc()
            raise
        provisional = issued.session.record.provisional is not None
        metrics.LOGINS.labels("provisional" if provisional else "succeeded").inc()
        return replace(issued, rate_limit=counted.window)

    @contextmanager
    def _noting_refusals(self, email: Email, actor: Actor) -> Iterator[None]:
        """Records for the audit log that the block refuses an attempt on this account."""
        try:
            with self._refused_attempts.noting_limits("login.limited", actor, email):
                yield
        except InvalidCredentials:
            self._refused_attempts.note("login.failed", actor, email=email)
            raise

    def _log_in_counted(
        self,
        by_address: Attempt,
        email: Email,
        password: str,
        address: str,
        begin: Callable[[Email, Credentials], Issued],
        devices: Sequence[str],
        refusal: ConstantTimeRefusal,
    ) -> Issued:
        """Counts the attempt by its account, verifies the password, and begins a session, in this
        order.

        Limits come before the hashing queue; otherwise refused attempts would keep its places from
        everybody else.
        """
        by_account, device = self._count_for_account(email, devices)
        place = self._passwords.queue.place(by_address, by_account, address=address)
        with place, refusal.drawn_out():
            cached = self._passwords.find_cached(email, password, refusal)
            if device and (cached is None or cached.epoch > device.epoch):
                # the token is older than the current trust, so it gives no window of its own
                by_account.add(self._limits.count_account(email))
            verified, verdict = self._passwords.verify(email, password, cached, refusal)
            by_account.take_back()
            self._passwords.follow_up(verified, verdict, password)
            try:
                return begin(email, verified)
            except InvalidCredentials:
                return begin(
                    email, self._passwords.unless_changed(email, password, verified, refusal)
                )

    def _count_for_account(
        self, email: Email, devices: Sequence[str]
    ) -> tuple[Attempt, DeviceToken | None]:
        """Counts the attempt in one window: its known device's, otherwise its account's.

        Returns:
            The counted attempt, and the device in whose window it was counted, if any.
        Raises:
            TooManyAttempts
        """
        device = self._known_devices.match_device(email, devices)
        if device is None:
            return self._limits.count_account(email), None
        by_device = self._limits.count_device_attempt(device)
        if by_device is None:  # the window of the device is full
            return self._limits.count_account(email), None
        return by_device, device
