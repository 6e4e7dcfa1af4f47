"""Locks: one holder at a time, for a time, and only the holder gives one back."""

import time
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.storage.locks import Locks
from tests.support.threads import at_once
from tests.support.traffic import traffic


@pytest.fixture
def locks(redis_client: redis.Redis) -> Locks:
    return Locks(redis_client)


def test_one_has_it_at_a_time(locks: Locks) -> None:
    token = locks.take("work", 60)
    assert token
    assert locks.take("work", 60) is None
    assert locks.take("other work", 60)
    assert locks.release("work", token)
    again = locks.take("work", 60)
    assert again
    assert again != token


def test_of_many_who_want_it_at_once_one_gets_it(locks: Locks) -> None:
    taken = at_once(*[lambda: locks.take("work", 60)] * 12)
    assert len([token for token in taken if isinstance(token, str)]) == 1
    assert taken.count(None) == 11


def test_it_runs_out(locks: Locks, redis_client: redis.Redis) -> None:
    token = locks.take("work", 0.05)
    assert token
    time.sleep(0.06)
    assert not locks.release("work", token), "it tells that somebody else may have begun"
    assert locks.take("work", 60)
    remaining = redis_client.pttl("lock:work")
    assert isinstance(remaining, int)
    assert 59_000 < remaining <= 60_000


def test_nobody_gives_back_the_lock_of_another(locks: Locks) -> None:
    late = locks.take("work", 0.05)
    assert late
    time.sleep(0.06)
    mine = locks.take("work", 60)
    assert mine
    assert not locks.release("work", late)
    assert not locks.release("work", "")
    assert locks.take("work", 60) is None, "it is still mine"
    assert locks.release("work", mine)
    assert not locks.release("work", mine)


def test_a_lost_answer_is_not_asked_for_again(
    services: Services, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is ours and we do not know it; asking again would say "taken". It runs out."""
    locks = services.maintenance._locks
    read = AbstractConnection.read_response

    def lose(self: AbstractConnection, *args: Any, **kwargs: Any) -> Any:
        read(self, *args, **kwargs)  # type: ignore[no-untyped-call]
        raise redis.TimeoutError("the answer was lost")

    for act in (lambda: locks.take("work", 60), lambda: locks.release("work", "x")):
        locks.release("none", "x")  # connects
        with traffic() as seen, monkeypatch.context() as patch:
            patch.setattr(AbstractConnection, "read_response", lose)
            with pytest.raises(StoreUnavailable):
                act()
        assert len([sent for sent in seen.redis if b"lock:work" in sent]) == 1
    assert redis_client.exists("lock:work")
    assert locks.take("work", 60) is None


def test_without_redis_nobody_can_say() -> None:
    away = Locks(redis.Redis(unix_socket_path="/nowhere/x", retry=Retry(NoBackoff(), 0)))
    with pytest.raises(StoreUnavailable):
        away.take("work", 60)
    with pytest.raises(StoreUnavailable):
        away.release("work", "x")
