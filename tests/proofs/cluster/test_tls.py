"""A Cluster and a Sentinel that speak TLS and nothing else."""

from collections.abc import Callable
from contextlib import closing

import pytest
from limits.storage import storage_from_string

from authapp.config import Config
from authapp.doctor import State, examine
from authapp.services import Services
from authapp.storage.redis import REDIS_ERRORS, LimiterStorage, redis_client
from tests.proofs.cluster.acts import LOGOUT, end, is_hit
from tests.proofs.cluster.conftest import WITH_TLS, Redis
from tests.support.people import log_in, sign_up
from tests.support.sessions import find, is_live

of_each = pytest.mark.parametrize("store", WITH_TLS, indirect=True)


@of_each
def test_sessions_have_copies_and_end_everywhere(services: Services, other: Services) -> None:
    sign_up(services)
    live = log_in(services)
    assert is_live(services, live)
    assert is_hit(other, live)
    end(services, live)
    assert find(other, live) == LOGOUT
    assert services.changes.pending() == 0


@of_each
def test_log_in_limits_are_counted(store: Redis) -> None:
    for expected in (True, False):
        counts = storage_from_string("authapp://", redis_url=store.url)
        assert isinstance(counts, LimiterStorage)
        assert counts.acquire_entry("key", 1, 60) is expected


@of_each
def test_the_doctor_finds_nothing_wrong(config: Config) -> None:
    findings = [f for f in examine(config, 8) if f.check.startswith("redis")]
    assert {f.state for f in findings} == {State.OK}, findings
    assert {"redis", "redis copies", "redis functions"} <= {f.check for f in findings}


WRONG: dict[str, Callable[[str], str]] = {
    "signed by nobody we know": lambda url: url.partition("?")[0],
    "another host": lambda url: url.replace("127.0.0.1", "127.0.0.2"),
    "no TLS": lambda url: url.replace("rediss+", "redis+").partition("?")[0],
}


@of_each
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_who_is_not_whom_the_url_names_is_not_asked(
    store: Redis, wrong: Callable[[str], str]
) -> None:
    with closing(redis_client(wrong(store.url), retries=0)) as client, pytest.raises(REDIS_ERRORS):
        client.ping()
