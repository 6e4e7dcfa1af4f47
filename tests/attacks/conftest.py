"""The product as production starts it, on a database of its own, for attackers to try."""

import os
from collections.abc import Iterator

import pytest

from authapp import embedded

from ..databases import add_migrated_database
from ..helpers import PEPPER
from ..instances import serving
from .site import Site

SECRET_KEY = "a secret that the attackers do not know"


@pytest.fixture(scope="session")
def site(
    postgres: embedded.PostgreSQL, valkey: embedded.Valkey, tmp_path_factory: pytest.TempPathFactory
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
    log = tmp_path_factory.mktemp("attacks") / "gunicorn.log"
    with serving("wsgi:app", environment, log) as instance:
        yield Site(instance, url)
