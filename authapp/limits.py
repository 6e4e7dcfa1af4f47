"""Limits of log-in and sign-up, by address and account. Counted in Redis, else in process."""

import hmac
import ipaddress
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter

from authapp.errors import StoreUnavailable, TooManyAttempts
from authapp.redis_clients import REDIS_ERRORS
from authapp.resilience import Breaker

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class LoginLimits:
    """Refuses guessing before anything is hashed (OWASP ASVS 5.0, 6.3.1).

    An attempt is counted before the password is compared, so that attempts at the same moment
    can't slip past; a log-in that succeeds clears the account's window.

    Args:
        shared: gives the strategy that counts in Redis, at each use.
        key: 32 bytes; emails are counted under a keyed hash.
        workers: processes that count for themselves when Redis is away; each then takes its part.
        breaker: of Redis; says whether it is asked at all.
    """

    def __init__(
        self,
        shared: Callable[[], RateLimiter],
        per_address: str,
        per_account: str,
        key: bytes,
        workers: int,
        breaker: Breaker,
    ) -> None:
        self._breaker = breaker
        self._shared = shared
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._per_address = parse(per_address)
        self._per_account = parse(per_account)
        self._key = key
        self._workers = workers

    def take_address(self, address: str) -> None:
        """Counts an attempt to log in from an address; IPv6 addresses count by /64.

        Raises:
            TooManyAttempts
        """
        self._take(self._per_address, "login-address", network_of(address))

    def take_sign_up(self, address: str) -> None:
        """Counts a sign-up from an address, as `take_address` counts log-ins.

        Raises:
            TooManyAttempts
        """
        self._take(self._per_address, "signup-address", network_of(address))

    def take_account(self, canonical_email: str) -> None:
        """Counts an attempt on an account, whether it exists or not.

        Raises:
            TooManyAttempts
        """
        self._take(self._per_account, "login-account", self._name(canonical_email))

    def clear_account(self, canonical_email: str) -> None:
        """Forgets the account's attempts after one that succeeded."""
        name = self._name(canonical_email)
        self._own.clear(self._part(self._per_account), "login-account", name)
        try:
            self._ask(lambda shared: shared.clear(self._per_account, "login-account", name))
        except StoreUnavailable:
            _log.warning("limit_not_cleared")

    def _take(self, limit: RateLimitItem, *identifiers: str) -> None:
        try:
            reset = self._ask(lambda shared: _hit(shared, limit, identifiers))
        except StoreUnavailable:
            reset = _hit(self._own, self._part(limit), identifiers)
        if reset is not None:
            raise TooManyAttempts(int(reset - time.time()) + 1)

    def _ask(self, command: Callable[[RateLimiter], T]) -> T:
        def asked() -> T:
            try:
                return command(self._shared())
            except REDIS_ERRORS as error:
                raise StoreUnavailable("redis") from error

        return self._breaker.call(asked)

    def _part(self, limit: RateLimitItem) -> RateLimitItem:
        amount = max(1, limit.amount // self._workers)
        return type(limit)(amount, limit.multiples, limit.namespace)

    def _name(self, canonical_email: str) -> str:
        return hmac.digest(self._key, canonical_email.encode(), "sha256").hex()


def _hit(strategy: RateLimiter, limit: RateLimitItem, identifiers: tuple[str, ...]) -> float | None:
    """Counts one; None, or when the window has room again if it is full (Unix time)."""
    if strategy.hit(limit, *identifiers):
        return None
    return strategy.get_window_stats(limit, *identifiers).reset_time


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64, which one customer often has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"  # a Unix socket has no peer address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
