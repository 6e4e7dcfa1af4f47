"""The services of the product on real engines, without a web application around them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import text

from authapp.config import Config
from authapp.services import Services, build_services
from authapp.storage.redis import LimiterStorage
from authapp.storage.schema_names import DEFAULT_SCHEMA
from tests.support.waiting import wait_until


@contextmanager
def open_services(config: Config, clock: Callable[[], datetime]) -> Iterator[Services]:
    """One instance of the product; a second one on the same settings is another worker."""
    storage = LimiterStorage(redis_url=config.REDIS_URL, key_prefix=config.KEY_PREFIX)
    strategy = MovingWindowRateLimiter(storage)
    services = build_services(config, lambda: strategy, clock)
    try:
        yield services
    finally:
        services.close()


def await_trust(services: Services) -> None:
    """Wait until both circuit breakers are closed: a second or two after the stores are back."""
    breakers = (services.cache.breaker, services.database.breaker)
    wait_until(lambda: not any(one.is_open for one in breakers), "a breaker stays open")


def sql(services: Services, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Run one statement by hand, without the product noticing."""
    with services.database.transaction() as db:
        driver: Any = db.connection().connection.driver_connection
        with driver.cursor() as cursor:
            cursor.execute(f"SET LOCAL search_path TO {DEFAULT_SCHEMA}")
        result = db.connection().execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []
