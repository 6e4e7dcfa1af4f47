"""The same by HTTP: checks in a small and a large place, and a start with every copy missing."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import redis

from authapp.assembly.capacity import POOL_SIZE, REQUEST_THREADS
from benchmarks import servers
from benchmarks.growth.places import Place
from benchmarks.servers import BenchmarkError, Server

PATH = "/api/v1/me"
_SETTLING = 2.0  # seconds for connections of the load before to be gone


@dataclass(frozen=True)
class Load:
    """The result of one run of wrk.

    Attributes:
        unauthorized: answers 401: people who were logged out.
        unavailable: answers 503.
        failed: requests that got no answer.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    unauthorized: int
    unavailable: int
    other: int
    failed: int


@dataclass(frozen=True)
class Cold:
    """A start with every copy missing.

    Attributes:
        sessions: that were asked for, each by its own token, in turns.
        reads: misses, each of which reads Postgres.
        seconds_until_warm: until there was a copy of each.
        most_busy: connections to Postgres in use at once, as seen every 50 ms.
        most_possible: the pools of all workers together.
    """

    workers: int
    clients: int
    sessions: int
    reads: int
    seconds_until_warm: float | None
    most_busy: int
    most_possible: int
    cold: Load
    warm: Load


@dataclass(frozen=True)
class Hot:
    """One session without a copy, asked for by many at once.

    Attributes:
        reads: misses, each of which reads Postgres.
        most_expected: as many as there are request threads.
    """

    clients: int
    reads: int
    most_expected: int
    load: Load


@contextmanager
def serving(place: Place, folder: Path, workers: int, **settings: str) -> Iterator[Server]:
    environment = {
        **os.environ,
        **place.settings,
        "WEB_CONCURRENCY": str(workers),
        **settings,
    }
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    log = folder / f"gunicorn-{place.name}.log"
    with servers.serving(command, environment, log, pinned=False) as server:
        yield server


_LONGER = (1, 5, 25)  # times as long as was asked for, while nothing answers


def load(server: Server, tokens: Path, clients: int, seconds: int) -> Load:
    """One run of wrk; a longer one if a busy machine let it pass without any answer."""
    for factor in _LONGER:
        found = _run(server, tokens, clients, seconds * factor)
        if found.other:
            raise BenchmarkError(f"not all answers were as expected: {found}")
        if found.requests:
            return found
    raise BenchmarkError(f"no answer within {found.seconds} seconds: {found}")


def _run(server: Server, tokens: Path, clients: int, seconds: int) -> Load:
    said = subprocess.run(
        [
            *("wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds}s", "--timeout", "20s"),
            *("-s", str(Path(__file__).with_name("tokens.lua"))),
            *(f"http://127.0.0.1:{server.port}", "--", PATH, str(tokens)),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=seconds + 60,
    )
    return Load(**json.loads(said.stdout.strip().splitlines()[-1]))


def checks(small: Place, large: Place, folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Requests a second in either place by turns, each with any of its tokens."""
    taken: list[tuple[Load, Load]] = []
    files = {}
    for one in (small, large):
        files[one.name] = folder / f"tokens-{one.name}"
        files[one.name].write_text("".join(one.some_tokens(min(len(one), 200_000))))
    with serving(small, folder, 1) as first, serving(large, folder, 1) as second:
        pairs = [(small, first), (large, second)]
        for number in range(rounds + 1):
            found = {
                place.name: load(server, files[place.name], REQUEST_THREADS, seconds)
                for place, server in (pairs if number % 2 else reversed(pairs))
            }
            if number:  # the first warms
                taken.append((found[small.name], found[large.name]))
    return {
        "small": median(one.requests / one.seconds for one, _ in taken),
        "large": median(two.requests / two.seconds for _, two in taken),
        "ratio": median(
            (two.requests / two.seconds) / (one.requests / one.seconds) for one, two in taken
        ),
        "p99_ms": [median(pair[n].p99_ms for pair in taken) for n in (0, 1)],
    }


def cold_start(
    place: Place, folder: Path, *, workers: int, clients: int, sessions: int, seconds: int
) -> tuple[Cold, Hot]:
    """Drops every copy, then has many people come at once."""
    tokens = folder / "tokens-cold"
    tokens.write_text("".join(set(place.some_tokens(sessions))))
    sessions = len(tokens.read_text()) // 64
    with serving(place, folder, workers) as server:
        load(server, tokens, workers, 1)  # each worker has its connections
        place.services.redis.flushall()  # ours: the benchmark started it
        time.sleep(_SETTLING)
        before = _misses(server)
        with _watching(place, sessions) as seen:
            cold = load(server, tokens, clients, seconds)
        reads = _misses(server) - before
        warm = load(server, tokens, clients, seconds)
        place.services.redis.flushall()
        time.sleep(_SETTLING)
        before = _misses(server)
        tokens.write_text(tokens.read_text()[:64])
        hot = load(server, tokens, clients, 2)
        hot_reads = _misses(server) - before
    found = Cold(
        workers,
        clients,
        sessions,
        reads,
        seen.until_warm,
        seen.most_busy,
        workers * POOL_SIZE,
        cold,
        warm,
    )
    return found, Hot(clients, hot_reads, workers * REQUEST_THREADS, hot)


def _misses(server: Server) -> int:
    said = server.ask("GET", "/metrics").body.decode()
    found = re.findall(r'^\w*copies\w*\{[^}]*outcome="miss"[^}]*\} (\S+)$', said, re.MULTILINE)
    return int(sum(map(float, found)))


@dataclass
class _Seen:
    most_busy: int = 0
    until_warm: float | None = None
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _watching(place: Place, copies: int) -> Iterator[_Seen]:
    seen, start = _Seen(), time.monotonic()
    patient = redis.Redis.from_url(place.valkey.url)  # ours gives up after a quarter of a second

    def watch() -> None:
        while not seen.over.wait(0.05):
            ((busy,),) = place.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'authapp' AND state <> 'idle'"
            )
            seen.most_busy = max(seen.most_busy, busy)
            kept: Any = patient.dbsize()
            if seen.until_warm is None and kept >= copies:
                seen.until_warm = time.monotonic() - start

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        seen.over.set()
        thread.join()
