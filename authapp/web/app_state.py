"""The state of authapp in each Flask app that it serves: one `AppState` in `app.extensions`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from flask import Blueprint, Flask, current_app

from authapp.services import Services
from authapp.web.middleware.client_address import ClientAddress
from authapp.web.request_credentials import Authenticator

EXTENSION = "authapp"  # its name in `app.extensions`


@dataclass(slots=True)
class AppState:
    """The stores, use cases and middleware of one app. Two apps share none of it.

    Attributes:
        authenticator: finds the session that credentials belong to.
        addresses: the middleware that sets the client's address; in front of all others of ours.
        blueprints: of our own views, where `create_app` mounted them.
    """

    services: Services
    authenticator: Authenticator
    addresses: ClientAddress
    blueprints: Collection[Blueprint] = ()


def state_of(app: Flask | None = None) -> AppState:
    """The `AppState` of this app; without an argument, of the current one.

    Raises:
        RuntimeError: there is no current app, or authapp was not set up for it.
    """
    app = app or current_app
    state = app.extensions.get(EXTENSION)
    if state is None:
        raise RuntimeError("authapp is not set up for this app: call Auth(app) or init_app(app)")
    return cast(AppState, state)
