"""Work in the background: in order, bounded, and no burden to the caller that submits it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, current_thread, main_thread

import pytest

from authapp.storage.background import Background
from tests.support.threads import no_thread_left


@contextmanager
def busy(background: Background) -> Iterator[None]:
    """Its thread is kept from going on."""
    begun, go_on = Event(), Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(30)

    background.submit(wait)
    assert begun.wait(30)
    try:
        yield
    finally:
        go_on.set()
        background.drain()


def test_tasks_run_one_after_the_other_in_a_thread_of_their_own() -> None:
    background = Background()
    ran: list[int] = []
    threads = set()

    def task(number: int) -> None:
        threads.add(current_thread())
        ran.append(number)

    for number in range(50):
        background.submit(partial(task, number))
    background.drain()
    assert ran == list(range(50))
    assert len(threads) == 1
    assert main_thread() not in threads


def test_who_submits_does_not_wait() -> None:
    background = Background()
    ran: list[str] = []
    with busy(background):
        background.submit(partial(ran.append, "later"))
        assert ran == []
    assert ran == ["later"]


def test_where_the_system_has_no_thread_to_give_nobody_fails() -> None:
    background = Background(size=2)
    ran: list[str] = []
    with no_thread_left():
        background.submit(partial(ran.append, "put off or dropped"))
    background.submit(partial(ran.append, "later"))
    background.drain()
    assert ran[-1] == "later"


def test_what_does_not_fit_is_dropped() -> None:
    background = Background(size=3)  # the one that runs among them
    ran: list[int] = []
    with busy(background):
        for number in range(5):
            background.submit(partial(ran.append, number))
    assert ran == [0, 1]
    for number in (10, 11, 12):
        background.submit(partial(ran.append, number))
        background.drain()
    assert ran == [0, 1, 10, 11, 12], "there is room again"


def test_an_error_is_shown_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    background = Background(size=2)
    ran: list[int] = []

    def defect() -> None:
        raise KeyError("a defect")

    with caplog.at_level(logging.ERROR):
        for number in range(5):  # more than there is room for at once
            background.submit(defect)
            background.drain()
            background.submit(partial(ran.append, number))
            background.drain()
    assert ran == list(range(5))
    assert "a defect" in caplog.text


def test_it_starts_no_thread_before_it_is_used() -> None:
    """A process that forks workers must not have one yet: threads are not copied."""
    assert len(Background()._executor._threads) == 0


def test_a_forked_process_works_too() -> None:
    """Its parent's thread is not there."""
    background = Background(size=1)
    with busy(background):
        child = os.fork()
        if child == 0:
            done: list[None] = []
            background.submit(lambda: done.append(None))
            background.drain()
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
