"""Factors that somebody else added to an account are gone once its owner takes it back."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from authapp.config import Config
from authapp.errors import UnknownPasskey
from authapp.services import Services
from authapp.sessions.records import ActiveSession
from tests.support.authenticator import enrol
from tests.support.clock import Clock
from tests.support.mails import mails
from tests.support.passkey_holders import Holder, a_holder, events, settings
from tests.support.people import CLIENT
from tests.support.services import open_services, sql

DAY = 86_400
NEW = "ada@new.example"


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    """Mail is on, and sessions last for as long as the tests take."""
    month = str(30 * DAY)
    mail = settings(
        config,
        MAIL_URL="smtp://127.0.0.1:9",
        EMAIL_VERIFICATION="off",
        STEP_UP_SECONDS="3600",
        SESSION_IDLE_SECONDS=month,
        SESSION_MAX_SECONDS=month,
    )
    with open_services(mail, clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Holder:
    holder = a_holder(services)
    sql(services, "UPDATE users SET email_verified_at = now()")
    return holder


def token_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["token"][0]


def change_email(services: Services, live: ActiveSession) -> str:
    """Changes the address; returns the token that undoes it."""
    services.email_changes.ask(live, NEW, CLIENT)
    [asked] = mails(services, "confirm_change")
    services.email_changes.confirm(token_of(asked.context["link"]), "", live, CLIENT)
    [told] = [one for one in mails(services, "email_changed") if "undo_link" in one.context]
    return token_of(told.context["undo_link"])


def second_factor(services: Services) -> bool:
    ((held,),) = sql(services, "SELECT second_factor FROM users")
    return bool(held)


def test_an_undo_removes_the_factors_of_a_thief_and_leaves_those_of_the_owner(
    services: Services, ada: Holder, clock: Clock
) -> None:
    ada.add("mine")
    clock.forward(3 * DAY)
    thief = Holder(services, ada.log_in().session)  # the thief sits at a browser of hers
    thief.add("of the thief")
    clock.forward(DAY / 2)
    token = change_email(services, thief.log_in().session)
    thief.live = thief.log_in().session
    thief.add("later")
    services.email_changes.undo(token, CLIENT)
    assert len(thief.browser.passkeys) == 2
    for passkey in thief.browser.passkeys:
        with pytest.raises(UnknownPasskey):
            thief.log_in(passkey)
    assert sql(services, "SELECT name FROM passkeys") == [("mine",)]
    assert second_factor(services)
    assert len(events(services, "factor.reset")) == 1
    ada.log_in()
    assert len(sql(services, "SELECT 1 FROM recovery_codes")) == len(ada.codes) > 0


def test_an_undo_removes_the_app_of_a_thief_and_the_codes_that_came_with_it(
    services: Services, ada: Holder, clock: Clock
) -> None:
    enrolled = enrol(services, ada.live, clock.now)
    token = change_email(services, enrolled.live)
    services.email_changes.undo(token, CLIENT)
    assert not second_factor(services)
    assert sql(services, "SELECT 1 FROM totp_secrets") == []
    assert sql(services, "SELECT 1 FROM recovery_codes") == []
    assert len(events(services, "factor.reset")) == 1


def test_an_undo_is_no_reset_of_factors_where_there_are_no_new_ones(
    services: Services, ada: Holder, clock: Clock
) -> None:
    ada.add("mine")
    clock.forward(3 * DAY)
    token = change_email(services, ada.log_in().session)
    services.email_changes.undo(token, CLIENT)
    assert events(services, "factor.reset") == []
    ada.log_in()
