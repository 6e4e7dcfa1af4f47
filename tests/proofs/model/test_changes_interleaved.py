"""The promises about a change, in many orders of the round trips of whole instances."""

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import pytest

from authapp.cache import versioned_cache
from authapp.cache.versioned_cache import Lease
from authapp.storage.circuit_breaker import Breaker
from tests.proofs.model.change_actors import (
    ChangeWorld,
    Rig,
    change_user,
    crash,
    end_everybody,
    evict,
    evict_life,
    log_out,
    lose,
    old_snapshot,
    outage,
    recovery,
    refuse,
    restart,
    visit,
    write_data,
)
from tests.proofs.model.explorer import Actor, Tally, every_order, show, some_orders, table
from tests.proofs.model.instances import Instance
from tests.proofs.model.stage import KINDS, Kind

LONG = bool(os.environ.get("EXPLORE_LONG"))  # minutes instead of seconds
SEED = int(os.environ.get("EXPLORE_SEED", "20240229"))
ALONE = 400 if LONG else 12  # orders drawn for each disturbance
PER_PAIR = 20 if LONG else 3
CLAIMED = 3_000 if LONG else 600  # schedules; docs/testing.md says so
if LONG:
    pytestmark = pytest.mark.timeout(0)

PROMISES = ["at once", "later", "never committed"]


# -- families --------------------------------------------------------------------------------------

Actors = Callable[[ChangeWorld, Kind], dict[str, Actor]]

# dies of a crash
HERE = [
    "change",
    "visit here",
    "change here",
    "log-out here",
    "everybody here",
    "write here",
    "recovery",
]
HERE += [f"{name} (1)" for name in HERE]

# The disturbances beside a change made here and a visit there.
DISTURBANCES: dict[str, Actors] = {
    "nothing else": lambda _w, _k: {},
    "visit here": lambda w, k: {"visit here": visit(w, "visit here", w.rig.here, k)},
    "second change there": lambda w, _: {"change there": change_user(w, w.rig.there)},
    "second change here": lambda w, _: {"change here": change_user(w, w.rig.here)},
    "log-out there": lambda w, _: {"log-out there": log_out(w, w.rig.there)},
    "log-out here": lambda w, _: {"log-out here": log_out(w, w.rig.here)},
    "everybody there": lambda w, _: {"everybody there": end_everybody(w, w.rig.there)},
    "everybody here": lambda w, _: {"everybody here": end_everybody(w, w.rig.here)},
    "crash": lambda w, _: {"crash": crash(w, w.rig.here, *HERE)},
    "eviction": lambda w, _: {"eviction": evict(w)},
    "eviction of the life": lambda w, _: {"life": evict_life(w)},
    "restart, empty": lambda w, _: {"restart": restart(w)},
    "old snapshot restored": lambda w, _: {"snapshot": old_snapshot(w)},
    "command lost": lambda w, _: {
        "network": lose(w.rig.here, "command", "command"),
        "recovery": recovery(w, w.rig.here),
    },
    "reply lost": lambda w, _: {
        "network": lose(w.rig.here, "reply", "command"),
        "recovery": recovery(w, w.rig.here),
    },
    "reply lost, retried": lambda w, _: {"network": lose(w.rig.here, "reply")},
    "Redis away from here": lambda w, _: {
        "outage": outage(w.rig.here),
        "recovery": recovery(w, w.rig.here),
    },
    "Redis away from there": lambda w, _: {"outage there": outage(w.rig.there)},
    "transaction refused": lambda w, _: {"refusal": refuse(w, w.rig.here, "transaction")},
    "rolled back": lambda w, _: {"refusal": refuse(w, w.rig.here, "commit")},
}
# Beside a request that writes into its session.
OF_DATA: dict[str, Actors] = {
    "second write there": lambda w, _: {"write there": write_data(w, w.rig.there)},
    "second write here": lambda w, _: {"write here": write_data(w, w.rig.here)},
}
PAIRS = list(combinations_with_replacement(sorted(set(DISTURBANCES) - {"nothing else"}), 2))


def make_world(
    rig: Rig,
    names: Sequence[str],
    kind: Kind,
    *,
    warm: bool,
    back: bool,
    change: Callable[[ChangeWorld, Instance], Actor] = change_user,
) -> ChangeWorld:
    world = ChangeWorld(rig, warm=warm, back=back)
    world.add("change", change(world, rig.here))
    world.add("visit", visit(world, "visit", rig.there, kind))
    for number, name in enumerate(names):
        for actor_name, actor in (DISTURBANCES | OF_DATA)[name](world, kind).items():
            world.add(f"{actor_name} ({number})" if number else actor_name, actor)
    return world


def sample(
    rig: Rig,
    names: Sequence[str],
    count: int,
    seed: int,
    change: Callable[[ChangeWorld, Instance], Actor] = change_user,
    kinds: Sequence[Kind] = KINDS,
) -> Iterator[ChangeWorld]:
    """`count` orders drawn at random, of a visit of a kind drawn at random."""

    def make(draw: random.Random) -> ChangeWorld:
        kind = draw.choice(kinds)
        warm, back = draw.random() < 0.5, draw.random() < 0.5
        return make_world(rig, names, kind, warm=warm, back=back, change=change)

    return some_orders(make, count, seed)


@pytest.mark.first
def test_promises_hold_for_each_kind_of_key(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    tallies = []
    for kind in KINDS:
        make = partial(make_world, rig, ["nothing else"], kind, warm=True, back=True)
        tallies.append(Tally(f"nothing else, {kind}, every order").count(every_order(make)))
    for number, name in enumerate(DISTURBANCES):
        tallies.append(Tally(name).count(sample(rig, [name], ALONE, SEED + number)))
    pairs = Tally(f"each of {len(PAIRS)} pairs, seed {SEED}")
    for number, pair in enumerate(PAIRS):
        pairs.count(sample(rig, pair, PER_PAIR, SEED + 100 + number))
    tallies.append(pairs)
    show(capsys, table("shipped, whole instances", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]
    assert sum(tally.schedules for tally in tallies) >= CLAIMED


@pytest.mark.first
def test_promises_hold_for_the_end_of_everybodys_sessions(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    make = partial(
        make_world, rig, ["nothing else"], "sess", warm=True, back=True, change=end_everybody
    )
    tallies = [Tally("nothing else, every order").count(every_order(make))]
    for number, name in enumerate(DISTURBANCES):
        drawn = sample(rig, [name], ALONE, SEED + 500 + number, end_everybody, ["sess"])
        tallies.append(Tally(name).count(drawn))
    show(capsys, table("everybody's sessions end", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]


def test_who_asks_again_is_promised_no_less(rig: Rig) -> None:
    """The fence of the first is lost and its second one is still to come."""
    world = ChangeWorld(rig, warm=False, back=True)
    world.add("first", log_out(world, rig.here))
    world.add("again", log_out(world, rig.there))
    world.add("visit", visit(world, "visit", rig.there, "sess"))
    world.add("after", visit(world, "after", rig.there, "sess"))
    world.add("eviction", evict(world))
    world.run_until("first", "commit")
    world.run_until("eviction")
    world.run_until("visit", "fill")
    world.run_until("first", "fence")
    world.run_until("again")
    world.run_until("visit")
    world.run_until("after")
    world.run_until("first")
    world.settle()
    assert not world.broken, world.trace


def no_recovery(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    for instance in rig.instances:
        patch.setattr(instance.breaker, "recover", instance.services.redis.ping)


def no_catching_up(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    for instance in rig.instances:
        patch.setattr(instance.services.changes, "catch_up", lambda: False)


def _open_if_closed(breaker: Breaker) -> None:
    if not breaker.is_open:
        Breaker.open(breaker)


def no_second_look(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    for instance in rig.instances:
        patch.setattr(instance.breaker, "open", partial(_open_if_closed, instance.breaker))


def no_half_open(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    """Changes leave their fences to a recovery that has looked, and does not look again."""
    no_second_look(rig, patch)
    for instance in rig.instances:
        patch.setattr(instance.breaker, "half_open", lambda: None)


def no_distrust(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    for instance in rig.instances:
        patch.setattr(instance.breaker, "open", lambda: None)


def no_fence(rig: Rig, patch: pytest.MonkeyPatch, *, of: str) -> None:
    """Without the "first" or the "second" of the two of a change, which take turns."""
    for instance in rig.instances:
        cache = instance.services.cache
        turns = itertools.cycle([of != "first", of != "second"])

        def fence(
            versions: Mapping[str, int],
            fence: Callable[..., dict[str, Lease]] = cache.fence,
            turns: Iterator[bool] = turns,
            **how: Any,
        ) -> dict[str, Lease]:
            return fence(versions, **how) if next(turns) else {}

        patch.setattr(cache, "fence", fence)


def mutated(*mutations: tuple[str, str]) -> Callable[[Rig, pytest.MonkeyPatch], None]:
    """With parts of versioned_cache.lua taken out."""

    def use(rig: Rig, _patch: pytest.MonkeyPatch) -> None:
        library = versioned_cache.LIBRARY
        for part, instead in mutations:
            assert part in library, "versioned_cache.lua changed: adapt the mutation"
            library = library.replace(part, instead)
        rig.load(library)

    return use


NO_LEASE = ("found[1] ~= args[1]", "false")
NO_LIFE = (("found[2] == alive and found[1]", "found[1]"), ("args[2] ~= alive", "false"))
NO_MINIMUM = ("found[2] and tonumber(found[2]) > tonumber(args[3])", "false")


def delete_after_commit(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    mutated(NO_LEASE, NO_MINIMUM)(rig, patch)
    no_fence(rig, patch, of="first")


@dataclass(frozen=True, slots=True)
class Control:
    """The product with a part taken out, and what must show why the part is there."""

    name: str
    use: Callable[[Rig, pytest.MonkeyPatch], None]
    beside: Sequence[str]
    schedules: int
    at_least: int
    promise: str | None = None
    change: Callable[[ChangeWorld, Instance], Actor] = change_user

    def broken(self, tally: Tally) -> int:
        return tally.broken[self.promise] if self.promise else tally.broken.total()

    def is_found(self, tally: Tally) -> bool:
        return self.broken(tally) >= self.at_least


# -- what random orders seldom find ----------------------------------------------------------------


def a_recovery_looks_too_early(world: ChangeWorld) -> None:
    """It reads what is written down, and finds nothing, just before a change is committed."""
    world.run("outage")
    world.run_until("change", "commit")
    world.run("outage")
    world.run_until("recovery", "select pending_fences")
    world.run("recovery")
    world.run_until("change")
    world.run_until("recovery")
    world.run_until("visit here")


def a_recovery_looks_between_two_outages(world: ChangeWorld) -> None:
    """The change, committed after it looked, can't set its fences, though changes are to again."""
    world.add("second outage", outage(world.rig.here))
    world.run("outage")
    world.run_until("change", "commit")
    world.run("outage")
    world.run_until("recovery", "select pending_fences")
    world.run("recovery")
    world.run("second outage")
    world.run_until("change")
    world.run("second outage")
    world.run_until("recovery")
    world.run_until("visit here")


def a_visit_comes_before_the_recovery(world: ChangeWorld) -> None:
    world.run("outage")
    world.run_until("change")
    world.run("outage")
    world.run_until("visit here")


SCRIPTS = pytest.mark.parametrize(
    ("script", "control"),
    [
        pytest.param(a_recovery_looks_too_early, no_half_open, id="recovery too early"),
        pytest.param(
            a_recovery_looks_between_two_outages, no_second_look, id="recovery between outages"
        ),
        pytest.param(a_visit_comes_before_the_recovery, no_distrust, id="no distrust"),
    ],
)


def play(rig: Rig, script: Callable[[ChangeWorld], None]) -> set[str]:
    broken: set[str] = set()
    for kind in KINDS:
        world = ChangeWorld(rig, warm=True, back=True)
        world.add("change", change_user(world, rig.here))
        world.add("visit here", visit(world, "visit here", rig.here, kind))
        world.add("outage", outage(rig.here))
        world.add("recovery", recovery(world, rig.here))
        script(world)
        world.settle()
        broken |= world.broken
    return broken


@SCRIPTS
def test_who_made_a_change_sees_it_whatever_redis_does(
    rig: Rig,
    script: Callable[[ChangeWorld], None],
    control: Callable[[Rig, pytest.MonkeyPatch], None],
) -> None:
    assert play(rig, script) == set()
    with pytest.MonkeyPatch.context() as patch:
        control(rig, patch)
        assert play(rig, script) != set(), "the explorer no longer sees this fault"


# Guards that only the cache needs have their controls in test_interleavings.py.
CONTROLS = [
    Control("pending fences not replayed before trust", no_recovery, ["command lost"], 80, 12),
    Control("others do not replay", no_catching_up, ["command lost"], 80, 2, "later"),
    Control("delete after commit", delete_after_commit, ["nothing else"], 150, 2),
    Control(
        "delete before and after commit", mutated(NO_LEASE, NO_MINIMUM), ["nothing else"], 150, 2
    ),
    Control("no life", mutated(*NO_LIFE), ["old snapshot restored"], 150, 4),
    Control(
        "no life of all copies",
        mutated(("server .. since", "server")),
        ["nothing else"],
        60,
        10,
        "at once",
        end_everybody,
    ),
    Control(
        "everybody: fences not replayed before trust",
        no_recovery,
        ["command lost"],
        80,
        5,
        change=end_everybody,
    ),
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_control_breaks_a_promise(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    control: Control,
) -> None:
    with monkeypatch.context() as patch:
        control.use(rig, patch)
        try:
            kinds: Sequence[Kind] = KINDS if control.change is change_user else ["sess"]
            drawn = sample(rig, control.beside, control.schedules, SEED, control.change, kinds)
            tally = Tally(control.name).count(drawn, None if LONG else control.is_found)
        finally:
            rig.load(versioned_cache.LIBRARY)
    show(capsys, f"control: {control.name:<44}{control.broken(tally):>6} of {tally.schedules}")
    assert control.is_found(tally), "the explorer no longer sees this fault"
