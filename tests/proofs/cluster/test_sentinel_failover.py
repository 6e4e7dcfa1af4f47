"""A Sentinel set whose primary dies, or freezes and comes back believing it still is one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from redis.connection import AbstractConnection

from authapp.config import Config
from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import LookupResult
from authapp.storage.redis import redis_client
from tests.proofs.cluster.acts import LOGOUT, begin_many, end, is_hit
from tests.proofs.cluster.conftest import Redis
from tests.proofs.cluster.servers import PASSWORD, Node, SentinelSet, await_servers
from tests.support.clock import Clock
from tests.support.services import open_services
from tests.support.sessions import find, is_live

pytestmark = pytest.mark.parametrize("store", ["sentinel"], indirect=True)


@pytest.fixture
def servers(sentinel_servers: SentinelSet, store: Redis) -> Iterator[SentinelSet]:
    yield sentinel_servers
    sentinel_servers.repair()


def test_a_failover_logs_nobody_out_and_revives_nobody(
    services: Services, other: Services, servers: SentinelSet
) -> None:
    lives = begin_many(services, 20)
    for live in lives:
        for instance in (services, other):
            find(instance, live)
    kept, ended = lives[:5], [lives[5]]
    end(services, lives[5])
    leaving = iter(lives[6:])

    old = servers.primary()
    old.kill()
    failover = Thread(target=servers.wait_for_failover, args=[old], daemon=True)
    failover.start()
    while failover.is_alive():  # for seconds at least: so long a primary must be silent
        for one in islice(leaving, 1):
            end(services, one)
            ended.append(one)
        for live, lives_on in [(kept[0], True), (ended[0], False), (ended[-1], False)]:
            for instance in (services, other):
                assert is_live(instance, live) is lives_on
        time.sleep(0.05)
    assert len(ended) > 5, "each waits long for a primary that is dead"

    for one in leaving:
        end(services, one)
        ended.append(one)
    for instance in (services, other):
        assert all(is_live(instance, live) for live in kept)
        assert {find(instance, live) for live in ended} == {LOGOUT}
    # on the new primary copies are trusted again, and those that changes were owed are set
    await_servers(lambda: is_hit(services, kept[0]) and is_hit(other, kept[0]), "it is used")
    assert services.changes.pending() == 0
    for instance in (services, other):
        assert {find(instance, live) for live in ended} == {LOGOUT}


def test_copies_of_the_old_primary_are_misses_on_the_new(
    services: Services, servers: SentinelSet, store: object
) -> None:
    lives = begin_many(services, 3)
    for live in lives:
        find(services, live)
        assert is_hit(services, live)
    old = servers.primary()
    with old.client() as client:
        assert client.wait(2, 10_000) == 2  # the replicas have the copies
    old.kill()
    servers.wait_for_failover(old)
    assert len(servers.primary().ask("KEYS", "sess:*")) == 3
    await_servers(lambda: _answers(services), "the new primary is used")
    for live in lives:
        assert not is_hit(services, live)
        assert is_hit(services, live)


def _answers(services: Services) -> bool:
    try:
        services.cache.check()
    except StoreUnavailable:
        return False
    return True


def test_a_demoted_primary_is_left_at_once(
    services: Services, other: Services, servers: SentinelSet
) -> None:
    """Connections to it are still open: it refuses, and Sentinel is asked again."""
    lives = begin_many(services, 3)
    for live in lives:
        find(services, live)
        find(other, live)
    old = servers.primary()
    servers.sentinels[0].ask("SENTINEL", "FAILOVER", "authapp")
    servers.wait_for_failover(old)
    end(services, lives[0])
    await_servers(lambda: is_hit(other, lives[1]), "the new primary is used")
    for instance in (services, other):
        assert find(instance, lives[0]) == LOGOUT
        assert is_live(instance, lives[1])


def test_a_primary_that_was_frozen_serves_no_stale_copy(
    config: Config, clock: Clock, servers: SentinelSet
) -> None:
    """Its own copies are all it knows, and an instance that was idle is still connected to it.

    Its first question waits for the thaw: what the old primary says then is said before it has
    noticed anything. So it must not be asked.
    """
    with open_services(config, clock) as busy, open_services(config, clock) as idle:
        kept, ended = begin_many(busy, 2)
        for live in (kept, ended):
            find(busy, live)
            assert is_hit(idle, live)
        old = servers.primary()
        old.freeze()
        try:
            servers.wait_for_failover(old)
            await_servers(lambda: is_hit(busy, kept), "the new primary is used")
            end(busy, ended)
            await_servers(lambda: busy.changes.pending() == 0, "the new primary takes the fence")
            await_servers(lambda: servers.have_left(old), "its replicas follow the new primary")
            answers: list[LookupResult] = []
            first = Thread(target=lambda: answers.append(find(idle, ended)), daemon=True)
            with sending() as sent:
                first.start()
                assert sent.wait(30)
        finally:
            old.thaw()
        first.join(30)
        assert answers == [LOGOUT]
        assert find(idle, ended) == LOGOUT
        assert is_live(idle, kept)


@contextmanager
def sending() -> Iterator[Event]:
    """An event that is set once something was sent to a Redis."""
    sent = Event()
    send = AbstractConnection.send_packed_command

    def noting(self: AbstractConnection, *args: Any, **how: Any) -> None:
        send(self, *args, **how)  # type: ignore[no-untyped-call]
        sent.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", noting)
        yield sent


def test_sentinels_may_die_one_by_one(servers: SentinelSet) -> None:
    client = redis_client(servers.url, retries=1)
    for sentinel in servers.sentinels[:2]:
        assert client.ping()
        sentinel.kill()
        client.connection_pool.disconnect()
    try:
        assert client.ping()
    finally:
        client.close()
        for sentinel in servers.sentinels[:2]:
            sentinel.start()


def test_sentinels_may_have_no_password(servers: SentinelSet, tmp_path: Path) -> None:
    primary = servers.primary()
    open_to_all = {
        "protected-mode": "no",
        "sentinel monitor": f"alone 127.0.0.1 {primary.port} 1",
        "sentinel auth-pass": f"alone {PASSWORD}",
    }
    sentinel = Node(tmp_path / "sentinel", open_to_all, sentinel=True)
    sentinel.start()
    try:
        client: Any = redis_client(
            f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/alone", 0
        )
        assert client.ping()
        assert client.execute_command("CONFIG", "GET", "port") == primary.ask(
            "CONFIG", "GET", "port"
        )
        client.close()
    finally:
        sentinel.kill()
