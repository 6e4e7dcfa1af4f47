"""Constant-time refusal: a refused log-in takes equally long, whatever the reason.

So does an answer that must not tell whether an account exists.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from authapp.errors import InvalidCredentials, InvalidToken, StoreUnavailable

# Seconds that a refused log-in takes besides its hashing. Reading and recording take less, and
# differ by some milliseconds between an email with an account and one without.
REFUSAL_SECONDS = 0.05


class ConstantTimeRefusal:
    """A block that delays a refusal until it has taken REFUSAL_SECONDS besides its hashing.

    Args:
        hashing_seconds: the seconds that the hashing itself is drawn out to, where hashes of
            several kinds take unlike long; see `drawn_out`.
        always: the block takes that long also where nothing is refused.
    """

    def __init__(
        self, hashing_seconds: Callable[[], float] = lambda: 0.0, *, always: bool = False
    ) -> None:
        self._hashing_seconds = hashing_seconds
        self._always = always
        self._hashed = 0.0

    def __enter__(self) -> Self:
        self._answer_at = time.perf_counter() + REFUSAL_SECONDS
        return self

    @contextmanager
    def hashing(self) -> Iterator[None]:
        """A part of the block whose time does not count: the same for every refusal."""
        started = time.perf_counter()
        yield
        self._answer_at += time.perf_counter() - started

    def count(self, seconds: float) -> None:
        """Notes hashing that took so long, without the wait for its turn."""
        self._hashed += seconds

    @contextmanager
    def drawn_out(self) -> Iterator[None]:
        """A part of the block that a refusal leaves only when hashing has had `hashing_seconds`.

        The wait for a turn to hash does not count. Put it within the place in the hashing queue:
        refusals that pause are then as few as those that hash, and can't fill the request threads.
        """
        try:
            yield
        except (InvalidCredentials, StoreUnavailable):
            owed = max(0.0, self._hashing_seconds() - self._hashed)
            self._answer_at += owed
            time.sleep(owed)
            raise

    def __exit__(self, refused: type[BaseException] | None, *_: object) -> None:
        kinds = (InvalidCredentials, InvalidToken, StoreUnavailable)
        if self._always or (refused is not None and issubclass(refused, kinds)):
            time.sleep(max(0.0, self._answer_at - time.perf_counter()))
