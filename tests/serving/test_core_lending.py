"""Workers of a server hash on each other's cores, each of which serves one hash at a time."""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from authapp.errors import Busy
from authapp.passwords import hashing_queue
from authapp.passwords.hashing_queue import HashingQueue
from authapp.serving import core_lending
from authapp.serving.core_lending import CoreLending
from tests.support.instances import ROOT
from tests.support.waiting import wait_until

WORKER = """
import sys
from pathlib import Path
from authapp.serving.core_lending import CoreLending
lending = CoreLending(Path(sys.argv[1]), "killed")
lending.tell(int(sys.argv[2]))
print("ready", flush=True)
input()
"""


@pytest.fixture
def mine(tmp_path: Path) -> CoreLending:
    return CoreLending(tmp_path, "worker1")


@pytest.fixture
def other(tmp_path: Path, mine: CoreLending) -> CoreLending:
    return CoreLending(tmp_path, "worker2")


def can_borrow(worker: CoreLending) -> bool:
    with worker.borrow() as is_borrowed:
        return is_borrowed


def test_a_worker_without_log_ins_lends_its_core(mine: CoreLending, other: CoreLending) -> None:
    assert can_borrow(mine)
    other.tell(1)
    assert not can_borrow(mine)
    other.tell(0)
    assert can_borrow(mine)


def test_nobody_borrows_from_itself(mine: CoreLending) -> None:
    assert not can_borrow(mine)


def test_a_core_is_lent_to_one(mine: CoreLending, other: CoreLending, tmp_path: Path) -> None:
    third = CoreLending(tmp_path, "worker3")
    mine.tell(1)
    third.tell(1)
    with mine.borrow() as is_borrowed:
        assert is_borrowed
        assert not can_borrow(third)
    assert can_borrow(third)


def test_the_owner_waits_for_the_hash_on_its_core_and_comes_first_then(
    mine: CoreLending, other: CoreLending
) -> None:
    has_it = threading.Event()

    def take() -> None:
        with other.own():
            has_it.set()
            assert not can_borrow(mine)

    with ThreadPoolExecutor(1) as pool:
        with mine.borrow() as is_borrowed:
            assert is_borrowed
            other.tell(1)
            taking = pool.submit(take)
            assert not has_it.wait(0.1)
        assert not can_borrow(mine)
        taking.result(30)


def running(script: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    """A process of its own that runs a script, whose input and output are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("held", [0, 7])
def test_a_killed_worker_neither_lends_nor_counts(
    mine: CoreLending, tmp_path: Path, held: int
) -> None:
    with running(WORKER, tmp_path, str(held)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert mine.others() == [held]
        assert can_borrow(mine) is (held == 0)
        process.kill()
    assert mine.others() == []
    assert not can_borrow(mine)
    CoreLending(tmp_path, "killed")
    assert mine.others() == [0]


BORROWER = """
import sys
from pathlib import Path
from authapp.serving.core_lending import CoreLending
with CoreLending(Path(sys.argv[1]), "borrower").borrow() as has_one:
    print(has_one, flush=True)
    input()
"""


def test_a_borrower_that_is_stopped_keeps_no_core_from_its_owner(
    mine: CoreLending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_lending, "_LONGEST_LOAN", 0.2)
    with running(BORROWER, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGSTOP)
        try:
            with mine.own():
                pass
            monkeypatch.setattr(core_lending, "_LONGEST_LOAN", 3600)
            with mine.own():  # it waits once, and not for each hash
                pass
        finally:
            process.kill()
    other = CoreLending(tmp_path, "worker2")
    with mine.own():
        assert not can_borrow(other), "it was given back"
    assert can_borrow(other)


def test_who_was_stopped_while_it_looked_keeps_no_worker_from_starting(
    mine: CoreLending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_lending, "_LONGEST_LOOK", 0.1)
    with (tmp_path / "worker2.worker").open("a") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        other = CoreLending(tmp_path, "worker2")
    other.tell(3)
    assert mine.others() == [3]


def test_without_a_folder_each_uses_its_own_core(
    mine: CoreLending, other: CoreLending, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    mine.tell(1)
    assert mine.others() == []
    assert not can_borrow(other)
    with mine.own():
        pass


def test_without_a_descriptor_left_each_uses_its_own_core(
    mine: CoreLending, other: CoreLending
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    child = os.fork()  # the limit is the process's, and others run in this one
    if child == 0:
        status = 1
        with suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
            with mine.own():
                status = 0 if mine.others() == [] and not can_borrow(mine) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- the queue of a worker -------------------------------------------------------------------------


@pytest.fixture
def lending_queue(mine: CoreLending, monkeypatch: pytest.MonkeyPatch) -> HashingQueue:
    monkeypatch.setitem(hashing_queue._lending, os.getpid(), mine)
    return HashingQueue(100, seconds=0.5, patience=5)


@contextmanager
def log_ins_that_wait_for_each_other(
    queue: HashingQueue, many: int, seconds: float = 30
) -> Iterator[Barrier]:
    """None of them is hashed until all of them are, at the same time, within so many seconds."""
    together = Barrier(many)

    def log_in() -> None:
        with queue.place():
            queue.run(lambda: together.wait(seconds))

    with ThreadPoolExecutor(many) as pool:
        waiting = [pool.submit(log_in) for _ in range(many)]
        yield together
        for one in waiting:
            one.result(30)


def test_a_queue_is_hashed_on_the_cores_of_workers_without_log_ins(
    lending_queue: HashingQueue, other: CoreLending
) -> None:
    with log_ins_that_wait_for_each_other(lending_queue, 2) as together:
        pass
    assert not together.broken


def test_a_queue_is_not_hashed_on_the_cores_of_workers_with_log_ins(
    lending_queue: HashingQueue, other: CoreLending
) -> None:
    other.tell(1)
    with (
        pytest.raises(BrokenBarrierError),
        log_ins_that_wait_for_each_other(lending_queue, 2, seconds=1),
    ):
        pass


def test_others_know_of_log_ins_until_they_are_over(
    lending_queue: HashingQueue, other: CoreLending
) -> None:
    with lending_queue.place():
        assert other.others() == [1]
        assert not can_borrow(other)
        with lending_queue.place():
            assert other.others() == [2]
    assert other.others() == [0]
    assert can_borrow(other)


def test_a_hash_outside_of_a_log_in_keeps_the_core_too(
    lending_queue: HashingQueue, other: CoreLending
) -> None:
    other.tell(1)  # lends nothing, so it is hashed on the own core
    assert lending_queue.run(lambda: can_borrow(other)) is False
    wait_until(lambda: can_borrow(other), "the core was kept")


@pytest.mark.parametrize(
    ("held_by_other", "room"),
    [
        (0, 19),  # nineteen at half a second on two cores take 4.75 s
        (5, 14),
        (10, 9),
        (50, 9),  # and nine its own core alone
    ],
)
def test_there_is_room_for_what_all_cores_can_hash_in_time_and_at_least_for_its_own_core(
    lending_queue: HashingQueue, other: CoreLending, held_by_other: int, room: int
) -> None:
    other.tell(held_by_other)
    assert room_in(lending_queue) == room


def room_in(queue: HashingQueue) -> int:
    taken = 0
    with ExitStack() as places, suppress(Busy):
        while True:
            places.enter_context(queue.place())
            taken += 1
    return taken


def test_there_is_no_room_for_what_no_thread_would_hash(
    lending_queue: HashingQueue, tmp_path: Path
) -> None:
    others = [CoreLending(tmp_path, f"other{number}") for number in range(6)]
    assert room_in(lending_queue) == 38  # on four cores
    assert lending_queue.run(lambda: len(others)) == 6
    assert len(lending_queue._threads) == 4
