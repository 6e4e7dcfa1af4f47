"""A crowd that logs in within one second, one try each: how many get in, how late, and how many
are refused (`make bench-burst`).

Beside it stand Flask-Login and Django, with bcrypt on the same cores and as many rounds, and what
bcrypt alone could compare.
Session checks are timed alone and beside the crowd.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from benchmarks import loads, servers
from benchmarks.loads import Outcome, log_in_crowd
from benchmarks.processes import Process, begin_together
from benchmarks.servers import KEPT, ROOT, BenchmarkError, Server, say
from benchmarks.storm import RATE, Site, site
from benchmarks.storm_report import percentiles

WORKERS = 2
TIMEOUT = 5  # LOGIN_TIMEOUT_SECONDS, the default
CROWDS = (20, 40)
PEERS = {"Flask-Login, bcrypt": "flask_login_app", "Django, bcrypt": "django_app"}
CHECKED = 8.0  # seconds that sessions are checked, beside a crowd or alone


@dataclass(frozen=True)
class Round:
    """One round: crowds by their size, at the product and at the peers.

    Attributes:
        beside_checks: at the product, while sessions are checked.
        peers: by name.
        hashes: that bcrypt alone compares a second, on all cores.
        checks_ms: p99 of session checks, alone and beside each crowd.
    """

    product: dict[int, Outcome]
    beside_checks: dict[int, Outcome]
    peers: dict[str, dict[int, Outcome]]
    hashes: float
    checks_ms: dict[str, float]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.burst", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    rounds = 1 if parser.parse_args(arguments).quick else 5
    KEPT.mkdir(parents=True, exist_ok=True)
    settings = {"WEB_CONCURRENCY": str(WORKERS), "LOGIN_TIMEOUT_SECONDS": str(TIMEOUT)}
    with ExitStack() as stack:
        stores = stack.enter_context(servers.stores())
        found = stack.enter_context(site(stores, max(CROWDS), pinned=False, **settings))
        peers = {name: stack.enter_context(_peer(stores, app)) for name, app in PEERS.items()}
        for peer in peers.values():
            peer.ask("POST", "/login")  # makes its table
        taken = []
        for number in range(rounds):
            taken.append(measure(found, peers))
            say(f"round {number + 1} of {rounds}")
    say(report(taken))
    place = KEPT / "benchmark-burst.json"
    place.write_text(json.dumps([asdict(one) for one in taken], indent=1) + "\n")
    say(f"written: {place.relative_to(ROOT)}")


def _peer(stores: servers.Stores, app: str) -> AbstractContextManager[Server]:
    environment = {
        **os.environ,
        "DATABASE_URL": stores.database_url,
        "REDIS_URL": stores.redis_url,
    }
    options = servers.gunicorn_options(WORKERS)
    words = [*options, "--chdir", str(servers.PEERS), f"{app}:app"]
    command = [str(servers.peers_python()), "-m", "gunicorn", *words]
    return servers.serving(command, environment, stores.folder / f"{app}.log", pinned=False)


def measure(site: Site, peers: Mapping[str, Server]) -> Round:
    """One round; the product and the peers take turns."""
    product: dict[int, Outcome] = {}
    beside: dict[int, Outcome] = {}
    of_peers: dict[str, dict[int, Outcome]] = {name: {} for name in peers}
    checks = {"alone": _p99(site, [])}
    for number in CROWDS:
        product[number] = _alone(_crowd(site, site.server.port, number, "/api/v1/login"))
        for name, peer in peers.items():
            crowd = _crowd(site, peer.port, number, "/login-by-password")
            of_peers[name][number] = _alone(crowd)
        crowd = _crowd(site, site.server.port, number, "/api/v1/login")
        checks[str(number)] = _p99(site, [crowd])
        beside[number] = crowd.result()
    return Round(product, beside, of_peers, _hashes(site), checks)


def _crowd(site: Site, port: int, number: int, path: str) -> "Process[Outcome]":
    return Process(partial(log_in_crowd, port, site.people, number, path))


def _alone(crowd: "Process[Outcome]") -> Outcome:
    begin_together([crowd])
    return crowd.result()


def _p99(site: Site, crowds: list["Process[Outcome]"]) -> float:
    asking = Process(
        partial(loads.check_sessions, site.server.port, site.checks, RATE / 2, CHECKED)
    )
    begin_together([asking, *crowds])
    found = asking.result()
    if found.failed:
        raise BenchmarkError(f"{found.failed} session checks were not answered with 200")
    return percentiles([ms for path in found.ms.values() for ms in path]).p99_ms


def _hashes(site: Site) -> float:
    """Comparisons a second on all cores, one process each, as the workers hash."""
    alone = partial(loads.hash_alone, site.cores, site.rounds, 4.0, yields=False)
    both = [Process(alone) for _ in range(WORKERS)]
    begin_together(both)
    return sum(one.result().per_second for one in both)


def report(rounds: Sequence[Round]) -> str:
    lines = [f"{WORKERS} workers; medians of {len(rounds)} rounds, in brackets the worst"]
    could = median(one.hashes * TIMEOUT for one in rounds)
    lines.append(f"bcrypt alone could compare {could:.0f} passwords in {TIMEOUT} s")
    for number in CROWDS:
        for name, found in (
            ("authapp", [one.product[number] for one in rounds]),
            ("authapp, sessions checked", [one.beside_checks[number] for one in rounds]),
            *((name, [one.peers[name][number] for one in rounds]) for name in PEERS),
        ):
            into = [one.logged_in for one in found]
            slowest = [one.slowest for one in found]
            late = max(one.refused_after for one in found)
            lines.append(
                f"{number} people, {name:25} in {median(into):.0f} ({min(into)}), "
                f"last in after {median(slowest):.2f} s ({max(slowest):.2f}), "
                f"refused {median(one.refused for one in found):.0f} after {late:.2f} s at most, "
                f"told to wait {max(one.retry_after for one in found)} s at most, "
                f"failed {sum(one.failed for one in found)}"
            )
        ratios = {
            name: [one.product[number].slowest / one.peers[name][number].slowest for one in rounds]
            for name in PEERS
        }
        told = ", ".join(f"{name} {median(ratio):.2f}" for name, ratio in ratios.items())
        part = [one.beside_checks[number].logged_in / (one.hashes * TIMEOUT) for one in rounds]
        beside = [one.checks_ms[str(number)] for one in rounds]
        lines.append(
            f"{number} people: last in / {told}; in beside session checks / bcrypt alone "
            f"{median(part):.2f}, their p99 {median(beside):.1f} ms "
            f"({median(one.checks_ms['alone'] for one in rounds):.1f} alone)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
