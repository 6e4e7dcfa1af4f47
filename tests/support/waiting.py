"""Waiting for something that happens soon, in another thread or process."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 30.0  # seconds; generous, because it only bounds how long a failure takes

T = TypeVar("T")


def wait_until(
    is_so: Callable[[], T],
    failure: str | Callable[[], object] = "it did not happen",
    *,
    seconds: float = PATIENCE,
    pause: float = 0.01,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Call `is_so` until it returns something true, and return that.

    Args:
        failure: the message after `seconds` in vain, or a function that returns it.
        pause: seconds between two calls.
        ignoring: exceptions of `is_so` that count as "not yet".
    """
    deadline = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            if found := is_so():
                return found
        except ignoring as raised:
            error = raised
        if time.monotonic() >= deadline:
            message = failure() if callable(failure) else failure
            raise AssertionError(f"waited {seconds:.0f} s in vain: {message}") from error
        time.sleep(pause)
