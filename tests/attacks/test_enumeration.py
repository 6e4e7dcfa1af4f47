"""Log-in does not reveal whether an account exists, neither by its answer nor by its time."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tests.attacks.site import Answer, Site, ask
from tests.attacks.timing import Ask, rank_test, told_apart
from tests.support.people import PASSWORD

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


def test_the_time_is_the_same(site: Site, accounts: Accounts) -> None:
    @contextmanager
    def attacker() -> Iterator[Ask]:
        with site.connection() as connection:

            def log_in(reason: str) -> None:
                email, password = getattr(accounts, reason)()
                body = {"email": email, "password": password}
                assert ask(connection, "POST", "/api/v1/login", body).status == 401

            yield log_in

    assert not told_apart(PAIRED, attacker)
