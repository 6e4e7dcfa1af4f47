"""Redis: reachable, new enough, safe to talk to; each primary writable and set up as it must be."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import redis
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import LIBRARY, VersionedCache
from authapp.config import Config
from authapp.crypto.sealing import Sealer
from authapp.doctor.clocks import Clocks
from authapp.doctor.findings import Finding, State, reason
from authapp.doctor.hosts import is_loopback
from authapp.errors import StoreUnavailable
from authapp.storage.redis import REDIS_ERRORS, redis_client, tls_options
from authapp.storage.redis_address import RedisAddress

NEEDED = 7  # functions


def examine(config: Config, clocks: Clocks) -> Iterator[Finding]:
    address = RedisAddress.parse(config.REDIS_URL)
    password = address.password
    yield from _transport(address)
    client = redis_client(config.REDIS_URL, retries=1)
    reached = True
    try:
        for name, server in primaries(client).items():
            try:
                yield from _server(name, server, clocks)
            except REDIS_ERRORS as error:
                yield _unreachable(name, reason(error, password))
                reached = False
    except REDIS_ERRORS as error:
        yield _unreachable("", reason(error, password))
        reached = False
    if reached:
        sealer, clustered = Sealer(config.SECRET_KEY), address.kind == "cluster"
        yield _copies(
            VersionedCache(client, sealer, key_prefix=config.KEY_PREFIX, clustered=clustered)
        )
    client.close()


def eviction_policy_problem(client: "redis.Redis") -> str | None:
    """The fault in the eviction policy of any primary. None: no fault, or the policy can't be
    read.

    Args:
        client: from `redis_client`.
    """
    try:
        policies = [_policy(server.info("memory")) for server in primaries(client).values()]
    except REDIS_ERRORS:
        return None
    wrong = sorted({policy for policy in policies if policy and _evicts_what_it_likes(policy)})
    if not wrong:
        return None
    return f"maxmemory-policy is {', '.join(wrong)}: set it to noeviction"


def primaries(client: "redis.Redis") -> Mapping[str, "redis.Redis"]:
    """The servers that hold copies, by a name that is empty when there is one.

    Raises:
        REDIS_ERRORS: they can't be found.
    """
    find = getattr(client, "get_primaries", None)  # asks the servers of a cluster
    if find is None:
        return {"": client}
    cluster = cast(RedisCluster, client)
    return {node.name: cluster.get_redis_connection(node) for node in find()}


def _transport(address: RedisAddress) -> Iterator[Finding]:
    hosts = ", ".join(host for host, _ in address.places if not is_loopback(host))
    if not hosts:
        yield Finding("redis transport", State.OK, "it is on this machine")
        return
    tls = tls_options(address)
    if not tls:
        told = f"what is sent to {hosts} is not encrypted, the password too"
        scheme = address.url.partition("://")[0].replace("redis", "rediss")
        remedy = f"use {scheme}://…, or keep it on a network of its own"
        yield Finding("redis transport", State.WARN, told, remedy)
    elif tls.get("ssl_cert_reqs") == "none" or not tls.get("ssl_check_hostname", True):
        told = f"TLS to {hosts}, with anybody who claims to be them"
        remedy = "leave ssl_cert_reqs and ssl_check_hostname out of REDIS_URL; set ssl_ca_certs"
        yield Finding("redis transport", State.WARN, told, remedy)
    else:
        yield Finding("redis transport", State.OK, f"TLS to {hosts}")
    if address.password:
        yield Finding("redis password", State.OK, "one is sent")
    else:
        told = f"whoever reaches {hosts} can end sessions and lift log-in limits"
        remedy = "set requirepass (or an ACL user) there, and the password in REDIS_URL"
        yield Finding("redis password", State.FAIL, told, remedy)


def _unreachable(name: str, why: str) -> Finding:
    remedy = "start it, or correct REDIS_URL; meanwhile Postgres answers alone"
    return Finding("redis", State.FAIL, _of(name, f"it can't be asked: {why}"), remedy)


def _of(name: str, told: str) -> str:
    return f"{name}: {told}" if name else told


def _server(name: str, server: "redis.Redis", clocks: Clocks) -> Iterator[Finding]:
    server.ping()
    try:
        clocks.compare(f"redis {name}".strip(), lambda: _time(server))
        facts = cast(dict[str, Any], server.info())
    except NoPermissionError as error:
        told = _of(name, f"can't tell how it is set up: {reason(error)}")
        yield Finding("redis", State.WARN, told, "allow INFO, which the copies need too, and TIME")
    else:
        for finding in _judged(facts):
            yield Finding(finding.check, finding.state, _of(name, finding.text), finding.remedy)
    found = _functions(server)
    yield Finding(found.check, found.state, _of(name, found.text), found.remedy)


def _time(server: "redis.Redis") -> float:
    seconds, micros = cast(tuple[int, int], server.time())
    return seconds + micros / 1_000_000


def _judged(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """
    Args:
        facts: what INFO tells.
    """
    yield _version(facts)
    yield _role(facts)
    yield _replicas(facts)
    yield _eviction(facts)
    yield _memory(facts)
    yield _persistence(facts)


def _version(facts: Mapping[str, Any]) -> Finding:
    speaks = str(facts.get("redis_version", "0"))  # of Redis, also where Valkey answers
    valkey = facts.get("valkey_version")
    told = f"Valkey {valkey} answers" if valkey else f"Redis {speaks} answers"
    if int(speaks.partition(".")[0]) < NEEDED:
        return Finding("redis", State.FAIL, f"{told}; it has no functions", "use Redis 7 or Valkey")
    return Finding("redis", State.OK, told)


def _role(facts: Mapping[str, Any]) -> Finding:
    if facts.get("role") == "master":
        return Finding("redis role", State.OK, "primary")
    remedy = "point REDIS_URL at the primary, or name the Sentinels (redis+sentinel://…)"
    return Finding("redis role", State.FAIL, "a replica, which takes no changes", remedy)


def _replicas(facts: Mapping[str, Any]) -> Finding:
    count = int(facts.get("connected_slaves", 0))
    guarded = "min_slaves_good_slaves" in facts  # told only where both settings are above 0
    if count and not guarded:
        told = f"{count} attached; frozen in a failover it may serve ended sessions when it thaws"
        remedy = (
            "set min-replicas-to-write 1 and min-replicas-max-lag below Sentinel's "
            "down-after-milliseconds (docs/operations.md, Forms of REDIS_URL)"
        )
        return Finding("redis replicas", State.WARN, told, remedy)
    told = f"{count} attached, and it takes no changes without them" if count else "none attached"
    return Finding("redis replicas", State.OK, told)


def _policy(facts: Any) -> str:
    return str(facts.get("maxmemory_policy", ""))


def _evicts_what_it_likes(policy: str) -> bool:
    return policy != "noeviction" and not policy.startswith("volatile-")


def _eviction(facts: Mapping[str, Any]) -> Finding:
    policy = _policy(facts)
    if not policy:
        told, remedy = "can't tell: INFO does not say", "see that maxmemory-policy is noeviction"
        return Finding("redis eviction", State.WARN, told, remedy)
    if _evicts_what_it_likes(policy):
        told = (
            f"{policy}: when full it silently drops sessions, locks and counts of log-in attempts"
        )
        return Finding("redis eviction", State.FAIL, told, "set maxmemory-policy noeviction")
    return Finding("redis eviction", State.OK, policy)


def _memory(facts: Mapping[str, Any]) -> Finding:
    if not facts.get("maxmemory"):
        advice = "set maxmemory, or the kernel may end it when the machine is full"
        return Finding("redis memory", State.OK, "without a limit", advice)
    told = f"{facts.get('used_memory_human')} of {facts.get('maxmemory_human')}"
    return Finding("redis memory", State.OK, told)


def _persistence(facts: Mapping[str, Any]) -> Finding:
    kept = "an append-only file is kept" if facts.get("aof_enabled") else "no append-only file"
    return Finding("redis persistence", State.OK, f"{kept}; copies alone need none")


def _copies(cache: VersionedCache) -> Finding:
    """Does what each request does, with a key that is nobody's and is gone in seconds."""
    try:
        cache.acquire(session_key(b"doctor"))
    except StoreUnavailable as error:
        told = f"they can't be asked for: {reason(error.__cause__ or error)}"
        remedy = "correct what is said above; meanwhile Postgres answers alone"
        return Finding("redis copies", State.FAIL, told, remedy)
    return Finding("redis copies", State.OK, "they can be asked for")


def _functions(server: "redis.Redis") -> Finding:
    """Loads what the product loads anyway."""
    check = "redis functions"
    try:
        server.function_load(LIBRARY, replace=True)
    except ReadOnlyError as error:
        told = f"it takes no changes: {reason(error)}"
        return Finding(check, State.FAIL, told, "point REDIS_URL at the primary")
    except NoPermissionError as error:
        told = f"they can't be loaded: {reason(error)}"
        remedy = "allow the account FUNCTION LOAD, FCALL, INFO and TIME (ACL SETUSER)"
        return Finding(check, State.FAIL, told, remedy)
    except ResponseError as error:
        told = f"they can't be loaded: {reason(error)}"
        return Finding(check, State.FAIL, told, "see the log of the server")
    return Finding(check, State.OK, "they can be loaded")
