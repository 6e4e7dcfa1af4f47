"""While Postgres is away the time of a refused log-in does not tell whether an account exists."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import count

import pytest

from authapp.accounts.emails import parse_email
from authapp.config import Config
from authapp.errors import StoreUnavailable
from authapp.passwords import constant_time
from tests.attacks.timing import told_apart
from tests.sessions.test_provisional import postgres_away
from tests.support.clock import Clock
from tests.support.people import EMAIL, OTHER_PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.support.settings import UNLIMITED

ANSWERS = 30


def test_the_time_of_a_503_is_the_same(
    config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied account with a wrong password, and emails without an account."""
    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0.1)  # on a machine with other work
    patient = replace(
        config,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    numbers = count(1)
    with open_services(patient, clock) as services:

        def ask(kind: str) -> None:
            email = EMAIL if kind == "known" else f"nobody{next(numbers)}@example.org"
            with pytest.raises(StoreUnavailable):
                log_in(services, email, OTHER_PASSWORD)

        sign_up(services)
        services.credentials.find(parse_email(EMAIL))  # from here on there is a copy
        with postgres_away(services):
            assert not told_apart(
                [("known", "unknown")], lambda: nullcontext(ask), ANSWERS, attackers=1
            )
