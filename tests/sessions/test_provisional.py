"""Sessions that begin while Postgres is away: who gets one, how long it lasts, when it has a row"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.cache.keys import session_key, user_key
from authapp.errors import InvalidCredentials, StoreUnavailable, TooManyAttempts
from authapp.services import Services
from authapp.sessions.beginning import SessionBeginning
from authapp.sessions.lookup import SessionLookup
from authapp.sessions.provisional import LONGEST
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from authapp.storage.postgres import FailureKind, PostgresUnavailable
from tests.support.clock import Clock
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
from tests.support.services import await_trust, sql
from tests.support.sessions import is_live
from tests.support.threads import at_once
from tests.support.traffic import traffic

IDLE, ABSOLUTE, REVALIDATE = 1_800, 43_200, 60


def nobody_there() -> None:
    raise StoreUnavailable("postgres")


@contextmanager
def postgres_away(*instances: Services) -> Iterator[None]:
    """These instances can't ask Postgres. (tests/proofs/chaos stops the server itself.)"""
    for instance in instances:
        instance.database.breaker.recover = nobody_there
        instance.database.breaker.open()
    try:
        yield
    finally:
        for instance in instances:
            instance.database.breaker.recover = instance.database.ping
            await_trust(instance)


@pytest.fixture
def ada(services: Services) -> Identity:
    """Somebody whose credentials are copied."""
    ada = sign_up(services)
    services.credentials.find(parse_email(EMAIL))
    return ada


@pytest.fixture
def live(services: Services, ada: Identity) -> ActiveSession:
    """A session without a row; Postgres is back."""
    with postgres_away(services):
        return log_in(services)


def rows(services: Services, live: ActiveSession) -> list[tuple[Any, ...]]:
    return sql(
        services, "SELECT id, ended_why FROM sessions WHERE digest = :d", d=live.token.digest
    )


# -- who gets one ----------------------------------------------------------------------------------


def test_who_is_known_to_redis_logs_in(
    services: Services, two_instances: Services, ada: Identity, clock: Clock
) -> None:
    with postgres_away(services, two_instances), traffic() as seen:
        live = log_in(services)
        assert live.record.user == ada
        for instance in (services, two_instances):
            found = instance.sessions.find(live.token)
            assert isinstance(found, ActiveSession)
            assert (found.record.id, found.record.user) == (live.record.id, ada)
    assert seen.sql == []
    assert live.record.expires_at == clock.now + LONGEST
    assert rows(services, live) == []


def refusal_of(services: Services, email: str, password: str) -> tuple[Any, ...]:
    """All that a caller can tell of a refusal, and the bcrypt work it took."""
    with hashing() as costs, pytest.raises(StoreUnavailable) as caught:
        log_in(services, email, password)
    error = caught.value
    return type(error), str(error), error.store, error.retry_after, costs


@pytest.mark.parametrize("without_copies", [False, True])
def test_nobody_is_told_who_has_an_account(
    services: Services, ada: Identity, *, without_copies: bool
) -> None:
    """A wrong password was refused where there was a copy; elsewhere nobody could say."""
    inactive = sign_up(services, "inactive@example.org")
    services.administration.set_active(inactive.id, active=False, actor=OPERATOR)
    services.credentials.find(parse_email("inactive@example.org"))
    with postgres_away(services):
        if without_copies:
            services.redis.flushall()
        seen = [
            refusal_of(services, EMAIL, OTHER_PASSWORD),
            refusal_of(services, EMAIL, "x" * 10_000),
            refusal_of(services, "nobody@example.org", PASSWORD),
            refusal_of(services, "inactive@example.org", PASSWORD),
            refusal_of(services, "inactive@example.org", OTHER_PASSWORD),
        ]
    assert seen == [seen[0]] * len(seen)
    assert len(seen[0][-1]) == 1, "each takes one hash"
    assert [key for key in everything_in(services.redis) if key.startswith(b"sess:")] == []


def test_programs_are_told_no_more(services: Services, ada: Identity) -> None:
    for email, password in (
        (EMAIL, PASSWORD),
        (EMAIL, OTHER_PASSWORD),
        ("nobody@example.org", PASSWORD),
    ):
        with postgres_away(services), hashing() as costs, pytest.raises(StoreUnavailable):
            services.authentication.issue_token(email, password, CLIENT)
        assert len(costs) == 1


def test_the_limits_count_on(services: Services, ada: Identity) -> None:
    with postgres_away(services):
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                log_in(services, password=OTHER_PASSWORD)
        with pytest.raises(TooManyAttempts):
            log_in(services)


def test_neither_store_holds_the_token(services: Services, live: ActiveSession) -> None:
    for key, value in everything_in(services.redis).items():
        assert live.token.text.encode() not in key + value
        assert EMAIL.encode() not in key + value


# -- how long it counts ----------------------------------------------------------------------------


def test_it_ends_idle_and_who_comes_is_not_idle(
    services: Services, ada: Identity, clock: Clock
) -> None:
    with postgres_away(services):
        idle, active = log_in(services), log_in(services)
        clock.forward(IDLE - 60)
        assert is_live(services, active)
        clock.forward(IDLE - 60)
        assert is_live(services, active)
        assert services.sessions.find(idle.token) == EndedSession(EndReason.IDLE)
        clock.now = active.record.created_at + LONGEST
        assert services.sessions.find(active.token) == EndedSession(EndReason.ABSOLUTE)
    for session in (idle, active):
        assert not is_live(services, session)
        assert rows(services, session) == [], "too late for a row"


def test_a_change_of_the_user_is_seen(
    services: Services, two_instances: Services, ada: Identity
) -> None:
    """Here Postgres is away, there somebody becomes an administrator."""
    with postgres_away(services):
        live = log_in(services)
        grant_role(two_instances, EMAIL, "admin")
        with pytest.raises(StoreUnavailable):
            services.sessions.find(live.token)
        two_instances.users.look_up(ada.id)
        found = services.sessions.find(live.token)
        assert isinstance(found, ActiveSession)
        assert found.record.user.roles == ("admin", "user")


Act = Callable[[Services, ActiveSession, ActiveSession], object]

ENDINGS: dict[str, tuple[Act, EndReason]] = {
    "password changed": (
        lambda s, other, _: s.password_changes.change_password(
            other, PASSWORD, OTHER_PASSWORD, CLIENT
        ),
        EndReason.PASSWORD_CHANGED,
    ),
    "password set": (
        lambda s, _other, _: s.password_changes.set_password(EMAIL, OTHER_PASSWORD),
        EndReason.PASSWORD_CHANGED,
    ),
    "deactivated": (
        lambda s, other, _: s.administration.set_active(
            other.record.user.id, active=False, actor=OPERATOR
        ),
        EndReason.DEACTIVATED,
    ),
    "all ended by an administrator": (
        lambda s, other, _: s.administration.end_sessions_of(other.record.user.id, OPERATOR),
        EndReason.PASSWORD_CHANGED,
    ),
    "all others ended": (
        lambda s, other, _: s.sessions.end_others(other, EndReason.REVOKED_BY_USER, CLIENT),
        EndReason.PASSWORD_CHANGED,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_ends_all_sessions_ends_it_everywhere(
    services: Services, two_instances: Services, ada: Identity, name: str
) -> None:
    """Also where Postgres stays away, and once it is back."""
    act, why = ENDINGS[name]
    cut_off, other = services, two_instances
    with postgres_away(cut_off):
        live = log_in(cut_off)
        act(other, log_in(other), live)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                cut_off.sessions.find(live.token)
            other.users.look_up(ada.id)  # the user is copied again, after the change
    for instance in (cut_off, other):
        assert instance.sessions.find(live.token) == EndedSession(why)
    assert rows(services, live) == [(live.record.id, why)]


def test_a_connection_that_is_lost_is_no_postgres_that_is_away(
    services: Services, ada: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, lost = SessionBeginning.begin, [PostgresUnavailable(FailureKind.LOST)]

    def once_lost(*args: Any, **how: Any) -> ActiveSession:
        if lost:
            raise lost.pop()
        return begin(*args, **how)

    monkeypatch.setattr(SessionBeginning, "begin", once_lost)
    live = log_in(services)
    assert live.record.provisional is None
    assert lost == []
    assert rows(services, live) == [(live.record.id, None)]


def test_a_log_in_with_credentials_that_were_changed_meanwhile_gets_none(
    services: Services, two_instances: Services, ada: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were read before the change, and would begin a session after it."""
    begin = services.sessions.begin_or_provisional

    def late(*args: Any, **how: Any) -> ActiveSession:
        two_instances.password_changes.set_password(EMAIL, OTHER_PASSWORD)
        return begin(*args, **how)

    monkeypatch.setattr(services.sessions, "begin_or_provisional", late)
    with postgres_away(services), pytest.raises(StoreUnavailable):
        log_in(services)
    assert [key for key in everything_in(services.redis) if key.startswith(b"sess:")] == []


@pytest.mark.parametrize("lost", ["the session", "the user", "all"])
def test_what_redis_loses_lets_nobody_in(services: Services, ada: Identity, lost: str) -> None:
    with postgres_away(services):
        live = log_in(services)
        match lost:
            case "the session":
                services.redis.delete(session_key(live.token.digest))
            case "the user":
                services.redis.delete(user_key(ada.id))
            case "all":
                services.redis.flushall()
        with pytest.raises(StoreUnavailable):
            services.sessions.find(live.token)
    assert is_live(services, live) is (lost == "the user"), "its copy alone can give it a row"


def kept(services: Services, kind: str) -> dict[str, Any]:
    """The entries of one kind in Redis; all of them were sealed by us."""
    keys = [key.decode() for key in services.redis.scan_iter(f"{kind}:*")]
    return {key: services.redis.hgetall(key) for key in keys}


def put_back(services: Services, copies: dict[str, Any]) -> None:
    """As somebody would who can write to Redis: in place of fences and all."""
    assert copies
    for key, copy in copies.items():
        services.redis.delete(key)
        services.redis.hset(key, mapping=copy)


def test_an_old_password_that_is_put_back_in_redis_opens_nothing_that_outlasts_the_outage(
    services: Services, ada: Identity
) -> None:
    """That it opens something is what docs/security.md warns of."""
    before = kept(services, "cred")
    services.password_changes.set_password(EMAIL, OTHER_PASSWORD)
    put_back(services, before)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    with postgres_away(services):
        services.redis.delete(user_key(ada.id))  # its fence
        put_back(services, before)
        live = log_in(services)
        assert is_live(services, live)
        assert live.record.expires_at - live.record.created_at == LONGEST
    assert services.sessions.find(live.token) == EndedSession(EndReason.PASSWORD_CHANGED)
    put_back(services, before)
    assert is_live(services, log_in(services, password=OTHER_PASSWORD)), "nor does it keep her out"


def test_a_session_that_is_put_back_in_redis_has_ended_when_postgres_is_back(
    services: Services, ada: Identity, clock: Clock
) -> None:
    """As above."""
    live = log_in(services)
    services.sessions.find(live.token)
    before = kept(services, "sess")
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    with postgres_away(services):
        put_back(services, before)
        clock.forward(REVALIDATE)
        assert is_live(services, live)
        clock.forward(IDLE)
        put_back(services, before)
        assert services.sessions.find(live.token) == EndedSession(EndReason.IDLE)
    put_back(services, before)
    assert services.sessions.find(live.token) == EndedSession(EndReason.LOGOUT)


def test_roles_that_are_put_back_in_redis_are_gone_when_postgres_is_back(
    services: Services, two_instances: Services, ada: Identity
) -> None:
    """As above."""
    sign_up(services, "root@example.org")
    grant_role(services, "root@example.org", "admin")
    grant_role(services, EMAIL, "admin")
    services.credentials.find(parse_email(EMAIL))
    with postgres_away(services):
        live = log_in(services)
        before = kept(services, "user")
        revoke_role(two_instances, EMAIL, "admin")
        with pytest.raises(StoreUnavailable):
            services.sessions.find(live.token)
        put_back(services, before)
        found = services.sessions.find(live.token)
        assert isinstance(found, ActiveSession)
        assert found.record.user.roles == ("admin", "user")
    found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert found.record.user.roles == ("user",)


# -- when it gets a row ----------------------------------------------------------------------------


def test_it_gets_its_row_at_the_first_visit_after_postgres_is_back(
    services: Services, two_instances: Services, live: ActiveSession, clock: Clock
) -> None:
    clock.forward(120)
    found = two_instances.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert found.record.provisional is None
    assert found.record.expires_at == live.record.created_at + timedelta(seconds=ABSOLUTE)
    assert found.record.created_at == live.record.created_at
    ((session_id, why),) = rows(services, live)
    assert (session_id, why) == (live.record.id, None)
    (mine,) = services.sessions.of_user(live.record.user.id)
    assert (mine.address, mine.user_agent) == (CLIENT.address, CLIENT.user_agent)
    services.redis.flushall()
    assert is_live(services, live), "durable"
    begun = sql(services, "SELECT at, address FROM audit_events WHERE event = 'session.begun'")
    assert begun == [(live.record.created_at, CLIENT.address)]


def test_remember_me_is_kept(services: Services, ada: Identity) -> None:
    with postgres_away(services):
        live = log_in(services, remember=True)
    found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert found.record.remembered
    assert found.record.expires_at == live.record.created_at + timedelta(days=30)


def test_many_visits_at_once_make_one_row(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    visits = [lambda i=i: i.sessions.find(live.token) for i in (services, two_instances) * 4]
    assert all(isinstance(found, ActiveSession) for found in at_once(*visits))
    assert rows(services, live) == [(live.record.id, None)]
    assert len(sql(services, "SELECT 1 FROM audit_events WHERE event = 'session.begun'")) == 1


def test_the_session_it_replaces_ends(services: Services, ada: Identity) -> None:
    before = log_in(services)
    with postgres_away(services):
        live = log_in(services, replaces=[before.token])
    assert is_live(services, live)
    assert services.sessions.find(before.token) == EndedSession(EndReason.REPLACED)


def test_the_sessions_it_replaces_end_with_a_row_or_without(
    services: Services, ada: Identity
) -> None:
    before = log_in(services)
    with postgres_away(services):
        without = log_in(services)
        live = log_in(services, replaces=[before.token, without.token])
    assert is_live(services, live)
    assert services.sessions.find(before.token) == EndedSession(EndReason.REPLACED)
    assert services.sessions.find(without.token) is None


def test_tokens_of_programs_do_not_count_to_its_cap(
    services: Services, ada: Identity, clock: Clock
) -> None:
    browser = services.sessions.begin(ada.id, 1, CLIENT)
    for _ in range(20):
        clock.forward(1)
        services.sessions.begin_program(ada.id, 1, CLIENT)
    with postgres_away(services):
        live = log_in(services)
    assert is_live(services, live)
    assert is_live(services, browser)
    assert len(services.sessions.of_user(ada.id)) == 22


def test_the_cap_counts_it(services: Services, ada: Identity, clock: Clock) -> None:
    before = []
    for _ in range(20):
        before.append(services.sessions.begin(ada.id, 1, CLIENT))
        clock.forward(1)
    with postgres_away(services):
        live = log_in(services)
    assert is_live(services, live)
    assert [is_live(services, b) for b in before] == [False, *[True] * 19]


def test_without_redis_it_waits(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    """An instance that can't see the copy can't say what it was."""
    services.cache.breaker.recover = nobody_there
    services.cache.breaker.open()
    with pytest.raises(StoreUnavailable):
        services.sessions.find(live.token)
    assert is_live(two_instances, live)


# -- logging out -----------------------------------------------------------------------------------


def test_who_logs_out_before_it_has_a_row_is_out(
    services: Services, two_instances: Services, live: ActiveSession
) -> None:
    services.authentication.log_out(live.token, CLIENT)
    for instance in (services, two_instances):
        assert not is_live(instance, live)
    assert rows(services, live) == []


def test_the_same_by_a_log_in_that_replaces_it(services: Services, live: ActiveSession) -> None:
    again = log_in(services, replaces=[live.token])
    assert not is_live(services, live)
    assert is_live(services, again)


def test_a_log_in_that_replaces_it_and_a_visit_that_gives_it_a_row_do_not_deadlock(
    services: Services, two_instances: Services, ada: Identity
) -> None:
    for _ in range(6):
        with postgres_away(services, two_instances):
            live = log_in(services)
        works: list[Callable[[], object]] = [
            lambda t=live.token: log_in(services, replaces=[t]),  # type: ignore[misc]
            lambda t=live.token: two_instances.sessions.find(t),  # type: ignore[misc]
            lambda t=live.token: services.authentication.log_out_of(  # type: ignore[misc]
                [t, services.tokens.mint()], CLIENT
            ),
        ]
        outcomes = at_once(*works)
        assert [o for o in outcomes if isinstance(o, Exception)] == []
        assert not is_live(services, live)
        assert not is_live(two_instances, live)


def test_while_postgres_is_away_logging_out_is_refused_and_changes_nothing(
    services: Services, ada: Identity
) -> None:
    with postgres_away(services):
        live = log_in(services)
        with pytest.raises(StoreUnavailable):
            services.authentication.log_out(live.token, CLIENT)
        assert is_live(services, live)


@pytest.mark.parametrize("redis", ["there", "away"])
def test_a_visit_in_flight_does_not_revive_it(
    services: Services,
    two_instances: Services,
    live: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
    redis: str,
) -> None:
    """It read the copy, then the person logs out elsewhere, then it would make the row."""
    make, logged_out = SessionLookup._make_durable, Event()

    def late(*args: Any) -> None:
        with ExitStack() as stack:
            if redis == "away":
                breaker = two_instances.cache.breaker
                stack.callback(setattr, breaker, "recover", breaker.recover)
                breaker.recover = nobody_there
                breaker.open()
            two_instances.authentication.log_out(live.token, CLIENT)
        logged_out.set()
        make(*args)

    monkeypatch.setattr(SessionLookup, "_make_durable", late)
    assert not is_live(services, live)
    assert logged_out.is_set()
    monkeypatch.undo()
    await_trust(two_instances)
    for instance in (services, two_instances):
        assert not is_live(instance, live)
    assert rows(services, live) == []
