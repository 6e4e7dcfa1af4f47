"""Instances of the product to be broken, and clients that note what they answer."""

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.instances import Instance, serving
from tests.support.settings import UNLIMITED, environment_for

APPLICATION = "tests.proofs.chaos.app:app"
ANSWER_SECONDS = 15.0  # above all time-outs of the product together
COOKIE = "SESSION-TOKEN"


def lenient_environment(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """The environment of an instance without any limit that a test could run into."""
    lenient = {
        "LOGIN_LIMIT_PER_ADDRESS": UNLIMITED,
        "LOGIN_FAILURES_PER_ACCOUNT": UNLIMITED,
        "SESSION_MAX_PER_USER": "1000",
    }
    return environment_for(database_url, redis_url, **(lenient | more))


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes:
    status: 0 when the connection broke before there was an answer.
    set_cookie: the header's text, empty without one.
    within: seconds after which a change holds on every instance; mostly 0, at once.
    """

    status: int
    body: Any
    set_cookie: str
    start: float
    end: float
    within: float = 0.0

    @property
    def token(self) -> str:
        """The token of the session that began."""
        name, _, value = self.set_cookie.partition(";")[0].partition("=")
        assert name == COOKIE, self
        assert value, self
        return value

    @property
    def says_busy(self) -> bool:
        return self.status == 503 and "Many people" in (self.body or {}).get("detail", "")

    @property
    def clears_cookie(self) -> bool:
        return "Max-Age=0" in self.set_cookie


def holds(is_so: Callable[[], bool], *changes: Answer) -> bool:
    """Whether it is so as soon as these changes hold: at once, unless an answer gave a bound."""
    due = max(change.end + change.within for change in changes)
    while True:
        last = time.monotonic() >= due
        if is_so():
            return True
        if last:
            return False
        time.sleep(0.05)


class Client:
    """Asks one instance, one request at a time, on a connection that is kept."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", instance.port, timeout=ANSWER_SECONDS
        )

    def ask(self, method: str, path: str, token: str = "", body: object = None) -> Answer:
        """Asks; and again when too many use passwords at this moment, as clients are told to."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self._ask_once(method, path, token, body)
            if not answer.says_busy or time.monotonic() > deadline:
                return answer
            time.sleep(random.uniform(0.005, 0.05))

    def _ask_once(self, method: str, path: str, token: str, body: object) -> Answer:
        headers = {"Accept": "application/json"}
        if token:
            headers |= _carrying(token)
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body)
        start = time.monotonic()
        try:
            self._connection.request(method, path, payload, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):  # the worker died, or its listener was full
            self._connection.close()
            return Answer(0, None, "", start, time.monotonic())
        return Answer(
            response.status,
            json.loads(text) if text else None,
            response.headers.get("Set-Cookie", ""),
            start,
            time.monotonic(),
            float(response.headers.get("Effective-Within", 0)),
        )

    def read_text(self, path: str) -> str:
        """
        Raises:
            OSError, http.client.HTTPException
        """
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def close(self) -> None:
        self._connection.close()


def _carrying(token: str) -> dict[str, str]:
    if token.count(".") == 2:  # a JWT
        return {"Authorization": f"Bearer {token}"}
    return {"Cookie": f"{COOKIE}={token}"}


@contextmanager
def served(environment: Mapping[str, str], folder: Path, name: str) -> Iterator[Instance]:
    """Serve the product, with a few pages more, on a free port of 127.0.0.1."""
    with serving(APPLICATION, environment, folder / f"{name}.log", "--threads", "4") as instance:
        yield instance
