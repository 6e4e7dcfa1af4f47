"""Tells the caller of a change that it reaches other instances only within a bound: 202."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, has_request_context, request

_PENDING = "authapp.effects_pending"
_YES = object()  # ours: a server may lay variables of any name under a request


def note_pending() -> None:
    """The current request made a change whose fences Redis has yet to take."""
    if has_request_context():
        request.environ[_PENDING] = _YES


def forget_pending() -> None:
    """The current request logged somebody in: a new session is there at once."""
    request.environ.pop(_PENDING, None)


def are_pending(environ: Mapping[str, Any]) -> bool:
    """
    Args:
        environ: of the request, of WSGI.
    """
    return environ.get(_PENDING) is _YES


def tell_pending(response: Response, within: int, calls: Collection[Blueprint]) -> None:
    """Says so in the answer to such a change.

    All get the header `Effective-Within`, in seconds; calls of our API become 202 with
    `effective_within` in the body as well.

    Args:
        within: seconds until every instance has noticed.
        calls: the calls of our API.
    """
    if response.status_code >= 400:
        return
    response.headers["Effective-Within"] = str(within)
    is_call = current_app.blueprints.get(request.blueprint or "") in calls
    if is_call and response.status_code in {200, 204}:
        body = msgspec.json.decode(response.get_data() or b"{}")
        response.set_data(msgspec.json.encode({**body, "effective_within": within}))
        response.mimetype = "application/json"
        response.status_code = 202
