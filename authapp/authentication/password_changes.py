"""Password changes: by the person, who knows the current one, and by an operator."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import ParseEmail
from authapp.accounts.store import UserStore
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.notices import Notices
from authapp.authentication.reauthentication import Reauthentication
from authapp.authentication.recovery import one_time_passwords
from authapp.cache.changes import Changed, Changes
from authapp.errors import InvalidCredentials, NotAuthenticated, UnknownUser
from authapp.passwords.new_passwords import NewPasswords
from authapp.sessions.records import ActiveSession, EndReason, IssuedLogin, IssuedTokens
from authapp.sessions.store import SessionStore


class PasswordChanges:
    """The use cases that replace a password.

    Raises:
        StoreUnavailable: nothing was changed.
        Busy: the password hashing queue is full.
    """

    def __init__(
        self,
        users: UserStore,
        credentials: CredentialStore,
        sessions: SessionStore,
        changes: Changes,
        *,
        new_passwords: NewPasswords,
        reauthentication: Reauthentication,
        known_devices: KnownDevices,
        notices: Notices,
        parse_email: ParseEmail,
        clock: Callable[[], datetime],
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._sessions = sessions
        self._changes = changes
        self._new_passwords = new_passwords
        self._reauthentication = reauthentication
        self._known_devices = known_devices
        self._notices = notices
        self._parse_email = parse_email
        self._clock = clock

    def change_password(
        self,
        live: ActiveSession,
        current: str,
        new: str,
        actor: Actor,
        devices: Sequence[str] = (),
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Sets a new password (OWASP ASVS 5.0, 6.2.3 and 7.4.3).

        Every other session of the person ends, and this one gets a new token.

        Args:
            devices: the device tokens that the browser sent.
        Raises:
            InvalidField: `current_password` or `new_password`, with the reason.
            TooManyAttempts: too many wrong current passwords.
            NotAuthenticated: the session ended in the meantime; nothing was changed.
        """
        user = live.record.user
        actor = actor.known_as(user.id)
        email = self._parse_email(user.email)
        verified = self._reauthentication.verified(email, current, actor)
        with verified as (found, counted):
            self._new_passwords.require_accepted(new, user.email, user.name, "new_password")
            new_hash = self._new_passwords.hasher.hash(new)  # in the place of the check
        with counted.told_by_errors(), self._changes.begin() as change:
            try:
                person = self._users.lock(change, found.user.id, found.epoch)
            except UnknownUser:
                raise InvalidCredentials from None  # changed or removed since it was verified
            why = EndReason.PASSWORD_CHANGED
            fresh = self._sessions.end_others_and_rotate(change, person, live, why, actor)
            if fresh is None:  # logged out while this ran
                raise NotAuthenticated(presented=True)
            person.password_hash, person.password_expires_at = new_hash, None
            audit.record(
                change.db,
                "password.changed",
                self._clock(),
                user_id=found.user.id,
                actor=actor,
            )
            self._notices.password_changed(change.db, person, actor)
        self._credentials.prime(email)  # the copy knows the change, should Postgres lose it
        if isinstance(fresh, IssuedTokens):
            return change.returning(replace(fresh, rate_limit=counted.window))
        known = self._known_devices.issue_device_token(email, person.epoch, devices)
        return change.returning(IssuedLogin(fresh, known, counted.window))

    def set_password(
        self, email: str, password: str, actor: Actor = OPERATOR, *, is_one_time: bool = False
    ) -> Changed[UUID]:
        """Sets a password for a person (operators only); all their sessions end.

        Args:
            is_one_time: the password opens nothing but the choice of another, and that not for long
                (OWASP ASVS 5.0, 6.4.1).
            actor: in whose name the operator acts.
        Returns:
            The id of the person.
        Raises:
            InvalidField: `email` or `password`.
            UnknownUser
        """
        found = self._credentials.read(self._parse_email(email))
        if found is None:
            raise UnknownUser(f"there is no user {email}")
        self._new_passwords.require_accepted(password, email, found.user.name, "password")
        new_hash = self._new_passwords.hash(password)
        with self._changes.begin() as change:
            person = self._users.lock(change, found.user.id, found.epoch)
            self._sessions.end_all(change, person, EndReason.PASSWORD_CHANGED)
            person.password_hash = new_hash
            now = self._clock()
            person.password_expires_at = now + one_time_passwords.LASTS if is_one_time else None
            audit.record(change.db, "password.set", now, user_id=found.user.id, actor=actor)
            self._notices.password_changed(change.db, person, actor)
        self._credentials.prime(self._parse_email(email))  # as above
        return change.returning(found.user.id)
