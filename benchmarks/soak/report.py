"""Judges whether something grew, and shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.soak.place import Sample


@dataclass(frozen=True)
class Bound:
    """How much more than the middle third of a soak its last third may use."""

    name: str
    share: float
    more: float


# Memory: allocators settle for minutes. Threads and connections are opened when they are first
# needed. Keys and live sessions are counted for each person who came lately: on a busy machine
# fewer come.
BOUNDS = (
    Bound("memory_mb", 0.02, 6),
    Bound("threads", 0.05, 6),
    Bound("descriptors", 0.05, 10),
    Bound("postgres_connections", 0.1, 4),
    Bound("redis_connections", 0.1, 8),
    Bound("lasting_keys", 0, 0),
    Bound("keys_each", 0.5, 1),
    Bound("live_each", 0.5, 0.3),
    Bound("database_mb", 0.1, 4),
    Bound("sessions_kb", 0.15, 1_500),
    Bound("dead_rows", 0.5, 2_000),
)
COLUMNS = {
    "minute": "min",
    "memory_mb": "PSS MB",
    "threads": "threads",
    "descriptors": "files",
    "postgres_connections": "pg",
    "redis_connections": "redis",
    "redis_keys": "keys",
    "lasting_keys": "no TTL",
    "live_sessions": "live",
    "came": "came",
    "database_mb": "db MB",
    "sessions_kb": "sess kB",
    "dead_rows": "dead",
}


def thirds(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """The medians of the second and of the last third. The first one warms up."""
    size = len(samples) // 3
    values = [float(getattr(sample, name)) for sample in samples]
    return median(values[-2 * size : -size]), median(values[-size:])


def grown(samples: Sequence[Sample]) -> list[str]:
    """Name each measure that grew beyond its bound."""
    found = []
    for bound in BOUNDS:
        middle, last = thirds(samples, bound.name)
        if last > middle * (1 + bound.share) + bound.more:
            found.append(f"{bound.name} grew from {middle:.1f} to {last:.1f}")
    return found


def header() -> str:
    return "".join(f"{title:>8}" for title in COLUMNS.values())


def row(sample: Sample) -> str:
    return "".join(f"{getattr(sample, name):>8.1f}" for name in COLUMNS)


def summary(samples: Sequence[Sample]) -> str:
    lines = [f"{'':22}{'middle':>10}{'last':>10}  may be"]
    for bound in BOUNDS:
        middle, last = thirds(samples, bound.name)
        most = middle * (1 + bound.share) + bound.more
        lines.append(f"{bound.name:22}{middle:>10.1f}{last:>10.1f}{most:>10.1f}")
    return "\n".join(lines)
