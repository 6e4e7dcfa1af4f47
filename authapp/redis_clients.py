"""How Redis is reached: one server, Sentinel or Cluster; every wait bounded."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

# what a client raises when it could not be answered; the cluster's is no RedisError
REDIS_ERRORS = (RedisError, RedisClusterException)

TIMEOUT = 0.25  # seconds, to connect and to answer; the library's own default is never


def redis_client(url: str, retries: int) -> "redis.Redis":
    """A client that opens no connection before its first command and returns bytes.

    Args:
        url: redis://, rediss://, unix://, redis+sentinel://host:port,host:port/service or
            redis+cluster://host:port,host:port.
        retries: 0 for commands that must not be repeated, as locks and counts.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), retries),
    }
    if url.startswith("redis+sentinel://"):
        account, hosts, path = _parts(url)
        service, _, database = path.partition("/")
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=options, db=int(database or 0), **account, **options
        )
        master: redis.Redis = sentinel.master_for(service)  # type: ignore[no-untyped-call]
        return master
    if url.startswith("redis+cluster://"):
        account, hosts, _ = _parts(url)
        nodes = [ClusterNode(*place) for place in hosts]  # type: ignore[no-untyped-call]
        # asks the nodes for the layout when it is made, so it is made at the first command
        cluster = _Later(lambda: RedisCluster(startup_nodes=nodes, **account, **options))
        return cast("redis.Redis", cluster)
    return redis.Redis.from_url(url, client_name="authapp", **options)


def limiter_uri(url: str) -> str:
    """The URL as Flask-Limiter's storages want it."""
    return url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url


def _parts(url: str) -> tuple[dict[str, Any], list[tuple[str, int]], str]:
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    places = [place.rpartition(":") for place in hosts.split(",")]
    return (
        {name: value for name, value in found.items() if value},
        [(host.strip("[]"), int(port)) for host, _, port in places],
        parts.path.strip("/"),
    )


class _Later:
    """Stands for a client that can only be made while its servers answer."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> object:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)
