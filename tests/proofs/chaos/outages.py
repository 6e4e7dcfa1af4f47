"""Outages: what may happen to the stores, and what people notice. The table of docs/outages.md."""

import os
import re
import resource
import select
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread

import psycopg2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.proofs.chaos.faults import Postgres, Redis, children_of
from tests.proofs.chaos.instances import Answer, Client, holds
from tests.proofs.chaos.load import a_person, log_in
from tests.support.instances import Instance
from tests.support.waiting import wait_until

FRESH, STALE = "copies that opened", "copies served though they are old"  # counts


@dataclass(frozen=True)
class Outcome:
    """The answer to one kind of request.

    Attributes:
        text: as docs/outages.md has it.
        statuses: of API calls.
        served: whether an instance that counted so much more of everything answered as it says.
    """

    text: str
    statuses: frozenset[int]
    served: Callable[[Counter[str]], bool] = lambda _counted: True


ANSWERED = Outcome("answered", frozenset({200}))
FROM_POSTGRES = Outcome(
    "answered, from Postgres", frozenset({200}), lambda counted: counted[FRESH] == 0
)
FROM_COPIES = Outcome(
    "answered, from copies, until the session's limits",
    frozenset({200}),
    lambda counted: counted[STALE] > 0,
)
NOT_SAID = Outcome("503 with `Retry-After`, nothing cleared", frozenset({503}))

WORKS = Outcome("works", frozenset({200}))
WORKS_FROM_COPIES = Outcome(
    "works for people with a copy of their credentials; 503 for others", frozenset({200})
)
NO_LOG_IN = Outcome("503", frozenset({503}))

AT_ONCE = Outcome("made", frozenset({200, 204}))
LATER = Outcome("made; 202 with `effective_within`", frozenset({202}))
AT_ONCE_OR_LATER = Outcome("made; some with 202", frozenset({200, 202, 204}))
NOT_MADE = Outcome("503, nothing changed", frozenset({503}))
DEADLOCKED = Outcome("one is 503 and changed nothing, the others are made", AT_ONCE.statuses)
WHOLE_OR_NOT = Outcome("made whole, or not at all", frozenset({0}))
MADE_OR_NOT = Outcome("made, or 503 and nothing changed", frozenset({200, 204, 503}))


def counted(client: Client) -> Counter[str]:
    """Count the outcomes of session copies in the metrics of an instance with one worker."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(client.read_text("/metrics")):
        for sample in family.samples:
            if sample.name == "authapp_stale_copies_total":
                found[STALE] += int(sample.value)
            elif sample.name == "authapp_copies_total" and sample.labels == {
                "kind": "sess",
                "outcome": "hit",
            }:
                found[FRESH] += int(sample.value)
    return found


@dataclass(frozen=True)
class Stage:
    """Engines to break, and two instances on them.

    Attributes:
        clock: a file; the clocks of both go as many seconds wrong as it says.
    """

    postgres: Postgres
    redis: Redis
    instances: Sequence[Instance]
    clients: Sequence[Client]
    sockets: Path
    clock: Path
    environment: Mapping[str, str]

    def set_clock(self, seconds: float) -> None:
        new = self.clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.clock)


Fault = Callable[[Stage], AbstractContextManager[None]]


@dataclass(frozen=True)
class Row:
    """The promises for one fault.

    Attributes:
        longest: seconds that the longest wait may take.
        without_copy: what log-in answers to people without a copy.
    """

    state: str
    fault: Fault
    requests: Outcome
    log_in: Outcome
    changes: Outcome
    longest: float
    without_copy: frozenset[int] = field(default=frozenset({200}))

    def line(self) -> str:
        return line(self.state, self.requests, self.log_in, self.changes)


def line(state: str, requests: Outcome, log_in: Outcome, changes: Outcome) -> str:
    """One line of the table in docs/outages.md."""
    return f"| {state} | {requests.text} | {log_in.text} | {changes.text} |"


def logged_out_at_once(client: Client, token: str) -> bool:
    """Logs out, perhaps again; whether that holds on every instance by now."""
    return client.ask("POST", "/api/v1/logout", token).status == 204


# -- Redis -----------------------------------------------------------------------------------------


@contextmanager
def redis_killed(stage: Stage) -> Iterator[None]:
    stage.redis.kill()
    try:
        yield
    finally:
        stage.redis.come_back(empty=True)


@contextmanager
def redis_frozen(stage: Stage) -> Iterator[None]:
    with stage.redis.frozen():
        yield


@contextmanager
def redis_empty(stage: Stage) -> Iterator[None]:
    stage.redis.kill()
    stage.redis.come_back(empty=True)
    yield


@contextmanager
def redis_from_snapshot(stage: Stage) -> Iterator[None]:
    """Back with copies of sessions that ended since."""
    one, two = stage.clients
    person = a_person(one)
    ended = [log_in(one, person) for _ in range(4)]
    for client in stage.clients:
        for session in ended:
            assert client.ask("GET", "/api/v1/me", session.token).status == 200
    stage.redis.snapshot()
    for session in ended:
        wait_until(partial(logged_out_at_once, two, session.token), "log-out does not hold at once")
    stage.redis.kill()
    stage.redis.come_back(empty=False)
    assert stage.redis.client.dbsize(), "the snapshot was empty"
    for client in stage.clients:  # at once: soon the copies would be read again anyway
        for session in ended:
            answer = client.ask("GET", "/api/v1/me", session.token)
            assert answer.status == 401, answer
    yield


@contextmanager
def redis_full(stage: Stage) -> Iterator[None]:
    stage.redis.client.config_set("maxmemory", "1")  # bytes; the policy is noeviction
    try:
        yield
    finally:
        stage.redis.client.config_set("maxmemory", "0")


@contextmanager
def redis_read_only(stage: Stage) -> Iterator[None]:
    """A replica, of a primary that nobody reaches."""
    stage.redis.client.slaveof("127.0.0.1", 1)
    try:
        yield
    finally:
        stage.redis.client.slaveof()


@contextmanager
def replies_lost(stage: Stage) -> Iterator[None]:
    """Redis does what it is told, and nobody hears of it."""
    path = stage.sockets / "valkey.sock"
    real = path.with_name("real.sock")
    path.rename(real)
    proxy = Proxy(path, real)
    try:
        stage.redis.client.client_kill_filter(_type="normal", skipme=True)
        proxy.lose = True
        yield
        assert proxy.lost, "no reply was lost"
    finally:
        proxy.close()
        path.unlink()
        real.rename(path)


class Proxy:
    """Between Redis and its clients.

    Attributes:
        lose: whether replies to functions and scripts are thrown away from now on.
        lost: how many connections lost one.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.lose = False
        self.lost = 0
        self._target = str(target)
        self._ended = Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._listener.settimeout(0.1)
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._target)
            deaf = False
            while not self._ended.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.1)
                if client in ready:
                    sent = client.recv(65_536)
                    if not sent:
                        return
                    if self.lose and not deaf and (b"FCALL" in sent or b"EVALSHA" in sent):
                        deaf = True
                        self.lost += 1
                    server.sendall(sent)
                if server in ready:
                    reply = server.recv(65_536)
                    if not reply:
                        return
                    if not deaf:
                        client.sendall(reply)


# -- Postgres --------------------------------------------------------------------------------------


@contextmanager
def postgres_killed(stage: Stage) -> Iterator[None]:
    stage.postgres.kill()
    try:
        yield
    finally:
        stage.postgres.come_back()


@contextmanager
def postgres_frozen(stage: Stage) -> Iterator[None]:
    with stage.postgres.frozen():
        yield


@contextmanager
def connections_ended(stage: Stage) -> Iterator[None]:
    """All of the product's, again and again; not so often that a read is hit, its one retry too."""
    over = Event()

    def go_on() -> int:
        ended = 0
        while not over.is_set():
            ended += stage.postgres.end_connections()
            over.wait(1.0)
        return ended

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(go_on)
        try:
            yield
        finally:
            over.set()
        assert ended.result(), "there was no connection to end"


@contextmanager
def connections_used_up(stage: Stage) -> Iterator[None]:
    """All that the server has, and none for the product."""
    with ExitStack() as stack:
        control = stack.enter_context(closing(stage.postgres.connect()))
        cursor = control.cursor()
        deadline = time.monotonic() + 20
        looks_without = 0
        while looks_without < 3:  # one that is about to connect is not to be seen yet
            with suppress(psycopg2.OperationalError):
                while True:
                    stack.enter_context(closing(stage.postgres.connect()))
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'authapp'"
            )
            looks_without = 0 if cursor.rowcount else looks_without + 1
            assert time.monotonic() < deadline, "the product always comes first"
            time.sleep(0.05)
        yield


@contextmanager
def deadlock(stage: Stage) -> Iterator[None]:
    """A change and a transaction by hand each hold a row that the other needs."""
    one, two = stage.clients
    person = a_person(one)
    mine, other = log_in(one, person), log_in(one, person)

    def end_others() -> Answer:
        return one.ask("DELETE", "/api/v1/me/sessions", mine.token)

    def waits() -> bool:
        return bool(
            stage.postgres.run(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE application_name = 'authapp' AND wait_event_type = 'Lock'"
            )
        )

    with (
        closing(stage.postgres.connect()) as connection,
        connection.cursor() as cursor,
        ThreadPoolExecutor(1) as pool,
    ):
        # the server ends the transaction that looks first
        cursor.execute("BEGIN; SET LOCAL deadlock_timeout = '20s'")
        cursor.execute("SELECT 1 FROM sessions WHERE id = %s FOR UPDATE", (other.id,))
        asked = pool.submit(end_others)
        # it waits for a second in all, and holds the row of the person
        wait_until(waits, "it does not wait for the session", pause=0.002)
        cursor.execute("SELECT 1 FROM users WHERE id = %s FOR UPDATE", (person.id,))
        assert asked.result(timeout=20).status == 503
        cursor.execute("ROLLBACK")
    for session in (mine, other):
        assert two.ask("GET", "/api/v1/me", session.token).status == 200, "nothing was changed"
    yield
    ended = end_others()
    assert ended.status in {202, 204}
    assert holds(lambda: two.ask("GET", "/api/v1/me", other.token).status == 401, ended)


FULL_TABLES = ("audit_events", "sessions", "users")


@contextmanager
def disk_full(stage: Stage) -> Iterator[None]:
    """Tables can't grow: on a full file system of their own where we may make one (as root), else
    by `ulimit -f`. The log of changes (WAL) has room; without, Postgres stops: "killed", above."""
    folder = stage.clock.parent / "small"
    with small_file_system(stage, folder) if os.geteuid() == 0 else files_that_do_not_grow(stage):
        take_what_room_there_is(stage)
        yield
        with pytest.raises(psycopg2.Error, match=NO_ROOM):
            stage.postgres.run(FILLER, 1000)
        stage.postgres.run("DELETE FROM audit_events WHERE event = 'filler'")


def take_what_room_there_is(stage: Stage) -> None:
    rows = 1000
    while rows:
        try:
            stage.postgres.run(FILLER, rows)
        except psycopg2.Error as error:
            if not re.search(NO_ROOM, str(error)):
                raise
            rows //= 4


FULL_TABLE = "audit_events"  # each change of sessions and users adds to it
FILLER = (
    f"INSERT INTO {FULL_TABLE} (at, event, details)"
    " SELECT now(), 'filler', to_jsonb(repeat(md5(n::text), 30)) FROM generate_series(1, %s) n"
)
NO_ROOM = r"No space left|File too large"


@contextmanager
def small_file_system(stage: Stage, folder: Path) -> Iterator[None]:
    owner = Path(f"/proc/{stage.postgres.server.pid}").stat()
    options = f"size=16m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    tables = folder / "tables"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        tables.mkdir()
        os.chown(tables, owner.st_uid, owner.st_gid)
        stage.postgres.run(f"CREATE TABLESPACE small LOCATION '{tables}'")
        try:
            stage.postgres.run(f"ALTER TABLE {FULL_TABLE} SET TABLESPACE small")
            with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(bytes(4096))
            yield
        finally:
            (folder / "filler").unlink()
            stage.postgres.run(f"ALTER TABLE {FULL_TABLE} SET TABLESPACE pg_default")
            stage.postgres.run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def files_that_do_not_grow(stage: Stage) -> Iterator[None]:
    """Above 16 MB, which is what a file of the WAL has from the start."""
    stage.postgres.run(FILLER, 20_000)
    server = stage.postgres.server.pid
    for pid in (server, *children_of(server)):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16 << 20, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in (server, *children_of(server)):
            with suppress(ProcessLookupError):
                unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def both_killed(stage: Stage) -> Iterator[None]:
    with redis_killed(stage), postgres_killed(stage):
        yield


SECONDS_FOR_REDIS, SECONDS_FOR_POSTGRES = 2.0, 4.0
NO_COPY = frozenset({503})


def _redis(state: str, fault: Fault, requests: Outcome, changes: Outcome) -> Row:
    return Row(state, fault, requests, WORKS, changes, SECONDS_FOR_REDIS)


def _postgres_away(state: str, fault: Fault) -> Row:
    served = (FROM_COPIES, WORKS_FROM_COPIES, NOT_MADE)
    return Row(state, fault, *served, SECONDS_FOR_POSTGRES, NO_COPY)


def _postgres(state: str, fault: Fault, changes: Outcome) -> Row:
    return Row(state, fault, ANSWERED, WORKS, changes, SECONDS_FOR_POSTGRES)


ROWS = (
    _redis("Redis killed", redis_killed, FROM_POSTGRES, LATER),
    _redis("Redis frozen", redis_frozen, FROM_POSTGRES, LATER),
    _redis("Redis restarted, empty", redis_empty, ANSWERED, AT_ONCE_OR_LATER),
    _redis("Redis back from an old snapshot", redis_from_snapshot, ANSWERED, AT_ONCE_OR_LATER),
    _redis("Redis full (`noeviction`)", redis_full, ANSWERED, AT_ONCE_OR_LATER),
    _redis("Redis a read-only replica", redis_read_only, FROM_POSTGRES, LATER),
    _redis("Redis' replies lost", replies_lost, FROM_POSTGRES, LATER),
    _postgres_away("Postgres killed", postgres_killed),
    _postgres_away("Postgres frozen", postgres_frozen),
    _postgres_away("Postgres out of connections", connections_used_up),
    _postgres("Postgres' connections ended, again and again", connections_ended, MADE_OR_NOT),
    _postgres("a deadlock in Postgres", deadlock, DEADLOCKED),
    _postgres("Postgres' disk full", disk_full, MADE_OR_NOT),
    Row("both killed", both_killed, NOT_SAID, NO_LOG_IN, NOT_MADE, SECONDS_FOR_POSTGRES, NO_COPY),
)

# these have tests of their own
WORKER_KILLED = line("a worker killed in the middle of a change", ANSWERED, WORKS, WHOLE_OR_NOT)
CLOCK_JUMPS = line("a clock that jumps by minutes, either way", ANSWERED, WORKS, AT_ONCE)
