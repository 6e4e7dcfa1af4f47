"""What people do with their account: sign up, log in, log out, change the password."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Self
from uuid import UUID

import structlog
from msgspec.structs import replace

from authapp.accounts import audit
from authapp.accounts.audit import Event
from authapp.accounts.authorization import lock_user
from authapp.accounts.credentials import Credentials, CredentialStore
from authapp.accounts.emails import Email
from authapp.accounts.identity import USER, Identity, Permission
from authapp.accounts.profiles import stored_name, validate_profile, why_name_refused
from authapp.accounts.store import UserStore
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.passwords import PasswordHasher, Verdict, why_refused
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Change, Changes
from authapp.crypto.tokens import SessionToken
from authapp.errors import (
    AuthappError,
    Busy,
    InvalidCredentials,
    InvalidField,
    NotAuthenticated,
    OwnAccount,
    StoreUnavailable,
    TooManyAttempts,
    UnknownAddress,
    UnknownUser,
)
from authapp.sessions.records import ActiveSession, Client, EndReason
from authapp.sessions.store import SessionStore
from authapp.storage.resilience import deadline
from authapp.telemetry import metrics

_log = structlog.get_logger(__name__)

_OUTCOMES: dict[type[AuthappError], str] = {
    InvalidField: "refused",
    UnknownAddress: "refused",
    InvalidCredentials: "refused",
    TooManyAttempts: "limited",
    Busy: "busy",
}

# What a refused log-in takes beside its hashing, in seconds. Reading and recording take less, and
# differ by some milliseconds between who has an account and who has none.
REFUSAL_SECONDS = 0.05

REHASH_PATIENCE = 0.8  # seconds that Postgres has for it; the log-in needs those that are left


class Authentication:
    """
    Args:
        timeout: seconds a log-in may take.
    Raises:
        StoreUnavailable: from every method; then nothing was changed.
        Busy: from those that take a password: too many do at this moment.
    """

    def __init__(
        self,
        users: UserStore,
        credentials: CredentialStore,
        sessions: SessionStore,
        changes: Changes,
        hasher: PasswordHasher,
        limits: LoginLimits,
        clock: Callable[[], datetime],
        *,
        refused_attempts: RefusedAttempts,
        timeout: float,
    ) -> None:
        self._timeout = timeout
        self._users = users
        self._credentials = credentials
        self._sessions = sessions
        self._changes = changes
        self._refused_attempts = refused_attempts
        self._hasher = hasher
        self._limits = limits
        self._clock = clock

    def sign_up(
        self,
        email: str,
        password: str,
        name: str = "",
        roles: tuple[str, ...] = (USER,),
        client: Client | None = None,
    ) -> Identity:
        """Adds a person who can log in.

        Args:
            client: from where they sign up; None for the operator's command line, which no limit
                holds back.
        Raises:
            InvalidField: all that is wrong with the input, by field.
            TooManyAttempts: before anything was hashed.
            EmailTaken, UnknownRole
        """
        errors: dict[str, str] = {}
        address: Email | None = None
        try:
            address = self._users.parse_email(email)
        except InvalidField as invalid:
            errors |= invalid.errors
        if reason := why_name_refused(name):
            errors["name"] = reason
            name = ""
        name = stored_name(name)
        if reason := why_refused(password, (address.stored if address else "", name)):
            errors["password"] = reason
        if errors or address is None:
            raise InvalidField(errors)
        here = client.address if client else None
        counted = []
        if here is not None:  # it costs a hash, and tells whether an email is taken
            with self._on_record("signup.limited", here):
                counted.append(self._limits.take_sign_up(here))
        with self._slot(*counted):
            user = self._users.create(address, name, self._hasher.hash(password), roles, here)
        self._credentials.prime(address.canonical)
        return user

    def log_in(
        self,
        email: str,
        password: str,
        client: Client,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        devices: Sequence[str] = (),
    ) -> ActiveSession:
        """Starts a session for who knows the password.

        Args:
            replaces: tokens of the sessions the browser had so far, a handful; these end.
            devices: what the browser sent to be known by.
        Raises:
            InvalidField: `email` is none.
            TooManyAttempts: before anything was hashed.
            InvalidCredentials: unknown email, wrong password or inactive user, in equal time.
        """

        def begin(found: Credentials) -> ActiveSession:
            live = self._sessions.begin_verified(
                found, client, remember=remember, replaces=replaces
            )
            return self._known(live, found.epoch, devices)

        return self._count(
            email, client, lambda: self._log_in(email, password, client, begin, devices)
        )

    def count_unreadable(self, client: Client) -> None:
        """Counts a request to log in that could not be read, by its address as any other.

        Raises:
            TooManyAttempts
        """
        try:
            with self._on_record("login.limited", client.address):
                self._limits.take_address(client.address)
        except TooManyAttempts:
            metrics.LOGINS.labels(_OUTCOMES[TooManyAttempts]).inc()
            raise
        metrics.LOGINS.labels(_OUTCOMES[InvalidField]).inc()

    def issue_token(
        self, email: str, password: str, client: Client, *, refreshable: bool = False
    ) -> ActiveSession:
        """Starts a session for a program of who knows the password: it gets an access token.

        Args:
            refreshable: the session outlives its first token; the program gets a refresh token.
        Raises:
            InvalidField, TooManyAttempts, InvalidCredentials: as `log_in`.
            StoreUnavailable: also while Postgres alone is away.
        """

        def begin(found: Credentials) -> ActiveSession:
            return self._sessions.begin(
                found.user.id, found.epoch, client, kind="api", remember=refreshable
            )

        return self._count(email, client, lambda: self._log_in(email, password, client, begin))

    def _count(
        self, email: str, client: Client, log_in: Callable[[], ActiveSession]
    ) -> ActiveSession:
        try:
            with self._on_record("login.limited", client.address, email=email):
                live = log_in()
        except AuthappError as error:
            metrics.LOGINS.labels(_OUTCOMES.get(type(error), "unavailable")).inc()
            if isinstance(error, InvalidCredentials):
                canonical = self._users.parse_email(email).canonical
                self._refused_attempts.note("login.failed", client.address, email=canonical)
            raise
        metrics.LOGINS.labels("provisional" if live.record.provisional else "succeeded").inc()
        return live

    @contextmanager
    def _on_record(
        self, event: Event, address: str, *, email: str = "", user_id: UUID | None = None
    ) -> Iterator[None]:
        """Has a limit that refuses an attempt recorded as `event`."""
        try:
            yield
        except TooManyAttempts as error:
            # by address it refuses whatever the account
            tried = (
                self._users.parse_email(email).canonical if error.window == "login-account" else ""
            )
            self._refused_attempts.note(
                event, address, email=tried, user_id=user_id, window=error.window
            )
            raise

    def _log_in(
        self,
        email: str,
        password: str,
        client: Client,
        begin: Callable[[Credentials], ActiveSession],
        devices: Sequence[str] = (),
    ) -> ActiveSession:
        """
        Raises:
            TooManyAttempts: a limit is used up. Limits come before the hashing slot, or those who
                are refused would keep slots from everybody else.
        """
        with _EvenPace() as pace, deadline(self._timeout):
            by_address = self._limits.take_address(client.address)
            canonical = self._users.parse_email(email).canonical
            device = self._limits.known_device(canonical, devices)
            by_account = self._limits.take_device(device) if device else None
            if by_account is None:  # no device that the account knows, or its own window is full
                by_account, device = self._limits.take_account(canonical), None
            with self._slot(by_address, by_account):
                try:
                    copy = self._credentials.find(canonical)
                except StoreUnavailable:
                    # as much work as for an email of which there is a copy: see `_verify`
                    with pace.hashing(), suppress(Busy):  # no time may be left for it
                        self._hasher.verify_dummy(password)
                    raise
                if device and (copy is None or copy.epoch > device.epoch):
                    by_account.add(self._limits.take_account(canonical))
                found, verdict = self._verify(canonical, password, copy, pace)
                by_account.take_back()
                if verdict is Verdict.MATCH_REHASH:
                    self._rehash(found, password)
                try:
                    return begin(found)
                except InvalidCredentials:
                    found = self._unless_changed(canonical, found)
                return begin(found)

    @contextmanager
    def _slot(self, *counted: Attempt) -> Iterator[None]:
        """A hashing slot. An attempt that finds none free has told nothing, and is not counted.

        Raises:
            Busy
        """
        with ExitStack() as held:
            try:
                held.enter_context(self._hasher.slot())
            except Busy:
                for attempt in counted:
                    attempt.take_back()
                raise
            yield

    def _verify(
        self,
        canonical_email: str,
        password: str,
        found: Credentials | None,
        pace: "_EvenPace",
    ) -> tuple[Credentials, Verdict]:
        """
        Args:
            found: by a copy, perhaps.
        Raises:
            InvalidCredentials
            StoreUnavailable: the password does not match a copy, and the facts can't be asked.
        """
        with pace.hashing():
            verdict = self._compare(password, found)
        if found is not None and verdict is Verdict.MISMATCH:
            # A copy may be behind for as long as fences are pending; who is refused by it is
            # refused by the facts, or not at all. To compare once more takes time, which tells
            # that there is such an account: so only where the answer can be another.
            # While Postgres is away this raises: a refusal would tell that there is a copy, and so
            # an account; of other emails nobody can say either.
            facts = self._credentials.read(canonical_email)
            if facts is not None and _may_match_instead(facts, found):
                found = facts
                with pace.hashing():
                    verdict = self._compare(password, facts)
        if found is None or verdict is Verdict.MISMATCH:
            raise InvalidCredentials
        return found, verdict

    def _known(self, live: ActiveSession, epoch: int, devices: Sequence[str]) -> ActiveSession:
        email = self._users.parse_email(live.record.user.email).canonical
        return replace(live, devices=self._limits.know_device(email, epoch, devices))

    def _unless_changed(self, canonical_email: str, verified: Credentials) -> Credentials:
        """The credentials as they are now, when the same password still opens them: other trust
        than that in the password may have ended meanwhile, as when all sessions were ended.

        Raises:
            InvalidCredentials
        """
        facts = self._credentials.read(canonical_email)
        if facts is None or not facts.user.active:
            raise InvalidCredentials
        if facts.password_hash != verified.password_hash:
            raise InvalidCredentials
        return facts

    def _rehash(self, found: Credentials, password: str) -> None:
        new_hash = self._hasher.hash(password)
        try:
            with deadline(REHASH_PATIENCE):
                self._users.rehash(found.user.id, found.epoch, new_hash)
        except StoreUnavailable:
            _log.info("rehash_postponed")  # to the next log-in

    def _compare(self, password: str, found: Credentials | None) -> Verdict:
        if found is None or not found.user.active:
            self._hasher.verify_dummy(password)
            return Verdict.MISMATCH
        return self._hasher.verify(password, found.password_hash)

    def log_out(self, token: SessionToken, client: Client) -> None:
        """Ends the session of this token on every instance, before it returns."""
        self.log_out_of([token], client)

    def log_out_of(self, tokens: Sequence[SessionToken], client: Client) -> None:
        """Ends the sessions of a handful of tokens on every instance, all or none of them."""
        self._sessions.end_each(tokens, EndReason.LOGOUT, client)

    def change_password(
        self,
        live: ActiveSession,
        current: str,
        new: str,
        client: Client,
        devices: Sequence[str] = (),
    ) -> ActiveSession:
        """Sets a new password; every other session of the person ends, this one gets a new token
        (OWASP ASVS 5.0, 6.2.3 and 7.4.3).

        Args:
            devices: as for `log_in`.
        Raises:
            InvalidField: `current_password` or `new_password`, with the reason.
            TooManyAttempts: too many wrong current passwords.
            NotAuthenticated: the session ended meanwhile; nothing was changed.
        """
        user = live.record.user
        canonical = self._users.parse_email(user.email).canonical
        with deadline(self._timeout):
            with self._on_record("password.limited", client.address, user_id=user.id):
                counted = self._limits.take_password_change(canonical)
            with self._slot(counted):
                found = self._credentials.read(canonical)
                if found is None or not found.user.active:
                    raise InvalidCredentials
                if self._hasher.verify(current, found.password_hash) is Verdict.MISMATCH:
                    self._refused_attempts.note("password.refused", client.address, user_id=user.id)
                    raise InvalidField({"current_password": "this is not your current password"})
                counted.take_back()
                if reason := why_refused(new, (user.email, user.name)):
                    raise InvalidField({"new_password": reason})
                new_hash = self._hasher.hash(new)
        with self._changes.begin() as change:
            try:
                epoch = self._users.set_password_hash(change, found.user.id, found.epoch, new_hash)
            except UnknownUser:
                raise InvalidCredentials from None  # changed or gone since it was verified
            why = EndReason.PASSWORD_CHANGED
            fresh = self._sessions.renew_alone(change, live, why, client)
            if fresh is None:  # logged out while this ran
                raise NotAuthenticated(presented=True)
            audit.record(
                change.db,
                "password.changed",
                self._clock(),
                user_id=found.user.id,
                actor_id=found.user.id,
                address=client.address,
            )
        return self._known(fresh, epoch, devices)

    def update_profile(
        self, user_id: UUID, name: str | None, image: str | None, address: str = ""
    ) -> Identity:
        """Sets what people may change of themselves; what is None stays as it is.

        Args:
            image: an https URL, or empty.
        Raises:
            InvalidField: all that is wrong with the input, by field.
            UnknownUser
        """
        name = validate_profile(name, image)
        return self._users.update_profile(user_id, name, image, address)

    def update_user(
        self,
        user_id: UUID,
        name: str | None,
        image: str | None,
        *,
        active: bool | None,
        actor: Identity,
        address: str = "",
    ) -> Identity:
        """Sets what administrators may change of somebody: all that is given, or nothing.

        Raises:
            InvalidField, UnknownUser, LastAdmin, OwnAccount: nothing was changed.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        name = validate_profile(name, image)
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor.id, Permission.USERS_WRITE)
            user = self._users.set_profile(change, user_id, name, image, actor.id, address)
            if active is not None:
                user = self._set_active(change, user_id, active, actor, address)
        return user

    def set_active(
        self, user_id: UUID, *, active: bool, actor: Identity | None, address: str = ""
    ) -> Identity:
        """Activates or deactivates somebody; a deactivated person's sessions end at once
        (OWASP ASVS 5.0, 7.4.2).

        Args:
            actor: who does it; None for the operator's command line.
        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            OwnAccount: the actor would deactivate themselves.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor.id if actor else None, Permission.USERS_WRITE)
            return self._set_active(change, user_id, active, actor, address)

    def _set_active(
        self,
        change: Change,
        user_id: UUID,
        active: bool,
        actor: Identity | None,
        address: str,
    ) -> Identity:
        user = self._users.set_active(change, user_id, active=active)
        if not active:
            if actor is not None and actor.id == user_id:
                raise OwnAccount("deactivates themselves")
            self._sessions.end_all(change, user_id, EndReason.DEACTIVATED)
        audit.record_act(
            change.db,
            "user.activated" if active else "user.deactivated",
            self._clock(),
            user_id=user_id,
            actor_id=actor.id if actor else None,
            address=address,
        )
        return user

    def end_sessions_of(self, user_id: UUID, actor: Identity | None, address: str = "") -> int:
        """Ends all sessions of somebody (OWASP ASVS 5.0, 7.4.5); returns how many.

        Raises:
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor.id if actor else None, Permission.SESSIONS_END)
            self._users.distrust(change, user_id)
            ended = self._sessions.end_all(change, user_id, EndReason.REVOKED_BY_ADMIN)
            audit.record_act(
                change.db,
                "sessions.ended",
                self._clock(),
                user_id=user_id,
                actor_id=actor.id if actor else None,
                address=address,
                sessions=ended,
            )
        return ended

    def set_password(self, email: str, password: str) -> UUID:
        """Sets a password for somebody (operators only); all their sessions end.

        Raises:
            InvalidField: `email` or `password`.
            UnknownUser
        """
        canonical = self._users.parse_email(email).canonical
        found = self._credentials.read(canonical)
        if found is None:
            raise UnknownUser(f"there is no user {email}")
        if reason := why_refused(password, (email,)):
            raise InvalidField({"password": reason})
        with self._hasher.slot():
            new_hash = self._hasher.hash(password)
        with self._changes.begin() as change:
            self._users.set_password_hash(change, found.user.id, found.epoch, new_hash)
            self._sessions.end_all(change, found.user.id, EndReason.PASSWORD_CHANGED)
            audit.record(change.db, "password.set", self._clock(), user_id=found.user.id)
        return found.user.id


def _may_match_instead(facts: Credentials, copy: Credentials) -> bool:
    """Whether a password that does not match the copy may match the facts."""
    other = facts.password_hash != copy.password_hash or not copy.user.active
    return facts.user.active and other


class _EvenPace:
    """Holds a refusal back until it has taken REFUSAL_SECONDS beside its hashing, whatever for."""

    def __enter__(self) -> Self:
        self._answer_at = time.perf_counter() + REFUSAL_SECONDS
        return self

    @contextmanager
    def hashing(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._answer_at += time.perf_counter() - started

    def __exit__(self, refused: type[BaseException] | None, *_: object) -> None:
        if refused is not None and issubclass(refused, (InvalidCredentials, StoreUnavailable)):
            time.sleep(max(0.0, self._answer_at - time.perf_counter()))
