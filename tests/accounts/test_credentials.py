"""Credentials: from Redis first, from Postgres on a miss, and never from before a change."""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
import redis

from authapp.accounts.actor import OPERATOR
from authapp.accounts.credentials import Credentials, CredentialStore
from authapp.accounts.emails import Email, parse_email
from authapp.accounts.identity import Identity
from authapp.cache.keys import CredentialKeys
from authapp.cache.versioned_cache import VersionedCache
from authapp.config import Config
from authapp.errors import EmailTaken, InvalidCredentials, InvalidField, StoreUnavailable
from authapp.services import Services
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
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.traffic import traffic

OLD_KEY, NEW_KEY = "o" * 32, "n" * 32


def find(services: Services, email: str = EMAIL) -> tuple[Credentials | None, bool]:
    """The credentials found, and whether Postgres was asked."""
    with traffic() as seen:
        found = services.credentials.find(parse_email(email))
    return found, bool(seen.sql)


def is_copied(services: Services, email: str = EMAIL) -> bool:
    return not find(services, email)[1]


def copies(client: redis.Redis) -> dict[bytes, Any]:
    """Each `cred:` key with its copy, None where it holds only a lease or a fence."""
    keys: Any = client.keys("cred:*")
    return {key: client.hget(key, "v") for key in keys}


@pytest.fixture
def ada(services: Services, redis_client: redis.Redis) -> Identity:
    """A person nothing is copied of."""
    ada = sign_up(services)
    redis_client.flushall()
    return ada


# -- hit and miss ----------------------------------------------------------------------------------


def test_a_miss_is_answered_by_postgres_and_filled_a_hit_costs_no_sql(
    services: Services, ada: Identity
) -> None:
    facts = services.credentials.read(parse_email(EMAIL))
    assert facts is not None
    assert facts.user == ada
    assert find(services) == (facts, True)
    with traffic() as seen:
        assert services.credentials.find(parse_email(EMAIL)) == facts
    assert (seen.sql, len(seen.redis)) == ([], 1)


def test_logging_in_asks_redis_first(
    services: Services, ada: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Email] = []
    read = services.credentials.read

    def counted(email: Email) -> Credentials | None:
        reads.append(email)
        return read(email)

    monkeypatch.setattr(services.credentials, "read", counted)
    for _ in range(3):
        log_in(services)
    assert reads == [parse_email(EMAIL)], "only the first"
    with pytest.raises(InvalidCredentials):
        log_in(services, password="not the password")
    assert reads == [parse_email(EMAIL)] * 2, "who is refused is refused by the facts"


def test_who_is_unknown_is_never_copied(
    services: Services, two_instances: Services, redis_client: redis.Redis
) -> None:
    """Otherwise a new account would be unknown for a while, and anybody could fill Redis."""
    for _ in range(3):
        assert find(services) == (None, True)
        with pytest.raises(InvalidCredentials):
            log_in(services)
    assert set(copies(redis_client).values()) <= {None}
    for key in copies(redis_client):
        assert 0 < int(redis_client.pttl(key)) <= 10_000  # type: ignore[arg-type]
    sign_up(two_instances)
    log_in(services)


def test_who_is_inactive_is_copied_as_inactive(services: Services, ada: Identity) -> None:
    services.administration.set_active(ada.id, active=False, actor=OPERATOR)
    for sql_expected in (True, False):
        found, asked = find(services)
        assert found is not None
        assert (found.user.active, asked) == (False, sql_expected)


@pytest.mark.parametrize("seconds", [2, 300])
def test_a_copy_is_kept_for_its_time(
    config: Config, clock: Clock, redis_client: redis.Redis, seconds: int
) -> None:
    short = make_config(config.DATABASE_URL, config.REDIS_URL, CREDENTIAL_CACHE_SECONDS=seconds)
    with open_services(short, clock) as services:
        sign_up(services)
        (key,) = copies(redis_client)
        remaining = int(redis_client.pttl(key))  # type: ignore[arg-type]
        assert (seconds - 1) * 1000 < remaining <= seconds * 1000
        assert is_copied(services)
        kept = int(redis_client.pttl(key))  # type: ignore[arg-type]
        assert kept <= remaining, "reading does not prolong it"
        redis_client.pexpire(key, 1)
        time.sleep(0.01)
        assert not is_copied(services)


def test_a_copy_says_neither_who_nor_what(
    services: Services, ada: Identity, redis_client: redis.Redis
) -> None:
    services.credentials.find(parse_email(EMAIL))
    ((hash_,),) = sql(services, "SELECT password_hash FROM users")
    ((key, value),) = copies(redis_client).items()
    for clear in (EMAIL, "ada", str(ada.id), ada.id.hex, hash_):
        assert clear.encode() not in key + value


# -- sign-up ---------------------------------------------------------------------------------------


def test_sign_up_primes_the_copy(services: Services) -> None:
    sign_up(services)
    assert is_copied(services)


def test_the_copy_is_made_after_the_commit(
    services: Services, two_instances: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    prime, seen = services.credentials.prime, []

    def look_then_prime(email: Email) -> None:
        seen.append(two_instances.credentials.read(email))
        prime(email)

    monkeypatch.setattr(services.credentials, "prime", look_then_prime)
    sign_up(services)
    assert seen != [None], "another instance sees the person"
    assert is_copied(services)


@pytest.mark.parametrize(
    ("email", "password", "error"),
    [(EMAIL, "short", InvalidField), ("no email", PASSWORD, InvalidField)],
)
def test_a_sign_up_that_fails_fills_nothing(
    services: Services,
    redis_client: redis.Redis,
    email: str,
    password: str,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        services.registration.sign_up(email, password)
    assert copies(redis_client) == {}


def test_a_sign_up_with_a_taken_email_fills_nothing(
    services: Services, ada: Identity, redis_client: redis.Redis
) -> None:
    with pytest.raises(EmailTaken):
        services.registration.sign_up(EMAIL, OTHER_PASSWORD)
    assert copies(redis_client) == {}


# -- blocking and background -----------------------------------------------------------------------


@pytest.fixture
def in_background(config: Config, clock: Clock) -> Iterator[Services]:
    """An instance that fills copies in the background, with its thread held until `drain`."""
    same = make_config(config.DATABASE_URL, config.REDIS_URL, CREDENTIAL_CACHE_WRITE="background")
    with open_services(same, clock) as services:
        yield services
        services.background.drain()


def held(services: Services) -> Callable[[], None]:
    """Keeps its background thread from going on; returns what lets it."""
    go_on = Event()
    services.background.submit(lambda: assert_set(go_on))

    def let_go() -> None:
        go_on.set()
        services.background.drain()

    return let_go


def assert_set(event: Event) -> None:
    assert event.wait(30)


def test_in_the_background_nobody_waits_for_the_filling(
    in_background: Services, ada: Identity
) -> None:
    let_go = held(in_background)
    try:
        assert not is_copied(in_background)
        log_in(in_background)  # the answer is there, the copy is not
        assert not is_copied(in_background)
    finally:
        let_go()
    assert is_copied(in_background)


def test_in_the_background_sign_up_does_not_wait_either(
    in_background: Services, redis_client: redis.Redis
) -> None:
    let_go = held(in_background)
    try:
        sign_up(in_background)
        assert copies(redis_client) == {}
    finally:
        let_go()
    assert is_copied(in_background)


def test_a_filling_that_comes_after_a_change_is_refused(
    in_background: Services, services: Services, ada: Identity
) -> None:
    """It was read before the change and waited in the queue meanwhile."""
    let_go = held(in_background)
    try:
        in_background.credentials.find(parse_email(EMAIL))
        services.users.update_profile(ada.id, "Countess", "", CLIENT)
    finally:
        let_go()
    assert find(in_background) == (services.credentials.read(parse_email(EMAIL)), True)
    log_in(in_background)


@pytest.mark.parametrize("act", [log_in, sign_up])
def test_success_never_depends_on_the_filling(
    services: Services, monkeypatch: pytest.MonkeyPatch, act: Callable[[Services], object]
) -> None:
    def fails(*_args: Any) -> str:
        raise StoreUnavailable("redis")

    if act is log_in:
        sign_up(services)
        services.redis.flushall()
    monkeypatch.setattr(VersionedCache, "fill", fails)
    assert act(services)
    assert not is_copied(services)


# -- changes ---------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Services, Identity], object]] = {
    "change the password": lambda s, _ada: s.password_changes.change_password(
        log_in(s), PASSWORD, OTHER_PASSWORD, CLIENT
    ),
    "set a password": lambda s, _ada: s.password_changes.set_password(EMAIL, OTHER_PASSWORD),
    "rehash": lambda s, ada: s.users.rehash(ada.id, 1, "another hash"),
    "deactivate": lambda s, ada: s.administration.set_active(ada.id, active=False, actor=OPERATOR),
    "grant": lambda s, _ada: grant_role(s, EMAIL, "admin"),
    "revoke": lambda s, _ada: revoke_role(s, EMAIL, "user"),
    "set roles": lambda s, ada: s.administration.set_roles(ada.id, [], OPERATOR),
    "rename": lambda s, ada: s.users.update_profile(ada.id, "Countess", "", CLIENT),
}
# they fill the copy again, so that it knows the change should Postgres lose it
FILL = {"change the password", "set a password"}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_voids_the_copy(
    services: Services,
    two_instances: Services,
    ada: Identity,
    redis_client: redis.Redis,
    change: str,
) -> None:
    before, _ = find(two_instances)
    assert is_copied(two_instances)
    CHANGES[change](services, ada)
    if change not in FILL:
        assert list(copies(redis_client).values()) == [None]
    after, asked = find(two_instances)
    assert asked is (change not in FILL)
    assert after == services.credentials.read(parse_email(EMAIL))
    assert after != before
    assert is_copied(services)


def test_activating_again_voids_it_too(
    services: Services, ada: Identity, redis_client: redis.Redis
) -> None:
    services.administration.set_active(ada.id, active=False, actor=OPERATOR)
    services.credentials.find(parse_email(EMAIL))
    services.administration.set_active(ada.id, active=True, actor=OPERATOR)
    assert list(copies(redis_client).values()) == [None]
    log_in(services)


def test_logging_out_leaves_the_copy(services: Services, ada: Identity) -> None:
    live = log_in(services)
    services.authentication.log_out(live.token, CLIENT)
    assert is_copied(services)


def test_somebody_elses_change_leaves_the_copy(services: Services, ada: Identity) -> None:
    services.credentials.find(parse_email(EMAIL))
    sign_up(services, "bob@example.org")
    services.password_changes.set_password("bob@example.org", OTHER_PASSWORD)
    assert is_copied(services)


# -- rotation of SECRET_KEY ------------------------------------------------------------------------


@pytest.fixture
def behind(config: Config, clock: Clock) -> Iterator[Services]:
    """An instance that knows the new secret and still writes with the old one."""
    with rotated(config, clock, f"{OLD_KEY},{NEW_KEY}") as services:
        yield services


@pytest.fixture
def ahead(config: Config, clock: Clock) -> Iterator[Services]:
    """An instance that writes with the new secret already."""
    with rotated(config, clock, f"{NEW_KEY},{OLD_KEY}") as services:
        yield services


def rotated(config: Config, clock: Clock, secrets: str) -> Any:
    return open_services(
        make_config(config.DATABASE_URL, config.REDIS_URL, SECRET_KEY=secrets), clock
    )


def test_each_instance_keeps_its_copy_under_its_first_secret(
    ahead: Services, behind: Services, redis_client: redis.Redis
) -> None:
    sign_up(behind)
    assert not is_copied(ahead)
    assert is_copied(ahead)
    keys = {CredentialKeys([k]).current(EMAIL).encode() for k in (OLD_KEY, NEW_KEY)}
    assert set(copies(redis_client)) == keys


@pytest.mark.parametrize("changer", ["ahead", "behind"])
def test_a_change_voids_the_copies_under_all_secrets(
    ahead: Services, behind: Services, redis_client: redis.Redis, changer: str
) -> None:
    sign_up(behind)
    ahead.credentials.find(parse_email(EMAIL))
    here = {"ahead": ahead, "behind": behind}[changer]
    here.password_changes.set_password(EMAIL, OTHER_PASSWORD)
    assert None in copies(redis_client).values(), "only the changer's own is filled again"
    for services in (ahead, behind):
        log_in(services, password=OTHER_PASSWORD)
        with pytest.raises(InvalidCredentials):
            log_in(services)


# -- Redis away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [redis.ConnectionError, redis.TimeoutError, redis.ResponseError])
def test_without_redis_postgres_answers(
    services: Services, ada: Identity, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*_args: Any, **_how: Any) -> Any:
        raise error("away")

    facts = services.credentials.read(parse_email(EMAIL))
    monkeypatch.setattr(services.redis, "execute_command", fails)
    for _ in range(10):  # the breaker opens meanwhile
        assert services.credentials.find(parse_email(EMAIL)) == facts
    assert services.cache.breaker.is_open
    assert services.credentials.find(parse_email("nobody@example.org")) is None


def test_without_postgres_a_copy_answers_and_a_miss_is_no_unknown(
    services: Services, ada: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: Any) -> Any:
        raise StoreUnavailable("postgres")

    services.credentials.find(parse_email(EMAIL))
    monkeypatch.setattr(CredentialStore, "read", away)
    assert services.credentials.find(parse_email(EMAIL)) is not None
    with pytest.raises(StoreUnavailable):
        services.credentials.find(parse_email("nobody@example.org"))
