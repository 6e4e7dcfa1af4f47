"""Hashing: one thread that yields to all others, few log-ins at once, the rest are told to wait."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import bcrypt
import pytest

from authapp.assembly.capacity import REQUEST_THREADS, logins_at_once
from authapp.config import Config
from authapp.errors import AuthappError, Busy, InvalidCredentials
from authapp.passwords import hashing_queue
from authapp.passwords.hashing_queue import HashingQueue
from authapp.services import Services
from authapp.storage.deadlines import deadline, remaining
from authapp.storage.postgres import FailureKind, PostgresUnavailable
from tests.support.clock import Clock
from tests.support.hashing import LOWER_PRIORITY, hashing
from tests.support.instances import ROOT
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.threads import at_once
from tests.support.waiting import wait_until

LOGINS_AT_ONCE = logins_at_once(REQUEST_THREADS)  # in a worker without more threads


@contextmanager
def full(queue: HashingQueue | Any, many: int) -> Iterator[None]:
    """As many places are occupied, as by log-ins that wait."""
    with ExitStack() as taken:
        for _ in range(many):
            taken.enter_context(queue.place())
        yield


@contextmanager
def stuck(run: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """The hashing thread is at work for as long as the block takes."""
    begun, end = Event(), Event()

    def work() -> None:
        begun.set()
        assert end.wait(30)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run, work)
        assert begun.wait(30)
        try:
            yield
        finally:
            end.set()


@contextmanager
def hashing_in_vain(hasher: Any) -> Iterator[None]:
    """The hashing thread is at work; a log-in soon gives up, once it waits for the thread."""
    run = hasher.queue.run

    def hurried(work: Callable[[], Any]) -> Any:
        with deadline(0.05):
            return run(work)

    with stuck(run), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hasher.queue, "run", hurried)
        yield


def hasher_of(services: Services) -> Any:
    return services.authentication._passwords._hasher


# -- the thread ------------------------------------------------------------------------------------


def niceness(thread: int) -> int:
    stat = Path(f"/proc/self/task/{thread}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[16])  # field 19 of proc(5); two are cut off


def test_one_thread_hashes_and_only_it_yields_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing_queue, "_lower_priority", LOWER_PRIORITY)
    queue = HashingQueue(3)
    mine = threading.get_native_id()
    before = niceness(mine)
    found = {*at_once(*[lambda: queue.run(threading.get_native_id)] * 6)}
    assert len(found) == 1
    (thread,) = found
    assert isinstance(thread, int)
    assert thread != mine
    assert niceness(thread) == 19
    assert niceness(mine) == before
    others = {int(task.name) for task in Path("/proc/self/task").iterdir()} - {thread}
    assert before == 19 or mine in others


def test_an_error_of_the_work_reaches_who_asked_and_the_thread_goes_on() -> None:
    queue = HashingQueue(1)

    def fails() -> None:
        raise KeyError("of the test")

    with pytest.raises(KeyError):
        queue.run(fails)
    assert queue.run(lambda: 7) == 7
    assert len(queue._threads) == 1, "there is nobody to borrow from"
    wait_until(lambda: queue._hashing == 0)
    queue.end()
    with deadline(0.2), pytest.raises(Busy):
        queue.run(lambda: 7)


def test_who_waits_for_the_thread_until_the_deadline_is_told_to_come_back() -> None:
    queue, ran = HashingQueue(3), []
    with stuck(queue.run), deadline(0.2), pytest.raises(Busy):
        queue.run(lambda: ran.append("late"))
    queue.run(lambda: ran.append("next"))
    assert ran == ["next"], "nobody waits for what was queued, so it is not done"


def test_a_forked_process_hashes_on_a_thread_of_its_own() -> None:
    queue = HashingQueue(1)
    queue.run(lambda: None)
    with full(queue, 1):
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException), deadline(5), queue.place():
                status = 0 if queue.run(lambda: 7) == 7 else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


ENDING = """
import bcrypt, threading, time
from authapp.passwords import hashing_queue
from authapp.passwords.hashing_queue import HashingQueue
queue, began = HashingQueue(3), threading.Event()

def work():
    began.set()
    bcrypt.hashpw(b"x", bcrypt.gensalt(11))

def ask():
    queue.run(work)

for _ in range(3):
    threading.Thread(target=ask, daemon=True).start()
assert began.wait(30)
"""


def test_a_process_ends_well_in_the_midst_of_a_hash() -> None:
    """The interpreter would end the thread within bcrypt, which aborts the process for it."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


# -- the places ------------------------------------------------------------------------------------


def test_one_more_than_there_are_places_is_told_to_come_back() -> None:
    queue = HashingQueue(3)
    with full(queue, 3), pytest.raises(Busy) as raised, queue.place():
        pass
    assert raised.value.retry_after > 0
    for error in (KeyError, Busy, KeyboardInterrupt):  # whatever happens in it
        for _ in range(4):
            with pytest.raises(error), queue.place():
                raise error
    with full(queue, 3):
        pass


@pytest.mark.parametrize("threads", [3, 4, 8, 16, 40, 64])
def test_log_ins_leave_threads_to_others(threads: int) -> None:
    left = threads - logins_at_once(threads)
    assert left < threads
    assert left >= min(REQUEST_THREADS, threads / 2)


def test_who_can_not_be_served_in_time_is_told_at_once() -> None:
    """0.5 s a hash and 5 s for a log-in: nine fit into the 4.75 s that are for hashing."""
    queue = HashingQueue(100, seconds=0.5, patience=5)
    with full(queue, 9), pytest.raises(Busy), queue.place():
        pass
    with full(queue, 8), queue.place():
        pass


def test_one_log_in_is_served_however_slow_hashing_is() -> None:
    with HashingQueue(3, seconds=60, patience=5).place():
        pass


def test_the_pace_is_measured() -> None:
    queue = HashingQueue(100, seconds=60, patience=5)
    for _ in range(120):
        queue.run(lambda: None)
    with full(queue, 50), queue.place():
        pass


@pytest.mark.parametrize("seconds", [0.05, 0.0])
def test_one_hash_that_took_very_long_says_little_of_the_next(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """The process was stopped meanwhile, or the whole machine."""
    queue, stopped = HashingQueue(100, seconds=seconds, patience=5), [0.0]
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + stopped[0])

    def work() -> None:
        stopped[0] += 60

    queue.run(work)
    with full(queue, 60), queue.place():
        pass
    for _ in range(40):  # but all of them say much
        queue.run(work)
    with full(queue, 1), pytest.raises(Busy), queue.place():
        pass


def test_where_the_system_has_no_thread_to_give_log_ins_come_back_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, start = HashingQueue(3), threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == "hashing":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    with pytest.raises(Busy), queue.place():
        queue.run(lambda: None)
    monkeypatch.undo()
    with queue.place(), deadline(30):
        assert queue.run(lambda: 7) == 7
    assert queue._waiting == []


def test_the_more_are_refused_the_later_they_are_asked_to_come_back() -> None:
    queue = HashingQueue(100, seconds=0.5, patience=5)
    waits = []
    with full(queue, 9):
        for _ in range(6):
            with pytest.raises(Busy) as refused, queue.place():
                pass
            waits.append(refused.value.retry_after)
    assert waits == sorted(waits)
    assert waits[0] <= 2
    assert 3 <= waits[-1] <= 4  # six at half a second each, from half a second on
    with full(queue, 9):
        for _ in range(500):
            with pytest.raises(Busy) as refused, queue.place():
                pass
    assert refused.value.retry_after <= 31


def log_in_from(queue: HashingQueue, address: str, done: list[str]) -> None:
    with queue.place(address=address):
        queue.run(lambda: done.append(address))


def await_waiting(queue: HashingQueue, many: int) -> None:
    wait_until(lambda: len(queue._waiting) == many, "they do not wait")


def test_addresses_take_turns() -> None:
    queue = HashingQueue(20)
    done: list[str] = []
    with ThreadPoolExecutor(10) as pool, stuck(queue.run):
        for number, address in enumerate(("crowd", "crowd", "crowd", "crowd", "one", "two")):
            pool.submit(log_in_from, queue, address, done)
            await_waiting(queue, number + 1)
    assert done == ["crowd", "one", "two", "crowd", "crowd", "crowd"]


def test_log_ins_of_one_address_are_hashed_in_the_order_they_came() -> None:
    """Also when others of that address come while some of them have been hashed. Somebody from
    another address waits for the round that is being served, and for no later one."""
    queue, begun, go_on = HashingQueue(20), Event(), Semaphore(0)
    done: list[str] = []

    def log_in_as(name: str) -> None:
        def work() -> None:
            begun.set()
            go_on.acquire(timeout=30)
            done.append(name)

        with queue.place(address=name.partition(" ")[0]):
            queue.run(work)

    with ThreadPoolExecutor(10) as pool:
        pool.submit(log_in_as, "school 0")
        assert begun.wait(30)
        for number in range(1, 4):
            pool.submit(log_in_as, f"school {number}")
            await_waiting(queue, number)
        go_on.release(2)
        await_waiting(queue, 1)  # the third is being hashed
        for number, name in enumerate(("school 4", "home 0", "school 5", "home 1")):
            pool.submit(log_in_as, name)
            await_waiting(queue, 2 + number)
        go_on.release(10)
    assert done[:5] == ["school 0", "school 1", "school 2", "home 0", "school 3"]
    assert done[5:] == ["home 1", "school 4", "school 5"]


def test_all_addresses_of_a_customer_take_turns_as_one(services: Services) -> None:
    queue = hasher_of(services).queue
    for addresses, rounds in (
        (("2001:db8:1:1::1", "2001:db8:2::1", "2001:db8:1:2::2"), [0, 0, 1]),
        (("192.0.2.1", "192.0.2.2", "192.0.2.1"), [0, 0, 1]),
    ):
        with ExitStack() as taken:
            for address in addresses:
                taken.enter_context(queue.place(address=address))
            assert [place.round for place in queue._held] == rounds


def test_a_place_that_hashes_late_sends_no_later_one_ahead() -> None:
    """It has waited for a store meanwhile."""
    queue = HashingQueue(20)
    with queue.place(address="school"):
        with queue.place(address="school"):
            queue.run(lambda: None)
        queue._mine.place = queue._held[0]
        queue.run(lambda: None)
    assert queue._round == 1


def test_one_address_can_not_fill_the_queue() -> None:
    """The last of a crowd gives way, is told at once, and has used up no attempt."""
    queue = HashingQueue(5)
    done: list[str] = []
    taken_back: list[str] = []

    class Counted:
        def take_back(self) -> None:
            taken_back.append("crowd")

    with pytest.raises(Busy), queue.place(Counted()):
        raise Busy  # its turn did not come in time, for which nobody had to give way
    assert taken_back == []

    def log_in_of_crowd() -> None:
        with queue.place(Counted(), address="crowd"):
            try:
                queue.run(lambda: done.append("crowd"))
            except Busy:
                queue.run(lambda: done.append("the same"))

    with ThreadPoolExecutor(10) as pool:
        with stuck(queue.run):
            crowd = []
            for number in range(5):
                crowd.append(pool.submit(log_in_of_crowd))
                await_waiting(queue, number + 1)
            with pytest.raises(Busy), queue.place(address="crowd"):
                pass
            mine = pool.submit(log_in_from, queue, "one", done)
            assert isinstance(crowd[-1].exception(30), Busy)
            assert taken_back == ["crowd"]
        mine.result(30)
    assert done == ["crowd", "one", "crowd", "crowd", "crowd"]


USES: dict[str, Callable[[Services, Any], Any]] = {
    "log in": lambda s, _live: log_in(s),
    "log in, unknown": lambda s, _live: log_in(s, "nobody@example.org"),
    "sign up": lambda s, _live: sign_up(s, "new@example.org"),
    "change the password": lambda s, live: s.password_changes.change_password(
        live, PASSWORD, OTHER_PASSWORD, CLIENT
    ),
    "set a password": lambda s, _live: s.password_changes.set_password(EMAIL, OTHER_PASSWORD),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_use_of_a_password_takes_a_place_and_hashes_on_the_thread(
    services: Services, monkeypatch: pytest.MonkeyPatch, use: Callable[[Services, Any], Any]
) -> None:
    sign_up(services)
    live = log_in(services)
    with full(hasher_of(services).queue, LOGINS_AT_ONCE), hashing() as hashed, pytest.raises(Busy):
        use(services, live)
    assert hashed == []

    where: set[int] = set()
    for name in ("checkpw", "hashpw"):
        real = getattr(bcrypt, name)

        def noting(*args: Any, real: Any = real) -> Any:
            where.add(threading.get_native_id())
            return real(*args)

        monkeypatch.setattr(bcrypt, name, noting)
    with full(hasher_of(services).queue, LOGINS_AT_ONCE - 1), suppress(InvalidCredentials):
        use(services, live)  # one place is left, and enough
    assert where == {hasher_of(services).queue.run(threading.get_native_id)}


def test_places_are_free_again_after_every_outcome(services: Services) -> None:
    sign_up(services)
    for _ in range(LOGINS_AT_ONCE + 1):
        for email, password in ((EMAIL, PASSWORD), (EMAIL, "wrong"), ("x@example.org", "wrong")):
            with suppress(InvalidCredentials):
                log_in(services, email, password)
        with hashing_in_vain(hasher_of(services)), pytest.raises(Busy):
            log_in(services)
    with full(hasher_of(services).queue, LOGINS_AT_ONCE):
        pass


def test_who_is_told_to_come_back_has_used_up_no_attempt(services: Services) -> None:
    """Or people who do as they are told in a rush would be locked out after it."""
    sign_up(services)
    live = log_in(services)
    with full(hasher_of(services).queue, LOGINS_AT_ONCE):
        for _ in range(25):
            for use in (USES["log in"], USES["change the password"]):
                with pytest.raises(Busy):
                    use(services, live)
    log_in(services)


# -- a whole log-in --------------------------------------------------------------------------------


@pytest.fixture
def hasty(config: Config, clock: Clock) -> Iterator[Services]:
    """Has one second for a log-in."""
    settings = make_config(config.DATABASE_URL, config.REDIS_URL, LOGIN_TIMEOUT_SECONDS="1")
    with open_services(settings, clock) as services:
        yield services


def outcome(services: Services) -> AuthappError:
    """How a log-in fails; fails itself when that hangs."""
    (found,) = at_once(lambda: log_in(services))
    assert isinstance(found, AuthappError), found
    return found


def test_a_log_in_waits_for_the_thread_only_as_long_as_it_may(
    hasty: Services, services: Services
) -> None:
    sign_up(services)
    with stuck(hasher_of(hasty).queue.run), hashing() as hashed:
        assert isinstance(outcome(hasty), Busy)
    assert hashed == []
    wait_until(lambda: log_in(hasty), ignoring=AuthappError)


def test_a_log_in_waits_for_postgres_only_as_long_as_it_may(
    hasty: Services, services: Services
) -> None:
    """The server would say by itself that it gives up waiting, a second later."""
    sign_up(services)
    hasty.redis.flushall()
    with services.database.transaction(20) as db:
        db.connection().exec_driver_sql("LOCK TABLE authapp_data.users")
        found = outcome(hasty)
    assert isinstance(found, PostgresUnavailable)
    assert found.kind is FailureKind.NO_ANSWER
    assert sql(services, "SELECT count(*) FROM users") == [(1,)]


def test_what_hashing_took_is_missing_for_what_follows(
    config: Config, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(services)
    check = bcrypt.checkpw

    def slowly(*args: Any) -> bool:
        time.sleep(0.7)
        return check(*args)

    monkeypatch.setattr(bcrypt, "checkpw", slowly)
    waits: list[float] = []
    begin = services.sessions.begin_or_provisional

    def noting(*args: Any, **how: Any) -> Any:
        waits.append(remaining(60))
        return begin(*args, **how)

    monkeypatch.setattr(services.sessions, "begin_or_provisional", noting)
    log_in(services)
    assert 0 < waits[0] <= config.LOGIN_TIMEOUT_SECONDS - 0.7


def test_log_ins_never_fill_the_threads_of_requests(services: Services) -> None:
    """As many log-ins as come: those that wait are few, and checks of sessions go on."""
    sign_up(services)
    live = log_in(services)
    with ThreadPoolExecutor(REQUEST_THREADS) as threads, stuck(hasher_of(services).queue.run):
        asked: list[Future[Any]] = [
            threads.submit(log_in, services, f"p{number}@example.org") for number in range(16)
        ]
        wait_until(
            lambda: sum(not one.done() for one in asked) <= LOGINS_AT_ONCE, "they fill the threads"
        )
        checks = [threads.submit(services.sessions.find, live.token) for _ in range(16)]
        assert [check.result(30) for check in checks] == [services.sessions.find(live.token)] * 16
        waiting = [one for one in asked if not one.done()]
        assert len(waiting) == LOGINS_AT_ONCE
        told = [one for one in asked if one.done()]
        assert [type(one.exception()) for one in told] == [Busy] * len(told)
    assert {type(one.exception()) for one in waiting} == {InvalidCredentials}
