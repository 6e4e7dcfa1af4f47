"""Sessions on both stores: how they begin, are found, last, change and end."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import VersionedCache
from authapp.config import Config
from authapp.errors import InvalidCredentials
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from tests.support.clock import Clock
from tests.support.people import CLIENT, sign_up
from tests.support.services import open_services, sql
from tests.support.sessions import add_sessions, find, is_live
from tests.support.settings import make_config
from tests.support.threads import at_once
from tests.support.traffic import plans, traffic

IDLE, ABSOLUTE, REMEMBER, REVALIDATE = 1_800, 43_200, 2_592_000, 60


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


@pytest.fixture
def bob(services: Services) -> Identity:
    return sign_up(services, "bob@example.org")


@pytest.fixture
def live(services: Services, ada: Identity) -> ActiveSession:
    return begin(services, ada)


def begin(services: Services, user: Identity, **how: Any) -> ActiveSession:
    return services.sessions.begin(user.id, 1, CLIENT, **how)


def begin_program(services: Services, user: Identity) -> ActiveSession:
    return services.sessions.begin_program(user.id, 1, CLIENT).session


BEGIN = {"browser": begin, "api": begin_program}


def data_of(services: Services, live: ActiveSession) -> dict[str, Any]:
    found = find(services, live)
    assert isinstance(found, ActiveSession)
    return found.record.data


def row_of(services: Services, live: ActiveSession, column: str) -> Any:
    ((value,),) = sql(services, f"SELECT {column} FROM sessions WHERE id = :id", id=live.record.id)
    return value


# -- begin -------------------------------------------------------------------------------------


def test_a_session_begins_for_its_user(services: Services, ada: Identity, clock: Clock) -> None:
    live = begin(services, ada)
    record = live.record
    assert (record.user, record.kind, record.data, record.ended_why) == (ada, "browser", {}, None)
    assert record.created_at == record.last_seen_at == clock.now
    assert record.expires_at == clock.now + timedelta(seconds=ABSOLUTE)
    assert services.tokens.check(live.token.text) == live.token
    assert row_of(services, live, "address") == CLIENT.address
    assert row_of(services, live, "user_agent") == CLIENT.user_agent
    assert sql(services, "SELECT event, user_id, details FROM audit_events ORDER BY id DESC")[
        0
    ] == (
        "session.begun",
        ada.id,
        {"kind": "browser"},
    )


def test_every_session_has_a_token_of_its_own(services: Services, ada: Identity) -> None:
    lives = [begin(services, ada) for _ in range(5)]
    assert len({live.token.text for live in lives}) == 5
    assert len({live.token.digest for live in lives}) == 5
    assert all(is_live(services, live) for live in lives)


def test_an_endless_user_agent_is_cut(services: Services, ada: Identity) -> None:
    live = services.sessions.begin(ada.id, 1, Actor(None, "192.0.2.7", "x" * 100_000))
    assert len(row_of(services, live, "user_agent")) == 400


@pytest.mark.parametrize(
    "meanwhile",
    ["UPDATE users SET epoch = epoch + 1", "UPDATE users SET active = false", "DELETE FROM users"],
)
def test_credentials_that_changed_since_they_were_verified_begin_nothing(
    services: Services, ada: Identity, meanwhile: str
) -> None:
    sql(services, meanwhile)
    with pytest.raises(InvalidCredentials):
        begin(services, ada)
    assert sql(services, "SELECT id FROM sessions") == []


def test_a_new_session_ends_the_one_it_replaces(
    services: Services, ada: Identity, bob: Identity
) -> None:
    before = begin(services, ada)
    assert is_live(services, before)
    after = begin(services, bob, replaces=[before.token])  # somebody else on the same device
    assert find(services, before) == EndedSession(EndReason.REPLACED)
    assert is_live(services, after)


def test_what_is_replaced_need_not_be_live(services: Services, ada: Identity) -> None:
    before = begin(services, ada)
    services.sessions.end(before.token, EndReason.LOGOUT, CLIENT)
    begin(services, ada, replaces=[before.token])
    begin(services, ada, replaces=[services.tokens.mint()])
    assert find(services, before) == EndedSession(EndReason.LOGOUT)


def test_a_new_session_ends_all_that_it_replaces(
    services: Services, ada: Identity, bob: Identity
) -> None:
    before = [begin(services, ada), begin(services, bob), begin(services, ada)]
    other = begin(services, bob)
    unknown = services.tokens.mint()
    after = begin(services, ada, replaces=[*(live.token for live in before), unknown])
    assert [find(services, live) for live in before] == [EndedSession(EndReason.REPLACED)] * 3
    assert is_live(services, after)
    assert is_live(services, other)


def test_several_sessions_end_together_or_not_at_all(
    services: Services, ada: Identity, bob: Identity
) -> None:
    lives = [begin(services, ada), begin(services, bob)]
    tokens = [live.token for live in lives]
    end = "CREATE FUNCTION fails() RETURNS trigger AS 'BEGIN RAISE ''no''; END' LANGUAGE plpgsql"
    sql(services, end)
    sql(
        services,
        "CREATE TRIGGER fails BEFORE UPDATE ON sessions FOR EACH ROW"
        f" WHEN (NEW.id = '{lives[1].record.id}') EXECUTE FUNCTION fails()",
    )
    try:
        with pytest.raises(Exception, match="no"):
            services.sessions.end_each(tokens, EndReason.LOGOUT, CLIENT)
    finally:
        sql(services, "DROP FUNCTION fails CASCADE")
    assert all(is_live(services, live) for live in lives)
    services.sessions.end_each(tokens, EndReason.LOGOUT, CLIENT)
    assert [find(services, live) for live in lives] == [EndedSession(EndReason.LOGOUT)] * 2


def test_acts_that_end_the_same_sessions_at_once_do_not_deadlock(
    services: Services, two_instances: Services, ada: Identity, bob: Identity
) -> None:
    """Log-outs and log-ins that name the sessions of two people in different orders, beside
    changes of these people."""
    for _ in range(8):
        lives = [begin(services, user) for user in (ada, bob, ada, bob)]
        tokens = [live.token for live in lives]
        kept = begin(services, ada)
        works: list[Callable[[], object]] = [
            lambda t=tokens: services.sessions.end_each(t, EndReason.LOGOUT, CLIENT),  # type: ignore[misc]
            lambda t=tokens[::-1]: two_instances.sessions.end_each(t, EndReason.LOGOUT, CLIENT),  # type: ignore[misc]
            lambda t=tokens: begin(services, bob, replaces=t),  # type: ignore[misc]
            lambda t=tokens[::-1]: begin(two_instances, ada, replaces=t),  # type: ignore[misc]
            lambda: services.users.update_profile(ada.id, "Ada", None, CLIENT),
            lambda: two_instances.users.update_profile(bob.id, "Bob", None, CLIENT),
        ]
        outcomes = at_once(*works)
        assert [o for o in outcomes if isinstance(o, Exception)] == []
        assert not any(is_live(services, live) for live in lives)
        assert is_live(services, kept)
        services.sessions.end(kept.token, EndReason.LOGOUT, CLIENT)


# -- find --------------------------------------------------------------------------------------


def test_an_unknown_token_has_no_session(services: Services, live: ActiveSession) -> None:
    assert services.sessions.find(services.tokens.mint()) is None


def test_a_fresh_copy_costs_one_command_and_no_sql(services: Services, live: ActiveSession) -> None:
    assert is_live(services, live)
    with traffic() as seen:
        found = find(services, live)
    assert isinstance(found, ActiveSession)
    assert found.record.user == live.record.user
    assert (len(seen.redis), seen.sql) == (1, [])
    assert b"acquire" in seen.redis[0]


def be_ended(services: Services, live: ActiveSession, _clock: Clock) -> None:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)


def stay_away(_services: Services, _live: ActiveSession, clock: Clock) -> None:
    clock.forward(IDLE + REVALIDATE)


def outlast(_services: Services, _live: ActiveSession, clock: Clock) -> None:
    clock.forward(ABSOLUTE)


ENDS = {EndReason.LOGOUT: be_ended, EndReason.IDLE: stay_away, EndReason.ABSOLUTE: outlast}


@pytest.mark.parametrize(("why", "end"), ENDS.items(), ids=ENDS)
def test_an_ended_copy_costs_no_sql_either(
    services: Services,
    live: ActiveSession,
    clock: Clock,
    why: EndReason,
    end: Callable[[Services, ActiveSession, Clock], None],
) -> None:
    """However long ago it ended."""
    end(services, live, clock)
    for _ in range(2):
        assert find(services, live) == EndedSession(why)
        with traffic() as seen:
            assert find(services, live) == EndedSession(why)
        assert (len(seen.redis), seen.sql) == (1, [])
        clock.forward(3 * REVALIDATE)


def test_copy_and_facts_tell_the_same(
    services: Services, live: ActiveSession, ada: Identity
) -> None:
    services.sessions.patch(live, {"cart": [1, {"a": None}]}, [])
    cold, warm = find(services, live), find(services, live)
    assert cold == warm
    assert isinstance(warm, ActiveSession)
    assert warm.record.user == ada


def test_a_cold_read_is_filled_once(services: Services, live: ActiveSession) -> None:
    services.redis.ping()  # is connected
    with traffic() as seen:
        find(services, live)
    assert len(seen.redis) == 2  # acquire, fill
    assert not [statement for statement in seen.sql if statement.startswith("UPDATE")]


def test_nothing_is_written_until_a_copy_is_old(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    find(services, live)
    clock.forward(REVALIDATE - 1)
    with traffic() as seen:
        find(services, live)
    assert seen.sql == []


def test_an_old_copy_is_revalidated_and_the_visit_noted(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    find(services, live)
    clock.forward(REVALIDATE)
    with traffic() as seen:
        found = find(services, live)
    assert isinstance(found, ActiveSession)
    assert found.record.last_seen_at == found.record.checked_at == clock.now
    assert row_of(services, live, "last_seen_at") == clock.now
    assert [s.split()[0] for s in seen.sql if not s.startswith("SELECT")] == ["UPDATE"]
    with traffic() as seen:
        assert find(services, live) == found
    assert (len(seen.redis), seen.sql) == (1, [])


def test_facts_changed_by_hand_are_seen_at_the_next_revalidation(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    find(services, live)
    sql(services, "UPDATE users SET name = 'Countess'")
    clock.forward(REVALIDATE)
    found = find(services, live)
    assert isinstance(found, ActiveSession)
    assert found.record.user.name == "Countess"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE users SET active = false", EndReason.DEACTIVATED),
        ("UPDATE users SET epoch = epoch + 1", EndReason.CHANGED_IN_SQL),
    ],
)
def test_a_session_never_outlives_the_trust_it_was_begun_with(
    services: Services, live: ActiveSession, clock: Clock, change: str, why: EndReason
) -> None:
    find(services, live)
    sql(services, change)
    clock.forward(REVALIDATE)
    assert find(services, live) == EndedSession(why)


def test_a_session_whose_user_is_gone_is_none(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    find(services, live)
    sql(services, "DELETE FROM users")
    clock.forward(REVALIDATE)
    assert find(services, live) is None


@pytest.mark.parametrize(
    "lose",
    [
        lambda client: client.flushall(),
        lambda client: client.function_flush("SYNC"),
        lambda client: client.script_flush(),
        lambda client: [client.delete(key) for key in client.scan_iter("sess:*")],
        lambda client: [client.hset(key, "v", b"planted") for key in client.scan_iter("sess:*")],
        lambda client: [client.hset(key, "b", b"another") for key in client.scan_iter("sess:*")],
    ],
    ids=["keys", "functions", "scripts", "sessions", "planted", "other boot"],
)
def test_whatever_redis_loses_nobody_is_logged_out(
    services: Services,
    ada: Identity,
    redis_client: redis.Redis,
    lose: Callable[[redis.Redis], None],
) -> None:
    kept, ended = begin(services, ada), begin(services, ada)
    services.sessions.patch(kept, {"cart": 1}, [])
    services.sessions.end(ended.token, EndReason.LOGOUT, CLIENT)
    find(services, kept)
    find(services, ended)
    lose(redis_client)
    assert data_of(services, kept) == {"cart": 1}
    assert find(services, ended) == EndedSession(EndReason.LOGOUT)
    with traffic() as seen:
        assert is_live(services, kept)
    assert (len(seen.redis), seen.sql) == (1, []), "the copy was not made anew"


def test_the_copy_of_another_session_does_not_open(
    services: Services, live: ActiveSession, bob: Identity, redis_client: redis.Redis
) -> None:
    other = begin(services, bob)
    find(services, live)
    find(services, other)
    stolen = redis_client.hgetall(session_key(other.token.digest))
    assert isinstance(stolen, dict)
    redis_client.hset(session_key(live.token.digest), mapping=stolen)
    found = find(services, live)
    assert isinstance(found, ActiveSession)
    assert found.record.user == live.record.user


def test_a_copy_is_small(services: Services) -> None:
    """On a server with default settings: 700 bytes, with a name, an email and three roles."""
    email = parse_email("ada.lovelace@example.org")
    roles = {"user", "auditor", "staff"}
    sql(services, "INSERT INTO roles VALUES (10, 'auditor', '{audit:read}'), (11, 'staff', '{}')")
    try:
        user = services.users.create(email, "Ada King, Countess of Lovelace", "x" * 60, roles)
        live = begin(services, user)
        found = find(services, live)
        assert isinstance(found, ActiveSession)
        assert set(found.record.user.roles) == roles
        used: Any = services.redis.memory_usage(session_key(live.token.digest), samples=0)
        assert used <= 700 - 64, "the server's two tables of keys need room, too"
    finally:
        sql(services, "DELETE FROM user_roles WHERE role_id IN (10, 11)")
        sql(services, "DELETE FROM roles WHERE id IN (10, 11)")


def test_no_statement_looks_at_all_sessions(
    services: Services, ada: Identity, bob: Identity, clock: Clock
) -> None:
    """The statements of a request or a log-in cost the same however many people there are."""
    add_sessions(services, bob.id, 3_000, clock.now)
    with plans("sessions") as seen:
        live = begin(services, ada)
        more = [begin(services, ada).token for _ in range(2)]
        other = begin(services, ada, replaces=[live.token, *more])
        services.sessions.end_each(more, EndReason.LOGOUT, CLIENT)
        assert is_live(services, other)
        clock.forward(REVALIDATE)
        assert is_live(services, other)
        assert services.sessions.patch(other, {"a": 1}, []).value
        assert len(services.sessions.of_user(ada.id)) == 1
        renewed = services.sessions.regenerate(other, CLIENT).value
        assert renewed is not None
        services.sessions.end_one(ada.id, renewed.record.id, EndReason.REVOKED_BY_USER, CLIENT)
        services.sessions.end(begin(services, ada).token, EndReason.LOGOUT, CLIENT)
        issued = services.sessions.begin_program(ada.id, 1, CLIENT, refreshable=True)
        assert issued.refresh is not None
        services.sessions.refresh(issued.refresh, CLIENT)
        services.sessions.end_others(begin(services, ada), EndReason.REVOKED_BY_USER, CLIENT)
        services.administration.end_sessions_of(ada.id, OPERATOR)
    assert len(seen) > 20
    assert [plan for plan in seen if "Seq Scan on sessions" in plan] == []


# -- how long it lasts -------------------------------------------------------------------------


def test_who_is_idle_too_long_is_logged_out(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    find(services, live)
    clock.forward(IDLE - 1)
    assert is_live(services, live)
    clock.forward(IDLE + REVALIDATE)  # a visit may be noted late by one revalidation, no more
    assert find(services, live) == EndedSession(EndReason.IDLE)
    clock.forward(1)
    assert find(services, live) == EndedSession(EndReason.IDLE)


def test_nobody_is_found_idle_early(services: Services, live: ActiveSession, clock: Clock) -> None:
    """The copy was filled again shortly before the last visit, which the copy alone can't note."""
    clock.forward(29)  # less than half a revalidation, so the facts don't note it
    services.sessions.patch(live, {"a": 1}, [])  # drops the copy
    assert is_live(services, live)
    clock.forward(59)  # 88
    assert is_live(services, live)
    clock.forward(IDLE - 1)
    assert is_live(services, live)


@pytest.mark.parametrize("pause", [29, 59, 61, IDLE // 2, IDLE - 1, IDLE])
def test_who_keeps_coming_stays_until_the_absolute_limit(
    config: Config, clock: Clock, pause: int
) -> None:
    short = make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_ABSOLUTE_SECONDS=3_700)
    with open_services(short, clock) as services:
        live = begin(services, sign_up(services))
        while clock.now + timedelta(seconds=pause) < live.record.expires_at:
            clock.forward(pause)
            assert is_live(services, live), f"out after {clock.now - live.record.created_at}"
        clock.now = live.record.expires_at - timedelta(milliseconds=1)
        assert is_live(services, live)
        with traffic() as seen:
            clock.now = live.record.expires_at
            assert find(services, live) == EndedSession(EndReason.ABSOLUTE)
        assert seen.sql == [], "a fresh copy knows the limit by itself"


def test_remembered_on_this_device(services: Services, ada: Identity, clock: Clock) -> None:
    live = begin(services, ada, remember=True)
    assert live.record.remembered
    assert not begin(services, ada).record.remembered
    clock.forward(ABSOLUTE + IDLE)
    assert is_live(services, live)
    clock.forward(REMEMBER - ABSOLUTE - IDLE - 1)
    assert is_live(services, live)
    clock.forward(1)
    assert find(services, live) == EndedSession(EndReason.ABSOLUTE)


def test_a_late_visit_to_an_expired_session_is_not_noted(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    clock.forward(IDLE + REVALIDATE)
    find(services, live)
    assert row_of(services, live, "last_seen_at") == live.record.last_seen_at


# -- patch -------------------------------------------------------------------------------------


def test_keys_are_saved_and_removed_one_by_one(services: Services, live: ActiveSession) -> None:
    assert services.sessions.patch(live, {"a": 1, "b": [2], "c": {"d": None}}, []).value
    assert services.sessions.patch(live, {"b": "two"}, ["a", "never there"]).value
    assert data_of(services, live) == {"b": "two", "c": {"d": None}}
    assert services.sessions.patch(live, {}, ["b", "c"]).value
    assert data_of(services, live) == {}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ünï \N{PILE OF POO}",
        "it's",
        "%s :x {y}",
        0,
        -1,
        1.5,
        2**53,
        True,
        None,
        [],
        {},
        [[{}]],
        r"\u0000",
    ],
)
def test_values_come_back_as_they_were(
    services: Services, live: ActiveSession, value: object
) -> None:
    key = "a 'key' % :of \"any\" kind"
    services.sessions.patch(live, {key: value}, [])
    for _ in ("from the facts", "from the copy"):
        assert data_of(services, live) == {key: value}
    services.sessions.patch(live, {}, [key])
    assert data_of(services, live) == {}


def test_parallel_requests_lose_none_of_their_keys(services: Services, live: ActiveSession) -> None:
    find(services, live)

    def save(number: int) -> Callable[[], bool]:
        def run() -> bool:
            saved = services.sessions.patch(live, {f"k{number}": number}, []).value
            find(services, live)
            last = services.sessions.patch(live, {"last": number}, [f"r{number}"])
            return saved and last.value

        return run

    services.sessions.patch(live, {f"r{n}": n for n in range(8)}, [])
    assert at_once(*[save(number) for number in range(8)]) == [True] * 8
    data = data_of(services, live)
    assert data.pop("last") in range(8)
    assert data == {f"k{number}": number for number in range(8)}


@pytest.mark.parametrize("copied", [True, False])
def test_a_patch_revives_nothing(services: Services, live: ActiveSession, copied: bool) -> None:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    if copied:
        find(services, live)
    version = row_of(services, live, "ver")
    assert services.sessions.patch(live, {"a": 1}, ["b"]).value is False
    assert find(services, live) == EndedSession(EndReason.LOGOUT)
    assert row_of(services, live, "data") == {}
    assert row_of(services, live, "ver") == version


def test_a_patch_touches_only_its_session(
    services: Services, ada: Identity, live: ActiveSession
) -> None:
    other = begin(services, ada)
    services.sessions.patch(live, {"a": 1}, [])
    assert data_of(services, other) == {}


@pytest.mark.parametrize(
    "value",
    ["a\0b", "\\\0", "\ud800", "b\udfff", ["\0"], {"k": ["\ud800"]}, {"\0": 1}, {"\ud800": 1}],
    ids=ascii,
)
def test_text_that_can_not_be_stored_is_refused_by_its_key(
    services: Services, live: ActiveSession, value: object
) -> None:
    with pytest.raises(ValueError, match=r"^session\['note'\] holds"):
        services.sessions.patch(live, {"fine": 1, "note": value}, [])
    assert data_of(services, live) == {}


@pytest.mark.parametrize("key", ["\0", "\ud800"], ids=ascii)
def test_a_key_that_can_not_be_stored_is_refused(
    services: Services, live: ActiveSession, key: str
) -> None:
    with pytest.raises(ValueError, match=r"^session\['\\(x00|ud800)'\] holds"):
        services.sessions.patch(live, {key: 1}, [])
    assert data_of(services, live) == {}


# -- end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", list(EndReason))
def test_an_ended_session_tells_why(
    services: Services, live: ActiveSession, why: EndReason
) -> None:
    find(services, live)
    services.sessions.end(live.token, why, CLIENT)
    assert find(services, live) == EndedSession(why)  # from the facts
    assert find(services, live) == EndedSession(why)  # from the copy


def test_the_first_reason_stays(services: Services, live: ActiveSession) -> None:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    services.sessions.end(live.token, EndReason.REVOKED_BY_ADMIN, CLIENT)
    services.sessions.end(services.tokens.mint(), EndReason.LOGOUT, CLIENT)
    assert find(services, live) == EndedSession(EndReason.LOGOUT)
    events = sql(services, "SELECT details FROM audit_events WHERE event = 'session.ended'")
    assert events == [({"why": "logout"},)]


def test_people_end_only_sessions_of_their_own(
    services: Services, ada: Identity, bob: Identity
) -> None:
    mine, theirs = begin(services, ada), begin(services, bob)
    end_one = services.sessions.end_one
    assert not end_one(ada.id, theirs.record.id, EndReason.REVOKED_BY_USER, CLIENT).value
    assert not end_one(ada.id, uuid4(), EndReason.REVOKED_BY_USER, CLIENT).value
    assert is_live(services, theirs)
    assert end_one(ada.id, mine.record.id, EndReason.REVOKED_BY_USER, CLIENT).value
    assert find(services, mine) == EndedSession(EndReason.REVOKED_BY_USER)
    assert not end_one(ada.id, mine.record.id, EndReason.REVOKED_BY_USER, CLIENT).value


def test_all_others_end(services: Services, ada: Identity, bob: Identity) -> None:
    this, *others = [begin(services, ada) for _ in range(4)]
    somebody = begin(services, bob)
    services.sessions.end(others[0].token, EndReason.LOGOUT, CLIENT)
    for live in (this, somebody, *others):
        find(services, live)
    assert services.sessions.end_others(this, EndReason.REVOKED_BY_USER, CLIENT).value == 2
    assert is_live(services, this)
    assert is_live(services, somebody)
    assert find(services, others[0]) == EndedSession(EndReason.LOGOUT)
    for live in others[1:]:
        assert find(services, live) == EndedSession(EndReason.REVOKED_BY_USER)


def test_all_end(services: Services, ada: Identity, bob: Identity) -> None:
    lives, somebody = [begin(services, ada) for _ in range(3)], begin(services, bob)
    with services.changes.begin() as change:
        user = services.users.lock(change, ada.id, 1)
        assert services.sessions.end_all(change, user, EndReason.REVOKED_BY_ADMIN) == 3
    assert {find(services, live) for live in lives} == {EndedSession(EndReason.REVOKED_BY_ADMIN)}
    assert is_live(services, somebody)


def test_a_log_out_while_a_reader_holds_a_lease_is_final(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader saw the session live, and fills its copy only after the log-out."""
    fill, outcomes = VersionedCache.fill, []

    def log_out_first(cache: VersionedCache, *args: Any) -> Any:
        monkeypatch.undo()
        services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
        outcomes.append(fill(cache, *args))
        return outcomes[-1]

    monkeypatch.setattr(VersionedCache, "fill", log_out_first)
    find(services, live)
    assert outcomes in (["lease"], ["fence"])
    assert find(services, live) == EndedSession(EndReason.LOGOUT)


@pytest.mark.parametrize("later", [0, REVALIDATE])
def test_a_log_out_while_a_reader_reads_the_facts_is_final(
    services: Services,
    live: ActiveSession,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    later: int,
) -> None:
    """The reader got its lease before the log-out, and the facts after it or before it."""
    if later:
        find(services, live)
        clock.forward(later)
    read = VersionedCache._acquired

    def log_out_after(cache: VersionedCache, *args: Any, **how: Any) -> Any:
        acquired = read(cache, *args, **how)
        if acquired.lease:
            monkeypatch.undo()
            services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
        return acquired

    monkeypatch.setattr(VersionedCache, "_acquired", log_out_after)
    assert find(services, live) == EndedSession(EndReason.LOGOUT)
    assert find(services, live) == EndedSession(EndReason.LOGOUT)


def test_readers_never_see_a_session_again_after_its_end(services: Services, ada: Identity) -> None:
    for _ in range(5):
        live, ended = begin(services, ada), Event()
        works = [partial(log_out, services, live, ended)]
        works += [partial(count_revivals, services, live, ended)] * 3
        assert at_once(*works) == [0] * 4
        assert find(services, live) == EndedSession(EndReason.LOGOUT)


def log_out(services: Services, live: ActiveSession, ended: Event) -> int:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    ended.set()
    return 0


def count_revivals(services: Services, live: ActiveSession, ended: Event) -> int:
    revivals = 0
    for _ in range(30):
        was_ended = ended.is_set()
        revivals += is_live(services, live) and was_ended
    return revivals


# -- a new token -------------------------------------------------------------------------------


def test_a_regenerated_session_goes_on_under_a_new_token(
    services: Services, ada: Identity, clock: Clock
) -> None:
    live = begin(services, ada, remember=True)
    services.sessions.patch(live, {"cart": 1}, [])  # not known to `live`
    find(services, live)
    clock.forward(100)
    fresh = services.sessions.regenerate(live, CLIENT).value
    assert fresh is not None
    assert fresh.token != live.token
    assert fresh.record.data == {"cart": 1}
    assert fresh.record.expires_at == live.record.expires_at
    assert fresh.record.remembered
    assert find(services, live) == EndedSession(EndReason.REPLACED)
    assert data_of(services, fresh) == {"cart": 1}


def test_an_ended_session_is_not_regenerated(services: Services, live: ActiveSession) -> None:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
    assert services.sessions.regenerate(live, CLIENT).value is None
    assert sql(services, "SELECT count(*) FROM sessions") == [(1,)]


def test_a_session_that_lost_its_trust_is_not_regenerated(
    services: Services, live: ActiveSession, clock: Clock
) -> None:
    """As one that began while Postgres was away: the row is not ended, yet it is not live."""
    sql(services, "SET LOCAL authapp.fenced = 'on'; UPDATE users SET epoch = epoch + 1")
    clock.forward(REVALIDATE)
    assert services.sessions.regenerate(live, CLIENT).value is None
    assert sql(services, "SELECT count(*) FROM sessions") == [(1,)]
    assert find(services, live) == EndedSession(EndReason.PASSWORD_CHANGED)


def test_the_session_of_a_program_never_becomes_a_browser_s(
    services: Services, ada: Identity
) -> None:
    program = begin_program(services, ada)
    assert services.sessions.regenerate(program, CLIENT).value is None
    assert is_live(services, program)
    assert sql(services, "SELECT kind FROM sessions") == [("api",)]


def test_of_two_that_regenerate_at_once_one_wins(services: Services, live: ActiveSession) -> None:
    outcomes = at_once(*[lambda: services.sessions.regenerate(live, CLIENT).value] * 2)
    assert sorted(type(o).__name__ for o in outcomes) == ["ActiveSession", "NoneType"]


# -- how many ----------------------------------------------------------------------------------


def test_the_oldest_session_makes_room(config: Config, clock: Clock) -> None:
    three = make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_MAX_PER_USER=3)
    with open_services(three, clock) as services:
        ada, bob = sign_up(services), sign_up(services, "bob@example.org")
        somebody = begin(services, bob)
        lives = []
        for _ in range(5):
            lives.append(begin(services, ada))
            find(services, lives[-1])
            clock.forward(1)
        assert [find(services, live) for live in lives[:2]] == [
            EndedSession(EndReason.EVICTED_BY_CAP)
        ] * 2
        assert all(is_live(services, live) for live in [*lives[2:], somebody])
        services.sessions.end(lives[2].token, EndReason.LOGOUT, CLIENT)
        begin(services, ada)
        assert all(is_live(services, live) for live in lives[3:])


@pytest.mark.parametrize(("kind", "other"), [("browser", "api"), ("api", "browser")])
def test_each_kind_of_session_has_a_cap_of_its_own(
    config: Config, clock: Clock, kind: str, other: str
) -> None:
    """Else a program that asks for tokens signs its owner out of the browser."""
    two = make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_MAX_PER_USER=2)
    with open_services(two, clock) as services:
        ada = sign_up(services)
        mine = [BEGIN[kind](services, ada).record.id for _ in range(2)]
        others = []
        for _ in range(4):
            clock.forward(1)
            others.append(BEGIN[other](services, ada).record.id)
        with traffic() as seen:
            BEGIN[other](services, ada)
        selects = [one for one in seen.sql if one.startswith("SELECT authapp_data.sessions")]
        assert len(selects) == 1, "one statement looks for what must make room"
        living = {summary.id for summary in services.sessions.of_user(ada.id)}
        assert living >= set(mine)
        assert others[-1] in living
        assert len(living) == 4


def test_sessions_that_begin_at_once_keep_to_the_cap(config: Config, clock: Clock) -> None:
    two = make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_MAX_PER_USER=2)
    with open_services(two, clock) as services:
        ada = sign_up(services)
        outcomes = at_once(*[lambda: begin(services, ada)] * 6)
        assert [type(outcome) for outcome in outcomes] == [ActiveSession] * 6
        assert len(services.sessions.of_user(ada.id)) == 2


def test_a_new_session_fits_where_one_is_replaced(config: Config, clock: Clock) -> None:
    two = make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_MAX_PER_USER=2)
    with open_services(two, clock) as services:
        ada = sign_up(services)
        first = begin(services, ada)
        clock.forward(1)
        second = begin(services, ada)
        begin(services, ada, replaces=[second.token])
        assert is_live(services, first)


# -- the list ----------------------------------------------------------------------------------


def listed(services: Services, user: Identity) -> list[UUID]:
    return [summary.id for summary in services.sessions.of_user(user.id)]


def test_people_see_their_live_sessions(
    services: Services, ada: Identity, bob: Identity, clock: Clock
) -> None:
    remembered = begin(services, ada, remember=True)
    idle, ended = begin(services, ada), begin(services, ada)
    begin(services, bob)
    services.sessions.end(ended.token, EndReason.LOGOUT, CLIENT)
    clock.forward(IDLE)
    recent = begin_program(services, ada)
    older = sorted([remembered.record.id, idle.record.id])
    assert listed(services, ada) == [recent.record.id, *older]
    clock.forward(REVALIDATE)
    assert listed(services, ada) == [recent.record.id, remembered.record.id]
    clock.forward(1)
    find(services, remembered)
    assert listed(services, ada) == [remembered.record.id, recent.record.id]
    first = services.sessions.of_user(ada.id)[0]
    assert (first.kind, first.address) == ("browser", CLIENT.address)
    assert first.last_seen_at == clock.now
    clock.forward(REMEMBER)
    assert listed(services, ada) == []


@pytest.mark.parametrize(
    ("elapsed", "live"),
    [(IDLE, True), (IDLE + REVALIDATE - 1, True), (IDLE + REVALIDATE, False), (ABSOLUTE, False)],
)
def test_the_list_agrees_with_what_is_found(
    services: Services, ada: Identity, clock: Clock, elapsed: int, live: bool
) -> None:
    session = begin(services, ada)
    clock.forward(elapsed)
    assert (listed(services, ada) == [session.record.id]) is live
    assert is_live(services, session) is live
