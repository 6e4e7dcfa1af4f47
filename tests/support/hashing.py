"""A counter of password hashes, and the priority of the threads that hash."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bcrypt
import pytest

from authapp.passwords import hashing_queue

LOWER_PRIORITY = hashing_queue._lower_priority


def hash_at_once() -> None:
    """Threads that hash keep the priority of the test that waits for them.

    At the lowest priority each hash of a millisecond waits until other tests leave a core free.
    """
    queue: Any = hashing_queue
    queue._lower_priority = lambda: None


@contextmanager
def hashing() -> Iterator[list[int]]:
    """The cost (log2 rounds) of each completed hash. Hashes are counted because time varies."""
    costs: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    def counting_check(password: bytes, hashed: bytes) -> bool:
        matches = check(password, hashed)
        costs.append(int(hashed[4:6]))
        return matches

    def counting_make(password: bytes, salt: bytes) -> bytes:
        costs.append(int(salt[4:6]))
        return make(password, salt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", counting_check)
        patch.setattr(bcrypt, "hashpw", counting_make)
        yield costs
