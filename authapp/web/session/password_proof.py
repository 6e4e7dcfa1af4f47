"""The proof that a password was typed in this browser, kept sealed in `flask.session`."""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from flask import session

from authapp.authentication.verification import PasswordProof
from authapp.web.session.auth_session import auth_session

KEY: Final = "_password_proof"


@dataclass(frozen=True, slots=True)
class KeptProof:
    """The proof that a browser keeps for an account whose address waits for its confirmation.

    Attributes:
        email: as it was typed here.
        onward: where the person wanted to go, as `next` says; "" if nowhere. The mailed link has no
            `next`.
    """

    proof: PasswordProof
    email: str = field(repr=False)
    onward: str = ""


def keep(proof: PasswordProof, email: str, onward: str | None = None) -> None:
    """Keeps a proof, if there is room. Without it the person types the password again.

    It is as long for every account, so the cookie tells nothing.
    """
    kept = [proof.user_id.hex, f"{proof.epoch:010}", email]
    session[KEY] = [*kept, onward] if onward else kept
    if onward and not auth_session().fits():
        session[KEY] = kept
    if not auth_session().fits():
        drop()


def kept() -> KeptProof | None:
    """The proof that this browser keeps."""
    try:
        user_id, epoch, email, *onward = session[KEY]
        return KeptProof(PasswordProof(UUID(user_id), int(epoch)), str(email), *onward)
    except (KeyError, TypeError, ValueError):
        return None


def drop() -> None:
    """Forgets the proof."""
    session.pop(KEY, None)
