"""A counter of password hashes."""

from collections.abc import Iterator
from contextlib import contextmanager

import bcrypt
import pytest


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
