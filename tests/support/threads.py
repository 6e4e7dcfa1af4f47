"""Calls that run at the same time; and a system that has no thread to give."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread
from typing import TypeVar

import pytest

T = TypeVar("T")


@contextmanager
def no_thread_left() -> Iterator[None]:
    """No thread of this process can be started in the block."""

    def fails(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thread, "start", fails)
        yield


def at_once(*works: Callable[[], T]) -> list[T | Exception]:
    """Run each in its own thread, all started together; return each result or exception."""
    start = Barrier(len(works))
    outcomes: dict[int, T | Exception] = {}

    def run(number: int, work: Callable[[], T]) -> None:
        start.wait()
        try:
            outcomes[number] = work()
        except Exception as error:  # noqa: BLE001 - the test judges it
            outcomes[number] = error

    # daemon threads: a hanging call must fail its test, not keep the process from ending
    threads = [Thread(target=run, args=one, daemon=True) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive(), "some calls wait for each other"
    return [outcomes[number] for number in range(len(works))]
