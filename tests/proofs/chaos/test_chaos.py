"""Faults at random while people read and write: nothing stale, nobody logged out, all heals."""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from authapp import dev
from authapp.config import Config
from authapp.services import utc_now
from tests.proofs.chaos.faults import Faults, Redis
from tests.proofs.chaos.history import Change, Fact, Read, judge
from tests.proofs.chaos.instances import Answer, Client, lenient_environment, served
from tests.proofs.chaos.load import (
    ENDED,
    LIVE,
    PASSWORD,
    UNKNOWN,
    Load,
    Person,
    Session,
    a_person,
    begun,
    log_in,
    shows_me,
    shows_permission,
    shows_user,
)
from tests.support.instances import Instance
from tests.support.services import open_services

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
MOST_SECONDS = SECONDS + 120  # on a machine so loaded that it takes longer to do enough
WITHIN = 2  # seconds: REVALIDATE_SECONDS, after which a change that was answered 202 holds
READERS = 2  # at each instance
WRITERS = 3
PEOPLE = 2  # for each writer
HEALED_WITHIN = 60.0  # before the last look, which is hundreds of requests

# Goes on until these are done.
LEAST_FAULTS = 3  # of each kind
LEAST_AT_ONCE = 100  # changes that hold once answered
LEAST_LATER = 20  # changes that hold within a bound
LEAST_CHECKED = 2_000


class Writer:
    """Makes changes of some people, one after the other, at any instance.

    Attributes:
        answers: to changes, by kind and status.
        later: how many were 202.
        reads: what answers to changes showed, as that a session is not live.
        problems: what no answer may be.
    """

    def __init__(self, draw: random.Random, clients: list[Client], admin: Session) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.later = 0
        self.reads: list[Read] = []
        self.problems: list[str] = []
        self.people = [a_person(draw.choice(clients)) for _ in range(PEOPLE)]
        self._draw = draw
        self._clients = clients
        self._admin = admin
        for person in self.people:
            for client in clients:
                log_in(client, person)

    def run(self, stop: Event) -> None:
        kinds: list[Callable[[Person], None]]
        kinds = [self._log_in, self._log_out, self._set_roles, self._rename]
        try:
            while not stop.is_set():
                self._draw.choice(kinds)(self._draw.choice(self.people))
                time.sleep(self._draw.uniform(0.0, 0.04))
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.problems.append(f"a writer ended: {error!r}")
        finally:
            for client in self._clients:
                client.close()

    def _log_in(self, person: Person) -> None:
        if len(live_of(person)) > 4:
            return
        body = {"email": person.email, "password": PASSWORD}
        answer = self._client().ask("POST", "/api/v1/login", body=body)
        self.answers["log-in", answer.status] += 1
        if answer.status == 200:
            session = begun(person, answer)
            # As browsers do: they are led to a page. Where Postgres was away for a moment this
            # gives the session its row; until then it is lost with Redis.
            self._client().ask("GET", "/api/v1/me", session.token)
        elif answer.status not in UNKNOWN:  # 401 above all: the password is right
            self.problems.append(f"log-in: {answer}")

    def _log_out(self, person: Person) -> None:
        sessions = live_of(person)
        if len(sessions) < 2:
            return
        session = self._draw.choice(sessions)
        self._insist(
            "log-out",
            session.lives,
            ENDED,
            lambda client: client.ask("POST", "/api/v1/logout", session.token),
        )

    def _set_roles(self, person: Person) -> None:
        wanted = "user" if person.roles.changes[-1].value == "admin" else "admin"
        body = {"roles": ["user", "admin"] if wanted == "admin" else ["user"]}
        path = f"/api/v1/users/{person.id}/roles"
        self._insist(
            "roles",
            person.roles,
            wanted,
            lambda client: client.ask("PUT", path, self._admin.token, body),
            by=self._admin,
        )

    def _rename(self, person: Person) -> None:
        session = self._draw.choice(live_of(person))
        name = f"n{self._draw.randrange(10**9)}"
        self._insist(
            "profile",
            person.name,
            name,
            lambda client: client.ask("PATCH", "/api/v1/me", session.token, {"name": name}),
            by=session,
        )

    def _insist(
        self,
        kind: str,
        fact: Fact,
        value: str,
        ask: Callable[[Client], Answer],
        by: Session | None = None,
    ) -> None:
        """Asks for a change, most times again, as people do, until somebody says it is done."""
        while True:
            change = fact.change(value)
            answer = ask(self._client())
            self.answers[kind, answer.status] += 1
            self._acknowledged(change, answer, by)
            if answer.status not in UNKNOWN or self._draw.random() < 0.2:
                return
            time.sleep(self._draw.choice((0.01, 0.3)))

    def _acknowledged(self, change: Change, answer: Answer, by: Session | None) -> None:
        match answer.status:
            case 200 | 204:
                change.acknowledge()
            case 202:
                self.later += 1
                change.acknowledge(within=answer.body["effective_within"])
                if answer.body["effective_within"] != WITHIN:
                    self.problems.append(f"{answer}")
            case 401 if by is not None:
                seen = ((by.lives, ENDED),)
                self.reads.append(Read(answer.start, answer.end, seen, "a change"))
            case status if status not in UNKNOWN:
                self.problems.append(f"{answer}")
        if answer.clears_cookie and answer.status not in {202, 204}:
            self.problems.append(f"cleared the cookie: {answer}")

    def _client(self) -> Client:
        return self._draw.choice(self._clients)


def live_of(person: Person) -> list[Session]:
    """Sessions nobody asked to end."""
    return [s for s in person.sessions if s.lives.changes[-1].value == LIVE]


@contextmanager
def running(writers: list[Writer]) -> Iterator[None]:
    stop = Event()
    threads = [Thread(target=writer.run, args=(stop,), daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a writer hangs"


class Readers(Load):
    """Reads sessions of everybody, live and ended ones, the newest above all."""

    def draw_probes(self, people: list[Person], draw: random.Random) -> None:
        self.probes = [
            make(person, session)
            for person in people
            for session in [*live_of(person), *person.sessions[-4:]]
            for make in (shows_me, draw.choice((shows_me, shows_user, shows_permission)))
        ]


def healed(clients: list[Client], people: list[Person], load: Load) -> str:
    """Read every session on every instance; return what is not yet as it must be."""
    for client in clients:
        ready = client.ask("GET", "/readyz")
        if ready.status != 200 or set(ready.body["stores"].values()) != {"ok"}:
            return f"{client.instance}: {ready.body}"
        for person in people:
            for session in dict.fromkeys([*live_of(person), *person.sessions[-10:]]):
                for make in (shows_me, shows_user):
                    seen = load.take(client, make(person, session))
                    if not seen:
                        return f"{client.instance} can't say who {session} is"
                    for fact, value in seen:
                        if fact.settled() not in {None, value}:
                            return f"{client.instance}: {fact.name} is {value}"
    return ""


def later_of(writers: list[Writer]) -> int:
    """How many changes were answered 202."""
    return sum(writer.later for writer in writers)


def at_once_of(writers: list[Writer]) -> int:
    """How many changes hold since they were answered."""
    answers = [answer for writer in writers for answer in tuple(writer.answers.items())]
    return sum(n for (_, status), n in answers if status in {200, 204})


def is_needed(seconds: float, faults: Faults, writers: list[Writer], load: Load) -> bool:
    """Whether another fault is, after so many seconds."""
    if not SECONDS <= seconds < MOST_SECONDS:
        return seconds < SECONDS
    return (
        any(faults.counts[kind] < LEAST_FAULTS for kind in faults.kinds)
        or later_of(writers) < LEAST_LATER
        or at_once_of(writers) < LEAST_AT_ONCE
        or judge(tuple(load.reads)).checked < LEAST_CHECKED
    )


@pytest.fixture
def redis_server(engine_dir: Path) -> Iterator[Redis]:
    with dev.private_socket_dir() as sockets:
        store = Redis(engine_dir / "chaos-valkey", sockets)
        yield store
        store.stop()


@pytest.fixture
def instances(
    served_by: str, database_url: str, redis_server: Redis, tmp_path: Path
) -> Iterator[list[Instance]]:
    with ExitStack() as stack:
        environment = settings(database_url, redis_server)
        yield [stack.enter_context(served(environment, tmp_path, name)) for name in "AB"]


def settings(database_url: str, redis_server: Redis) -> dict[str, str]:
    return lenient_environment(
        database_url,
        redis_server.server.url,
        REVALIDATE_SECONDS=str(WITHIN),
        WEB_CONCURRENCY="2",
        CHAOS_SLOW_FILLS="5",
    )


@pytest.mark.first
def test_nothing_stale_and_nobody_logged_out(
    database_url: str,
    redis_server: Redis,
    instances: list[Instance],
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(SEED)
    email = f"admin.{random.randrange(10**9)}@example.org"
    config = Config.from_mapping(settings(database_url, redis_server))
    with open_services(config, utc_now) as services:
        user = services.registration.sign_up(email, PASSWORD, "Admin", ("admin", "user"))
    admin = Person(
        email, str(user.id), Fact("name admin", "Admin"), Fact("roles a", "admin"), Fact("a", "")
    )

    clients = [Client(instance) for instance in instances]
    by = log_in(clients[0], admin)
    writers = [
        Writer(random.Random(f"{SEED} {n}"), [Client(i) for i in instances], by)
        for n in range(WRITERS)
    ]
    people = [admin, *(person for writer in writers for person in writer.people)]
    load = Readers(instances, READERS, pause=0.006, tolerated=UNKNOWN)
    load.draw_probes(people, draw)
    faults = Faults(draw, redis_server, database_url, instances)
    with closing(faults):
        with load.running():
            with running(writers):
                start = time.monotonic()
                while is_needed(time.monotonic() - start, faults, writers, load):
                    load.draw_probes(people, draw)
                    faults.next()
                    load.draw_probes(people, draw)
                    time.sleep(draw.uniform(0.2, 1.6))  # Redis is trusted again, mostly
            quiet = time.monotonic()
        looked = quiet
        while (ill := healed(clients, people, load)) and looked < quiet + HEALED_WITHIN:
            time.sleep(0.1)
            looked = time.monotonic()
        healed_after = time.monotonic() - quiet

    answers = sum((writer.answers for writer in writers), Counter[tuple[str, int]]())
    problems = load.problems + [p for writer in writers for p in writer.problems]
    reads = load.reads + [read for writer in writers for read in writer.reads]
    verdict = judge(reads)
    at_once, later = at_once_of(writers), later_of(writers)
    rows = [
        *sorted(faults.counts.items()),
        *((f"{kind}: {status or 'no answer'}", n) for (kind, status), n in sorted(answers.items())),
        *((f"reads: {status or 'no answer'}", n) for status, n in sorted(load.statuses.items())),
        ("facts read after acknowledgement", verdict.checked),
        ("of these with one value allowed", verdict.exact),
        ("stale, or a session lost", len(verdict.violations)),
        ("milliseconds until all healed", int(healed_after * 1000)),
    ]
    table = "\n".join(f"  {what:<36}{count:>8}" for what, count in rows)
    story = f"chaos, {quiet - start:.0f} s; CHAOS_SEED={SEED} draws the same faults\n{table}"
    with capsys.disabled():
        sys.stdout.write(f"\n{story}\n")
    assert not verdict.violations, "\n".join([*verdict.violations[:9], *faults.seen])
    assert not problems, problems[:5]
    assert not ill, ill
    assert min(faults.counts[kind] for kind in faults.kinds) >= LEAST_FAULTS, faults.counts
    assert at_once >= LEAST_AT_ONCE
    assert later >= LEAST_LATER
    assert verdict.checked >= LEAST_CHECKED
