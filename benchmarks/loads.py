"""The loads on a server, side by side: session checks at a fixed rate, continuous log-ins, and
bcrypt alone. Each runs in a process of its own, so that none waits for the interpreter of
another."""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import bcrypt

CONNECTIONS = 16  # more than are ever busy at once: a check never waits for one of ours
WAIT = 30.0  # seconds for an answer


@dataclass(frozen=True)
class Check:
    """A request that is answered from a session."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Checks:
    """
    Attributes:
        ms: how long each took, by path.
        failed: how many were not answered with 200.
    """

    ms: dict[str, list[float]]
    failed: int


def check_sessions(port: int, checks: Sequence[Check], rate: float, seconds: float) -> Checks:
    """Asks these in turn, `rate` a second, evenly.

    Each is timed from when it was to be sent: when answers stall, the requests behind them are late
    and count as such, as they would for people, who do not wait for each other.
    """
    ms: dict[str, list[float]] = {check.path: [] for check in checks}
    failed: list[int] = []
    numbers = iter(range(int(rate * seconds)))
    lock = threading.Lock()
    begins = time.perf_counter() + 0.1

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        with closing(connection):
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                check = checks[number % len(checks)]
                due = begins + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.request("GET", check.path, headers=dict(check.headers))
                answer = connection.getresponse()
                answer.read()
                ms[check.path].append((time.perf_counter() - due) * 1000)
                if answer.status != 200:
                    failed.append(answer.status)

    _at_once([ask] * CONNECTIONS)
    return Checks(ms, len(failed))


@dataclass(frozen=True)
class LogIns:
    """
    Attributes:
        per_second: of those that succeeded, between the first and the last.
        busy: how many were told to come back.
        failed: how many were answered anything else.
        slowest_ms: of those that succeeded.
    """

    per_second: float
    succeeded: int
    busy: int
    failed: int
    slowest_ms: float


@dataclass(frozen=True)
class People:
    """Accounts with one password; each log-in takes the next account."""

    emails: tuple[str, ...]
    password: str


def log_in(port: int, people: People, clients: int, seconds: float, *, patient: bool) -> LogIns:
    """So many clients, each of which logs somebody in, and then somebody else.

    Args:
        patient: who is told to come back does so when told to (`Retry-After`); else at once.
    """
    ends = time.perf_counter() + seconds
    emails = count()
    done: list[tuple[float, float]] = []
    refused: list[int] = []

    def log_people_in() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        with closing(connection):
            email = None
            while (started := time.perf_counter()) < ends:
                email = email or people.emails[next(emails) % len(people.emails)]
                body = json.dumps({"email": email, "password": people.password})
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/api/v1/login", body, headers)
                answer = connection.getresponse()
                answer.read()
                now = time.perf_counter()
                if answer.status == 200:
                    email = None
                    done.append((now, now - started))
                    continue
                refused.append(answer.status)
                if answer.status == 503 and patient:
                    pause = float(answer.headers["Retry-After"])
                    time.sleep(max(0.0, min(pause, ends - now)))

    _at_once([log_people_in] * clients)
    # between the first and the last: what is under way at the beginning or the end is not cut off
    moments = sorted(moment for moment, _ in done)
    took = moments[-1] - moments[0] if len(moments) > 1 else 0.0
    busy = refused.count(503)
    return LogIns(
        per_second=(len(moments) - 1) / took if took else 0.0,
        succeeded=len(moments),
        busy=busy,
        failed=len(refused) - busy,
        slowest_ms=max((seconds for _, seconds in done), default=0.0) * 1000,
    )


@dataclass(frozen=True)
class Outcome:
    """What became of a crowd.

    Attributes:
        slowest: seconds until the last of those who got in was in, from their own press.
        refused_after: seconds after which the last of those who were refused knew.
        retry_after: seconds that they were told, the longest.
    """

    logged_in: int
    refused: int
    failed: int
    slowest: float
    refused_after: float
    retry_after: int


def log_in_crowd(port: int, people: People, number: int, path: str) -> Outcome:
    """So many people press the button, evenly within a second."""
    answers: list[tuple[int, float, int]] = []
    begins = time.perf_counter() + 0.2

    def press(who: int) -> None:
        due = begins + who / number
        body = json.dumps({"email": people.emails[who], "password": people.password})
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            wait = int(answer.headers.get("Retry-After") or 0)
            answers.append((answer.status, time.perf_counter() - due, wait))

    threads = [threading.Thread(target=press, args=(who,)) for who in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [took for status, took, _ in answers if status == 200]
    told = [(took, wait) for status, took, wait in answers if status == 503]
    return Outcome(
        logged_in=len(done),
        refused=len(told),
        failed=number - len(done) - len(told),
        slowest=max(done, default=0.0),
        refused_after=max((took for took, _ in told), default=0.0),
        retry_after=max((wait for _, wait in told), default=0),
    )


@dataclass(frozen=True)
class Hashes:
    """
    Attributes:
        cpu_seconds: that they took.
    """

    per_second: float
    cpu_seconds: float


def hash_alone(cores: frozenset[int], rounds: int, seconds: float, *, yields: bool) -> Hashes:
    """Compares passwords with bcrypt on these cores.

    Args:
        yields: to all others, as the product's hashing does.
    """
    os.sched_setaffinity(0, cores)
    if yields:
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    hashed = bcrypt.hashpw(b"benchmark", bcrypt.gensalt(rounds))
    started, before, done = time.perf_counter(), time.process_time(), 0
    while (took := time.perf_counter() - started) < seconds:
        bcrypt.checkpw(b"benchmark", hashed)
        done += 1
    return Hashes(done / took, time.process_time() - before)


def _at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs each on a thread of its own.

    Raises:
        Exception: what the first of them raised that failed.
    """
    failures: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 — raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
