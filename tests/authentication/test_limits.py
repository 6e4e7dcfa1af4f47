"""Log-in limits: by network and account, in Redis and without it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import redis
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)
from redis.connection import AbstractConnection

from authapp import dev
from authapp.accounts.emails import Email, parse_email
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.errors import StoreUnavailable, TooManyAttempts
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.redis import LimiterStorage
from tests.support.threads import at_once
from tests.support.traffic import traffic

T = TypeVar("T")

ADA = parse_email("ada@example.org")


def make(shared: RateLimiter, workers: int = 2, per_account: str = "4 per minute") -> LoginLimits:
    return LoginLimits(
        lambda: shared,
        "6 per minute",
        per_account,
        b"k" * 32,
        workers,
        Breaker("redis"),
    )


def strategy(url: str) -> RateLimiter:
    return MovingWindowRateLimiter(LimiterStorage(redis_url=url))


@pytest.fixture
def shared(valkey: dev.Valkey, redis_client: redis.Redis) -> RateLimiter:
    return strategy(valkey.url)


@pytest.fixture
def limits(shared: RateLimiter) -> LoginLimits:
    return make(shared)


@pytest.fixture
def without_redis() -> LoginLimits:
    return make(strategy("unix:///nonexistent/valkey.sock"))


def taken(take: Callable[[T], Any], who: T, most: int = 50) -> int:
    """How many attempts pass before one is refused."""
    for count in range(most):
        if refused := refusal(take, who):
            assert 1 <= refused.retry_after <= 61
            return count
    return most


def refusal(take: Callable[[T], Any], who: T) -> TooManyAttempts | None:
    try:
        take(who)
    except TooManyAttempts as refused:
        return refused
    return None


def test_an_address_has_its_limit(limits: LoginLimits) -> None:
    assert taken(limits.count_address, "192.0.2.7") == 6
    assert taken(limits.count_address, "192.0.2.8") == 6


def test_an_account_has_its_limit(limits: LoginLimits) -> None:
    assert taken(limits.count_account, ADA) == 4
    assert taken(limits.count_account, parse_email("bob@example.org")) == 4
    assert taken(limits.count_address, "192.0.2.7") == 6


def test_what_is_taken_back_makes_room_for_one_attempt_and_once(
    limits: LoginLimits, shared: RateLimiter
) -> None:
    windows: list[tuple[Callable[[Any], Attempt], str | Email, int]] = [
        (limits.count_address, "192.0.2.7", 6),
        (limits.count_account, ADA, 4),
        (limits.count_password_change, ADA, 4),
    ]
    for count, identifier, limit in windows:
        counted = count(identifier)
        assert taken(count, identifier) == limit - 1
        for _ in range(3):
            counted.take_back()
        assert taken(count, identifier) == 1


def test_what_is_taken_back_too_late_is_not_missed(shared: RateLimiter) -> None:
    limits = make(shared, per_account="2 per second")
    late = [limits.count_account(ADA), limits.count_account(ADA)]
    time.sleep(1.05)
    for attempt in late:
        attempt.take_back()
    assert taken(limits.count_account, ADA) == 2


def test_one_attempt_in_two_windows_is_taken_back_from_both(limits: LoginLimits) -> None:
    counted = limits.count_account(ADA)
    counted.add(limits.count_password_change(ADA))
    counted.take_back()
    assert taken(limits.count_account, ADA) == taken(limits.count_password_change, ADA) == 4


@pytest.mark.parametrize("where", ["in Redis", "in process"])
def test_attempts_at_once_are_counted_and_taken_back_one_by_one(
    shared: RateLimiter, where: str
) -> None:
    """Of 24 attempts every second one is taken back, between those of others."""
    away = strategy("unix:///nonexistent/valkey.sock")
    limits = make(shared if where == "in Redis" else away, 1, "30 per minute")

    def some() -> None:
        for number in range(4):
            counted = limits.count_account(ADA)
            if number % 2:
                counted.take_back()

    assert at_once(*[some] * 6) == [None] * 6
    assert taken(limits.count_account, ADA) == 30 - 12


def test_a_change_of_password_has_a_window_of_its_own(limits: LoginLimits) -> None:
    assert taken(limits.count_account, ADA) == 4
    assert taken(limits.count_password_change, ADA) == 4


def test_what_redis_counted_stays_where_redis_is_away(
    shared: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what this worker counted meanwhile is taken back here, not there."""
    limits = make(shared, workers=1)
    in_redis = [limits.count_account(ADA) for _ in range(3)]

    def fails(_command: object) -> None:
        raise StoreUnavailable("redis")

    with monkeypatch.context() as patch:
        patch.setattr(limits, "_ask", fails)
        in_process = [limits.count_account(ADA) for _ in range(3)]
        in_redis[0].take_back()
    in_process[0].take_back()
    assert taken(limits.count_account, ADA) == 1, "three are counted in Redis"
    with monkeypatch.context() as patch:
        patch.setattr(limits, "_ask", fails)
        assert taken(limits.count_account, ADA) == 2, "two are counted here"


@pytest.mark.parametrize("kind", [FixedWindowRateLimiter, SlidingWindowCounterRateLimiter])
def test_by_another_strategy_attempts_stay_counted(
    valkey: dev.Valkey, redis_client: redis.Redis, kind: type[RateLimiter]
) -> None:
    """They keep a number only, so that nobody can say which part of it is whose."""
    limits = make(kind(LimiterStorage(redis_url=valkey.url)))
    for _ in range(2):
        limits.count_account(ADA).take_back()
    assert taken(limits.count_account, ADA) == 2


def test_what_nobody_may_know_costs_no_round_trip_to_tell(limits: LoginLimits) -> None:
    limits.count_account(parse_email("first@example.org"))  # connects
    limits.count_address("192.0.2.8")
    with traffic() as seen:
        limits.count_account(ADA)
    assert len(seen.redis) == 1
    with traffic() as seen:
        limits.count_address("192.0.2.7")
    assert len(seen.redis) == 2


def test_workers_share_the_windows(shared: RateLimiter) -> None:
    one, other = make(shared), make(shared)
    assert taken(one.count_account, ADA) == 4
    assert taken(other.count_account, ADA) == 0


def test_the_window_moves(shared: RateLimiter) -> None:
    limits = make(shared, per_account="2 per second")
    assert taken(limits.count_account, ADA) == 2
    time.sleep(1.05)
    assert taken(limits.count_account, ADA) == 2


def test_redis_learns_no_email_and_keeps_no_key_for_ever(
    limits: LoginLimits, redis_client: redis.Redis
) -> None:
    limits.count_account(ADA)
    limits.count_address("192.0.2.7")
    keys = list(redis_client.scan_iter())
    assert len(keys) == 2
    for key in keys:
        assert key.startswith(b"rate:")
        assert b"ada" not in key.lower()
        assert redis_client.pttl(key) not in {-1, -2}


def test_without_redis_each_worker_takes_its_part(without_redis: LoginLimits) -> None:
    assert taken(without_redis.count_account, ADA) == 2
    assert taken(without_redis.count_address, "192.0.2.7") == 3
    assert taken(without_redis.count_account, parse_email("bob@example.org")) == 2


def test_a_lost_reply_counts_once(limits: LoginLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis counted although its reply was lost; a repeated command would count twice."""
    limits.count_account(ADA)  # connects, and loads the script
    read = AbstractConnection.read_response

    def lose(self: AbstractConnection, *args: Any, **kwargs: Any) -> Any:
        read(self, *args, **kwargs)  # type: ignore[no-untyped-call]
        raise redis.TimeoutError("the answer was lost")

    with traffic() as seen, monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "read_response", lose)
        limits.count_account(ADA)
    assert len([sent for sent in seen.redis if b"rate" in sent]) == 1
    assert taken(limits.count_account, ADA) == 2


def test_without_redis_many_workers_still_let_one_attempt_pass() -> None:
    limits = make(strategy("unix:///nonexistent/valkey.sock"), workers=100)
    assert taken(limits.count_account, ADA) == 1
