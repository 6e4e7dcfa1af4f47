"""Builds everything from the settings: engines, pools, time-outs → one frozen `Services`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import redis
from limits.strategies import RateLimiter

from authapp.accounts.audit import AuditLog, EmailHashes, Fact
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import ParseEmail, parse_email
from authapp.accounts.roles import Roles
from authapp.accounts.store import UserStore
from authapp.accounts.user_import import UserImport
from authapp.authentication.administration import Administration
from authapp.authentication.hashing_queue import HashingQueue
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.limits import LoginLimits
from authapp.authentication.login import Authentication
from authapp.authentication.password_changes import PasswordChanges
from authapp.authentication.password_hashing import PasswordHasher
from authapp.authentication.reauthentication import Reauthentication
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.authentication.registration import Registration
from authapp.cache.changes import Changes
from authapp.cache.keys import CredentialKeys
from authapp.cache.versioned_cache import VersionedCache
from authapp.config import Config
from authapp.crypto.access_tokens import AccessTokens
from authapp.crypto.sealing import Sealer, derive_key
from authapp.crypto.tokens import DeviceTokens, RefreshTokens, SessionTokens
from authapp.doctor.redis_servers import eviction_policy_problem
from authapp.errors import StoreUnavailable
from authapp.sessions.housekeeping import SessionHousekeeping
from authapp.sessions.lookup import SessionLookup
from authapp.sessions.maintenance import Maintenance
from authapp.sessions.provisional import ProvisionalSessions
from authapp.sessions.records import SessionPolicy
from authapp.sessions.rows import SessionRows
from authapp.sessions.store import SessionStore
from authapp.storage.background import Background
from authapp.storage.bounded_connections import require_threads
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.locks import Locks
from authapp.storage.postgres import Database, connect
from authapp.storage.redis import redis_client
from authapp.telemetry import metrics

REQUEST_THREADS = 8  # a worker
POOL_SIZE = REQUEST_THREADS + 2  # Postgres connections a worker; two for its background work
FILL_TIMEOUT = 1.0  # seconds that Redis has to take a copy nobody waits for
LOGINS_AT_ONCE = REQUEST_THREADS // 2 - 1  # in a worker, so that most threads answer all others


@dataclass(frozen=True, slots=True)
class Services:
    """What the edges use. Holds no request and no person.

    Attributes:
        redirect_hosts: other hosts that log-in may lead to.
    """

    database: Database
    cache: VersionedCache
    redis: "redis.Redis"
    parse_email: ParseEmail
    users: UserStore
    roles: Roles
    credentials: CredentialStore
    sessions: SessionStore
    housekeeping: SessionHousekeeping
    registration: Registration
    user_import: UserImport
    authentication: Authentication
    password_changes: PasswordChanges
    administration: Administration
    tokens: SessionTokens
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    maintenance: Maintenance
    changes: Changes
    audit: AuditLog
    refused_attempts: RefusedAttempts
    background: Background
    revalidate_seconds: int
    redirect_hosts: tuple[str, ...]

    def store_states(self) -> dict[str, bool]:
        """Whether each store answers now, within the usual time-outs, and is asked."""
        return {"postgres": self._postgres_answers(), "redis": self._redis_answers()}

    def problems(self) -> list[str]:
        """What `doctor` would call wrong and may change while we run; for people."""
        wrong = eviction_policy_problem(self.redis)
        return [f"redis: {wrong}"] if wrong else []

    def note_pending(self) -> None:
        """Has the metrics say how many fences are written down, if Postgres can be asked."""
        try:
            metrics.PENDING_FENCES.set(self.changes.pending())
        except StoreUnavailable:
            return  # what was seen last stays

    def close(self) -> None:
        """Ends what runs beside the requests, and closes the connections.

        For whoever makes an application and drops it again; the end of a process does it, too.
        """
        self.maintenance.stop()
        self.background.drain()
        self.refused_attempts.finish()
        self.cache.breaker.retire()
        self.database.breaker.retire()
        self.database.close()
        self.redis.close()

    def _postgres_answers(self) -> bool:
        try:
            self.database.check()
        except StoreUnavailable:
            return False
        return True

    def _redis_answers(self) -> bool:
        try:
            self.cache.check()
        except StoreUnavailable:
            return False
        return True


def _at_once(task: Callable[[], None]) -> None:
    task()


utc_now: Callable[[], datetime] = partial(datetime.now, UTC)


def session_policy(config: Config) -> SessionPolicy:
    return SessionPolicy(
        idle=timedelta(seconds=config.SESSION_IDLE_SECONDS),
        absolute=timedelta(seconds=config.SESSION_ABSOLUTE_SECONDS),
        remember=timedelta(seconds=config.REMEMBER_ME_SECONDS),
        revalidate=timedelta(seconds=config.REVALIDATE_SECONDS),
        max_per_user=config.SESSION_MAX_PER_USER,
        access_token=timedelta(seconds=config.ACCESS_TOKEN_SECONDS),
    )


def build_services(
    config: Config,
    limiter: Callable[[], RateLimiter] | None,
    clock: Callable[[], datetime] = utc_now,
    observe: Callable[[Fact], None] = lambda _: None,
) -> Services:
    """Wires the stores and use cases. Opens no connection.

    Args:
        limiter: gives the strategy that counts in Redis; None: nothing is limited.
        observe: told of what happened, once it is committed. It raises nothing.
    Raises:
        SettingError: there are no threads, which bound all waits for Postgres.
    """
    require_threads()
    client = redis_client(config.REDIS_URL, retries=1)  # what goes through it can be repeated
    database = Database(
        connect(config.DATABASE_URL, POOL_SIZE, config.KEY_PREFIX, config.DATABASE_SCHEMA),
        Breaker("postgres"),
    )
    sealer, redis_breaker = Sealer(config.SECRET_KEY), Breaker("redis")
    cache = VersionedCache(client, sealer, redis_breaker, config.KEY_PREFIX)
    tokens = SessionTokens(config.SECRET_KEY)
    access_tokens = AccessTokens(config.SECRET_KEY, clock)
    refresh_tokens = RefreshTokens(config.SECRET_KEY)
    credential_keys = CredentialKeys(config.SECRET_KEY)
    changes = Changes(database, cache, credential_keys, observe)
    read_email = partial(parse_email, local_domains=config.EMAIL_LOCAL_DOMAINS)
    users = UserStore(database, changes, cache, config.USER_CACHE_SECONDS, clock)
    background = Background()
    # Filling in the background has its own connection, and its own time-out: it may take longer.
    patient = redis_client(config.REDIS_URL, retries=0, timeout=FILL_TIMEOUT)
    credentials = CredentialStore(
        database,
        cache,
        VersionedCache(patient, sealer, redis_breaker, config.KEY_PREFIX),
        credential_keys,
        config.CREDENTIAL_CACHE_SECONDS,
        background.submit if config.CREDENTIAL_CACHE_WRITE == "background" else _at_once,
    )
    policy = session_policy(config)
    provisional = ProvisionalSessions(cache, tokens, policy, clock)
    rows = SessionRows(tokens, access_tokens, refresh_tokens, policy, clock)
    lookup = SessionLookup(database, changes, cache, rows, provisional, policy=policy, clock=clock)
    sessions = SessionStore(database, changes, rows, lookup, provisional, policy, clock)
    housekeeping = SessionHousekeeping(database, changes, rows, policy, clock)
    login_limits = LoginLimits(
        limiter,
        config.LOGIN_LIMIT_PER_ADDRESS,
        config.LOGIN_FAILURES_PER_ACCOUNT,
        derive_key(config.SECRET_KEY[0], "limit names"),
        config.WEB_CONCURRENCY,
        redis_breaker,
    )
    hasher = PasswordHasher(
        config.PASSWORD_PEPPER, config.BCRYPT_ROUNDS, HashingQueue(LOGINS_AT_ONCE)
    )
    known_devices = KnownDevices(DeviceTokens(config.SECRET_KEY))
    email_hashes = EmailHashes(config.SECRET_KEY)
    refused_attempts = RefusedAttempts(database, email_hashes, clock, observe=observe)
    return Services(
        database=database,
        cache=cache,
        redis=client,
        parse_email=read_email,
        users=users,
        roles=Roles(database, changes, clock),
        credentials=credentials,
        sessions=sessions,
        housekeeping=housekeeping,
        registration=Registration(
            users, credentials, hasher, login_limits, refused_attempts, read_email
        ),
        user_import=UserImport(database, changes, read_email, hasher.seal_imported, clock),
        authentication=Authentication(
            users,
            credentials,
            sessions,
            hasher=hasher,
            limits=login_limits,
            known_devices=known_devices,
            refused_attempts=refused_attempts,
            parse_email=read_email,
            timeout=config.LOGIN_TIMEOUT_SECONDS,
        ),
        password_changes=PasswordChanges(
            users,
            credentials,
            sessions,
            changes,
            hasher=hasher,
            reauthentication=Reauthentication(
                credentials, hasher, login_limits, refused_attempts, config.LOGIN_TIMEOUT_SECONDS
            ),
            known_devices=known_devices,
            parse_email=read_email,
            clock=clock,
        ),
        administration=Administration(users, sessions, changes, email_hashes, clock),
        maintenance=Maintenance(
            housekeeping,
            changes,
            Locks(redis_client(config.REDIS_URL, retries=0), config.KEY_PREFIX),
        ),
        changes=changes,
        audit=AuditLog(database, email_hashes, clock),
        refused_attempts=refused_attempts,
        background=background,
        revalidate_seconds=config.REVALIDATE_SECONDS,
        tokens=tokens,
        access_tokens=access_tokens,
        refresh_tokens=refresh_tokens,
        redirect_hosts=config.ALLOWED_REDIRECT_HOSTS,
    )
