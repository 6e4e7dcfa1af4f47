"""Limits of log-in and sign-up, by address and account. Counted in Redis, else in process."""

import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, cast
from uuid import UUID

import redis
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter

from authapp.accounts.emails import Email
from authapp.authentication.addresses import network_of
from authapp.crypto.tokens import DeviceToken
from authapp.errors import (
    AuthappError,
    StoreUnavailable,
    TooManyAttempts,
    UnknownAddress,
    Window,
)
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.redis import REDIS_ERRORS
from authapp.telemetry import metrics
from authapp.telemetry.logging import get_logger

T = TypeVar("T")

_log = get_logger(__name__)


class Attempt:
    """An attempt that was counted, in one window or more.

    Attributes:
        window: the window that counted it, if the person who made the attempt may know it. The
            window of an account that anybody can try to log in to is not told: it shows when the
            owner logged in.

    Args:
        undo: takes the attempt out of one of its windows.
    """

    def __init__(self, *undo: Callable[[], None], window: Window | None = None) -> None:
        self._undo = list(undo)
        self.window = window

    @contextmanager
    def told_by_errors(self) -> Iterator[None]:
        """Errors that leave the block carry the window of this attempt, or keep their own."""
        try:
            yield
        except AuthappError as error:
            error.rate_limit = error.rate_limit or self.window
            raise

    def take_back(self) -> None:
        """Uncounts this attempt, once. Every other attempt in its windows stays counted.

        Where the store of a window can't be asked, the attempt stays counted, too.
        """
        while self._undo:
            self._undo.pop()()

    def add(self, other: "Attempt") -> None:
        """The same attempt was counted in another window, too."""
        self._undo += other._undo


class LoginLimits:
    """Refuses guessing before anything is hashed (OWASP ASVS 5.0, 6.3.1).

    An attempt is counted before the password is compared, so that attempts at the same moment
    can't slip past. A success takes back its own count and clears nothing: guesses that somebody
    else makes meanwhile stay counted.

    Args:
        shared: gives the strategy that counts in Redis, at each use; None: nothing is limited.
        key: 32 bytes; emails are counted under a keyed hash.
        workers: processes that count for themselves when Redis is away; each then takes its part.
        breaker: of Redis; says whether it is asked at all.
    """

    def __init__(
        self,
        shared: Callable[[], RateLimiter] | None,
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

    def count_address(self, address: str) -> Attempt:
        """Counts an attempt to log in from an address. IPv6 addresses count by /64, and by /48 with
        twice as many attempts: a customer may have a /48, and each /64 in it for the asking.

        Raises:
            TooManyAttempts
            UnknownAddress: `address` can't be read.
        """
        return self._hit_network("login", address)

    def count_sign_up(self, address: str) -> Attempt:
        """Counts a sign-up from an address, as `count_address` counts log-ins.

        Raises:
            TooManyAttempts
            UnknownAddress: `address` can't be read.
        """
        return self._hit_network("signup", address)

    def count_mail_request(self, address: str) -> Attempt:
        """Counts a request for a mail from an address, as `count_address` counts log-ins.

        Raises:
            TooManyAttempts
            UnknownAddress: `address` can't be read.
        """
        return self._hit_network("mail", address)

    def count_code(self, email: Email) -> Attempt:
        """Counts a try of a mailed code for an account, whether it exists or not.

        All codes of an account share the window (OWASP ASVS 5.0, 6.6.3).

        Raises:
            TooManyAttempts
        """
        return self._hit("code-account", self._per_account, self._name(email))

    def count_account(self, email: Email) -> Attempt:
        """Counts an attempt to log in to an account, whether it exists or not.

        Raises:
            TooManyAttempts
        """
        return self._hit("login-account", self._per_account, self._name(email))

    def count_device_attempt(self, device: DeviceToken) -> Attempt | None:
        """Counts an attempt from a device that its account knows; None: its window is full."""
        try:
            return self._hit("login-device", self._per_account, device.digest.hex())
        except TooManyAttempts:
            return None

    def count_password_change(self, email: Email) -> Attempt:
        """Counts an attempt to change the password, by a person who is signed in.

        The window is not the one of log-ins, so an attacker who keeps guessing at the log-in does
        not keep the person from changing the password.

        Raises:
            TooManyAttempts
        """
        name = self._name(email)
        return self._hit("password-account", self._per_account, name, disclose=True)

    def count_factor(self, user_id: UUID) -> Attempt:
        """Counts an attempt to show a second factor, for a person whose first one was right.

        All log-ins that wait and all step-ups of the person share the window. A right password
        takes nothing out of it (OWASP ASVS 5.0, 6.6.3).

        Raises:
            TooManyAttempts
        """
        name = hmac.digest(self._key, user_id.bytes, "sha256").hex()
        return self._hit("factor-account", self._per_account, name, disclose=True)

    def count_redemption(self, address: str) -> Attempt:
        """Counts the use of a mailed link from an address, as `count_address` counts log-ins.

        There is room for five times as many. Nobody guesses a link, so this bounds work alone.

        Raises:
            TooManyAttempts
            UnknownAddress: `address` can't be read.
        """
        return self._hit_network("link", address, times=5)

    def _hit_network(self, act: str, address: str, times: int = 1) -> Attempt:
        if self._shared is None:
            return Attempt()
        one = network_of(address)
        if not one:
            raise UnknownAddress("the address of the client is not known")
        per_address = _times(self._per_address, times)
        counted = self._hit(f"{act}-address", per_address, one, disclose=True)
        wider = network_of(address, 48)
        if wider != one:  # asked second: what the narrow limit refuses fills no neighbour's window
            counted.add(
                self._hit(f"{act}-network", _times(per_address, 2), wider, disclose_refusal=True)
            )
        return counted

    def _hit(
        self,
        policy: str,
        limit: RateLimitItem,
        identifier: str,
        *,
        disclose: bool = False,
        disclose_refusal: bool = False,
    ) -> Attempt:
        if self._shared is None:
            return Attempt()
        try:
            strategy = self._shared()
            window = self._ask(
                lambda: _hit_window(strategy, policy, limit, identifier, read=disclose)
            )
        except StoreUnavailable:  # if Redis counted it all the same, that count stays
            strategy, limit = self._own, self._share_per_worker(limit)
            window = _hit_window(strategy, policy, limit, identifier, read=disclose)
        if window is not None and not window.taken:
            refused = TooManyAttempts(window.more_in, policy)
            refused.rate_limit = window if disclose or disclose_refusal else None
            raise refused
        undo = partial(self._take_back, strategy, policy, limit, identifier)
        return Attempt(undo, window=window if disclose else None)

    def _take_back(
        self, strategy: RateLimiter, policy: str, limit: RateLimitItem, identifier: str
    ) -> None:
        if strategy is self._own:
            _remove_newest(strategy, policy, limit, identifier)
            return
        try:
            self._ask(lambda: _remove_newest(strategy, policy, limit, identifier))
        except StoreUnavailable:
            _log.info("attempt_stays_counted", policy=policy)

    def _ask(self, command: Callable[[], T]) -> T:
        def asked() -> T:
            try:
                return command()
            except REDIS_ERRORS as error:
                metrics.STORE_ERRORS.labels("redis").inc()
                raise StoreUnavailable("redis") from error

        return self._breaker.call(asked)

    def _share_per_worker(self, limit: RateLimitItem) -> RateLimitItem:
        amount = max(1, limit.amount // self._workers)
        return type(limit)(amount, limit.multiples, limit.namespace)

    def _name(self, email: Email) -> str:
        return hmac.digest(self._key, email.canonical.encode(), "sha256").hex()


def _times(limit: RateLimitItem, times: int) -> RateLimitItem:
    """A limit of so many times as many attempts in the same time."""
    return type(limit)(times * limit.amount, limit.multiples, limit.namespace)


def _hit_window(
    strategy: RateLimiter, policy: str, limit: RateLimitItem, identifier: str, *, read: bool
) -> Window | None:
    """Counts an attempt, if there is room. The window; None if there was room and `read` is off."""
    taken = strategy.hit(limit, policy, identifier)
    if taken and not read:
        return None
    found = strategy.get_window_stats(limit, policy, identifier)
    more_in = max(1, int(found.reset_time - time.time()) + 1)
    return Window(taken, policy, limit.amount, limit.get_expiry(), found.remaining, more_in)


def _remove_newest(
    strategy: RateLimiter, policy: str, limit: RateLimitItem, identifier: str
) -> None:
    """Takes one attempt out of a window, in one step.

    It is the newest one, which another attempt at the same moment may have made: then that one is
    forgotten sooner by what a log-in takes. Only the moving window keeps attempts one by one. By
    any other strategy, and in stores that are neither Redis nor memory, attempts stay counted.
    """
    if not isinstance(strategy, MovingWindowRateLimiter):
        return
    storage, key = strategy.storage, limit.key_for(policy, identifier)
    if isinstance(storage, RedisStorage):
        client = cast("redis.Redis", storage.get_connection())
        client.ltrim(storage.prefixed_key(key), 1, -1)
    elif isinstance(storage, MemoryStorage):
        with storage.locks[key]:
            del storage.events.get(key, [])[:1]
