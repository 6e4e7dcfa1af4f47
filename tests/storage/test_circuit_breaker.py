"""The breaker: when a store is asked, and what must happen before it is trusted again."""

import os
import time
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Semaphore

import pytest

from authapp.errors import StoreUnavailable
from authapp.storage.circuit_breaker import Breaker
from tests.support.threads import at_once, no_thread_left

RESET = 1.0


class Pauses:
    """Stands for `time.sleep`: the recovery waits here until it is let go, once each time."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self._over = False
        self._begun, self._go = Semaphore(0), Semaphore(0)

    def __call__(self, seconds: float) -> None:
        self.lengths.append(seconds)
        self._begun.release()
        if not self._over:
            self._go.acquire()

    def over(self) -> None:
        self._over = True
        self._go.release()

    def await_begun(self) -> None:
        assert self._begun.acquire(timeout=30)

    def end(self) -> None:
        self.await_begun()
        self.go_on()

    def go_on(self) -> None:
        self._go.release()


class Store:
    """Answers or fails as it is told, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    def __call__(self) -> str:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("redis")
        return "answer"


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def breaker(pauses: Pauses) -> Iterator[Breaker]:
    breaker = Breaker("redis", failures=3, reset_seconds=RESET, pause=pauses)
    yield breaker
    breaker.recover = lambda: None  # or its thread would go on for ever
    pauses.over()


@pytest.fixture
def store() -> Store:
    return Store()


def fails(breaker: Breaker, command: Callable[[], object]) -> bool:
    try:
        breaker.call(command)
    except StoreUnavailable:
        return True
    return False


def opened(breaker: Breaker, store: Store) -> None:
    """Lets it fail until the breaker opens."""
    store.away = True
    for _ in range(3):
        assert fails(breaker, store)
    assert breaker.is_open
    store.asked = 0


def test_it_opens_after_failures_in_a_row(breaker: Breaker, store: Store) -> None:
    assert breaker.call(store) == "answer"
    for away in (True, True, False, True, True):  # the success in between counts from zero again
        store.away = away
        assert fails(breaker, store) is away
        assert not breaker.is_open
    assert fails(breaker, store)
    assert breaker.is_open
    assert store.asked == 7, "it was asked each time until then"


def test_where_the_system_has_no_thread_to_give_it_recovers_later(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    with no_thread_left():
        opened(breaker, store)
    store.away = False
    assert fails(breaker, store)
    pauses.end()
    assert closed(breaker)


def closed(breaker: Breaker) -> bool:
    """Whether it closes, in the thread that recovers, within some seconds."""
    deadline = time.monotonic() + 10
    while breaker.is_open and time.monotonic() < deadline:
        time.sleep(0.001)
    return not breaker.is_open


def test_open_it_fails_at_once_without_asking(breaker: Breaker, store: Store) -> None:
    opened(breaker, store)
    store.away = False
    recovered: list[None] = []
    breaker.recover = lambda: recovered.append(None)
    for _ in range(3):
        assert fails(breaker, store)
    assert (store.asked, recovered) == (0, [])
    with pytest.raises(StoreUnavailable, match="redis"):
        breaker.call(store)


def test_after_the_pause_it_recovers_and_then_asks(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    """Without a request that would have to wait for it."""
    opened(breaker, store)
    store.away = False
    seen: list[tuple[bool, int]] = []
    breaker.recover = lambda: seen.append((breaker.is_open, store.asked))
    pauses.end()
    assert closed(breaker)
    assert seen == [(True, 0)], "still open, and nothing was asked yet"
    assert breaker.call(store) == "answer"
    assert (len(seen), pauses.lengths) == (1, [RESET]), "closed, nothing is recovered"


def test_once_closed_it_takes_as_many_failures_to_open_again(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    opened(breaker, store)
    pauses.end()
    assert closed(breaker)
    for _ in range(2):
        assert fails(breaker, store)
        assert not breaker.is_open
    assert fails(breaker, store)
    assert breaker.is_open
    pauses.end()
    assert closed(breaker), "as often as it opens"


def test_a_failure_to_recover_keeps_it_open(breaker: Breaker, store: Store, pauses: Pauses) -> None:
    """The store must not be trusted before the changes it missed are made good."""
    opened(breaker, store)
    store.away = False
    tries: list[None] = []

    def recover() -> None:
        tries.append(None)
        if len(tries) < 3:
            raise StoreUnavailable("postgres")

    breaker.recover = recover
    for number in range(3):
        pauses.await_begun()
        assert fails(breaker, store)
        assert (len(tries), store.asked) == (number, 0)
        pauses.go_on()
    assert closed(breaker)
    assert (len(tries), pauses.lengths) == (3, [RESET] * 3), "a pause before each try"
    assert breaker.call(store) == "answer"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_in_recovering_keeps_it_open_and_the_next_who_asks_has_it_tried_again(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    opened(breaker, store)
    store.away = False
    dying = Event()

    def recover() -> None:
        dying.set()
        raise KeyError("a defect")

    breaker.recover = recover
    pauses.end()
    assert dying.wait(30)
    assert (fails(breaker, store), store.asked) == (True, 0)
    breaker.recover = lambda: None
    deadline = time.monotonic() + 10
    while len(pauses.lengths) < 2 and time.monotonic() < deadline:  # until the thread is dead
        assert fails(breaker, store)
    pauses.end()
    assert closed(breaker)


def test_opened_again_while_it_recovers_it_stays_open(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    """Somebody's fence failed after `recover` set the others: that one is still owed."""
    opened(breaker, store)
    store.away = False
    breaker.recover = breaker.open
    pauses.end()
    pauses.await_begun()
    assert fails(breaker, store), "another pause, and still open"
    breaker.recover = lambda: None
    pauses.go_on()
    assert closed(breaker)


def test_one_thread_recovers_however_many_fail(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    opened(breaker, store)
    recovering, go_on = Event(), Event()
    tries: list[None] = []

    def recover() -> None:
        tries.append(None)
        recovering.set()
        assert go_on.wait(30)

    breaker.recover = recover
    pauses.end()
    assert recovering.wait(30)
    assert at_once(*[lambda: fails(breaker, store)] * 4) == [True] * 4
    assert at_once(*[breaker._keep_recovering] * 4) == [None] * 4
    go_on.set()
    assert closed(breaker)
    assert (len(tries), len(pauses.lengths)) == (1, 1)


def test_a_forked_process_recovers_by_itself(
    breaker: Breaker, store: Store, pauses: Pauses
) -> None:
    """It inherits an open breaker, and no thread."""
    opened(breaker, store)
    pauses.await_begun()
    child = os.fork()
    if child == 0:
        breaker._pause = lambda _seconds: None
        refused = fails(breaker, store)
        os._exit(0 if refused and closed(breaker) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert breaker.is_open


def test_retired_it_recovers_no_more(store: Store) -> None:
    """At once, though its next try is an hour away."""
    breaker = Breaker("redis", failures=3, reset_seconds=3600)
    opened(breaker, store)
    thread = breaker._recovering
    assert thread is not None
    assert thread.is_alive()
    breaker.retire()
    assert not thread.is_alive()
    assert fails(breaker, store)
    assert breaker._recovering is thread, "no other was started"


def test_closed_calls_run_side_by_side(breaker: Breaker) -> None:
    """Each waits inside for all others: one after the other none would return."""
    together = Barrier(4, timeout=30)
    places = at_once(*[lambda: breaker.call(together.wait)] * 4)
    assert sorted(places, key=str) == [0, 1, 2, 3]


def test_other_errors_are_none_of_its_business(breaker: Breaker) -> None:
    def defect() -> None:
        raise KeyError("a defect")

    for _ in range(5):
        with pytest.raises(KeyError):
            breaker.call(defect)
    assert not breaker.is_open


def test_an_attempt_asks_though_it_is_open(breaker: Breaker, store: Store) -> None:
    opened(breaker, store)
    store.away = False
    assert breaker.attempt(store) == "answer"
    assert breaker.is_open, "closing is for `recover` to decide"
