"""The cost of a session check, beside peers made of public packages.

All contests take turns, round by round, as the machine's speed drifts; ratios are of one round.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks import report, servers
from benchmarks.contest import Contest
from benchmarks.contests import contests
from benchmarks.servers import KEPT, ROOT, BenchmarkError, say


@dataclass(frozen=True)
class Effort:
    """How long it takes."""

    rounds: int
    seconds: int


FULL, QUICK = Effort(5, 3), Effort(3, 1)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in about three minutes")
    parser.add_argument("--only", default="", help="those with this in their names, and the bare")
    chosen = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk makes the load, and is not here: apt-get install wrk")
    pinned = servers.apart()
    KEPT.mkdir(parents=True, exist_ok=True)
    with (
        servers.stores() as found,
        contests(found.database_url, found.redis_url, found.folder, pinned=pinned) as all_of_them,
    ):
        these = _chosen(all_of_them, chosen.only)
        measured = measure(these, QUICK if chosen.quick else FULL)
        memory = {one.server.log.stem: one.server.worker_megabytes() for one in these}
    result = report.Result(servers.machine(pinned=pinned), measured, memory)
    say(report.table(result))
    whole = not (chosen.quick or chosen.only)
    place = ROOT / "docs" if whole else KEPT
    (place / "benchmark.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    (place / "benchmark.svg").write_text(report.picture(result))
    say(f"written: {place.relative_to(ROOT)}/benchmark.json and benchmark.svg")


def _chosen(found: Sequence[Contest], part: str) -> list[Contest]:
    return [one for one in found if one.name.startswith("bare") or part in one.name]


def measure(found: list[Contest], effort: Effort) -> list[report.Measured]:
    for contest in found:
        contest.check()
        contest.load(1)  # warm
        contest.check()
    taken: dict[str, list[report.Sample]] = {contest.name: [] for contest in found}
    for number in range(effort.rounds):
        for contest in found[number % len(found) :] + found[: number % len(found)]:
            taken[contest.name].append(contest.load(effort.seconds))
        say(f"round {number + 1} of {effort.rounds}")
    return [report.Measured(one.name, one.does, tuple(taken[one.name])) for one in found]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
