"""The copy that a writer stores after its commit, on a real server. tests/proofs/model tries every
order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from authapp import dev
from authapp.cache import versioned_cache
from authapp.cache.entries import encode_entry
from authapp.cache.keys import LIFE_KEY
from authapp.cache.versioned_cache import Copy, Lease, VersionedCache
from authapp.crypto.sealing import Sealer
from authapp.errors import StoreUnavailable

KEY = "sess:1"
SEALER = Sealer(["a secret"])


class Record(msgspec.Struct, frozen=True, array_like=True):
    ver: int
    value: str


@pytest.fixture
def cache(redis_client: redis.Redis) -> VersionedCache:
    return VersionedCache(redis_client, SEALER)


def first_fence(cache: VersionedCache, version: int = 2) -> Lease:
    """Before the commit."""
    return cache.fence({KEY: version}, committed=False, leased=[KEY])[KEY]


def second_fence(cache: VersionedCache, lease: Lease, value: str = "new", version: int = 2) -> None:
    """After the commit, with a copy."""
    cache.fence({KEY: version}, copies={KEY: (lease, Copy(Record(version, value), 60))})


def entry(value: str, version: int = 2) -> bytes:
    return encode_entry(Record(version, value))


def fill(cache: VersionedCache, value: str, version: int, *, renew: bool = False) -> str:
    """Fills a copy as a reader does that finds none."""
    lease = cache.acquire(KEY, renew=renew).lease
    assert lease is not None
    return cache.fill(KEY, lease, version, entry(value, version), 60)


def test_the_copy_is_there_after_the_second_fence(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    assert fill(cache, "old", 1) == "filled"
    lease = first_fence(cache)
    assert cache.acquire(KEY).value is None, "the first fence drops the copy as any does"
    second_fence(cache, lease)
    assert cache.acquire(KEY) == versioned_cache.Acquired(entry("new"), None)
    left: Any = redis_client.pttl(KEY)
    assert 0 < left <= 60_000


def test_a_fence_without_a_lease_grants_none(cache: VersionedCache) -> None:
    assert cache.fence({KEY: 2, "sess:2": 1}, committed=False, leased=["sess:2"]).keys() == {
        "sess:2"
    }
    assert cache.fence({KEY: 2}) == {}


def test_fences_of_many_keys_and_their_copies_are_one_round_trip_each(
    cache: VersionedCache,
) -> None:
    keys = [f"sess:{number}" for number in range(50)]
    fences = dict.fromkeys(keys, 2) | {"user:1": 4}
    leases = cache.fence(fences, committed=False, leased=keys)
    assert leases.keys() == set(keys)
    cache.fence(
        fences,
        copies={key: (lease, Copy(Record(2, key), 60)) for key, lease in leases.items()},
    )
    assert [cache.acquire(key).value for key in keys] == [entry(key) for key in keys]
    assert cache.acquire("user:1").value is None


Happening = Callable[[VersionedCache, redis.Redis], object]


@pytest.mark.parametrize(
    "happening",
    [
        pytest.param(lambda c, _: c.fence({KEY: 1}), id="fenced below"),
        pytest.param(lambda c, _: c.fence({KEY: 2}), id="fenced"),
        pytest.param(lambda c, _: c.fence({KEY: 3}), id="fenced above"),
        pytest.param(lambda c, _: first_fence(c), id="fenced by another writer, or once more"),
        pytest.param(lambda _, r: r.delete(KEY), id="evicted"),
        pytest.param(lambda c, r: (r.delete(KEY), c.acquire(KEY)), id="evicted, acquired"),
        pytest.param(lambda c, r: (r.delete(KEY), fill(c, "old", 1)), id="evicted, filled"),
        pytest.param(lambda _, r: r.flushall(), id="flushed"),
        pytest.param(lambda c, _: c.fence({LIFE_KEY: 1}), id="everything fenced"),
        pytest.param(lambda c, _: c.fence({LIFE_KEY: 1}, committed=False), id="everything closed"),
        pytest.param(lambda _, r: r.delete(LIFE_KEY), id="life evicted"),
        pytest.param(
            lambda c, r: (r.delete(LIFE_KEY), c.acquire("sess:2")), id="life evicted, begun again"
        ),
    ],
)
def test_anything_in_between_leaves_a_fence(
    cache: VersionedCache, redis_client: redis.Redis, happening: Happening
) -> None:
    lease = first_fence(cache)
    happening(cache, redis_client)
    second_fence(cache, lease)
    assert cache.acquire(KEY).value is None
    assert fill(cache, "old", 1) == "fence"


def test_a_lease_of_a_life_that_does_not_fill_stores_nothing(cache: VersionedCache) -> None:
    cache.fence({LIFE_KEY: 1}, committed=False)
    second_fence(cache, first_fence(cache))
    assert cache.acquire(KEY).value is None


def test_a_life_that_is_missing_begins_with_the_lease(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    """Else it would be missing before and after the end of everybody's sessions alike."""
    redis_client.delete(LIFE_KEY)
    lease = first_fence(cache)
    cache.fence({LIFE_KEY: 1})
    redis_client.delete(LIFE_KEY)
    second_fence(cache, lease)
    assert cache.acquire(KEY).value is None


def test_readers_share_the_lease_of_the_writer(cache: VersionedCache) -> None:
    lease = first_fence(cache)
    reader = cache.acquire(KEY).lease
    assert reader == lease
    assert cache.fill(KEY, reader, 1, entry("old", 1), 60) == "fence", "not committed yet"
    second_fence(cache, lease)
    assert cache.fill(KEY, reader, 2, entry("late"), 60) == "lease"
    assert cache.acquire(KEY).value == entry("new")


@pytest.mark.parametrize("version", [2, 3, 10])
def test_a_copy_that_a_reader_filled_after_the_commit_stays(
    cache: VersionedCache, version: int
) -> None:
    lease = first_fence(cache)
    assert fill(cache, "read", version) == "filled"
    second_fence(cache, lease)
    assert cache.acquire(KEY).value == entry("read", version)


def test_a_copy_that_an_earlier_authapp_filled_gives_way(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    """It has no version beside it."""
    lease = first_fence(cache)
    assert fill(cache, "read", 2) == "filled"
    redis_client.hdel(KEY, "ver")
    second_fence(cache, lease)
    assert cache.acquire(KEY).value is None


def test_storing_twice_changes_nothing(cache: VersionedCache) -> None:
    """As when the first answer was lost."""
    lease = first_fence(cache)
    second_fence(cache, lease)
    second_fence(cache, lease)
    assert cache.acquire(KEY).value == entry("new")


def test_storing_once_more_later_brings_nothing_back(cache: VersionedCache) -> None:
    lease = first_fence(cache)
    second_fence(cache, lease)
    cache.fence({KEY: 3})
    second_fence(cache, lease)
    assert cache.acquire(KEY).value is None
    later = first_fence(cache, 4)
    second_fence(cache, lease)
    second_fence(cache, later, "newer", 4)
    assert cache.acquire(KEY).value is None, "the older one came in between and fenced"


@pytest.fixture
def own(engine_dir: Path) -> Iterator[redis.Redis]:
    """A server that a test may fill up."""
    with (
        dev.private_socket_dir() as sockets,
        dev.Valkey.start(engine_dir / "full", sockets, "tests-only", durable=False) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.config_set("maxmemory-policy", "noeviction")
        yield client


def test_a_full_server_takes_the_fence_and_not_the_copy(own: redis.Redis) -> None:
    cache = VersionedCache(own, SEALER)
    assert fill(cache, "old", 1) == "filled"
    own.config_set("maxmemory", "1")
    lease = first_fence(cache)
    second_fence(cache, lease)
    assert not cache.breaker.is_open
    assert cache.acquire(KEY).value is None
    own.config_set("maxmemory", "0")
    assert fill(cache, "old", 1) == "fence"
    second_fence(cache, first_fence(cache, 3), "new", 3)
    assert cache.acquire(KEY).value == entry("new", 3)


def test_a_server_that_takes_neither_opens_the_breaker(
    cache: VersionedCache, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = first_fence(cache)
    monkeypatch.setattr(versioned_cache, "_REFENCE", "authapp_unknown")
    with pytest.raises(StoreUnavailable):
        second_fence(cache, lease)
    assert cache.breaker.is_open


def test_a_server_that_lost_the_functions_gets_them_again(
    cache: VersionedCache, redis_client: redis.Redis
) -> None:
    redis_client.function_flush()
    lease = first_fence(cache)
    redis_client.function_flush()
    second_fence(cache, lease)
    assert cache.acquire(KEY).value == entry("new")
