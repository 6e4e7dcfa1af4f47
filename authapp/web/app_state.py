"""The state of authapp in each Flask app that it serves: one `AppState` in `app.extensions`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import Flask, Request, current_app

from authapp.brand import Brand
from authapp.services import Services
from authapp.web.middleware.first_request import FirstRequest
from authapp.web.request_credentials import Authenticator

EXTENSION = "authapp"  # its name in `app.extensions`
BLUEPRINT = "authapp"  # our blueprints are nested in one of this name: `authapp.pages` and others

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True)
class Mount:
    """The parts of authapp that an app serves, and where.

    Attributes:
        url_prefix: precedes all paths of authapp, such as `/auth`; empty: the root of the app.
        pages: the pages to sign up, log in and out, and manage the own account.
        api: the JSON API. Its calls about other people need `admin`, too.
        admin: the pages of administrators.
        health: `/healthz`, `/readyz` and `/metrics`.
        forward_auth: the endpoints that proxies ask.
        is_whole_app: authapp is the whole app, so it also answers paths that no route matches.

    Raises:
        ValueError: `url_prefix` is malformed, or nothing is mounted below it.
    """

    url_prefix: str = ""
    pages: bool = False
    api: bool = False
    admin: bool = False
    health: bool = False
    forward_auth: bool = False
    is_whole_app: bool = False

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.url_prefix):
            raise ValueError(
                "url_prefix: write it with a slash at its start and none at its end, like `/auth`"
                f" (it is {self.url_prefix!r})"
            )
        if self.url_prefix and not self.has_any:
            raise ValueError(
                "url_prefix: say what to mount there: pages=True, api=True, admin=True, "
                "health=True, forward_auth=True"
            )

    @property
    def has_any(self) -> bool:
        return self.pages or self.api or self.admin or self.health or self.forward_auth

    @property
    def has_pages(self) -> bool:
        """Whether anything mounted shows pages, errors among them, and needs their style."""
        return self.pages or self.api or self.admin or self.forward_auth

    @property
    def api_path(self) -> str:
        """The beginning of all paths of the API."""
        return f"{self.url_prefix}/api/"

    def serves(self, request: Request) -> bool:
        """Whether one of our own views answers a request."""
        return self.has_any and request.blueprints[-1:] == [BLUEPRINT]

    def owns(self, request: Request | None) -> bool:
        """Whether the answer to a request is ours, be it an error.

        Args:
            request: None if Flask never saw it.
        """
        if self.is_whole_app or request is None:
            return self.is_whole_app
        return self.serves(request) or (request.url_rule is None and self.covers(request.path))

    def covers(self, path: str) -> bool:
        """Whether a path that no route matches is below our own paths."""
        if self.url_prefix:
            return path == self.url_prefix or path.startswith(f"{self.url_prefix}/")
        return self.api and path.startswith("/api/v1/")


@dataclass(slots=True)
class AppState:
    """The stores and use cases of one app, and what it serves of ours. Two apps share none of it.

    Attributes:
        authenticator: finds the session that credentials belong to.
        remind: says something in the log, once at the start.
        login_view: the endpoint of the app's own log-in page; empty: ours, if it is mounted.
    """

    services: Services
    authenticator: Authenticator
    mount: Mount
    brand: Brand
    login_view: str = ""
    first_request: FirstRequest | None = None
    remind: Callable[[], None] | None = None


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
