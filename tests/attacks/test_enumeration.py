"""Log-in does not reveal whether an account exists, neither by its answer nor by its time.

ENUMERATION_PAIRS: the number of pairs whose times are compared, with the pause that is shipped.
Without it, fewer pairs are compared, with a pause for busy machines.
"""

import math
import os
import sys
import time
from itertools import count

import pytest

from tests.attacks.site import Answer, Site, ask
from tests.support.people import PASSWORD

PAIRS, WARM_UP = int(os.environ.get("ENUMERATION_PAIRS", "60")), 6
TRIES = 3
# Chance alone gives a p below this in one run of a hundred; see `test_the_time_is_the_same`.
SUSPICIOUS = 0.01

WRONG = "not the password of anyone"
OVER_LONG = "x" * 10_000

_numbers = count(1)


class Accounts:
    """Emails and passwords that log-in refuses, each for a reason of its own."""

    def __init__(self, site: Site) -> None:
        self.active, self.inactive = site.sign_up(), site.sign_up()
        site.sql("UPDATE users SET active = false WHERE email = %s", self.inactive)

    def unknown(self) -> tuple[str, str]:
        return f"nobody{next(_numbers)}@example.org", WRONG

    def unknown_again(self) -> tuple[str, str]:
        return "nobody@example.org", WRONG

    def unknown_over_long(self) -> tuple[str, str]:
        return "nobody@example.org", OVER_LONG

    def wrong(self) -> tuple[str, str]:
        return self.active, WRONG

    def wrong_over_long(self) -> tuple[str, str]:
        return self.active, OVER_LONG

    def inactive_wrong(self) -> tuple[str, str]:
        return self.inactive, WRONG

    def inactive_right(self) -> tuple[str, str]:
        return self.inactive, PASSWORD


@pytest.fixture(scope="module")
def accounts(site: Site) -> Accounts:
    return Accounts(site)


REASONS = (
    "unknown",
    "unknown_again",
    "unknown_over_long",
    "wrong",
    "wrong_over_long",
    "inactive_wrong",
    "inactive_right",
)


def shown(answer: Answer) -> tuple[int, list[tuple[str, str]], dict[str, object]]:
    """All of an answer but when it was given, its id and how many came from here before."""
    own = {"date", "x-request-id", "ratelimit"}
    headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in own]
    return answer.status, headers, answer.json() | {"request_id": ""}


def test_every_refusal_looks_the_same(site: Site, accounts: Accounts) -> None:
    for _ in range(3):  # without a copy in Redis, and with one
        seen, left = [], []
        for reason in REASONS:
            email, password = getattr(accounts, reason)()
            body = {"email": email, "password": password}
            answer = site.ask("POST", "/api/v1/login", body)
            seen.append(shown(answer))
            left.append(int(answer.headers["RateLimit"].partition(";r=")[2].partition(";")[0]))
        assert seen[0][0] == 401
        assert all(each == seen[0] for each in seen)
        assert left == list(range(left[0], left[0] - len(left), -1)), "whoever was asked for"


def seconds(
    site: Site, one: str, other: str, accounts: Accounts
) -> tuple[list[float], list[float]]:
    """How long each of so many refusals took; in turn, as the machine's speed drifts."""
    took: dict[str, list[float]] = {one: [], other: []}
    with site.connection() as connection:
        for number in range(PAIRS + WARM_UP):
            # each goes first as often: what one leaves to be done later falls on the next
            for reason in (one, other) if number % 2 else (other, one):
                email, password = getattr(accounts, reason)()
                started = time.perf_counter()
                answer = ask(
                    connection, "POST", "/api/v1/login", {"email": email, "password": password}
                )
                took[reason].append(time.perf_counter() - started)
                assert answer.status == 401
    return took[one][WARM_UP:], took[other][WARM_UP:]


def rank_test(one: list[float], other: list[float]) -> float:
    """p of Mann and Whitney's test: how often chance alone ranks two samples so differently."""
    ranked = sorted(one + other)
    ranks: dict[float, float] = {}
    for place, value in enumerate(ranked, 1):
        ranks.setdefault(value, place + (ranked.count(value) - 1) / 2)
    n, m = len(one), len(other)
    u = sum(ranks[value] for value in one) - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def test_the_rank_test_sees_a_difference_and_none() -> None:
    """The control, with values that can be looked up."""
    alternating = [float(n) for n in range(400)]
    assert rank_test(alternating[::2], alternating[1::2]) > 0.8
    assert rank_test(alternating[:200], alternating[200:]) < 1e-30
    assert rank_test([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]) == pytest.approx(
        0.00902, abs=0.00001
    )
    assert rank_test([1.0] * 5, [1.0] * 5) == 1.0


PAIRED = [
    ("unknown", "wrong"),
    ("unknown_again", "wrong"),
    ("wrong", "inactive_wrong"),
    ("unknown", "inactive_right"),
    ("unknown_over_long", "wrong_over_long"),
]


@pytest.mark.parametrize(("one", "other"), PAIRED, ids=[f"{a}-{b}" for a, b in PAIRED])
def test_the_time_is_the_same(site: Site, accounts: Accounts, one: str, other: str) -> None:
    """A p of one in a hundred comes up by chance; with fresh pairs it does so each time for one run
    in a million, while a difference that is there shows again and again.
    """
    found: list[float] = []
    while not found or (found[-1] <= SUSPICIOUS and len(found) < TRIES):
        found.append(rank_test(*seconds(site, one, other, accounts)))
    sys.stdout.write(f"{one} and {other}: p = {found}\n")
    assert found[-1] > SUSPICIOUS, found
