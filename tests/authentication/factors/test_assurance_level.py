"""`ASSURANCE_LEVEL=2`: every session has the limits of NIST's AAL2, whatever else is set."""

from collections.abc import Iterator

import pytest

from authapp.accounts.identity import Identity
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.config import Config
from authapp.errors import SecondFactorRequired
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason, IssuedLogin, IssuedTokens
from tests.support.authenticator import Enrolled, enrol
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.support.sessions import ending, is_live
from tests.support.settings import UNLIMITED, make_config

HOUR, DAY = 3_600, 86_400
GENEROUS = {
    "SESSION_IDLE_SECONDS": 30 * DAY,
    "SESSION_ABSOLUTE_SECONDS": 30 * DAY,
    "REMEMBER_ME_SECONDS": 365 * DAY,
    "ACCESS_TOKEN_SECONDS": DAY,
    "LOGIN_LIMIT_PER_ADDRESS": UNLIMITED,
    "LOGIN_FAILURES_PER_ACCOUNT": UNLIMITED,
    "SECOND_FACTOR": "required",
}
REVALIDATE = 60


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    at_level_2 = make_config(config.DATABASE_URL, config.REDIS_URL, ASSURANCE_LEVEL=2, **GENEROUS)
    with open_services(at_level_2, clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


@pytest.fixture
def enrolled(services: Services, ada: Identity, clock: Clock) -> Enrolled:
    live = services.authentication.log_in_as(ada.id, CLIENT, amr=("mfa",)).session
    return enrol(services, live, clock.now)


def code(enrolled: Enrolled, clock: Clock) -> ShownFactor:
    """A code that was not used."""
    clock.forward(60)
    return ShownFactor("totp", enrolled.app.code(clock.now))


def logged_in(
    services: Services, enrolled: Enrolled, clock: Clock, *, remember: bool
) -> ActiveSession:
    with pytest.raises(SecondFactorRequired) as caught:
        log_in(services, remember=remember)
    shown = code(enrolled, clock)
    issued = services.factor_login.complete(caught.value.login_token, shown, CLIENT).issued
    assert isinstance(issued, IssuedLogin)
    return issued.session


def tokens(
    services: Services, enrolled: Enrolled, clock: Clock, *, refreshable: bool
) -> IssuedTokens:
    with pytest.raises(SecondFactorRequired) as caught:
        services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=refreshable)
    shown = code(enrolled, clock)
    issued = services.factor_login.complete(caught.value.login_token, shown, CLIENT).issued
    assert isinstance(issued, IssuedTokens)
    return issued


def come_for_a_day(services: Services, live: ActiveSession, clock: Clock) -> None:
    """Visits so often that the session is never idle, until the last minute of its day."""
    for _ in range(24):
        assert is_live(services, live)
        clock.forward(HOUR - 1)
    assert is_live(services, live)
    clock.forward(24)


@pytest.mark.parametrize("remember", [False, True], ids=["plain", "remembered"])
def test_no_session_lasts_longer_than_a_day(
    services: Services, enrolled: Enrolled, clock: Clock, remember: bool
) -> None:
    live = logged_in(services, enrolled, clock, remember=remember)
    come_for_a_day(services, live, clock)
    assert ending(services, live) is EndReason.ABSOLUTE


@pytest.mark.parametrize("remember", [False, True], ids=["plain", "remembered"])
def test_no_session_lasts_an_hour_without_a_visit(
    services: Services, enrolled: Enrolled, clock: Clock, remember: bool
) -> None:
    live = logged_in(services, enrolled, clock, remember=remember)
    clock.forward(HOUR + REVALIDATE)
    assert ending(services, live) is EndReason.IDLE


def test_sessions_of_programs_end_as_early(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    refreshed = tokens(services, enrolled, clock, refreshable=True)
    begun, last = clock.now, refreshed
    while (clock.now - begun).total_seconds() < DAY - HOUR:
        clock.forward(HOUR - 1)
        assert last.refresh is not None
        last = services.sessions.refresh(last.refresh, CLIENT)
    clock.forward(HOUR - 1)
    assert ending(services, last.session) is EndReason.ABSOLUTE

    for refreshable in (True, False):
        idle = tokens(services, enrolled, clock, refreshable=refreshable)
        assert is_live(services, idle.session)
        clock.forward(HOUR + REVALIDATE)
        assert not is_live(services, idle.session)


def test_a_step_up_begins_both_limits_again(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    live = logged_in(services, enrolled, clock, remember=True)
    come_for_a_day(services, live, clock)
    clock.forward(-120)
    issued = services.step_up.confirm_by_factor(live, code(enrolled, clock), CLIENT).value
    assert isinstance(issued, IssuedLogin)
    come_for_a_day(services, issued.session, clock)
    assert ending(services, issued.session) is EndReason.ABSOLUTE


def test_no_browser_is_trusted(
    services: Services, enrolled: Enrolled, config: Config, clock: Clock
) -> None:
    """Nor one that was trusted before the setting was changed."""
    before = make_config(config.DATABASE_URL, config.REDIS_URL, **GENEROUS)
    with open_services(before, clock) as lenient:
        with pytest.raises(SecondFactorRequired) as caught:
            log_in(lenient)
        completed = lenient.factor_login.complete(
            caught.value.login_token, code(enrolled, clock), CLIENT, Browser(is_trusted=True)
        )
        assert isinstance(completed.issued, IssuedLogin)
        devices = completed.issued.devices
        assert log_in(lenient, devices=devices).record.amr == ("pwd",)
    with pytest.raises(SecondFactorRequired):
        log_in(services, devices=devices)


def test_shorter_limits_stay(config: Config, clock: Clock) -> None:
    short = {**GENEROUS, "SESSION_IDLE_SECONDS": 300, "SESSION_ABSOLUTE_SECONDS": 600}
    settings = make_config(config.DATABASE_URL, config.REDIS_URL, ASSURANCE_LEVEL=2, **short)
    with open_services(settings, clock) as services:
        person = sign_up(services)
        live = services.authentication.log_in_as(person.id, CLIENT, amr=("mfa",)).session
        assert live.record.idle_seconds == 300
        assert (live.record.expires_at - clock.now).total_seconds() == 600
