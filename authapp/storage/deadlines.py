"""Deadlines: how long the waits for stores may take together, and the pause before a retry."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("authapp_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """A block in which all waits for stores, together, end within `seconds`.

    Blocks nest: the earliest deadline counts.
    """
    token = _deadline.set(time.monotonic() + remaining(seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining(at_most: float) -> float:
    """Seconds left to wait, never below 0; `at_most` if there is no deadline."""
    ends = _deadline.get()
    return at_most if ends is None else max(0.0, min(at_most, ends - time.monotonic()))


def pause_before_retry() -> None:
    """Waits a moment of random length, so that callers that failed together retry apart."""
    time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 — spreads the load
