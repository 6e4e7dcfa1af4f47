"""`Enrolment`: the passkey that a person signs up with in place of a password."""

from typing import Protocol

from sqlalchemy.orm import Session

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.storage.models import User


class Enrolment(Protocol):
    """A passkey that was verified, and is given to the account that a sign-up adds.

    Attributes:
        amr: how it proves who the person is.
    """

    @property
    def amr(self) -> Amr: ...

    def claim(self, db: Session) -> None:
        """Uses the answer of the browser up. It is called whether the email is taken or not.

        Raises:
            InvalidField: it was used before.
            PasskeyTaken
        """

    def enrol(self, db: Session, user: User, actor: Actor, *, makes_codes: bool) -> tuple[str, ...]:
        """Gives the passkey to an account that was just added; returns the recovery codes that were
        made."""
