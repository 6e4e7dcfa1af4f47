"""While Postgres is away the time of a refused log-in does not tell whether an account exists."""

import sys
import time
from dataclasses import replace
from itertools import count

import pytest

from authapp.accounts.emails import parse_email
from authapp.config import Config
from authapp.errors import StoreUnavailable
from authapp.passwords import constant_time
from authapp.services import Services
from tests.attacks.test_enumeration import SUSPICIOUS, TRIES, WARM_UP, rank_test
from tests.sessions.test_provisional import postgres_away
from tests.support.clock import Clock
from tests.support.people import EMAIL, OTHER_PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.support.settings import UNLIMITED

PAIRS = 40


def seconds(services: Services) -> tuple[list[float], list[float]]:
    """How long refusals took of a copied account with a wrong password, and of unknown emails."""
    known: list[float] = []
    unknown: list[float] = []
    numbers = count(1)
    for number in range(PAIRS + WARM_UP):
        for took in (known, unknown) if number % 2 else (unknown, known):
            email = EMAIL if took is known else f"nobody{next(numbers)}@example.org"
            started = time.perf_counter()
            with pytest.raises(StoreUnavailable):
                log_in(services, email, OTHER_PASSWORD)
            took.append(time.perf_counter() - started)
    return known[WARM_UP:], unknown[WARM_UP:]


def test_the_time_of_a_503_is_the_same(
    config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `test_the_time_is_the_same`: a difference that is there shows again and again."""
    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0.1)  # on a machine with other work
    patient = replace(
        config, LOGIN_LIMIT_PER_ADDRESS=UNLIMITED, LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED
    )
    found: list[float] = []
    with open_services(patient, clock) as services:
        sign_up(services)
        services.credentials.find(parse_email(EMAIL))  # from here on there is a copy
        with postgres_away(services):
            while not found or (found[-1] <= SUSPICIOUS and len(found) < TRIES):
                found.append(rank_test(*seconds(services)))
    sys.stdout.write(f"known and unknown: p = {found}\n")
    assert found[-1] > SUSPICIOUS, found
