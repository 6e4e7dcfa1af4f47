"""The secrets of authenticator apps: when they count, whose they are, and when they stop."""

from collections.abc import Iterator

import pytest

from authapp.accounts.identity import Identity
from authapp.authentication.factors import totp
from authapp.authentication.factors.check import MOST_FAILURES, ShownFactor
from authapp.config import Config
from authapp.errors import InvalidField, TooManyAttempts
from authapp.services import Services
from authapp.sessions.records import ActiveSession, IssuedLogin
from tests.support.authenticator import Authenticator, enrol_person
from tests.support.clock import Clock
from tests.support.people import CLIENT, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import UNLIMITED, make_config


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    unlimited = make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    with open_services(unlimited, clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


def confirm(services: Services, live: ActiveSession, code: str) -> ActiveSession:
    """The session after a step-up by this code."""
    issued = services.step_up.confirm_by_factor(live, ShownFactor("totp", code), CLIENT).value
    assert isinstance(issued, IssuedLogin)
    return issued.session


def is_refused(services: Services, live: ActiveSession, code: str) -> None:
    with pytest.raises(InvalidField, match="not right, or was used before"):
        confirm(services, live, code)


def test_the_code_that_set_an_app_up_counts_no_more(
    services: Services, ada: Identity, clock: Clock
) -> None:
    enrolled = enrol_person(services, ada, clock.now)
    used = enrolled.app.code(clock.now)
    is_refused(services, enrolled.live, used)
    clock.forward(totp.STEP)
    is_refused(services, enrolled.live, used)
    confirm(services, enrolled.live, enrolled.app.code(clock.now))


def test_a_secret_waits_half_an_hour_for_its_first_code(
    services: Services, ada: Identity, clock: Clock
) -> None:
    live = log_in(services)
    for waited, counts in ((totp.SET_UP_LASTS.total_seconds(), False), (1_799, True)):
        app = Authenticator(services.factors.propose_totp(live).secret)
        clock.forward(waited)
        live = log_in(services)  # the one before was idle too long
        code = app.code(clock.now)
        if counts:
            assert services.factors.confirm_totp(live, code, CLIENT).value.recovery_codes
            return
        with pytest.raises(InvalidField, match="not the code"):
            services.factors.confirm_totp(live, code, CLIENT)


def test_a_secret_moved_to_another_account_opens_nothing(
    services: Services, ada: Identity, clock: Clock
) -> None:
    """By somebody who writes to Postgres, and knows no SECRET_KEY."""
    own = enrol_person(services, ada, clock.now)
    other = enrol_person(services, sign_up(services, "eve@example.org"), clock.now)
    clock.forward(totp.STEP)
    sql(
        services,
        "UPDATE totp_secrets AS t SET sealed = other.sealed FROM totp_secrets AS other"
        " WHERE t.user_id = :ada AND other.user_id <> :ada",
        ada=ada.id,
    )
    is_refused(services, own.live, other.app.code(clock.now))


def test_a_right_code_ends_the_row_of_wrong_ones(
    services: Services, ada: Identity, clock: Clock
) -> None:
    """Else a person who mistypes now and then would lose the app after years."""
    enrolled = enrol_person(services, ada, clock.now)
    live = enrolled.live
    for _ in range(2):
        sql(services, "UPDATE totp_secrets SET failures = :most - 1", most=MOST_FAILURES)
        clock.forward(totp.STEP)
        live = confirm(services, live, enrolled.app.code(clock.now))
        assert sql(services, "SELECT failures FROM totp_secrets") == [(0,)]
    is_refused(services, live, enrolled.app.code(clock.now))
    assert sql(services, "SELECT failures FROM totp_secrets") == [(1,)]


def test_wrong_codes_of_a_step_up_count_by_account(config: Config, clock: Clock) -> None:
    """In the window of factors, which log-ins share."""
    limited = make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT="3 per 15 minutes",
    )
    with open_services(limited, clock) as services:
        enrolled = enrol_person(services, sign_up(services), clock.now)
        clock.forward(totp.STEP)
        for _ in range(3):
            is_refused(services, enrolled.live, "000000")
        with pytest.raises(TooManyAttempts) as refused:
            confirm(services, enrolled.live, enrolled.app.code(clock.now))
        assert refused.value.window == "factor-account"
