"""A contest: one request to one server, checked before it is timed."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import Sample
from benchmarks.servers import Answer, BenchmarkError, Server

CONNECTIONS = 8


@dataclass(frozen=True)
class Contest:
    """
    Attributes:
        does: what is done for the answer, so that nobody compares what differs.
        body: is in the answer.
        cookies: of sessions that the requests take turns of, in place of one in `headers`.
    """

    name: str
    does: str
    server: Server
    path: str
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()

    def check(self) -> None:
        """
        Raises:
            BenchmarkError: the answer is not the one that shall be measured.
        """
        headers = {"Cookie": self.cookies[0]} if self.cookies else self.headers
        answer = self.server.ask("GET", self.path, headers)
        if answer.status != self.status or self.body not in answer.body:
            raise self.unexpected(answer)

    def unexpected(self, answer: Answer) -> BenchmarkError:
        told = f"{answer.status} {answer.body[:200]!r}"
        return BenchmarkError(f"{self.name}: {self.path} answered {told}")

    def load(self, seconds: int) -> Sample:
        """Asks for so long, over several connections.

        Raises:
            BenchmarkError: an answer was not as expected.
        """
        before = self.server.cpu_seconds()
        headers = [
            word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")
        ]
        said = subprocess.run(
            [
                *("wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s"),
                *("-s", str(Path(__file__).with_name("load.lua")), *headers),
                f"http://127.0.0.1:{self.server.port}{self.path}",
                *(("--", *self.cookies) if self.cookies else ()),
            ],
            capture_output=True,
            check=True,
            text=True,
            timeout=seconds + 60,
        )
        told = json.loads(said.stdout.strip().splitlines()[-1])
        refused = told["requests"] if self.status >= 400 else 0
        if told["refused"] != refused or told["failed"] or not told["requests"]:
            raise BenchmarkError(f"{self.name}: not all answers were as expected: {told}")
        used = self.server.cpu_seconds() - before
        return Sample(
            per_second=told["requests"] / told["seconds"],
            p50_ms=told["p50_ms"],
            p99_ms=told["p99_ms"],
            cpu_us=used / told["requests"] * 1e6,
        )
