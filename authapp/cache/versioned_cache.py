"""The versioned cache: once a change is acknowledged, no copy is stale. Acquire, fill, fence."""

import hashlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, cast

import msgspec
import redis
from prometheus_client import Counter
from redis.exceptions import OutOfMemoryError, ResponseError

from authapp.cache.entries import V, Versioned, decode_entry, encode_entry
from authapp.cache.keys import LIFE_KEY
from authapp.crypto.recent import Recent
from authapp.crypto.sealing import Sealer
from authapp.errors import StoreUnavailable
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.redis import REDIS_ERRORS, ask_at_once
from authapp.telemetry import metrics
from authapp.telemetry.deferred import count
from authapp.telemetry.logging import get_logger

# Named by their content, so that versions of us that differ can share a server.
_SOURCE = (files("authapp.cache") / "versioned_cache.lua").read_text(encoding="utf-8")
_VERSION = hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]
LIBRARY = _SOURCE.replace("VERSION", _VERSION)
_ACQUIRE, _FILL, _FENCE, _REFENCE, _FENCE_ALL = (
    f"authapp_{name}_{_VERSION}" for name in ("acquire", "fill", "fence", "refence", "fenceall")
)

# A lease outlives the longest read that may end in a fill; a fence outlives the longest
# transaction that may still commit what was fenced (statement time-outs are far below both).
LEASE_MS = 10_000
FENCE_MS = 60_000

_log = get_logger(__name__)


_NO_COPIES: Mapping[str, "tuple[Lease, Copy]"] = MappingProxyType({})

FillOutcome = Literal["filled", "boot", "lease", "fence"]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to fill one key once, unless its entry changes first. The readers that saw a miss
    share it with the writer that fenced the key before."""

    token: bytes
    boot: bytes

    @property
    def generation(self) -> int:
        """The newest generation of sessions that this life knows."""
        found = self.boot.rstrip(b"!").partition(b".")[2]
        return int(found) if found else 0


@dataclass(frozen=True, slots=True)
class Copy:
    """A record to be stored under a key.

    Attributes:
        record: `encode_entry` takes it.
        ttl: seconds to keep it.
    """

    record: Versioned
    ttl: float


class Acquired(msgspec.Struct, frozen=True):
    """The answer to a reader: an entry, a lease, or both.

    Attributes:
        value: the entry, None on a miss.
        lease: present on a miss, and on a hit when the reader asked to renew.
    """

    value: bytes | None
    lease: Lease | None


class VersionedCache:
    """Entries in Redis, one hash for each key. Each operation is one round trip.

    Args:
        client: redis-py client that returns bytes. It may retry: every operation can be repeated.
        sealer: encrypts values; a value that can't be decrypted is a miss.
        breaker: decides whether Redis is asked at all.
        key_prefix: goes before each key, here and nowhere else. A copy is bound to its whole key.
        clustered: the keys are spread over servers, so no operation can look at two of them.
    Raises:
        StoreUnavailable: from every operation, if Redis did not answer or refused.
    """

    def __init__(
        self,
        client: "redis.Redis",
        sealer: Sealer,
        breaker: Breaker | None = None,
        key_prefix: str = "",
        *,
        clustered: bool = False,
    ) -> None:
        self._client = client
        self._sealer = sealer
        self._prefix = key_prefix
        self._life = () if clustered else (key_prefix + LIFE_KEY,)
        self.breaker = breaker or Breaker("redis")
        self._decoded: Recent[tuple[str, type[Any]], tuple[bytes, Any]] = Recent()

    def acquire(self, key: str, *, renew: bool = False) -> Acquired:
        """The entry under `key`, or a lease to fill it.

        Args:
            renew: return the entry and a lease, even on a hit. For callers that have already
                looked, or know that there is no entry.
        """
        reply = self._call(_ACQUIRE, key, _nonce(), LEASE_MS, "1" if renew else "0")
        return self._acquired(key, reply, renew=renew)

    def recall(self, key: str, kind: type[V]) -> tuple[V | None, Lease | None]:
        """As `acquire`, with the record in the entry. For entries that are asked for again soon,
        like a session's while a page loads.

        Redis is asked each time. The same sealed bytes hold the same record, so they are opened and
        decoded once, and the record is the same object.

        Args:
            kind: a record that `encode_entry` takes.
        """
        reply = self._call(_ACQUIRE, key, _nonce(), LEASE_MS, "0")
        sealed = reply[0]
        known = self._decoded.get((key, kind))
        if known is not None and known[0] == sealed:
            count(_copies(_kind(key), "hit"))
            return known[1], None
        acquired = self._acquired(key, reply, renew=False)
        record = decode_entry(acquired.value, kind)
        if record is not None and acquired.lease is None:
            self._decoded.keep((key, kind), (sealed, record))
        return record, acquired.lease

    def _acquired(self, key: str, reply: list[bytes | None], *, renew: bool) -> Acquired:
        sealed = reply[0]
        value = self._sealer.open(self._prefix + key, sealed) if sealed is not None else None
        if not renew:  # the caller's first look was counted
            outcome = "hit" if value is not None else "miss" if sealed is None else "unreadable"
            count(_copies(_kind(key), outcome))
        if len(reply) > 1:
            return Acquired(value, Lease(*cast("tuple[bytes, bytes]", (reply[2], reply[1]))))
        if value is None:  # planted, moved, or sealed by a key that was retired: get the lease too
            return self.acquire(key, renew=True)
        return Acquired(value, None)

    def read_through(
        self,
        key: str,
        kind: type[V],
        load: Callable[[], V | None],
        ttl: float,
        run_fill: Callable[[Callable[[], None]], None] = lambda fill: fill(),
        filler: "VersionedCache | None" = None,
    ) -> tuple[V | None, bool]:
        """The copy under `key`, otherwise the record from `load`, which becomes the copy.

        Args:
            kind: a record that `encode_entry` takes.
            ttl: seconds to keep the copy.
            run_fill: runs the fill, now or later.
            filler: a cache with other time-outs that fills in place of this one.
        Returns:
            the record, or None if `load` finds none; and whether it is a copy.
        Raises:
            StoreUnavailable: from `load`. A Redis that can't be asked only means a miss.
        """
        try:
            acquired = self.acquire(key)
            copy = decode_entry(acquired.value, kind)
            if copy is not None:
                return copy, True
            lease = acquired.lease or self.acquire(key, renew=True).lease
        except StoreUnavailable:
            return load(), False
        found = load()
        if found is not None and lease is not None:
            held, by = lease, filler or self
            run_fill(lambda: by.fill_quietly(key, held, Copy(found, ttl)))
        return found, False

    def fill_quietly(self, key: str, lease: Lease, copy: Copy) -> None:
        """As `fill`, for a record. No answer depends on it, so it raises nothing."""
        try:
            outcome = self.fill(key, lease, copy.record.ver, encode_entry(copy.record), copy.ttl)
        except StoreUnavailable:
            return
        if outcome != "filled":
            _log.debug("fill_refused", outcome=outcome)

    def fill(self, key: str, lease: Lease, version: int, value: bytes, ttl: float) -> FillOutcome:
        """Stores `value`, read from Postgres at `version`, unless the entry changed in between.

        Args:
            ttl: seconds to keep it.
        """
        filling = self._filling(key, lease, version, value, ttl)
        reply: bytes = self._call(_FILL, key, *filling)
        outcome = reply.decode()
        metrics.FILLS.labels(_kind(key), outcome).inc()
        return cast(FillOutcome, outcome)

    @property
    def can_fence_all(self) -> bool:
        """Whether a fence of LIFE_KEY drops all copies; on a Cluster none does."""
        return bool(self._life)

    def fence(
        self,
        versions: Mapping[str, int],
        *,
        committed: bool = True,
        leased: Collection[str] = (),
        copies: Mapping[str, tuple[Lease, Copy]] = _NO_COPIES,
    ) -> dict[str, Lease]:
        """Drops the copies of these keys and refuses fills below the versions given.

        A fence of LIFE_KEY drops all copies. All keys take one round trip, which is safe to repeat.
        If Redis does not take a fence, the breaker opens: this process trusts copies again only
        after the missing fences are set.

        Args:
            committed: the change is committed, so facts read from now on may be filled. A fence
                of LIFE_KEY before that refuses all fills, until the one after it or FENCE_MS.
            leased: keys whose copies the caller may store by `copies` after the commit.
            copies: stored in place of a fence, if the entry has not changed since the lease.
        Returns:
            the leases.
        """
        if not versions:
            return {}
        # A half-open breaker lets fences pass. Otherwise a busy process would always miss some.
        if not self.breaker.is_half_open:
            # This refusal must not open the breaker again: that would prolong the pause, and with
            # one change a second Redis would never be trusted again.
            self.breaker.admit()
        try:
            return self._send_fences(versions, committed=committed, leased=leased, copies=copies)
        except StoreUnavailable:
            self.breaker.open()
            raise

    def fence_before_trust(self, versions: Mapping[str, int]) -> None:
        """As `fence`, also while the breaker is open: for fences that failed before."""
        if versions:
            self._send_fences(versions)

    def check(self) -> None:
        """Returns if Redis answers and its copies are trusted."""
        self._run(self._ping)

    def _ping(self) -> None:
        self._client.ping()  # to look it up may fail: the client of a Cluster is made at first use

    def _send_fences(
        self,
        versions: Mapping[str, int],
        *,
        committed: bool = True,
        leased: Collection[str] = (),
        copies: Mapping[str, tuple[Lease, Copy]] = _NO_COPIES,
    ) -> dict[str, Lease]:
        calls: list[tuple[str, str, tuple[Any, ...]]] = []
        for key, version in versions.items():
            if key == LIFE_KEY:
                if self._life:
                    closed_ms = 0 if committed else FENCE_MS
                    known = version if committed else 0
                    calls.append((key, _FENCE_ALL, (_nonce(), closed_ms, known)))
            elif key in copies:
                lease, copy = copies[key]
                value = encode_entry(copy.record)
                filling = self._filling(key, lease, copy.record.ver, value, copy.ttl)
                calls.append((key, _FILL, filling))
                calls.append((key, _REFENCE, (version, FENCE_MS)))
            else:
                nonce = _nonce() if key in leased else b""
                calls.append((key, _FENCE, (version, FENCE_MS, nonce)))

        def send() -> dict[str, Lease]:
            commands = []
            for key, function, args in calls:
                names = self._life if key == LIFE_KEY else (self._prefix + key, *self._life)
                commands.append(("FCALL", function, len(names), *names, *args))
            if len(commands) == 1:  # most changes fence one key
                replies = [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            else:
                replies = ask_at_once(self._client, commands)
            leases = {}
            for (key, *_), reply in zip(calls, replies, strict=True):
                if isinstance(reply, list) and reply:
                    leases[key] = Lease(token=reply[1], boot=reply[0])
                # a full server refuses the copy alone, and takes the fence behind it
                elif isinstance(reply, Exception) and not isinstance(reply, OutOfMemoryError):
                    raise reply
            return leases

        return self.breaker.attempt(lambda: self._asked(send))

    def _filling(
        self, key: str, lease: Lease, version: int, value: bytes, ttl: float
    ) -> tuple[Any, ...]:
        sealed = self._sealer.seal(self._prefix + key, value)
        return lease.token, lease.boot, version, sealed, max(1, int(ttl * 1000))

    def _call(self, function: str, key: str, *args: Any) -> Any:
        name, life = self._prefix + key, self._life
        keys = 1 + len(life)
        return self._run(
            lambda: self._client.execute_command("FCALL", function, keys, name, *life, *args)  # type: ignore[no-untyped-call]
        )

    def _run(self, command: Callable[[], Any]) -> Any:
        # as `breaker.call`, in fewer steps: each request comes by here
        self.breaker.admit()
        try:
            answer = self._asked(command)
        except StoreUnavailable:
            self.breaker.failed()
            raise
        self.breaker.succeeded()
        return answer

    def _asked(self, command: Callable[[], Any]) -> Any:
        try:
            try:
                return command()
            except ResponseError as error:
                if "Function not found" not in str(error):
                    raise
                self._client.function_load(LIBRARY, replace=True)
                return command()
        except REDIS_ERRORS as error:
            metrics.STORE_ERRORS.labels("redis").inc()
            raise StoreUnavailable("redis") from error


def _nonce() -> bytes:
    """With the server's time it makes a lease or a life. It is no secret, and asks no kernel."""
    return random.getrandbits(72).to_bytes(9)


def _kind(key: str) -> str:
    return key.partition(":")[0]


@cache
def _copies(kind: str, outcome: str) -> Counter:
    return metrics.COPIES.labels(kind, outcome)
