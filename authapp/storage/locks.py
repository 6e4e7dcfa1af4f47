"""Locks in Redis, for work that many instances could do and one should."""

import secrets

import redis

from authapp.errors import StoreUnavailable
from authapp.storage.redis import REDIS_ERRORS

# Only who took it may release it: the lock of somebody else may have begun since.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class Locks:
    """
    Args:
        client: one that does not retry: a SET NX whose reply was lost would answer "taken" though
            it is ours.
        key_prefix: goes before each key.
    Raises:
        StoreUnavailable: from every method.
    """

    def __init__(self, client: "redis.Redis", key_prefix: str = "") -> None:
        self._client = client
        self._key = f"{key_prefix}lock:"

    def take(self, name: str, seconds: float) -> str | None:
        """Takes the lock for at most `seconds`.

        Returns:
            what `release` needs; None while somebody else has it.
        """
        token = secrets.token_hex(16)
        try:
            taken = self._client.set(self._key + name, token, nx=True, px=int(seconds * 1000))
        except REDIS_ERRORS as error:
            raise StoreUnavailable("redis") from error
        return token if taken else None

    def release(self, name: str, token: str) -> bool:
        """Gives the lock back; False when it had run out."""
        try:
            return bool(self._client.eval(_RELEASE, 1, self._key + name, token))
        except REDIS_ERRORS as error:
            raise StoreUnavailable("redis") from error
