"""Constant-time refusal: a refused log-in takes equally long, whatever the reason."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from authapp.errors import InvalidCredentials, StoreUnavailable

# Seconds that a refused log-in takes besides its hashing. Reading and recording take less, and
# differ by some milliseconds between an email with an account and one without.
REFUSAL_SECONDS = 0.05


class ConstantTimeRefusal:
    """A block that delays a refusal until it has taken REFUSAL_SECONDS besides its hashing."""

    def __enter__(self) -> Self:
        self._answer_at = time.perf_counter() + REFUSAL_SECONDS
        return self

    @contextmanager
    def hashing(self) -> Iterator[None]:
        """A part of the block whose time does not count: the same for every refusal."""
        started = time.perf_counter()
        yield
        self._answer_at += time.perf_counter() - started

    def __exit__(self, refused: type[BaseException] | None, *_: object) -> None:
        if refused is not None and issubclass(refused, (InvalidCredentials, StoreUnavailable)):
            time.sleep(max(0.0, self._answer_at - time.perf_counter()))
