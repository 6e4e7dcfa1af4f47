"""Runs small steps in many orders on real servers; notes reads that got less than was promised.

An actor is a generator that yields a `Step` before each thing it does; a schedule is one order of
the steps of some actors. `every_order` goes through all, `some_orders` samples. A read is promised:

* acknowledged: at least the last change whose writer was told, before the read, that it succeeded;
* committed: at least the last change that was committed, before the read, while its first fence
  was in place, even if the writer died of it;
* always: a value that was committed at some time.
"""

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from authapp.errors import StoreUnavailable
from authapp.versioned_cache import Lease

from .stage import Stage

TTL = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """What an actor does next, and whether it can."""

    label: str
    possible: Callable[[], bool] = lambda: True


Actor = Generator[Step, None, None]


class Cache(Protocol):
    """What is explored: the shipped cache, or a control that must fail."""

    def acquire(self, key: str, renew: bool, /) -> tuple[bytes | None, Lease | None]: ...
    def fill(self, key: str, lease: Lease | None, version: int, value: bytes, /) -> None: ...
    def before_commit(self, key: str, version: int, /) -> None: ...
    def after_commit(self, key: str, version: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One state of the row; of states with equal version all but one were rolled back."""

    version: int
    value: bytes


class Database:
    """One row, as Postgres keeps it: a lock, and states that count once committed."""

    def __init__(self) -> None:
        self.committed = [Row(1, b"value-0")]
        self._begun = 0
        self._holder: str | None = None

    def unlocked(self) -> bool:
        return self._holder is None

    def begin(self, writer: str) -> Row:
        assert self.unlocked()
        self._holder = writer
        self._begun += 1
        return Row(self.committed[-1].version + 1, b"value-%d" % self._begun)

    def commit(self, row: Row) -> None:
        self.committed.append(row)
        self._holder = None

    def disconnect(self, writer: str) -> None:
        """Rolls back what is open."""
        if self._holder == writer:
            self._holder = None

    def age(self, value: bytes) -> int | None:
        """When this value was committed, as a place in the order of commits."""
        return next((n for n, row in enumerate(self.committed) if row.value == value), None)


class World:
    """One schedule: a key, a row, actors, and what was promised so far."""

    def __init__(self, stage: Stage, cache: Cache) -> None:
        self.stage = stage
        self.cache = cache
        self.key = stage.new_key()
        self.db = Database()
        self.actors: dict[str, Actor] = {}
        self.trace: list[str] = []
        self.acknowledged = 0  # places in the order of commits
        self.shielded = 0
        self.losses = 0  # how often the key was lost, its fence with it
        self.stale_acknowledged = False
        self.stale_committed = False
        self.never_committed = False
        self._next: dict[str, Step] = {}
        self._begun: set[str] = set()

    # -- scheduling

    def add(self, name: str, actor: Actor) -> None:
        self.actors[name] = actor
        self._next[name] = next(actor)

    def runnable(self) -> list[str]:
        return [name for name, step in self._next.items() if step.possible()]

    def run(self, name: str) -> None:
        self._begun.add(name)
        self.trace.append(f"{name}:{self._next[name].label}")
        try:
            self._next[name] = next(self.actors[name])
        except StopIteration:
            self._next.pop(name, None)

    def begun(self, name: str) -> bool:
        return name in self._begun

    def kill(self, name: str) -> None:
        """The process is gone, and so are its connections."""
        self.actors[name].close()
        self._next.pop(name, None)
        self._begun.add(name)

    def settle(self) -> None:
        """One more read when all is quiet: what is left in the cache is what everyone would get."""
        assert not self._next, f"stuck: {self.trace}"
        self.stage.faults.clear()
        for _ in reader(self, "probe"):
            pass

    # -- the promise

    def promised(self) -> tuple[int, int]:
        return self.acknowledged, self.shielded

    def served(self, name: str, promised: tuple[int, int], value: bytes) -> None:
        age = self.db.age(value)
        acknowledged, shielded = promised
        self.never_committed |= age is None
        self.stale_acknowledged |= age is not None and age < acknowledged
        self.stale_committed |= age is not None and age < shielded
        self.trace.append(f"{name} got {value.decode()}")


# -- actors ----------------------------------------------------------------------------------------


def reader(world: World, name: str, *, renew: bool = False, hasty: bool = False) -> Actor:
    """Copy, else row and fill.

    Args:
        renew: replaces a copy by what the row says.
        hasty: reads the row before it asks for the copy, as in a transaction begun earlier.
    """
    row: Row | None = None
    if hasty:
        yield Step("read row")
        promised, row = world.promised(), world.db.committed[-1]
        yield Step("acquire")
    else:
        yield Step("acquire")
        promised = world.promised()
    try:
        value, lease = world.cache.acquire(world.key, renew)
        may_fill = True
    except StoreUnavailable:
        value, lease, may_fill = None, None, False
    if value is not None and not renew:
        world.served(name, promised, value)
        return
    if row is None:
        yield Step("read row")
        row = world.db.committed[-1]
    if may_fill:
        yield Step("fill")
        with suppress(StoreUnavailable):
            world.cache.fill(world.key, lease, row.version, row.value)
    world.served(name, promised, row.value)


def writer(world: World, name: str, *, roll_back: bool = False, careless: bool = False) -> Actor:
    """Begin, fence, commit, fence until it succeeds, acknowledge.

    Args:
        careless: acknowledges although the second fence failed.
    """
    yield Step("begin", world.db.unlocked)
    row = world.db.begin(name)
    try:
        yield Step("fence")
        try:
            world.cache.before_commit(world.key, row.version)
            fenced_at: int | None = world.losses
        except StoreUnavailable:
            fenced_at = None  # what could not be fenced is fenced after the commit
        if roll_back:
            yield Step("roll back")
            return
        yield Step("commit")
        world.db.commit(row)
        age = len(world.db.committed) - 1
        if fenced_at == world.losses:
            world.shielded = age
        while True:
            yield Step("fence")
            try:
                world.cache.after_commit(world.key, row.version)
            except StoreUnavailable:
                if not careless:
                    continue
            break
        world.acknowledged = max(world.acknowledged, age)
    finally:
        world.db.disconnect(name)


def second(world: World, first: str, actor: Actor) -> Actor:
    """An actor just like the `first`, after it: the other half of the orders is the same."""
    step = next(actor)
    yield Step(step.label, lambda: world.begun(first) and step.possible())
    yield from actor


# -- disturbances: actors too, so that they come anywhere ------------------------------------------


def crash(world: World, victim: str) -> Actor:
    yield Step(victim)
    world.kill(victim)


def evict(world: World) -> Actor:
    yield Step("delete")
    world.stage.admin.delete(world.key)
    world.losses += 1


def expire(world: World) -> Actor:
    yield Step("time passes")
    world.stage.expire(world.key)
    world.losses += 1


def restart(world: World, *, keeps: bool) -> Actor:
    """A new process with the present data or none."""
    yield Step("keeping data" if keeps else "empty")
    world.stage.fail_over(world.key, world.stage.snapshot(world.key) if keeps else None)
    world.losses += not keeps


def old_snapshot(world: World) -> Actor:
    """A new process, or another primary, with data from a while ago."""
    yield Step("taken")
    snapshot = world.stage.snapshot(world.key)
    yield Step("restored")
    world.stage.fail_over(world.key, snapshot)
    world.losses += 1


def lose(world: World, *attempts: str) -> Actor:
    """The next attempts to ask Redis lose their "command" or "reply". The client retries once."""
    yield Step("+".join(attempts))
    world.stage.faults[:] = attempts


def arrive_again(world: World, function: str) -> Actor:
    """The network delivers a command late, whose retry was answered long ago."""
    yield Step(function)
    world.stage.repeat_first(function)


# -- orders ----------------------------------------------------------------------------------------


def every_order(make: Callable[[], World]) -> Iterator[World]:
    """Each order of the steps of the actors `make` adds, run to its end."""
    prefix: list[int] = []
    while True:
        world = make()
        taken: list[tuple[int, int]] = []
        while names := world.runnable():
            choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((choice, len(names)))
            world.run(names[choice])
        world.settle()
        yield world
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        prefix = [choice for choice, _ in taken]
        prefix[-1] += 1


def some_orders(make: Callable[[random.Random], World], count: int, seed: int) -> Iterator[World]:
    """`count` orders drawn at random, of actors drawn at random."""
    draw = random.Random(seed)
    for _ in range(count):
        world = make(draw)
        while names := world.runnable():
            world.run(draw.choice(names))
        world.settle()
        yield world


@dataclass(slots=True)
class Tally:
    """What became of the schedules of one family."""

    family: str
    schedules: int = 0
    stale_acknowledged: int = 0
    stale_committed: int = 0
    never_committed: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        """Broken promises. A schedule may break both."""
        return self.stale_acknowledged + self.stale_committed + self.never_committed

    def count(self, worlds: Iterable[World]) -> "Tally":
        for world in worlds:
            self.schedules += 1
            self.stale_acknowledged += world.stale_acknowledged
            self.stale_committed += world.stale_committed
            self.never_committed += world.never_committed
            broken = world.stale_acknowledged or world.stale_committed or world.never_committed
            if broken and len(self.examples) < 3:
                self.examples.append(" → ".join(world.trace))
        return self


def table(title: str, tallies: Iterable[Tally]) -> str:
    """For people: a line for each family."""
    tallies = list(tallies)
    total = Tally("total")
    for tally in tallies:
        total.schedules += tally.schedules
        total.stale_acknowledged += tally.stale_acknowledged
        total.stale_committed += tally.stale_committed
        total.never_committed += tally.never_committed
    lines = [f"{title:<44}{'schedules':>10}{'stale after ack':>17}{'after commit':>14}"]
    lines += [
        f"{tally.family:<44}{tally.schedules:>10}"
        f"{tally.stale_acknowledged:>17}{tally.stale_committed:>14}"
        for tally in [*tallies, total]
    ]
    return "\n".join(lines)
