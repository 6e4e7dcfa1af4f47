"""acquire, fill and fence on a real server, one by one. tests/proofs/model tries every order."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from authapp import dev
from authapp.cache import versioned_cache
from authapp.cache.entries import decode_entry, encode_entry
from authapp.cache.keys import LIFE_KEY
from authapp.cache.versioned_cache import Lease, VersionedCache
from authapp.crypto.sealing import Sealer
from authapp.errors import StoreUnavailable
from tests.support.waiting import wait_until

KEY = "sess:1"
ROOT = Path(__file__).parents[2]
SEALER = Sealer(["a secret"])


@pytest.fixture
def cache(redis_client: redis.Redis) -> VersionedCache:
    return VersionedCache(redis_client, SEALER)


def miss(cache: VersionedCache, key: str = KEY) -> Lease:
    """The lease of a reader that found no copy."""
    acquired = cache.acquire(key)
    assert acquired.value is None
    assert acquired.lease is not None
    return acquired.lease


def put(
    cache: VersionedCache, value: bytes = b"value", *, version: int = 1, ttl: float = 60
) -> None:
    assert cache.fill(KEY, miss(cache), version, value, ttl) == "filled"


# -- acquire and fill ------------------------------------------------------------------------------


def test_a_filled_copy_is_a_hit(cache: VersionedCache) -> None:
    put(cache, b"value")
    assert cache.acquire(KEY) == versioned_cache.Acquired(b"value", None)


def test_renewing_gives_the_copy_and_a_lease(cache: VersionedCache) -> None:
    put(cache, b"before")
    acquired = cache.acquire(KEY, renew=True)
    assert acquired.value == b"before"
    assert acquired.lease is not None
    assert cache.acquire(KEY).value == b"before", "others are served while one renews"
    assert cache.fill(KEY, acquired.lease, 1, b"after", 60) == "filled"
    assert cache.acquire(KEY).value == b"after"


class Note(msgspec.Struct, frozen=True, array_like=True):
    ver: int
    text: str = ""


def test_what_is_recalled_is_what_redis_has_now(cache: VersionedCache) -> None:
    def put_note(note: Note) -> None:
        cache.fence({KEY: note.ver})
        put(cache, encode_entry(note), version=note.ver)

    found, lease = cache.recall(KEY, Note)
    assert found is None
    assert lease == miss(cache), "of all readers"
    first, second = Note(1, "first"), Note(2, "second")
    put_note(first)
    kept, lease = cache.recall(KEY, Note)
    assert (kept, lease) == (first, None)
    assert cache.recall(KEY, Note)[0] is kept, "the same bytes are read once"
    put_note(second)
    assert cache.recall(KEY, Note) == (second, None)
    cache.fence({KEY: 3})
    found, lease = cache.recall(KEY, Note)
    assert found is None
    assert lease is not None
    cache.fence({KEY: 4})
    put(cache, b"no record", version=4)
    assert cache.recall(KEY, Note) == (None, None)


def test_what_is_recalled_is_of_its_key_and_kind(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    class Other(msgspec.Struct, frozen=True, array_like=True):
        ver: int
        number: int = 0

    put(cache, encode_entry(Note(1, "mine")))
    assert cache.recall(KEY, Note)[0] == Note(1, "mine")
    assert cache.recall(KEY, Other) == (None, None)
    moved: Any = redis_client.dump(KEY)
    redis_client.restore("sess:2", 60_000, moved)
    found, lease = cache.recall("sess:2", Note)
    assert found is None, "sealed bytes are bound to their key"
    assert lease is not None


def test_few_recalled_records_are_kept(cache: VersionedCache) -> None:
    for number in range(300):
        key = f"sess:{number}"
        cache.fill(key, miss(cache, key), 1, encode_entry(Note(1)), 60)
        assert cache.recall(key, Note)[0] == Note(1)
        assert 0 < len(cache._decoded) <= 128


def test_keys_do_not_share_anything(cache: VersionedCache) -> None:
    put(cache)
    lease = miss(cache, "sess:2")
    cache.fence({KEY: 9})
    assert cache.fill("sess:2", lease, 1, b"other", 60) == "filled"


@pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256)), b"x" * 100_000])
def test_any_bytes_can_be_kept(cache: VersionedCache, value: bytes) -> None:
    put(cache, value)
    assert cache.acquire(KEY).value == value


def test_a_lease_fills_once(cache: VersionedCache) -> None:
    lease = miss(cache)
    assert cache.fill(KEY, lease, 1, b"first", 60) == "filled"
    assert cache.fill(KEY, lease, 1, b"second", 60) == "lease"
    assert cache.acquire(KEY).value == b"first"


Happening = Callable[[VersionedCache, redis.Redis], object]


@pytest.mark.parametrize(
    "happening",
    [
        pytest.param(lambda c, _: c.fence({KEY: 1}), id="fenced"),
        pytest.param(lambda c, _: c.fence({KEY: 0}), id="fenced below"),
        pytest.param(lambda _, r: r.delete(KEY), id="evicted"),
        pytest.param(lambda _, r: r.flushall(), id="flushed"),
        pytest.param(lambda c, r: (r.delete(KEY), miss(c)), id="evicted, acquired by another"),
        pytest.param(lambda c, _: (c.fence({KEY: 0}), miss(c)), id="fenced, acquired by another"),
        pytest.param(lambda c, r: (r.delete(KEY), c.fence({KEY: 1})), id="evicted, fenced"),
        pytest.param(lambda c, _: c.fence({LIFE_KEY: 1}), id="all fenced"),
        pytest.param(lambda c, _: c.fence({LIFE_KEY: 1}, committed=False), id="all closed"),
        pytest.param(lambda _, r: r.delete(LIFE_KEY), id="life evicted"),
        pytest.param(lambda c, r: (r.delete(LIFE_KEY), miss(c)), id="life evicted, acquired"),
    ],
)
def test_a_lease_is_void_after_anything_happened(
    cache: VersionedCache, redis_client: redis.Redis, happening: Happening
) -> None:
    lease = miss(cache)
    happening(cache, redis_client)
    assert cache.fill(KEY, lease, 1, b"old", 60) in {"lease", "boot"}
    assert cache.acquire(KEY).value is None


def test_readers_at_once_share_a_lease(cache: VersionedCache) -> None:
    """If each took it from the one before, a busy key would never be filled."""
    first, second = miss(cache), miss(cache)
    assert cache.fill(KEY, first, 1, b"first", 60) == "filled"
    assert cache.fill(KEY, second, 1, b"second", 60) == "lease"
    assert cache.acquire(KEY).value == b"first"


def test_a_lease_of_another_key_fills_nothing(cache: VersionedCache) -> None:
    miss(cache)
    assert cache.fill(KEY, miss(cache, "sess:2"), 1, b"value", 60) == "lease"


def test_a_lease_ends_with_time(
    cache: VersionedCache, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versioned_cache, "LEASE_MS", 1)
    lease = miss(cache)
    wait_until_gone(redis_client)
    assert cache.fill(KEY, lease, 1, b"old", 60) == "lease"


def test_a_lease_of_another_server_fills_nothing(cache: VersionedCache) -> None:
    lease = miss(cache)
    assert cache.fill(KEY, Lease(lease.token, b"0" * 40), 1, b"old", 60) == "boot"


def test_a_copy_of_another_server_is_a_miss(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    put(cache)
    redis_client.hset(KEY, "b", "0" * 40)
    put(cache, b"new")
    assert cache.acquire(KEY).value == b"new"


def test_a_copy_expires(cache: VersionedCache, redis_client: redis.Redis) -> None:
    put(cache, ttl=0.001)
    wait_until_gone(redis_client)
    miss(cache)


# -- fence -----------------------------------------------------------------------------------------


def test_a_fence_drops_the_copy(cache: VersionedCache) -> None:
    put(cache)
    cache.fence({KEY: 2})
    miss(cache)


@pytest.mark.parametrize(
    ("fences", "version", "outcome"),
    [
        ([5], 4, "fence"),
        ([5], 5, "filled"),
        ([5], 6, "filled"),
        ([5, 5], 4, "fence"),
        ([5, 5], 5, "filled"),
        ([9, 10], 9, "fence"),  # numbers, not text
        ([10, 9], 9, "fence"),  # one that is late does not lower it
        ([2**53 - 1], 2**53 - 2, "fence"),
        ([2**53 - 1], 2**53 - 1, "filled"),
    ],
)
def test_a_fence_refuses_what_is_below(
    cache: VersionedCache, fences: list[int], version: int, outcome: str
) -> None:
    for fence in fences:
        cache.fence({KEY: fence})
    assert cache.fill(KEY, miss(cache), version, b"value", 60) == outcome


def test_a_fence_outlives_the_fill(cache: VersionedCache) -> None:
    cache.fence({KEY: 5})
    put(cache, version=5)
    lease = cache.acquire(KEY, renew=True).lease
    assert lease is not None
    assert cache.fill(KEY, lease, 4, b"old", 60) == "fence"


def test_repeating_a_fence_changes_nothing(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    cache.fence({KEY: 5})
    once = redis_client.hgetall(KEY)
    cache.fence({KEY: 5})
    assert redis_client.hgetall(KEY) == once


def test_no_fence_is_no_command(lost: VersionedCache) -> None:
    lost.fence({})


# -- cost ------------------------------------------------------------------------------------------


class Counting(UnixDomainSocketConnection):
    """Counts what is sent: each is a round trip, a pipeline is one."""

    trips = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        type(self).trips += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


@pytest.fixture
def counted(valkey: dev.Valkey, redis_client: redis.Redis) -> Iterator[redis.Redis]:
    options = parse_url(valkey.url) | {"connection_class": Counting}  # type: ignore[no-untyped-call]
    with redis.Redis(connection_pool=ConnectionPool(**options)) as client:
        miss(VersionedCache(client, SEALER), "warm-up")  # connected, library loaded
        Counting.trips = 0
        yield client


def test_each_operation_is_one_round_trip(counted: redis.Redis) -> None:
    cache = VersionedCache(counted, SEALER)
    lease = miss(cache)
    assert Counting.trips == 1
    cache.fill(KEY, lease, 1, b"value", 60)
    assert Counting.trips == 2
    cache.acquire(KEY)
    assert Counting.trips == 3
    cache.acquire(KEY, renew=True)
    assert Counting.trips == 4
    cache.fence({f"sess:{number}": 1 for number in range(200)})
    assert Counting.trips == 5


def test_a_hit_is_one_command_that_writes_nothing(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    put(cache)
    changes = info(redis_client, "persistence")["rdb_changes_since_last_save"]
    redis_client.config_resetstat()
    assert cache.acquire(KEY).value == b"value"
    calls = {name: stat["calls"] for name, stat in info(redis_client, "commandstats").items()}
    assert info(redis_client, "persistence")["rdb_changes_since_last_save"] == changes
    for ours in ("cmdstat_config|resetstat", "cmdstat_info"):
        calls.pop(ours, None)
    assert calls == {"cmdstat_fcall": 1, "cmdstat_get": 1, "cmdstat_hmget": 1}


def info(client: redis.Redis, section: str) -> dict[str, Any]:
    answer: Any = client.info(section)
    return dict(answer)


# -- nothing stays for ever ------------------------------------------------------------------------


def remaining(client: redis.Redis, key: str = KEY) -> int:
    """Milliseconds; negative for a key without end, or no key."""
    milliseconds = client.pttl(key)
    assert isinstance(milliseconds, int)
    return milliseconds


def test_whatever_is_done_the_key_has_an_end(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    lease = miss(cache)
    assert 0 < remaining(redis_client) <= versioned_cache.LEASE_MS
    cache.fill(KEY, lease, 1, b"value", 45)
    assert 30_000 < remaining(redis_client) <= 45_000
    cache.acquire(KEY, renew=True)
    assert 30_000 < remaining(redis_client) <= 45_000
    cache.fence({KEY: 2})
    assert versioned_cache.LEASE_MS < remaining(redis_client) <= versioned_cache.FENCE_MS


def test_acquiring_does_not_shorten_the_life_of_a_fence(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    cache.fence({KEY: 2})
    miss(cache)
    cache.acquire(KEY, renew=True)
    assert remaining(redis_client) > versioned_cache.FENCE_MS - 10_000


def test_acquiring_does_not_prolong_the_life_of_a_fence(
    cache: VersionedCache, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was rolled back would keep a busy key from ever being filled again."""
    monkeypatch.setattr(versioned_cache, "FENCE_MS", 1_000)
    cache.fence({KEY: 2})
    miss(cache)
    assert remaining(redis_client) <= 1_000


def test_renewing_does_not_prolong_the_life_of_a_copy(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    put(cache, ttl=1)
    cache.acquire(KEY, renew=True)
    assert remaining(redis_client) <= 1_000


def test_what_was_planted_without_an_end_gets_one(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    redis_client.hset(KEY, "min", "1")
    miss(cache)
    assert remaining(redis_client) > 0


# -- a server in trouble ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [lambda r: r.flushall(), lambda r: r.function_flush()], ids=["data", "functions"]
)
def test_works_on_after_a_flush(
    cache: VersionedCache, redis_client: redis.Redis, loss: Callable[[redis.Redis], object]
) -> None:
    put(cache)
    loss(redis_client)
    cache.fence({KEY: 2, "sess:2": 2})
    loss(redis_client)
    lease = miss(cache)
    assert cache.fill(KEY, lease, 2, b"new", 60) == "filled"
    assert cache.acquire(KEY).value == b"new"


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.acquire(KEY),
        lambda c: c.acquire(KEY, renew=True),
        lambda c: c.fence({KEY: 2, "sess:2": 2}),
        lambda c: c.fill(KEY, Lease(b"token", b"boot"), 1, b"value", 60),
    ],
    ids=["acquire", "renew", "fence", "fill"],
)
def test_loads_its_library_wherever_it_is_missed(
    cache: VersionedCache,
    redis_client: redis.Redis,
    operation: Callable[[VersionedCache], object],
) -> None:
    redis_client.function_flush()
    operation(cache)
    assert redis_client.function_list("authapp_cache_*")


@pytest.fixture
def own(engine_dir: Path) -> Iterator[redis.Redis]:
    """A client of a server that the test may ruin."""
    with (
        dev.private_socket_dir() as sockets,
        dev.Valkey.start(engine_dir / "own", sockets, "own", durable=False) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        yield client


def test_a_full_server_answers_and_takes_fences_but_no_copies(own: redis.Redis) -> None:
    cache = VersionedCache(own, SEALER)
    put(cache, b"value")
    own.config_set("maxmemory", "1")
    assert cache.acquire(KEY).value == b"value"
    cache.fence({KEY: 2, "sess:2": 2})
    with pytest.raises(StoreUnavailable):
        cache.fill(KEY, miss(cache), 2, b"new", 60)
    own.config_set("maxmemory", "0")
    assert cache.fill(KEY, miss(cache), 1, b"old", 60) == "fence"


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[VersionedCache]:
    path = str(tmp_path / "nobody.sock")
    with redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as client:
        yield VersionedCache(client, SEALER)


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.acquire(KEY),
        lambda c: c.fill(KEY, Lease(b"token", b"boot"), 1, b"value", 60),
        lambda c: c.fence({KEY: 1}),
    ],
    ids=["acquire", "fill", "fence"],
)
def test_a_lost_server_is_unavailable(
    lost: VersionedCache, operation: Callable[[VersionedCache], object]
) -> None:
    with pytest.raises(StoreUnavailable):
        operation(lost)


# -- who can write to Redis ------------------------------------------------------------------------


def sealed_with(secret: str, key: str, value: bytes) -> bytes:
    return Sealer([secret]).seal(key, value)


@pytest.mark.parametrize(
    "planted",
    [
        b"",
        b"value",
        b"x" * 200,
        sealed_with("another secret", KEY, b"value"),
        sealed_with("a secret", "sess:2", b"value"),
    ],
    ids=["empty", "short", "plain", "of a retired secret", "of another key"],
)
def test_a_planted_copy_is_a_miss(
    cache: VersionedCache, redis_client: redis.Redis, planted: bytes
) -> None:
    put(cache)
    redis_client.hset(KEY, mapping={"v": planted})  # `b` is right
    acquired = cache.acquire(KEY)
    assert acquired.value is None
    assert acquired.lease is not None
    assert cache.fill(KEY, acquired.lease, 1, b"ours again", 60) == "filled"
    assert cache.acquire(KEY).value == b"ours again"


def test_a_copy_outlives_the_rotation_of_its_secret(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    put(cache)
    rotated = VersionedCache(redis_client, Sealer(["new secret", "a secret"]))
    assert rotated.acquire(KEY).value == b"value"
    retired = VersionedCache(redis_client, Sealer(["new secret"]))
    assert retired.acquire(KEY).value is None


def test_nothing_kept_can_be_read(cache: VersionedCache, redis_client: redis.Redis) -> None:
    put(cache, b"person@example.org")
    cache.acquire(KEY, renew=True)
    dump: Any = redis_client.dump(KEY)
    fields: Any = redis_client.hgetall(KEY)
    assert set(fields) == {b"v", b"b", b"ver", b"lt"}
    for shown in (dump, *fields.values()):
        assert b"person" not in shown
        assert b"example" not in shown


# -- records ---------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, array_like=True):
    ver: int
    user_id: UUID
    begun_at: datetime
    seen_at: datetime
    data: dict[str, Any] = {}


class Swapped(msgspec.Struct, frozen=True, array_like=True):
    ver: int
    user_id: UUID
    seen_at: datetime
    begun_at: datetime
    data: dict[str, Any] = {}


class Shorter(msgspec.Struct, frozen=True, array_like=True):
    ver: int
    user_id: UUID
    begun_at: datetime
    seen_at: datetime


MORNING, NOON = datetime(2031, 5, 4, 6, tzinfo=UTC), datetime(2031, 5, 4, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"cart": [1, 2.5, None, True, {"": "\u00e9"}], "2": "x" * 300},
        {"big": [2**63, 2**64, -(2**70)]},  # JSON has them, so somebody's session may
    ],
)
def test_a_record_is_what_it_was(data: dict[str, Any]) -> None:
    record = Record(7, uuid4(), MORNING, NOON, data)
    assert decode_entry(encode_entry(record), Record) == record


@pytest.mark.parametrize("other", [Swapped, Shorter])
def test_a_copy_of_a_version_with_other_fields_is_a_miss(other: type[Any]) -> None:
    """The arrays fit, and would say something else."""
    copy = encode_entry(other(7, uuid4(), MORNING, NOON))
    assert decode_entry(copy, other) is not None
    assert decode_entry(copy, Record) is None


def test_what_is_no_record_is_a_miss() -> None:
    copy = encode_entry(Record(7, uuid4(), MORNING, NOON))
    earlier = b'{"ver":7}'  # copies were JSON objects once
    for value in (None, b"", earlier, copy[:-1], copy[:4], copy[:4] + earlier, copy[:4] + b"[7]"):
        assert decode_entry(value, Record) is None


def test_all_processes_agree_on_what_a_record_is() -> None:
    """Whatever order their sets are in: else each would call the copies of the others misses."""
    script = (
        "from authapp.sessions.records import SessionRecord as kind;"
        "from authapp.cache.entries import _shape; print(_shape(kind).hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


def wait_until_gone(client: redis.Redis) -> None:
    wait_until(lambda: not client.exists(KEY), "the key does not expire")


def test_the_life_of_all_copies_has_an_end_that_misses_put_off(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    """The life that a change begins before its commit is put off by nobody."""

    def left() -> int:
        return remaining(redis_client, LIFE_KEY)

    days_40 = 40 * 86_400_000
    miss(cache)
    assert versioned_cache.FENCE_MS < left() <= days_40
    redis_client.pexpire(LIFE_KEY, 60_000)
    cache.acquire("sess:another")
    assert left() > 60_000
    cache.fence({LIFE_KEY: 1}, committed=False)
    cache.acquire("sess:a third")
    assert 0 < left() <= versioned_cache.FENCE_MS
    cache.fence({LIFE_KEY: 1})
    assert versioned_cache.FENCE_MS < left() <= days_40
