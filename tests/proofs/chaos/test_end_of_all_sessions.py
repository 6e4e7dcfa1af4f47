"""Everybody's sessions end at once, on servers of several workers, whatever Redis does."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from authapp import dev
from tests.proofs.chaos.faults import Postgres, Redis
from tests.proofs.chaos.instances import Answer, Client, lenient_environment, served
from tests.proofs.chaos.load import PASSWORD
from tests.support.databases import migrate
from tests.support.waiting import wait_until

WITHIN = 2  # seconds: REVALIDATE_SECONDS
LOOKS = 8  # at each instance, so that each of its workers is likely to answer
ROOT = "root@example.org"


@dataclass
class Stage:
    postgres: Postgres
    redis: Redis
    clients: list[Client]


@pytest.fixture(scope="module")
def stage(
    served_by: str, engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("everybody")
    with ExitStack() as stack:
        sockets = [stack.enter_context(dev.private_socket_dir()) for _ in range(2)]
        postgres = Postgres(engine_dir / "everybody-postgres", sockets[0])
        stack.callback(postgres.stop)
        redis = Redis(engine_dir / "everybody-redis", sockets[1])
        stack.callback(redis.stop)
        migrate(postgres.server.url)
        environment = lenient_environment(
            postgres.server.url,
            redis.server.url,
            REVALIDATE_SECONDS=str(WITHIN),
            WEB_CONCURRENCY="2",
        )
        instances = [stack.enter_context(served(environment, folder, name)) for name in "AB"]
        yield Stage(
            postgres, redis, [stack.enter_context(closing(Client(one))) for one in instances]
        )


@dataclass
class Held:
    """What people hold: cookies and tokens of before."""

    tokens: list[str]
    refresh_token: str
    root: str

    def admitted(self, stage: Stage) -> set[int]:
        """The statuses of everything, on all workers of all instances."""
        seen = set()
        for client in stage.clients:
            for _ in range(LOOKS):
                fresh = Client(client.instance)  # another connection, another worker perhaps
                with closing(fresh):
                    seen |= {fresh.ask("GET", "/api/v1/me", token).status for token in self.tokens}
        return seen

    def refresh(self, client: Client) -> int:
        body = {"refresh_token": self.refresh_token}
        return client.ask("POST", "/api/v1/tokens/refresh", body=body).status


def held(stage: Stage) -> Held:
    a, b = stage.clients
    for email in ("ada@example.org", ROOT):
        a.ask("POST", "/api/v1/signup", body={"email": email, "password": PASSWORD})
    stage.postgres.run(
        "INSERT INTO authapp_data.user_roles (user_id, role_id)"
        " SELECT u.id, r.id FROM authapp_data.users u, authapp_data.roles r"
        " WHERE u.email = %s AND r.name = 'admin' ON CONFLICT DO NOTHING",
        ROOT,
    )

    def cookie(client: Client, email: str) -> str:
        answer = client.ask("POST", "/api/v1/login", body={"email": email, "password": PASSWORD})
        assert answer.status == 200, answer
        return answer.token

    asked = {"email": "ada@example.org", "password": PASSWORD, "refresh": True}
    program = b.ask("POST", "/api/v1/tokens", body=asked).body
    root = cookie(a, ROOT)
    tokens = [cookie(a, "ada@example.org"), cookie(b, "ada@example.org"), program["access_token"]]
    found = Held([*tokens, root], program["refresh_token"], root)
    wait_until(lambda: found.admitted(stage) == {200}, "nobody is signed in")
    return found


def end_all(stage: Stage, who: Held) -> Answer:
    return stage.clients[0].ask("DELETE", "/api/v1/sessions", who.root)


def test_they_end_at_once_on_every_worker(stage: Stage) -> None:
    who = held(stage)
    assert end_all(stage, who).status == 204
    assert who.admitted(stage) == {401}
    assert [who.refresh(client) for client in stage.clients] == [401, 401]


def test_they_stay_ended_when_redis_is_wiped(stage: Stage) -> None:
    who = held(stage)
    assert end_all(stage, who).status == 204
    stage.redis.client.flushall()
    assert who.admitted(stage) == {401}
    assert [who.refresh(client) for client in stage.clients] == [401, 401]


def test_they_stay_ended_when_redis_is_back_from_an_older_snapshot(stage: Stage) -> None:
    who = held(stage)
    stage.redis.snapshot()
    assert end_all(stage, who).status == 204
    stage.redis.kill()
    stage.redis.come_back(empty=False)
    # while workers reconnect an answer may be an unknown; it is never a yes
    wait_until(lambda: _checked(who.admitted(stage)) == {401}, "it does not heal")
    assert who.admitted(stage) == {401}


def test_without_redis_the_answer_names_the_bound_and_it_holds(stage: Stage) -> None:
    who = held(stage)
    stage.redis.kill()
    answer = end_all(stage, who)
    assert (answer.status, answer.body) == (202, {"effective_within": WITHIN})
    due = answer.end + WITHIN
    stage.redis.come_back(empty=False)
    while time.monotonic() < due:
        time.sleep(0.05)
    assert 200 not in who.admitted(stage)
    wait_until(lambda: who.admitted(stage) == {401}, "it does not heal")


def _checked(statuses: set[int]) -> set[int]:
    assert 200 not in statuses
    return statuses
