"""Random schedules of acts and faults, two to four faults each: every invariant holds at each step,
and in the end the system serves. CHAOS_SCHEDULES: how many; CHAOS_SEED: the first."""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authapp import dev
from authapp.assembly import stores
from authapp.cache.versioned_cache import Lease
from authapp.errors import StoreUnavailable
from authapp.services import Services
from authapp.storage import bounded_connections
from authapp.storage import postgres as database
from authapp.storage import redis as redis_clients
from tests.proofs.chaos.faults import Postgres, Redis
from tests.proofs.chaos.schedules import WITHIN, Schedule, Tally, Violation
from tests.support.clock import Clock
from tests.support.databases import migrate
from tests.support.services import open_services
from tests.support.settings import UNLIMITED, make_config

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
SCHEDULES = int(os.environ.get("CHAOS_SCHEDULES", "20"))


@dataclass
class Arena:
    postgres: Postgres
    redis: Redis
    instances: list[Services]
    clock: Clock

    def schedule(self, seed: int, tally: Tally, *kinds: str) -> Schedule:
        engines = self.postgres, self.redis
        return Schedule(seed, engines, self.instances, self.clock, tally, kinds)


@pytest.fixture(scope="module")
def engines(engine_dir: Path) -> Iterator[tuple[Postgres, Redis]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(dev.private_socket_dir()) for _ in range(2)]
        postgres = Postgres(engine_dir / "schedules-postgres", sockets[0])
        stack.callback(postgres.stop)
        redis = Redis(engine_dir / "schedules-redis", sockets[1])
        stack.callback(redis.stop)
        migrate(postgres.server.url)
        yield postgres, redis


@pytest.fixture
def arena(engines: tuple[Postgres, Redis], monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    with an_arena(*engines, monkeypatch) as arena:
        yield arena


@contextmanager
def an_arena(postgres: Postgres, redis: Redis, patch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """Instances that wait less long than they do in earnest, so that there is time for many."""
    patch.setattr(redis_clients.redis_client, "__defaults__", (0.05,))
    patch.setattr(stores, "FILL_TIMEOUT", 0.05)
    patch.setattr(database, "PING_TIMEOUT", 0.1)
    patch.setattr(bounded_connections, "PATIENCE", 1.0)
    patch.setattr(database, "CONNECT_TIMEOUT", 1)
    config = make_config(
        postgres.server.url,
        redis.server.url,
        REVALIDATE_SECONDS=WITHIN,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    clock = Clock()
    with ExitStack() as stack:
        instances = [stack.enter_context(open_services(config, clock)) for _ in range(2)]
        for instance in instances:
            for breaker, failures in ((instance.cache.breaker, 2), (instance.database.breaker, 1)):
                patch.setattr(breaker, "_reset_seconds", 0.03)
                patch.setattr(breaker, "_failures_to_open", failures)
        yield Arena(postgres, redis, instances, clock)


@pytest.mark.timeout(600 + 30 * SCHEDULES)
@pytest.mark.first
def test_random_schedules(arena: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    tally, violations = Tally(), []
    start = time.monotonic()
    for seed in range(SEED, SEED + SCHEDULES):
        schedule = arena.schedule(seed, tally)
        try:
            schedule.run()
        except Violation as violation:
            told = "\n  ".join([str(violation), *schedule.story])
            violations.append(f"CHAOS_SEED={seed} CHAOS_SCHEDULES=1: {told}")
        if len(violations) > 20:
            break
    with capsys.disabled():
        sys.stdout.write(
            f"\n{tally.schedules} schedules from seed {SEED} in {time.monotonic() - start:.0f} s:"
            f" {sum(tally.faults.values())} faults {dict(tally.faults)};"
            f" {sum(tally.acts.values())} acts {dict(tally.acts)};"
            f" {tally.pending} changes to hold later, {tally.unavailable} times 503,"
            f" {tally.unknown} outcomes unknown, {tally.provisional} sessions begun without"
            f" Postgres, {tally.lost} of them lost with Redis; {len(violations)} violations\n"
        )
    assert not violations, "\n\n".join(violations)
    assert tally.schedules == SCHEDULES


def test_that_fences_are_not_written_down_is_noticed(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: changes that Redis did not take are acknowledged as if it had."""
    for instance in arena.instances:

        def pretend(
            fences: Mapping[str, int],
            fence: Callable[..., dict[str, Lease]] = instance.cache.fence,
            **how: Any,
        ) -> dict[str, Lease]:
            try:
                return fence(fences, **how)
            except StoreUnavailable:
                return {}

        monkeypatch.setattr(instance.cache, "fence", pretend)

    found = []
    for seed in range(60):
        try:
            arena.schedule(seed, Tally(), "Redis frozen", "copies evicted").run()
        except Violation as violation:
            found.append(str(violation))
            if ", not Known" in found[-1]:  # what it is, and what it must be
                return
    pytest.fail(f"nothing stale was seen, but: {found}")
