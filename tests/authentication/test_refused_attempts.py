"""Refused attempts become events: soon, few, and none of them lost but by a kill."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from authapp.accounts.actor import Actor
from authapp.accounts.audit import Entry, Filter
from authapp.accounts.emails import parse_email
from authapp.authentication import refused_attempts
from authapp.authentication.refused_attempts import (
    FOLD_SECONDS,
    MAX_FOLDS,
    ROWS_A_MINUTE,
    RefusedAttempts,
)
from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.telemetry import deferred as together
from tests.support.people import CLIENT, EMAIL, sign_up
from tests.support.threads import at_once
from tests.support.waiting import wait_until

NOBODY = parse_email("nobody@example.org")


class Ticks:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def attempts(services: Services, ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> RefusedAttempts:
    """Without the thread: the tests say when it would write."""
    monkeypatch.setattr(RefusedAttempts, "_work", lambda _: None)
    of_services = services.refused_attempts
    return RefusedAttempts(
        services.database, of_services._email_hashes, of_services._clock, tick=ticks
    )


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The warnings in the log."""
    found: list[dict[str, object]] = []

    class Log:
        def warning(self, event: str, **fields: object) -> None:
            found.append({"event": event, **fields})

    monkeypatch.setattr(refused_attempts, "_log", Log())
    return found


def written(services: Services, event: str = "") -> list[Entry]:
    return services.audit.page(limit=5_000, which=Filter(event=event)).entries


def count(found: list[Entry]) -> int:
    return sum(entry.details.get("count", 1) for entry in found)


def has(services: Services, rows: int) -> bool:
    return len(written(services)) == rows


def test_the_thread_writes_the_first_by_itself_and_ends_when_nothing_is_left(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_attempts, "FOLD_SECONDS", 0.5)
    attempts = services.refused_attempts
    for rows in (1, 2, 3, 4):
        attempts.note("login.failed", CLIENT, email=NOBODY)
        wait_until(partial(has, services, rows))
        if rows == 2:
            wait_until(lambda: attempts._thread is None)
    wait_until(lambda: attempts._thread is None)


def test_attempts_that_are_alike_are_counted_together(
    services: Services, attempts: RefusedAttempts, ticks: Ticks
) -> None:
    for _ in range(180):
        attempts.note("login.failed", CLIENT, email=NOBODY)
        ticks.now += 1
        attempts.flush(everything=False)
    assert [entry.details.get("count", 1) for entry in written(services)] == [60, 60, 1]
    attempts.flush()
    assert count(written(services)) == 180
    ticks.now += 2 * FOLD_SECONDS
    attempts.flush(everything=False)
    assert attempts._folds == {}
    attempts.note("login.failed", CLIENT, email=NOBODY)
    attempts.flush(everything=False)
    assert "count" not in written(services)[0].details, "the first after a pause is told at once"


DIFFERENT = {
    "event": {"event": "login.limited"},
    "address": {"actor": Actor(address="192.0.2.99")},
    "email": {"email": parse_email("else@example.org")},
    "window": {"window": "login-account"},
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_attempts_that_differ_are_told_apart(
    services: Services, attempts: RefusedAttempts, other: dict[str, Any]
) -> None:
    first: dict[str, Any] = {"event": "login.failed", "actor": CLIENT, "email": NOBODY}
    for given in (first, first | other, first):
        attempts.note(**given)
    attempts.flush()
    assert sorted(entry.details.get("count", 1) for entry in written(services)) == [1, 2]


def test_a_network_of_one_customer_counts_as_one(
    services: Services, attempts: RefusedAttempts
) -> None:
    for host in range(1, 40):
        attempts.note("login.failed", Actor(address=f"2001:db8::{host:x}"), email=NOBODY)
    attempts.flush()
    (entry,) = written(services)
    assert (entry.address, entry.details["count"]) == ("2001:db8::27", 39)


def test_a_flood_from_many_addresses_stays_few_rows_and_little_memory(
    services: Services, attempts: RefusedAttempts, ticks: Ticks
) -> None:
    for number in range(3_000):
        actor = Actor(address=f"10.0.{number // 250}.{number % 250}")
        attempts.note("login.failed", actor, email=parse_email(f"nobody{number}@example.org"))
        attempts.note("login.limited", actor, window="login-address")
        if number % 100 == 0:
            attempts.flush(everything=False)
    assert len(attempts._folds) <= MAX_FOLDS
    assert len(attempts._flood.networks) <= MAX_FOLDS
    assert len(written(services)) <= ROWS_A_MINUTE
    ticks.now += 61
    attempts.flush(everything=False)
    attempts.flush()
    found = written(services)
    assert len(found) <= 2 * ROWS_A_MINUTE + 2
    assert count(found) == 6_000, "none is lost"
    floods = [entry for entry in found if entry.event == "login.flood"]
    assert sum(entry.details["login.limited"] for entry in floods) > 1_000
    assert all(1 <= len(entry.details["addresses"]) <= 5 for entry in floods)


def test_the_addresses_that_try_most_are_named(
    services: Services, attempts: RefusedAttempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_attempts, "ROWS_A_MINUTE", 0)
    for number in range(20):
        attempts.note("login.failed", Actor(address=f"192.0.2.{number}"), email=NOBODY)
    for _ in range(7):
        attempts.note("login.failed", Actor(address="198.51.100.7"), email=NOBODY)
    attempts.flush()
    (flood,) = written(services)
    assert flood.details["addresses"][0] == "198.51.100.7"
    assert flood.details["count"] == flood.details["login.failed"] == 27


def test_attempts_wait_while_postgres_is_away(
    services: Services,
    attempts: RefusedAttempts,
    ticks: Ticks,
    monkeypatch: pytest.MonkeyPatch,
    warned: list[dict[str, object]],
) -> None:
    sign_up(services)
    before = len(written(services))

    def away(*_: object) -> None:
        raise StoreUnavailable("postgres")

    with monkeypatch.context() as patch:
        patch.setattr(attempts._database, "transaction", away)
        for _ in range(5):
            attempts.note("login.failed", CLIENT, email=parse_email(EMAIL))
            attempts.flush(everything=False)
            ticks.now += 60
        assert [told["waiting"] for told in warned] == [1, 2, 3, 4, 5]
    ticks.now += 60
    attempts.flush(everything=False)
    (entry, *_) = written(services)
    assert len(written(services)) == before + 1
    assert entry.details["count"] == 5
    assert entry.user
    assert entry.user.email == EMAIL


def test_what_is_lost_is_said(
    services: Services,
    attempts: RefusedAttempts,
    monkeypatch: pytest.MonkeyPatch,
    warned: list[dict[str, object]],
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("postgres")

    for _ in range(5):
        attempts.note("login.failed", CLIENT, email=parse_email(EMAIL))
    with monkeypatch.context() as patch:
        patch.setattr(attempts._database, "transaction", away)
        attempts.finish()
    assert warned[-1] == {"event": "attempts_not_recorded", "lost": 5}
    attempts.finish()
    assert written(services) == []


def test_an_orderly_end_loses_nothing(services: Services, attempts: RefusedAttempts) -> None:
    attempts.note("login.failed", CLIENT, email=NOBODY)
    together.end()
    assert len(written(services)) == 1


def test_attempts_at_once_are_all_counted(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_attempts, "FOLD_SECONDS", 0.3)
    attempts = services.refused_attempts

    def many(number: int) -> Callable[[], None]:
        client = replace(CLIENT, address=f"192.0.2.{number % 3}")

        def note() -> None:
            for _ in range(200):
                attempts.note("login.failed", client, email=NOBODY)
                time.sleep(0.002)

        return note

    assert at_once(*[many(number) for number in range(6)]) == [None] * 6
    attempts.finish()
    assert count(written(services, "login.failed")) == 1_200
