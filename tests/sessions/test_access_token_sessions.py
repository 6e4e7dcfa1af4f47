"""Sessions that access tokens name, below the web: limits, copies, outages, refresh."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from authapp.config import Config
from authapp.crypto.tokens import RefreshToken
from authapp.errors import InvalidCredentials, NotAuthenticated, StoreUnavailable
from authapp.services import Services
from authapp.sessions.records import (
    ActiveSession,
    EndedSession,
    EndReason,
    IssuedTokens,
    LookupResult,
)
from tests.support.access_tokens import forged, unheard_of
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.threads import at_once
from tests.support.traffic import traffic

NOBODY_LISTENS = "127.0.0.1:1"
ACCESS, IDLE, MONTH = 3_600, 1_800, 2_592_000


@pytest.fixture(autouse=True)
def ada(services: Services) -> UUID:
    return sign_up(services).id


@pytest.fixture
def without_postgres(config: Config, clock: Clock) -> Iterator[Services]:
    """An instance that can't reach Postgres."""
    there = make_config(f"postgresql://nobody@{NOBODY_LISTENS}/none", config.REDIS_URL)
    with open_services(there, clock) as services:
        yield services


@pytest.fixture
def without_redis(config: Config, clock: Clock) -> Iterator[Services]:
    """An instance that can't reach Redis."""
    there = make_config(config.DATABASE_URL, f"redis://{NOBODY_LISTENS}")
    with open_services(there, clock) as services:
        yield services


def issue(services: Services, *, refreshable: bool = False) -> IssuedTokens:
    return services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=refreshable)


def refresh_token(issued: IssuedTokens) -> RefreshToken:
    assert issued.refresh is not None
    return issued.refresh


def refresh(services: Services, issued: IssuedTokens) -> IssuedTokens:
    return services.sessions.refresh(refresh_token(issued), CLIENT)


def find(services: Services, text: str) -> LookupResult:
    """The lookup result of a token that a request brings."""
    token = services.access_tokens.check(text)
    return services.sessions.find(token) if token else None


def is_live(services: Services, issued: IssuedTokens) -> bool:
    return isinstance(find(services, issued.session.token.text), ActiveSession)


def ending(services: Services, issued: IssuedTokens) -> EndReason:
    found = find(services, issued.session.token.text)
    assert isinstance(found, EndedSession)
    return found.why


# -- how long --------------------------------------------------------------------------------------


def test_a_session_without_refresh_lasts_as_long_as_its_token(
    services: Services, clock: Clock
) -> None:
    """Also unused: the program was told how long. Its idle limit is no shorter."""
    live = issue(services)
    assert (live.expires_in, live.refresh) == (ACCESS, None)
    clock.forward(ACCESS - 1)
    assert is_live(services, live)
    clock.forward(1)
    assert services.access_tokens.check(live.session.token.text) is None
    assert services.sessions.of_user(live.session.record.user.id) == []


def test_a_session_with_refresh_stays_one_when_the_setting_changes(
    services: Services, config: Config, clock: Clock
) -> None:
    live = issue(services, refreshable=True)
    changed = make_config(config.DATABASE_URL, config.REDIS_URL, REMEMBER_ME_SECONDS=MONTH // 4)
    with open_services(changed, clock) as after:
        fresh = after.password_changes.change_password(
            live.session, PASSWORD, OTHER_PASSWORD, CLIENT
        ).value
    assert isinstance(fresh, IssuedTokens)
    assert fresh.session.record.remembered
    assert fresh.refresh is not None


def test_a_session_with_refresh_lasts_as_one_that_is_remembered(
    services: Services, clock: Clock
) -> None:
    live = issue(services, refreshable=True)
    for _ in range(2):
        clock.forward(MONTH / 2 - 60)
        live = refresh(services, live)
    assert live.expires_in == 120  # no token outlives its session
    clock.forward(120)
    with pytest.raises(NotAuthenticated):
        refresh(services, live)


def test_a_session_that_nobody_refreshes_ends(services: Services, clock: Clock) -> None:
    live = issue(services, refreshable=True)
    clock.forward(MONTH)
    with pytest.raises(NotAuthenticated):
        refresh(services, live)


def test_refreshing_counts_as_a_visit(services: Services, clock: Clock) -> None:
    live = issue(services, refreshable=True)
    clock.forward(500)
    refresh(services, live)
    (listed,) = services.sessions.of_user(live.session.record.user.id)
    assert listed.last_seen_at == clock()
    assert listed.kind == "api"


# -- what it costs ---------------------------------------------------------------------------------


def test_a_token_costs_one_round_trip(services: Services, two_instances: Services) -> None:
    live = issue(services)
    for instance in (services, two_instances):
        assert is_live(instance, live)
        with traffic() as seen:
            assert is_live(instance, live)
        assert (len(seen.redis), seen.sql) == (1, [])


def test_a_new_token_of_a_session_with_a_fresh_copy_costs_no_sql(services: Services) -> None:
    first = issue(services, refreshable=True)
    assert is_live(services, first)
    second = refresh(services, first)
    assert is_live(services, first)
    with traffic() as seen:
        assert is_live(services, second)
    assert (len(seen.redis), seen.sql) == (1, [])


def test_forged_tokens_cost_no_io(services: Services, clock: Clock) -> None:
    live = issue(services)
    assert is_live(services, live)
    for seconds in (0, 61):  # a copy that is fresh, and one that is not
        clock.forward(seconds)
        with traffic() as seen:
            assert find(services, forged(live.session.token.text)) is None
        assert (seen.redis, seen.sql) == ([], [])
    assert is_live(services, live)


def test_a_dead_token_costs_no_sql_either(services: Services) -> None:
    live = issue(services)
    services.sessions.end(live.session.token, EndReason.LOGOUT, CLIENT)
    assert ending(services, live) is EndReason.LOGOUT
    with traffic() as seen:
        assert ending(services, live) is EndReason.LOGOUT
    assert (len(seen.redis), seen.sql) == (1, [])
    assert find(services, forged(live.session.token.text)) is None  # nor does it tell others why


# -- a store away ----------------------------------------------------------------------------------


def test_without_redis_postgres_answers(services: Services, without_redis: Services) -> None:
    live, ended = issue(services), issue(services)
    services.sessions.end(ended.session.token, EndReason.LOGOUT, CLIENT)
    assert is_live(without_redis, live)
    assert ending(without_redis, ended) is EndReason.LOGOUT
    with traffic() as seen:
        assert find(without_redis, forged(live.session.token.text)) is None
    assert seen.sql == []
    fresh = issue(without_redis, refreshable=True)
    assert is_live(without_redis, refresh(without_redis, fresh))


def test_without_postgres_copies_answer(
    services: Services, without_postgres: Services, clock: Clock
) -> None:
    live, uncopied = issue(services, refreshable=True), issue(services)
    assert is_live(services, live)
    second = refresh(services, live)
    clock.forward(61)
    assert is_live(without_postgres, live)
    assert is_live(without_postgres, second)
    assert find(without_postgres, forged(live.session.token.text)) is None
    with pytest.raises(StoreUnavailable):
        is_live(without_postgres, uncopied)
    with pytest.raises(StoreUnavailable):
        refresh(without_postgres, second)
    assert is_live(services, refresh(services, second))  # that was no use of it


def test_without_postgres_none_begins(services: Services, without_postgres: Services) -> None:
    """Not even for a person known to Redis, although that is enough for a browser."""
    services.authentication.log_in(EMAIL, PASSWORD, CLIENT)
    assert without_postgres.authentication.log_in(
        EMAIL, PASSWORD, CLIENT
    ).session.record.provisional
    with pytest.raises(StoreUnavailable):
        issue(without_postgres)


def test_with_neither_nobody_says_that_it_ended(services: Services, clock: Clock) -> None:
    live = issue(services)
    neither = make_config(f"postgresql://nobody@{NOBODY_LISTENS}/none", f"redis://{NOBODY_LISTENS}")
    with open_services(neither, clock) as lost:
        with pytest.raises(StoreUnavailable):
            is_live(lost, live)
        assert find(lost, forged(live.session.token.text)) is None  # that needs no store


# -- refresh ---------------------------------------------------------------------------------------


def test_of_two_who_refresh_at_once_one_does_and_the_session_ends(
    services: Services, two_instances: Services
) -> None:
    """Nobody can tell which of them is the thief."""
    for _ in range(5):
        live = issue(services, refreshable=True)
        works: list[Callable[[], IssuedTokens]] = [
            lambda live=live: refresh(services, live),  # type: ignore[misc]
            lambda live=live: refresh(two_instances, live),  # type: ignore[misc]
        ]
        outcomes = at_once(*works)
        (won,) = [one for one in outcomes if isinstance(one, IssuedTokens)]
        (lost,) = [one for one in outcomes if not isinstance(one, IssuedTokens)]
        assert isinstance(lost, NotAuthenticated)
        for token in (live, won):
            for instance in (services, two_instances):
                assert ending(instance, token) is EndReason.REFRESH_REUSED
        with pytest.raises(NotAuthenticated):
            refresh(services, won)


def test_a_log_out_and_a_refresh_at_once_leave_no_session(
    services: Services, two_instances: Services
) -> None:
    for _ in range(5):
        live = issue(services, refreshable=True)
        refreshed, _ = at_once(
            lambda live=live: refresh(services, live),  # type: ignore[misc]
            lambda live=live: two_instances.sessions.end(  # type: ignore[misc]
                live.session.token, EndReason.LOGOUT, CLIENT
            ),
        )
        assert not is_live(services, live)
        if isinstance(refreshed, IssuedTokens):
            assert not is_live(services, refreshed)


def test_a_new_password_ends_what_could_be_refreshed(services: Services) -> None:
    live = issue(services, refreshable=True)
    services.password_changes.set_password(EMAIL, "quite another long passphrase")
    with pytest.raises(NotAuthenticated):
        refresh(services, live)
    assert not is_live(services, live)
    with pytest.raises(InvalidCredentials):
        issue(services)


def test_a_row_changed_by_hand_is_refused(services: Services) -> None:
    live = issue(services, refreshable=True)
    sql(services, "UPDATE users SET active = false")
    with pytest.raises(NotAuthenticated):
        refresh(services, live)


def test_the_token_of_a_session_that_is_gone_is_refused(services: Services) -> None:
    live = issue(services, refreshable=True)
    sql(services, "DELETE FROM sessions")
    services.changes.replay()
    assert find(services, live.session.token.text) is None
    assert find(services, unheard_of(live.session.token.text, b"k" * 32)) is None
    with pytest.raises(NotAuthenticated):
        refresh(services, live)


def test_a_refresh_token_is_not_shown_nor_stored(services: Services) -> None:
    live = issue(services, refreshable=True)
    token = refresh_token(live)
    assert token.text not in repr(live)
    assert live.session.token.text not in repr(live)
    ((stored,),) = sql(services, "SELECT refresh_digest FROM sessions")
    assert bytes(stored) == token.digest
