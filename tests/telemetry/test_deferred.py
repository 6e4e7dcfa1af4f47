"""Notes of requests are flushed a moment later: once, by the process that noted them, surely."""

import _thread
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from authapp.telemetry import deferred, metrics

LOG = """
import logging
from authapp.telemetry.logging import log_request
from authapp.telemetry.logging import configure_logging
configure_logging()
log_request(logging.getLogger("some"), {"event": "request"})
"""


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """None yet; those of the application wait meanwhile."""
    found: list[Callable[[], None]] = []
    monkeypatch.setattr(deferred, "_works", found)
    return found


def test_what_is_due_is_worked_off_once_for_all(works: list[Callable[[], None]]) -> None:
    done, calls = threading.Event(), []

    @deferred.register
    def work() -> None:
        calls.append(threading.current_thread().name)
        done.set()

    for _ in range(1_000):
        deferred.request_flush()
    assert done.wait(30)
    assert calls == ["deferred"]


def test_an_error_is_shown_and_the_next_are_worked_off(works: list[Callable[[], None]]) -> None:
    done = threading.Event()
    works.append(lambda: 1 / 0)  # type: ignore[arg-type]
    deferred.request_flush()
    worker = deferred._worker
    assert worker is not None
    worker.join(30)
    works[:] = [done.set]
    deferred.request_flush()
    assert done.wait(30)


def test_what_is_due_while_an_error_happens_is_worked_off_by_the_next(
    works: list[Callable[[], None]],
) -> None:
    """Or one failed write under load would be the last."""
    done, failed = threading.Event(), threading.Event()

    def fails() -> None:
        deferred.request_flush()  # by a request meanwhile
        works[:] = [done.set]
        failed.set()
        raise RuntimeError("a defect")

    works.append(fails)
    deferred.request_flush()
    assert failed.wait(30)
    deadline = time.monotonic() + 10
    while not done.wait(0.05):
        assert time.monotonic() < deadline
        deferred.request_flush()


def test_a_log_that_can_not_be_written_fails_nothing() -> None:
    """A full disk; and what is no request's line is told to fail in the way of the library."""
    script = LOG + (
        "import authapp.telemetry.deferred, os\n"
        "logging.getLogger('some').warning('full')\n"
        "log_request(logging.getLogger('some'), {'event': 'request'})\n"
        "authapp.telemetry.deferred.flush()\n"
        "os.write(1, b'done')\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=60,
        )
    assert done.stdout == b"done"


def test_the_end_of_a_process_loses_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOG], capture_output=True, check=True, text=True, timeout=60
    )
    assert json.loads(done.stderr)["event"] == "request"


def test_a_log_that_nobody_reads_keeps_nobody_waiting() -> None:
    """More lines than a pipe takes, twice over; a request would wait for ever."""
    script = LOG + (
        "for number in range(50_000):\n"
        "    log_request(logging.getLogger('some'), {'event': 'request', 'filling': 'x' * 100})\n"
        "import os\nos.write(1, b'done')\nos._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0]
        assert process.stdout.read(4) == b"done"


def test_the_end_of_a_process_loses_no_count(tmp_path: Path) -> None:
    script = (
        "from authapp.telemetry import deferred, metrics\n"
        "deferred.count(metrics.LOGINS.labels('end'))\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=environment)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    assert registry.get_sample_value("authapp_logins_total", {"outcome": "end"}) == 1


def test_a_fork_writes_no_line_of_its_parent() -> None:
    script = LOG + "import os\nif os.fork() == 0:\n    raise SystemExit\nos.wait()\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=60
    )
    assert len(done.stderr.splitlines()) == 1


def test_what_threads_count_is_all_counted_also_when_they_are_gone() -> None:
    counter = metrics.COPIES.labels("test", "hit")
    before = counter._value.get()

    def work() -> None:
        for _ in range(1_000):
            deferred.count(counter)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
        deferred.add_counts()
    for thread in threads:
        thread.join()
    deferred.add_counts()
    deferred.add_counts()
    assert counter._value.get() - before == 8_000


def test_threads_that_python_did_not_start_count() -> None:
    """As a server in another language has."""
    counter = metrics.COPIES.labels("test", "unreadable")
    before, left = counter._value.get(), threading.Semaphore(0)

    def work() -> None:
        deferred.count(counter)
        left.release()

    for _ in range(20):
        _thread.start_new_thread(work, ())
    assert all(left.acquire(timeout=30) for _ in range(20))
    deferred.add_counts()
    assert counter._value.get() - before == 20


def test_counts_without_a_thread_that_adds_them_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where no thread can be started: memory does not grow with each request."""
    monkeypatch.setattr(deferred, "_start", lambda: None)
    monkeypatch.setattr(deferred, "_worker", None)
    counter = metrics.COPIES.labels("test", "unstarted")
    for _ in range(120_000):
        deferred.count(counter)
    assert len(deferred._counts) <= 100_000
    deferred.add_counts()


def test_a_fork_counts_nothing_of_its_parent() -> None:
    counter = metrics.COPIES.labels("test", "miss")
    deferred.add_counts()
    deferred.count(counter)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        before = counter._value.get()
        deferred.add_counts()
        os.write(write, b"%d" % (counter._value.get() - before))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"0"


def test_times_are_observed_as_the_library_does() -> None:
    ours, theirs = (metrics.REQUEST_SECONDS.labels(name) for name in ("/ours", "/theirs"))
    stopwatch = metrics.Stopwatch(ours)
    for seconds in (0.0, 0.001, 0.0011, 0.3, 5, 60):
        deferred.count_all(stopwatch.amounts(seconds))
        theirs.observe(seconds)
    deferred.add_counts()
    for a, b in zip(ours._buckets, theirs._buckets, strict=True):
        assert a.get() == b.get()
    assert ours._sum.get() == theirs._sum.get()
