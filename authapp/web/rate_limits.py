"""Tells who is limited what is left (draft-ietf-httpapi-ratelimit-headers-10)."""

from flask import Response, after_this_request, has_request_context

from authapp.authentication.limits import Window

HEADERS = {
    "RateLimit-Policy": "the limit that counts this call: its name, `q` attempts in `w` seconds",
    "RateLimit": "what is left of it: `r` attempts now, more in `t` seconds",
}


def note_attempt(window: Window) -> None:
    """The current request was counted: its answer says by which window. The last one counts."""
    if not has_request_context():
        return

    def tell(response: Response) -> Response:
        policy = f'"{window.policy}"'
        response.headers["RateLimit-Policy"] = f"{policy};q={window.quota};w={window.seconds}"
        response.headers["RateLimit"] = f"{policy};r={window.remaining};t={window.more_in}"
        return response

    after_this_request(tell)
