"""Sign-up with a passkey in place of a password."""

from dataclasses import dataclass
from hashlib import sha512

from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.passkeys.check import amr_of
from authapp.authentication.factors.passkeys.json_forms import (
    CreationOptions,
    RegistrationCredential,
)
from authapp.authentication.factors.passkeys.names import name_of
from authapp.authentication.factors.passkeys.verification import MadePasskey, challenge_text
from authapp.authentication.registration import Registration, SignedUp
from authapp.crypto.tokens import Challenge
from authapp.errors import InvalidField, InvalidPasskey, PasskeyTaken
from authapp.sessions.user_agents import device_name
from authapp.storage.models import User


class PasskeySignUp:
    """The use case of signing up with a passkey.

    The rules, the limits and the answers are those of a sign-up with a password. Options are made
    without a look at any store, so that they tell nothing of whether an email has an account.

    Raises:
        PasskeysOff: from every method.
    """

    def __init__(self, registration: Registration, parts: FactorParts) -> None:
        self._registration = registration
        self._parts = parts

    def options(self, email: str, name: str = "") -> CreationOptions:
        """The options by which the browser makes the passkey. The answer counts for this email.

        Raises:
            InvalidField: `email` or `name`.
        """
        ceremonies = self._parts.passkey_check.ceremonies
        parsed, name = self._registration.validate(email, None, name)
        bound_to = parsed.canonical.encode()
        return ceremonies.sign_up_options(_handle_for, parsed.stored, name, bound_to)

    def sign_up(
        self,
        credential: RegistrationCredential,
        actor: Actor,
        email: str,
        name: str = "",
        invitation: str = "",
    ) -> SignedUp:
        """Adds a person who has a passkey and no password; see `Registration.sign_up_from`.

        A person who can log in at once gets recovery codes. Others get them when they confirm the
        address.

        Raises:
            InvalidField: also `credential`, if the answer of the browser is not accepted.
            PasskeyTaken: the passkey belongs to an account already. It is the same for every email.
            SignupClosed, TooManyAttempts, InvalidInvitation, EmailTaken: as `sign_up_from`.
        """
        parsed, _ = self._registration.validate(email, None, name)
        ceremonies = self._parts.passkey_check.ceremonies
        try:
            made, challenge = ceremonies.verify_made(
                credential, parsed.canonical.encode(), ceremony="sign up"
            )
        except InvalidPasskey:
            raise _not_accepted() from None
        called = name_of(made.aaguid) or device_name(actor.user_agent)
        handle = _handle_for(challenge_text(credential.response))
        enrolment = _Enrolment(self._parts, made, challenge, handle, called)
        return self._registration.sign_up_with(enrolment, actor, email, name, invitation)


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """A passkey that was verified, before it is given to the account that is added."""

    parts: FactorParts
    made: MadePasskey
    challenge: Challenge
    user_handle: bytes
    name: str

    @property
    def amr(self) -> Amr:
        return amr_of(self.made)

    def claim(self, db: Session) -> None:
        rows = self.parts.passkey_rows
        if not rows.use_challenge(db, self.challenge):
            raise _not_accepted()
        if rows.owner_of(db, self.made.credential_id) is not None:
            raise _taken()

    def enrol(self, db: Session, user: User, actor: Actor, *, makes_codes: bool) -> tuple[str, ...]:
        parts, now, by = self.parts, self.parts.clock(), actor.known_as(user.id)
        rp_id = parts.passkey_check.ceremonies.relying_party.id
        user.webauthn_handle = self.user_handle
        if parts.passkey_rows.add(db, user, self.made, self.name, rp_id) is None:
            raise _taken()  # since it was looked for
        parts.holdings.note_change(db, user)
        audit.record(db, "factor.added", now, user_id=user.id, actor=by, what="passkey_added")
        if not makes_codes:
            return ()
        audit.record(db, "recovery_codes.made", now, user_id=user.id, actor=by)
        return tuple(parts.recovery_codes.replace(db, user.id))


def _handle_for(challenge: str) -> bytes:
    """The name by which authenticators know the new person: as random as the challenge, which
    counts once. So nothing is kept between the options and the answer."""
    return sha512(b"authapp user handle\0" + challenge.encode()).digest()


def _not_accepted() -> InvalidField:
    return InvalidField({"credential": "this passkey is not accepted; make it once more"})


def _taken() -> PasskeyTaken:
    return PasskeyTaken("This passkey belongs to an account already.")
