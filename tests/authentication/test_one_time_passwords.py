"""One-time passwords: what the command line makes up opens nothing but the choice of another."""

import pytest

from authapp.authentication.recovery import one_time_passwords
from authapp.config import Config
from authapp.errors import (
    InvalidCredentials,
    InvalidToken,
    PasswordChangeRequired,
    StoreUnavailable,
)
from authapp.services import Services
from authapp.storage.postgres import Database
from tests.support.clock import Clock
from tests.support.hashing import hashing
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import sql

LASTS = one_time_passwords.LASTS.total_seconds()


@pytest.fixture
def given(services: Services) -> str:
    """The email of a person who was given a password."""
    services.registration.sign_up(EMAIL, PASSWORD, is_one_time=True)
    return EMAIL


def led_on(services: Services) -> str:
    """The token that a log-in with the password that was given brings."""
    with pytest.raises(PasswordChangeRequired) as caught:
        log_in(services)
    return caught.value.reset_token


def sessions(services: Services) -> int:
    return int(sql(services, "SELECT count(*) FROM sessions")[0][0])


def test_it_opens_nothing_but_the_choice_of_another(services: Services, given: str) -> None:
    token = led_on(services)
    with pytest.raises(PasswordChangeRequired):
        services.authentication.issue_token(given, PASSWORD, CLIENT)
    assert sessions(services) == 0
    assert services.reset_links.look_up(token) is None, "the second log-in made another"
    token = led_on(services)
    services.password_resets.reset(token, OTHER_PASSWORD, CLIENT)
    assert sessions(services) == 0
    log_in(services, password=OTHER_PASSWORD)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    with pytest.raises(InvalidToken):
        services.password_resets.reset(token, OTHER_PASSWORD, CLIENT)


def test_the_choice_verifies_no_address(services: Services, given: str) -> None:
    services.password_resets.reset(led_on(services), OTHER_PASSWORD, CLIENT)
    assert not log_in(services, given, OTHER_PASSWORD).record.user.email_verified


def test_it_does_not_last(services: Services, given: str, clock: Clock) -> None:
    clock.forward(LASTS - 1)
    led_on(services)
    clock.forward(1)
    with hashing() as costs, pytest.raises(InvalidCredentials):
        log_in(services, given)
    with hashing() as costs_of_wrong, pytest.raises(InvalidCredentials):
        log_in(services, given, OTHER_PASSWORD)
    assert costs == costs_of_wrong


def test_one_that_has_expired_counts_as_a_guess(services: Services, clock: Clock) -> None:
    services.registration.sign_up(EMAIL, PASSWORD, is_one_time=True)
    clock.forward(LASTS)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    services.refused_attempts.flush()
    assert sql(services, "SELECT count(*) FROM audit_events WHERE event = 'login.failed'") == [(1,)]


def test_an_operator_sets_one(services: Services) -> None:
    sign_up(services)
    services.password_changes.set_password(EMAIL, OTHER_PASSWORD, is_one_time=True)
    with pytest.raises(PasswordChangeRequired):
        log_in(services, password=OTHER_PASSWORD)
    services.password_changes.set_password(EMAIL, PASSWORD)
    log_in(services)


def test_a_person_whom_the_app_logged_in_replaces_it(services: Services, given: str) -> None:
    user = services.users.find(services.parse_email(given))
    assert user is not None
    issued = services.authentication.log_in_as(user.id, CLIENT)
    services.password_changes.change_password(issued.session, PASSWORD, OTHER_PASSWORD, CLIENT)
    log_in(services, password=OTHER_PASSWORD)


def test_without_postgres_it_opens_nothing(
    services: Services, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in of others goes on, in Redis."""
    sign_up(services, "bob@example.org")
    log_in(services, "bob@example.org")
    led_on(services)  # there is a copy of the credentials

    def away(_: Database) -> None:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services.database.breaker, "admit", lambda: away(services.database))
    assert log_in(services, "bob@example.org").record.provisional is not None
    with pytest.raises(StoreUnavailable):
        log_in(services, given)


def test_one_that_was_replaced_a_moment_ago_leads_on_to_nothing(
    services: Services, given: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = services.authentication._passwords._one_time_passwords
    lead_on = guard.lead_on

    def late(verified: object) -> None:
        services.password_changes.set_password(given, OTHER_PASSWORD)
        lead_on(verified)  # type: ignore[arg-type]

    monkeypatch.setattr(guard, "lead_on", late)
    with pytest.raises(InvalidCredentials):
        log_in(services, given)
    monkeypatch.undo()
    log_in(services, password=OTHER_PASSWORD)
