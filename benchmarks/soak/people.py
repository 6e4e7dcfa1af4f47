"""People who come, look around, write, and go in each way there is; and what must not happen."""

import http.client
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Event, Lock, Thread

from benchmarks.soak.place import QUICKLY

PASSWORD = "copper lantern drifts north"
POOL = 20  # accounts of people who come again and again
PAUSE = 0.05
FORGOTTEN = int(QUICKLY["SESSION_IDLE_SECONDS"]) + 10  # seconds until a session is over by itself
LATELY = 2 * int(QUICKLY["SESSION_IDLE_SECONDS"])  # all copies, fences and limits are gone
RECOVERY = 15.0  # seconds after a restart in which an answer may be 503
KEPT = 2_000  # ended sessions that are tried again


@dataclass(frozen=True)
class Answer:
    """Attributes:
    status: 0 where none came.
    within: seconds until a change holds everywhere.
    """

    status: int
    body: bytes
    token: str = ""
    within: float = 0.0


class Crowd:
    """Threads of people.

    Args:
        pause: seconds, at most, between two requests of a person.

    Attributes:
        problems: somebody was logged out, or an ended session was let in.
        failed: requests that were answered by 5xx, or not at all, while no store restarted.
        asked: requests, by status.
    """

    def __init__(self, port: int, pause: float = PAUSE) -> None:
        self.problems: list[str] = []
        self.failed: list[str] = []
        self.asked: Counter[int] = Counter()
        self.acts: Counter[str] = Counter()
        self._port = port
        self._pause = pause
        self._stop = Event()
        self._lock = Lock()
        self._ended: deque[tuple[float, str, str]] = deque(maxlen=KEPT)
        self._numbers = count(1)
        self._excused_until = 0.0
        self._came: deque[float] = deque(maxlen=100_000)
        self._pool: list[str] = []

    @contextmanager
    def living(self, stayers: int = 3, comers: int = 6) -> Iterator[None]:
        self._pool = [self._sign_up() for _ in range(POOL)]
        lives = [self._stay] * stayers + [self._come] * comers + [self._try_ended]
        threads = [Thread(target=self._live, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)

    @contextmanager
    def excused(self) -> Iterator[None]:
        """A store restarts: 503 is an answer until it has recovered."""
        self._excused_until = float("inf")
        try:
            yield
        finally:
            self._excused_until = time.monotonic() + RECOVERY

    def came(self) -> int:
        """People who came within the time after which nothing is left of them."""
        since = time.monotonic() - LATELY
        return sum(at >= since for at in list(self._came))

    def _live(self, life: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                life()
        except Exception as error:  # noqa: BLE001 - the report shows it
            self.problems.append(f"a thread ended: {error!r}")

    # -- requests

    def _ask(self, method: str, path: str, token: str = "", body: object = None) -> Answer:
        time.sleep(random.random() * self._pause)
        headers = {"Cookie": f"SESSION-TOKEN={token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body)
        excused = time.monotonic() < self._excused_until
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            try:
                connection.request(method, path, payload, headers)
                response = connection.getresponse()
                answer = Answer(
                    response.status,
                    response.read(),
                    _token_of(response.headers.get_all("Set-Cookie") or []),
                    float(response.headers.get("Effective-Within", 0)),
                )
            except (OSError, http.client.HTTPException) as error:
                answer = Answer(0, repr(error).encode())
        with self._lock:
            self.asked[answer.status] += 1
        if (answer.status >= 500 or answer.status == 0) and not (
            excused or time.monotonic() < self._excused_until
        ):
            self.failed.append(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
        return answer

    def _ask_until_known(
        self, method: str, path: str, token: str = "", body: object = None
    ) -> Answer:
        """Asks again while no store can say."""
        while (answer := self._ask(method, path, token, body)).status in {0, 503}:
            if self._stop.wait(0.5):
                break
        return answer

    def _sign_up(self) -> str:
        email = f"p{next(self._numbers)}.{random.randrange(10**9)}@example.org"
        body = {"email": email, "password": PASSWORD}
        answer = self._ask_until_known("POST", "/api/v1/signup", body=body)
        # 409: the answer before was lost
        if answer.status not in {201, 409} and not self._stop.is_set():
            self.problems.append(f"sign-up: {answer}")
        return email

    def _log_in(self, email: str) -> str:
        body = {"email": email, "password": PASSWORD}
        answer = self._ask_until_known("POST", "/api/v1/login", body=body)
        if answer.status != 200 and not self._stop.is_set():
            self.problems.append(f"log-in: {answer}")
        return answer.token

    def _expect_live(self, answer: Answer, act: str) -> None:
        if answer.status == 401:
            self.problems.append(f"logged out: {act}: {answer}")

    def _browse(self, token: str, turns: int) -> None:
        for turn in range(turns):
            for method, path, body in (
                ("GET", "/api/v1/me", None),
                ("GET", "/forward-auth/nginx", None),
                ("PUT", "/data/n", turn),
                ("GET", "/data", None),
                ("GET", "/account", None),
                ("GET", "/api/v1/me/sessions", None),
            ):
                self._expect_live(self._ask(method, path, token, body), path)
                if self._stop.is_set():
                    return

    # -- lives

    def _stay(self) -> None:
        """Stays logged in, for as long as the soak takes."""
        token = self._log_in(self._sign_up())
        while not self._stop.is_set():
            self._browse(token, 1)
            self._stop.wait(0.2)

    def _come(self) -> None:
        """Comes, and goes by logging out, by coming no more, or for good."""
        self._came.append(time.monotonic())
        is_new = random.random() < 0.3
        email = self._sign_up() if is_new else random.choice(self._pool)
        token = self._log_in(email)
        if not token:
            return
        self._browse(token, random.randrange(1, 3))
        if is_new:
            self._go(token, "leave", "DELETE", "/api/v1/me")
        elif random.random() < 0.6:
            self._go(token, "log out", "POST", "/api/v1/logout")
        else:
            self.acts["forget"] += 1
            self._ended.append((time.monotonic() + FORGOTTEN, token, "forget"))

    def _go(self, token: str, act: str, method: str, path: str) -> None:
        answer = self._ask_until_known(method, path, token)
        # 401: it was done, and the answer before was lost
        if answer.status in {202, 204, 401}:
            self.acts[act] += 1
            self._ended.append((time.monotonic() + answer.within, token, act))
        elif not self._stop.is_set():
            self.problems.append(f"{act}: {answer}")

    def _try_ended(self) -> None:
        now = time.monotonic()
        over = [(token, act) for since, token, act in list(self._ended) if since <= now]
        for token, act in random.sample(over, min(5, len(over))):
            answer = self._ask("GET", "/api/v1/me", token)
            if answer.status not in {401, 503, 0}:
                self.problems.append(f"let in after {act}: {answer}")
        self._stop.wait(0.1)


def _token_of(cookies: list[str]) -> str:
    for cookie in cookies:
        name, _, value = cookie.partition(";")[0].partition("=")
        if name == "SESSION-TOKEN":
            return value
    return ""
