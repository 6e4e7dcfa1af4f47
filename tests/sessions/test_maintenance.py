"""Maintenance: what is stale goes, however often it runs and however it is interrupted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from authapp.accounts.identity import Identity
from authapp.config import Config
from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.sessions import housekeeping, maintenance
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.sessions import add_sessions, is_live
from tests.support.threads import at_once
from tests.support.traffic import plans, traffic

IDLE, ABSOLUTE, REMEMBER, REVALIDATE = 1_800, 43_200, 2_592_000, 60


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


def run(services: Services) -> list[tuple[str, int]]:
    return [(progress.step, progress.rows) for progress in services.maintenance.run()]


def ended(services: Services) -> dict[str, int]:
    """How many rows ended for each reason; "" are those that did not."""
    rows = sql(services, "SELECT coalesce(ended_why, ''), count(*) FROM sessions GROUP BY 1")
    return {why: count for why, count in rows}  # noqa: C416 - rows are of any length to mypy


# -- expired sessions ------------------------------------------------------------------------------


def test_with_nothing_to_do_it_does_nothing(services: Services, ada: Identity) -> None:
    live = log_in(services)
    assert run(services) == []
    assert is_live(services, live)


def test_expired_sessions_end_with_the_right_reason(
    services: Services, ada: Identity, clock: Clock
) -> None:
    sql(services, "DELETE FROM sessions")  # which tests before this one may have left
    idle, out, kept, remembered = (
        log_in(services),
        log_in(services),
        log_in(services),
        log_in(services, remember=True),
    )
    services.authentication.log_out(out.token, CLIENT)
    begun = clock.now
    while clock.now < begun + timedelta(seconds=ABSOLUTE - IDLE):
        clock.forward(IDLE - REVALIDATE)
        services.sessions.find(kept.token)
    assert run(services) == [("expired sessions ended", 1)]
    assert is_live(services, kept)
    clock.now = begun + timedelta(seconds=ABSOLUTE)
    assert run(services) == [("expired sessions ended", 1)]
    assert ended(services) == {"idle": 1, "absolute": 1, "logout": 1, "": 1}
    assert services.sessions.find(idle.token) == EndedSession(EndReason.IDLE)
    assert services.sessions.find(kept.token) == EndedSession(EndReason.ABSOLUTE)
    assert services.sessions.find(out.token) == EndedSession(EndReason.LOGOUT)
    assert is_live(services, remembered)


@pytest.mark.parametrize("remember", [False, True])
def test_it_ends_what_is_found_expired_and_nothing_else(
    services: Services, ada: Identity, clock: Clock, remember: bool
) -> None:
    """To the second, though a visit may be noted late by one revalidation."""
    live = log_in(services, remember=remember)
    first_end = REMEMBER if remember else IDLE + REVALIDATE
    clock.forward(first_end - 1)
    assert run(services) == []
    clock.forward(1)
    assert run(services) == [("expired sessions ended", 1)]
    why = EndReason.ABSOLUTE if remember else EndReason.IDLE
    assert services.sessions.find(live.token) == EndedSession(why)


def test_an_end_is_on_record_and_reaches_the_copies(
    services: Services, two_instances: Services, ada: Identity, clock: Clock
) -> None:
    live = log_in(services)
    two_instances.sessions.find(live.token)
    clock.forward(IDLE + REVALIDATE)
    run(services)
    with traffic() as seen:
        assert two_instances.sessions.find(live.token) == EndedSession(EndReason.IDLE)
    assert seen.sql, "the copy from before is gone"
    recorded = sql(services, "SELECT details FROM audit_events WHERE event = 'session.ended'")
    assert recorded == [({"why": "idle"},)]


# -- sessions that ended long ago ------------------------------------------------------------------


def test_what_ended_long_ago_is_removed(services: Services, ada: Identity, clock: Clock) -> None:
    old = log_in(services)
    services.authentication.log_out(old.token, CLIENT)
    clock.forward(1)
    newer = log_in(services)
    services.authentication.log_out(newer.token, CLIENT)
    clock.forward(maintenance.RETENTION.total_seconds() - 1)
    live = log_in(services)
    assert run(services) == [], "exactly as old is kept"
    clock.forward(0.5)
    assert run(services) == [("ended sessions removed", 1)]
    ids = {session_id for (session_id,) in sql(services, "SELECT id FROM sessions")}
    assert ids == {newer.record.id, live.record.id}
    services.redis.flushall()
    assert services.sessions.find(old.token) is None
    assert is_live(services, live)


def test_removing_a_row_revives_nobody(services: Services, ada: Identity, clock: Clock) -> None:
    live = log_in(services)
    services.sessions.find(live.token)
    services.authentication.log_out(live.token, CLIENT)
    clock.forward(maintenance.RETENTION.total_seconds() + 1)
    run(services)
    for _ in range(2):
        assert not is_live(services, live)
    assert services.sessions.patch(live, {"a": 1}, []).value is False
    assert sql(services, "SELECT 1 FROM sessions") == []


# -- fences ----------------------------------------------------------------------------------------


def test_fences_written_down_are_set(
    services: Services, two_instances: Services, ada: Identity
) -> None:
    live = log_in(services)
    services.sessions.find(live.token)
    services.users.look_up(ada.id)
    sql(services, "UPDATE users SET name = 'Countess'")  # by hand: triggers write fences
    pending = services.changes.pending()
    assert pending
    assert run(two_instances) == [("fences set", pending)]
    assert services.changes.pending() == 0
    found, _ = services.users.look_up(ada.id)
    seen = services.sessions.find(live.token)
    assert found is not None
    assert isinstance(seen, ActiveSession)
    assert found.name == seen.record.user.name == "Countess"


# -- batches, interruptions, company ---------------------------------------------------------------


@pytest.fixture
def expired(
    services: Services, ada: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> int:
    """How many sessions have expired; batches are of two."""
    monkeypatch.setattr(maintenance, "BATCH", 2)
    for _ in range(7):
        log_in(services)
    clock.forward(IDLE + REVALIDATE)
    return 7


def test_each_batch_is_bounded_and_a_transaction_of_its_own(
    services: Services, expired: int
) -> None:
    left = []
    for progress in services.maintenance.run():
        assert progress.rows <= 2
        left.append(ended(services).get("", 0))
    assert left == [5, 3, 1, 0], "what is told is done"


@pytest.mark.parametrize("after", [1, 3])
def test_what_is_interrupted_goes_on_with_the_next_run(
    services: Services, expired: int, after: int
) -> None:
    running = services.maintenance.run()
    for _ in range(after):
        next(running)
    running.close()  # type: ignore[attr-defined]  # a generator
    assert ended(services) == {"idle": 2 * after, "": 7 - 2 * after}
    run(services)
    assert ended(services) == {"idle": 7}
    assert run(services) == []


def test_a_failure_undoes_no_batch_before_it(
    services: Services, expired: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_expired, calls = services.housekeeping.end_expired, []

    def fails_third(limit: int, pages: range) -> int:
        calls.append(limit)
        if len(calls) == 3:
            raise StoreUnavailable("postgres")
        return end_expired(limit, pages)

    monkeypatch.setattr(services.housekeeping, "end_expired", fails_third)
    with pytest.raises(StoreUnavailable):
        run(services)
    assert ended(services) == {"idle": 4, "": 3}


def test_two_at_once_do_it_once(
    services: Services, two_instances: Services, expired: int, clock: Clock
) -> None:
    def work(instance: Services) -> Callable[[], int]:
        return lambda: sum(rows for _, rows in run(instance))

    for step in ("ended", "removed"):
        done = at_once(work(services), work(two_instances), work(services))
        assert sum(n for n in done if isinstance(n, int)) == expired, (step, done)
        clock.forward(maintenance.RETENTION.total_seconds() + 1)
    assert sql(services, "SELECT 1 FROM sessions") == []
    events = sql(services, "SELECT count(*) FROM audit_events WHERE event = 'session.ended'")
    assert events == [(expired,)]


def test_who_visits_meanwhile_is_not_waited_for_nor_ended(
    services: Services, two_instances: Services, ada: Identity, clock: Clock
) -> None:
    """The row of a session that somebody is changing is left to the next run."""
    log_in(services)
    log_in(services)
    clock.forward(IDLE + REVALIDATE)
    with two_instances.database.transaction() as db:
        db.connection().exec_driver_sql("SELECT 1 FROM authapp_data.sessions LIMIT 1 FOR UPDATE")
        assert run(services) == [("expired sessions ended", 1)]
    assert run(services) == [("expired sessions ended", 1)]


def test_no_statement_looks_at_the_whole_table(
    services: Services, ada: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take longer the more sessions there are, and one day longer than it may."""
    add_sessions(services, ada.id, 1_000, clock.now)
    monkeypatch.setattr(housekeeping, "PAGES_PER_RANGE", 8)
    assert len(services.housekeeping.page_ranges()) > 5
    clock.forward(IDLE + REVALIDATE)
    with plans("SKIP LOCKED") as seen:
        assert sum(rows for _, rows in run(services)) == 500
        clock.forward(maintenance.RETENTION.total_seconds())
        assert sum(rows for _, rows in run(services)) == 1000 - 500
    assert len(seen) > 20
    assert [plan for plan in seen if "Tid Range Scan" not in plan] == []


# -- alone, and on schedule ------------------------------------------------------------------------


def test_one_is_alone_at_a_time(services: Services, two_instances: Services) -> None:
    with services.maintenance.alone() as first:
        with two_instances.maintenance.alone() as second:
            assert (first, second) == (True, False)
        with two_instances.maintenance.alone() as third:
            assert not third, "who was not alone gives nothing back"
    with two_instances.maintenance.alone() as after:
        assert after


def test_the_lock_is_given_back_after_an_error(services: Services) -> None:
    def fails() -> None:
        with services.maintenance.alone():
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with services.maintenance.alone() as alone:
        assert alone


@pytest.fixture
def instances(config: Config, clock: Clock) -> Iterator[list[Services]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_services(config, clock)) for _ in range(5)]


def test_many_instances_do_it_once_an_interval(
    services: Services, instances: list[Services], expired: int, redis_client: redis.Redis
) -> None:
    def work(instance: Services) -> Callable[[], bool]:
        return instance.maintenance.run_scheduled

    rounds = [at_once(*[work(instance) for instance in instances]) for _ in range(3)]
    assert [ran.count(True) for ran in rounds] == [1, 0, 0]
    assert [ran.count(False) for ran in rounds] == [4, 5, 5]
    assert ended(services) == {"idle": 7}
    remaining = int(redis_client.ttl("lock:maintenance-schedule"))  # type: ignore[arg-type]
    assert maintenance.INTERVAL / 2 < remaining < maintenance.INTERVAL
    redis_client.delete("lock:maintenance-schedule")  # as when it runs out
    assert at_once(*[work(instance) for instance in instances]).count(True) == 1


def test_a_scheduled_run_leaves_it_to_an_operator_who_is_at_it(
    services: Services, two_instances: Services, expired: int
) -> None:
    with services.maintenance.alone():
        assert two_instances.maintenance.run_scheduled() is False
    assert ended(services) == {"": 7}


def test_the_schedule_outlives_an_outage(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    outcomes: list[Exception | None] = [StoreUnavailable("redis"), None, Enough()]

    def run_scheduled() -> bool:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return True

    monkeypatch.setattr(maintenance, "INTERVAL", 0.001)
    monkeypatch.setattr(services.maintenance, "run_scheduled", run_scheduled)
    with pytest.raises(Enough):
        services.maintenance._loop()
    assert outcomes == []


def test_the_schedule_keeps_no_process_from_ending(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Thread] = []

    def start(self: Thread) -> None:
        started.append(self)

    monkeypatch.setattr(Thread, "start", start)
    services.maintenance.keep_running()
    assert [thread.daemon for thread in started] == [True]


# -- without Redis ---------------------------------------------------------------------------------


@pytest.fixture
def redis_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command reaches it."""

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(AbstractConnection, "connect", fails)
    monkeypatch.setattr(AbstractConnection, "send_packed_command", fails)


@pytest.mark.parametrize("waiting", [False, True])
def test_without_redis_all_else_is_done_and_fences_are_left_for_its_return(
    services: Services, expired: int, request: pytest.FixtureRequest, waiting: bool
) -> None:
    if waiting:  # fences from before, by hand
        sql(services, "UPDATE users SET name = 'Countess' WHERE email = :e", e=EMAIL)
    before = services.changes.pending()
    assert bool(before) == waiting
    request.getfixturevalue("redis_away")
    with services.maintenance.alone() as alone:
        assert alone, "nobody can say, and doing it twice does no harm"
        with pytest.raises(StoreUnavailable, match="redis"):
            run(services)
    assert ended(services) == {"idle": 7}
    assert services.changes.pending() == before + expired


def test_without_redis_a_scheduled_run_is_postponed(
    services: Services, expired: int, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("redis_away")
    with pytest.raises(StoreUnavailable):
        services.maintenance.run_scheduled()
    assert ended(services) == {"": 7}


def test_without_postgres_it_says_so(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services.database, "transaction", away)
    with pytest.raises(StoreUnavailable):
        run(services)
