"""The promise in every order of steps, and controls that lack a guard and must break it."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import redis

from authapp import dev
from authapp.cache import versioned_cache
from authapp.cache.entries import decode_entry, encode_entry
from authapp.cache.versioned_cache import Copy, Lease, VersionedCache
from authapp.crypto.sealing import Sealer
from authapp.storage.circuit_breaker import Breaker
from tests.proofs.model.cache_actors import (
    TTL,
    Cache,
    Leases,
    Row,
    World,
    arrive_again,
    crash,
    ender,
    evict,
    evict_life,
    expire,
    expire_life,
    lose,
    old_snapshot,
    reader,
    restart,
    writer,
)
from tests.proofs.model.explorer import (
    Actor,
    Tally,
    about_how_many,
    every_order,
    second,
    show,
    some_orders,
    table,
)
from tests.proofs.model.stage import KINDS, Kind, Stage

LONG = bool(os.environ.get("EXPLORE_LONG"))  # minutes instead of seconds
SEED = int(os.environ.get("EXPLORE_SEED", "20240229"))
PER_PAIR = 400 if LONG else 12  # orders drawn of a pair that has too many to try them all
PROMISES = ["acknowledged", "committed", "never committed"]
FEW = 1_500  # orders that are all tried, if LONG
CLAIMED = 270_000 if LONG else 27_000  # schedules; docs/testing.md says so

if LONG:
    pytestmark = pytest.mark.timeout(0)


# -- caches ----------------------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The record in a copy."""

    ver: int
    value: bytes


class _NeverOpen(Breaker):
    def open(self) -> None:
        pass


class Shipped:
    """The shipped cache, used as the application uses it."""

    def __init__(self, stage: Stage) -> None:
        sealer = Sealer(["model"])
        self._stage = stage
        # distrusts nothing after a failure: what the promise rests on is shown without it
        self._caches = [
            VersionedCache(client, sealer, _NeverOpen("redis")) for client in stage.clients
        ]

    @property
    def _cache(self) -> VersionedCache:
        return self._caches[self._stage.primary]

    def acquire(self, key: str, renew: bool) -> tuple[bytes | None, Lease | None]:
        acquired = self._cache.acquire(key, renew=renew)
        entry = decode_entry(acquired.value, Entry)
        return entry.value if entry else None, acquired.lease

    def fill(self, key: str, lease: Lease | None, version: int, value: bytes) -> None:
        assert lease is not None, "a miss comes with a lease"
        self._cache.fill(key, lease, version, encode_entry(Entry(version, value)), TTL)

    def before_commit(self, versions: Mapping[str, int], leased: bool) -> Leases:
        keys = versions if leased else ()
        return self._cache.fence(versions, committed=False, leased=keys)

    def after_commit(self, versions: Mapping[str, int], leases: Leases, copy: Row) -> None:
        stored = Copy(Entry(copy.version, copy.value), TTL)
        self._cache.fence(versions, copies={key: (leases[key], stored) for key in leases})


class WithoutFirstFence(Shipped):
    def before_commit(self, _versions: Mapping[str, int], _leased: bool) -> Leases:
        return {}


class WithoutSecondFence(Shipped):
    def after_commit(self, _versions: Mapping[str, int], _leases: Leases, _copy: Row) -> None:
        pass


class DeleteAfterCommit:
    """The cache of most applications: GET, SET and DEL."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def _client(self) -> redis.Redis:
        return self._stage.clients[self._stage.primary]

    def acquire(self, key: str, _renew: bool) -> tuple[bytes | None, Lease | None]:
        value = self._client.get(key)
        assert value is None or isinstance(value, bytes)
        return value, None

    def fill(self, key: str, _lease: Lease | None, _version: int, value: bytes) -> None:
        self._client.set(key, value, ex=int(TTL))

    def before_commit(self, _versions: Mapping[str, int], _leased: bool) -> Leases:
        return {}

    def after_commit(self, versions: Mapping[str, int], _leases: Leases, _copy: Row) -> None:
        self._client.delete(*versions)


class DoubleDelete(DeleteAfterCommit):
    def before_commit(self, versions: Mapping[str, int], _leased: bool) -> Leases:
        self._client.delete(*versions)
        return {}


# -- families --------------------------------------------------------------------------------------

Actors = Callable[[World, Kind], dict[str, Actor]]

# Everything that can go wrong once, beside a writer and a reader of one kind of key.
DISTURBANCES: dict[str, Actors] = {
    "nothing else": lambda _w, _k: {},
    "second reader": lambda w, k: {"reader 2": second(w, "reader", reader(w, "reader 2", k))},
    "renewing reader": lambda w, k: {"renewing": reader(w, "renewing", k, renew=True)},
    "reader of another key": lambda w, k: {"other": reader(w, "other", _other(k))},
    "second writer": lambda w, _: {"writer 2": second(w, "writer", writer(w, "writer 2"))},
    "rolled-back writer": lambda w, _: {"writer 2": writer(w, "writer 2", roll_back=True)},
    "writer crashes": lambda w, _: {"crash": crash(w, "writer")},
    "reader crashes": lambda w, _: {"crash": crash(w, "reader")},
    "eviction": lambda w, k: {"eviction": evict(w, k)},
    "expiry": lambda w, k: {"expiry": expire(w, k)},
    "eviction of the life": lambda w, _: {"life": evict_life(w)},
    "restart, empty": lambda w, _: {"restart": restart(w, keeps=False)},
    "restart, data kept": lambda w, _: {"restart": restart(w, keeps=True)},
    "old snapshot restored": lambda w, _: {"snapshot": old_snapshot(w)},
    "command lost": lambda w, _: {"network": lose(w, "command", "command")},
    "reply lost": lambda w, _: {"network": lose(w, "reply", "command")},
    "reply lost, retried": lambda w, _: {"network": lose(w, "reply")},
    "late duplicate of acquire": lambda w, _: {"late": arrive_again(w, "authapp_acquire")},
    "late duplicate of fill": lambda w, _: {"late": arrive_again(w, "authapp_fill")},
    "late duplicate of fence": lambda w, _: {"late": arrive_again(w, "authapp_fence")},
}
PAIRS = list(combinations_with_replacement(sorted(set(DISTURBANCES) - {"nothing else"}), 2))

# Beside a writer that fences all keys at once.
OF_EVERYTHING: dict[str, Actors] = {
    "expiry of the life": lambda w, _: {"life": expire_life(w)},
    "second writer of everything": lambda w, _: {
        "writer 2": second(w, "writer", writer(w, "writer 2", everything=True))
    },
}

# Beside a writer that stores its copies.
OF_WRITE_THROUGH: dict[str, Actors] = {
    "end of everybody": lambda w, _: {"ender": ender(w)},
    "late duplicate of the store": lambda w, _: {"late": arrive_again(w, "authapp_refence")},
}

# Misuses of the cache that callers must avoid.
MISUSES: dict[str, Actors] = {
    "row read before acquire": lambda w, k: {"reader": reader(w, "reader", k, hasty=True)},
}


def _other(kind: Kind) -> Kind:
    return KINDS[(KINDS.index(kind) + 1) % len(KINDS)]


def make_world(
    stage: Stage,
    cache: Cache,
    names: Sequence[str],
    kind: Kind,
    *,
    warm: bool,
    careless: bool = False,
    everything: bool = False,
    through: bool = False,
) -> World:
    """A writer, a reader and the disturbances named, before anything happened.

    Args:
        everything: the writer fences all keys at once.
        through: writers store their copies.
    """
    world = World(stage, cache, through=through)
    if warm:  # the copies are there, left by an earlier change and read
        first = world.db.committed[0]
        cache.after_commit(world.versions(first), {}, first)
        for copied in {kind, _other(kind)} if "reader of another key" in names else {kind}:
            for _ in reader(world, "warm-up", copied):
                pass
        stage.sent.clear()
    world.trace = [kind, "warm" if warm else "cold"]
    world.add("writer", writer(world, "writer", careless=careless, everything=everything))
    world.add("reader", reader(world, "reader", kind))
    for number, name in enumerate(names):
        known = DISTURBANCES | OF_EVERYTHING | OF_WRITE_THROUGH | MISUSES
        for actor_name, actor in known[name](world, kind).items():
            world.add(f"{actor_name} ({number})" if number else actor_name, actor)
    return world


def exhaust(
    stage: Stage,
    cache: Cache,
    *names: str,
    kind: Kind = "sess",
    careless: bool = False,
    everything: bool = False,
    through: bool = False,
    enough: Callable[[Tally], bool] | None = None,
) -> Tally:
    """All orders of one family, from no copy and from a copy."""
    tally = Tally(("everything, " if everything else "") + " + ".join(names))
    for warm in (True, False):
        make = partial(
            make_world,
            stage,
            cache,
            names,
            kind,
            warm=warm,
            careless=careless,
            everything=everything,
            through=through,
        )
        tally.count(every_order(make), enough)
    return tally


def sample_pairs(
    stage: Stage,
    cache: Cache,
    count: int,
    *,
    everything: bool = False,
    through: bool = False,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> Tally:
    """`count` orders drawn at random of each pair, for kinds of key in turn; if LONG, all orders
    where they are few."""
    how = {"everything": everything, "through": through}
    whose = "everything, " if everything else ""
    tally = Tally(f"{whose}each of {len(pairs)} pairs, seed {SEED}")
    whole = 0
    for number, pair in enumerate(pairs):
        kind = KINDS[number % len(KINDS)]
        for warm in (False, True):
            make = partial(make_world, stage, cache, pair, kind, warm=warm, **how)
            seed = SEED + number
            if LONG and about_how_many(make, seed) <= FEW:
                tally.count(every_order(make))
                whole += 1
            else:
                tally.count(some_orders(lambda _, make=make: make(), count // 2, seed))  # type: ignore[misc]
    if LONG:
        tally.family += f", {whole} of {2 * len(pairs)} in every order"
    return tally


# -- the promise -----------------------------------------------------------------------------------


@pytest.mark.first
def test_promise_holds_in_every_order(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    tallies = [exhaust(stage, Shipped(stage), name) for name in DISTURBANCES]
    for kind in ("user", "cred"):
        tally = exhaust(stage, Shipped(stage), "eviction", kind=kind)
        tally.family += f", {kind}"
        tallies.append(tally)
    tallies.append(exhaust(stage, Shipped(stage), "late duplicate of acquire", "eviction"))
    tallies.append(sample_pairs(stage, Shipped(stage), PER_PAIR))
    show(capsys, table("shipped", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]
    assert sum(tally.schedules for tally in tallies) >= CLAIMED


# of all keys at once: what random orders seldom find
OF_EVERYTHING_TOGETHER = [
    ["late duplicate of acquire", "eviction of the life"],
]


@pytest.mark.first
def test_promise_holds_for_a_change_of_everything(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of everybody's sessions: no key of a session is fenced by itself."""
    cache = Shipped(stage)
    families = [[name] for name in (DISTURBANCES | OF_EVERYTHING)] + OF_EVERYTHING_TOGETHER
    tallies = [exhaust(stage, cache, *names, everything=True) for names in families]
    tallies.append(sample_pairs(stage, cache, PER_PAIR, everything=True))
    show(capsys, table("shipped, everything at once", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]


@dataclass(frozen=True, slots=True)
class Control:
    """The cache with a part taken out, and families that must show why the part is there."""

    name: str
    families: Sequence[Sequence[str]]
    cache: Callable[[Stage], Cache] = Shipped
    mutation: tuple[str, str] | None = None  # of versioned_cache.lua
    careless: bool = False
    everything: bool = False
    breaks: Literal["acknowledged", "committed"] = "acknowledged"
    at_least: int = 1  # schedules that break the promise

    def broken(self, tally: Tally) -> int:
        return tally.broken[self.breaks]

    def is_found(self, tally: Tally) -> bool:
        return self.broken(tally) >= self.at_least


COMMON = [["nothing else"], ["second writer"], ["eviction"], ["old snapshot restored"]]

CONTROLS = [
    Control("delete after commit", COMMON, DeleteAfterCommit, at_least=50),
    Control("delete before and after commit", COMMON, DoubleDelete, at_least=50),
    Control("no first fence", [["writer crashes"]], WithoutFirstFence, breaks="committed"),
    Control("no second fence", [["eviction"]], WithoutSecondFence),
    Control("success although second fence failed", [["eviction", "command lost"]], careless=True),
    Control("row read before acquire", [["row read before acquire", "eviction"]]),
    Control(
        "acquire ignores the server's life",
        [["old snapshot restored"]],
        mutation=("found[2] == alive and found[1]", "found[1]"),
    ),
    Control(
        "fill ignores the server's life",
        [["old snapshot restored"]],
        mutation=("args[2] ~= alive", "false"),
    ),
    Control("fill ignores the lease", [["eviction"]], mutation=("found[1] ~= args[1]", "false")),
    Control(
        "fill ignores the fence",
        [["writer crashes"]],
        mutation=("found[2] and tonumber(found[2]) > tonumber(args[3])", "false"),
        breaks="committed",
    ),
    Control(
        "a late duplicate grants the same lease",
        [["late duplicate of acquire", "eviction"]],
        mutation=("lease = nonce .. now[1] .. '.' .. now[2]", "lease = nonce"),
    ),
    Control(
        "fence leaves the copy",
        [["nothing else"]],
        mutation=("'HDEL', key, 'v', 'b', 'ver', 'lt'", "'HDEL', key, 'lt'"),
    ),
    Control(
        "copies ignore the life of all",
        [["nothing else"]],
        mutation=("server .. since", "server"),
        everything=True,
        at_least=10,
    ),
    Control(
        "the life of all stays open before the commit",
        [["writer crashes"]],
        mutation=("string.sub(since, -1) == '!'", "false"),
        everything=True,
        breaks="committed",
    ),
    Control(
        "everything: no second fence",
        [["eviction of the life"]],
        WithoutSecondFence,
        everything=True,
    ),
    Control(
        "an evicted life begins again as it was",
        [["late duplicate of acquire", "eviction of the life"]],
        mutation=("nonce .. now[1] .. '.' .. now[2]), 1", "nonce), 1"),
        everything=True,
    ),
    Control(
        "a missing life counts as one",
        [["eviction of the life", "second writer of everything"]],
        mutation=("since == '' then", "false then"),
        everything=True,
    ),
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_control_breaks_the_promise(
    stage: Stage,
    library: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    control: Control,
) -> None:
    if control.mutation is not None:
        shipped = versioned_cache.LIBRARY
        assert control.mutation[0] in shipped, "versioned_cache.lua changed: adapt the mutation"
        library(shipped.replace(*control.mutation))
    cache = control.cache(stage)
    tallies = [
        exhaust(
            stage,
            cache,
            *family,
            careless=control.careless,
            everything=control.everything,
            enough=None if LONG else control.is_found,
        )
        for family in control.families
    ]
    schedules = sum(tally.schedules for tally in tallies)
    broken = sum(control.broken(tally) for tally in tallies)
    show(
        capsys, f"control: {control.name:<40}{broken:>6} of {schedules} ({broken / schedules:.1%})"
    )
    assert broken >= control.at_least, "the explorer no longer sees this fault"


# -- the explorer's servers change places by DUMP and RESTORE; these really restart --------


def test_restarted_with_an_older_snapshot(engine_dir: Path) -> None:
    with dev.private_socket_dir() as sockets:
        start = partial(
            dev.Valkey.start, engine_dir / "snapshot", sockets, "tests-only", durable=False
        )
        with start() as server, redis.Redis.from_url(server.url) as client:
            cache = VersionedCache(client, Sealer(["model"]))
            lease = cache.acquire("key").lease
            assert lease is not None
            assert cache.fill("key", lease, 1, b"old", TTL) == "filled"
            held = cache.acquire("key", renew=True).lease
            assert held is not None
            client.save()
            cache.fence({"key": 2})  # the change of which the snapshot does not know
            os.kill(server.pid, signal.SIGKILL)
        with start() as server, redis.Redis.from_url(server.url) as client:
            cache = VersionedCache(client, Sealer(["model"]))
            assert client.hexists("key", "v"), "the snapshot was not loaded"
            assert cache.fill("key", held, 1, b"old", TTL) == "boot"
            assert cache.acquire("key").value is None


def test_restarted_with_its_data(engine_dir: Path) -> None:
    with dev.private_socket_dir() as sockets:
        start = partial(dev.Valkey.start, engine_dir / "kept", sockets, "tests-only", durable=True)
        with start() as server, redis.Redis.from_url(server.url) as client:
            cache = VersionedCache(client, Sealer(["model"]))
            cache.fence({"key": 5, "other": 1})
            lease = cache.acquire("other").lease
            assert lease is not None
            assert cache.fill("other", lease, 1, b"copy", TTL) == "filled"
        with start() as server, redis.Redis.from_url(server.url) as client:
            cache = VersionedCache(client, Sealer(["model"]))
            assert client.hexists("other", "v")
            assert cache.acquire("other").value is None, "what it lost, if anything, we can't know"
            lease = cache.acquire("key").lease
            assert lease is not None
            assert cache.fill("key", lease, 4, b"old", TTL) == "fence"
            assert cache.fill("key", lease, 5, b"new", TTL) == "filled"
            assert cache.acquire("key").value == b"new"


def test_demoted_and_promoted_again(engine_dir: Path) -> None:
    """The first primary keeps its process, and gets back the copy that it had dropped."""
    with ExitStack() as stack:
        first, second_ = (
            stack.enter_context(
                dev.Valkey.start(
                    engine_dir / name,
                    stack.enter_context(dev.private_socket_dir()),
                    "tests-only",
                    durable=False,
                    tcp=True,
                )
            )
            for name in ("first", "second")
        )
        a, b = (
            stack.enter_context(redis.Redis.from_url(server.url)) for server in (first, second_)
        )
        for client in (a, b):
            client.config_set("masterauth", "tests-only")
            client.config_set("repl-diskless-sync-delay", "0")
        port = {client: client.connection_pool.connection_kwargs["port"] for client in (a, b)}
        old, new = (VersionedCache(client, Sealer(["model"])) for client in (a, b))

        b.replicaof("127.0.0.1", port[a])
        wait_for_sync(b)
        lease = old.acquire("key").lease
        assert lease is not None
        old.fill("key", lease, 1, b"old", TTL)
        a.wait(1, 5_000)
        b.replicaof("NO", "ONE")  # cut off, then promoted
        old.fence({"key": 2})  # acknowledged; never reached the other
        a.replicaof("127.0.0.1", port[b])
        wait_for_sync(a)
        assert new.acquire("key").value is None
        a.replicaof("NO", "ONE")
        assert a.hexists("key", "v"), "the copy did not come back, so this shows nothing"
        assert old.acquire("key").value is None


def wait_for_sync(client: redis.Redis) -> None:
    while True:
        answer: Any = client.info("replication")
        if answer["master_link_status"] == "up":
            return
        time.sleep(0.02)
