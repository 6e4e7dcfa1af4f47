"""Defects that the outages and schedules found, each in its smallest form."""

from collections.abc import Callable
from typing import Any

import pytest

from authapp.accounts.emails import parse_email
from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.sessions import is_live


@pytest.fixture
def without_row(services: Services) -> ActiveSession:
    """A session that began while Postgres was away, which is back since it was read."""
    sign_up(services)
    credentials = services.credentials.read(parse_email(EMAIL))
    assert credentials
    return services.sessions.provisional.begin(credentials, CLIENT)


CHANGES: dict[str, Callable[[Services, ActiveSession], Any]] = {
    "data": lambda s, live: s.sessions.patch(live, {"n": 1}, []),
    "new token": lambda s, live: s.sessions.regenerate(live, CLIENT),
    "end others": lambda s, live: s.sessions.end_others(live, EndReason.REVOKED_BY_USER, CLIENT),
    "password": lambda s, live: s.password_changes.change_password(
        live, PASSWORD, OTHER_PASSWORD, CLIENT
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_session_that_has_no_row_yet_has_not_ended(
    services: Services, without_row: ActiveSession, change: Callable[[Services, ActiveSession], Any]
) -> None:
    with pytest.raises(StoreUnavailable):
        change(services, without_row)
    found = services.sessions.find(without_row.token)
    assert isinstance(found, ActiveSession)
    assert found.record.provisional is None, "it has one now"
    assert change(services, found) is not None


def test_a_session_that_only_redis_knows_is_not_refused_without_redis(
    services: Services, without_row: ActiveSession
) -> None:
    services.cache.breaker.open()
    with pytest.raises(StoreUnavailable):
        services.sessions.find(without_row.token)


def test_a_clock_that_was_wrong_prolongs_no_copy(services: Services, clock: Clock) -> None:
    """A change holds within REVALIDATE_SECONDS even if Redis never heard of it."""
    sign_up(services)
    live = log_in(services)
    clock.forward(600)
    assert is_live(services, live)
    clock.forward(-600)
    sql(
        services,
        "WITH ours AS (SELECT set_config('authapp.fenced', 'on', true))"
        " UPDATE sessions SET ended_at = now(), ended_why = 'logout', ver = ver + 1 FROM ours",
    )
    clock.forward(services.revalidate_seconds)
    assert isinstance(services.sessions.find(live.token), EndedSession)
