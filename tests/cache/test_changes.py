"""Changes: no copy is stale once one was acknowledged, and none is half done."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.cache.changes import Change
from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import Acquired, Lease
from authapp.errors import InvalidCredentials, StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason, LookupResult
from authapp.storage.models import User
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
from tests.support.services import await_trust, sql
from tests.support.sessions import is_live
from tests.support.traffic import traffic

Act = Callable[[Services, ActiveSession], Any]

ACTS: dict[str, Act] = {
    "log out": lambda s, live: s.authentication.log_out(live.token, CLIENT),
    "log in again": lambda s, live: log_in(s, replaces=[live.token]),
    "change the password": lambda s, live: s.password_changes.change_password(
        live, PASSWORD, OTHER_PASSWORD, CLIENT
    ),
    "set a password": lambda s, _live: s.password_changes.set_password(EMAIL, OTHER_PASSWORD),
    "save data": lambda s, live: s.sessions.patch(live, {"cart": 1}, []),
    "regenerate": lambda s, live: s.sessions.regenerate(live, CLIENT),
    "end one": lambda s, live: s.sessions.end_one(
        live.record.user.id, live.record.id, EndReason.REVOKED_BY_USER, CLIENT
    ),
    "end others": lambda s, live: s.sessions.end_others(live, EndReason.REVOKED_BY_USER, CLIENT),
    "grant": lambda s, _live: grant_role(s, EMAIL, "admin"),
    "revoke": lambda s, _live: revoke_role(s, EMAIL, "user"),
    "rename": lambda s, live: s.users.update_profile(live.record.user.id, "Countess", "", CLIENT),
}
DELETE: dict[str, Act] = {
    "delete": lambda s, live: s.administration.delete_user(live.record.user.id, OPERATOR)
}
every_act = pytest.mark.parametrize("act", (ACTS | DELETE).values(), ids=ACTS | DELETE)


@pytest.fixture
def live(services: Services) -> ActiveSession:
    """A session among others, all of them copied."""
    sign_up(services)
    live, other = log_in(services), log_in(services)
    services.sessions.find(live.token)
    services.sessions.find(other.token)
    return live


def facts(services: Services) -> list[str]:
    tables = ("users", "user_roles", "sessions", "audit_events")
    return [
        row for t in tables for (row,) in sql(services, f"SELECT t::text FROM {t} t ORDER BY 1")
    ]


class Fences:
    """Looks on each fence; fails those it is told to."""

    def __init__(self, services: Services, failing: int | None = None) -> None:
        self._fence = services.cache.fence
        self._services = services
        self._failing = failing
        self.committed: list[bool] = []
        self.keys: list[set[str]] = []
        self.before = facts(services)

    def __call__(self, versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        self.committed.append(facts(self._services) != self.before)
        self.keys.append(set(versions))
        if len(self.committed) == self._failing:
            self._services.cache.breaker.open()
            raise StoreUnavailable("redis")
        return self._fence(versions, **how)


def watch(services: Services, patch: pytest.MonkeyPatch, failing: int | None = None) -> Fences:
    fences = Fences(services, failing)
    patch.setattr(services.cache, "fence", fences)
    return fences


@every_act
def test_copies_are_fenced_before_the_commit_and_after_it(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    fences = watch(services, monkeypatch)
    act(services, live)
    assert fences.committed == [False, True]
    assert fences.keys[0] == fences.keys[1]
    assert fences.keys[0] <= {k.decode() for k in services.redis.scan_iter()}
    assert fences.keys[0]


@pytest.mark.parametrize("failing", [1, 2])
@every_act
def test_fences_that_redis_does_not_take_are_set_before_it_is_trusted(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch, act: Act, failing: int
) -> None:
    """The change stands at once, here; and where Redis is back, no copy from before it is left."""
    with monkeypatch.context() as patch:
        fences = watch(services, patch, failing=failing)
        act(services, live)
    assert facts(services) != fences.before
    assert written_down(services) == fences.keys[0]

    def found() -> list[LookupResult]:
        digests = [bytes(d) for (d,) in sql(services, "SELECT digest FROM sessions ORDER BY id")]
        return [services.sessions.find(type(live.token)("", digest)) for digest in digests]

    away = found()
    assert services.cache.breaker.is_open
    await_trust(services)
    assert found() == away
    assert written_down(services) == set()


def test_an_instance_that_saw_no_failure_notices_within_a_revalidation(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    cut_off, other = services, two_instances
    with monkeypatch.context() as patch:
        watch(cut_off, patch, failing=1)
        cut_off.authentication.log_out(live.token, CLIENT)
    assert is_live(other, live), "the bound shows nothing"
    clock.forward(60)
    assert other.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)
    assert written_down(other) == set()


def test_who_makes_such_a_change_is_told(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert services.authentication.log_out(log_in(services).token, CLIENT).everywhere
    watch(services, monkeypatch, failing=1)
    assert not services.authentication.log_out(live.token, CLIENT).everywhere


BY_HAND = {
    "deactivate": "UPDATE users SET active = false WHERE email = 'ada@example.org'",
    "password": "UPDATE users SET password_hash = 'x' WHERE email = 'ada@example.org'",
    "end": "UPDATE sessions SET ended_at = now(), ended_why = 'revoked_by_admin'",
    "delete sessions": "DELETE FROM sessions",
    "delete the user": "DELETE FROM users",
    "take the roles": "DELETE FROM user_roles",
    "give a role to another": """
        DELETE FROM user_roles WHERE user_id = (SELECT id FROM users WHERE email LIKE 'bob%');
        UPDATE user_roles SET user_id = (SELECT id FROM users WHERE email LIKE 'bob%')
    """,
    "another email": """
        UPDATE users SET email = 'ada@example.com', email_canonical = 'ada@example.com'
        WHERE email = 'ada@example.org'
    """,
    "rename": "UPDATE users SET name = 'Countess'",
    "permissions": "UPDATE roles SET permissions = ARRAY['users:read'] WHERE name = 'user'",
}


@pytest.mark.parametrize("statement", BY_HAND.values(), ids=BY_HAND)
def test_a_change_made_by_hand_is_noticed_within_a_revalidation(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock, statement: str
) -> None:
    """Somebody else's visit notices, on any instance."""
    sign_up(services, "bob@example.org")
    bob = log_in(services, "bob@example.org")
    services.sessions.find(bob.token)
    services.users.look_up(live.record.user.id)
    sql(services, statement)
    clock.forward(60)
    two_instances.sessions.find(bob.token)
    assert written_down(services) == set()
    found, user = services.sessions.find(live.token), services.users.look_up(live.record.user.id)
    services.redis.flushall()
    assert found == services.sessions.find(live.token)
    assert user[0] == services.users.get(live.record.user.id)
    try:
        services.authentication.log_in(EMAIL, PASSWORD, CLIENT)
    except InvalidCredentials:
        allowed = False
    else:
        allowed = True
    assert allowed == (
        statement
        not in {BY_HAND[k] for k in ("deactivate", "password", "delete the user", "another email")}
    )


@pytest.mark.parametrize("which", ["deactivate", "password", "delete the user", "another email"])
def test_credentials_taken_away_by_hand_have_no_copy_left(
    services: Services, live: ActiveSession, clock: Clock, which: str
) -> None:
    """Otherwise the former owner could log in while Postgres is away."""
    assert copies_of_credentials(services)
    sql(services, BY_HAND[which])
    clock.forward(60)
    services.sessions.find(live.token)
    assert not copies_of_credentials(services)


def test_what_reading_and_the_product_itself_change_writes_no_fence(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    clock.forward(60)
    services.sessions.find(live.token)
    for act in ACTS.values():
        act(services, log_in(services))
        services.password_changes.set_password(EMAIL, PASSWORD)
    assert written_down(services) == set()


def test_copies_are_trusted_again_though_changes_never_cease(
    services: Services, live: ActiveSession
) -> None:
    """As in an app that saves something in `flask.session` at each request."""
    sessions = [live, log_in(services), log_in(services)]
    ceased = Event()

    def change(session: ActiveSession) -> int:
        done = 0
        while not ceased.is_set():
            services.sessions.patch(session, {"visits": done}, [])
            done += 1
        return done

    with ThreadPoolExecutor(len(sessions)) as threads:
        counts = [threads.submit(change, session) for session in sessions]
        try:
            services.cache.breaker.open()
            await_trust(services)
        finally:
            ceased.set()
        assert all(count.result() for count in counts)
    assert written_down(services) == set()
    for session, count in zip(sessions, counts, strict=True):
        found = services.sessions.find(session.token)
        assert isinstance(found, ActiveSession)
        assert found.record.data == {"visits": count.result() - 1}


def copies_of_credentials(services: Services) -> list[bytes]:
    keys = services.redis.scan_iter("cred:*")
    return [key for key in keys if services.redis.hexists(key, "v")]


def written_down(services: Services) -> set[str]:
    return {
        key or str(user) for key, user in sql(services, "SELECT key, user_id FROM pending_fences")
    }


@every_act
def test_no_copy_from_before_the_change_is_left(
    services: Services, live: ActiveSession, act: Act
) -> None:
    """Each session is found as the facts are now, though all had fresh copies."""
    act(services, live)
    for (digest,) in sql(services, "SELECT digest FROM sessions"):
        token = type(live.token)("", bytes(digest))
        found = services.sessions.find(token)
        services.redis.flushall()
        assert found == services.sessions.find(token)


def test_a_copy_read_before_the_commit_is_not_kept(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader comes between the first fence and the commit, and sees the old facts."""
    fence = services.cache.fence
    seen: list[LookupResult] = []

    def fence_then_read(versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        leases = fence(versions, **how)
        if not seen:
            seen.append(services.sessions.find(live.token))
        return leases

    monkeypatch.setattr(services.cache, "fence", fence_then_read)
    services.authentication.log_out(live.token, CLIENT)
    assert isinstance(seen[0], ActiveSession)
    assert services.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)


def test_a_copy_read_before_the_commit_is_refused_by_the_first_fence_alone(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence, calls = services.cache.fence, []

    def fence_once_then_read(versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        calls.append(versions)
        if len(calls) == 1:
            fence(versions, **how)
            services.sessions.find(live.token)
        return {}

    monkeypatch.setattr(services.cache, "fence", fence_once_then_read)
    services.authentication.log_out(live.token, CLIENT)
    assert services.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)


def test_the_second_fence_drops_what_was_filled_where_the_first_was_lost(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence, calls = services.cache.fence, []

    def fence_then_lose(versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        calls.append(versions)
        leases = fence(versions, **how)
        if len(calls) == 1:
            services.redis.flushall()  # evicted, say
            services.sessions.find(live.token)
        return leases

    monkeypatch.setattr(services.cache, "fence", fence_then_lose)
    services.authentication.log_out(live.token, CLIENT)
    assert services.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)


def test_a_change_that_fails_fences_nothing(services: Services, live: ActiveSession) -> None:
    before = facts(services)
    with pytest.raises(KeyError):
        end_all_and_fail(services, live)
    assert facts(services) == before
    assert services.cache.acquire(session_key(live.token.digest)).value is not None


def end_all_and_fail(services: Services, live: ActiveSession) -> None:
    with services.changes.begin() as change:
        user = change.db.get_one(User, live.record.user.id)
        services.sessions.end_all(change, user, EndReason.LOGOUT)
        raise KeyError


def test_a_change_rolled_back_after_its_fence_costs_copies_until_the_next(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fenced a version that never came to be; Postgres answers meanwhile."""
    fence = services.cache.fence

    def fence_and_fail(versions: Mapping[str, int], **how: Any) -> None:
        fence(versions, **how)
        raise KeyError

    monkeypatch.setattr(services.cache, "fence", fence_and_fail)
    with pytest.raises(KeyError):
        services.sessions.patch(live, {"cart": 1}, [])
    monkeypatch.setattr(services.cache, "fence", fence)
    for _ in range(3):
        assert seen_from_copy(services, live) == (False, {})
    services.sessions.patch(live, {"cart": 2}, [])
    assert seen_from_copy(services, live) == (True, {"cart": 2})


def seen_from_copy(services: Services, live: ActiveSession) -> tuple[bool, dict[str, Any]]:
    """Whether a copy answered, and the session's data."""
    with traffic() as seen:
        found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    return seen.sql == [], found.record.data


def test_a_change_of_nothing_asks_redis_nothing(services: Services) -> None:
    with services.changes.begin() as change:
        assert change.fences == {}


def test_only_live_sessions_of_the_user_are_touched(
    services: Services, live: ActiveSession
) -> None:
    sign_up(services, "bob@example.org")
    theirs, gone = log_in(services, "bob@example.org"), log_in(services)
    services.authentication.log_out(gone.token, CLIENT)
    with services.changes.begin() as change:
        change.touch_user(change.db.get_one(User, live.record.user.id))
        touched = {key: ver for key, ver in change.fences.items() if key.startswith("sess:")}
    assert len(touched) == 2
    assert touched[session_key(live.token.digest)] == live.record.ver + 1
    assert not {session_key(theirs.token.digest), session_key(gone.token.digest)} & set(touched)


# Controls: the tests above see what they are for.


@pytest.mark.parametrize("guard", ["touch_session", "touch_user"])
def test_without_fences_a_copy_would_be_stale(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    monkeypatch.setattr(Change, guard, lambda *_args: None)
    if guard == "touch_session":
        services.authentication.log_out(live.token, CLIENT)
    else:
        grant_role(services, EMAIL, "admin")
    found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert not found.record.user.has_role("admin")


def test_without_a_lease_a_late_reader_would_log_in_again_who_logged_out(
    services: Services, live: ActiveSession
) -> None:
    """Does by hand the step that the lease prevents: the old copy is put back after the log-out."""
    key = session_key(live.token.digest)
    copied: Acquired = services.cache.acquire(key, renew=True)
    assert copied.value is not None
    assert copied.lease is not None
    services.authentication.log_out(live.token, CLIENT)
    put_back = partial(services.cache.fill, key, version=live.record.ver, value=copied.value, ttl=9)
    assert put_back(lease=copied.lease) == "lease"
    late = services.cache.acquire(key, renew=True).lease
    assert late is not None
    assert put_back(lease=late) == "fence"
    assert services.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)


def test_housekeeping_writes_down_the_fences_that_redis_does_not_take(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    watch(services, monkeypatch, failing=1)
    clock.forward(100_000)
    assert services.housekeeping.end_expired(10, range(1_000))
    assert session_key(live.token.digest) in written_down(services)
