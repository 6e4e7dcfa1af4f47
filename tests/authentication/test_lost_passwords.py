"""Postgres lost a change of a password, and a copy of the credentials still knows it."""

import pytest

from authapp.errors import InvalidCredentials, ReplacedPassword
from authapp.services import Services
from authapp.sessions.records import EndReason
from tests.support.lost_commits import commits_lost
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.sessions import ending, is_live


@pytest.fixture
def changed_and_lost(services: Services, database_url: str) -> None:
    """The password was changed, somebody logged in with the new one, and Postgres knows nothing."""
    sign_up(services)
    with commits_lost(database_url):
        services.password_changes.set_password(EMAIL, OTHER_PASSWORD)
        services.background.drain()


@pytest.mark.usefixtures("changed_and_lost")
def test_the_old_password_is_refused_and_the_new_one_is_put_back(
    services: Services, two_instances: Services
) -> None:
    for instance in (services, two_instances):
        with pytest.raises(ReplacedPassword):
            log_in(instance)
    assert is_live(services, log_in(two_instances, password=OTHER_PASSWORD))
    services.redis.flushall()  # now the row alone says so
    with pytest.raises(InvalidCredentials):
        log_in(services)
    assert is_live(services, log_in(services, password=OTHER_PASSWORD))
    found = sql(services, "SELECT details FROM audit_events WHERE event = 'postgres.lost_commits'")
    assert found == [({"found": "password"},)]


@pytest.mark.usefixtures("changed_and_lost")
def test_a_guess_is_refused_like_any_other(services: Services) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        log_in(services, password="neither of the two")
    assert not isinstance(caught.value, ReplacedPassword)


@pytest.mark.usefixtures("changed_and_lost")
def test_once_redis_has_forgotten_it_too_the_old_password_counts(services: Services) -> None:
    """Nothing is left that could know; docs/outages.md says so."""
    services.redis.flushall()
    assert is_live(services, log_in(services))
    with pytest.raises(InvalidCredentials):
        log_in(services, password=OTHER_PASSWORD)


def test_sessions_of_before_the_change_are_ended_with_it(
    services: Services, database_url: str
) -> None:
    sign_up(services)
    before = log_in(services)
    with commits_lost(database_url):
        services.password_changes.set_password(EMAIL, OTHER_PASSWORD)
        services.background.drain()
    log_in(services, password=OTHER_PASSWORD)
    assert ending(services, before) is EndReason.PASSWORD_CHANGED


def test_a_reset_is_remembered_too(services: Services, database_url: str) -> None:
    link = services.reset_links.make(sign_up(services).id)
    token = link.partition("token=")[2]
    with commits_lost(database_url):
        services.password_resets.reset(token, OTHER_PASSWORD, CLIENT)
        services.background.drain()
    with pytest.raises(ReplacedPassword):
        log_in(services)
