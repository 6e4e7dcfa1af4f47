"""The end of everybody's sessions: one step, whatever happens at the same moment and to Redis."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import ANY

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.emails import parse_email
from authapp.cache.keys import LIFE_KEY
from authapp.cache.versioned_cache import Lease
from authapp.crypto.tokens import RefreshToken
from authapp.errors import NotAuthenticated, StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason, LookupResult
from tests.sessions.test_provisional import postgres_away
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import await_trust, sql
from tests.support.sessions import add_sessions, ending, is_live
from tests.support.traffic import traffic

EVERYBODY = EndReason.ENDED_FOR_EVERYBODY
CAP = 20  # sessions of a user


def end_everybody(services: Services) -> bool:
    """Returns whether every instance sees it."""
    return services.administration.end_sessions_of_everybody(OPERATOR).everywhere


@pytest.fixture
def live(services: Services, two_instances: Services) -> ActiveSession:
    """A session whose copy is fresh everywhere."""
    sign_up(services)
    live = log_in(services)
    for instance in (services, two_instances):
        assert is_live(instance, live)
    return live


@contextmanager
def redis_away(services: Services) -> Iterator[None]:
    """This instance can't ask Redis."""
    recover = services.cache.breaker.recover
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.cache.breaker, "recover", _nobody_there)
        services.cache.breaker.open()
        yield
        patch.setattr(services.cache.breaker, "recover", recover)


def _nobody_there() -> None:
    raise StoreUnavailable("redis")


def generation(services: Services) -> int:
    ((found,),) = sql(services, "SELECT session_generation FROM deployment")
    return int(found)


# -- one step, for all -----------------------------------------------------------------------------


def test_all_sessions_end_on_every_instance_at_once(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    sign_up(services, "bob@example.org")
    others = [log_in(services, "bob@example.org"), log_in(services, remember=True)]
    program = services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=True)
    for session in (*others, program.session):
        assert is_live(two_instances, session)
    assert end_everybody(services)
    for session in (live, *others, program.session):
        for instance in (services, two_instances):
            assert ending(instance, session) is EVERYBODY
    assert isinstance(program.refresh, RefreshToken)
    with pytest.raises(NotAuthenticated):
        two_instances.sessions.refresh(program.refresh, CLIENT)


def test_people_log_in_again(services: Services, live: ActiveSession) -> None:
    end_everybody(services)
    again = log_in(services)
    assert is_live(services, again)
    assert end_everybody(services)
    assert ending(services, again) is EVERYBODY
    assert ending(services, live) is EVERYBODY


def test_a_session_that_ended_before_keeps_its_reason(
    services: Services, live: ActiveSession
) -> None:
    services.authentication.log_out(live.token, CLIENT)
    end_everybody(services)
    assert ending(services, live) is EndReason.LOGOUT


def statements_of_an_end(services: Services) -> list[str]:
    with traffic() as seen:
        assert end_everybody(services)
    return seen.sql


def test_it_takes_the_same_statements_however_many_sessions_there_are(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    few = statements_of_an_end(services)
    add_sessions(services, live.record.user.id, 2_000, clock.now)
    rows = sql(services, "SELECT ctid, ver FROM sessions ORDER BY id")
    assert statements_of_an_end(services) == few
    assert sql(services, "SELECT ctid, ver FROM sessions ORDER BY id") == rows, "none is touched"


def test_one_event_tells_of_them_all(services: Services, live: ActiveSession) -> None:
    log_in(services)
    sql(services, "DELETE FROM audit_events")
    end_everybody(services)
    found = sql(services, "SELECT event, user_id, actor_id, details FROM audit_events")
    assert found == [("sessions.ended_for_everybody", None, None, {})]


# -- nothing goes on -------------------------------------------------------------------------------


def keep_going(live: ActiveSession) -> dict[str, Callable[[Services], Any]]:
    user_id, session_id = live.record.user.id, live.record.id
    return {
        "data": lambda s: s.sessions.patch(live, {"cart": 1}, []).value,
        "a new token": lambda s: s.sessions.regenerate(live, CLIENT).value,
        "its end": lambda s: s.sessions.end_one(user_id, session_id, EVERYBODY, CLIENT).value,
        "its owner": lambda s: s.sessions.owner_of(session_id),
        "the list": lambda s: s.sessions.of_user(user_id),
    }


@pytest.mark.parametrize("what", ["data", "a new token", "its end", "its owner", "the list"])
def test_nothing_finds_a_session_that_ended_so(
    services: Services, live: ActiveSession, what: str
) -> None:
    end_everybody(services)
    assert not keep_going(live)[what](services)
    assert ending(services, live) is EVERYBODY


def test_a_new_password_begins_no_session_for_one_that_ended(
    services: Services, live: ActiveSession
) -> None:
    end_everybody(services)
    with pytest.raises(NotAuthenticated):
        services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)


def test_those_that_ended_count_for_no_cap(services: Services, live: ActiveSession) -> None:
    def fill_up() -> None:
        for _ in range(CAP):
            services.sessions.begin(live.record.user.id, 1, CLIENT)

    fill_up()
    end_everybody(services)
    sql(services, "DELETE FROM audit_events")
    fill_up()
    assert sql(services, "SELECT * FROM audit_events WHERE event = 'session.ended'") == []


# -- at the same moment ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["regenerate", "new password"])
def test_a_session_that_gets_a_new_token_at_that_moment_ends(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """Everybody's sessions end after its row was found live, and before its successor begins."""
    add = services.sessions._rows.add_successor
    seen: list[bool] = []

    def end_then_add(*args: Any, **how: Any) -> ActiveSession:
        seen.append(end_everybody(two_instances))
        return add(*args, **how)

    monkeypatch.setattr(services.sessions._rows, "add_successor", end_then_add)
    if how == "regenerate":
        fresh = services.sessions.regenerate(live, CLIENT).value
        assert fresh is not None
        found: LookupResult = two_instances.sessions.find(fresh.token)
    else:
        issued = services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
        found = two_instances.sessions.find(issued.value.session.token)
    assert seen == [True]
    assert found == EndedSession(EVERYBODY)


def test_a_reader_of_that_moment_leaves_no_copy(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads Postgres between the first fence and the commit."""
    fence = services.cache.fence
    seen: list[LookupResult] = []

    def fence_then_read(versions: dict[str, int], **how: Any) -> dict[str, Lease]:
        if seen:
            raise KeyError  # the process dies after the commit
        leases = fence(versions, **how)
        seen.append(two_instances.sessions.find(live.token))
        return leases

    monkeypatch.setattr(services.cache, "fence", fence_then_read)
    with pytest.raises(KeyError):
        end_everybody(services)
    assert isinstance(seen[0], ActiveSession)
    assert ending(two_instances, live) is EVERYBODY


# -- whatever happens to Redis ---------------------------------------------------------------------

LOSSES: dict[str, Callable[[Services], Any]] = {
    "all": lambda s: s.redis.flushall(),
    "the life of the copies": lambda s: s.redis.delete(LIFE_KEY),
    "the session": lambda s: [s.redis.delete(key) for key in s.redis.scan_iter("sess:*")],
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_redis_loses_nobody_gets_back_in(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    lose: Callable[[Services], Any],
    when: str,
) -> None:
    if when == "before":
        lose(services)
    end_everybody(services)
    if when == "after":
        lose(services)
    for instance in (services, two_instances):
        assert ending(instance, live) is EVERYBODY


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_whatever_redis_loses_nobody_is_logged_out(
    services: Services, live: ActiveSession, lose: Callable[[Services], Any]
) -> None:
    end_everybody(services)
    again = log_in(services)
    assert is_live(services, again)
    lose(services)
    assert is_live(services, again)


def test_that_the_life_is_lost_while_postgres_is_away_is_an_unknown(
    services: Services, live: ActiveSession
) -> None:
    """Nobody can say which copies are true: none is believed, and nobody is told of a log-out."""
    services.redis.delete(LIFE_KEY)
    with postgres_away(services), pytest.raises(StoreUnavailable):
        services.sessions.find(live.token)
    assert is_live(services, live)


def test_without_redis_other_instances_follow_within_a_revalidation(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock
) -> None:
    with redis_away(services):
        assert not end_everybody(services)
        assert ending(services, live) is EVERYBODY
    clock.forward(60)
    assert ending(two_instances, live) is EVERYBODY
    await_trust(services)
    assert ending(services, live) is EVERYBODY
    assert sql(services, "SELECT * FROM pending_fences") == []


def test_a_visit_of_anybody_tells_an_instance_that_saw_no_failure(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    sign_up(services, "bob@example.org")
    bob = log_in(services, "bob@example.org")
    with redis_away(services):
        end_everybody(services)
    assert ending(two_instances, bob) is EVERYBODY, "it has no copy, so Postgres is asked"
    assert ending(two_instances, live) is EVERYBODY


# -- sessions without a row ------------------------------------------------------------------------


def test_a_session_that_began_without_postgres_ends_too(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    with postgres_away(services):
        provisional = log_in(services)
        assert is_live(services, provisional)
    end_everybody(two_instances)
    assert not is_live(services, provisional)
    assert not is_live(two_instances, provisional)


def test_a_session_that_began_without_postgres_goes_on_otherwise(
    services: Services, live: ActiveSession
) -> None:
    end_everybody(services)
    log_in(services)  # the credentials are copied again
    with postgres_away(services):
        provisional = log_in(services)
    assert is_live(services, provisional)
    services.redis.flushall()
    assert is_live(services, provisional), "it has its row"


def test_its_generation_is_that_of_the_credentials(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis is a Cluster its copy is not dropped, so its generation alone tells."""
    monkeypatch.setattr(services.cache, "_life", ())
    sign_up(services)
    services.credentials.find(parse_email(EMAIL))
    with postgres_away(services):
        provisional = log_in(services)
    assert not end_everybody(services), "a Cluster drops no copy at once"
    assert ending(services, provisional) is EVERYBODY
    found = sql(services, "SELECT generation, ended_why FROM sessions")
    assert found == [(generation(services) - 1, EVERYBODY)]


# -- afterwards ------------------------------------------------------------------------------------


def test_maintenance_gives_the_rows_their_end_without_an_event_each(
    services: Services, live: ActiveSession
) -> None:
    other = log_in(services)
    end_everybody(services)
    fresh = log_in(services)
    sql(services, "DELETE FROM audit_events")
    done = [(progress.step, progress.rows) for progress in services.maintenance.run()]
    assert done == [("expired sessions ended", 2)]
    assert sql(services, "SELECT * FROM audit_events") == []
    ended = "SELECT id, ended_at, ended_why FROM sessions WHERE ended_at IS NOT NULL"
    assert {(row[0], row[2]) for row in sql(services, ended)} == {
        (session.record.id, EVERYBODY) for session in (live, other)
    }
    services.redis.flushall()
    assert ending(services, live) is EVERYBODY
    assert is_live(services, fresh)


# -- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["session_generation + 1", "0", "session_generation - 5"])
def test_a_generation_that_is_set_by_hand_is_the_next(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock, value: str
) -> None:
    end_everybody(services)
    again = log_in(services)
    assert is_live(two_instances, again)
    before = generation(services)
    sql(services, "DELETE FROM audit_events")
    sql(services, f"UPDATE deployment SET session_generation = {value}")
    if value == "0" and before == 0:
        return
    assert generation(services) == before + 1
    assert sql(services, "SELECT key, ver FROM pending_fences") == [(LIFE_KEY, before + 1)]
    clock.forward(60)
    for session in (live, again):
        assert ending(two_instances, session) is EVERYBODY
    assert sql(services, "SELECT * FROM pending_fences") == []
    found = sql(services, "SELECT event, details, at FROM audit_events")
    assert found == [("sessions.ended_for_everybody", {"why": "changed_in_sql"}, ANY)]


def test_another_prefix_by_hand_ends_no_session(services: Services, live: ActiveSession) -> None:
    before = generation(services)
    sql(services, "UPDATE deployment SET key_prefix = key_prefix")
    assert generation(services) == before
    assert is_live(services, live)


def test_a_row_that_somebody_else_adds_is_of_the_present_generation(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    """A version of authapp that knows no generation, say."""
    end_everybody(services)
    add_sessions(services, live.record.user.id, 2, clock.now)
    ((found,),) = sql(services, "SELECT max(generation) FROM sessions")
    assert found == generation(services)
