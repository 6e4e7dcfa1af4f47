"""The application on engines of the test process, empty before each test."""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp import Config, create_app, dev
from authapp.web.middleware.fast_path import FastPath
from tests.support.databases import add_migrated_database
from tests.support.settings import settings_for
from tests.web.support import Stores, browser, log_in, services_of, sign_up

Settings = dict[str, Any]


class MakeApp(Protocol):
    def __call__(self, **settings: object) -> Flask: ...


@pytest.fixture(scope="session")
def web_database_url(postgres: dev.PostgreSQL) -> str:
    """A migrated database that only the tests of the web use: they count its rows."""
    return add_migrated_database(postgres.url, "web")


@pytest.fixture(scope="session")
def settings(web_database_url: str, valkey: dev.Valkey) -> Settings:
    # a log-in writes its credential before it returns, so that counts of I/O are exact
    return {
        **settings_for(web_database_url, valkey.url, CREDENTIAL_CACHE_WRITE="blocking"),
        "SECRET_KEY": "k" * 32,
        "SIGNUP": "open",
        "PASSWORD_PEPPER": "p" * 32,
    }


@pytest.fixture(scope="session")
def shared_stores(settings: Settings) -> Iterator[Stores]:
    stores = Stores(settings["DATABASE_URL"], settings["REDIS_URL"])
    yield stores
    stores.close()


@pytest.fixture
def stores(shared_stores: Stores) -> Stores:
    """The engines, without users, sessions and keys."""
    shared_stores.clear()
    return shared_stores


@pytest.fixture(scope="session")
def shared_app(settings: Settings) -> Iterator[Flask]:
    app = create_app(Config.from_mapping(settings))
    yield app
    services_of(app).close()


@pytest.fixture
def app(shared_app: Flask, stores: Stores) -> Iterator[Flask]:
    """The application with the default settings; it serves many tests, so leave it as it is."""
    yield shared_app
    services_of(shared_app).background.drain()  # or the next test would find what this one left
    services_of(shared_app).refused_attempts.finish()


@pytest.fixture
def make_app(settings: Settings, stores: Stores) -> Iterator[MakeApp]:
    """Makes applications with other settings, or to add views to."""
    made: list[Flask] = []

    def make(**others: object) -> Flask:
        made.append(create_app(Config.from_mapping({**settings, **others})))
        return made[-1]

    yield make
    for app in made:
        services_of(app).close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser that nobody has logged in with."""
    return browser(app)


@pytest.fixture
def person(app: Flask) -> str:
    """The id of a person with EMAIL and PASSWORD."""
    return sign_up(app)


@pytest.fixture
def signed_in(client: FlaskClient, person: str) -> FlaskClient:
    """The person's browser, logged in."""
    assert log_in(client).status_code == 303
    return client


@pytest.fixture(params=["fast path", "flask"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way session checks are answered: by the fast path in front of Flask, or by Flask."""
    if request.param == "flask":
        monkeypatch.setattr(FastPath, "try_answer", lambda *_: None)
    return str(request.param)
