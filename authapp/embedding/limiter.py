"""Flask-Limiter, which counts attempts in Redis."""

from collections.abc import Callable
from typing import Any

from flask import Flask, request
from flask_limiter import Limiter
from limits.strategies import RateLimiter

from authapp.authentication.addresses import network_of
from authapp.config import Config
from authapp.storage.redis import LimiterStorage


def counts_each_request(app: Flask) -> bool:
    """Whether Flask-Limiter counts each request."""
    names = ("RATELIMIT_DEFAULT", "RATELIMIT_APPLICATION", "RATELIMIT_META")
    return any(name in app.config for name in names)


def build_limiter(app: Flask, config: Config) -> Callable[[], RateLimiter] | None:
    app.config.setdefault("RATELIMIT_STRATEGY", "moving-window")
    storage: dict[str, Any] = {
        "storage_uri": f"{LimiterStorage.STORAGE_SCHEME[0]}://",
        "storage_options": {"redis_url": config.REDIS_URL, "key_prefix": config.KEY_PREFIX},
    }
    own = app.config.get("RATELIMIT_STORAGE_URI")
    if own:  # the app's own storage; only those of Redis know a prefix, "LIMITS" by default
        is_redis = config.KEY_PREFIX and own.startswith(("redis", "valkey"))
        options = {"key_prefix": f"{config.KEY_PREFIX}LIMITS"} if is_redis else {}
        storage = {"storage_options": options}
    limiter = Limiter(
        # Flask-Limiter skips a limit whose key is empty
        key_func=lambda: network_of(request.remote_addr or "") or "unknown",
        in_memory_fallback_enabled=True,
        **storage,
    )
    if not counts_each_request(app):
        # An app that has a limiter already gets no hooks of it. Each request would pay for them.
        app.extensions.setdefault("limiter", set()).add(limiter)
    limiter.init_app(app)
    return (lambda: limiter.limiter) if limiter.enabled else None
