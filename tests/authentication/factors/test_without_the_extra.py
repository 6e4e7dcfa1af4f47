"""Without the extra `factors` nobody can set up an authenticator app, and one line says so."""

import sys

import pytest

from authapp.config import Config
from authapp.errors import FactorsOff, SettingError
from authapp.services import Services
from tests.support.clock import Clock
from tests.support.people import log_in, sign_up
from tests.support.services import open_services
from tests.support.settings import make_config


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyotp", None)


@pytest.mark.usefixtures("without_extra")
def test_a_set_up_says_what_is_missing(services: Services) -> None:
    sign_up(services)
    with pytest.raises(FactorsOff, match=r"authapp\[factors\]"):
        services.factors.propose_totp(log_in(services))


@pytest.mark.usefixtures("without_extra")
def test_a_demand_that_nobody_could_meet_stops_the_start(config: Config, clock: Clock) -> None:
    demanding = make_config(config.DATABASE_URL, config.REDIS_URL, SECOND_FACTOR="required")
    with (
        pytest.raises(SettingError, match=r"SECOND_FACTOR: install authapp\[factors\]"),
        open_services(demanding, clock),
    ):
        pass
