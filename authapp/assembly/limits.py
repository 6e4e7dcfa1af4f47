"""Builds from the settings what limits log-ins and sign-ups."""

from collections.abc import Callable

from limits.strategies import RateLimiter

from authapp.authentication.limits import LoginLimits
from authapp.authentication.registration import SignupPolicy
from authapp.config import Config
from authapp.crypto.sealing import derive_key
from authapp.storage.circuit_breaker import Breaker


def build_limits(
    config: Config, shared: Callable[[], RateLimiter] | None, breaker: Breaker
) -> LoginLimits:
    """
    Args:
        shared: gives the strategy that counts in Redis; None: nothing is limited.
        breaker: of Redis.
    """
    return LoginLimits(
        shared=shared,
        per_address=config.LOGIN_LIMIT_PER_ADDRESS,
        per_account=config.LOGIN_FAILURES_PER_ACCOUNT,
        key=derive_key(config.SECRET_KEY[0], "limit names"),
        workers=config.WEB_CONCURRENCY,
        breaker=breaker,
    )


def signup_policy(config: Config) -> SignupPolicy:
    return SignupPolicy(
        mode=config.SIGNUP,
        domains=config.SIGNUP_DOMAINS,
        verifies=config.is_verification_required,
        support_url=config.SUPPORT_URL,
    )
