"""Views written for Flask-Session, as its documentation has them, run on authapp."""

from collections.abc import Iterator
from typing import Any

import pytest
from cachelib import SimpleCache
from flask import Flask, session
from flask.testing import FlaskClient
from flask_session import Session

from authapp import Auth
from authapp.errors import InvalidCredentials
from tests.web.conftest import Settings
from tests.web.support import EMAIL, PASSWORD, Stores, cookies_of, services_of, sign_up


@pytest.fixture
def app(settings: Settings, stores: Stores) -> Iterator[Flask]:
    app = Flask("hello")
    app.config.update(settings)
    app.config.update(SESSION_TYPE="redis", SESSION_PERMANENT=False, SESSION_KEY_PREFIX="hello:")
    auth = Auth(app)

    @app.route("/set/")
    def set_() -> str:
        session["key"] = "value"
        return "ok"

    @app.route("/get/")
    def get() -> str:
        return str(session.get("key", "not set"))

    @app.route("/delete/")
    def delete() -> str:
        del session["key"]
        return "deleted"

    @app.route("/clear/")
    def clear() -> str:
        session.clear()
        return "cleared"

    @app.route("/login")
    def login() -> str:
        try:
            auth.log_in(EMAIL, PASSWORD)
        except InvalidCredentials:
            return "unknown"
        interface: Any = app.session_interface
        interface.regenerate(session)
        return "in"

    yield app
    services_of(app).close()


@pytest.fixture(params=["a visitor", "a person"])
def client(app: Flask, request: pytest.FixtureRequest) -> FlaskClient:
    client = app.test_client()
    if request.param == "a person":
        sign_up(app)
        assert client.get("/login").text == "in"
    return client


def test_the_examples_of_its_documentation(client: FlaskClient) -> None:
    assert client.get("/get/").text == "not set"
    assert client.get("/set/").text == "ok"
    assert client.get("/get/").text == "value"
    assert client.get("/delete/").text == "deleted"
    assert client.get("/get/").text == "not set"
    client.get("/set/")
    assert client.get("/clear/").text == "cleared"
    assert client.get("/get/").text == "not set"


def test_a_regenerated_session_keeps_its_data(app: Flask) -> None:
    sign_up(app)
    client = app.test_client()
    client.get("/set/")
    tokens = {cookie.value for cookie in cookies_of(client.get("/login"))}
    assert client.get("/get/").text == "value"
    assert tokens != {cookie.value for cookie in cookies_of(client.get("/login"))}


def test_flask_session_itself_beside_us_is_refused(settings: Settings, stores: Stores) -> None:
    """It would take `flask.session` over, and nobody would be signed in."""
    app = Flask("both")
    app.config.update(settings, TESTING=True)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
    Auth(app)
    Session(app)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"remove its set-up, such as Session\(app\)"):
            app.test_client().get("/")
