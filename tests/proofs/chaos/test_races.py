"""Two instances, read all the time while one of them changes something: once acknowledged,
everywhere."""

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from authapp import dev
from authapp.config import Config
from authapp.services import Services, utc_now
from tests.proofs.chaos.history import Fact, Seen, Verdict, judge
from tests.proofs.chaos.instances import Answer, Client, holds, lenient_environment, served
from tests.proofs.chaos.load import (
    ENDED,
    PASSWORD,
    Load,
    Person,
    Probe,
    Session,
    a_person,
    begun,
    log_in,
    log_in_program,
    shows_data,
    shows_me,
    shows_password,
    shows_permission,
    shows_user,
)
from tests.support.services import open_services, sql

NEW_PASSWORD = "seven quiet rivers meet"
ROUNDS = 10
MOST_ROUNDS = 40  # until there is enough to show something
READS = 60  # after the last change of a round
FLOOR = 200  # facts read after an acknowledged change, for each kind of change
READERS = 3  # at each instance
SLOW_FILLS = "12"  # milliseconds; the change that overtakes a fill is what a race is about


@dataclass
class Arena:
    """Two instances on the same engines, and an administrator."""

    clients: tuple[Client, Client]
    services: Services
    admin: str

    def load(self) -> Load:
        instances = [client.instance for client in self.clients]
        return Load(instances, READERS, pause=0.002, tolerated=frozenset())


@contextmanager
def an_arena(database_url: str, redis_url: str, folder: Path, **more: str) -> Iterator[Arena]:
    environment = lenient_environment(
        database_url, redis_url, CHAOS_SLOW_FILLS=SLOW_FILLS, CREDENTIAL_CACHE_WRITE="blocking"
    )
    environment |= more
    with ExitStack() as stack:
        one, two = (stack.enter_context(served(environment, folder, name)) for name in "AB")
        config = Config.from_mapping(environment)
        services = stack.enter_context(open_services(config, utc_now))
        first, second = (stack.enter_context(closing(Client(i))) for i in (one, two))
        email = f"admin.{random.randrange(10**9)}@example.org"
        services.registration.sign_up(email, PASSWORD, "Admin", ("admin", "user"))
        body = {"email": email, "password": PASSWORD}
        admin = first.ask("POST", "/api/v1/login", body=body).token
        yield Arena((first, second), services, admin)


@pytest.fixture(scope="module")
def arena(
    served_by: str,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Arena]:
    with an_arena(database_url, valkey.url, tmp_path_factory.mktemp("races")) as arena:
        yield arena


@pytest.fixture(scope="module")
def control(
    served_by: str,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Arena]:
    """The same with what most applications do in place of fences and leases."""
    folder = tmp_path_factory.mktemp("control")
    with an_arena(database_url, valkey.url, folder, CHAOS_CONTROL="double-delete") as arena:
        yield arena


# -- kinds of change -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A change: how it is asked for, and which facts it changes to what."""

    ask: Callable[[Client], Answer]
    sets: Sequence[tuple[Fact, str]]


@dataclass(frozen=True)
class Round:
    """Changes, one right after the other, and what is read meanwhile."""

    steps: Sequence[Step]
    probes: Sequence[Probe]


def put_roles(arena: Arena, person: Person, *roles: str) -> Step:
    path, body = f"/api/v1/users/{person.id}/roles", {"roles": [*roles]}
    value = "admin" if "admin" in roles else "user"
    return Step(lambda c: c.ask("PUT", path, arena.admin, body), [(person.roles, value)])


def put_active(arena: Arena, person: Person, *, active: bool) -> Step:
    path, body = f"/api/v1/users/{person.id}", {"active": active}
    sets = [(person.active, "accepted" if active else "refused")]
    if not active:
        sets += [(session.lives, ENDED) for session in person.sessions]
    return Step(lambda c: c.ask("PATCH", path, arena.admin, body), sets)


def log_out(arena: Arena, person: Person) -> Round:
    session = log_in(arena.clients[0], person)
    step = Step(lambda c: c.ask("POST", "/api/v1/logout", session.token), [(session.lives, ENDED)])
    return Round([step], [shows_me(person, session), shows_user(person, session)])


def end_one(arena: Arena, person: Person) -> Round:
    keeps, ends = (log_in(client, person) for client in arena.clients)
    path = f"/api/v1/me/sessions/{ends.id}"
    step = Step(lambda c: c.ask("DELETE", path, keeps.token), [(ends.lives, ENDED)])
    return Round([step], [shows_me(person, keeps), shows_me(person, ends)])


def end_others(arena: Arena, _person: Person) -> Round:
    person = a_person(arena.clients[0])
    keeps, *others = (log_in(arena.clients[n % 2], person) for n in range(3))
    others.append(log_in_program(arena.clients[1], person))
    step = Step(
        lambda c: c.ask("DELETE", "/api/v1/me/sessions", keeps.token),
        [(other.lives, ENDED) for other in others],
    )
    return Round([step], [shows_me(person, session) for session in (keeps, *others)])


def end_all(arena: Arena, person: Person) -> Round:
    """As an administrator does."""
    one, two = arena.clients
    ends = [log_in(one, person), log_in(two, person), log_in_program(two, person)]
    path = f"/api/v1/users/{person.id}/sessions"
    step = Step(
        lambda c: c.ask("DELETE", path, arena.admin), [(session.lives, ENDED) for session in ends]
    )
    return Round([step], [shows_me(person, session) for session in ends])


def refresh(arena: Arena, person: Person) -> Round:
    """A program's session has two access tokens from then on; one of them ends both."""
    first = log_in_program(arena.clients[0], person)
    newest = [first]

    def renew(client: Client) -> Answer:
        body = {"refresh_token": first.refresh_token}
        answer = client.ask("POST", "/api/v1/tokens/refresh", body=body)
        newest.append(Session(answer.body["access_token"], first.lives))
        return answer

    def leave(client: Client) -> Answer:
        return client.ask("POST", "/api/v1/logout", newest[-1].token)

    def shows_newest(client: Client) -> tuple[Answer, Seen]:
        return shows_me(person, newest[-1])(client)

    return Round(
        [Step(renew, []), Step(leave, [(first.lives, ENDED)])],
        [shows_me(person, first), shows_newest],
    )


def change_password(arena: Arena, _person: Person) -> Round:
    person = a_person(arena.clients[0])
    first = log_in(arena.clients[0], person)
    program = log_in_program(arena.clients[1], person)
    old, new = (Fact(f"password {person.email}", v) for v in ("accepted", "refused"))
    newest = [first]

    def ask(client: Client) -> Answer:
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        answer = client.ask("POST", "/api/v1/me/password", first.token, body)
        newest.append(begun(person, answer))
        return answer

    def shows_newest(client: Client) -> tuple[Answer, Seen]:
        return shows_me(person, newest[-1])(client)

    sets = [(first.lives, ENDED), (program.lives, ENDED), (old, "refused"), (new, "accepted")]
    return Round(
        [Step(ask, sets)],
        [
            shows_me(person, first),
            shows_me(person, program),
            shows_password(person, PASSWORD, old),
            shows_password(person, NEW_PASSWORD, new),
            shows_newest,
        ],
    )


def set_roles(arena: Arena, person: Person) -> Round:
    session, program = log_in(arena.clients[0], person), log_in_program(arena.clients[1], person)
    flips = [put_roles(arena, person, "user", *more) for more in (["admin"], []) * 3]
    return Round(
        flips,
        [
            shows_me(person, session),
            shows_user(person, session),
            shows_permission(person, session),
            shows_permission(person, program),
        ],
    )


def deactivate(arena: Arena, person: Person) -> Round:
    session, program = log_in(arena.clients[0], person), log_in_program(arena.clients[1], person)
    off, on = (put_active(arena, person, active=active) for active in (False, True))
    return Round(
        [off, on],
        [
            shows_me(person, session),
            shows_me(person, program),
            shows_password(person, PASSWORD, person.active),
        ],
    )


def change_profile(arena: Arena, person: Person) -> Round:
    session, reader = (log_in(client, person) for client in arena.clients)

    def rename() -> Step:
        name = f"n{random.randrange(10**9)}"
        return Step(
            lambda c: c.ask("PATCH", "/api/v1/me", session.token, {"name": name}),
            [(person.name, name)],
        )

    return Round(
        [rename() for _ in range(6)], [shows_me(person, reader), shows_user(person, reader)]
    )


def save_data(arena: Arena, person: Person) -> Round:
    session = log_in(arena.clients[0], person)
    data = {key: Fact(f"data {key}", "None") for key in ("one", "two")}

    def put(key: str, value: int) -> Step:
        return Step(
            lambda c: c.ask("PUT", f"/data/{key}", session.token, value), [(data[key], str(value))]
        )

    steps = [put(key, value) for value in range(3) for key in data]
    return Round(steps, [shows_data(session, data), shows_data(session, data)])


KINDS = [
    log_out,
    end_one,
    end_others,
    end_all,
    refresh,
    change_password,
    set_roles,
    deactivate,
    change_profile,
    save_data,
]


# -- races -----------------------------------------------------------------------------------------


def race(
    arena: Arena,
    kind: Callable[[Arena, Person], Round],
    load: Load,
    is_enough: Callable[[Verdict], bool],
    rounds: int = ROUNDS,
) -> tuple[Verdict, int]:
    """Changes on one instance and the other in turn, read on both; how it went, and how many.

    One that is answered 202, as when Redis is late, holds later, so then there are more of them.
    """
    draw = random.Random(kind.__name__)
    person = a_person(arena.clients[0])
    changes = 0
    with load.running():
        for number in range(MOST_ROUNDS):
            if number >= rounds and is_enough(judge(load.reads)):
                break
            here = arena.clients[number % 2]
            round_ = kind(arena, person)
            load.probes = round_.probes
            time.sleep(0.03)  # the copies are there, and being read
            for step in round_.steps:
                time.sleep(draw.random() * 0.03)
                asked = [fact.change(value) for fact, value in step.sets]
                answer = step.ask(here)
                assert answer.status in {200, 202, 204}, answer
                for change in asked:
                    change.acknowledge(answer.within)
                changes += 1
            load.go_on(READS)
            load.probes = ()
    return judge(load.reads), changes


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """The counts are the result, so they are shown when all went well, too."""
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_once_acknowledged_everywhere(
    arena: Arena,
    capsys: pytest.CaptureFixture[str],
    kind: Callable[[Arena, Person], Round],
) -> None:
    load = arena.load()
    verdict, changes = race(arena, kind, load, lambda so_far: so_far.checked >= FLOOR)
    show(capsys, f"{kind.__name__}: {changes} changes, {verdict}")
    assert not load.problems, load.problems[:5]
    assert not verdict.violations, verdict.violations[:5]
    assert verdict.checked >= FLOOR, "too few reads to show anything"


@pytest.mark.parametrize("kind", [set_roles, change_profile], ids=lambda kind: kind.__name__)
def test_control_serves_what_is_stale(
    control: Arena,
    capsys: pytest.CaptureFixture[str],
    kind: Callable[[Arena, Person], Round],
) -> None:
    load = control.load()
    verdict, changes = race(control, kind, load, lambda so_far: bool(so_far.violations), rounds=1)
    show(capsys, f"control, {kind.__name__}: {changes} changes, {verdict}")
    assert verdict.violations, "the race no longer sees what it is there to see"


# -- session data ----------------------------------------------------------------------------------


def test_parallel_requests_lose_no_key(arena: Arena) -> None:
    person = a_person(arena.clients[0])
    session = log_in(arena.clients[0], person)
    keys, writes = 6, 12

    def write(number: int) -> list[Answer]:
        with closing(Client(arena.clients[number % 2].instance)) as client:
            return [
                client.ask("PUT", f"/data/key{number}-{n}", session.token, n) for n in range(writes)
            ]

    with ThreadPoolExecutor(keys) as pool:
        answers = [answer for answers in pool.map(write, range(keys)) for answer in answers]
    assert [answer.status for answer in answers] == [204] * keys * writes
    wanted = {f"key{k}-{n}": n for k in range(keys) for n in range(writes)}
    for client in arena.clients:

        def is_whole(client: Client = client) -> bool:
            return bool(client.ask("GET", "/data", session.token).body == wanted)

        assert holds(is_whole, *answers)


@pytest.mark.parametrize("other", [0, 1], ids=["same instance", "other instance"])
def test_log_out_during_a_slow_request_that_saves_data(
    arena: Arena, other: int, tmp_path: Path
) -> None:
    person = a_person(arena.clients[0])
    session = log_in(arena.clients[0], person)
    for client in arena.clients:
        assert client.ask("GET", "/data", session.token).status == 200

    def save() -> Answer:
        with closing(Client(arena.clients[0].instance)) as client:
            path = f"/held-data/late?folder={tmp_path}"
            return client.ask("PUT", path, session.token, "late")

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        while not (tmp_path / "known").exists():
            assert not saving.done(), saving.result()
            time.sleep(0.005)
        left = arena.clients[other].ask("POST", "/api/v1/logout", session.token)
        assert left.status in {202, 204}
        assert not saving.done(), "the log-out was not in between"
        (tmp_path / "go").touch()
        saved = saving.result()
    assert saved.status == 204
    assert saved.set_cookie == ""
    for client in arena.clients:

        def is_refused(client: Client = client) -> bool:
            read = client.ask("GET", "/api/v1/me", session.token).status
            return (read, client.ask("PUT", "/data/more", session.token, 1).status) == (401, 401)

        assert holds(is_refused, left)
    query = "SELECT ended_why, data FROM sessions WHERE id = :id"
    assert sql(arena.services, query, id=session.id) == [("logout", {})]
