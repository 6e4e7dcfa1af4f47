"""The promises of the product, on each kind of Redis."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.connection import AbstractConnection, Connection
from redis.lock import Lock

from authapp.accounts.actor import OPERATOR
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import ADMIN
from authapp.config import Config
from authapp.errors import InvalidCredentials, TooManyAttempts
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from authapp.storage import redis as redis_servers
from authapp.storage.locks import Locks
from authapp.storage.redis import redis_client
from tests.proofs.cluster.acts import LOGOUT, begin_many, end, is_hit
from tests.proofs.cluster.conftest import Redis
from tests.support.clock import Clock
from tests.support.people import (
    CLIENT,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    grant_role,
    log_in,
    revoke_role,
    sign_up,
)
from tests.support.services import open_services
from tests.support.sessions import find, is_live
from tests.support.traffic import traffic


def test_who_signed_up_logs_in_and_is_known(services: Services, other: Services) -> None:
    user = sign_up(services)
    live = log_in(services)
    for instance in (services, other, services, other):
        seen = find(instance, live)
        assert isinstance(seen, ActiveSession)
        assert seen.record.user == user
    with pytest.raises(InvalidCredentials):
        log_in(other, password=OTHER_PASSWORD)


def test_a_copy_costs_one_command_and_no_sql(services: Services, other: Services) -> None:
    lives = begin_many(services, 9)  # in a cluster, some on each primary
    for live in lives:
        find(services, live)
        find(other, live)  # is connected to each
    for live in lives:
        with traffic() as seen:
            assert is_live(other, live)
        assert (len(seen.redis), seen.sql) == (1, [])
        assert b"acquire" in seen.redis[0]


def test_a_session_that_ended_is_refused_everywhere_at_once(
    services: Services, other: Services
) -> None:
    for live in begin_many(services, 9):
        for instance in (services, other):
            assert is_live(instance, live)
        end(services, live)
        assert find(other, live) == find(services, live) == LOGOUT
    assert services.changes.pending() == 0


def test_the_sessions_of_everybody_end_everywhere(
    services: Services, other: Services, store: Redis, clock: Clock
) -> None:
    """On a Cluster their copies are believed until they are revalidated, and the answer says so."""
    lives = begin_many(services, 9)
    for instance in (services, other):
        assert all(is_live(instance, live) for live in lives)
    everywhere = services.administration.end_sessions_of_everybody(OPERATOR).everywhere
    assert everywhere is (store.kind != "cluster")
    if not everywhere:
        services.cache.check()  # Redis is trusted all the same
        clock.forward(60)
    ended = EndedSession(EndReason.ENDED_FOR_EVERYBODY)
    for instance in (services, other):
        assert {find(instance, live) for live in lives} == {ended}
    again = log_in(services)
    assert is_live(other, again)
    assert services.changes.pending() == 0


def test_a_role_acts_at_once(services: Services, other: Services) -> None:
    sign_up(services, "grace@example.org", OTHER_PASSWORD)
    grant_role(services, "grace@example.org", ADMIN)  # one must be left
    lives = begin_many(services, 9)
    for change in (grant_role, revoke_role):
        for live in lives:
            find(other, live)
        changed = change(services, EMAIL, ADMIN).value
        for live in lives:
            seen = find(other, live)
            assert isinstance(seen, ActiveSession)
            assert seen.record.user.roles == changed.roles
    assert services.changes.pending() == 0


def test_a_new_password_ends_the_other_sessions(services: Services, other: Services) -> None:
    mine, *others = begin_many(services, 9)
    for live in (mine, *others):
        find(other, live)
    renewed = services.password_changes.change_password(
        mine, PASSWORD, OTHER_PASSWORD, CLIENT
    ).value.session
    assert is_live(other, renewed)
    assert {find(other, live) for live in others} == {EndedSession(EndReason.PASSWORD_CHANGED)}
    with pytest.raises(InvalidCredentials):
        log_in(other)
    log_in(other, password=OTHER_PASSWORD)


def test_session_data_is_read_as_it_was_written(services: Services, other: Services) -> None:
    for number, live in enumerate(begin_many(services, 5)):
        find(other, live)
        assert services.sessions.patch(live, {"cart": number}, []).value
        find(services, live)
        assert other.sessions.patch(live, {"seen": True}, []).value
        seen = find(services, live)
        assert isinstance(seen, ActiveSession)
        assert seen.record.data == {"cart": number, "seen": True}


@pytest.mark.parametrize("lost", ["FLUSHALL", "FUNCTION FLUSH", "SCRIPT FLUSH"])
def test_what_redis_loses_logs_nobody_out(
    services: Services, other: Services, store: Redis, lost: str
) -> None:
    kept, ended = (lives := begin_many(services, 10))[:5], lives[5:]
    for live in ended:
        end(services, live)
    for live in kept:
        find(services, live)
    store.ask_each(*lost.split())
    assert all(is_live(other, live) for live in kept)
    assert {find(other, live) for live in ended} == {LOGOUT}
    assert all(is_hit(services, live) for live in lives)  # healed
    assert services.changes.pending() == 0


def test_the_functions_are_loaded_on_every_primary_and_again_when_lost(
    services: Services, store: Redis
) -> None:
    lives = begin_many(services, 9)
    for _ in range(2):
        store.ask_each("FUNCTION", "FLUSH", "SYNC")
        for live in lives:
            find(services, live)
        assert all("authapp_cache_" in str(names) for names in store.ask_each("FUNCTION", "LIST"))


def test_users_and_credentials_have_copies(services: Services, other: Services) -> None:
    user = sign_up(services)
    services.users.look_up(user.id)
    other.redis.ping()
    with traffic() as seen:
        assert other.users.look_up(user.id) == (user, True)
        credentials = other.credentials.find(parse_email(EMAIL))
    assert credentials is not None
    assert credentials.user == user
    assert seen.sql == []
    changed = services.users.update_profile(user.id, "Countess", "", CLIENT).value
    assert other.users.look_up(user.id) == (changed, False)
    with traffic() as seen:
        other.credentials.find(parse_email(EMAIL))
    assert seen.sql


def test_instances_count_attempts_together(config: Config, clock: Clock, store: Redis) -> None:
    strict = replace(config, LOGIN_FAILURES_PER_ACCOUNT="3 per minute", WEB_CONCURRENCY=1)
    with open_services(strict, clock) as one, open_services(strict, clock) as two:
        for email in (f"{name}@example.org" for name in ("ada", "bob", "eve", "dan")):
            sign_up(one, email)
            for instance in (one, two, one):
                with pytest.raises(InvalidCredentials):
                    log_in(instance, email, OTHER_PASSWORD)
            with pytest.raises(TooManyAttempts) as refused:
                log_in(two, email)
            assert 0 < refused.value.retry_after <= 61
    assert len(store.stored("rate:*")) == 5  # one of the address


def test_a_success_takes_back_its_own_attempt_and_no_other(
    config: Config, clock: Clock, store: Redis
) -> None:
    strict = replace(config, LOGIN_FAILURES_PER_ACCOUNT="3 per minute", WEB_CONCURRENCY=1)
    with open_services(strict, clock) as one, open_services(strict, clock) as two:
        sign_up(one)
        for guess in (one, two):
            for instance in (one, two, one):
                log_in(instance)
            with pytest.raises(InvalidCredentials):
                log_in(guess, password=OTHER_PASSWORD)
        log_in(two)
        with pytest.raises(InvalidCredentials):
            log_in(one, password=OTHER_PASSWORD)
        with pytest.raises(TooManyAttempts):
            log_in(two)


def test_one_takes_a_lock_and_only_they_release_it(store: Redis) -> None:
    one, two = (Locks(redis_client(store.url, retries=0)) for _ in range(2))
    for name in ("maintenance", "another", "third"):
        lock = one.take(name, 60)
        assert lock is not None
        assert two.take(name, 60) is None
        stranger = Lock(redis_client(store.url, retries=0), f"lock:{name}")
        stranger.local.token = b"of somebody else"
        assert not two.release(stranger)
        assert one.release(lock)
        assert two.take(name, 60) is not None


@contextmanager
def writes_by_server() -> Iterator[Counter[Any]]:
    """How often something is sent, by where to. Sentinels are not asked again meanwhile."""
    counts: Counter[Any] = Counter()
    send = AbstractConnection.send_packed_command

    def counting(
        self: AbstractConnection, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        counts[self.port if isinstance(self, Connection) else "socket"] += 1
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_servers, "CONFIRMED_FOR", 60.0)
        patch.setattr(AbstractConnection, "send_packed_command", counting)
        yield counts


def test_twenty_sessions_changed_at_once_cost_two_round_trips(
    services: Services, store: Redis
) -> None:
    lives = begin_many(services, 20)
    for live in lives:
        find(services, live)
    with writes_by_server() as counts:
        services.users.update_profile(lives[0].record.user.id, "Countess", "", CLIENT)
    assert len(counts) == sum(keys > 0 for keys in store.ask_each("DBSIZE"))
    assert set(counts.values()) == {2}
    for live in lives:
        seen = find(services, live)
        assert isinstance(seen, ActiveSession)
        assert seen.record.user.name == "Countess"
