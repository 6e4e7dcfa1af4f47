"""A worker that takes a dead worker's slot keeps its counters and drops its gauges."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import multiprocess

from authapp.serving import metrics_dir
from tests.support.instances import ROOT

WORKER = """
from authapp.serving import metrics_dir
metrics_dir.make()
from authapp.telemetry import metrics
slot = metrics_dir.claim_slot()
metrics.count_in(slot)
metrics.HASHING.inc()
metrics.STALE_COPIES.inc()
shown = sorted(metrics.exposition().decode().splitlines())
kept = ("authapp_hashing_occupied", "authapp_stale_copies_total")
print(slot, *(line.split()[-1] for line in shown if line.startswith(kept)), flush=True)
input()
"""

# `create_app` and the first request make what has labels
STARTING = """
import shutil
from authapp.serving import common, metrics_dir
from authapp.telemetry import metrics
claim_slot = metrics_dir.claim_slot
def claim():
    slot = claim_slot()
    # before it has a slot
    return slot
metrics_dir.claim_slot = claim
common.register_worker()
# before it counts
metrics.HASHING.inc()
metrics.STALE_COPIES.inc()
metrics.PENDING_FENCES.set(1)
metrics.BREAKER_OPEN.labels("redis").set(0)
metrics.LOGINS.labels("succeeded").inc()
metrics.REQUEST_SECONDS.labels("/login").observe(1)
print("counted")
"""


def worker(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_slots_are_taken_by_one_each_and_left_when_it_is_killed(tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        assert said(first) == "worker1 1.0 1.0"
        with worker(tmp_path) as second:
            assert said(second) == "worker2 2.0 2.0"
            first.kill()
            first.wait()
            with worker(tmp_path) as third:
                assert said(third) == "worker1 2.0 3.0"
                third.kill()
            second.kill()
    assert len(list(tmp_path.glob("counter_worker*.db"))) == 2
    for file in tmp_path.glob("*_worker*.db"):
        found = file.stat()
        assert found.st_blocks * 512 >= found.st_size >= 65_536, f"no room is kept for {file}"


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """And the worker that begins then is as good as any; the one before it goes on."""
    folder = tmp_path / "authapp-metrics.1"
    folder.mkdir()
    with worker(folder) as first:
        assert said(first) == "worker1 1.0 1.0"
        shutil.rmtree(folder)
        with worker(folder) as second, worker(folder) as third:
            assert {said(second), said(third)} == {"worker1 1.0 1.0", "worker2 2.0 2.0"}
            assert metrics_dir._lock(str(folder), os.O_DIRECTORY) is None, (
                "another start would tidy it up"
            )
            for process in (first, second, third):
                assert process.poll() is None
                process.kill()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_no_file_takes_the_place_of_a_folder_that_is_removed_as_soon_as_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could make the folder, then."""
    folder = tmp_path / "authapp-metrics.1"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    make = Path.mkdir

    def make_and_remove(path: Path, mode: int) -> None:
        make(path, mode)
        path.rmdir()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", make_and_remove)
        with pytest.raises(FileNotFoundError):
            metrics_dir.claim_slot()
    assert metrics_dir.claim_slot() == "worker1"


@pytest.mark.parametrize("when", ["before it counts", "before it has a slot"])
def test_a_folder_that_is_removed_while_a_worker_starts_ends_no_server(
    tmp_path: Path, when: str
) -> None:
    """The worker goes on, or ends as servers take it for no error of the app."""
    folder = tmp_path / "authapp-metrics.1"
    folder.mkdir()
    starting = STARTING.replace(f"# {when}", f"shutil.rmtree({str(folder)!r})")
    assert "rmtree" in starting
    started = subprocess.run(
        [sys.executable, "-c", starting],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    if when == "before it counts":
        assert started.stdout == "counted\n"
    else:
        assert started.stdout == ""
        assert started.stderr.startswith(f"authapp: {folder}")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS keeps no room")
def test_metrics_can_be_read_while_a_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    seen = []

    def looks(_descriptor: int, _offset: int, _size: int) -> None:
        files = [str(path) for path in tmp_path.glob("*.db")]
        merged = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        seen.append([*merged])

    monkeypatch.setattr(os, "posix_fallocate", looks)
    metrics_dir.claim_slot()
    assert seen == [[]] * 4, "nothing is counted yet"


def test_a_folder_that_somebody_else_put_in_its_place_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "authapp-metrics.1"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    metrics_dir.mark_dead_workers()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(FileExistsError):
        metrics_dir.claim_slot()
    assert_ends_no_server()


def assert_ends_no_server() -> None:
    """The server itself looks there when a worker has ended."""
    metrics_dir.mark_dead_workers()


def test_a_worker_counts_by_itself_where_the_folder_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "authapp-metrics.1"
    temporary.mkdir()
    (folder / "slots.lock").mkdir(parents=True)
    started = subprocess.run(
        [sys.executable, "-c", STARTING],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (started.returncode, started.stdout) == (0, "counted\n"), started.stderr
    assert started.stderr.endswith("this worker counts by itself\n")
    assert not [*temporary.iterdir()], "its own folder goes with it"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    assert_ends_no_server()


def test_who_was_stopped_while_it_took_a_slot_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(metrics_dir, "_PATIENCE", 0.1)
    with (tmp_path / "slots.lock").open("a") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            metrics_dir.claim_slot()
        assert_ends_no_server()


def test_without_room_in_memory_the_folder_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_dir, "_ENOUGH", 1 << 62)
    assert metrics_dir._in_memory() is None


def test_a_stop_that_comes_while_a_worker_starts_is_not_lost(tmp_path: Path) -> None:
    """Until then the worker has the signal handlers of the server that forked it."""
    stopped = (
        "import os, signal\n"
        "from authapp.serving import common\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "common.register_worker()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", stopped],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGTERM
