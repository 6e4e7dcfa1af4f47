"""A shop that embeds authapp, whose one view does what a test asks for."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import Auth
from authapp.sessions.records import ActiveSession
from tests.web.conftest import Settings
from tests.web.support import EMAIL, PASSWORD, Stores, browser, services_of, sign_up

Act = Callable[[], Any]


class Shop:
    """An app of somebody else's.

    Attributes:
        answer: of the last request.
    """

    def __init__(self, settings: Settings) -> None:
        self.app = Flask("shop")
        self.app.config.update(settings)
        self.app.testing = True
        self.auth = Auth(self.app)
        self.answer: TestResponse
        self._act: Act
        self._result: Any = None
        self.app.add_url_rule("/", view_func=self._view, methods=["GET", "POST"])

    def _view(self) -> str:
        self._result = self._act()
        return "done"

    def do(self, client: FlaskClient, act: Act, **options: Any) -> Any:
        """Let the view do this; returns what it returned."""
        self._act, self._result = act, None
        self.answer = client.post("/", **options)
        return self._result

    def put(self, client: FlaskClient, **values: object) -> None:
        """Let the view put these into `flask.session`."""
        self.do(client, lambda: session.update(values))

    def read(self, client: FlaskClient, **options: Any) -> dict[str, Any]:
        """All that the view finds in `flask.session`."""
        found: dict[str, Any] = self.do(client, lambda: dict(session), **options)
        return found

    def log_in(self, client: FlaskClient) -> None:
        """Log Ada in."""
        self.do(client, self.log_in_here)
        assert self.answer.status_code == 200

    def log_in_here(self, email: str = EMAIL) -> ActiveSession:
        """Log somebody in from within a view."""
        return self.auth.log_in(email, PASSWORD)

    def visitor(self) -> FlaskClient:
        return browser(self.app)

    def close(self) -> None:
        services_of(self.app).close()


class OpenShop(Protocol):
    def __call__(self, **settings: object) -> Shop: ...


@pytest.fixture
def open_shop(settings: Settings, stores: Stores) -> Iterator[OpenShop]:
    """Opens shops with other settings; Ada has an account."""
    opened: list[Shop] = []

    def make(**others: object) -> Shop:
        opened.append(Shop({**settings, **others}))
        if len(opened) == 1:
            sign_up(opened[-1].app)
        return opened[-1]

    yield make
    for shop in opened:
        shop.close()


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    return open_shop()


@pytest.fixture
def visitor(shop: Shop) -> FlaskClient:
    """The browser of a visitor who is not logged in."""
    return shop.visitor()


@pytest.fixture
def ada(shop: Shop) -> FlaskClient:
    """The browser of Ada, who is logged in."""
    client = shop.visitor()
    shop.log_in(client)
    return client
