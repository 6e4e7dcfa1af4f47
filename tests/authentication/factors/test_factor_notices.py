"""People are told of every change of their factors, and of failures at them, by mail."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.config import Config
from authapp.errors import InvalidFactor, SecondFactorRequired
from authapp.services import Services
from tests.support.authenticator import Authenticator, enrol
from tests.support.clock import Clock
from tests.support.mails import WITHOUT_VERIFICATION, mails
from tests.support.passkey_holders import Holder, a_holder, settings
from tests.support.passkeys import used
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import open_services


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    mail = settings(config, **WITHOUT_VERIFICATION)
    with open_services(mail, clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Holder:
    return a_holder(services)


def told(services: Services) -> list[str]:
    return [mail.context["what"] for mail in mails(services, "factors_changed")]


def set_app_up(ada: Holder, clock: Clock) -> Authenticator:
    enrolled = enrol(ada.services, ada.live, clock.now)
    ada.live = enrolled.live
    ada.codes = enrolled.recovery_codes or ada.codes
    return enrolled.app


def half(services: Services) -> str:
    """The token of a log-in that waits for its second factor."""
    with pytest.raises(SecondFactorRequired) as caught:
        log_in(services)
    return caught.value.login_token


def test_an_app_that_is_added_replaced_and_removed_is_told(
    services: Services, ada: Holder, clock: Clock
) -> None:
    set_app_up(ada, clock)
    set_app_up(ada, clock)
    services.factors.remove_totp(ada.live, CLIENT)
    assert told(services) == ["totp_added", "totp_replaced", "totp_removed"]
    for mail in mails(services, "factors_changed"):
        assert mail.recipient == EMAIL
        assert mail.context["address"] == CLIENT.address
        assert mail.context["when"]


def test_a_passkey_that_is_added_and_removed_is_told(services: Services, ada: Holder) -> None:
    ada.remove(ada.add())
    assert told(services) == ["passkey_added", "passkey_removed"]


def test_new_recovery_codes_and_the_use_of_one_are_told(services: Services, ada: Holder) -> None:
    ada.add()
    codes = services.factors.make_recovery_codes(ada.live, CLIENT).value
    shown = ShownFactor("recovery_code", codes[0])
    services.factor_login.complete(half(services), shown, CLIENT, Browser())
    assert told(services) == ["passkey_added", "recovery_codes_made", "recovery_code_used"]
    assert mails(services, "factors_changed")[-1].context["left"] == "9"


def test_the_person_is_told_that_somebody_else_removed_their_factors(
    services: Services, ada: Holder
) -> None:
    ada.add()
    services.factors.reset(ada.live.record.user.id, OPERATOR)
    assert told(services) == ["passkey_added", "factors_reset"]
    assert mails(services, "factors_changed")[-1].context["address"] == ""


def test_five_wrong_factors_after_the_right_password_are_told_once(
    services: Services, ada: Holder, clock: Clock
) -> None:
    set_app_up(ada, clock)
    wrong = ShownFactor("totp", "000000")
    for before in (0, 1):
        token = half(services)
        for _ in range(5):
            assert len(mails(services, "factor_refused")) == before
            with pytest.raises(InvalidFactor):
                services.factor_login.complete(token, wrong, CLIENT, Browser())
    assert len(mails(services, "factor_refused")) == 1


def test_a_log_in_by_passkey_is_told_from_a_new_browser_at_a_new_place_alone(
    services: Services,
) -> None:
    sign_up(services)
    first = services.authentication.log_in(EMAIL, PASSWORD, CLIENT)
    ada = Holder(services, first.session)
    ada.add()
    for address, browser, mailed in (
        ("203.0.113.7", Browser(devices=first.devices), 0),
        ("198.51.100.7", Browser(), 1),
    ):
        answer = used(services.passkey_login.options(), ada.browser)
        services.passkey_login.log_in(answer, replace(CLIENT, address=address), browser)
        assert len(mails(services, "new_device")) == mailed
