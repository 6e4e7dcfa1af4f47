"""With imported hashes, too, the time of a refusal does not tell which kind an account has."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from werkzeug.security import generate_password_hash

from authapp.config import Config
from authapp.errors import InvalidCredentials
from authapp.passwords import constant_time
from authapp.services import Services
from tests.attacks.test_enumeration import SUSPICIOUS, TRIES, WARM_UP, rank_test
from tests.authentication.test_imported_users import bring
from tests.support.clock import Clock
from tests.support.people import OTHER_PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.support.settings import UNLIMITED

PAIRS = 40
OURS, SLOW, FAST = "ours@example.org", "old@example.org", "1old@example.org"
_numbers = count(1)

WHOM: dict[str, Callable[[], str]] = {
    "unknown": lambda: f"nobody{next(_numbers)}@example.org",
    "ours": lambda: OURS,
    "slow": lambda: SLOW,
    "fast": lambda: FAST,
}


@pytest.fixture
def there(config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0.1)  # on a machine with other work
    patient = replace(
        config, LOGIN_LIMIT_PER_ADDRESS=UNLIMITED, LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED
    )
    with open_services(patient, clock) as services:
        sign_up(services, OURS)
        slow = generate_password_hash(OTHER_PASSWORD[::-1], "pbkdf2:sha256:100000")
        fast = generate_password_hash(OTHER_PASSWORD[::-1], "pbkdf2:sha256:10")
        bring(services, slow, fast, email=SLOW)
        yield services


def seconds(services: Services, one: str, other: str) -> tuple[list[float], list[float]]:
    """How long each of so many refusals took; in turn, as the machine's speed drifts."""
    took: dict[str, list[float]] = {one: [], other: []}
    for number in range(PAIRS + WARM_UP):
        for whom in (one, other) if number % 2 else (other, one):
            email = WHOM[whom]()
            started = time.perf_counter()
            with pytest.raises(InvalidCredentials):
                log_in(services, email, OTHER_PASSWORD)
            took[whom].append(time.perf_counter() - started)
    return took[one][WARM_UP:], took[other][WARM_UP:]


@pytest.mark.parametrize(
    ("one", "other"), [("unknown", "slow"), ("ours", "slow"), ("fast", "slow")]
)
def test_the_time_is_the_same_whoever_made_the_hash(there: Services, one: str, other: str) -> None:
    """As `test_the_time_is_the_same`: a difference that is there shows again and again."""
    found: list[float] = []
    while not found or (found[-1] <= SUSPICIOUS and len(found) < TRIES):
        found.append(rank_test(*seconds(there, one, other)))
    sys.stdout.write(f"{one} and {other}: p = {found}\n")
    assert found[-1] > SUSPICIOUS, found
