"""The cost of sessions as they become many, on servers of its own.

A small place and a large one live side by side and take turns, as the machine's speed drifts.
Ctrl-C while sessions are made: it goes on with those there are.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from authapp import dev
from benchmarks.growth import report, touches, web
from benchmarks.growth.operations import compare
from benchmarks.growth.places import PASSWORD, place
from benchmarks.servers import KEPT, BenchmarkError, say

LEVELS = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        small: sessions in the small place.
        effort: calls of each operation in a round, a hundred times as many checks.
        seconds: that each load by HTTP lasts.
        cold: sessions whose copies are missing at once.
        touched: sessions that are touched, so many `times`.
    """

    small: int
    rounds: int
    effort: int
    seconds: int
    workers: int
    clients: int
    cold: int
    cold_seconds: int
    touched: int
    times: int


FULL = Effort(
    small=1_000,
    rounds=4,
    effort=30,
    seconds=3,
    workers=4,
    clients=128,
    cold=10_000,
    cold_seconds=40,
    touched=100_000,
    times=60,
)
SMALL = Effort(
    small=40,
    rounds=1,
    effort=3,
    seconds=1,
    workers=2,
    clients=8,
    cold=20,
    cold_seconds=1,
    touched=50,
    times=10,
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000, help="in the end (%(default)s)")
    parser.add_argument("--small", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--write", type=Path, default=KEPT / "growth.json", help="%(default)s")
    chosen = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk makes the load, and is not here: apt-get install wrk")
    levels = [40, 80] if chosen.small else levels_up_to(chosen.sessions)
    with (
        tempfile.TemporaryDirectory(prefix="authapp-growth-", ignore_cleanup_errors=True) as path,
        dev.private_socket_dir() as sockets,
    ):
        folder = Path(path)
        os.chmod(folder, 0o711)  # as root the servers run as another account
        with dev.PostgreSQL.start(folder / "pg", sockets, PASSWORD, tcp=True) as postgres:
            found = measure(postgres, folder, levels, SMALL if chosen.small else FULL)
    say(report.table(found))
    chosen.write.parent.mkdir(parents=True, exist_ok=True)
    chosen.write.write_text(json.dumps(report.rounded(found), indent=1) + "\n")
    say(f"written: {chosen.write}")


def levels_up_to(sessions: int) -> list[int]:
    return [*(level for level in LEVELS if level < sessions), sessions]


def measure(
    postgres: dev.PostgreSQL, folder: Path, levels: Sequence[int], effort: Effort
) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": _machine(), "small": effort.small, "levels": {}}
    with place("small", postgres, folder) as small, place("large", postgres, folder) as large:
        small.grow(effort.small)
        for level in levels:
            start, had = time.monotonic(), len(large)
            whole = large.grow(level)
            made_in, made = time.monotonic() - start, len(large) - had
            say(f"{len(large):,} sessions, {made:,} of them made in {made_in:.0f} s")
            sizes = large.sizes()
            costs = compare(small, large, effort.rounds, effort.effort)
            found["levels"][len(large)] = {
                "made": made,
                "made_in_seconds": made_in,
                "costs": {name: asdict(cost) for name, cost in costs.items()},
                "sizes": sizes,
            }
            say(report.level(len(large), found["levels"][len(large)]))
            if not whole:
                break
        found["http"] = web.checks(small, large, folder, effort.rounds, effort.seconds)
        say(f"by HTTP: {found['http']}")
        cold, hot = web.cold_start(
            large,
            folder,
            workers=effort.workers,
            clients=effort.clients,
            sessions=effort.cold,
            seconds=effort.cold_seconds,
        )
        found |= {"cold": asdict(cold), "hot": asdict(hot)}
        say(f"{cold}\n{hot}")
    with place("touched", postgres, folder) as touched:
        touched.grow(effort.touched, copies=False)
        hour = touches.an_hour(touched, effort.times, say)
        found["touches"] = [asdict(step) for step in hour]
    return found


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
