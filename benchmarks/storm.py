"""The cost of a storm of log-ins for people who are logged in, and the log-ins that succeed:
`make bench-logins`.

Checks of sessions come at a fixed rate, far below what the server could answer, and are timed alone
and beside log-ins; log-ins are compared with what bcrypt alone does beside the same checks.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from authapp import Config
from authapp.accounts.emails import parse_email
from authapp.services import build_services
from authapp.storage import schema
from benchmarks import loads, servers, storm_report
from benchmarks.contests import ACCOUNT, signed_up
from benchmarks.loads import Check, People
from benchmarks.processes import Process, begin_together
from benchmarks.servers import KEPT, ROOT, BenchmarkError, Server, say
from benchmarks.storm_report import ALONE, BCRYPT, BCRYPT_BESIDE, Result, Sample, percentiles

RATE = (
    200.0  # checks a second, of both kinds together: less than a twentieth of what saturates a core
)
LIMITS = {
    "LOGIN_LIMIT_PER_ADDRESS": "1000000 per minute",  # all come from one
    "LOGIN_FAILURES_PER_ACCOUNT": "1000 per minute",
}


@dataclass(frozen=True)
class Effort:
    """How long it takes: seconds are of each situation in each round."""

    rounds: int
    seconds: float
    people: int


FULL, QUICK = Effort(5, 8.0, 500), Effort(3, 4.0, 100)


@dataclass(frozen=True)
class Situation:
    """The loads that run at the same time.

    Attributes:
        clients: that log people in.
        patient: see `loads.log_in`.
        hashes: bcrypt runs on the server's cores, with nothing of a log-in around it.
    """

    name: str
    checks: bool = True
    clients: int = 0
    patient: bool = True
    hashes: bool = False


SITUATIONS = (
    Situation(ALONE),
    Situation("8 clients log in", clients=8),
    Situation("24 clients log in", clients=24),
    Situation("24 that come back at once", clients=24, patient=False),
    Situation(BCRYPT_BESIDE, hashes=True),
    Situation(BCRYPT, checks=False, hashes=True),
)


@dataclass(frozen=True)
class Site:
    """The server under measurement, the people logged in there, and the people who log in.

    Attributes:
        cores: the server's.
        rounds: of bcrypt.
    """

    server: Server
    cores: frozenset[int]
    checks: tuple[Check, ...]
    people: People
    rounds: int


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.storm", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in less than two minutes")
    quick = parser.parse_args(arguments).quick
    effort = QUICK if quick else FULL
    pinned = servers.apart()
    KEPT.mkdir(parents=True, exist_ok=True)
    with servers.stores() as stores, site(stores, effort.people, pinned=pinned) as found:
        result = Result(servers.machine(pinned=pinned), measure(found, effort))
    say(storm_report.table(result))
    place = KEPT if quick else ROOT / "docs"
    (place / "benchmark-logins.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    say(f"written: {place.relative_to(ROOT)}/benchmark-logins.json")


@contextmanager
def site(stores: servers.Stores, people: int, *, pinned: bool, **settings: str) -> Iterator[Site]:
    """The product on these stores, with so many people who have an account."""
    schema.upgrade(stores.database_url)
    urls = {"DATABASE_URL": stores.database_url, "REDIS_URL": stores.redis_url}
    environment = {**os.environ, **servers.SETTINGS, **LIMITS, **settings, **urls}
    config = Config.from_mapping(environment)
    command: list[str | Path] = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    log = stores.folder / "authapp.log"
    with servers.serving(command, environment, log, pinned=pinned) as server:
        cookie = signed_up(server)
        yield Site(
            server,
            frozenset(os.sched_getaffinity(server.process.pid)),
            (Check("/api/v1/me", cookie), Check("/forward-auth/nginx", cookie)),
            _people(config, people),
            config.BCRYPT_ROUNDS,
        )


def _people(config: Config, number: int) -> People:
    services = build_services(config, None)
    password_hash = services.authentication._passwords._hasher.hash(ACCOUNT["password"])
    emails = tuple(f"person{n}@example.org" for n in range(number))
    for email in emails:  # by sign-up each would take a hash of their own
        services.users.create(parse_email(email), "", password_hash)
    services.close()
    return People(emails, ACCOUNT["password"])


def measure(
    site: Site, effort: Effort, situations: Sequence[Situation] = SITUATIONS
) -> dict[str, list[Sample]]:
    """By the name of the situation, in each round; they take turns."""
    _sample(site, Situation("warm", clients=2), 1.0)
    taken: dict[str, list[Sample]] = {situation.name: [] for situation in situations}
    for number in range(effort.rounds):
        turn = number % len(situations)
        for situation in (*situations[turn:], *situations[:turn]):
            taken[situation.name].append(_sample(site, situation, effort.seconds))
        say(f"round {number + 1} of {effort.rounds}")
    return taken


def _sample(site: Site, situation: Situation, seconds: float) -> Sample:
    port = site.server.port
    ask = partial(loads.check_sessions, port, site.checks, RATE, seconds)
    log_in = partial(
        loads.log_in, port, site.people, situation.clients, seconds, patient=situation.patient
    )
    hash_alone = partial(
        loads.hash_alone, site.cores, site.rounds, seconds, yields=situation.checks
    )
    started, before = time.perf_counter(), _busy_seconds(site.cores)
    served = site.server.cpu_seconds()
    asking = Process(ask) if situation.checks else None
    logging_in = Process(log_in) if situation.clients else None
    hashing = Process(hash_alone) if situation.hashes else None
    begin_together([process for process in (asking, logging_in, hashing) if process])
    checks = asking.result() if asking else None
    log_ins = logging_in.result() if logging_in else None
    hashes = hashing.result() if hashing else None
    if (checks and checks.failed) or (log_ins and log_ins.failed):
        raise BenchmarkError(f"{situation.name}: not all answers were as expected: {log_ins}")
    others = _busy_seconds(site.cores) - before - (site.server.cpu_seconds() - served)
    others -= hashes.cpu_seconds if hashes else 0.0
    return Sample(
        checks={path: percentiles(ms) for path, ms in checks.ms.items()} if checks else {},
        log_ins=log_ins,
        hashes_per_second=hashes.per_second if hashes else 0.0,
        others=others / (time.perf_counter() - started) / len(site.cores),
    )


def _busy_seconds(cores: frozenset[int]) -> float:
    """That these cores were not idle so far."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:] in map(str, cores):
            user, nice, system, _idle, _waiting, *interrupts = map(int, fields[:8])
            ticks += user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
