"""Pending changes: changes that other instances may see late, and the answer that says so."""

from collections.abc import Collection

import msgspec
from flask import Blueprint, Response, current_app, request


def mark_pending(response: Response, within: int, calls: Collection[Blueprint]) -> None:
    """Mark the answer to a pending change.

    All get the header `Effective-Within`, in seconds. Calls of our API become 202, with
    `effective_within` in the body as well. An error is left as it is.

    Args:
        within: seconds until every instance sees the change.
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
