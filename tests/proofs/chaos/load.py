"""People who read all the time, on every instance."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Thread

from tests.proofs.chaos.history import Fact, Read, Seen
from tests.proofs.chaos.instances import Answer, Client
from tests.support.instances import Instance

PASSWORD = "copper lantern drifts north"

Probe = Callable[[Client], tuple[Answer, Seen]]
"""Asks once; gives the answer and the facts it showed: none if nobody could say."""

LIVE, ENDED = "live", "ended"
UNKNOWN = frozenset({0, 503})
"""The worker died, or no store could say: nothing was shown and nothing promised."""

_numbers = count(1)


@dataclass(eq=False)
class Session:
    """Attributes:
    token: opaque, or the access token of a program.
    refresh_token: a program's.
    """

    token: str
    lives: Fact
    id: str = ""
    refresh_token: str = ""


@dataclass
class Person:
    """Somebody, and what is known of them."""

    email: str
    id: str
    name: Fact
    roles: Fact
    active: Fact
    sessions: list[Session] = field(default_factory=list)


def a_person(client: Client) -> Person:
    """Signs somebody up."""
    email = f"chaos.{next(_numbers)}.{random.randrange(10**9)}@example.org"
    body = {"email": email, "password": PASSWORD, "name": "n0"}
    answer = client.ask("POST", "/api/v1/signup", body=body)
    assert answer.status == 201, answer
    return Person(
        email,
        answer.body["id"],
        Fact(f"name {email}", "n0"),
        Fact(f"roles {email}", "user"),
        Fact(f"active {email}", "accepted"),
    )


def begun(person: Person, answer: Answer) -> Session:
    """The session that an answer began."""
    fact = Fact(f"session {person.email} {answer.token[:6]}", LIVE)
    session = Session(answer.token, fact)
    session.id = (answer.body or {}).get("session", {}).get("id", "")
    person.sessions.append(session)
    return session


def log_in(client: Client, person: Person, password: str = PASSWORD) -> Session:
    body = {"email": person.email, "password": password}
    answer = client.ask("POST", "/api/v1/login", body=body)
    assert answer.status == 200, answer
    return begun(person, answer)


def log_in_program(client: Client, person: Person) -> Session:
    body = {"email": person.email, "password": PASSWORD, "refresh": True}
    answer = client.ask("POST", "/api/v1/tokens", body=body)
    assert answer.status == 200, answer
    token, refresh_token = answer.body["access_token"], answer.body["refresh_token"]
    fact = Fact(f"program {person.email} {refresh_token[:6]}", LIVE)
    session = Session(token, fact, refresh_token=refresh_token)
    person.sessions.append(session)
    return session


# -- probes ----------------------------------------------------------------------------------------


def shows_me(person: Person, session: Session) -> Probe:
    """The session's copy, with its snapshot of the user."""

    def probe(client: Client) -> tuple[Answer, Seen]:
        return _shown(client.ask("GET", "/api/v1/me", session.token), person, session)

    return probe


def shows_user(person: Person, session: Session) -> Probe:
    """The user's copy."""

    def probe(client: Client) -> tuple[Answer, Seen]:
        path = f"/api/v1/users/{person.id}"
        return _shown(client.ask("GET", path, session.token), person, session)

    return probe


def shows_permission(person: Person, session: Session) -> Probe:
    """A probe of a page that only administrators may see."""

    def probe(client: Client) -> tuple[Answer, Seen]:
        answer = client.ask("GET", "/api/v1/roles", session.token)
        if answer.status == 401:
            return answer, ((session.lives, ENDED),)
        role = {200: "admin", 403: "user"}.get(answer.status)
        return answer, ((session.lives, LIVE), (person.roles, role)) if role else ()

    return probe


def _shown(answer: Answer, person: Person, session: Session) -> tuple[Answer, Seen]:
    if answer.status == 401:
        return answer, ((session.lives, ENDED),)
    if answer.status != 200:
        return answer, ()
    return answer, (
        (session.lives, LIVE),
        (person.name, answer.body["name"]),
        (person.roles, "admin" if "admin" in answer.body["roles"] else "user"),
    )


def shows_password(person: Person, password: str, accepted: Fact) -> Probe:
    """Whether this password is taken. Leaves a session each time it is."""

    def probe(client: Client) -> tuple[Answer, Seen]:
        body = {"email": person.email, "password": password}
        answer = client.ask("POST", "/api/v1/login", body=body)
        value = {200: "accepted", 401: "refused"}.get(answer.status)
        return answer, ((accepted, value),) if value else ()

    return probe


def shows_data(session: Session, data: dict[str, Fact]) -> Probe:
    """Values of `flask.session`."""

    def probe(client: Client) -> tuple[Answer, Seen]:
        answer = client.ask("GET", "/data", session.token)
        if answer.status == 401:
            return answer, ((session.lives, ENDED),)
        if answer.status != 200:
            return answer, ()
        values = [(fact, str(answer.body.get(key))) for key, fact in data.items()]
        return answer, ((session.lives, LIVE), *values)

    return probe


# -- readers ---------------------------------------------------------------------------------------


class Load:
    """Readers, some at each instance, who go through the probes again and again.

    Attributes:
        probes: replace it as a whole.
        problems: what no answer may be, whatever it shows.
    """

    def __init__(
        self, instances: Sequence[Instance], readers: int, pause: float, tolerated: frozenset[int]
    ) -> None:
        self.probes: Sequence[Probe] = ()
        self.reads: list[Read] = []
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []
        self._instances = instances
        self._readers = readers
        self._pause = pause
        self._tolerated = tolerated | {200, 401, 403}
        self._stop = Event()

    @contextmanager
    def running(self) -> Iterator["Load"]:
        threads = [
            Thread(target=self._read, args=(instance, number), daemon=True)
            for instance in self._instances
            for number in range(self._readers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in threads), "a reader hangs"

    def go_on(self, reads: int) -> None:
        """Returns when as many more are done."""
        enough, deadline = len(self.reads) + reads, time.monotonic() + 20
        while len(self.reads) < enough:
            assert not self.problems, self.problems[:5]
            assert time.monotonic() < deadline, "the readers are too slow"
            time.sleep(0.005)

    def _read(self, instance: Instance, number: int) -> None:
        client = Client(instance)
        draw = random.Random(number)
        try:
            while not self._stop.is_set():
                probes = self.probes
                for probe in draw.sample(probes, len(probes)):
                    self.take(client, probe)
                    time.sleep(draw.random() * self._pause)
                    if self._stop.is_set() or probes is not self.probes:
                        break
                else:
                    time.sleep(0.001)
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.problems.append(f"a reader ended: {error!r}")
        finally:
            client.close()

    def take(self, client: Client, probe: Probe) -> Seen:
        """Reads once and notes what was seen."""
        answer, seen = probe(client)
        self.statuses[answer.status] += 1
        if answer.status not in self._tolerated:
            self.problems.append(f"{answer}")
        if answer.clears_cookie:
            self.problems.append(f"a read cleared the cookie: {answer}")
        self.reads.append(Read(answer.start, answer.end, seen, client.instance.name))
        return seen
