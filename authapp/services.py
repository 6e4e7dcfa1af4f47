"""Builds everything from the settings: engines, pools, time-outs → one frozen `Services`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import redis
from jinja2 import BaseLoader
from limits.strategies import RateLimiter

from authapp.accounts.audit import AuditLog, EmailHashes, Fact
from authapp.accounts.authority.roles import Roles, known_permissions
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import ParseEmail, parse_email
from authapp.accounts.export import Exports
from authapp.accounts.importing.users import UserImport
from authapp.accounts.invitations import Invitations
from authapp.accounts.store import UserStore
from authapp.assembly.capacity import POOL_SIZE
from authapp.assembly.factors import build_factor_uses, build_factors, second_factor_rule
from authapp.assembly.limits import build_limits
from authapp.assembly.mailing import build_mailing
from authapp.assembly.maintenance import build_maintenance
from authapp.assembly.passwords import build_new_passwords
from authapp.assembly.sign_up import build_sign_up
from authapp.assembly.stores import Tokens, build_accounts, build_sessions, open_stores
from authapp.authentication.administration import Administration
from authapp.authentication.email_changes import EmailChanges
from authapp.authentication.factors.factor_login import FactorLogin
from authapp.authentication.factors.factors import Factors
from authapp.authentication.factors.passkeys.login import PasskeyLogin
from authapp.authentication.factors.passkeys.passkeys import Passkeys
from authapp.authentication.factors.passkeys.sign_up import PasskeySignUp
from authapp.authentication.factors.passwordless import PasswordlessAccounts
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.login import Authentication
from authapp.authentication.password_changes import PasswordChanges
from authapp.authentication.password_check import PasswordCheck
from authapp.authentication.reauthentication import Reauthentication
from authapp.authentication.recovery.forgotten import ForgottenPasswords
from authapp.authentication.recovery.lost_passwords import LostPasswords
from authapp.authentication.recovery.one_time_passwords import OneTimePasswords
from authapp.authentication.recovery.reset_links import ResetLinks
from authapp.authentication.recovery.resets import PasswordResets
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.authentication.registration import Registration
from authapp.authentication.step_up import StepUp
from authapp.authentication.verification import Verification
from authapp.cache.changes import Changes
from authapp.cache.versioned_cache import VersionedCache
from authapp.config import Config
from authapp.crypto.access_tokens import AccessTokens
from authapp.crypto.tokens import DeviceTokens, RefreshTokens, SessionTokens
from authapp.doctor.redis_servers import eviction_policy_problem
from authapp.errors import StoreUnavailable
from authapp.mail.one_time_links import OneTimeLinks
from authapp.mail.outbox import Outbox
from authapp.mail.public_links import PublicLinks
from authapp.mail.queue import MailQueue
from authapp.mail.sending import MailSender
from authapp.passwords.policy import PasswordPolicy
from authapp.sessions.housekeeping import SessionHousekeeping
from authapp.sessions.lost_commits import LostCommits
from authapp.sessions.maintenance import Maintenance
from authapp.sessions.store import SessionStore
from authapp.storage.background import Background
from authapp.storage.bounded_connections import require_threads
from authapp.storage.postgres import Database
from authapp.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The stores and use cases that the edges call. Holds no request and no person.

    Attributes:
        mail_sender: None where mail is off.
        redirect_hosts: other hosts that log-in may lead to.
    """

    # stores
    database: Database
    redis: "redis.Redis"
    cache: VersionedCache
    changes: Changes
    background: Background
    # accounts
    parse_email: ParseEmail
    invitations: Invitations
    users: UserStore
    roles: Roles
    credentials: CredentialStore
    audit: AuditLog
    # sessions
    sessions: SessionStore
    housekeeping: SessionHousekeeping
    lost_commits: LostCommits
    tokens: SessionTokens
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    # mail
    outbox: Outbox
    mail_queue: MailQueue
    mail_sender: MailSender | None
    one_time_links: OneTimeLinks
    public_link: PublicLinks
    # use cases
    registration: Registration
    passkey_sign_up: PasskeySignUp
    verification: Verification
    user_import: UserImport
    authentication: Authentication
    password_changes: PasswordChanges
    step_up: StepUp
    factors: Factors
    factor_login: FactorLogin
    passkeys: Passkeys
    passkey_login: PasskeyLogin
    passwordless: PasswordlessAccounts
    forgotten_passwords: ForgottenPasswords
    password_resets: PasswordResets
    reset_links: ResetLinks
    email_changes: EmailChanges
    administration: Administration
    exports: Exports
    refused_attempts: RefusedAttempts
    maintenance: Maintenance
    # settings that the edges use
    password_policy: PasswordPolicy
    revalidate_seconds: int
    redirect_hosts: tuple[str, ...]

    def store_states(self) -> dict[str, bool]:
        """Whether each store answers now, within the usual time-outs, and is asked."""
        return {"postgres": _answers(self.database.check), "redis": _answers(self.cache.check)}

    def problems(self, states: Mapping[str, bool]) -> list[str]:
        """Problems that `doctor` would report and that may arise while we run, in words.

        Args:
            states: from `store_states`.
        """
        found = []
        if states["redis"] and (wrong := eviction_policy_problem(self.redis)):
            found.append(f"redis: {wrong}")
        if states["postgres"] and (lost := self.lost_commits.problem()):
            found.append(f"postgres: {lost}")
        return found

    def note_pending(self) -> None:
        """Has the metrics say how many fences and mails wait, if Postgres can be asked."""
        try:
            metrics.PENDING_FENCES.set(self.changes.pending())
            self.mail_queue.note_waiting()
        except StoreUnavailable:
            return  # what was seen last stays

    def close(self) -> None:
        """Ends what runs beside the requests, and closes the connections.

        For whoever makes an application and drops it again; the end of a process does it, too.
        """
        self.maintenance.stop()
        if self.mail_sender is not None:
            self.mail_sender.stop()
        self.background.drain()
        self.forgotten_passwords.finish()
        self.refused_attempts.finish()
        self.cache.breaker.retire()
        self.database.breaker.retire()
        self.database.close()
        self.redis.close()


def _answers(check: Callable[[], None]) -> bool:
    try:
        check()
    except StoreUnavailable:
        return False
    return True


utc_now: Callable[[], datetime] = partial(datetime.now, UTC)


def build_services(
    config: Config,
    limiter: Callable[[], RateLimiter] | None,
    clock: Callable[[], datetime] = utc_now,
    observe: Callable[[Fact], None] = lambda _: None,
    permissions: Mapping[str, str] | None = None,
    url_prefix: str = "",
    mail_templates: BaseLoader | None = None,
) -> Services:
    """Wires the stores and use cases. Opens no connection.

    Args:
        limiter: gives the strategy that counts in Redis; None: nothing is limited.
        observe: told of what happened, once it is committed. It raises nothing.
        permissions: those that roles may give, with descriptions; None: our own.
        url_prefix: comes before each of our paths, in an app that embeds us.
        mail_templates: finds templates of mails; None: our own.
    Raises:
        SettingError: there are no threads, which bound all waits for Postgres.
    """
    require_threads()
    stores = open_stores(config, POOL_SIZE, observe)
    tokens = Tokens(
        sessions=SessionTokens(config.SECRET_KEY),
        access=AccessTokens(config.SECRET_KEY, clock),
        refresh=RefreshTokens(config.SECRET_KEY),
    )
    background = Background()

    users, credentials = build_accounts(config, stores, background, clock)
    email_hashes = EmailHashes(config.SECRET_KEY)
    rule = second_factor_rule(config)
    sessions, housekeeping, lost_commits = build_sessions(config, stores, tokens, rule, clock)

    mailing = build_mailing(config, stores.database, clock, url_prefix, mail_templates)
    parse = partial(parse_email, local_domains=config.EMAIL_LOCAL_DOMAINS)
    new_passwords = build_new_passwords(config)
    hasher = new_passwords.hasher
    limits = build_limits(config, limiter, stores.redis_breaker)
    known_devices = KnownDevices(
        DeviceTokens(config.SECRET_KEY), clock, timedelta(seconds=config.REMEMBER_ME_SECONDS)
    )
    factors = build_factors(config, stores.database, mailing, limits, clock)
    refused_attempts = RefusedAttempts(
        stores.database, email_hashes, clock, observe=observe, notices=mailing.notices
    )
    invitations = Invitations(
        stores.database,
        stores.changes,
        parse,
        mailing.invite,
        clock,
        people_may_invite=config.SIGNUP != "closed",
    )
    reauthentication = Reauthentication(
        credentials=credentials,
        hasher=hasher,
        limits=limits,
        refused_attempts=refused_attempts,
        timeout=config.LOGIN_TIMEOUT_SECONDS,
    )
    uses = build_factor_uses(
        config,
        stores,
        sessions,
        factors,
        refused_attempts,
        known_devices,
        parse,
        reauthentication=reauthentication,
        new_passwords=new_passwords,
        credentials=credentials,
    )
    sign_up = build_sign_up(
        config,
        stores,
        mailing,
        factors,
        users,
        credentials,
        invitations=invitations,
        new_passwords=new_passwords,
        refused_attempts=refused_attempts,
        parse_email=parse,
    )
    one_time = OneTimePasswords(stores.changes, users, mailing.one_time_links, clock)
    lost = LostPasswords(sessions, stores.changes, lost_commits, clock)
    password_check = PasswordCheck(users, credentials, hasher, one_time, lost)
    reset_links = ResetLinks(
        stores.database,
        stores.changes,
        outbox=mailing.outbox,
        links=mailing.one_time_links,
        public_link=mailing.public_link,
        notices=mailing.notices,
        holdings=factors.holdings,
        clock=clock,
    )

    return Services(
        database=stores.database,
        redis=stores.redis,
        cache=stores.cache,
        changes=stores.changes,
        background=background,
        parse_email=parse,
        invitations=invitations,
        users=users,
        roles=Roles(stores.database, stores.changes, clock, permissions or known_permissions()),
        credentials=credentials,
        audit=AuditLog(stores.database, email_hashes, clock),
        sessions=sessions,
        housekeeping=housekeeping,
        lost_commits=lost_commits,
        tokens=tokens.sessions,
        access_tokens=tokens.access,
        refresh_tokens=tokens.refresh,
        outbox=mailing.outbox,
        mail_queue=mailing.queue,
        mail_sender=mailing.sender,
        one_time_links=mailing.one_time_links,
        public_link=mailing.public_link,
        registration=sign_up.registration,
        verification=sign_up.verification,
        passkey_sign_up=sign_up.passkey_sign_up,
        user_import=UserImport(
            database=stores.database,
            changes=stores.changes,
            parse_email=parse,
            seal=hasher.seal_imported,
            clock=clock,
        ),
        authentication=Authentication(
            users=users,
            sessions=sessions,
            passwords=password_check,
            limits=limits,
            known_devices=known_devices,
            refused_attempts=refused_attempts,
            pending_logins=factors.pending_logins,
            notices=mailing.notices,
            parse_email=parse,
            timeout=config.LOGIN_TIMEOUT_SECONDS,
        ),
        factors=uses.factors,
        factor_login=uses.factor_login,
        passkeys=uses.passkeys,
        passkey_login=uses.passkey_login,
        passwordless=uses.passwordless,
        reset_links=reset_links,
        forgotten_passwords=ForgottenPasswords(
            stores.database,
            reset_links,
            limits=limits,
            refused_attempts=refused_attempts,
            parse_email=parse,
            background=Background(),
            timeout=config.LOGIN_TIMEOUT_SECONDS,
        ),
        password_resets=PasswordResets(
            stores.changes,
            sessions,
            mailing.one_time_links,
            reset_links,
            new_passwords=new_passwords,
            limits=limits,
            refused_attempts=refused_attempts,
            clock=clock,
            timeout=config.LOGIN_TIMEOUT_SECONDS,
            prime=lambda email: credentials.prime(parse(email)),
        ),
        password_changes=PasswordChanges(
            users=users,
            credentials=credentials,
            sessions=sessions,
            changes=stores.changes,
            new_passwords=new_passwords,
            reauthentication=reauthentication,
            known_devices=known_devices,
            notices=mailing.notices,
            parse_email=parse,
            clock=clock,
        ),
        step_up=uses.step_up,
        email_changes=EmailChanges(
            stores.database,
            stores.changes,
            users,
            sessions,
            reauthentication=reauthentication,
            mails=mailing.account_mails,
            holdings=factors.holdings,
            parse_email=parse,
            clock=clock,
        ),
        exports=Exports(stores.database, stores.changes, clock),
        administration=Administration(
            users=users,
            sessions=sessions,
            changes=stores.changes,
            mails=mailing.account_mails,
            email_hashes=email_hashes,
            clock=clock,
        ),
        refused_attempts=refused_attempts,
        maintenance=build_maintenance(config, stores, housekeeping, mailing.queue, clock),
        password_policy=new_passwords.policy,
        revalidate_seconds=config.REVALIDATE_SECONDS,
        redirect_hosts=config.ALLOWED_REDIRECT_HOSTS,
    )
