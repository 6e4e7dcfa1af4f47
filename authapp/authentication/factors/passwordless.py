"""Accounts without a password: a person removes theirs, or sets one again."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.authentication.factors.factors import Factors
from authapp.authentication.factors.parts import FactorParts
from authapp.cache.changes import Changed, Changes
from authapp.errors import FactorNeeded, InvalidField, NoFactor
from authapp.passwords.new_passwords import NewPasswords
from authapp.sessions.records import ActiveSession, EndReason, IssuedLogin, IssuedTokens
from authapp.storage.models import User
from authapp.storage.postgres import Database

KEEP_A_WAY_IN = (
    "Without a password you need two passkeys, or one passkey and recovery codes. Add these first."
)


class PasswordlessAccounts:
    """The use cases of removing one's password, and of setting one where there is none.

    An account without a password has an empty `users.password_hash`, which no password matches. So
    a log-in by password is refused like one with a wrong password, in the same time, also by an
    older version of authapp.

    Whoever does this has proved not long ago who they are: the callers see to it. As after each
    change of a password the other sessions of the person end, and this one gets a new token.

    Args:
        prime: fills the copy of the credentials of an email, which knows the change, should
            Postgres lose it.
    Raises:
        NotAuthenticated: from every method that takes a session, if it has ended.
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        factors: Factors,
        parts: FactorParts,
        new_passwords: NewPasswords,
        prime: Callable[[str], None],
    ) -> None:
        self._database = database
        self._changes = changes
        self._factors = factors
        self._holdings = parts.holdings
        self._passkey_check = parts.passkey_check
        self._notices = parts.notices
        self._clock: Callable[[], datetime] = parts.clock
        self._new_passwords = new_passwords
        self._prime = prime

    def remove_password(
        self, live: ActiveSession, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Removes the password of a person whose passkeys and recovery codes suffice to log in.

        Factors are counted while the person's row is locked, as at every change of factors: of two
        acts at once that together would leave no way in, the second is refused.

        Raises:
            PasskeysOff
            NoFactor: there is no password.
            FactorNeeded: the person holds neither two passkeys nor one and recovery codes.
        """
        _ = self._passkey_check.ceremonies
        actor = actor.known_as(live.record.user.id)
        with self._changes.begin() as change:
            user = self._factors.hold(change, live)
            if not user.password_hash:
                raise NoFactor("There is no password.")
            if not self._holdings.of(change.db, user.id).suffice_alone:
                raise FactorNeeded(KEEP_A_WAY_IN)
            issued = self._factors.go_on(change, user, live, actor, why=EndReason.PASSWORD_CHANGED)
            user.password_hash, user.password_expires_at = "", None
            now = self._clock()
            audit.record(change.db, "password.removed", now, user_id=user.id, actor=actor)
            self._notices.factors_changed(change.db, user, actor, "password_removed")
            email = user.email
        self._prime(email)
        return change.returning(issued)

    def set_password(
        self, live: ActiveSession, new: str, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Sets a password for a person who has none.

        Raises:
            InvalidField: `new_password`, with the reason; `current_password`: there is a password,
                so another one is set by `PasswordChanges.change_password`.
            Busy: the password hashing queue is full.
        """
        person = live.record.user
        actor = actor.known_as(person.id)
        if self.has_password(live):  # before anything is hashed
            raise _has_one()
        self._new_passwords.require_accepted(new, person.email, person.name, "new_password")
        new_hash = self._new_passwords.hash(new, actor.address)
        with self._changes.begin() as change:
            user = self._factors.hold(change, live)
            if user.password_hash:  # since it was looked at
                raise _has_one()
            issued = self._factors.go_on(change, user, live, actor, why=EndReason.PASSWORD_CHANGED)
            user.password_hash = new_hash
            now = self._clock()
            audit.record(change.db, "password.added", now, user_id=user.id, actor=actor)
            self._notices.factors_changed(change.db, user, actor, "password_added")
            email = user.email
        self._prime(email)
        return change.returning(issued)

    def has_password(self, live: ActiveSession) -> bool:
        """Whether the person can log in by a password, as of now."""
        query = select(User.password_hash != "").where(User.id == live.record.user.id)
        return bool(self._database.read(lambda db: db.scalar(query)))


def _has_one() -> InvalidField:
    return InvalidField({"current_password": "enter your current password"})
