"""Builds from the settings what checks second factors, and the log-ins that wait for one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from authapp.accounts.assurance import SecondFactorRule
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import ParseEmail
from authapp.assembly.mailing import Mailing
from authapp.assembly.passkeys import build_passkey_check
from authapp.assembly.stores import Stores
from authapp.authentication.factors import totp
from authapp.authentication.factors.browser_sessions import BrowserSessions
from authapp.authentication.factors.check import FactorCheck, TotpSecrets
from authapp.authentication.factors.factor_login import FactorLogin
from authapp.authentication.factors.factors import Factors
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.passkeys.login import PasskeyLogin
from authapp.authentication.factors.passkeys.passkeys import Passkeys
from authapp.authentication.factors.passkeys.rows import PasskeyRows
from authapp.authentication.factors.passwordless import PasswordlessAccounts
from authapp.authentication.factors.pending_logins import PendingLogins
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.factors.set_up import FactorSetUp
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.limits import LoginLimits
from authapp.authentication.reauthentication import Reauthentication
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.authentication.step_up import StepUp
from authapp.config import Config
from authapp.crypto.tokens import LoginTokens
from authapp.errors import FactorsOff, SettingError
from authapp.passwords.new_passwords import NewPasswords
from authapp.sessions.store import SessionStore
from authapp.storage.postgres import Database


def build_factors(
    config: Config,
    database: Database,
    mailing: Mailing,
    limits: LoginLimits,
    clock: Callable[[], datetime],
) -> FactorParts:
    secrets, notices = config.SECRET_KEY, mailing.notices
    passkey_rows = PasskeyRows(clock)
    passkey_check = build_passkey_check(config, passkey_rows, clock)
    totp_secrets = TotpSecrets(secrets, clock)
    codes = RecoveryCodes(secrets, clock)
    rp_id = "" if passkey_check.why_off else passkey_check.ceremonies.relying_party.id
    holdings = FactorHoldings(codes, rp_id, clock)
    return FactorParts(
        recovery_codes=codes,
        holdings=holdings,
        check=FactorCheck(totp_secrets, codes, passkey_check, notices, clock),
        passkey_check=passkey_check,
        passkey_rows=passkey_rows,
        set_up=FactorSetUp(totp_secrets, codes, holdings, notices, config.BRAND_NAME, clock),
        pending_logins=PendingLogins(database, LoginTokens(secrets), holdings, clock),
        notices=notices,
        mails=mailing.account_mails,
        limits=limits,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class FactorUses:
    """The use cases of factors."""

    factors: Factors
    factor_login: FactorLogin
    passkeys: Passkeys
    passkey_login: PasskeyLogin
    passwordless: PasswordlessAccounts
    step_up: StepUp


def build_factor_uses(
    config: Config,
    stores: Stores,
    sessions: SessionStore,
    parts: FactorParts,
    refused_attempts: RefusedAttempts,
    known_devices: KnownDevices,
    parse_email: ParseEmail,
    *,
    reauthentication: Reauthentication,
    new_passwords: NewPasswords,
    credentials: CredentialStore,
) -> FactorUses:
    rule = second_factor_rule(config)
    factors = Factors(
        stores.database, stores.changes, sessions, parts, rule=rule, clock=parts.clock
    )
    browser_sessions = BrowserSessions(sessions, known_devices, parts.notices, parse_email)
    return FactorUses(
        factors,
        FactorLogin(
            parts,
            stores.changes,
            sessions,
            browser_sessions,
            limits=parts.limits,
            refused_attempts=refused_attempts,
            timeout=config.LOGIN_TIMEOUT_SECONDS,
        ),
        Passkeys(stores.database, stores.changes, factors, parts),
        PasskeyLogin(
            parts,
            stores.database,
            stores.changes,
            sessions,
            browser_sessions,
            limits=parts.limits,
            refused_attempts=refused_attempts,
            timeout=config.LOGIN_TIMEOUT_SECONDS,
        ),
        PasswordlessAccounts(
            stores.database,
            stores.changes,
            factors,
            parts,
            new_passwords,
            prime=lambda email: credentials.prime(parse_email(email)),
        ),
        StepUp(
            sessions,
            stores.changes,
            reauthentication,
            parts.check,
            limits=parts.limits,
            refused_attempts=refused_attempts,
            parse_email=parse_email,
            clock=parts.clock,
            lasts=timedelta(seconds=config.STEP_UP_SECONDS),
        ),
    )


def second_factor_rule(config: Config) -> SecondFactorRule:
    """The rule that says whether a person must hold a second factor, by SECOND_FACTOR.

    Raises:
        SettingError: somebody must, and nobody can set one up.
    """
    setting = config.SECOND_FACTOR
    if setting != "optional":
        try:
            totp.require_library()
        except FactorsOff as error:
            raise SettingError(f"SECOND_FACTOR: {error}, or set it to optional") from None
    if setting == "required":
        return SecondFactorRule(everybody=True, trusts_browsers=config.ASSURANCE_LEVEL < 2)
    return SecondFactorRule(roles=frozenset(setting.split(",")) - {"optional"})
