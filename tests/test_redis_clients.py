"""Clients of one server, Sentinel and Cluster: what can be said without servers."""

import socket
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest
import redis
from limits.storage import storage_from_string
from redis.sentinel import MasterNotFoundError

from authapp.redis_clients import (
    REDIS_ERRORS,
    TIMEOUT,
    LimiterStorage,
    _parts,
    _Sentinels,
    redis_client,
)

from .helpers import at_once


def nowhere() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"{host}:{port}"


def urls() -> list[str]:
    one, two = nowhere(), nowhere()
    return [
        f"redis://{one}/0",
        f"redis+sentinel://:secret@{one},{two}/service",
        f"redis+cluster://{one},{two}",
    ]


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_clients_are_made_and_closed_without_a_server(kind: int) -> None:
    redis_client(urls()[kind], retries=1).close()


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_that_nobody_answers_is_an_error_that_stores_expect(kind: int) -> None:
    client: Any = redis_client(urls()[kind], retries=0)
    for _ in range(2):
        with pytest.raises(REDIS_ERRORS):
            client.ping()
        with pytest.raises(REDIS_ERRORS):
            client.pipeline(transaction=False).set("key", "value").execute()


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_flask_limiter_has_its_storage_before_there_is_a_server(kind: int) -> None:
    storage = storage_from_string("authapp://", redis_url=urls()[kind])
    assert isinstance(storage, LimiterStorage)
    with pytest.raises(REDIS_ERRORS):
        storage.acquire_entry("key", 1, 60)


def test_no_wait_is_unbounded() -> None:
    client = redis_client("redis+sentinel://127.0.0.1:1/service", retries=1)
    asked = [client, *client.connection_pool.sentinel_manager.sentinels]  # type: ignore[attr-defined]
    for one in asked:
        options = one.connection_pool.connection_kwargs
        assert options["socket_timeout"] == options["socket_connect_timeout"] == TIMEOUT


@pytest.mark.parametrize(
    ("url", "account", "hosts", "path"),
    [
        ("redis+cluster://a:1,b:2", {}, [("a", 1), ("b", 2)], ""),
        ("redis+cluster://:p%40ss@[::1]:1", {"password": "p@ss"}, [("::1", 1)], ""),
        (
            "redis+sentinel://u:p@a:1/s/3",
            {"username": "u", "password": "p"},
            [("a", 1)],
            "s/3",
        ),
    ],
)
def test_parts_of_a_url(
    url: str, account: dict[str, str], hosts: list[tuple[str, int]], path: str
) -> None:
    assert _parts(url) == (account, hosts, path)


def test_threads_that_ask_sentinels_at_once_lose_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sentinels = _Sentinels([("a", 1), ("b", 2), ("c", 3)], {}, {})
    both, answer = Barrier(2), {"is_master": True, "is_sdown": False, "is_odown": False}

    def masters(self: redis.Redis) -> dict[str, Any]:
        if self.connection_pool.connection_kwargs["host"] == "a":
            raise redis.ConnectionError
        both.wait(5)  # each has read the list before any changes it
        return {"service": answer | {"ip": "d", "port": 4, "num-other-sentinels": 2}}

    monkeypatch.setattr(redis.Redis, "sentinel_masters", masters)
    found = at_once(*[lambda: sentinels.discover_master("service")] * 2)
    assert found == [("d", 4)] * 2
    known = [s.connection_pool.connection_kwargs["host"] for s in sentinels.sentinels]
    assert sorted(known) == ["a", "b", "c"]
    assert known[0] == "b"  # who answered is asked first


def test_sentinels_that_hang_are_not_all_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search asks a few, and the next one goes on with the others."""
    with ExitStack() as stack:
        hanging = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        hosts = [(str(host), int(port)) for host, port in (s.getsockname() for s in hanging)]
        waits = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}
        sentinels = _Sentinels(hosts, {"password": "secret"}, waits)
        first = sentinels.sentinels[0]
        known = len(sentinels.sentinels)
        asked: list[object] = []
        masters = redis.Redis.sentinel_masters

        def noting(self: redis.Redis) -> Any:
            asked.append(self)
            return masters(self)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(redis.Redis, "sentinel_masters", noting)
        with pytest.raises(MasterNotFoundError):
            sentinels.discover_master("service")
        assert asked[0] is first
        assert len(asked) < known / 2, "it waited for most of them"
        assert len(sentinels.sentinels) == known
        assert first in sentinels.sentinels[known // 2 :], "next time the others come first"
