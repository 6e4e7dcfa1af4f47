"""A Cluster that loses primaries, moves slots and is away when a worker starts."""

from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest
from flask import Flask

from authapp import create_app
from authapp.config import Config
from authapp.services import Services
from authapp.sessions.records import ActiveSession
from tests.proofs.cluster.acts import LOGOUT, begin_many, end, is_hit, key_of
from tests.proofs.cluster.conftest import Redis
from tests.proofs.cluster.servers import Cluster, await_servers
from tests.support.people import CLIENT, EMAIL, PASSWORD, sign_up
from tests.support.services import await_trust
from tests.support.sessions import find, is_live

pytestmark = pytest.mark.parametrize("store", ["cluster"], indirect=True)


@pytest.fixture
def servers(cluster_servers: Cluster, store: Redis) -> Iterator[Cluster]:
    yield cluster_servers
    for node in cluster_servers.nodes:
        if node not in cluster_servers.running():
            node.start()
    await_servers(cluster_servers.is_ok, "the cluster is whole again")


def begin_on_each(services: Services, servers: Cluster) -> dict[int, list[ActiveSession]]:
    """Sessions by the port of the primary that has their copies: as many as it takes until each
    primary has two."""
    split: dict[int, list[ActiveSession]] = {node.port: [] for node in servers.nodes}
    for number in count():
        if all(len(some) > 1 for some in split.values()):
            return split
        if number % 20 == 0:  # a person has no more at once
            user = sign_up(services, f"person{number}@example.org")
        live = services.sessions.begin(user.id, 1, CLIENT)
        split[servers.owner(key_of(live)).port].append(live)
    raise AssertionError


def test_sessions_of_a_primary_that_died_are_answered_by_postgres(
    services: Services, other: Services, servers: Cluster
) -> None:
    split = begin_on_each(services, servers)
    lives = [live for some in split.values() for live in some]
    for live in lives:
        find(services, live)
        find(other, live)
    victim = servers.nodes[1]
    (lost, lost_too, *_), (kept, kept_too, *_) = split[victim.port], split[servers.nodes[2].port]

    victim.kill()
    assert all(is_live(other, live) for live in lives)
    end(services, lost)
    end(services, kept)
    assert find(services, lost) == find(services, kept) == LOGOUT
    assert services.changes.pending() > 0  # so `other` learns within the revalidation, if it hits
    await_servers(servers.is_down, "the cluster stops")
    assert all(is_live(other, live) for live in (lost_too, kept_too))
    end(other, lost_too)
    assert find(other, lost_too) == LOGOUT

    victim.start()
    await_servers(servers.is_ok, "the cluster is back")
    await_servers(lambda: is_hit(services, kept_too), "it is used again")
    assert services.changes.pending() == 0
    await_servers(lambda: all(is_hit(other, live) for live in lives), "all are copied again")
    ended = {lost.token, kept.token, lost_too.token}
    for live in lives:
        assert (find(other, live) == LOGOUT) is (live.token in ended)


def test_a_key_that_moves_is_never_a_stale_copy(
    services: Services, other: Services, servers: Cluster
) -> None:
    early, late, moved, kept = begin_many(services, 4)
    for live in (early, late, moved, kept):
        find(services, live)
        find(other, live)
        target = next(n for n in servers.nodes if n is not servers.owner(key_of(live)))
        if live is early:
            end(services, live)
        servers.begin_move(key_of(live), target)
        if live is late:
            end(services, live)
        servers.move_keys(key_of(live), target)
        if live is moved:
            end(services, live)  # asks the source, is sent on to the target
        servers.end_move(key_of(live), target)
    assert {find(other, live) for live in (early, late, moved)} == {LOGOUT}
    # what came along was filled by another server, so it is not trusted; then all is as before
    assert not is_hit(other, kept)
    assert is_hit(other, kept)
    assert is_hit(services, kept)
    assert services.changes.pending() == 0


def test_a_copy_restored_by_hand_on_another_primary_is_a_miss(
    services: Services, other: Services, servers: Cluster
) -> None:
    (live,) = begin_many(services, 1)
    find(other, live)
    key, source = key_of(live), servers.owner(key_of(live))
    dump = source.ask("DUMP", key)
    target = next(node for node in servers.nodes if node is not source)
    servers.move_slot(key, target)
    end(services, live)
    target.ask("RESTORE", key, 0, dump, "REPLACE")
    assert find(other, live) == LOGOUT


def test_slots_move_to_a_primary_that_had_none(
    services: Services, other: Services, servers: Cluster
) -> None:
    """A client that knows only the layout has not heard of it, and it has no functions."""
    ended, patched, kept = begin_many(services, 3)
    for live in (ended, patched, kept):
        find(services, live)
        find(other, live)
    homes = {key_of(live): servers.owner(key_of(live)) for live in (ended, patched, kept)}
    new = servers.add_node()
    try:
        for key in homes:
            servers.begin_move(key, new)
            servers.move_keys(key, new)
        end(services, ended)
        assert services.sessions.patch(patched, {"cart": 1}, []).value
        assert find(other, ended) == LOGOUT
        seen = find(other, patched)
        assert isinstance(seen, ActiveSession)
        assert seen.record.data == {"cart": 1}
        assert is_live(other, kept)
        for key in homes:
            servers.end_move(key, new)
        assert find(services, ended) == LOGOUT
        assert is_hit(services, kept)
        assert services.changes.pending() == 0
    finally:
        for key, home in homes.items():
            if servers.owner(key) is new:
                servers.move_slot(key, home)
        servers.remove_node(new)
    assert {find(services, ended), find(other, ended)} == {LOGOUT}
    assert is_live(services, kept)


def test_slots_that_move_at_once_bring_no_stale_copy(
    services: Services, other: Services, servers: Cluster
) -> None:
    """Valkey 9 moves whole slots by itself: CLUSTER MIGRATESLOTS."""
    ended, kept = begin_many(services, 2)
    for live in (ended, kept):
        find(services, live)
        find(other, live)
    for live in (ended, kept):
        key = key_of(live)
        source, slot = servers.owner(key), servers.slot(key)
        target = next(node for node in servers.nodes if node is not source)
        where = ("SLOTSRANGE", slot, slot, "NODE", servers.name(target))
        source.ask("CLUSTER", "MIGRATESLOTS", *where)
        end(services, ended)
        await_servers(partial(servers.is_at, target, key), "the slot has moved")
        assert find(other, ended) == LOGOUT
        assert is_live(other, kept)


def status_of_login(app: Flask, password: str) -> int:
    sent = {"email": EMAIL, "password": password}
    return app.test_client().post("/api/v1/login", json=sent).status_code


def test_a_worker_starts_while_the_cluster_is_away(
    config: Config, services: Services, servers: Cluster, store: Redis
) -> None:
    sign_up(services)
    for node in servers.nodes:
        node.kill()
    app = create_app(config)
    assert status_of_login(app, PASSWORD) == 200
    assert status_of_login(app, "not the password") == 401
    for node in servers.nodes:
        node.start()
    await_servers(servers.is_ok, "the cluster is back")
    await_trust(app.extensions["authapp"].services)
    assert status_of_login(app, "not the password") == 401
    assert store.stored("rate:*")  # counted together again
    app.extensions["authapp"].services.close()
