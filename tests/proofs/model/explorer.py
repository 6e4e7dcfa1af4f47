"""Runs small steps in many orders, and counts the orders that break a promise.

An actor is a generator that yields a `Step` before each thing it does; a schedule is one order of
the steps of some actors. `every_order` goes through all, `some_orders` samples.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest


@dataclass(frozen=True, slots=True)
class Step:
    """The next step of an actor, whether it is possible, and whether it may be left undone."""

    label: str
    possible: Callable[[], bool] = lambda: True
    optional: bool = False


Actor = Generator[Step, None, None]


class Schedule:
    """One order of the steps of its actors, and what the reads among them got."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.trace: list[str] = []
        self.broken: set[str] = set()  # promises
        self.ways = 1  # the product of the choices there were, where the order was drawn
        self._next: dict[str, Step] = {}
        self._begun: set[str] = set()

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

    def run_until(self, name: str, label: str = "") -> None:
        """One actor alone, to the step before `label`, or to its end."""
        while name in self._next and self._next[name].label != label:
            assert self._next[name].possible(), f"{name} waits: {self.trace}"
            self.run(name)

    def begun(self, name: str) -> bool:
        return name in self._begun

    def kill(self, name: str) -> None:
        """The process is gone, and so are its connections."""
        if name not in self.actors:
            return
        self.actors[name].close()
        self._next.pop(name, None)
        self._begun.add(name)

    def finish(self) -> None:
        """Ends actors that may be left; there must be no others."""
        for name, step in list(self._next.items()):
            assert step.optional, f"{name} is stuck: {self.trace}"
            self.kill(name)

    def settle(self) -> None:
        """Reads once more when all is quiet, and leaves nothing behind for the next schedule."""
        raise NotImplementedError


S = TypeVar("S", bound=Schedule)
_PROBES = 20


def second(schedule: Schedule, first: str, actor: Actor) -> Actor:
    """An actor just like the `first`, after it: the other half of the orders is the same."""
    step = next(actor)
    yield Step(step.label, lambda: schedule.begun(first) and step.possible())
    yield from actor


def every_order(make: Callable[[], S]) -> Iterator[S]:
    """Each order of the steps of the actors `make` adds, run to its end."""
    prefix: list[int] = []
    while True:
        schedule = make()
        taken: list[tuple[int, int]] = []
        while names := schedule.runnable():
            choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((choice, len(names)))
            schedule.run(names[choice])
        schedule.settle()
        yield schedule
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        prefix = [choice for choice, _ in taken]
        prefix[-1] += 1


def some_orders(make: Callable[[random.Random], S], count: int, seed: int) -> Iterator[S]:
    """`count` orders drawn at random, of actors drawn at random."""
    draw = random.Random(seed)
    for _ in range(count):
        schedule = make(draw)
        while names := schedule.runnable():
            schedule.ways *= len(names)
            schedule.run(draw.choice(names))
        schedule.settle()
        yield schedule


def about_how_many(make: Callable[[], S], seed: int) -> float:
    """An estimate of how many orders there are, from a few of them.

    On average the product of the choices on a random way down a tree is the number of its leaves
    (Knuth 1975, Mathematics of Computation 29).
    """
    drawn = some_orders(lambda _: make(), _PROBES, seed)
    return sum(schedule.ways for schedule in drawn) / _PROBES


@dataclass(slots=True)
class Tally:
    """The outcomes of the schedules of one family."""

    family: str
    schedules: int = 0
    broken: Counter[str] = field(default_factory=Counter)  # schedules, by promise
    examples: list[str] = field(default_factory=list)

    def count(
        self, schedules: Iterable[Schedule], enough: Callable[["Tally"], bool] | None = None
    ) -> "Tally":
        """
        Args:
            enough: ends the count. A control has shown its fault after a few schedules.
        """
        for schedule in schedules:
            self.schedules += 1
            self.broken.update(schedule.broken)
            if schedule.broken and len(self.examples) < 3:
                self.examples.append(" → ".join(schedule.trace))
            if enough is not None and enough(self):
                break
        return self


def table(title: str, promises: Sequence[str], tallies: Sequence[Tally]) -> str:
    """For people: a line for each family, with how many schedules broke each promise."""
    total = Tally("total")
    for tally in tallies:
        total.schedules += tally.schedules
        total.broken += tally.broken
    lines = [f"{title:<56}{'schedules':>10}" + "".join(f"{promise:>18}" for promise in promises)]
    lines += [
        f"{tally.family:<56}{tally.schedules:>10}"
        + "".join(f"{tally.broken[promise]:>18}" for promise in promises)
        for tally in [*tallies, total]
    ]
    return "\n".join(lines)


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """The counts are the result, so they are shown when all went well, too."""
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")
