"""What a session check costs beside an answer that asks nothing, on one gunicorn worker."""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authapp import embedded, schema

ROUNDS = 5
REQUESTS = 1_000
PORT = 8077
ACCOUNT = {"email": "bench@example.org", "password": "correct horse battery"}
JSON = {"Content-Type": "application/json"}


def main() -> None:
    with _served() as connection:
        _send(connection, "POST", "/api/v1/signup", 201, JSON, ACCOUNT)
        cookie = _send(connection, "POST", "/api/v1/login", 200, JSON, ACCOUNT).split(";")[0]
        name, _, token = cookie.partition("=")
        forged = f"{name}={token[:-4]}AAAA"
        cases = {
            "no session asked for (/healthz)": ("/healthz", 200, {}),
            "live session (/api/v1/me)": ("/api/v1/me", 200, {"Cookie": cookie}),
            "forged token (/api/v1/me)": ("/api/v1/me", 401, {"Cookie": forged}),
        }
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(ROUNDS):  # in turn, for the machine's speed drifts
            for case, (path, status, headers) in cases.items():
                started = time.perf_counter()
                for _ in range(REQUESTS):
                    _send(connection, "GET", path, status, headers)
                seconds[case].append((time.perf_counter() - started) / REQUESTS)
    base = seconds["no session asked for (/healthz)"]
    _say(f"{'one client, one worker':34} {'us/request':>10} {'speed, ratio to the first':>26}")
    for case, times in seconds.items():
        ratios = [first / own for first, own in zip(base, times, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        _say(f"{case:34} {statistics.median(times) * 1e6:10.0f} {ratio:>26}")
    _say(f"median and spread of {ROUNDS} alternating rounds of {REQUESTS} requests")


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    headers: dict[str, str],
    body: dict[str, str] | None = None,
) -> str:
    """Gives the Set-Cookie header. An answer that is not the expected one ends the run."""
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != status:
        sys.exit(f"{method} {path} answered {answer.status}, not {status}: {text[:200]!r}")
    return answer.headers.get("Set-Cookie", "")


@contextmanager
def _served() -> Iterator[http.client.HTTPConnection]:
    with (
        tempfile.TemporaryDirectory(prefix="authapp-bench-") as directory,
        embedded.private_socket_dir() as sockets,
        embedded.PostgreSQL.start(Path(directory, "pg"), sockets, "bench") as postgres,
        embedded.Valkey.start(Path(directory, "valkey"), sockets, "bench") as valkey,
    ):
        schema.upgrade(postgres.url)
        environment = os.environ | {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "SECRET_KEY": "benchmark-" * 5,
            "PASSWORD_PEPPER": "benchmark-" * 5,
            "SESSION_COOKIE_SECURE": "0",
            "PORT": str(PORT),
            "WEB_CONCURRENCY": "1",
        }
        with open(Path(directory, "log"), "w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "wsgi:app"], env=environment, stderr=log
            )
            try:
                yield _connected()
            finally:
                server.terminate()
                server.wait(30)


def _connected() -> http.client.HTTPConnection:
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        try:
            connection.connect()
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("the server did not start")
            time.sleep(0.1)
        else:
            return connection


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
