"""The product as production starts it, but for `app.py`, and the application alone, for attackers
to try: each on a database of its own."""

import logging
from collections.abc import Iterator

import pytest
from flask import Flask

from authapp import Config, create_app, dev
from authapp.passwords import constant_time
from tests.attacks.site import Site
from tests.attacks.timing import AS_SHIPPED
from tests.support.databases import add_migrated_database
from tests.support.instances import serving
from tests.support.mails import MAIL_SETTINGS
from tests.support.settings import UNLIMITED, environment_for, settings_for
from tests.web.support import Stores, services_of

SECRET_KEY = "a secret that the attackers do not know"

# All attackers have one address. No attempt leaves the window, so what is left only counts down.
ALL_ATTEMPTS = "1000000 per day"


@pytest.fixture(scope="session")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    url = add_migrated_database(postgres.url, "attacks")
    environment = environment_for(
        url,
        valkey.url,
        SECRET_KEY=SECRET_KEY,
        SESSION_COOKIE_SECURE="0",
        REVALIDATE_SECONDS="2",
        LOGIN_LIMIT_PER_ADDRESS=ALL_ATTEMPTS,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    log = tmp_path_factory.mktemp("attacks") / f"{served_by}.log"
    # as shipped where somebody asks for it, who then has a machine without other work
    application = "wsgi:app" if AS_SHIPPED else "tests.attacks.app:app"
    with serving(application, environment, log) as instance:
        yield Site(instance, url)


@pytest.fixture(scope="session")
def attacked_url(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "attacked")


@pytest.fixture(scope="session")
def shared_app(attacked_url: str, valkey: dev.Valkey) -> Iterator[Flask]:
    settings = settings_for(
        attacked_url,
        valkey.url,
        SECRET_KEY=SECRET_KEY,
        LOGIN_LIMIT_PER_ADDRESS=ALL_ATTEMPTS,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
        # what needs mail is there to be attacked; the mails wait
        MAIL_URL=MAIL_SETTINGS["MAIL_URL"],
        PUBLIC_URL="http://localhost",
        EMAIL_VERIFICATION="off",
        MAIL_LIMIT_PER_RECIPIENT=UNLIMITED,
    )
    app = create_app(Config.from_mapping(settings))
    yield app
    services_of(app).close()


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
