"""The production start of a server, by its own command, as a process; and what is seen of it."""

import http.client
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.instances import ROOT, SERVERS
from tests.support.waiting import wait_until

ECHO = """
import json, time
def app(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"].partition("&")[0] or 0))
    body = json.dumps({k: v for k, v in environ.items() if isinstance(v, (str, bool))}).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Name", "Ad\u00c3\u00a9")])
    return [body]
"""


@contextmanager
def started(
    server: str, environment: Mapping[str, str], log_path: Path, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a server by its own command, as operators do, and stop it at the end.

    Args:
        environment: all of it; PORT is a free one.
        arguments: those of the command; the product is served without any.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*SERVERS[server], *(arguments or ("wsgi:app",))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def run_to_end(
    server: str, environment: Mapping[str, str], application: str = "wsgi:app"
) -> "subprocess.CompletedProcess[str]":
    """Start a server that must end by itself."""
    return subprocess.run(
        [*SERVERS[server], application],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(server: str, environment: Mapping[str, str]) -> list[str]:
    """Start a server that must refuse to start; return what it said, its announcement aside."""
    ended = run_to_end(server, environment)
    assert ended.returncode == 1
    assert ended.stdout == ""
    return [line for line in ended.stderr.splitlines() if "Starting gunicorn" not in line]


def connect(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def connected() -> http.client.HTTPConnection:
        connection.connect()
        return connection

    return wait_until(
        connected, "nobody listens", seconds=60, pause=0.05, ignoring=ConnectionRefusedError
    )


class Serving:
    """A running server with two workers.

    Attributes:
        folders: all that it made for what its workers count.
    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", noted: Path) -> None:
        self.port, self.process, self._noted = port, process, noted

    @property
    def folders(self) -> list[Path]:
        return noted_folders(self._noted)

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def get(self, path: str) -> bytes:
        with closing(connect(self.port)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def value(self, name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").decode())
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        ]
        assert len(found) < 2, "one series of all workers"
        return found[0] if found else 0.0

    def healthy(self) -> float:
        return self.value("authapp_requests_total", method="GET", route="/healthz", status="200")

    def replace_a_worker(self, number: signal.Signals) -> int:
        """How often it asked for `/healthz`."""
        before = self.workers()
        assert self.value("authapp_breaker_open", store="redis") == 2
        os.kill(min(before), number)
        wait_until(lambda: len(self.workers()) == 2 and self.workers() != before)
        wait_until(lambda: self.value("authapp_breaker_open", store="redis") == 1)
        return self.ask_both()

    def ask_both(self) -> int:
        """Until both workers answered; how often it asked for `/healthz`."""
        asked = 0

        def both_answered() -> bool:
            nonlocal asked
            asked += 1
            self.get("/healthz")
            self.get("/readyz")  # asks Redis, in vain: five times, and its breaker opens
            return self.value("authapp_breaker_open", store="redis") == 2

        wait_until(both_answered, pause=0.1)
        return asked


def note_folders(environment: dict[str, str], tmp_path: Path) -> Path:
    """Has Python write down which temporary folders it makes."""
    noted = tmp_path / "folders"
    noted.touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\n"
        "make = tempfile.mkdtemp\n"
        "def noting(*args, **kwargs):\n"
        "    made = make(*args, **kwargs)\n"
        f"    open({str(noted)!r}, 'a').write(made + '\\n')\n"
        "    return made\n"
        "tempfile.mkdtemp = noting\n"
    )
    environment["PYTHONPATH"] = str(tmp_path)
    return noted


def noted_folders(noted: Path) -> list[Path]:
    return [Path(line) for line in noted.read_text().splitlines() if "authapp-metrics." in line]
