"""The parts that log-in, step-up and the security page share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from authapp.authentication.factors.check import FactorCheck
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.factors.passkeys.check import PasskeyCheck
from authapp.authentication.factors.passkeys.rows import PasskeyRows
from authapp.authentication.factors.pending_logins import PendingLogins
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.factors.set_up import FactorSetUp
from authapp.authentication.limits import LoginLimits
from authapp.authentication.notices import Notices
from authapp.mail.account_mails import AccountMails


@dataclass(frozen=True, slots=True)
class FactorParts:
    """The parts that the use cases of factors are made of."""

    recovery_codes: RecoveryCodes
    holdings: FactorHoldings
    check: FactorCheck
    passkey_check: PasskeyCheck
    passkey_rows: PasskeyRows
    set_up: FactorSetUp
    pending_logins: PendingLogins
    notices: Notices
    mails: AccountMails
    limits: LoginLimits
    clock: Callable[[], datetime]
