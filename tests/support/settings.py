"""The settings that tests run the product with."""

from typing import Any

from authapp.config import Config

PEPPER = "tests-only pepper of 32 bytes or more"


def make_config(database_url: str, redis_url: str, **overrides: Any) -> Config:
    """The defaults, with hashing that costs a millisecond."""
    values = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "tests-only secret key of 32 bytes or more",
        "PASSWORD_PEPPER": PEPPER,
        "BCRYPT_ROUNDS": "4",
        "CREDENTIAL_CACHE_WRITE": "blocking",
    }
    return Config.from_mapping(values | overrides)
