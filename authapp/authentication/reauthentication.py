"""Reauthentication: a person who is logged in proves again that they know their password."""

from collections.abc import Iterator
from contextlib import contextmanager

from authapp.accounts.actor import Actor
from authapp.accounts.credentials import Credentials, CredentialStore
from authapp.accounts.emails import Email
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.errors import InvalidCredentials, InvalidField
from authapp.passwords.hashing import PasswordHasher, Verdict
from authapp.storage.deadlines import deadline


class Reauthentication:
    """The check of a current password, with limits of its own.

    Args:
        timeout: seconds that the check, and hashing within its block, may take.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        hasher: PasswordHasher,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        timeout: float,
    ) -> None:
        self._credentials = credentials
        self._hasher = hasher
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._timeout = timeout

    @contextmanager
    def verified(
        self, email: Email, password: str, actor: Actor, *, field: str = "current_password"
    ) -> Iterator[tuple[Credentials, Attempt]]:
        """A block with the credentials that the password opens, and the attempt as limits counted
        it. The block may hash in the same place.

        Args:
            actor: the person, who is logged in.
            field: the name of the password in the form, for the error.
        Raises:
            InvalidField: the password is wrong.
            InvalidCredentials: the user is gone or inactive.
            TooManyAttempts: too many wrong passwords.
            Busy: the password hashing queue is full.
        """
        with deadline(self._timeout):
            with self._refused_attempts.noting_limits("password.limited", actor):
                counted = self._limits.count_password_change(email)
            place = self._hasher.queue.place(counted, address=actor.address)
            with counted.told_by_errors(), place:
                found = self._credentials.read(email)
                # the email may be somebody else's by now
                if found is None or not found.user.active or found.user.id != actor.id:
                    raise InvalidCredentials
                compared = self._hasher.verify(password, found.password_hash, found.user.id)
                if compared.verdict is Verdict.MISMATCH:
                    self._refused_attempts.note("password.refused", actor)
                    raise InvalidField({field: "this is not your current password"})
                counted.take_back()
                yield found, counted
