"""Contests of log-ins and log-outs: one client, one after the other, as each session ends once."""

import http.client
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.contest import Contest
from benchmarks.report import Sample
from benchmarks.servers import Answer, Server, read_answer

# none of whose sessions another contest needs: a log-in may end the oldest
ACCOUNT = {"email": "grace@example.org", "password": "correct horse battery"}
LOG_INS, LOG_OUTS = 4, 40  # for each second that a contest shall take


@dataclass(frozen=True)
class Post:
    path: str
    cookie: str = ""
    body: Mapping[str, str] | None = None

    def send(self, connection: http.client.HTTPConnection) -> Answer:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        return read_answer(connection, "POST", self.path, headers, self.body)


@dataclass(frozen=True)
class Acts(Contest):
    """
    Attributes:
        before: what begins a session; empty where the acts do that.
        after: what ends a session that an act began; empty where the acts do that.
    """

    before: str = ""
    after: str = ""

    def check(self) -> None:
        self._act(1)

    def load(self, seconds: int) -> Sample:
        return self._act(seconds * (LOG_OUTS if self.before else LOG_INS))

    def _act(self, number: int) -> Sample:
        cookies = [self._begin() if self.before else "" for _ in range(number)]
        body = None if self.before else ACCOUNT
        posts = [Post(self.path, cookie, body) for cookie in cookies]
        sample, answers = timed(self.server, posts)
        for answer in answers:
            if answer.status != self.status:
                raise self.unexpected(answer)
            if self.after:
                self.server.ask("POST", self.after, {"Cookie": answer.cookie})
        return sample

    def _begin(self) -> str:
        answer = self.server.ask("POST", self.before)
        if answer.status != 200 or not answer.cookie:
            raise self.unexpected(answer)
        return answer.cookie


def timed(server: Server, posts: Sequence[Post]) -> tuple[Sample, list[Answer]]:
    """Sends these over one connection, each once the one before is answered."""
    answers, ms = [], []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with closing(connection):
        connection.connect()
        before, began = server.cpu_seconds(), time.perf_counter()
        for post in posts:
            sent = time.perf_counter()
            answers.append(post.send(connection))
            ms.append((time.perf_counter() - sent) * 1000)
        took, used = time.perf_counter() - began, server.cpu_seconds() - before
    ms.sort()
    last = len(ms) - 1
    cpu_us = used / len(posts) * 1e6
    return Sample(len(posts) / took, ms[last // 2], ms[last * 99 // 100], cpu_us), answers


def acts(product: Server, guarded: Server, flask_login: Server, django: Server) -> list[Contest]:
    """Log-ins with bcrypt at 12 rounds, and log-outs."""
    product.ask("POST", "/api/v1/signup", body=ACCOUNT)
    for peer in (flask_login, django):
        peer.ask("POST", "/login")  # makes its account
    peers = (
        ("Flask-Session + Flask-Login", "session to Redis", flask_login),
        ("Django, cached sessions + auth", "session to Redis, visit to Postgres", django),
    )
    hashed = "a password compared by bcrypt, 12 rounds"
    found: list[Contest] = [
        Acts(f"{name}: log-in", f"{hashed}; {does}", server, "/login-by-password", after="/logout")
        for name, does, server in peers
    ]
    found.append(
        Acts(
            "authapp: log-in",
            f"{hashed}, limits counted, session and event to Postgres; log, metrics",
            product,
            "/api/v1/login",
            after="/api/v1/logout",
        )
    )
    found += [
        Acts(f"{name}: log-out", "session removed from Redis", server, "/logout", before="/login")
        for name, _, server in peers
    ]
    found.append(
        Acts(
            "authapp in your app: log-out",
            "session ended and event written in Postgres, on every instance at once",
            guarded,
            "/out",
            before="/in",
        )
    )
    return found
