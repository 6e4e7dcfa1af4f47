"""Builds the use cases of sign-up, and of the confirmation that follows."""

from dataclasses import dataclass

from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import ParseEmail
from authapp.accounts.invitations import Invitations
from authapp.accounts.store import UserStore
from authapp.assembly.limits import signup_policy
from authapp.assembly.mailing import Mailing
from authapp.assembly.stores import Stores
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.passkeys.sign_up import PasskeySignUp
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.authentication.registration import Registration, SignupGate
from authapp.authentication.verification import Verification
from authapp.config import Config
from authapp.passwords.new_passwords import NewPasswords


@dataclass(frozen=True, slots=True)
class SignUpUses:
    """The use cases of people who have no account yet, or wait for the confirmation of theirs."""

    registration: Registration
    passkey_sign_up: PasskeySignUp
    verification: Verification


def build_sign_up(
    config: Config,
    stores: Stores,
    mailing: Mailing,
    factors: FactorParts,
    users: UserStore,
    credentials: CredentialStore,
    *,
    invitations: Invitations,
    new_passwords: NewPasswords,
    refused_attempts: RefusedAttempts,
    parse_email: ParseEmail,
) -> SignUpUses:
    registration = Registration(
        users,
        credentials,
        stores.changes,
        gate=SignupGate(signup_policy(config), factors.limits, refused_attempts),
        invitations=invitations,
        mails=mailing.verification_mails,
        new_passwords=new_passwords,
        holdings=factors.holdings,
        parse_email=parse_email,
    )
    verification = Verification(
        stores.changes,
        users,
        mails=mailing.verification_mails,
        hasher=new_passwords.hasher,
        limits=factors.limits,
        refused_attempts=refused_attempts,
        recovery_codes=factors.recovery_codes,
        parse_email=parse_email,
        timeout=config.LOGIN_TIMEOUT_SECONDS,
        clock=factors.clock,
    )
    return SignUpUses(registration, PasskeySignUp(registration, factors), verification)
