"""`NewPasswords`: which ones are accepted, and their hashes."""

from dataclasses import dataclass

from authapp.errors import InvalidField
from authapp.passwords.hashing import PasswordHasher
from authapp.passwords.policy import PasswordPolicy


@dataclass(frozen=True, slots=True)
class NewPasswords:
    """A password that somebody chooses passes the policy first, and is then hashed."""

    policy: PasswordPolicy
    hasher: PasswordHasher

    def require_accepted(self, password: str, email: str, name: str, field: str) -> None:
        """
        Args:
            email, name: of whose password it becomes.
            field: the name of the password in the form, for the error.
        Raises:
            InvalidField: the policy refuses it.
        """
        if reason := self.policy.why_refused(password, email, name):
            raise InvalidField({field: reason})

    def hash(self, password: str, address: str = "") -> str:
        """The hash, when a place in the hashing queue was free.

        Args:
            address: from where the password comes.
        Raises:
            Busy
        """
        with self.hasher.queue.place(address=address):
            return self.hasher.hash(password)
