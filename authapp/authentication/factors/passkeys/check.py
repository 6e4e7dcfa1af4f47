"""The use of a passkey: its answer is verified, its challenge used up, its counter judged."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.authentication.factors.passkeys.json_forms import AuthenticationCredential
from authapp.authentication.factors.passkeys.rows import PasskeyRows
from authapp.authentication.factors.passkeys.verification import (
    Ceremonies,
    Ceremony,
    MadePasskey,
)
from authapp.crypto.base64url import from_base64url
from authapp.errors import InvalidPasskey, PasskeysOff
from authapp.storage.factors.models import Passkey
from authapp.storage.models import User


class PasskeyCheck:
    """Lets people prove who they are by a passkey, within changes that hold their row.

    Args:
        ceremonies: None: passkeys are off.
        why_off: the reason, and the remedy.
    """

    def __init__(
        self,
        ceremonies: Ceremonies | None,
        why_off: str,
        rows: PasskeyRows,
        clock: Callable[[], datetime],
    ) -> None:
        self._ceremonies = ceremonies
        self._why_off = why_off
        self._rows = rows
        self._clock = clock

    @property
    def why_off(self) -> str:
        """Why there are no passkeys here; empty where there are."""
        return self._why_off

    @property
    def ceremonies(self) -> Ceremonies:
        """
        Raises:
            PasskeysOff
        """
        if self._ceremonies is None:
            raise PasskeysOff(f"There are no passkeys here: {self._why_off}.")
        return self._ceremonies

    def use(
        self,
        db: Session,
        user: User,
        credential: AuthenticationCredential,
        actor: Actor,
        *,
        ceremony: Ceremony,
        bound_to: bytes = b"",
    ) -> Amr | None:
        """How a locked user proved who they are by one of their passkeys.

        Args:
            bound_to: the session or log-in that asked for the answer.
        Returns:
            None if the counter of the authenticator fell. That is recorded, so the caller commits.
        Raises:
            InvalidPasskey: this person has no such passkey, or its answer is not accepted.
            PasskeysOff
        """
        challenge = self.ceremonies.check_challenge(credential.response, ceremony, bound_to)
        passkey = self._rows.lock(db, user.id, credential_id_of(credential))
        if passkey is None or user.webauthn_handle is None:
            raise InvalidPasskey("this person has no such passkey")
        used = self.ceremonies.verify_used(
            credential,
            passkey.public_key,
            user.webauthn_handle,
            is_person_known=ceremony != "log in",
        )
        if not self._rows.use_challenge(db, challenge):
            raise InvalidPasskey("this answer was used before")
        now = self._clock()
        if has_fallen(passkey.sign_count, used.sign_count):
            # Another device may hold a copy of the key (WebAuthn Level 3, 6.1.1).
            passkey.counter_fell_at = now
            audit.record(
                db,
                "passkey.counter_fell",
                now,
                user_id=user.id,
                actor=actor.known_as(user.id),
                passkey=str(passkey.id),
            )
            return None
        passkey.sign_count, passkey.backed_up = used.sign_count, used.backed_up
        passkey.last_used_at = now
        return amr_of(passkey)


def credential_id_of(credential: AuthenticationCredential) -> bytes:
    """
    Raises:
        InvalidPasskey: it is no base64url.
    """
    try:
        return from_base64url(credential.raw_id)
    except ValueError:
        raise InvalidPasskey("the id can't be read") from None


def has_fallen(former: int, said: int) -> bool:
    """Whether a counter did not go up. Many authenticators count nothing, and say 0 for ever."""
    return 0 < former >= said


def amr_of(passkey: Passkey | MadePasskey) -> Amr:
    """Words of RFC 8176: a key in hardware, or one that may be copied to other devices of the
    person; and that its device verified the person."""
    return ("swk" if passkey.backup_eligible else "hwk", "user")
