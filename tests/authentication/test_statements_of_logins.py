"""How many SQL statements log-in, log-out, a look-up and a list cost, and how many trips to Redis.

A statement is what SQLAlchemy gives to the driver to execute: BEGIN goes along with the first one
of a transaction, and COMMIT and the look at a connection before its use are not counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread

import pytest

from authapp.accounts.authority.roles import roles_named
from authapp.config import Config
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.smtp import MailServer
from tests.support.traffic import traffic
from tests.support.waiting import wait_until

ELSEWHERE = replace(CLIENT, address="198.51.100.9")
WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
MOST = 6  # statements of a log-in, whatever it has to do


@pytest.fixture(params=["mail off", "mail on"])
def settled(
    request: pytest.FixtureRequest, config: Config, clock: Clock, mail_server: MailServer
) -> Iterator[Services]:
    """A person who has logged in before, from CLIENT."""
    if request.param == "mail on":
        mail = mail_server.settings()
        config = make_config(config.DATABASE_URL, config.REDIS_URL, **mail)
    with open_services(config, clock) as services:
        sign_up(services)
        log_in(services)
        yield services


def log_in_cold(services: Services) -> ActiveSession:
    services.redis.flushdb()
    return log_in(services)


LOGINS: dict[str, Callable[[Services, ActiveSession], object]] = {
    "known place": lambda s, _live: log_in(s),
    "new place": lambda s, _live: s.authentication.log_in(EMAIL, PASSWORD, ELSEWHERE),
    "a program": lambda s, _live: s.authentication.issue_token(
        EMAIL, PASSWORD, ELSEWHERE, refreshable=True
    ),
    "again in the same browser": lambda s, live: log_in(s, replaces=[live.token]),
    "no copy in Redis": lambda s, _live: log_in_cold(s),
}


@pytest.mark.parametrize("act", LOGINS.values(), ids=LOGINS)
def test_a_log_in_costs_few_statements(
    settled: Services, act: Callable[[Services, ActiveSession], object]
) -> None:
    live = log_in(settled)
    before = sql(settled, "SELECT count(*) FROM sessions")[0][0]
    with traffic() as seen:
        act(settled, live)
    assert sql(settled, "SELECT count(*) FROM sessions")[0][0] == before + 1
    assert len(seen.sql) <= MOST, "\n".join(" ".join(one.split()) for one in seen.sql)


def test_a_log_in_from_a_new_place_is_told_within_that(settled: Services) -> None:
    settled.authentication.log_in(EMAIL, PASSWORD, ELSEWHERE)
    told = [kind for (kind,) in sql(settled, "SELECT kind FROM outgoing_mails")]
    assert told == (["new_device"] if settled.outbox.enabled else [])


WARM: dict[str, tuple[Callable[[Services, ActiveSession], object], int, int]] = {
    "cold look-up": (lambda s, live: s.sessions.find(live.token), 1, 2),
    "list": (lambda s, live: s.sessions.of_user(live.record.user.id), 1, 0),
    "log-out": (lambda s, live: s.sessions.end(live.token, EndReason.LOGOUT, CLIENT), 3, 2),
}


@pytest.mark.parametrize(("act", "statements", "trips"), WARM.values(), ids=WARM)
def test_what_the_warm_paths_cost(
    services: Services,
    act: Callable[[Services, ActiveSession], object],
    statements: int,
    trips: int,
) -> None:
    sign_up(services)
    live = log_in(services)
    with traffic() as seen:
        act(services, live)
    assert len(seen.sql) <= statements, "\n".join(" ".join(one.split()) for one in seen.sql)
    assert len(seen.redis) <= trips


def test_a_log_in_that_waits_for_a_change_of_roles_shows_the_new_ones(
    services: Services, two_instances: Services
) -> None:
    """A statement that waits for a lock sees other tables as they were before it waited."""
    person = sign_up(services)
    log_in(services)
    begun: list[ActiveSession] = []
    waiting = Thread(target=lambda: begun.append(log_in(two_instances)))
    with services.changes.begin() as change:
        user = services.users.lock_by_id(change, person.id)
        waiting.start()
        wait_until(lambda: sql(services, WAITING), "nobody waits for the user's row")
        services.users.set_roles(change, user, roles_named(change.db, ["admin", "user"]))
    waiting.join()
    assert begun[0].record.user.roles == ("admin", "user")
