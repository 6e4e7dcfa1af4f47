"""Tells the caller of a change that it reaches other instances only within a bound: 202."""

import msgspec
from flask import Flask, Response, g, has_request_context, request


def note_pending() -> None:
    """The current request made a change whose fences Redis has yet to take."""
    if has_request_context():
        g.effects_pending = True


def are_pending() -> bool:
    return bool(g.get("effects_pending"))


def register_pending_answers(app: Flask, within: int) -> None:
    """Turns the success of such a change into 202 with `effective_within` for programs.

    Args:
        within: seconds until every instance has noticed.
    """

    def tell(response: Response) -> Response:
        # what log-in is asked for, a new session, is there at once
        asked = request.path.startswith("/api/") and request.endpoint != "api.login"
        if asked and are_pending() and response.status_code in {200, 204}:
            body = msgspec.json.decode(response.get_data() or b"{}")
            response.set_data(msgspec.json.encode({**body, "effective_within": within}))
            response.mimetype = "application/json"
            response.status_code = 202
        return response

    app.after_request(tell)
