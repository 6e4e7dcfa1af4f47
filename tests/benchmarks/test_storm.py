"""The benchmark of log-ins measures what it says; `make bench-logins` measures in earnest."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from authapp import dev
from benchmarks import loads, servers, storm, storm_report
from benchmarks.loads import Check, LogIns, People
from benchmarks.servers import BenchmarkError
from benchmarks.storm_report import ALONE, BCRYPT, BCRYPT_BESIDE, Result, Sample, Took
from tests.support.databases import add_database

PEOPLE = People(("ada@example.org", "bob@example.org"), "right")


# -- what it says ----------------------------------------------------------------------------------


def sample(p99_ms: float = 0, log_ins: float | None = None, hashes: float = 0) -> Sample:
    return Sample(
        checks={"/me": Took(1, p99_ms)} if p99_ms else {},
        log_ins=None if log_ins is None else LogIns(log_ins, 10, 3, 0, 900),
        hashes_per_second=hashes,
        others=0.5,
    )


RESULT = Result(
    "2 cores",
    {
        ALONE: [sample(2), sample(8)],
        "many": [sample(6, log_ins=4), sample(8, log_ins=1)],
        BCRYPT_BESIDE: [sample(2, hashes=4), sample(2, hashes=2)],
        BCRYPT: [sample(hashes=5), sample(hashes=4)],
    },
)


def test_ratios_are_of_one_round() -> None:
    """The machine may have been half as fast in the next."""
    assert str(RESULT.slower("many", "/me")) == "2.00 (1.00-3.00)"
    assert str(RESULT.log_ins_per_hash("many", BCRYPT_BESIDE)) == "0.75 (0.50-1.00)"
    assert str(RESULT.log_ins_per_hash("many", BCRYPT)) == "0.53 (0.25-0.80)"


def test_the_table_has_all_of_it() -> None:
    table = storm_report.table(RESULT)
    for figure in ("2.00 (1.00-3.00)", "0.75 (0.50-1.00)", "0.53 (0.25-0.80)", " 6 ", "50%"):
        assert figure in table
    json.dumps(asdict(RESULT))


def test_percentiles() -> None:
    assert storm_report.percentiles([float(n) for n in range(101)]) == Took(50, 99)


# -- the loads -------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers what the path says; `/stall` stops the whole server for once."""

    protocol_version = "HTTP/1.1"
    stalled = False

    def do_GET(self) -> None:
        if self.path == "/stall" and not Answers.stalled:
            Answers.stalled = True
            time.sleep(0.4)
        self._answer(404 if self.path == "/missing" else 200)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = {"bob@example.org": 503, "eve@example.org": 401}
        self._answer(told.get(sent["email"], 200))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Retry-After", "30")
        if self.server.__class__ is HTTPServer:  # one request at a time: make room for the next
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def answering(kind: type[HTTPServer]) -> Iterator[int]:
    with kind(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_checks_that_are_late_because_others_stall_count_as_late() -> None:
    """Or a server that stands still would be measured by the one request that saw it."""
    with answering(HTTPServer) as port:
        found = loads.check_sessions(port, [Check("/stall", {}), Check("/", {})], 200, 1.0)
    assert [len(ms) for ms in found.ms.values()] == [100, 100]
    late = [ms for took in found.ms.values() for ms in took if ms > 100]
    assert len(late) > 2 * loads.CONNECTIONS, "also those that could not be sent"
    assert found.failed == 0


def test_checks_that_are_refused_are_seen() -> None:
    with answering(ThreadingHTTPServer) as port:
        assert loads.check_sessions(port, [Check("/missing", {})], 50, 0.2).failed == 10


@pytest.mark.parametrize(("patient", "least", "most"), [(True, 1, 1), (False, 10, 100_000)])
def test_who_is_told_to_come_back_does_so_when_told_or_at_once(
    patient: bool, least: int, most: int
) -> None:
    with answering(ThreadingHTTPServer) as port:
        one = replace(PEOPLE, emails=("bob@example.org",))
        found = loads.log_in(port, one, 1, 0.5, patient=patient)
    assert least <= found.busy <= most
    assert (found.succeeded, found.failed, found.per_second) == (0, 0, 0.0)


def test_log_ins_that_succeed_are_counted_and_failures_seen() -> None:
    with answering(ThreadingHTTPServer) as port:
        found = loads.log_in(
            port, replace(PEOPLE, emails=("ada@example.org",)), 2, 0.5, patient=True
        )
        refused = replace(PEOPLE, emails=("eve@example.org",))
        assert loads.log_in(port, refused, 1, 0.1, patient=True).failed > 0
    assert found.succeeded > 2
    assert found.per_second > found.succeeded, "that many in half a second"
    assert (found.busy, found.failed) == (0, 0)


# -- all of it, with the product -------------------------------------------------------------------


def test_each_situation_is_measured(
    postgres: dev.PostgreSQL, valkey: dev.Valkey, engine_dir: Path
) -> None:
    stores = servers.Stores(add_database(postgres.url, "storm"), valkey.url, engine_dir)
    effort = storm.Effort(rounds=1, seconds=0.4, people=5)
    chosen = [one for one in storm.SITUATIONS if one.clients != 8 and one.patient]
    with storm.site(stores, effort.people, pinned=False, BCRYPT_ROUNDS="4") as site:
        result = Result("<machine>", storm.measure(site, effort, chosen))
        wrong = replace(site, people=replace(site.people, password="not the password"))
        with pytest.raises(BenchmarkError, match="not all answers"):
            storm.measure(wrong, effort)
    assert list(result.situations) == [one.name for one in chosen]
    for situation, (taken,) in zip(chosen, result.situations.values(), strict=True):
        assert bool(taken.checks) == situation.checks
        assert (taken.log_ins is not None) == bool(situation.clients)
        assert taken.log_ins is None or taken.log_ins.succeeded > 0
        assert (taken.hashes_per_second > 0) == situation.hashes
    assert "24 clients log in" in storm_report.table(result)
