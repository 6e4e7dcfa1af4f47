"""The product as production starts it, but for `app.py`, and the application alone, for attackers
to try: each on a database of its own."""

import logging
import os
from collections.abc import Iterator

import pytest
from flask import Flask

from authapp import Config, create_app, dev
from authapp.authentication import constant_time
from tests.attacks.site import Site
from tests.support.databases import add_migrated_database
from tests.support.instances import serving
from tests.support.settings import PEPPER
from tests.web.support import Stores

AS_SHIPPED = "ENUMERATION_PAIRS" in os.environ
SECRET_KEY = "a secret that the attackers do not know"


@pytest.fixture(scope="session")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    url = add_migrated_database(postgres.url, "attacks")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "DATABASE_URL": url,
        "REDIS_URL": valkey.url,
        "SECRET_KEY": SECRET_KEY,
        "PASSWORD_PEPPER": PEPPER,
        "SESSION_COOKIE_SECURE": "0",
        "BCRYPT_ROUNDS": "4",  # so that other work shows beside it
        "REVALIDATE_SECONDS": "2",
        "LOGIN_LIMIT_PER_ADDRESS": "100000 per minute",  # all attackers have one address
        "LOGIN_FAILURES_PER_ACCOUNT": "100000 per minute",
        "WEB_CONCURRENCY": "1",
    }
    log = tmp_path_factory.mktemp("attacks") / f"{served_by}.log"
    # as shipped where somebody asks for it, who then has a machine without other work
    application = "wsgi:app" if AS_SHIPPED else "tests.attacks.app:app"
    with serving(application, environment, log) as instance:
        yield Site(instance, url)


@pytest.fixture(scope="session")
def attacked_url(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "attacked")


@pytest.fixture(scope="session")
def shared_app(attacked_url: str, valkey: dev.Valkey) -> Flask:
    settings = {
        "DATABASE_URL": attacked_url,
        "REDIS_URL": valkey.url,
        "SECRET_KEY": SECRET_KEY,
        "PASSWORD_PEPPER": PEPPER,
        "BCRYPT_ROUNDS": 4,
        "LOGIN_LIMIT_PER_ADDRESS": "1000000 per minute",  # all attackers have one address
        "LOGIN_FAILURES_PER_ACCOUNT": "1000000 per minute",
        "WEB_CONCURRENCY": 1,
    }
    return create_app(Config.from_mapping(settings))


@pytest.fixture
def stores(attacked_url: str, valkey: dev.Valkey) -> Iterator[Stores]:
    """The engines of `app`, without users, sessions and keys."""
    stores = Stores(attacked_url, valkey.url)
    stores.clear()
    yield stores
    stores.close()


@pytest.fixture
def app(
    shared_app: Flask,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Flask:
    """The application, for thousands of requests: it lets nobody wait, and keeps no log of them."""
    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0)
    caplog.set_level(logging.WARNING, "authapp.request")
    return shared_app
