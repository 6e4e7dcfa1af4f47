"""The promise, with writers that store their copies after the commit, in every order of steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

import pytest

from authapp.cache import versioned_cache
from authapp.cache.entries import encode_entry
from authapp.cache.versioned_cache import Copy
from tests.proofs.model.cache_actors import (
    TTL,
    Leases,
    Row,
    World,
    arrive_again,
    ender,
    evict,
    old_snapshot,
    reader,
    restart,
    writer,
)
from tests.proofs.model.explorer import Actor, Tally, every_order, show, table
from tests.proofs.model.stage import Stage
from tests.proofs.model.test_interleavings import (
    DISTURBANCES,
    LONG,
    OF_WRITE_THROUGH,
    PER_PAIR,
    PROMISES,
    Entry,
    Shipped,
    exhaust,
    sample_pairs,
)

if LONG:
    pytestmark = pytest.mark.timeout(0)

KNOWN = DISTURBANCES | OF_WRITE_THROUGH
PAIRS = list(combinations_with_replacement(sorted(set(KNOWN) - {"nothing else"}), 2))
# in every order; pairs have the others
ALONE = (
    KNOWN
    if LONG
    else [
        "nothing else",
        "eviction",
        "old snapshot restored",
        "reply lost, retried",
        "late duplicate of fence",
        "late duplicate of the store",
    ]
)
CLAIMED = 60_000 if LONG else 5_000  # schedules; docs/testing.md says so


@pytest.mark.first
def test_promise_holds_with_write_through(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Shipped(stage)
    tallies = [exhaust(stage, cache, name, through=True) for name in ALONE]
    tallies.append(sample_pairs(stage, cache, PER_PAIR, through=True, pairs=PAIRS))
    show(capsys, table("shipped, write-through", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]
    assert sum(tally.schedules for tally in tallies) >= CLAIMED


# -- controls --------------------------------------------------------------------------------------


class StoreWithoutLease(Shipped):
    """After the commit it asks for a lease of its own."""

    def after_commit(self, versions: Mapping[str, int], leases: Leases, copy: Row) -> None:
        self._cache.fence(versions)
        for key in leases:
            _, lease = self.acquire(key, True)
            self.fill(key, lease, copy.version, copy.value)


class StoreWithoutFence(Shipped):
    def after_commit(self, _versions: Mapping[str, int], leases: Leases, copy: Row) -> None:
        for key, lease in leases.items():
            value = encode_entry(Entry(copy.version, copy.value))
            self._cache.fill(key, lease, copy.version, value, TTL)


class FenceThenStore(Shipped):
    """The other order: what is stored after the fence needs a lease that the fence took."""

    def after_commit(self, versions: Mapping[str, int], leases: Leases, copy: Row) -> None:
        held = self._cache.fence(versions, leased=leases)
        stored = Copy(Entry(copy.version, copy.value), TTL)
        self._cache.fence(versions, copies={key: (held[key], stored) for key in leases})


Actors = Callable[[World], dict[str, Actor]]


@dataclass(frozen=True, slots=True)
class Control:
    """Writers without a guard, and the actors that must show why it is there."""

    name: str
    actors: Actors
    cache: Callable[[Stage], Shipped] = Shipped
    mutation: tuple[str, str] | None = None  # of versioned_cache.lua


def two_writers(world: World) -> dict[str, Actor]:
    return {"writer": writer(world, "writer"), "writer 2": writer(world, "writer 2")}


def writer_and_reader(world: World) -> dict[str, Actor]:
    return {"writer": writer(world, "writer"), "reader": reader(world, "reader", "sess")}


CONTROLS = [
    Control(
        "stored without the lease of the first fence",
        lambda w: two_writers(w) | {"eviction": evict(w, "sess")},
        StoreWithoutLease,
    ),
    Control(
        "the lease is taken after the commit",
        lambda w: two_writers(w) | {"eviction": evict(w, "sess")},
        FenceThenStore,
    ),
    Control(
        "stored without a second fence",
        lambda w: writer_and_reader(w) | {"eviction": evict(w, "sess")},
        StoreWithoutFence,
    ),
    Control(
        "the store ignores the server's life",
        lambda w: two_writers(w) | {"snapshot": old_snapshot(w)},
        mutation=("args[2] ~= alive", "false"),
    ),
    Control(
        "the second fence gives way to an older copy",
        lambda w: writer_and_reader(w) | {"eviction": evict(w, "sess")},
        mutation=("tonumber(found[3] or -1) >= tonumber(args[1])", "true"),
    ),
    Control(
        "facts are read before the first fence",
        lambda w: {"writer": writer(w, "writer", reads="before the fence"), "ender": ender(w)},
    ),
    Control(
        "stored although nobody knows whether it was committed",
        lambda w: {"writer": writer(w, "writer", unknown=True)},
    ),
]


def make(stage: Stage, cache: Shipped, actors: Actors) -> World:
    world = World(stage, cache, through=True)
    world.read.add("sess")
    for name, actor in actors(world).items():
        world.add(name, actor)
    return world


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_control_breaks_the_promise(
    stage: Stage,
    library: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    control: Control,
) -> None:
    if control.mutation is not None:
        library(mutated(*control.mutation))
    cache = control.cache(stage)
    orders = every_order(partial(make, stage, cache, control.actors))
    tally = Tally(control.name).count(orders, None if LONG else lambda tally: bool(tally.broken))
    broken = tally.broken.total()
    show(capsys, f"control: {control.name:<56}{broken:>6} of {tally.schedules}")
    assert broken, "the explorer no longer sees this fault"


def mutated(part: str, instead: str) -> str:
    """versioned_cache.lua with a part taken out."""
    assert part in versioned_cache.LIBRARY, "versioned_cache.lua changed: adapt the mutation"
    return versioned_cache.LIBRARY.replace(part, instead)


# too many orders to try them all
def an_old_write_arrives_again(world: World) -> None:
    """Its first fence, whose lease was used, and then its copy; the fence of a later change is
    lost in between."""
    world.run_until("writer")
    world.run_until("writer 2")
    world.run_until("eviction")
    world.run_until("late fence")
    world.run_until("late store")


def test_a_late_duplicate_of_the_first_fence_makes_another_lease(
    stage: Stage, library: Callable[[str], None]
) -> None:
    def play() -> set[str]:
        def actors(world: World) -> dict[str, Actor]:
            return two_writers(world) | {
                "eviction": evict(world, "sess"),
                "late fence": arrive_again(world, "authapp_fence"),
                "late store": arrive_again(world, "authapp_refence"),
            }

        world = make(stage, Shipped(stage), actors)
        an_old_write_arrives_again(world)
        world.settle()
        return world.broken

    assert play() == set()
    library(mutated("lease = nonce .. now[1] .. '.' .. now[2]", "lease = nonce"))
    assert play() == {"acknowledged"}, "the explorer no longer sees this fault"


def the_sessions_of_everybody_end_beside_a_write(world: World) -> None:
    """Redis restarts empty while they end, so that copies may be filled again too early."""
    world.run_until("ender", "commit")
    world.run_until("restart")
    world.run_until("writer", "commit")
    world.run_until("ender", "fence")
    world.run_until("writer")
    world.run_until("reader")
    world.run_until("ender")


def test_a_writer_reads_for_its_copy_after_the_commit(stage: Stage) -> None:
    """Or a reader sees data together with a generation that was over when the data came."""

    def play(writing: Callable[[World], Actor]) -> set[str]:
        def actors(world: World) -> dict[str, Actor]:
            return {
                "ender": ender(world),
                "restart": restart(world, keeps=False),
                "writer": writing(world),
                "reader": reader(world, "reader", "sess"),
            }

        world = make(stage, Shipped(stage), actors)
        the_sessions_of_everybody_end_beside_a_write(world)
        world.settle()
        return world.broken

    assert play(lambda world: writer(world, "writer")) == set()
    early = play(lambda world: writer(world, "writer", reads="before the commit"))
    assert early == {"never committed"}, "the explorer no longer sees this fault"
