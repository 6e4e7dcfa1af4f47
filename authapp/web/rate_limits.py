"""Tells who is limited what is left (draft-ietf-httpapi-ratelimit-headers-10)."""

from flask import Response, g, has_request_context

from authapp.limits import Window

HEADERS = {
    "RateLimit-Policy": "the limit that counts this call: its name, `q` attempts in `w` seconds",
    "RateLimit": "what is left of it: `r` attempts now, more in `t` seconds",
}


def note_attempt(window: Window) -> None:
    """The current request was counted."""
    if has_request_context():
        g.rate_limit = window


def tell_limit(response: Response) -> Response:
    """Says so in the answer."""
    window: Window | None = g.pop("rate_limit", None)
    if window is not None:
        policy = f'"{window.policy}"'
        response.headers["RateLimit-Policy"] = f"{policy};q={window.quota};w={window.seconds}"
        response.headers["RateLimit"] = f"{policy};r={window.remaining};t={window.more_in}"
    return response
