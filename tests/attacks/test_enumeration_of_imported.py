"""With imported hashes, too, the time of a refusal does not tell which kind an account has."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count

import pytest
from werkzeug.security import generate_password_hash

from authapp.config import Config
from authapp.errors import InvalidCredentials
from authapp.passwords import constant_time, hashing
from authapp.services import Services
from tests.attacks.timing import told_apart
from tests.authentication.test_imported_users import bring
from tests.support.clock import Clock
from tests.support.people import OTHER_PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.support.settings import UNLIMITED

ANSWERS = 24
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
    # on a machine with other work
    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0.1)
    monkeypatch.setattr(hashing, "_MARGIN", 3)
    patient = replace(
        config,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    with open_services(patient, clock) as services:
        sign_up(services, OURS)
        slow = generate_password_hash(OTHER_PASSWORD[::-1], "pbkdf2:sha256:100000")
        fast = generate_password_hash(OTHER_PASSWORD[::-1], "pbkdf2:sha256:10")
        bring(services, slow, fast, email=SLOW)
        yield services


@pytest.mark.first
def test_the_time_is_the_same_whoever_made_the_hash(there: Services) -> None:
    def ask(kind: str) -> None:
        email = WHOM[kind]()
        with pytest.raises(InvalidCredentials):
            log_in(there, email, OTHER_PASSWORD)

    pairs = [("unknown", "slow"), ("ours", "slow"), ("fast", "slow")]
    assert not told_apart(pairs, lambda: nullcontext(ask), ANSWERS, attackers=1)
