"""Twenty attackers try at once what once stopped the service for others, on two instances.

`ATTACK_SECONDS=60 make test ARGS='tests/attacks/test_attackers_at_once.py -n 0 -s'` prints how long
session checks of other people took meanwhile.
"""

import http.client
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from threading import Event, Thread
from uuid import UUID

import psycopg2
import pytest

from authapp import dev
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import ADMIN, USER
from authapp.config import Config
from authapp.services import Services, utc_now
from tests.attacks.conftest import SECRET_KEY
from tests.attacks.site import COOKIE
from tests.support.databases import add_migrated_database
from tests.support.instances import Instance, serving
from tests.support.people import PASSWORD, grant_role
from tests.support.services import open_services
from tests.support.settings import environment_for

SECONDS = float(os.environ.get("ATTACK_SECONDS", "6"))
ATTACKERS = 20
OTHERS = 6  # people on each instance who ask who they are, all the time
PAUSE = 0.05  # seconds between two session checks of one person
PATIENCE = 30.0  # seconds that a client waits for an answer

GRANTER = "granter"  # a role that may give roles, and nothing else


@dataclass(frozen=True)
class Person:
    id: UUID
    email: str
    token: str


@dataclass(frozen=True)
class Target:
    """Two instances of the product, and the people there are."""

    instances: list[Instance]
    services: Services
    database_url: str
    administrators: list[Person]
    granters: list[Person]
    others: list[Person]


@dataclass
class Seen:
    """Answers to the session checks of other people."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * part)]


@pytest.fixture
def target(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Target]:
    url = add_migrated_database(postgres.url, "attackers")
    shipped = environment_for(
        url,
        valkey.url,
        SECRET_KEY=SECRET_KEY,
        SESSION_COOKIE_SECURE="0",
        TRUSTED_PROXY_HOPS="1",  # each attacker has an address
        BCRYPT_ROUNDS="12",
        WEB_CONCURRENCY="2",
    )
    folder = tmp_path_factory.mktemp("attackers")
    cheap = Config.from_mapping({**shipped, "BCRYPT_ROUNDS": "4"})
    with ExitStack() as stack:
        services = stack.enter_context(open_services(cheap, utc_now))
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as sql:
            sql.execute(
                "INSERT INTO roles (name, description, permissions) VALUES (%s, '', %s)",
                (GRANTER, ["roles:grant"]),
            )
        administrators = [_person(services, (ADMIN, USER)) for _ in range(ATTACKERS)]
        granters = [_person(services, (GRANTER, USER)) for _ in range(ATTACKERS)]
        others = [_person(services, (USER,)) for _ in range(OTHERS)]
        instances = [
            stack.enter_context(serving("wsgi:app", shipped, folder / f"{name}.log"))
            for name in ("one", "two")
        ]
        yield Target(instances, services, url, administrators, granters, others)


_NUMBERS = iter(range(10**6))


def _person(services: Services, roles: tuple[str, ...]) -> Person:
    email = f"person{next(_NUMBERS)}@example.org"
    user = services.registration.sign_up(email, PASSWORD, "", roles)
    found = services.credentials.read(parse_email(email))
    assert found is not None
    live = services.sessions.begin(user.id, found.epoch, Actor(None, "192.0.2.1", "tests"))
    return Person(user.id, email, live.token.text)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    **headers: str,
) -> int:
    sent = {"Accept": "application/json"} | headers
    if body is not None:
        sent["Content-Type"] = "application/json"
    payload = None if body is None else json.dumps(body)
    connection.request(method, path, payload, {k.replace("_", "-"): v for k, v in sent.items()})
    answer = connection.getresponse()
    answer.read()
    return answer.status


class Attacker:
    """One who tries everything, in any order, from an address of their own."""

    def __init__(self, target: Target, number: int) -> None:
        self._target = target
        self._own = target.administrators[number]
        self._granter = target.granters[number]
        self._random = random.Random(number)
        self._address = f"203.0.113.{number + 1}"
        self._connection = self._connect()
        self.statuses: Counter[tuple[str, int]] = Counter()

    def _connect(self) -> http.client.HTTPConnection:
        port = self._random.choice(self._target.instances).port
        return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def attack(self, stop: Event) -> None:
        attacks: list[Callable[[], int]] = [
            self.remove_another_administrator,
            self.send_combining_marks,
            self.log_out_two_thousand_times,
            self.make_an_administrator,
            self.log_in_beyond_the_limit,
            self.guess,
        ]
        while not stop.is_set():
            attack = self._random.choice(attacks)
            try:
                self.statuses[attack.__name__, attack()] += 1
            except (OSError, http.client.HTTPException):  # the server closed: it may
                self._connection.close()
                self._connection = self._connect()
        self._connection.close()

    def _ask(self, method: str, path: str, body: object = None, **headers: str) -> int:
        return _ask(self._connection, method, path, body, X_Forwarded_For=self._address, **headers)

    def remove_another_administrator(self) -> int:
        cookie = f"{COOKIE}={self._own.token}"
        victim = self._random.choice(self._target.administrators)
        if self._random.random() < 0.5:
            path = f"/api/v1/users/{victim.id}"
            return self._ask("PATCH", path, {"active": False}, Cookie=cookie)
        path = f"/api/v1/users/{victim.id}/roles"
        return self._ask("PUT", path, {"roles": [USER]}, Cookie=cookie)

    def send_combining_marks(self) -> int:
        marks = "a" + "̖̀" * 10_000
        body = {"email": f"{marks}@example.org", "password": PASSWORD}
        if self._random.random() < 0.5:
            body = {"email": "nobody@example.org", "password": marks}
        return self._ask("POST", "/api/v1/login", body)

    def log_out_two_thousand_times(self) -> int:
        token = self._random.choice(self._target.granters).token
        few = "; ".join([f"{COOKIE}={token}"] * 200)  # what a header may hold
        return self._ask("POST", "/api/v1/logout", Cookie=few)

    def make_an_administrator(self) -> int:
        other = self._random.choice(self._target.others)
        cookie = f"{COOKIE}={self._granter.token}"
        path = f"/api/v1/users/{other.id}/roles"
        return self._ask("PUT", path, {"roles": [ADMIN, USER]}, Cookie=cookie)

    def log_in_beyond_the_limit(self) -> int:
        email = f"nobody{self._random.randrange(1000)}@example.org"
        return self._ask("POST", "/api/v1/login", {"email": email, "password": PASSWORD})

    def guess(self) -> int:
        other = self._random.choice(self._target.others)
        body = {"email": other.email, "password": f"a guess {self._random.random()}"}
        return self._ask("POST", "/api/v1/login", body)


def _check_sessions(instance: Instance, person: Person, seen: Seen, stop: Event) -> None:
    cookie = f"{COOKIE}={person.token}"
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=PATIENCE)
    with closing(connection):
        while not stop.is_set():
            for path in ("/api/v1/me", "/forward-auth/nginx"):
                started = time.monotonic()
                seen.statuses[_ask(connection, "GET", path, Cookie=cookie)] += 1
                seen.seconds.append(time.monotonic() - started)
            stop.wait(PAUSE)


def _active_administrators(database_url: str) -> int:
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as sql:
        sql.execute(
            "SELECT count(*) FROM users u JOIN user_roles ur ON ur.user_id = u.id"
            " JOIN roles r ON r.id = ur.role_id WHERE r.name = 'admin' AND u.active"
        )
        row = sql.fetchone()
    assert row is not None
    return int(row[0])


def _reinstate(target: Target, stop: Event, fewest: list[int]) -> None:
    """Counts administrators, and makes those of the attackers administrators again."""
    while not stop.wait(1.0):
        fewest.append(_active_administrators(target.database_url))
        for person in target.administrators[: ATTACKERS // 2]:
            grant_role(target.services, person.email, ADMIN)
            target.services.administration.set_active(person.id, active=True, actor=OPERATOR)


@pytest.mark.timeout(300)
def test_other_people_are_served_and_an_administrator_remains(target: Target) -> None:
    stop = Event()
    seen = Seen()
    fewest: list[int] = []
    attackers = [Attacker(target, number) for number in range(ATTACKERS)]
    threads = [Thread(target=attacker.attack, args=(stop,)) for attacker in attackers]
    threads += [
        Thread(target=_check_sessions, args=(instance, person, seen, stop))
        for instance in target.instances
        for person in target.others
    ]
    threads.append(Thread(target=_reinstate, args=(target, stop, fewest)))
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE * 2)
    assert not [thread for thread in threads if thread.is_alive()]

    answered = sum((attacker.statuses for attacker in attackers), Counter[tuple[str, int]]())
    for (attack, status), number in sorted(answered.items()):
        print(f"{attack:32} {status} {number:6}")  # noqa: T201 — for whoever measures
    print(  # noqa: T201 — as above
        f"session checks: {len(seen.seconds)}, median {seen.percentile(0.5) * 1000:.0f} ms, "
        f"p99 {seen.percentile(0.99) * 1000:.0f} ms, {dict(seen.statuses)}"
    )
    assert set(seen.statuses) == {200}
    assert min(fewest) >= 1
    assert _active_administrators(target.database_url) >= 1
    for (attack, status), number in answered.items():
        assert status != 500, (attack, number)
        if attack == "make_an_administrator":
            assert status in {401, 403, 429}, (attack, number)
    for person in target.others:
        user = target.services.users.get(person.id)
        assert user is not None
        assert user.roles == (USER,)
