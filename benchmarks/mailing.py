"""The cost of mail for session checks: `make bench-mail`.

One instance with one worker answers session checks and sends 1,000 mails a minute. With mail and
without take turns, so that a ratio is of neighbours in time. Checks are measured twice: as many as
the server can answer (wrk), and 200 a second, by the processor time that the server takes.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

from authapp.storage import schema
from benchmarks import loads, servers
from benchmarks.mails import MAILS_A_SECOND, MailSink, cost_alone, write_mails
from benchmarks.processes import Process, begin_together
from benchmarks.servers import KEPT, BenchmarkError, say
from benchmarks.storm import RATE, Site, site

CONNECTIONS = 16
# seconds that mails are written before it is measured, longer than `sending.POLL`
_HEAD_START = 7.0


@dataclass(frozen=True)
class Round:
    """Neighbours in time, without and with mail.

    Attributes:
        most: session checks a second, as many as could be.
        cpu: seconds of a processor that the server took for each second, at a fixed rate of checks.
        mails: that left within a second, in both situations with mail.
    """

    most: tuple[float, float]
    cpu: tuple[float, float]
    mails: tuple[float, float]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.mailing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in about two minutes")
    rounds, seconds = (3, 6.0) if parser.parse_args(arguments).quick else (8, 12.0)
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk makes the load, and is not here: apt-get install wrk")
    pinned = servers.apart()
    KEPT.mkdir(parents=True, exist_ok=True)
    with _sink() as sink, servers.stores() as stores:
        settings = {
            "MAIL_URL": sink.url,
            "MAIL_LIMIT_TOTAL": "100000 per minute",
            "PUBLIC_URL": "http://127.0.0.1",
            "EMAIL_VERIFICATION": "off",
        }
        urls = {"DATABASE_URL": stores.database_url, "REDIS_URL": stores.redis_url}
        everything = {**servers.SETTINGS, **settings, **urls}
        schema.upgrade(stores.database_url)
        alone = cost_alone(everything, 400)
        say(
            f"the sending thread takes {1000 * alone:.2f} ms of a processor for a mail: "
            f"{100 * alone * MAILS_A_SECOND:.1f} % of a core at 1,000 mails a minute"
        )
        with site(stores, 1, pinned=pinned, **settings) as found:
            say(servers.machine(pinned=pinned))
            taken = []
            for number in range(rounds):
                taken.append(measure(found, sink, everything, seconds, mail_first=number % 2 == 1))
                say(f"round {number + 1} of {rounds}: {taken[-1]}")
    say(report(taken))


@contextmanager
def _sink() -> Iterator[MailSink]:
    sink = MailSink()
    try:
        yield sink
    finally:
        sink.close()


def measure(
    site: Site, sink: MailSink, settings: dict[str, str], seconds: float, *, mail_first: bool
) -> Round:
    most: dict[bool, float] = {}
    cpu: dict[bool, float] = {}
    mails = []
    for with_mail in (mail_first, not mail_first):
        for measured, load in ((most, _most_checks), (cpu, _cpu_of_checks)):
            writing = (
                Process(partial(write_mails, settings, seconds + _HEAD_START))
                if with_mail
                else None
            )
            if writing:
                begin_together([writing])
                time.sleep(_HEAD_START)
            before = sink.taken
            measured[with_mail] = load(site, seconds)
            if writing:
                mails.append((sink.taken - before) / seconds)
                writing.result()
                _await_quiet(sink)
    return Round((most[False], most[True]), (cpu[False], cpu[True]), (mails[0], mails[1]))


def _await_quiet(sink: MailSink) -> None:
    """Returns when all that was written has left, so that nothing of it is measured as no mail."""
    before = -1
    while before != sink.taken:
        before = sink.taken
        time.sleep(_HEAD_START)


def _most_checks(site: Site, seconds: float) -> float:
    check = site.checks[0]
    headers = [part for name, value in check.headers.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{site.server.port}{check.path}"
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds:.0f}s", *headers, url]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    if found is None or "Non-2xx" in told:
        raise BenchmarkError(f"not all answers were as expected:\n{told}")
    return float(found[1])


def _cpu_of_checks(site: Site, seconds: float) -> float:
    before = site.server.cpu_seconds()
    asking = Process(partial(loads.check_sessions, site.server.port, site.checks, RATE, seconds))
    begin_together([asking])
    if asking.result().failed:
        raise BenchmarkError("not all answers were as expected")
    return (site.server.cpu_seconds() - before) / seconds


def report(rounds: Sequence[Round]) -> str:
    ratios = [one.most[1] / one.most[0] for one in rounds]
    extra = [one.cpu[1] - one.cpu[0] for one in rounds]
    mails = [one.mails for one in rounds]
    return "\n".join(
        (
            f"medians of {len(rounds)} rounds, in brackets the worst and the best",
            f"session checks with mail / without: {median(ratios):.3f} "
            f"({min(ratios):.3f}-{max(ratios):.3f})",
            f"mails a minute beside as many checks as could be: "
            f"{60 * median(busy for busy, _ in mails):.0f} "
            f"({60 * min(busy for busy, _ in mails):.0f})",
            f"mails a minute beside {RATE:.0f} checks a second: "
            f"{60 * median(calm for _, calm in mails):.0f} "
            f"({60 * min(calm for _, calm in mails):.0f})",
            f"processor time a mail takes: {1000 * median(extra) / MAILS_A_SECOND:.1f} ms, "
            f"{100 * median(extra):.1f} % of a core at 1,000 mails a minute",
        )
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
