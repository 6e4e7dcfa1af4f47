"""The breaker: when a store is asked, and what must happen before it is trusted again."""

from collections.abc import Callable
from threading import Barrier, Event, Thread

import pytest

from authapp.errors import StoreUnavailable
from authapp.resilience import Breaker

from .helpers import at_once

RESET = 1.0


class Seconds:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


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
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(seconds: Seconds) -> Breaker:
    return Breaker("redis", failures=3, reset_seconds=RESET, clock=seconds)


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


def test_open_it_fails_at_once_without_asking(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    opened(breaker, store)
    store.away = False
    recovered: list[None] = []
    breaker.recover = lambda: recovered.append(None)
    for later in (0.0, RESET / 2, RESET * 0.499):
        seconds.now += later
        assert fails(breaker, store)
    assert (store.asked, recovered) == (0, [])
    with pytest.raises(StoreUnavailable, match="redis"):
        breaker.call(store)


def test_after_the_pause_it_recovers_and_then_asks(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    opened(breaker, store)
    store.away = False
    seen: list[tuple[bool, int]] = []
    breaker.recover = lambda: seen.append((breaker.is_open, store.asked))
    seconds.now += RESET
    assert breaker.call(store) == "answer"
    assert seen == [(True, 0)], "still open, and nothing was asked yet"
    assert not breaker.is_open
    assert breaker.call(store) == "answer"
    assert len(seen) == 1, "closed, nothing is recovered"


def test_once_closed_it_takes_as_many_failures_to_open_again(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    opened(breaker, store)
    seconds.now += RESET
    for _ in range(2):
        assert fails(breaker, store)
        assert not breaker.is_open
    assert fails(breaker, store)
    assert breaker.is_open


def test_a_failure_to_recover_keeps_it_open(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    """What the store holds must not be trusted before what it missed was made good."""
    opened(breaker, store)
    store.away = False
    tries: list[None] = []

    def recover() -> None:
        tries.append(None)
        raise StoreUnavailable("postgres")

    breaker.recover = recover
    seconds.now += RESET
    for _ in range(3):
        assert fails(breaker, store)
    assert (len(tries), store.asked, breaker.is_open) == (1, 0, True), "a pause after each try"
    seconds.now += RESET
    assert fails(breaker, store)
    assert len(tries) == 2
    breaker.recover = lambda: None
    seconds.now += RESET
    assert breaker.call(store) == "answer"


def test_a_defect_in_recovering_keeps_it_open_too(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    opened(breaker, store)
    store.away = False

    def recover() -> None:
        raise KeyError("a defect")

    breaker.recover = recover
    seconds.now += RESET
    for _ in range(2):  # and does not keep others from trying
        with pytest.raises(KeyError):
            breaker.call(store)
    assert (store.asked, breaker.is_open) == (0, True)


def test_opened_again_while_it_recovers_it_stays_open(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    """Somebody's fence failed after `recover` set the others: that one is still owed."""
    opened(breaker, store)
    store.away = False
    breaker.recover = breaker.open
    seconds.now += RESET
    breaker.call(store)
    assert breaker.is_open
    breaker.recover = lambda: None
    assert fails(breaker, store)
    seconds.now += RESET
    assert breaker.call(store) == "answer"
    assert not breaker.is_open


def test_one_tries_at_a_time_and_nobody_waits_for_it(
    breaker: Breaker, store: Store, seconds: Seconds
) -> None:
    opened(breaker, store)
    store.away = False
    recovering, go_on = Event(), Event()
    tries: list[None] = []

    def recover() -> None:
        tries.append(None)
        recovering.set()
        assert go_on.wait(10)

    breaker.recover = recover
    seconds.now += RESET
    answers: list[str] = []
    first = Thread(target=lambda: answers.append(breaker.call(store)), daemon=True)
    first.start()
    assert recovering.wait(10)
    assert at_once(*[lambda: fails(breaker, store)] * 4) == [True] * 4
    assert (len(tries), store.asked) == (1, 0)
    go_on.set()
    first.join(10)
    assert answers == ["answer"]
    assert breaker.call(store) == "answer"
    assert len(tries) == 1


def test_closed_calls_run_side_by_side(breaker: Breaker) -> None:
    """Each waits inside for all others: one after the other none would return."""
    together = Barrier(4, timeout=10)
    places = at_once(*[lambda: breaker.call(together.wait)] * 4)
    assert sorted(places, key=str) == [0, 1, 2, 3]


def test_opening_by_hand_counts_from_then(breaker: Breaker, store: Store, seconds: Seconds) -> None:
    breaker.open()
    seconds.now += RESET / 2
    breaker.open()
    seconds.now += RESET / 2
    assert fails(breaker, store)
    assert store.asked == 0
    seconds.now += RESET / 2
    assert breaker.call(store) == "answer"


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
