"""A soak: `make soak MINUTES=20`. Ends with 1 if something grew, failed, or anybody was logged out.

People come, look around, write session data, and go. Each store restarts now and then. Memory,
threads, connections, files, keys and tables are sampled; the last third of the samples must not use
more than the middle one, beyond the bounds of `report.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.servers import KEPT, say
from benchmarks.soak import report
from benchmarks.soak.people import PAUSE, Crowd
from benchmarks.soak.place import Place, Sample, place

APPLICATION = "benchmarks.soak.app:app"
SAMPLES = 36
RESTARTS = 6  # in a soak, of both stores in turn
FAILED_SHARE = 0.001  # of all requests; a busy machine may be late now and then


@dataclass(frozen=True)
class Outcome:
    samples: Sequence[Sample]
    complaints: Sequence[str]
    told: str


def soak(
    seconds: float,
    application: str = APPLICATION,
    *,
    restarts: int = RESTARTS,
    pause: float = PAUSE,
) -> Outcome:
    with place(application) as here, here.serving() as server, here.services() as services:
        crowd = Crowd(server.port, pause)
        samples: list[Sample] = []
        say(report.header())
        with crowd.living():
            begun = time.monotonic()
            for number in range(1, SAMPLES + 1):
                _restart(here, crowd, number, restarts)
                time.sleep(max(0.0, begun + number * seconds / SAMPLES - time.monotonic()))
                here.tidy(services)
                samples.append(here.sample(crowd.came()))
                say(report.row(samples[-1]))
    complaints = [*crowd.problems[:10], *report.grown(samples)]
    asked = sum(crowd.asked.values())
    if len(crowd.failed) > asked * FAILED_SHARE:
        complaints.append(f"{len(crowd.failed)} requests failed, as {crowd.failed[:3]}")
    told = (
        f"{report.summary(samples)}\n{asked} requests {dict(crowd.asked)}; {dict(crowd.acts)}; "
        f"{restarts} restarts; {len(crowd.failed)} failed outside restarts"
    )
    return Outcome(samples, complaints, told)


def _restart(here: Place, crowd: Crowd, number: int, restarts: int) -> None:
    """Restarts a store if it is time to."""
    if not restarts or number % (SAMPLES // restarts) != SAMPLES // restarts // 2:
        return
    with crowd.excused():
        if number // (SAMPLES // restarts) % 2:
            here.restart_postgres()
        else:
            here.restart_redis()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    minutes = parser.parse_args(arguments).minutes
    outcome = soak(minutes * 60)
    say(outcome.told)
    KEPT.mkdir(parents=True, exist_ok=True)
    found = [asdict(sample) for sample in outcome.samples]
    (KEPT / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    for complaint in outcome.complaints:
        say(f"soak: {complaint}")
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
