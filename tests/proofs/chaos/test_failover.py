"""The primary of Postgres dies under load, and its standby is promoted: with and without losses."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from authapp import dev
from tests.proofs.chaos.faults import Redis
from tests.proofs.chaos.history import Fact, judge
from tests.proofs.chaos.instances import Answer, Client, lenient_environment, served
from tests.proofs.chaos.load import (
    ENDED,
    PASSWORD,
    UNKNOWN,
    Load,
    Person,
    Session,
    a_person,
    begun,
    log_in,
    shows_me,
    shows_password,
)
from tests.support.databases import migrate
from tests.support.instances import Instance
from tests.support.replication import Pair, replicated
from tests.support.waiting import wait_until

REVALIDATE = 2  # seconds
LOOKS = 6  # at each instance, so that each of its workers is likely to answer
NEW_PASSWORD = "velvet anchor hums twice"
OUTAGE = 1.0  # seconds without a primary

pytestmark = pytest.mark.usefixtures("served_by")


@dataclass
class Stage:
    pair: Pair
    instances: list[Instance]
    clients: list[Client]

    def statuses(self, path: str, token: str = "") -> set[int]:
        """The answers of all workers of all instances."""
        seen = set()
        for client in self.clients:
            for _ in range(LOOKS):
                fresh = Client(client.instance)  # another connection, another worker perhaps
                with closing(fresh):
                    seen.add(fresh.ask("GET", path, token).status)
        return seen

    def await_primary(self) -> None:
        """Each worker takes changes again."""
        body = {"email": "nobody@example.org", "password": PASSWORD}

        def takes_changes() -> bool:
            seen = set()
            for client in self.clients:
                for _ in range(LOOKS):
                    with closing(Client(client.instance)) as fresh:
                        seen.add(fresh.ask("POST", "/api/v1/login", body=body).status)
            return seen == {401}

        wait_until(takes_changes, "an instance does not find the new primary")


@pytest.fixture(scope="module")
def stage(engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("failover")
    with ExitStack() as stack:
        pair = stack.enter_context(replicated(engine_dir / "failover-served"))
        redis = Redis(engine_dir / "failover-redis", stack.enter_context(dev.private_socket_dir()))
        stack.callback(redis.stop)
        migrate(pair.primary.url)
        environment = lenient_environment(
            pair.url,
            redis.server.url,
            REVALIDATE_SECONDS=str(REVALIDATE),
            WEB_CONCURRENCY="2",
        )
        instances = [stack.enter_context(served(environment, folder, name)) for name in "AB"]
        clients = [stack.enter_context(closing(Client(one))) for one in instances]
        yield Stage(pair, instances, clients)


def end(client: Client, session: Session) -> Answer:
    """Logs out, and notes what was promised."""
    change = session.lives.change(ENDED)
    answer = client.ask("POST", "/api/v1/logout", session.token)
    if answer.status not in UNKNOWN:
        change.acknowledge(answer.within)
    return answer


@contextmanager
def coming_and_going(load: Load, instance: Instance, person: Person) -> Iterator[list[Session]]:
    """The person logs in all the time, and ends every second session; all of them are read."""
    sessions: list[Session] = []
    stop = Event()

    def run() -> None:
        with closing(Client(instance)) as client:
            while not stop.is_set():
                body = {"email": person.email, "password": PASSWORD}
                answer = client.ask("POST", "/api/v1/login", body=body)
                if answer.status == 200:
                    sessions.append(begun(person, answer))
                    load.probes = [*load.probes, shows_me(person, sessions[-1])]
                    if len(sessions) % 2 == 0:
                        end(client, sessions[-1])
                time.sleep(0.05)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield sessions
    finally:
        stop.set()
        thread.join(30)


def test_with_synchronous_replication_nothing_that_was_acknowledged_is_lost(stage: Stage) -> None:
    stage.pair.be_synchronous(on=True)
    a, _b = stage.clients
    stayer = a_person(a)
    people = [a_person(a) for _ in stage.instances]
    stays = log_in(a, stayer)
    load = Load(stage.instances, 2, 0.02, UNKNOWN)
    load.probes = [shows_me(stayer, stays)]
    with load.running(), ExitStack() as stack:
        both = [
            stack.enter_context(coming_and_going(load, instance, person))
            for instance, person in zip(stage.instances, people, strict=True)
        ]
        wait_until(lambda: all(len(sessions) > 6 for sessions in both), "nobody comes")
        stage.pair.kill_primary()
        time.sleep(OUTAGE)
        stage.pair.promote()
        stage.await_primary()
        count = [len(sessions) for sessions in both]
        wait_until(
            lambda: all(len(now) > before + 4 for now, before in zip(both, count, strict=True)),
            "nobody comes any more",
        )
        time.sleep(REVALIDATE)  # each copy has been compared with its row
        load.go_on(40)
    assert not load.problems, load.problems[:3]
    verdict = judge(load.reads)
    assert not verdict.violations, verdict.violations[:5]
    assert verdict.checked > 20
    for session in [stays, *both[0], *both[1]]:
        if (value := session.lives.settled()) is not None:
            assert stage.statuses("/api/v1/me", session.token) == {401 if value == ENDED else 200}
    assert problems(stage) == []


def problems(stage: Stage) -> list[str]:
    found: list[str] = []
    for client in stage.clients:
        answer = json.loads(client.read_text("/readyz"))
        assert answer["status"] == "ok"
        found += [text for text in answer["problems"] if text.startswith("postgres")]
    return found


def test_without_it_what_redis_knows_stays_true(stage: Stage) -> None:
    if stage.pair.standby is None:
        stage.pair.add_standby()
    stage.pair.be_synchronous(on=False)
    a, b = stage.clients
    stayer, leaver, changer, comer = (a_person(a) for _ in range(4))
    stays, leaves, unseen = log_in(a, stayer), log_in(b, leaver), log_in(b, leaver)
    log_in(a, changer)
    wait_until(stage.pair.is_level, "the standby does not catch up")
    stage.pair.cut_off_standby()

    assert end(a, leaves).status == 204
    assert stage.statuses("/api/v1/me", leaves.token) == {401}
    assert end(b, unseen).status == 204  # nobody looks before the failover
    comes = log_in(b, comer)
    assert stage.statuses("/api/v1/me", comes.token) == {200}
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    changing = log_in(a, changer)
    assert a.ask("POST", "/api/v1/me/password", changing.token, body).status in {200, 204}
    newcomer = a_person(b)
    arrives = log_in(b, newcomer)
    assert stage.statuses("/api/v1/me", arrives.token) == {200}

    load = Load(stage.instances, 2, 0.02, UNKNOWN)
    load.probes = [
        shows_me(stayer, stays),
        shows_me(leaver, leaves),
        shows_me(leaver, unseen),
        shows_me(comer, comes),
    ]
    with load.running():
        stage.pair.kill_primary()
        time.sleep(OUTAGE)
        stage.pair.promote()
        stage.await_primary()
        time.sleep(2 * REVALIDATE)
        load.go_on(40)
    assert not load.problems, load.problems[:3]
    verdict = judge(load.reads)
    assert not verdict.violations, verdict.violations[:5]

    assert stage.statuses("/api/v1/me", stays.token) == {200}
    assert stage.statuses("/api/v1/me", leaves.token) == {401}
    assert stage.statuses("/api/v1/me", unseen.token) == {401}
    assert stage.statuses("/api/v1/me", comes.token) == {200}
    assert stage.statuses("/api/v1/me", arrives.token) == {401}
    refused = shows_password(changer, PASSWORD, Fact("old password", "refused"))
    accepted = shows_password(changer, NEW_PASSWORD, Fact("new password", "accepted"))
    for client in stage.clients:
        assert refused(client)[1][0][1] == "refused"
    assert accepted(a)[1][0][1] == "accepted"
    assert refused(b)[1][0][1] == "refused"

    assert len(problems(stage)) == 2
    lines = [line for one in stage.instances for line in one.log().splitlines()]
    assert len([line for line in lines if "postgres_lost_commits" in line]) == 1
    assert "authapp_lost_commits_total" in a.read_text("/metrics")
