"""Locks in Redis, for work that one of many instances should do: redis-py's, with our errors."""

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from authapp.errors import StoreUnavailable
from authapp.storage.redis import REDIS_ERRORS


class Locks:
    """Takes and releases locks that run out by themselves.

    Args:
        client: a client that does not retry. If the reply to a SET NX is lost, a second one would
            answer "taken", although the lock is ours.
        key_prefix: goes before each key.
    Raises:
        StoreUnavailable: from every method.
    """

    def __init__(self, client: "redis.Redis", key_prefix: str = "") -> None:
        self._client = client
        self._key = f"{key_prefix}lock:"

    def take(self, name: str, seconds: float) -> Lock | None:
        """Take the lock for at most `seconds`; None while somebody else has it."""
        lock = Lock(self._client, self._key + name, seconds, blocking=False, thread_local=False)
        try:
            return lock if lock.acquire() else None
        except REDIS_ERRORS as error:
            raise StoreUnavailable("redis") from error

    def release(self, lock: Lock) -> bool:
        """Give the lock back; False if it had run out, because then another may hold it."""
        try:
            lock.release()
        except LockError:
            return False
        except REDIS_ERRORS as error:
            raise StoreUnavailable("redis") from error
        return True
