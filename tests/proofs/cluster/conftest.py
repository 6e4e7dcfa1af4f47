"""The product on one server, on a Cluster and on a Sentinel set: the same tests run on each."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from authapp import dev
from authapp.config import Config
from authapp.services import Services
from tests.deploy.servers import needs_redis
from tests.proofs.cluster.servers import (
    Cluster,
    SentinelSet,
    TlsServers,
    cluster,
    sentinel_set,
    tls_servers,
)
from tests.support.clock import Clock
from tests.support.services import open_services
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Redis:
    """Where the copies are in this run of a test.

    Attributes:
        primaries: a URL of each server that holds some.
    """

    kind: str
    url: str
    primaries: tuple[str, ...]

    def ask_each(self, *command: Any) -> list[Any]:
        answers = []
        for url in self.primaries:
            with closing(redis.Redis.from_url(url)) as client:
                answers.append(client.execute_command(*command))  # type: ignore[no-untyped-call]
        return answers

    def stored(self, pattern: str) -> list[bytes]:
        return [key for keys in self.ask_each("KEYS", pattern) for key in keys]


@pytest.fixture(scope="session")
def cluster_servers(shared_dir: Path) -> Iterator[Cluster]:
    with cluster(shared_dir / "cluster") as servers:
        yield servers


@pytest.fixture(scope="session")
def sentinel_servers(shared_dir: Path) -> Iterator[SentinelSet]:
    with sentinel_set(shared_dir / "sentinel") as servers:
        yield servers


@pytest.fixture(scope="session")
def tls(shared_dir: Path) -> Iterator[TlsServers]:
    needs_redis()
    with tls_servers(shared_dir / "tls") as servers:
        yield servers


def _one_server(request: pytest.FixtureRequest) -> Redis:
    server: dev.Valkey = request.getfixturevalue("valkey")
    return Redis("one server", server.url, (server.url,))


def _cluster(request: pytest.FixtureRequest) -> Redis:
    servers: Cluster = request.getfixturevalue("cluster_servers")
    return Redis("cluster", servers.url, tuple(node.url for node in servers.nodes))


def _sentinel(request: pytest.FixtureRequest) -> Redis:
    servers: SentinelSet = request.getfixturevalue("sentinel_servers")
    return Redis("sentinel", servers.url, (servers.primary().url,))


def _tls_cluster(request: pytest.FixtureRequest) -> Redis:
    servers: TlsServers = request.getfixturevalue("tls")
    return Redis("cluster", servers.cluster_url, (servers.cluster_node.url,))


def _tls_sentinel(request: pytest.FixtureRequest) -> Redis:
    servers: TlsServers = request.getfixturevalue("tls")
    return Redis("sentinel", servers.sentinel_url, (servers.primary.url,))


PLAIN = {"one server": _one_server, "cluster": _cluster, "sentinel": _sentinel}
WITH_TLS = {"cluster with TLS": _tls_cluster, "sentinel with TLS": _tls_sentinel}
KINDS = PLAIN | WITH_TLS


@pytest.fixture(params=PLAIN)
def store(request: pytest.FixtureRequest) -> Redis:
    """Each kind of Redis in turn, empty; tests of one alone name it by `indirect`."""

    def emptied() -> Redis:
        found = KINDS[request.param](request)
        found.ask_each("FLUSHALL")
        return found

    # a failover of the previous test may just be ending
    return wait_until(emptied, pause=0.2, ignoring=(redis.ReadOnlyError, redis.ConnectionError))


@pytest.fixture
def config(config: Config, store: Redis) -> Config:
    return replace(config, REDIS_URL=store.url)


@pytest.fixture
def other(config: Config, clock: Clock) -> Iterator[Services]:
    """Another instance beside `services`."""
    with open_services(config, clock) as services:
        yield services
