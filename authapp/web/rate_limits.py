"""The `RateLimit` headers: how many attempts are left (draft-ietf-httpapi-ratelimit-headers-10)."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Response, after_this_request

from authapp.errors import AuthappError, Window

HEADERS = {
    "RateLimit-Policy": "the limit that counts this call: its name, `q` attempts in `w` seconds",
    "RateLimit": "what is left of it: `r` attempts now, more in `t` seconds",
}


def tell_rate_limit(window: Window | None) -> None:
    """Adds the headers of this window to the answer to the current request."""
    if window is None:
        return

    def add(response: Response) -> Response:
        policy = f'"{window.policy}"'
        response.headers["RateLimit-Policy"] = f"{policy};q={window.quota};w={window.seconds}"
        response.headers["RateLimit"] = f"{policy};r={window.remaining};t={window.more_in}"
        return response

    after_this_request(add)


@contextmanager
def rate_limit_of_errors() -> Iterator[None]:
    """Adds the headers of the window that an error carries, whoever answers the error."""
    try:
        yield
    except AuthappError as error:
        tell_rate_limit(error.rate_limit)
        raise
