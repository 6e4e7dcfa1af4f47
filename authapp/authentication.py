"""What people do with their account: sign up, log in, log out, change the password."""

from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

from authapp import audit
from authapp.changes import Change, Changes
from authapp.credentials import Credentials, CredentialStore
from authapp.emails import Email, parse_email
from authapp.errors import InvalidCredentials, InvalidField, NotAuthenticated, UnknownUser
from authapp.identity import USER, Identity
from authapp.limits import LoginLimits
from authapp.passwords import PasswordHasher, Verdict, why_refused
from authapp.sessions import Client, EndReason, Live, SessionStore
from authapp.tokens import SessionToken
from authapp.users import UserStore

MAX_NAME = 100  # characters
MAX_IMAGE = 2048  # characters


class Authentication:
    """
    Raises:
        StoreUnavailable: from every method; then nothing was changed.
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
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._sessions = sessions
        self._changes = changes
        self._hasher = hasher
        self._limits = limits
        self._clock = clock

    def sign_up(
        self, email: str, password: str, name: str = "", roles: tuple[str, ...] = (USER,)
    ) -> Identity:
        """Adds a person who can log in.

        Raises:
            InvalidField: all that is wrong with the input, by field.
            EmailTaken, UnknownRole
        """
        errors: dict[str, str] = {}
        address: Email | None = None
        try:
            address = parse_email(email)
        except InvalidField as invalid:
            errors |= invalid.errors
        name = " ".join(name.split())
        if reason := why_refused(password, (email, name)):
            errors["password"] = reason
        if reason := why_name_refused(name):
            errors["name"] = reason
        if errors or address is None:
            raise InvalidField(errors)
        user = self._users.create(address, name, self._hasher.hash(password), roles)
        self._credentials.prime(address.canonical)
        return user

    def log_in(
        self,
        email: str,
        password: str,
        client: Client,
        *,
        remember: bool = False,
        replaces: SessionToken | None = None,
    ) -> Live:
        """Starts a session for who knows the password.

        Args:
            replaces: the session the browser had so far; it ends.
        Raises:
            InvalidField: `email` is none.
            TooManyAttempts: before anything was hashed.
            InvalidCredentials: unknown email, wrong password or inactive user, in equal time.
        """
        address = parse_email(email)
        self._limits.take_address(client.address)
        self._limits.take_account(address.canonical)
        found = self._credentials.find(address.canonical)
        verdict = self._compare(password, found)
        if found is not None and verdict is Verdict.MISMATCH:
            # A copy may be behind for as long as fences are pending; who is refused by it is
            # refused by the facts, or not at all.
            facts = self._credentials.read(address.canonical)
            if facts != found and facts is not None and facts.active:
                found, verdict = facts, self._compare(password, facts)
        if found is None or verdict is Verdict.MISMATCH:
            raise InvalidCredentials
        self._limits.clear_account(address.canonical)
        if verdict is Verdict.MATCH_REHASH:
            self._users.rehash(found.user_id, found.epoch, self._hasher.hash(password))
        return self._sessions.begin(
            found.user_id, found.epoch, client, remember=remember, replaces=replaces
        )

    def _compare(self, password: str, found: Credentials | None) -> Verdict:
        if found is None or not found.active:
            self._hasher.verify_dummy(password)
            return Verdict.MISMATCH
        return self._hasher.verify(password, found.password_hash)

    def log_out(self, token: SessionToken, client: Client) -> None:
        """Ends the session of this token on every instance, before it returns."""
        self._sessions.end(token, EndReason.LOGOUT, client)

    def change_password(self, live: Live, current: str, new: str, client: Client) -> Live:
        """Sets a new password; every other session of the person ends, this one gets a new token
        (OWASP ASVS 5.0, 6.2.3 and 7.4.3).

        Raises:
            InvalidField: `current_password` or `new_password`, with the reason.
            TooManyAttempts: too many wrong current passwords.
            NotAuthenticated: the session ended meanwhile; nothing was changed.
        """
        user = live.record.user
        canonical = parse_email(user.email).canonical
        self._limits.take_account(canonical)
        found = self._credentials.read(canonical)
        if found is None or not found.active:
            raise InvalidCredentials
        if self._hasher.verify(current, found.password_hash) is Verdict.MISMATCH:
            raise InvalidField({"current_password": "this is not your current password"})
        self._limits.clear_account(canonical)
        if reason := why_refused(new, (user.email, user.name)):
            raise InvalidField({"new_password": reason})
        new_hash = self._hasher.hash(new)
        with self._changes.begin() as change:
            try:
                self._users.set_password_hash(change, found.user_id, found.epoch, new_hash)
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
                user_id=found.user_id,
                actor_id=found.user_id,
                address=client.address,
            )
        return fresh

    def update_profile(self, user_id: UUID, name: str | None, image: str | None) -> Identity:
        """Sets what people may change of themselves; what is None stays as it is.

        Args:
            image: an https URL, or empty.
        Raises:
            InvalidField: all that is wrong with the input, by field.
            UnknownUser
        """
        name = _sound_profile(name, image)
        return self._users.update_profile(user_id, name, image)

    def update_user(
        self,
        user_id: UUID,
        name: str | None,
        image: str | None,
        *,
        active: bool | None,
        actor: Identity,
    ) -> Identity:
        """Sets what administrators may change of somebody: all that is given, or nothing.

        Raises:
            InvalidField, UnknownUser, LastAdmin: nothing was changed.
        """
        name = _sound_profile(name, image)
        with self._changes.begin() as change:
            user = self._users.set_profile(change, user_id, name, image)
            if active is not None:
                user = self._set_active(change, user_id, active=active, actor=actor)
        return user

    def set_active(self, user_id: UUID, *, active: bool, actor: Identity | None) -> Identity:
        """Activates or deactivates somebody; a deactivated person's sessions end at once
        (OWASP ASVS 5.0, 7.4.2).

        Args:
            actor: who does it; None for the operator's command line.
        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
        """
        with self._changes.begin() as change:
            return self._set_active(change, user_id, active=active, actor=actor)

    def _set_active(
        self, change: Change, user_id: UUID, *, active: bool, actor: Identity | None
    ) -> Identity:
        user = self._users.set_active(change, user_id, active=active)
        if not active:
            self._sessions.end_all(change, user_id, EndReason.DEACTIVATED)
        audit.record(
            change.db,
            "user.activated" if active else "user.deactivated",
            self._clock(),
            user_id=user_id,
            actor_id=actor.id if actor else None,
        )
        return user

    def end_sessions_of(self, user_id: UUID, actor: Identity | None) -> int:
        """Ends all sessions of somebody (OWASP ASVS 5.0, 7.4.5); returns how many.

        Raises:
            UnknownUser
        """
        with self._changes.begin() as change:
            self._users.hold(change, user_id)
            ended = self._sessions.end_all(change, user_id, EndReason.REVOKED_BY_ADMIN)
            audit.record(
                change.db,
                "sessions.ended",
                self._clock(),
                user_id=user_id,
                actor_id=actor.id if actor else None,
                sessions=ended,
            )
        return ended

    def set_password(self, email: str, password: str) -> UUID:
        """Sets a password for somebody (operators only); all their sessions end.

        Raises:
            InvalidField: `email` or `password`.
            UnknownUser
        """
        canonical = parse_email(email).canonical
        found = self._credentials.read(canonical)
        if found is None:
            raise UnknownUser(f"there is no user {email}")
        if reason := why_refused(password, (email,)):
            raise InvalidField({"password": reason})
        new_hash = self._hasher.hash(password)
        with self._changes.begin() as change:
            self._users.set_password_hash(change, found.user_id, found.epoch, new_hash)
            self._sessions.end_all(change, found.user_id, EndReason.PASSWORD_CHANGED)
            audit.record(change.db, "password.set", self._clock(), user_id=found.user_id)
        return found.user_id


def _sound_profile(name: str | None, image: str | None) -> str | None:
    """The name as it is stored, when both can be taken."""
    name = None if name is None else " ".join(name.split())
    errors = {"name": why_name_refused(name or ""), "image": why_image_refused(image or "")}
    if refused := {field: reason for field, reason in errors.items() if reason}:
        raise InvalidField(refused)
    return name


def why_name_refused(name: str) -> str | None:
    """The reason a name can't be taken, written for the person; None when it can."""
    if len(name) > MAX_NAME:
        return f"use at most {MAX_NAME} characters"
    if not name.isprintable():
        return "use letters that can be shown"
    return None


def why_image_refused(image: str) -> str | None:
    """The reason an image's address can't be taken, written for the person; None when it can."""
    if not image:
        return None
    if len(image) > MAX_IMAGE:
        return f"use at most {MAX_IMAGE} characters"
    try:
        parts = urlsplit(image)
        # a name or password in it would be shown to everyone who loads the picture
        whole = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc
        whole = whole and parts.port != 0
    except ValueError:  # a port that is none
        whole = False
    if not whole or not image.isprintable() or " " in image:
        return "enter a whole link, like https://example.org/me.jpg"
    return None
