"""Opens both stores from the settings, and builds the accounts and sessions in them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis

from authapp.accounts.assurance import AAL2_IDLE, AAL2_OVERALL, SecondFactorRule
from authapp.accounts.audit import Fact
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.store import UserStore
from authapp.cache.changes import Changes
from authapp.cache.keys import CredentialKeys
from authapp.cache.versioned_cache import VersionedCache
from authapp.config import Config
from authapp.crypto.access_tokens import AccessTokens
from authapp.crypto.sealing import Sealer
from authapp.crypto.tokens import RefreshTokens, SessionTokens
from authapp.sessions.beginning import SessionBeginning
from authapp.sessions.housekeeping import SessionHousekeeping
from authapp.sessions.lookup import SessionLookup
from authapp.sessions.lost_commits import LostCommits
from authapp.sessions.provisional import ProvisionalSessions
from authapp.sessions.records import SessionPolicy
from authapp.sessions.rotation import SessionRotation
from authapp.sessions.rows import SessionRows
from authapp.sessions.store import SessionStore
from authapp.storage.background import Background
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.postgres import Database, connect
from authapp.storage.redis import redis_client
from authapp.storage.redis_address import RedisAddress

FILL_TIMEOUT = 1.0  # seconds that Redis has to take a copy nobody waits for


@dataclass(frozen=True, slots=True)
class Stores:
    """Both stores, and the changes that keep the copies in Redis true to Postgres.

    Attributes:
        patient_cache: the same copies through a connection that may take longer, for filling.
    """

    database: Database
    redis: "redis.Redis"
    redis_breaker: Breaker
    cache: VersionedCache
    patient_cache: VersionedCache
    credential_keys: CredentialKeys
    changes: Changes


@dataclass(frozen=True, slots=True)
class Tokens:
    sessions: SessionTokens
    access: AccessTokens
    refresh: RefreshTokens


def open_stores(config: Config, pool_size: int, observe: Callable[[Fact], None]) -> Stores:
    database = Database(
        engine=connect(config.DATABASE_URL, pool_size, config.KEY_PREFIX, config.DATABASE_SCHEMA),
        breaker=Breaker("postgres"),
    )
    redis_breaker, sealer = Breaker("redis"), Sealer(config.SECRET_KEY)
    client = redis_client(config.REDIS_URL, retries=1)  # what goes through it can be repeated
    patient = redis_client(config.REDIS_URL, retries=0, timeout=FILL_TIMEOUT)
    clustered = RedisAddress.parse(config.REDIS_URL).kind == "cluster"
    cache, patient_cache = (
        VersionedCache(of, sealer, redis_breaker, config.KEY_PREFIX, clustered=clustered)
        for of in (client, patient)
    )
    credential_keys = CredentialKeys(config.SECRET_KEY)
    return Stores(
        database=database,
        redis=client,
        redis_breaker=redis_breaker,
        cache=cache,
        patient_cache=patient_cache,
        credential_keys=credential_keys,
        changes=Changes(database, cache, credential_keys, observe),
    )


def build_accounts(
    config: Config, stores: Stores, background: Background, clock: Callable[[], datetime]
) -> tuple[UserStore, CredentialStore]:
    """
    Args:
        background: fills copies of credentials, if the settings say so.
    """
    users = UserStore(
        database=stores.database,
        changes=stores.changes,
        cache=stores.cache,
        copy_ttl=config.USER_CACHE_SECONDS,
        clock=clock,
    )
    credentials = CredentialStore(
        database=stores.database,
        cache=stores.cache,
        filler=stores.patient_cache,
        keys=stores.credential_keys,
        ttl=config.CREDENTIAL_CACHE_SECONDS,
        fill=background.submit if config.CREDENTIAL_CACHE_WRITE == "background" else _at_once,
    )
    return users, credentials


def build_sessions(
    config: Config,
    stores: Stores,
    tokens: Tokens,
    second_factors: SecondFactorRule,
    clock: Callable[[], datetime],
) -> tuple[SessionStore, SessionHousekeeping, LostCommits]:
    policy = session_policy(config)
    rows = SessionRows(
        tokens=tokens.sessions,
        access_tokens=tokens.access,
        refresh_tokens=tokens.refresh,
        policy=policy,
        clock=clock,
    )
    provisional = ProvisionalSessions(
        cache=stores.cache, tokens=tokens.sessions, policy=policy, clock=clock
    )
    lost = LostCommits(
        stores.database, changes=stores.changes, cache=stores.cache, rows=rows, clock=clock
    )
    lookup = SessionLookup(
        database=stores.database,
        changes=stores.changes,
        cache=stores.cache,
        rows=rows,
        provisional=provisional,
        lost=lost,
        policy=policy,
        clock=clock,
    )
    sessions = SessionStore(
        database=stores.database,
        changes=stores.changes,
        rows=rows,
        lookup=lookup,
        rotation=SessionRotation(stores.changes, rows, clock=clock),
        beginning=SessionBeginning(stores.changes, rows, provisional, second_factors),
        policy=policy,
        clock=clock,
    )
    housekeeping = SessionHousekeeping(
        database=stores.database, changes=stores.changes, rows=rows, policy=policy, clock=clock
    )
    return sessions, housekeeping, lost


def session_policy(config: Config) -> SessionPolicy:
    longest: dict[str, timedelta] = {}
    if config.ASSURANCE_LEVEL == 2:
        longest = {"longest_idle": AAL2_IDLE, "longest": AAL2_OVERALL}
    return SessionPolicy(
        **longest,
        idle=timedelta(seconds=config.SESSION_IDLE_SECONDS),
        absolute=timedelta(seconds=config.SESSION_ABSOLUTE_SECONDS),
        remember=timedelta(seconds=config.REMEMBER_ME_SECONDS),
        revalidate=timedelta(seconds=config.REVALIDATE_SECONDS),
        max_per_user=config.SESSION_MAX_PER_USER,
        access_token=timedelta(seconds=config.ACCESS_TOKEN_SECONDS),
    )


def _at_once(task: Callable[[], None]) -> None:
    task()
