"""The settings that tests run the product with."""

import os
from typing import Any

from authapp.config import Config

SECRET_KEY = "tests-only secret key of 32 bytes or more"
PEPPER = "tests-only pepper of 32 bytes or more"
UNLIMITED = "1000000 per minute"  # a rate limit that no test runs into


def settings_for(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """The defaults with test secrets, one worker, and hashing that costs a millisecond.

    Tests with a database of their own on the shared Redis pass a SECRET_KEY of their own, so that
    they do not find copies of people in the other database.
    """
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": SECRET_KEY,
        "PASSWORD_PEPPER": PEPPER,
        "BCRYPT_ROUNDS": "4",
        "WEB_CONCURRENCY": "1",
        "SIGNUP": "open",
        **more,
    }


def environment_for(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """The whole environment of an instance that is a process of its own."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, **settings_for(database_url, redis_url, **more)}


def make_config(database_url: str, redis_url: str, **overrides: Any) -> Config:
    """These settings for services in this process.

    A log-in writes its credential before it returns, so that counts of I/O are exact.
    """
    settings = settings_for(database_url, redis_url, CREDENTIAL_CACHE_WRITE="blocking")
    return Config.from_mapping(settings | overrides)
