"""A history of changes with their answers, and of reads that are judged by them."""

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Change:
    """One change of one fact.

    Attributes:
        begun: when it was asked for; it may show from then on.
        effective: from when on it must show; never, as long as nobody promised.
    """

    value: str
    begun: float
    effective: float = math.inf

    def acknowledge(self, within: float = 0.0) -> None:
        self.effective = time.monotonic() + within


class Fact:
    """Something that is read and changed: whether a session lives, the roles of a user …

    Its changes are asked for one after the other. One that nobody acknowledged may have happened
    or not, until the next that is acknowledged.
    """

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.changes = [Change(value, 0.0, 0.0)]

    def change(self, value: str) -> Change:
        """Call before asking for the change."""
        change = Change(value, time.monotonic())
        self.changes.append(change)
        return change

    def settled(self) -> str | None:
        """The value that must show once all is quiet; None if the outcome is unknown."""
        return self.changes[-1].value if self.changes[-1].effective < math.inf else None

    def allowed(self, start: float, end: float) -> tuple[set[str], bool]:
        """The values a read in this time may show; whether a change was acknowledged before it."""
        last = max(n for n, change in enumerate(self.changes) if change.effective <= start)
        later = {change.value for change in self.changes[last + 1 :] if change.begun <= end}
        return {self.changes[last].value} | later, last > 0


Seen = tuple[tuple[Fact, str], ...]


@dataclass(frozen=True, slots=True)
class Read:
    """The facts that one request showed.

    Attributes:
        seen: facts with the values served.
        where: which instance served it, and what was asked, for people.
    """

    start: float
    end: float
    seen: Seen
    where: str


@dataclass(slots=True)
class Verdict:
    """The result of judging all reads.

    Attributes:
        checked: facts seen in reads that began after a change of them was acknowledged.
        exact: those of them for which one value only was allowed.
        violations: what was served and must not have been, each in one line.
    """

    checked: int = 0
    exact: int = 0
    by_fact: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.by_fact.items()))
        return (
            f"{self.checked} reads after acknowledgement checked ({kinds}), {self.exact} with one "
            f"answer allowed, {len(self.violations)} violations"
        )


def judge(reads: Iterable[Read]) -> Verdict:
    """Holds reads against the changes; when all have been answered."""
    verdict = Verdict()
    for read in reads:
        for fact, value in read.seen:
            allowed, acknowledged = fact.allowed(read.start, read.end)
            if acknowledged:
                verdict.checked += 1
                verdict.exact += len(allowed) == 1
                verdict.by_fact[fact.name.split()[0]] += 1
            if value not in allowed:
                verdict.violations.append(_told(read, fact, value, allowed))
    return verdict


def _told(read: Read, fact: Fact, value: str, allowed: set[str]) -> str:
    near = [
        f"{change.value} asked {change.begun - read.start:+.4f}"
        f" binds {change.effective - read.start:+.4f}"
        for change in fact.changes
        if change.begun > read.start - 6.0 and change.begun <= read.end
    ]
    return (
        f"{fact.name}: {value!r}, not {sorted(allowed)}, from {read.where}"
        f" at {read.start:.4f} in {read.end - read.start:.4f} s; near it: {near}"
    )
