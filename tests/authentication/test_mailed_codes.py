"""The codes of mails that confirm an address: random, short-lived, once."""

import re

import pytest

from authapp.config import Config
from authapp.errors import InvalidToken
from authapp.mail.one_time_links import CODE_LIFETIME
from authapp.services import Services
from tests.support.clock import Clock
from tests.support.mails import MAIL_SETTINGS, mails
from tests.support.people import CLIENT, EMAIL, PASSWORD
from tests.support.services import sql
from tests.support.settings import make_config


@pytest.fixture
def config(config: Config) -> Config:
    return make_config(config.DATABASE_URL, config.REDIS_URL, **MAIL_SETTINGS)


def mailed_code(services: Services, email: str = EMAIL) -> str:
    services.registration.sign_up_from(CLIENT, email, PASSWORD, "Ada")
    return mails(services, "verify")[-1].context["code"]


def confirm(services: Services, code: str) -> None:
    services.verification.confirm_by_code(EMAIL, code, PASSWORD, None, CLIENT)


def test_a_code_is_random_and_only_its_hash_is_kept(services: Services) -> None:
    codes = [mailed_code(services, f"{number}@example.org") for number in range(5)]
    assert len(set(codes)) == 5
    assert all(re.fullmatch("[0-9]{8}", code) for code in codes), "26 bits"
    kept = str(sql(services, "SELECT t::text FROM one_time_links t"))
    assert [code for code in codes if code in kept] == []


def test_a_code_counts_for_ten_minutes(services: Services, clock: Clock) -> None:
    assert CODE_LIFETIME.total_seconds() == 600
    code = mailed_code(services)
    clock.forward(600)
    with pytest.raises(InvalidToken):
        confirm(services, code)
    code = mailed_code(services)
    clock.forward(599)
    confirm(services, code)


def test_a_code_counts_once(services: Services) -> None:
    code = mailed_code(services)
    confirm(services, code)
    with pytest.raises(InvalidToken):
        confirm(services, code)
