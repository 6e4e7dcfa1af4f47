"""Builds everything from the settings: engines, pools, time-outs → one frozen `Services`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis
from limits.strategies import RateLimiter
from sqlalchemy import text

from authapp.authentication import Authentication
from authapp.background import Background
from authapp.changes import Changes
from authapp.config import Config
from authapp.copy_keys import CredentialKeys
from authapp.credentials import CredentialStore
from authapp.database import Database, connect
from authapp.errors import StoreUnavailable
from authapp.limits import LoginLimits
from authapp.locks import Locks
from authapp.maintenance import Maintenance
from authapp.passwords import PasswordHasher
from authapp.redis_clients import redis_client
from authapp.resilience import Breaker
from authapp.sealing import Sealer, derive_key
from authapp.sessions import Limits, SessionStore
from authapp.tokens import SessionTokens
from authapp.users import UserStore
from authapp.versioned_cache import VersionedCache

POOL_SIZE = 8  # Postgres connections a worker: one for each of its request threads


@dataclass(frozen=True, slots=True)
class Services:
    """What the edges use. Holds no request and no person.

    Attributes:
        redirect_hosts: other hosts that log-in may lead to.
    """

    database: Database
    cache: VersionedCache
    redis: "redis.Redis"
    users: UserStore
    credentials: CredentialStore
    sessions: SessionStore
    authentication: Authentication
    tokens: SessionTokens
    maintenance: Maintenance
    changes: Changes
    background: Background
    revalidate_seconds: int
    redirect_hosts: tuple[str, ...]

    def store_states(self) -> dict[str, bool]:
        """Whether each store answers now, asked within the usual time-outs; Redis, also trusted."""
        return {"postgres": self._postgres_answers(), "redis": self._redis_answers()}

    def _postgres_answers(self) -> bool:
        try:
            with self.database.transaction() as db:
                db.execute(text("SELECT 1"))
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


def utc_now() -> datetime:
    return datetime.now(UTC)


def build_services(
    config: Config,
    limiter: Callable[[], RateLimiter],
    clock: Callable[[], datetime] = utc_now,
    on_pending: Callable[[], None] = lambda: None,
) -> Services:
    """Wires the stores and use cases. Opens no connection.

    Args:
        limiter: gives the strategy that counts in Redis.
        on_pending: see `Changes`.
    """
    client = redis_client(config.REDIS_URL, retries=1)  # what goes through it can be repeated
    database = Database(connect(config.DATABASE_URL, POOL_SIZE))
    cache = VersionedCache(client, Sealer(config.SECRET_KEY), Breaker("redis"))
    tokens = SessionTokens(config.SECRET_KEY)
    credential_keys = CredentialKeys(config.SECRET_KEY)
    changes = Changes(database, cache, credential_keys, on_pending)
    users = UserStore(database, changes, cache, config.USER_CACHE_SECONDS, clock)
    background = Background()
    credentials = CredentialStore(
        database,
        cache,
        credential_keys,
        config.CREDENTIAL_CACHE_SECONDS,
        background.submit if config.CREDENTIAL_CACHE_WRITE == "background" else _at_once,
    )
    sessions = SessionStore(
        database,
        changes,
        cache,
        tokens,
        Limits(
            idle=timedelta(seconds=config.SESSION_IDLE_SECONDS),
            absolute=timedelta(seconds=config.SESSION_ABSOLUTE_SECONDS),
            remember=timedelta(seconds=config.REMEMBER_ME_SECONDS),
            revalidate=timedelta(seconds=config.REVALIDATE_SECONDS),
            max_per_user=config.SESSION_MAX_PER_USER,
        ),
        clock,
    )
    login_limits = LoginLimits(
        limiter,
        config.LOGIN_LIMIT_PER_ADDRESS,
        config.LOGIN_FAILURES_PER_ACCOUNT,
        derive_key(config.SECRET_KEY[0], "limit names"),
        config.WEB_CONCURRENCY,
    )
    hasher = PasswordHasher(config.PASSWORD_PEPPER, config.BCRYPT_ROUNDS)
    return Services(
        database=database,
        cache=cache,
        redis=client,
        users=users,
        credentials=credentials,
        sessions=sessions,
        authentication=Authentication(
            users, credentials, sessions, changes, hasher, login_limits, clock
        ),
        maintenance=Maintenance(
            sessions, changes, Locks(redis_client(config.REDIS_URL, retries=0))
        ),
        changes=changes,
        background=background,
        revalidate_seconds=config.REVALIDATE_SECONDS,
        tokens=tokens,
        redirect_hosts=config.ALLOWED_REDIRECT_HOSTS,
    )
