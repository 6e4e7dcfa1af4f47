"""All below the web: several instances, a store away, nothing that can be replayed."""

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select

from authapp import dev
from authapp.accounts.actor import Actor
from authapp.cache.keys import LIFE_KEY, session_key
from authapp.config import Config
from authapp.errors import InvalidCredentials, StoreUnavailable, TooManyAttempts
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from authapp.storage.models import User
from tests.support.clock import Clock
from tests.support.databases import migrate
from tests.support.frozen import frozen
from tests.support.hashing import hashing
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
from tests.support.redis_contents import everything_in
from tests.support.services import await_trust, open_services, sql
from tests.support.sessions import ending, find, is_live
from tests.support.settings import make_config
from tests.support.threads import at_once
from tests.support.traffic import traffic

IDLE, ABSOLUTE = 1_800, 43_200


def log_out(services: Services, live: ActiveSession) -> None:
    services.authentication.log_out(live.token, CLIENT)


# -- two instances on the same stores ----------------------------------------------------------


@pytest.fixture
def other(config: Config, clock: Clock) -> Iterator[Services]:
    with open_services(config, clock) as other:
        yield other


@pytest.fixture
def live(services: Services, other: Services) -> ActiveSession:
    """A session whose copy both instances have used."""
    sign_up(services)
    live = log_in(services)
    assert is_live(services, live)
    with traffic() as seen:
        assert is_live(other, live)
    assert seen.sql == [], "instances share copies"
    return live


def test_a_log_out_is_known_to_the_other_at_once(
    services: Services, other: Services, live: ActiveSession
) -> None:
    log_out(other, live)
    assert ending(services, live) is EndReason.LOGOUT


def test_a_role_is_known_to_the_other_at_once(
    services: Services, other: Services, live: ActiveSession
) -> None:
    for change, role, roles in [
        (partial(grant_role, other), "admin", ("admin", "user")),
        (partial(revoke_role, other), "user", ("admin",)),
        (partial(grant_role, services), "user", ("admin", "user")),
    ]:
        change(EMAIL, role)
        for instance in (services, other, services):
            found = find(instance, live)
            assert isinstance(found, ActiveSession)
            assert found.record.user.roles == roles


def test_a_new_password_is_known_to_the_other_at_once(
    services: Services, other: Services, live: ActiveSession
) -> None:
    changed = other.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    fresh = changed.value.session
    assert ending(services, live) is EndReason.PASSWORD_CHANGED
    assert is_live(services, fresh)
    with pytest.raises(InvalidCredentials):
        log_in(services)


def test_saved_data_is_known_to_the_other_at_once(
    services: Services, other: Services, live: ActiveSession
) -> None:
    for number, instance in enumerate([other, services, other]):
        instance.sessions.patch(live, {"n": number}, [])
        for reader in (services, other):
            found = find(reader, live)
            assert isinstance(found, ActiveSession)
            assert found.record.data == {"n": number}


def test_who_was_logged_out_stays_out_after_a_rotation(
    services: Services, config: Config, clock: Clock, live: ActiveSession
) -> None:
    rotated = make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        SECRET_KEY=("a new secret of thirty-two bytes", *config.SECRET_KEY),
    )
    gone = log_in(services)
    log_out(services, gone)
    find(services, gone)
    with open_services(rotated, clock) as later:
        token = later.tokens.check(live.token.text)
        assert token == live.token
        assert is_live(later, live)
        assert ending(later, gone) is EndReason.LOGOUT


# -- deadlocks ---------------------------------------------------------------------------------


def test_changes_of_one_person_at_once_all_go_through(services: Services, other: Services) -> None:
    """Everything here locks the person, their sessions, or both; in one order."""
    ada = sign_up(services)
    sign_up(services, "root@example.org")
    grant_role(services, "root@example.org", "admin")
    lives = [services.sessions.begin(ada.id, 1, CLIENT) for _ in range(3)]
    rounds = 8

    def begin(instance: Services, **how: Any) -> ActiveSession:
        while True:  # ending the others' sessions bumps the epoch, too
            ((epoch,),) = sql(instance, "SELECT epoch FROM users WHERE id = :id", id=ada.id)
            with suppress(InvalidCredentials):
                return instance.sessions.begin(ada.id, epoch, CLIENT, **how)

    def change_user() -> None:
        for _ in range(rounds):
            grant_role(services, EMAIL, "admin")
            revoke_role(services, EMAIL, "admin")

    def come_and_go() -> None:
        for _ in range(rounds):
            log_out(services, begin(services))

    def end_others(instance: Services) -> None:
        for _ in range(rounds):
            live = begin(instance, replaces=[lives[0].token])
            instance.sessions.end_others(live, EndReason.REVOKED_BY_USER, CLIENT)

    def use(live: ActiveSession) -> None:
        for number in range(rounds * 2):
            find(other, live)
            other.sessions.patch(live, {"n": number}, [])

    def regenerate(live: ActiveSession | None) -> None:
        for _ in range(rounds):
            if live:
                live = services.sessions.regenerate(live, CLIENT).value

    outcomes = at_once(
        change_user,
        come_and_go,
        partial(end_others, services),
        partial(end_others, other),
        partial(use, lives[1]),
        partial(regenerate, lives[2]),
    )
    assert outcomes == [None] * 6


def test_who_ends_several_sessions_waits_for_who_changes_the_person(
    services: Services, other: Services
) -> None:
    """Both touch all of a person's sessions, and would each hold some that the other needs."""
    ada = sign_up(services)
    live, ended = log_in(services), log_in(services)
    with services.database.transaction() as db, ThreadPoolExecutor(1) as pool:
        db.execute(select(User.id).where(User.id == ada.id).with_for_update(key_share=True))
        end = pool.submit(other.sessions.end_others, live, EndReason.REVOKED_BY_USER, CLIENT)
        time.sleep(0.3)
        assert not end.done()
        db.commit()
        assert end.result(timeout=30).value == 1
    assert ending(services, ended) is EndReason.REVOKED_BY_USER


# -- nothing that can be replayed --------------------------------------------------------------


def spellings_of_token(token: str) -> set[bytes]:
    raw = base64.urlsafe_b64decode(token)
    parts = (raw, raw[:32], raw[32:])
    found = {token.encode()}
    for part in parts:
        found |= {part, part.hex().encode(), base64.b64encode(part)}
        found |= {base64.urlsafe_b64encode(part), base64.b64encode(part).rstrip(b"=")}
    return found


def everything_in_postgres(services: Services) -> str:
    tables = sql(services, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    rows = [sql(services, f'SELECT t::text FROM "{name}" t') for (name,) in tables]
    assert len(rows) >= 6
    return "\n".join(row for table in rows for (row,) in table)


def test_neither_store_holds_what_could_be_replayed(
    services: Services, redis_client: redis.Redis
) -> None:
    email = "Ada.Lovelace@Bücher.example"
    canonical = "ada.lovelace@xn--bcher-kva.example"
    services.registration.sign_up(email, PASSWORD, "Ada")
    with pytest.raises(InvalidCredentials):
        log_in(services, email, "not the password")
    with pytest.raises(InvalidCredentials):
        log_in(services, "nobody.here@example.org")
    live = log_in(services, email, remember=True)
    again = log_in(services, email, replaces=[live.token])
    for session in (live, again):
        find(services, session)
        find(services, session)
    services.sessions.patch(again, {"mail me at": email}, [])
    assert is_live(services, again)
    fresh = services.sessions.regenerate(again, CLIENT).value
    assert fresh is not None
    assert is_live(services, fresh)
    left = services.password_changes.change_password(
        fresh, PASSWORD, OTHER_PASSWORD, CLIENT
    ).value.session
    assert is_live(services, left)
    tokens = [one.token.text for one in (live, again, fresh, left)]

    kept = everything_in(redis_client)
    assert kept.pop(LIFE_KEY.encode()), "for as long as Redis runs, and of nobody"
    assert {key.partition(b":")[0] for key in kept} == {b"cred", b"rate", b"sess", b"user"}
    for key, value in kept.items():
        held = (key + b"\n" + value).lower()
        for address in (email, canonical, "ada.lovelace", "nobody.here", "lovelace@bücher"):
            assert address.lower().encode() not in held, key
            assert base64.b64encode(address.encode()).rstrip(b"=").lower() not in held
            assert address.lower().encode().hex().encode() not in held
        assert PASSWORD.encode() not in held
        for token in tokens:
            assert not [part for part in spellings_of_token(token) if part in key + b"\n" + value]
        remaining = redis_client.pttl(key)
        assert isinstance(remaining, int)
        assert 0 < remaining <= 31 * 86_400_000, f"{key!r} is kept for {remaining} ms"

    rows = everything_in_postgres(services)
    assert canonical in rows, "the dump is empty"
    assert PASSWORD not in rows
    assert OTHER_PASSWORD not in rows
    for token in tokens:
        for part in spellings_of_token(token):
            assert part.decode("latin-1") not in rows
            assert part.hex() not in rows


def test_a_copy_is_kept_no_longer_than_it_is_of_use(
    services: Services, live: ActiveSession, redis_client: redis.Redis
) -> None:
    remaining = redis_client.ttl(session_key(live.token.digest))
    assert isinstance(remaining, int)
    assert IDLE < remaining <= ABSOLUTE


# -- a store away ------------------------------------------------------------------------------


class Engines:
    """Engines of this module, for a test to stop."""

    def __init__(self, base: Path, sockets: tuple[Path, Path]) -> None:
        self._base, self._sockets = base, sockets
        self.postgres = self._postgres()
        self.valkey = self._valkey()

    def _postgres(self) -> dev.PostgreSQL:
        where = self._base / "postgres", self._sockets[0]
        return dev.PostgreSQL.start(*where, "tests-only", durable=False)

    def _valkey(self) -> dev.Valkey:
        where = self._base / "valkey", self._sockets[1]
        return dev.Valkey.start(*where, "tests-only", durable=False)

    def start(self) -> None:
        """Starts those that are away: Postgres with its data, Redis empty."""
        if not self.postgres.running:
            self.postgres = self._postgres()
        if not self.valkey.running:
            self.valkey = self._valkey()

    def stop(self) -> None:
        self.postgres.stop()
        self.valkey.stop()


@pytest.fixture(scope="module")
def own_engines(engine_dir: Path) -> Iterator[Engines]:
    with ExitStack() as stack:
        sockets = (
            stack.enter_context(dev.private_socket_dir()),
            stack.enter_context(dev.private_socket_dir()),
        )
        engines = Engines(engine_dir / "stopped", sockets)
        stack.callback(engines.stop)
        migrate(engines.postgres.url)
        yield engines


@pytest.fixture
def engines(own_engines: Engines) -> Engines:
    own_engines.start()
    return own_engines


@pytest.fixture
def here(engines: Engines, clock: Clock) -> Iterator[Services]:
    """Services on engines that may be stopped; one person, nobody logged in."""
    config = make_config(engines.postgres.url, engines.valkey.url, WEB_CONCURRENCY=2)
    with redis.Redis.from_url(engines.valkey.url) as client:
        client.flushall()
    with open_services(config, clock) as services:
        sql(services, "DELETE FROM audit_events")
        sql(services, "DELETE FROM users")
        sign_up(services)
        yield services


def unavailable(work: Callable[[], Any]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        work()
    assert caught.value.retry_after >= 1
    return caught.value


def test_both_up(here: Services) -> None:
    assert here.store_states() == {"postgres": True, "redis": True}


def test_redis_away(here: Services, engines: Engines) -> None:
    live, ended = log_in(here), log_in(here)
    log_out(here, ended)
    find(here, live)
    engines.valkey.stop()
    assert here.store_states() == {"postgres": True, "redis": False}
    assert is_live(here, live)
    assert ending(here, ended) is EndReason.LOGOUT
    assert find(here, log_in(here)) is not None  # nothing to fence: a log-in goes through
    log_out(here, live)
    assert ending(here, live) is EndReason.LOGOUT
    assert here.changes.pending()
    other = log_in(here)
    engines.start()
    await_trust(here)
    assert here.store_states() == {"postgres": True, "redis": True}
    assert is_live(here, other), "a server that lost everything logs nobody out"
    assert ending(here, ended) is EndReason.LOGOUT
    assert ending(here, live) is EndReason.LOGOUT
    assert not here.changes.pending()


def test_redis_away_limits_are_kept_in_process(here: Services, engines: Engines) -> None:
    engines.valkey.stop()
    outcomes = []
    with hashing() as costs:
        for number in range(8):
            try:
                here.authentication.log_in(EMAIL, "wrong", Actor(address=f"198.51.100.{number}"))
            except (InvalidCredentials, TooManyAttempts) as refused:
                outcomes.append(type(refused))
    assert outcomes == [InvalidCredentials] * 5 + [TooManyAttempts] * 3  # half, for two workers
    assert len(costs) == 5


def test_redis_frozen(here: Services, engines: Engines) -> None:
    live = log_in(here)
    find(here, live)
    with frozen(engines.valkey.pid):
        assert at_once(lambda: is_live(here, live)) == [True], "it waits for as long as it takes"
    assert is_live(here, live)


def test_redis_replaced_by_one_that_kept_an_old_copy(here: Services, engines: Engines) -> None:
    live = log_in(here)
    find(here, live)
    key = session_key(live.token.digest)
    old: Any = here.redis.dump(key)
    log_out(here, live)
    engines.valkey.stop()
    engines.start()
    here.redis.restore(key, 60_000, old)
    assert ending(here, live) is EndReason.LOGOUT


def test_postgres_away(here: Services, engines: Engines, clock: Clock) -> None:
    live, ended, uncopied = log_in(here), log_in(here), log_in(here)
    find(here, live)
    log_out(here, ended)
    find(here, ended)
    engines.postgres.stop()
    assert here.store_states() == {"postgres": False, "redis": True}
    with traffic() as seen:
        assert is_live(here, live)
    assert seen.sql == []
    for _ in range(5):
        clock.forward(IDLE - 1)  # an old copy, of somebody who keeps coming
        assert is_live(here, live)
    assert ending(here, ended) is EndReason.LOGOUT
    for work in (
        lambda: find(here, uncopied),
        lambda: here.sessions.find(here.tokens.mint()),
        lambda: log_out(here, live),
        lambda: sign_up(here, "bob@example.org"),
    ):
        assert unavailable(work).store == "postgres"
    assert is_live(here, live)
    engines.start()
    await_trust(here)
    assert is_live(here, live), "who was active meanwhile is not found idle afterwards"
    ((seen_at,),) = sql(here, "SELECT last_seen_at FROM sessions WHERE id = :id", id=live.record.id)
    assert seen_at == clock.now
    assert here.store_states() == {"postgres": True, "redis": True}


def test_postgres_away_copies_keep_their_limits(
    here: Services, engines: Engines, clock: Clock
) -> None:
    idle, old = log_in(here), log_in(here)
    find(here, idle)
    find(here, old)
    engines.postgres.stop()
    for _ in range(3):
        clock.forward(IDLE)
        assert is_live(here, old)
    assert ending(here, idle) is EndReason.IDLE
    while clock.now + timedelta(seconds=IDLE) < old.record.expires_at:
        clock.forward(IDLE)
        assert is_live(here, old)
    clock.now = old.record.expires_at
    assert ending(here, old) is EndReason.ABSOLUTE
    engines.start()
    await_trust(here)
    assert ending(here, old) is EndReason.ABSOLUTE


def test_both_away(here: Services, engines: Engines) -> None:
    live = log_in(here)
    find(here, live)
    engines.stop()
    assert here.store_states() == {"postgres": False, "redis": False}
    with hashing() as costs:
        for work in (
            lambda: find(here, live),
            lambda: here.sessions.find(here.tokens.mint()),
            lambda: log_in(here),
            lambda: log_out(here, live),
        ):
            unavailable(work)
    assert costs == [4]  # the log-in hashes, as it does for an email with a cache entry
    engines.start()
    await_trust(here)
    assert is_live(here, live)


def test_services_are_built_without_a_connection(clock: Clock) -> None:
    nowhere = make_config(
        "postgresql://authapp:hush@/authapp?host=/nonexistent",
        "unix://:hush@/nonexistent/valkey.sock",
    )
    with traffic() as seen, open_services(nowhere, clock) as services:
        pass
    assert (seen.sql, seen.redis) == ([], [])
    assert "hush" not in repr(services)
