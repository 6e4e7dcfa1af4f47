"""Locks: one holder at a time, for a time, and only the holder gives one back."""

import time
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.lock import Lock
from redis.retry import Retry

from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.storage.locks import Locks
from tests.support.threads import at_once
from tests.support.traffic import traffic


def of_somebody(client: redis.Redis, token: bytes | None) -> Lock:
    """The lock "work" as somebody holds it whose token is this one."""
    lock = Lock(client, "lock:work", thread_local=False)
    lock.local.token = token
    return lock


@pytest.fixture
def locks(redis_client: redis.Redis) -> Locks:
    return Locks(redis_client)


def test_one_has_it_at_a_time(locks: Locks) -> None:
    lock = locks.take("work", 60)
    assert lock
    token = lock.local.token
    assert locks.take("work", 60) is None
    assert locks.take("other work", 60)
    assert locks.release(lock)
    again = locks.take("work", 60)
    assert again
    assert again.local.token != token


def test_of_many_who_want_it_at_once_one_gets_it(locks: Locks) -> None:
    taken = at_once(*[lambda: locks.take("work", 60)] * 12)
    assert len([token for token in taken if isinstance(token, Lock)]) == 1
    assert taken.count(None) == 11


def test_it_runs_out(locks: Locks, redis_client: redis.Redis) -> None:
    lock = locks.take("work", 0.05)
    assert lock
    time.sleep(0.06)
    assert not locks.release(lock), "it tells that somebody else may have begun"
    assert locks.take("work", 60)
    remaining = redis_client.pttl("lock:work")
    assert isinstance(remaining, int)
    assert 59_000 < remaining <= 60_000


def test_nobody_gives_back_the_lock_of_another(locks: Locks, redis_client: redis.Redis) -> None:
    late = locks.take("work", 0.05)
    assert late
    time.sleep(0.06)
    mine = locks.take("work", 60)
    assert mine
    assert not locks.release(late)
    assert not locks.release(of_somebody(redis_client, b""))
    assert not locks.release(of_somebody(redis_client, None))
    assert locks.take("work", 60) is None, "it is still mine"
    assert locks.release(mine)
    assert not locks.release(mine)


def test_a_lost_answer_is_not_asked_for_again(
    services: Services, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is ours and we do not know it; asking again would say "taken". It runs out."""
    locks = services.maintenance._locks
    read = AbstractConnection.read_response

    def lose(self: AbstractConnection, *args: Any, **kwargs: Any) -> Any:
        read(self, *args, **kwargs)  # type: ignore[no-untyped-call]
        raise redis.TimeoutError("the answer was lost")

    client = locks._client
    for act in (lambda: locks.take("work", 60), lambda: locks.release(of_somebody(client, b"x"))):
        locks.release(of_somebody(client, b"x"))  # connects, and loads the script
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
        away.release(of_somebody(away._client, b"x"))
