"""The password hashing queue: one thread per process hashes, and log-ins wait for it in turn.

bcrypt keeps a core busy for a fifth of a second and releases the interpreter lock during that time.
If request threads hashed by themselves, a few log-ins would delay every session check. So one
thread of the lowest priority hashes, and helps out on the cores of other workers while these have
nothing to hash. A log-in waits for its turn if the turn comes in time, and is asked at once to come
back later if not.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from authapp.errors import Busy
from authapp.storage.deadlines import remaining
from authapp.telemetry import metrics
from authapp.telemetry.forks import start_in_forks

T = TypeVar("T")

_NICENESS = 19
_LONGEST = 60.0  # seconds to wait for a hash where there is no deadline
_LONGEST_AWAY = 30  # seconds that somebody is asked to stay away at most
_USABLE = 0.95  # of the time that a log-in may take; the rest is for what follows the hash
_NEWEST = 0.1  # weight of the newest hash in the measured pace
_SLOWER = 4.0  # times as long as before a hash counts at most: the process may have been stopped
_BRIEF = 0.1  # seconds that a hash counts at least with, if it took them
_LONGEST_END = 5.0  # seconds that the end of the process waits for a hash
_HELPERS = 3  # threads that hash on borrowed cores, at most
_BORROW_AGAIN = 0.01  # seconds, while log-ins wait and no other core is free


class CountedAttempt(Protocol):
    """An attempt that a limit has counted."""

    def take_back(self) -> None:
        """Uncounts the attempt."""


class Lending(Protocol):
    """The cores of workers, one each: who has no log-ins lends its own."""

    def tell(self, held: int) -> None:
        """Tells the others how many log-ins this worker has. With none it lends its core."""

    def others(self) -> list[int]:
        """How many log-ins each other worker has."""

    def own(self) -> AbstractContextManager[None]:
        """The core of this worker, for the block; waits until who has borrowed it is done."""

    def borrow(self) -> AbstractContextManager[bool]:
        """The core of another worker, for the block; whether there was one."""


class _Alone:
    """Nobody to lend to, and to borrow from."""

    def tell(self, held: int) -> None:
        pass

    def others(self) -> list[int]:
        return []

    @contextmanager
    def own(self) -> Iterator[None]:
        yield

    @contextmanager
    def borrow(self) -> Iterator[bool]:
        yield False


_ALONE = _Alone()
_lending: dict[int, Lending] = {}  # by pid


def lend_and_borrow(lending: Lending) -> None:
    """Has this process, which has no log-ins yet, lend its core, and borrow those of others."""
    _lending[os.getpid()] = lending


_queues: "WeakSet[HashingQueue]" = WeakSet()


@atexit.register
def _end_all() -> None:
    for queue in tuple(_queues):
        queue.end()


def _nothing() -> None:
    pass


@dataclass(eq=False, slots=True)
class _Place:
    """A place in the queue.

    Attributes:
        address: whose log-in it is.
        round: places of lower rounds come first; see `HashingQueue`.
        number: of places of one round the first come comes first.
    """

    address: str
    round: int
    number: int
    work: Callable[[], Any] = _nothing
    result: "Future[Any]" = field(default_factory=Future)
    is_displaced: bool = False


class HashingQueue:
    """The queue of one process. It refuses at once what can't be hashed in time.

    Addresses take turns: each gets one place in a round, so that one that sends many log-ins has
    most of them wait behind those of others. A log-in enters the round that is being served, or the
    one after the last in which its address has a place. So log-ins of one address keep their order.

    Args:
        places: how many log-ins may hash, or wait for their turn, at the same time.
        seconds: what a hash takes, until the first ones were measured.
        patience: seconds that a log-in may take.
        network_of: the network of an address; all addresses of one count as one.
    """

    def __init__(
        self,
        places: int,
        seconds: float = 0.0,
        patience: float = _LONGEST,
        network_of: Callable[[str], str] = str,
    ) -> None:
        self._network_of = network_of
        self._places = places
        self._pace = seconds
        self._usable = patience * _USABLE
        self._start()
        start_in_forks(self._start)  # a forked process starts with an empty queue
        _queues.add(self)

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._held: list[_Place] = []
        self._waiting: list[_Place] = []  # with work that has not begun
        self._mine = threading.local()
        self._threads: list[threading.Thread] = []
        self._hashing = 0  # threads that hash at this moment
        self._has_ended = False
        self._elsewhere: list[int] = []  # log-ins of the other workers, at the newest arrival
        self._arrivals = 0
        self._round = 0  # the round of the newest hash
        # when nobody who was refused is asked to come, by the monotonic clock
        self._next_free = 0.0

    @contextmanager
    def place(self, *counted: CountedAttempt, address: str = "") -> Iterator[None]:
        """Occupies a place for everything that belongs to one log-in.

        Args:
            counted: the attempt, as limits counted it. It is taken back when there is no place for
                it, because the attempt was told nothing about a password.
            address: from where it comes.
        Raises:
            Busy: its turn would not come in time.
        """
        try:
            held = self._enter(self._network_of(address))
        except Busy:
            _take_back(counted)
            raise
        self._mine.place = held
        metrics.HASHING.inc()
        try:
            yield
        except Busy:
            if held.is_displaced:
                _take_back(counted)
            raise
        finally:
            metrics.HASHING.dec()
            self._mine.place = None
            with self._changed:
                self._held.remove(held)
                self._lending.tell(len(self._held))

    def run(self, work: Callable[[], T]) -> T:
        """Runs `work` on the hashing thread and returns its result.

        Raises:
            Busy: its turn did not come before the deadline (`deadlines.deadline`), or it gave way
                to somebody from another address; or the system has no thread to give.
        """
        place: _Place | None = getattr(self._mine, "place", None)
        with self._changed:
            if place is None:  # nothing limits who hashes outside a place
                place = self._new_place("", self._round)
            if place.is_displaced:
                raise Busy(self._away())
            self._run_threads()
            place.work, place.result = work, Future()
            result: Future[T] = place.result
            self._waiting.append(place)
            self._changed.notify_all()
        try:
            return result.result(remaining(_LONGEST))
        except TookTooLong:
            result.cancel()  # if it already runs, nobody looks at its result
            with self._changed:
                if place in self._waiting:
                    self._waiting.remove(place)
            raise Busy from None

    def end(self) -> None:
        """Begins no hash any more, and waits for those under way. The interpreter can't end a
        thread within a hash: bcrypt aborts the process, then."""
        with self._changed:
            self._has_ended = True
            self._changed.wait_for(lambda: not self._hashing, _LONGEST_END)

    def _enter(self, address: str) -> _Place:
        with self._changed:
            self._elsewhere = self._lending.others()
            mine = (place.round + 1 for place in self._held if place.address == address)
            round_ = max(self._round, *mine, 0)
            ahead = sum(place.round <= round_ for place in self._held)
            if not self._has_room(ahead):
                raise Busy(self._away())
            if not self._has_room(len(self._held)):
                self._displace(round_)
            place = self._new_place(address, round_)
            self._held.append(place)
            self._lending.tell(len(self._held))
            return place

    @property
    def _lending(self) -> Lending:
        return _lending.get(os.getpid(), _ALONE)

    def _has_room(self, ahead: int) -> bool:
        """Whether one more can be served behind so many."""
        return ahead < self._places and (ahead == 0 or self._seconds(ahead + 1) <= self._usable)

    def _seconds(self, many: int) -> float:
        """How long so many log-ins take here: on the core of this worker, or on the cores of all
        behind what the others have, whichever is sooner."""
        cores = 1 + min(len(self._elsewhere), _HELPERS)
        return self._pace * min(many, (many + sum(self._elsewhere)) / cores)

    def _displace(self, round_: int) -> None:
        """Has the last of those who wait give way to a place of this round.

        Raises:
            Busy: nobody waits who comes later than that.
        """
        last = max(self._waiting, key=_order, default=None)
        if last is None or last.round <= round_:
            raise Busy(self._away())
        self._waiting.remove(last)
        last.is_displaced = True
        last.result.set_exception(Busy(self._away()))

    def _away(self) -> int:
        """The seconds after which there will be room: the further away, the more were refused."""
        now = time.monotonic()
        room_in = max(0.0, self._seconds(len(self._held) + 1) - self._usable)
        turn = max(now + room_in, self._next_free) + self._seconds(1)
        self._next_free = min(turn, now + _LONGEST_AWAY)
        return max(1, ceil(self._next_free - now))

    def _new_place(self, address: str, round_: int) -> _Place:
        self._arrivals += 1
        return _Place(address, round_, self._arrivals)

    # -- the threads ---------------------------------------------------------------------------

    def _run_threads(self) -> None:
        if self._threads:
            return
        helpers = 0 if self._lending is _ALONE else _HELPERS
        for work in [self._work, *[self._help] * helpers]:
            thread = threading.Thread(target=work, name="hashing", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has none to give
                if not self._threads:
                    raise Busy(self._away()) from None
                return
            self._threads.append(thread)

    def _work(self) -> None:
        """Hashes on the core of this process."""
        _lower_priority()
        while True:
            self._await_work()
            with self._lending.own():
                self._hash_next()

    def _help(self) -> None:
        """Hashes on borrowed cores what would wait for the thread above."""
        _lower_priority()
        while True:
            self._await_work()
            with self._lending.borrow() as has_one:
                if has_one:
                    self._hash_next()
            if not has_one:
                time.sleep(_BORROW_AGAIN)

    def _await_work(self) -> None:
        with self._changed:
            while not self._waiting or self._has_ended:
                self._changed.wait()

    def _hash_next(self) -> None:
        """Hashes for the place whose turn it is, if one still waits."""
        with self._changed:
            if not self._waiting or self._has_ended:
                return
            place = min(self._waiting, key=_order)
            self._waiting.remove(place)
            self._round = max(self._round, place.round)
            self._hashing += 1
        self._hash(place)
        with self._changed:
            self._hashing -= 1
            self._changed.notify_all()

    def _hash(self, place: _Place) -> None:
        started = time.perf_counter()
        try:
            found = place.work()
        except BaseException as error:  # noqa: BLE001 — it is for the log-in that waits
            _settle(place.result.set_exception, error)
        else:
            _settle(place.result.set_result, found)
        took = min(time.perf_counter() - started, max(self._pace * _SLOWER, _BRIEF))
        self._pace += (took - self._pace) * _NEWEST


def _order(place: _Place) -> tuple[int, int]:
    return place.round, place.number


def _settle(tell: Callable[[Any], None], outcome: object) -> None:
    with suppress(InvalidStateError):  # the log-in that waited has gone away
        tell(outcome)


def _take_back(counted: tuple[CountedAttempt, ...]) -> None:
    for attempt in counted:
        attempt.take_back()


def _lower_priority() -> None:
    # on Linux each thread has its own priority; elsewhere the whole process has one
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
