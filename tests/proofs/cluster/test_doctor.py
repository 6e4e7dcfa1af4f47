"""`doctor` and what `/readyz` asks, where there is more than one server."""

import pytest

from authapp.config import Config
from authapp.doctor import Finding, State, examine
from authapp.doctor.redis_servers import eviction_policy_problem
from authapp.storage.redis import redis_client
from tests.proofs.cluster.conftest import Redis
from tests.proofs.cluster.servers import Cluster, SentinelSet, await_servers


def of(check: str, config: Config) -> list[Finding]:
    return [finding for finding in examine(config, 8) if finding.check == check]


def test_every_primary_is_examined(store: Redis, config: Config) -> None:
    for check in ("redis", "redis role", "redis eviction", "redis functions"):
        assert [f.state for f in of(check, config)] == [State.OK] * len(store.primaries)
    assert [f.state for f in of("redis copies", config)] == [State.OK]


@pytest.mark.parametrize("store", ["cluster"], indirect=True)
def test_one_primary_is_set_up_otherwise(
    store: Redis, config: Config, cluster_servers: Cluster
) -> None:
    odd = cluster_servers.nodes[1]
    client = redis_client(config.REDIS_URL, retries=1)
    assert eviction_policy_problem(client) is None
    odd.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        wrong = [f for f in of("redis eviction", config) if f.state is not State.OK]
        assert [f.text.partition(": ")[0] for f in wrong] == [f"127.0.0.1:{odd.port}"]
        assert "allkeys-lru" in str(eviction_policy_problem(client))
    finally:
        odd.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        client.close()


@pytest.mark.parametrize("store", ["cluster"], indirect=True)
def test_one_primary_is_frozen(store: Redis, config: Config, cluster_servers: Cluster) -> None:
    odd = cluster_servers.nodes[0]
    odd.freeze()
    try:
        found = of("redis", config)
    finally:
        odd.thaw()
        await_servers(cluster_servers.is_ok, "the cluster is whole again")
    assert sorted(f.state for f in found) == [State.FAIL, State.OK, State.OK]
    (failed,) = [f for f in found if f.state is State.FAIL]
    assert f"127.0.0.1:{odd.port}" in failed.text


@pytest.mark.parametrize("store", ["sentinel"], indirect=True)
def test_replicas_that_do_not_guard(
    store: Redis, config: Config, sentinel_servers: SentinelSet
) -> None:
    (finding,) = of("redis replicas", config)
    assert finding.state is State.WARN
    assert finding.text.startswith("2 attached")
    primary = sentinel_servers.primary()
    primary.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        (finding,) = of("redis replicas", config)
        assert finding.state is State.OK
    finally:
        primary.ask("CONFIG", "SET", "min-replicas-to-write", "0")
