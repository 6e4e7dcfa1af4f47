"""Builds from the settings what checks second factors, and the log-ins that wait for one."""

from collections.abc import Callable, Sequence
from datetime import datetime

from authapp.accounts.assurance import SecondFactorRule
from authapp.authentication.factors.check import FactorCheck, TotpSecrets
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.pending_logins import PendingLogins
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.factors.set_up import FactorSetUp
from authapp.authentication.notices import Notices
from authapp.crypto.tokens import LoginTokens
from authapp.storage.postgres import Database


def build_factors(
    secrets: Sequence[str],
    database: Database,
    notices: Notices,
    issuer: str,
    clock: Callable[[], datetime],
) -> FactorParts:
    """
    Args:
        secrets: the order of SECRET_KEY.
        issuer: names us in authenticator apps.
    """
    totp_secrets = TotpSecrets(secrets, clock)
    codes = RecoveryCodes(secrets, clock)
    holdings = FactorHoldings(codes, clock)
    return FactorParts(
        recovery_codes=codes,
        holdings=holdings,
        check=FactorCheck(totp_secrets, codes, notices, clock),
        set_up=FactorSetUp(totp_secrets, codes, holdings, notices, issuer, clock),
        pending_logins=PendingLogins(database, LoginTokens(secrets), holdings, clock),
        notices=notices,
    )


def second_factor_rule(setting: str) -> SecondFactorRule:
    """Who must hold a second factor, by SECOND_FACTOR."""
    if setting == "required":
        return SecondFactorRule(everybody=True)
    return SecondFactorRule(roles=frozenset(setting.split(",")) - {"optional"})
