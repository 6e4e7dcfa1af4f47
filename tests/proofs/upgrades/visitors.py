"""Visitors who go to every instance in turn, and what they were shown that must not be."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from threading import Condition, Event, Lock, Thread

from tests.proofs.chaos.instances import Answer, Client
from tests.support.instances import Instance
from tests.support.waiting import wait_until

PASSWORDS = ("copper lantern drifts north", "seven quiet rivers meet")
REMEMBERED = 12  # ended sessions that are tried again and again
SLOWEST = 60.0  # seconds for as many rounds as a step waits for
# A processor that others keep busy may be late for a time-out of half a second; the answer then is
# to ask again. Whatever holds requests up fails many, and again.
UNAVAILABLE_SHARE = 1 / 500
PAUSE = 0.06  # seconds between two requests of a visitor; commands and starts need processors, too


class Rotation:
    """The instances that get requests, as a proxy keeps them."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._busy: Counter[int] = Counter()
        self._instances: list[Instance] = []

    def add(self, instance: Instance) -> None:
        with self._changed:
            self._instances.append(instance)

    def remove(self, instance: Instance) -> None:
        """Returns when the instance has answered all that it was asked."""
        with self._changed:
            self._instances.remove(instance)
            idle = self._changed.wait_for(lambda: not self._busy[instance.port], timeout=30)
        assert idle, f"{instance.name} does not answer"

    @property
    def instances(self) -> list[Instance]:
        with self._changed:
            return list(self._instances)

    @contextmanager
    def next(self, number: int) -> Iterator[Instance]:
        """One of them, in turn."""
        with self._changed:
            instance = self._instances[number % len(self._instances)]
            self._busy[instance.port] += 1
        try:
            yield instance
        finally:
            with self._changed:
                self._busy[instance.port] -= 1
                self._changed.notify_all()


class Visitors:
    """Threads of people: some stay logged in, some come and go, and some try sessions that ended.

    Attributes:
        problems: what happened that must not.
        asked: requests, by the name of the instance.
        unavailable: answers of 503 that did not come again.
    """

    def __init__(self, rotation: Rotation) -> None:
        self.problems: list[str] = []
        self.asked: Counter[str] = Counter()
        self.unavailable: list[str] = []
        self.log_outs = self.password_changes = 0
        self._rotation = rotation
        self._ended: list[str] = []
        self._lock = Lock()
        self._stop = Event()
        self._rounds: Counter[int] = Counter()
        self._numbers = count()

    @contextmanager
    def running(self, stayers: int, programs: int, comers: int) -> Iterator[None]:
        """Returns once all of them have an account."""
        lives = (
            *(self._stay for _ in range(stayers)),
            *(self._run_program for _ in range(programs)),
            *(self._come_and_go for _ in range(comers)),
            self._try_ended,
        )
        threads = [Thread(target=self._live, args=(n, life)) for n, life in enumerate(lives)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a visitor hangs"

    def go_on(self, rounds: int = 2) -> None:
        """Returns when each visitor has gone through so many rounds more, without a problem."""
        start = Counter(self._rounds)

        def all_did() -> bool:
            assert not self.problems, self.problems[:5]
            most = 2 + sum(self.asked.values()) * UNAVAILABLE_SHARE
            assert len(self.unavailable) <= most, self.unavailable[:5]
            return all(self._rounds[n] - start[n] >= rounds for n in self._rounds)

        wait_until(all_did, lambda: f"a visitor is too slow: {self._rounds}", seconds=SLOWEST)

    def ask(
        self, expected: int, method: str, path: str, token: str = "", body: object = None
    ) -> Answer:
        """Ask the next instance. Every answer but the expected one is a problem; 503, if it comes
        again."""
        answer = self._ask_once(method, path, token, body)
        if answer.status == 503:
            self.unavailable.append(f"{time.monotonic():.3f} {method} {path}: {answer}")
            answer = self._ask_once(method, path, token, body)
        if answer.status != expected:
            self._report(f"{method} {path}: expected {expected}: {answer}")
        if answer.clears_cookie and expected != 401 and path != "/api/v1/logout":
            self._report(f"{method} {path} cleared the cookie: {answer}")
        return answer

    def _ask_once(self, method: str, path: str, token: str, body: object) -> Answer:
        with self._rotation.next(next(self._numbers)) as instance, closing(Client(instance)) as at:
            answer = at.ask(method, path, token, body)
        time.sleep(PAUSE)
        with self._lock:
            self.asked[instance.name] += 1
        return answer

    def _report(self, problem: str) -> None:
        self.problems.append(f"{time.monotonic():.3f} {problem}")

    # -- lives

    def _live(self, number: int, life: Callable[[int], Iterator[None]]) -> None:
        self._rounds[number] = 0
        try:
            for _ in life(number):
                self._rounds[number] += 1
                if self._stop.wait(0.05):  # the rest of the suite needs the cores, too
                    return
        except Exception as error:  # noqa: BLE001 - the test shows it
            self._report(f"a visitor ended: {error!r}")

    def _sign_up(self, number: int) -> str:
        email = f"visitor.{number}.{random.randrange(10**9)}@example.org"
        body = {"email": email, "password": PASSWORDS[0], "name": "n"}
        self.ask(201, "POST", "/api/v1/signup", body=body)
        return email

    def _log_in(self, email: str, password: str = PASSWORDS[0]) -> str:
        body = {"email": email, "password": password}
        return self.ask(200, "POST", "/api/v1/login", body=body).token

    def _stay(self, number: int) -> Iterator[None]:
        """Stays logged in, and finds what was written at the other version a moment ago."""
        email = self._sign_up(number)
        token = self._log_in(email)
        for value in count():
            for _ in range(3):
                found = self.ask(200, "GET", "/api/v1/me", token)
                self._compare("email", email, found)
            self.ask(204, "PUT", "/data/n", token, value)
            self._compare("n", value, self.ask(200, "GET", "/data", token))
            self.ask(200, "PATCH", "/api/v1/me", token, {"name": f"n{value}"})
            self._compare("name", f"n{value}", self.ask(200, "GET", "/api/v1/me", token))
            yield

    def _compare(self, key: str, expected: object, answer: Answer) -> None:
        if answer.status == 200 and answer.body.get(key) != expected:
            self._report(f"stale: {key} is not {expected!r}: {answer}")

    def _run_program(self, number: int) -> Iterator[None]:
        """Has access tokens, and each of them from another version than the one before."""
        body: object = {"email": self._sign_up(number), "password": PASSWORDS[0], "refresh": True}
        path = "/api/v1/tokens"
        while True:
            tokens = self.ask(200, "POST", path, body=body).body
            for _ in range(2):
                self.ask(200, "GET", "/api/v1/me", tokens["access_token"])
            path, body = "/api/v1/tokens/refresh", {"refresh_token": tokens["refresh_token"]}
            yield

    def _come_and_go(self, number: int) -> Iterator[None]:
        """Logs in twice. A change of the password ends one session, logging out the other."""
        email = self._sign_up(number)
        for turn in count():
            present, new = PASSWORDS[turn % 2], PASSWORDS[(turn + 1) % 2]
            here, there = self._log_in(email, present), self._log_in(email, present)
            for token in (here, there):
                self.ask(200, "GET", "/api/v1/me", token)
            body = {"current_password": present, "new_password": new}
            again = self.ask(204, "POST", "/api/v1/me/password", here, body).token
            self.password_changes += 1
            self._ends(here, there)
            self.ask(401, "POST", "/api/v1/login", body={"email": email, "password": present})
            self.ask(200, "GET", "/api/v1/me", again)
            self.ask(204, "POST", "/api/v1/logout", again)
            self.log_outs += 1
            self._ends(again)
            yield

    def _ends(self, *tokens: str) -> None:
        """These sessions have ended, on every instance from now on."""
        for token in tokens:
            for _ in self._rotation.instances:
                self.ask(401, "GET", "/api/v1/me", token)
        with self._lock:
            self._ended = [*tokens, *self._ended][:REMEMBERED]

    def _try_ended(self, _number: int) -> Iterator[None]:
        draw = random.Random(1)
        while True:
            with self._lock:
                tokens = list(self._ended)
            for token in draw.sample(tokens, min(3, len(tokens))):
                self.ask(401, "GET", "/api/v1/me", token)
            time.sleep(PAUSE)
            yield
