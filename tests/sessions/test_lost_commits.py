"""Postgres lost its last commits, and Redis still knows of them: ended stays ended."""

from typing import Any

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.cache.keys import session_key
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from tests.support.clock import Clock
from tests.support.lost_commits import commits_lost
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.sessions import ending, find, is_live
from tests.support.traffic import traffic

LONG = 3600.0  # seconds; longer than fences last, and shorter than sessions
DUE = 61.0  # seconds; every copy is due for its revalidation


@pytest.fixture
def live(services: Services, two_instances: Services) -> ActiveSession:
    sign_up(services)
    live = log_in(services)
    for instance in (services, two_instances):
        assert is_live(instance, live)
    return live


def events(services: Services, event: str) -> list[tuple[dict[str, object]]]:
    rows = sql(services, "SELECT details FROM audit_events WHERE event = :event", event=event)
    return [row[:1] for row in rows]


def log_out(services: Services, live: ActiveSession) -> None:
    """Nobody looks afterwards: the change itself stores the copy that says so."""
    services.authentication.log_out(live.token, CLIENT)


def test_a_session_that_ended_stays_ended(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    clock: Clock,
    database_url: str,
) -> None:
    with commits_lost(database_url):
        log_out(services, live)
    for _ in range(3):
        clock.forward(DUE)
        for instance in (services, two_instances):
            assert ending(instance, live) is EndReason.LOGOUT


def test_the_end_is_put_back_into_the_row_above_both_versions(
    services: Services, live: ActiveSession, clock: Clock, database_url: str
) -> None:
    with commits_lost(database_url):
        log_out(services, live)
    clock.forward(DUE)
    ending(services, live)
    # the copy had version 2, the row 1
    assert sql(services, "SELECT ended_why, ver FROM sessions") == [("logout", 3)]
    services.redis.flushall()
    assert ending(services, live) is EndReason.LOGOUT


def test_the_data_that_the_copy_holds_is_put_back(
    services: Services, live: ActiveSession, clock: Clock, database_url: str
) -> None:
    with commits_lost(database_url):
        assert services.sessions.patch(live, {"cart": 3}, []).value
        assert is_live(services, live)
    clock.forward(DUE)
    for _ in range(2):
        found = find(services, live)
        assert isinstance(found, ActiveSession)
        assert found.record.data == {"cart": 3}
        services.redis.flushall()  # now the row alone says so
    assert sql(services, "SELECT ver FROM sessions") == [(3,)]


def test_a_fence_alone_proves_nothing(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    """A change that was rolled back leaves one, too."""
    services.cache.fence({session_key(live.token.digest): 7})
    clock.forward(DUE)
    assert is_live(services, live)
    assert sql(services, "SELECT ver FROM sessions") == [(1,)]
    assert events(services, "postgres.lost_commits") == []


def test_the_end_of_everybody_stays_although_its_generation_is_lost(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    database_url: str,
) -> None:
    """Nobody looked in between, so no copy says that the session ended; the life does."""
    ((before,),) = sql(services, "SELECT session_generation FROM deployment")
    with commits_lost(database_url):
        services.administration.end_sessions_of_everybody(OPERATOR)
    for instance in (two_instances, services):
        assert ending(instance, live) is EndReason.ENDED_FOR_EVERYBODY
    assert sql(services, "SELECT session_generation FROM deployment") == [(before + 1,)]
    assert is_live(services, log_in(services))


# -- sessions and accounts that began in the lost moments ------------------------------------------


def test_a_session_that_began_goes_on(services: Services, clock: Clock, database_url: str) -> None:
    sign_up(services)
    clock.forward(1)
    with commits_lost(database_url):
        live = log_in(services, remember=True, data={"cart": 3})
        assert is_live(services, live)
    clock.forward(DUE)
    assert is_live(services, live)
    services.redis.flushall()
    found = find(services, live)
    assert isinstance(found, ActiveSession)
    assert (found.record.id, found.record.data) == (live.record.id, {"cart": 3})
    services.authentication.log_out(live.token, CLIENT)
    assert ending(services, live) is EndReason.LOGOUT


def test_it_does_not_go_on_if_all_sessions_of_the_person_ended_since(
    services: Services, two_instances: Services, clock: Clock, database_url: str
) -> None:
    """Whoever ended them could not see this one, because it had no row."""
    person = sign_up(services)
    clock.forward(1)
    with commits_lost(database_url):
        live = log_in(services)
        assert is_live(services, live)
    clock.forward(1)
    services.administration.end_sessions_of(person.id, OPERATOR)
    clock.forward(DUE)
    for instance in (services, two_instances):
        assert ending(instance, live) is EndReason.LOST
    assert is_live(services, log_in(services))


def test_it_does_not_go_on_after_a_log_out(
    services: Services, clock: Clock, database_url: str
) -> None:
    sign_up(services)
    clock.forward(1)
    with commits_lost(database_url):
        live = log_in(services)
        assert is_live(services, live)
    services.authentication.log_out(live.token, CLIENT)
    clock.forward(DUE)
    assert not is_live(services, live)


def test_a_session_whose_row_somebody_removed_does_not_go_on(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock
) -> None:
    sql(services, "DELETE FROM sessions")
    clock.forward(DUE)
    for instance in (services, two_instances):
        assert find(instance, live) is None
    assert events(services, "postgres.lost_commits") == []


def test_an_account_that_began_has_to_be_made_again(
    services: Services, clock: Clock, database_url: str
) -> None:
    with commits_lost(database_url):
        sign_up(services)
        live = log_in(services)
        assert is_live(services, live)
    clock.forward(DUE)
    assert ending(services, live) is EndReason.LOST
    sign_up(services)
    assert is_live(services, log_in(services))
    assert ending(services, live) is EndReason.LOST


def test_a_program_asks_for_another_token(
    services: Services, clock: Clock, database_url: str
) -> None:
    sign_up(services)
    clock.forward(1)
    with commits_lost(database_url):
        issued = services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=True)
        assert is_live(services, issued.session)
    clock.forward(DUE)
    assert ending(services, issued.session) is EndReason.LOST


# -- the incident ----------------------------------------------------------------------------------


def test_an_incident_is_one_event_however_many_facts_were_lost(
    services: Services, clock: Clock, database_url: str
) -> None:
    sign_up(services)
    lives = [log_in(services) for _ in range(3)]
    assert all(is_live(services, live) for live in lives)
    assert services.lost_commits.problem() is None
    with commits_lost(database_url):
        for live in lives:
            log_out(services, live)
    clock.forward(DUE)
    for live in lives:
        assert ending(services, live) is EndReason.LOGOUT
    assert events(services, "postgres.lost_commits") == [({"found": "end"},)]
    told = f"{clock.now:%Y-%m-%dT%H:%M:%SZ}"
    both = {"postgres": True, "redis": False}
    assert services.problems(both) == [f"postgres: it lost its last changes before {told}"]
    assert [details for (details,) in events(services, "session.ended")] == [
        {"why": "logout", "put_back": True}
    ] * 3


# -- the copy of an end ----------------------------------------------------------------------------


def test_it_is_kept_until_the_limit_of_the_session(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    log_out(services, live)
    left = (live.record.expires_at - clock.now).total_seconds()
    kept: Any = services.redis.pttl(session_key(live.token.digest))
    assert left - 60 < kept / 1000 <= left


def test_it_costs_no_round_trip_and_no_statement(services: Services, live: ActiveSession) -> None:
    with traffic() as seen:
        log_out(services, live)
    assert len([one for one in seen.sql if "UPDATE" in one and "sessions" in one]) == 1
    assert len(seen.redis) == 2  # a fence before the commit; a copy and a fence after it
    with traffic() as seen:
        assert ending(services, live) is EndReason.LOGOUT
    assert (len(seen.redis), seen.sql) == (1, [])


def test_all_sessions_that_a_change_of_the_person_ends_stay_ended(
    services: Services, two_instances: Services, clock: Clock, database_url: str
) -> None:
    person = sign_up(services)
    lives = [log_in(services) for _ in range(3)]
    with commits_lost(database_url):
        services.administration.set_active(person.id, active=False, actor=OPERATOR)
    clock.forward(DUE)
    for live in lives:
        assert ending(two_instances, live) is EndReason.DEACTIVATED
