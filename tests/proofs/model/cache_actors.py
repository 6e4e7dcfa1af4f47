"""Readers, writers and disturbances of the cache alone; the row they copy is a few lines in memory.

The actors drive the shipped cache on real servers, with the keys of `authapp.cache.keys`. Two parts
are stand-ins: the row in Postgres (`Database`) and the steps of `cache/changes.py` (`writer`). The
promises to a read:

* acknowledged: at least the last change whose writer was told, before the read, that it succeeded;
* committed: at least the last change that was committed, before the read, while its first fence
  was in place, even if the writer died of it;
* always: a value that was committed at some time.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from authapp.cache.keys import LIFE_KEY
from authapp.cache.versioned_cache import Lease
from authapp.errors import StoreUnavailable
from tests.proofs.model.explorer import Actor, Schedule, Step
from tests.proofs.model.stage import Fault, Kind, Stage

TTL = 60.0
Leases = Mapping[str, Lease]


class Cache(Protocol):
    """The cache that is explored: the shipped one, or a control that must fail."""

    def acquire(self, key: str, renew: bool, /) -> tuple[bytes | None, Lease | None]: ...
    def fill(self, key: str, lease: Lease | None, version: int, value: bytes, /) -> None: ...
    def before_commit(self, versions: Mapping[str, int], leased: bool, /) -> Leases: ...
    def after_commit(self, versions: Mapping[str, int], leases: Leases, copy: "Row", /) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One state of the facts in a copy: a row, and a number that its lock does not hold.

    Of states with equal version and generation all but one were rolled back.

    Attributes:
        generation: of the deployment. It may rise while a writer holds the row.
    """

    version: int
    data: bytes
    generation: int = 0

    @property
    def value(self) -> bytes:
        return b"%b.%d" % (self.data, self.generation)


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
        last = self.committed[-1]
        return Row(last.version + 1, b"value-%d" % self._begun, last.generation)

    def commit(self, row: Row) -> None:
        self.committed.append(replace(row, generation=self.committed[-1].generation))
        self._holder = None

    def end_generation(self) -> None:
        """One statement of a transaction of its own, which waits for no lock of the row."""
        last = self.committed[-1]
        self.committed.append(replace(last, generation=last.generation + 1))

    def disconnect(self, writer: str) -> None:
        """Rolls back what is open."""
        if self._holder == writer:
            self._holder = None

    def age(self, value: bytes) -> int | None:
        """When this value was committed, as a place in the order of commits."""
        return next((n for n, row in enumerate(self.committed) if row.value == value), None)


class World(Schedule):
    """A row with its copies under a key of each kind, and what was promised so far.

    Args:
        through: writers store their copies after the commit.
    """

    def __init__(self, stage: Stage, cache: Cache, *, through: bool = False) -> None:
        super().__init__()
        self.stage = stage
        self.cache = cache
        self.through = through
        self.keys = stage.new_keys()
        self.read: set[Kind] = set()
        self.db = Database()
        self.acknowledged = 0  # places in the order of commits
        self.shielded: dict[Kind, int] = dict.fromkeys(self.keys, 0)
        self.losses = dict.fromkeys(self.keys, 0)  # how often a key was lost, its fence with it
        self.lives_lost = 0

    def versions(self, row: Row, *, everything: bool = False) -> dict[str, int]:
        """The versions that a change fences, in one pipeline."""
        return dict.fromkeys([LIFE_KEY] if everything else self.keys.values(), row.version)

    def lost(self) -> None:
        """All that the server held."""
        self.lives_lost += 1
        for kind in self.losses:
            self.losses[kind] += 1

    def fences_lost(self, *, everything: bool) -> dict[Kind, int]:
        """How often the fence of such a change was lost, by kind of key."""
        return dict.fromkeys(self.keys, self.lives_lost) if everything else dict(self.losses)

    def settle(self) -> None:
        """Read every key once more: the entry left in the cache is what every reader would get."""
        self.finish()
        self.stage.faults.clear()
        for kind in sorted(self.read):
            for _ in reader(self, "probe", kind):
                pass

    # -- the promise

    def promised(self, kind: Kind) -> tuple[int, int]:
        return self.acknowledged, self.shielded[kind]

    def served(self, name: str, promised: tuple[int, int], value: bytes) -> None:
        age = self.db.age(value)
        acknowledged, shielded = promised
        if age is None:
            self.broken.add("never committed")
        elif age < acknowledged:
            self.broken.add("acknowledged")
        elif age < shielded:
            self.broken.add("committed")
        self.trace.append(f"{name} got {value.decode()}")


# -- actors ----------------------------------------------------------------------------------------


def reader(
    world: World, name: str, kind: Kind, *, renew: bool = False, hasty: bool = False
) -> Actor:
    """Copy, else row and fill.

    Args:
        renew: replaces a copy by what the row says.
        hasty: reads the row before it asks for the copy, as in a transaction begun earlier.
    """
    key = world.keys[kind]
    world.read.add(kind)
    row: Row | None = None
    if hasty:
        yield Step("read row")
        promised, row = world.promised(kind), world.db.committed[-1]
        yield Step("acquire")
    else:
        yield Step("acquire")
        promised = world.promised(kind)
    try:
        value, lease = world.cache.acquire(key, renew)
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
            world.cache.fill(key, lease, row.version, row.value)
    world.served(name, promised, row.value)


def writer(
    world: World,
    name: str,
    *,
    roll_back: bool = False,
    careless: bool = False,
    everything: bool = False,
    reads: Literal["before the fence", "before the commit", "after the commit"] = (
        "after the commit"
    ),
    unknown: bool = False,
) -> Actor:
    """Begin, fence, commit, read for the copy, fence until it succeeds, acknowledge.

    Args:
        careless: acknowledges although the second fence failed.
        everything: fences all keys there are by the life of the copies, and none by itself.
        reads: when it reads what else is in the copy.
        unknown: it can't tell that the commit failed, and stores its copy.
    """
    through = world.through and not everything
    leases: Leases = {}
    yield Step("begin", world.db.unlocked)
    row = copy = world.db.begin(name)
    try:
        yield Step("fence")
        versions = world.versions(row, everything=everything)
        try:
            leases = world.cache.before_commit(versions, through)
            fenced_at = world.fences_lost(everything=everything)
        except StoreUnavailable:
            fenced_at = {}  # what could not be fenced is fenced after the commit
        if through and leases and reads == "before the commit":
            yield Step("read again")
            copy = replace(row, generation=world.db.committed[-1].generation)
        if unknown:
            yield Step("lose the connection")
            world.db.disconnect(name)
            yield Step("fence")
            with suppress(StoreUnavailable):
                world.cache.after_commit(versions, leases, copy)
            return
        if roll_back:
            yield Step("roll back")
            return
        yield Step("commit")
        world.db.commit(row)
        age = len(world.db.committed) - 1
        for kind, losses in world.fences_lost(everything=everything).items():
            if fenced_at.get(kind) == losses:
                world.shielded[kind] = age
        if through and leases and reads == "after the commit":
            yield Step("read again")
            copy = replace(row, generation=world.db.committed[-1].generation)
        while True:
            yield Step("fence")
            try:
                world.cache.after_commit(versions, leases, copy)
            except StoreUnavailable:
                leases = {}  # a fence that is replayed later brings no copy along
                if not careless:
                    continue
            break
        world.acknowledged = max(world.acknowledged, age)
    finally:
        world.db.disconnect(name)


def ender(world: World) -> Actor:
    """Ends the generation, and fences all keys by the life of the copies; it locks no row."""
    everything = {LIFE_KEY: 1}
    yield Step("fence")
    try:
        world.cache.before_commit(everything, False)
        fenced_at = world.lives_lost
    except StoreUnavailable:
        fenced_at = -1
    yield Step("commit")
    world.db.end_generation()
    age = len(world.db.committed) - 1
    if fenced_at == world.lives_lost:
        world.shielded = dict.fromkeys(world.shielded, age)
    while True:
        yield Step("fence")
        try:
            world.cache.after_commit(everything, {}, world.db.committed[age])
        except StoreUnavailable:
            continue
        break
    world.acknowledged = max(world.acknowledged, age)


# -- disturbances: actors too, so that they come anywhere ------------------------------------------


def crash(world: World, victim: str) -> Actor:
    yield Step(victim)
    world.kill(victim)


def evict(world: World, kind: Kind) -> Actor:
    yield Step(f"delete {kind}")
    world.stage.admin.delete(world.keys[kind])
    world.losses[kind] += 1


def evict_life(world: World) -> Actor:
    yield Step("delete the life")
    world.stage.admin.delete(world.stage.life_key)
    world.lives_lost += 1


def expire_life(world: World) -> Actor:
    """Only one that refuses fills has an end; an open one has none."""
    yield Step("time passes for the life")
    left: Any = world.stage.admin.pttl(world.stage.life_key)
    if left > 0:
        world.stage.expire(world.stage.life_key)
        world.lives_lost += 1


def expire(world: World, kind: Kind) -> Actor:
    yield Step(f"time passes for {kind}")
    world.stage.expire(world.keys[kind])
    world.losses[kind] += 1


def restart(world: World, *, keeps: bool) -> Actor:
    """A new process with the present data or none."""
    yield Step("keeping data" if keeps else "empty")
    world.stage.fail_over(world.stage.snapshot() if keeps else {})
    if not keeps:
        world.lost()


def old_snapshot(world: World) -> Actor:
    """A new process, or another primary, with data from a while ago."""
    yield Step("taken")
    snapshot = world.stage.snapshot()
    yield Step("restored")
    world.stage.fail_over(snapshot)
    world.lost()


def lose(world: World, *attempts: Fault) -> Actor:
    """The next attempts to ask Redis lose their "command" or "reply". The client retries once."""
    yield Step("+".join(attempts))
    world.stage.faults[:] = attempts


def arrive_again(world: World, function: str) -> Actor:
    """The network delivers a command late, whose retry was answered long ago."""
    yield Step(function)
    world.stage.repeat_first(function)
