"""A session's data is written through: what that costs, and what the next read finds."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from authapp.accounts.actor import OPERATOR
from authapp.accounts.identity import Identity
from authapp.cache.changes import Changed
from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import Lease
from authapp.errors import OutcomeUnknown, StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from authapp.storage import redis as redis_module
from authapp.storage.bounded_connections import BoundedCursor
from authapp.storage.postgres import FailureKind, PostgresUnavailable
from tests.support.clock import Clock
from tests.support.people import CLIENT, grant_role, sign_up
from tests.support.services import sql
from tests.support.sessions import find, is_live
from tests.support.traffic import traffic

REVALIDATE = 60


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


@pytest.fixture
def live(services: Services, ada: Identity) -> ActiveSession:
    """A session with a copy, as a request presents it."""
    begun = services.sessions.begin(ada.id, 1, CLIENT)
    return presented(services, begun)


def presented(services: Services, live: ActiveSession) -> ActiveSession:
    found = find(services, live)
    assert isinstance(found, ActiveSession)
    return found


def copy_of(services: Services, live: ActiveSession) -> ActiveSession | None:
    """As a copy alone tells it."""
    with traffic() as seen:
        found = find(services, live)
    return found if isinstance(found, ActiveSession) and not seen.sql else None


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that begin and end transactions, which `traffic` does not see."""
    sent: list[str] = []
    execute, run = BoundedCursor.execute, BoundedCursor.run

    def executing(self: BoundedCursor, query: Any, *args: Any, alone: bool = False) -> None:
        if not alone and self.connection.is_to_begin():
            sent.append("BEGIN")
        execute(self, query, *args, alone=alone)

    def running(self: BoundedCursor, command: str) -> None:
        sent.append(command)
        run(self, command)

    monkeypatch.setattr(BoundedCursor, "execute", executing)
    monkeypatch.setattr(BoundedCursor, "run", running)
    return sent


def test_a_write_costs_four_statements_and_the_read_after_it_none(
    services: Services, live: ActiveSession, transactions: list[str]
) -> None:
    """BEGIN and COMMIT count; the look-up before a write is the first of three round trips."""
    for number in range(3):
        transactions.clear()
        with traffic() as seen:
            now = presented(services, live)
            assert services.sessions.patch(now, {"n": number}, []).value
        assert transactions == ["BEGIN", "COMMIT"]
        assert len(seen.sql) + len(transactions) <= 4, seen.sql
        assert len(seen.redis) <= 3
        with traffic() as seen:
            assert presented(services, live).record.data == {"n": number}
        assert (len(seen.redis), seen.sql) == (1, [])


def test_only_what_changed_is_sent(services: Services, live: ActiveSession) -> None:
    services.sessions.patch(live, {"much": "x" * 500, "n": 1}, [])
    values: list[Any] = []

    def note(_connection: Any, _cursor: Any, _sql: str, parameters: Any, *_rest: Any) -> None:
        values.append(parameters)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        services.sessions.patch(presented(services, live), {"n": 2}, ["n0"])
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert "xxx" not in repr(values)
    assert presented(services, live).record.data == {"much": "x" * 500, "n": 2}


def test_the_copy_equals_what_postgres_says(services: Services, live: ActiveSession) -> None:
    grant_role(services, live.record.user.email, "admin")
    services.sessions.patch(presented(services, live), {"n": 1, "m": [None]}, [])
    written = copy_of(services, live)
    assert written is not None
    services.redis.flushall()
    assert find(services, live) == written


def test_parallel_writers_of_other_keys_are_in_the_copy(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    """Both present the same copy; the second one's holds what the first one wrote."""
    services.sessions.patch(live, {"a": 1}, [])
    two_instances.sessions.patch(live, {"b": 2}, [])
    written = copy_of(services, live)
    assert written is not None
    assert written.record.data == {"a": 1, "b": 2}


def test_a_user_that_changed_since_the_copy_was_presented_is_in_the_copy(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    two_instances.users.update_profile(live.record.user.id, "Countess", "", CLIENT)
    services.sessions.patch(live, {"n": 1}, [])
    written = copy_of(services, live)
    assert written is not None
    assert written.record.user.name == "Countess"


def test_a_session_that_ended_is_not_written_through(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    two_instances.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    assert services.sessions.patch(live, {"n": 1}, []).value is False
    assert find(services, live) == EndedSession(EndReason.LOGOUT)


def test_a_user_who_was_deactivated_has_no_live_copy(
    services: Services, live: ActiveSession
) -> None:
    """By hand, with no triggers: the facts that the writer reads tell it all the same."""
    sql(services, "UPDATE users SET epoch = epoch + 1, ver = ver")
    services.sessions.patch(live, {"n": 1}, [])
    assert not is_live(services, live)


# -- revalidation ----------------------------------------------------------------------------------


def miss_a_change(services: Services, live: ActiveSession) -> None:
    """A change of the user that no trigger told of, as from a backup that was put back."""
    with services.database.transaction() as db:
        driver: Any = db.connection().connection.driver_connection
        with driver.cursor() as cursor:
            cursor.execute("SELECT set_config('authapp.fenced', 'on', true)")
            cursor.execute("UPDATE authapp_data.users SET name = 'unseen'")


def test_a_session_that_writes_at_each_request_is_revalidated_in_time(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    miss_a_change(services, live)
    for second in range(REVALIDATE + 1):
        now = presented(services, live)
        services.sessions.patch(now, {"n": second}, [])
        clock.forward(1)
    assert presented(services, live).record.user.name == "unseen"


def test_a_write_is_no_revalidation(services: Services, live: ActiveSession, clock: Clock) -> None:
    """Of the user it compares the version alone."""
    clock.forward(REVALIDATE / 2)
    services.sessions.patch(live, {"n": 1}, [])
    written = copy_of(services, live)
    assert written is not None
    assert written.record.checked_at == live.record.checked_at
    assert written.record.last_seen_at == live.record.last_seen_at, "no visit is made up"


def test_a_write_that_finds_another_version_of_the_user_reads_all_facts(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock
) -> None:
    clock.forward(REVALIDATE / 2)
    two_instances.users.update_profile(live.record.user.id, "Countess", "", CLIENT)
    services.sessions.patch(live, {"n": 1}, [])
    written = copy_of(services, live)
    assert written is not None
    assert written.record.checked_at == clock.now
    assert written.record.last_seen_at == live.record.last_seen_at, "no visit is made up"


def test_a_session_that_nobody_looked_up_is_read_for_its_copy(services: Services) -> None:
    """Its record does not say which version of the user it shows."""
    person = sign_up(services)
    begun = services.sessions.begin(person.id, 1, CLIENT)
    assert begun.record.user_ver == 0
    services.sessions.patch(begun, {"n": 1}, [])
    written = copy_of(services, begun)
    assert written is not None
    assert written.record.user_ver > 0
    services.redis.flushall()
    assert find(services, begun) == written


def test_pending_fences_are_set_by_a_write(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock
) -> None:
    """They may be of facts that the writer did not read, so it stores no copy."""
    sql(services, "UPDATE users SET name = 'by hand'")
    assert services.changes.pending()
    changed = services.sessions.patch(live, {"n": 1}, [])
    assert changed.everywhere
    assert not services.changes.pending()
    assert copy_of(services, live) is None
    assert presented(services, live).record.user.name == "by hand"


# -- faults ----------------------------------------------------------------------------------------


def test_nothing_is_written_through_when_the_outcome_of_the_commit_is_unknown(
    services: Services, live: ActiveSession
) -> None:
    def lose(_connection: Any) -> None:
        raise OperationalError("COMMIT", None, ConnectionError("lost"))

    with services.database.transaction() as db:
        engine = db.get_bind()
    event.listen(engine, "commit", lose)
    try:
        with pytest.raises(OutcomeUnknown), traffic() as seen:
            services.sessions.patch(live, {"n": 1}, [])
    finally:
        event.remove(engine, "commit", lose)
    assert len(seen.redis) == 1, "the first fence"
    assert copy_of(services, live) is None
    assert presented(services, live).record.data == {}


def test_a_change_that_is_rolled_back_stores_nothing(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence_first = services.changes.fence_first

    def fail(*given: Any) -> None:
        fence_first(*given)
        raise KeyError

    monkeypatch.setattr(services.changes, "fence_first", fail)
    with pytest.raises(KeyError):
        services.sessions.patch(live, {"n": 1}, [])
    assert copy_of(services, live) is None
    assert presented(services, live).record.data == {}


def test_postgres_away_after_the_commit_costs_the_copy_alone(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data is saved. That no other change still waits for its fences, nobody can promise."""

    def fail(*_: Any) -> None:
        raise PostgresUnavailable(FailureKind.LOST)

    with monkeypatch.context() as patch:
        patch.setattr(services.sessions, "_reread", fail)
        with traffic() as seen:
            assert services.sessions.patch(live, {"n": 1}, []) == Changed(True, everywhere=False)
    assert len(seen.redis) == 2, "both fences"
    assert not services.cache.breaker.is_open
    assert copy_of(services, live) is None
    assert presented(services, live).record.data == {"n": 1}


def test_a_session_that_changed_after_the_commit_is_read_for_its_copy(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread: Any = services.sessions._reread

    def write_first(*given: Any) -> Any:
        two_instances.sessions.patch(live, {"m": 2}, [])
        return reread(*given)

    with monkeypatch.context() as patch:
        patch.setattr(services.sessions, "_reread", write_first)
        services.sessions.patch(live, {"n": 1}, [])
    assert presented(services, live).record.data == {"n": 1, "m": 2}


def test_a_full_redis_takes_the_fence_and_not_the_copy(
    services: Services, live: ActiveSession
) -> None:
    policy: Any = services.redis.config_get("maxmemory*")
    services.redis.config_set("maxmemory-policy", "noeviction")
    services.redis.config_set("maxmemory", "1")
    try:
        changed = services.sessions.patch(live, {"n": 1}, [])
        assert changed.value
        assert changed.everywhere
        assert not services.cache.breaker.is_open
        assert copy_of(services, live) is None
        assert presented(services, live).record.data == {"n": 1}
    finally:
        services.redis.config_set("maxmemory", policy["maxmemory"])
        services.redis.config_set("maxmemory-policy", policy["maxmemory-policy"])
    services.sessions.patch(presented(services, live), {"n": 2}, [])
    written = copy_of(services, live)
    assert written is not None
    assert written.record.data == {"n": 2}


@pytest.mark.parametrize("which", [1, 2], ids=["first fence", "second fence"])
def test_a_lost_reply_is_asked_for_again(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """The server did it. The repeated first fence makes the lease that counts."""
    read, asked = redis_module._read, [0]
    send = AbstractConnection.send_packed_command

    def sending(self: Any, command: Any, check_health: bool = True) -> None:
        asked[0] += 1
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    def lose(connection: AbstractConnection) -> Any:
        answer = read(connection)
        if asked[0] == which:
            asked[0] += 100
            raise redis.ConnectionError("lost reply")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", sending)
        patch.setattr(redis_module, "_read", lose)
        changed = services.sessions.patch(live, {"n": 1}, [])
    assert asked[0] > 100, "nothing was lost"
    assert changed.everywhere
    written = copy_of(services, live)
    assert written is not None
    assert written.record.data == {"n": 1}


def test_redis_away_leaves_a_fence_to_be_set_later(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_versions: Mapping[str, int], **_how: Any) -> dict[str, Lease]:
        services.cache.breaker.open()
        raise StoreUnavailable("redis")

    with monkeypatch.context() as patch:
        patch.setattr(services.cache, "fence", refuse)
        changed = services.sessions.patch(live, {"n": 1}, [])
    assert changed.value
    assert not changed.everywhere
    assert sql(services, "SELECT key FROM pending_fences") == [(session_key(live.token.digest),)]


def test_the_end_of_everybodys_sessions_leaves_no_copy_of_a_write_at_that_moment(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The write saw the session live; then all end, to the last fence; then it fences."""
    fence = services.cache.fence
    ended: list[Changed[None]] = []

    def end_first(versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        if not ended:
            ended.append(two_instances.administration.end_sessions_of_everybody(OPERATOR))
        return fence(versions, **how)

    monkeypatch.setattr(services.cache, "fence", end_first)
    services.sessions.patch(live, {"n": 1}, [])
    assert ended[0].everywhere
    assert find(services, live) == EndedSession(EndReason.ENDED_FOR_EVERYBODY)
    assert find(two_instances, live) == EndedSession(EndReason.ENDED_FOR_EVERYBODY)


def test_a_session_is_not_said_to_be_idle_sooner_than_without_writes(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    for _ in range(10):
        clock.forward(timedelta(minutes=20).total_seconds())
        services.sessions.patch(presented(services, live), {"n": 1}, [])
    assert is_live(services, live)
