"""The audit log: who did what to whom, from where; newest first, part by part."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.audit import EVENTS, Entry, Filter, read_filter
from authapp.accounts.emails import parse_email
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.errors import InvalidCredentials, InvalidField, TooManyAttempts
from authapp.services import Services
from authapp.sessions.records import EndReason
from tests.support.clock import Clock
from tests.support.hashing import hashing
from tests.support.people import (
    CLIENT,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    grant_role,
    log_in,
    sign_up,
)
from tests.support.services import sql
from tests.support.threads import at_once
from tests.support.traffic import plans, traffic

ROOT = "root@example.org"


def entries(services: Services, **of: object) -> list[Entry]:
    services.refused_attempts.flush()
    return services.audit.page(limit=200, which=Filter(**of)).entries  # type: ignore[arg-type]


def told(entry: Entry) -> tuple[str, str | None, str | None, str]:
    user, actor = (person.email if person else None for person in (entry.user, entry.actor))
    return entry.event, user, actor, entry.address


def add(services: Services, count: int, user_id: UUID | None = None) -> None:
    with services.database.transaction() as db:
        for number in range(count):
            at = services.refused_attempts._clock()
            audit.record(db, EVENTS[number % 3], at, user_id=user_id, actor=OPERATOR, number=number)


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 25])
def test_all_events_are_read_once_newest_first(services: Services, count: int) -> None:
    add(services, count)
    seen: list[int] = []
    cursor, pages = None, 0
    while True:
        page = services.audit.page(cursor, limit=10)
        seen += [entry.details["number"] for entry in page.entries]
        pages += 1
        if (cursor := page.next_cursor) is None:
            break
        assert len(page.entries) == 10
    assert seen == list(reversed(range(count)))
    assert pages == max(1, -(-count // 10))


def test_what_happens_while_somebody_reads_shifts_nothing(services: Services) -> None:
    add(services, 15)
    first = services.audit.page(limit=10)
    add(services, 5)
    second = services.audit.page(first.next_cursor, limit=10)
    assert [entry.details["number"] for entry in second.entries] == [4, 3, 2, 1, 0]


def test_events_are_ordered_by_the_time_of_the_event(services: Services, clock: Clock) -> None:
    """A refused attempt is recorded later than acts that came after it."""
    began = clock.now
    for number in (0, 3, 1, 2, 2):
        clock.now = began + timedelta(seconds=number)
        add(services, 1)
    cursor, seen = None, []
    while True:
        page = services.audit.page(cursor, limit=2)
        seen += [(entry.at - began).seconds for entry in page.entries]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [3, 2, 2, 1, 0]


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1_-1", "1.5_1", "٣_٣", f"{'9' * 18}_1", "1_1 ", "1_1;DROP TABLE users"]
)
def test_a_cursor_that_is_none(services: Services, cursor: str) -> None:
    with pytest.raises(InvalidField) as refused:
        services.audit.page(cursor)
    assert set(refused.value.errors) == {"cursor"}


def test_events_of_one_user_or_of_one_kind(services: Services) -> None:
    ada, bob = sign_up(services), sign_up(services, "bob@example.org")
    log_in(services)
    of_ada = entries(services, user_ids=[ada.id])
    assert [entry.event for entry in of_ada] == ["session.begun", "user.created"]
    assert {entry.user.id for entry in of_ada if entry.user} == {ada.id}
    created = entries(services, event="user.created")
    assert [entry.user.id for entry in created if entry.user] == [bob.id, ada.id]
    both = entries(services, user_ids=[bob.id], event="user.created")
    assert [entry.user.id for entry in both if entry.user] == [bob.id]
    assert entries(services, user_ids=[uuid4()]) == []
    assert entries(services, event="password.set") == []
    assert entries(services, user_ids=[]) == []
    assert len(entries(services, user_ids=[ada.id, bob.id])) == 3


def test_people_are_named_as_today_and_may_be_gone(services: Services, clock: Clock) -> None:
    ada, root = sign_up(services), sign_up(services, ROOT)
    grant_role(services, ROOT, "admin")
    services.administration.set_roles(ada.id, ["admin"], Actor(root.id, "192.0.2.9"))
    (entry,) = entries(services, event="roles.set")
    assert told(entry) == ("roles.set", EMAIL, ROOT, "192.0.2.9")
    assert (entry.at, entry.details) == (clock.now, {"roles": ["admin"]})
    services.users.update_profile(ada.id, "Ada King", None, CLIENT)
    (entry,) = entries(services, event="roles.set")
    assert entry.user
    assert entry.user.name == "Ada King"
    sql(services, "DELETE FROM users WHERE email = :email", email=ROOT)
    (entry,) = entries(services, event="roles.set")
    assert told(entry) == ("roles.set", EMAIL, None, "192.0.2.9")
    sql(services, "DELETE FROM users")
    (entry,) = entries(services, event="roles.set")
    assert told(entry) == ("roles.set", None, None, "192.0.2.9")


@pytest.mark.parametrize(
    ("of", "index"),
    [
        ({}, "ix_audit_events_at_id"),
        ({"user_ids": [UUID(int=7)]}, "ix_audit_events_user_id_at_id"),
        ({"event": "password.set"}, "ix_audit_events_event_at_id"),
        ({"address": "192.0.2.7"}, "ix_audit_events_address_at_id"),
        ({"email": parse_email("nobody@example.org")}, "ix_audit_events_email_hash_at_id"),
        ({"since": datetime(2031, 5, 4, tzinfo=UTC)}, "ix_audit_events_at_id"),
    ],
    ids=["all", "user", "event", "address", "email", "since"],
)
def test_a_page_is_read_by_an_index(services: Services, of: dict[str, object], index: str) -> None:
    """Whatever the log has grown to, a page costs its own rows."""
    sql(
        services,
        "INSERT INTO audit_events (at, event) SELECT now(), 'session.begun'"
        " FROM generate_series(1, 20000)",
    )
    sql(services, "ANALYZE audit_events")
    # few rows may be sorted; that they need not be shows without sorting
    sql(services, "ALTER ROLE CURRENT_USER SET enable_sort = off")
    services.database.close()
    try:
        with plans("FROM authapp_data.audit_events") as found:
            entries(services, **of)
    finally:
        sql(services, "ALTER ROLE CURRENT_USER RESET enable_sort")
        services.database.close()
    (plan,) = found
    assert index in plan
    assert "Seq Scan on audit_events" not in plan
    assert "Sort" not in plan


NOW = datetime(2031, 5, 4, 12, tzinfo=UTC)
TIMES = {
    "": None,
    "15m": NOW - timedelta(minutes=15),
    "90s": NOW - timedelta(seconds=90),
    "2 h": NOW - timedelta(hours=2),
    "7d": NOW - timedelta(days=7),
    "2w": NOW - timedelta(weeks=2),
    "2031-05-03": datetime(2031, 5, 3, tzinfo=UTC),
    "2031-05-03 10:30": datetime(2031, 5, 3, 10, 30, tzinfo=UTC),
    "2031-05-03T10:30:07Z": datetime(2031, 5, 3, 10, 30, 7, tzinfo=UTC),
    "2031-05-03T10:30+02:00": datetime(2031, 5, 3, 8, 30, tzinfo=UTC),
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_read(text: str) -> None:
    assert read_filter("", "", text, NOW).since == TIMES[text]


@pytest.mark.parametrize(
    "text",
    ["yesterday", "7", "d", "-1d", "999999w", "٣d", "2031-13-01", "0001-01-01T00:00+14:00", "\0"],
)
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(InvalidField, match="since: write a time in UTC, like"):
        read_filter("", "", text, NOW)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_an_address_is_read_in_any_spelling(text: str, address: str) -> None:
    assert read_filter("", text, "", NOW).address == address


def test_all_that_can_not_be_read_is_told_at_once() -> None:
    with pytest.raises(InvalidField) as refused:
        read_filter("login.fialed", "192.0.2", "x", NOW)
    assert set(refused.value.errors) == {"event", "address", "since"}
    assert "login.failed" in refused.value.errors["event"]


def test_events_by_address_time_and_email(services: Services, clock: Clock) -> None:
    sign_up(services)
    here, there = CLIENT, replace(CLIENT, address="2001:db8::7")
    for client in (here, there):
        fail(services, "nobody@example.org", client)
        services.refused_attempts.flush()
        clock.forward(60)
    fail(services, "else@example.org", there)
    assert len(entries(services, address="2001:db8::7")) == 2
    nobody = parse_email("nobody@example.org")
    assert len(entries(services, email=nobody)) == 2
    assert len(entries(services, email=nobody, address=here.address)) == 1
    assert len(entries(services, since=clock.now - timedelta(seconds=60))) == 2
    assert entries(services, email=parse_email("third@example.org")) == []


# -- what is recorded ------------------------------------------------------------------------------


def test_signing_up_is_ones_own_act_unless_an_operator_adds_one(services: Services) -> None:
    services.registration.sign_up_from(CLIENT, EMAIL, PASSWORD)
    services.registration.sign_up(ROOT, PASSWORD)
    assert [told(entry) for entry in entries(services)] == [
        ("user.created", ROOT, None, ""),
        ("user.created", EMAIL, EMAIL, CLIENT.address),
    ]


@pytest.mark.parametrize(
    ("why", "actor"),
    [
        (EndReason.LOGOUT, EMAIL),
        (EndReason.REVOKED_BY_USER, EMAIL),
        (EndReason.REVOKED_BY_ADMIN, None),
        (EndReason.IDLE, None),
    ],
)
def test_who_ended_a_session(services: Services, why: EndReason, actor: str | None) -> None:
    sign_up(services)
    services.sessions.end(log_in(services).token, why, CLIENT)
    (entry,) = entries(services, event="session.ended")
    assert told(entry) == ("session.ended", EMAIL, actor, CLIENT.address)
    assert entry.details == {"why": why}


def test_a_profile_that_stays_as_it_is_is_no_event(services: Services) -> None:
    ada = sign_up(services)
    change = services.users.update_profile
    change(ada.id, "", "", CLIENT)
    change(ada.id, None, None, CLIENT)
    assert entries(services, event="profile.changed") == []
    change(ada.id, "Ada", "", CLIENT)
    change(ada.id, "Ada", "https://example.org/a.png", CLIENT)
    found = entries(services, event="profile.changed")
    assert {told(entry) for entry in found} == {("profile.changed", EMAIL, EMAIL, CLIENT.address)}
    assert [entry.details for entry in found] == [{"fields": ["image"]}, {"fields": ["name"]}]


def test_a_change_that_is_refused_is_no_event(services: Services) -> None:
    root = services.registration.sign_up(ROOT, PASSWORD, roles=("admin",))
    before = entries(services)
    with pytest.raises(Exception, match="last active administrator"):
        services.administration.update_user(
            root.id, "Other", None, active=False, actor=Actor(root.id, "192.0.2.9")
        )
    assert entries(services) == before


# -- log-ins that fail -----------------------------------------------------------------------------


def fail(services: Services, email: str = EMAIL, client: Actor = CLIENT) -> None:
    with pytest.raises(InvalidCredentials):
        services.authentication.log_in(email, "not the password", client)


def count(found: list[Entry]) -> int:
    return sum(entry.details.get("count", 1) for entry in found)


def test_a_log_in_that_fails_is_recorded(services: Services) -> None:
    ada = sign_up(services)
    for email in (EMAIL, EMAIL.upper()):  # from Postgres, and from the copy
        fail(services, email)
    found = entries(services, event="login.failed")
    assert {told(entry) for entry in found} == {("login.failed", EMAIL, None, CLIENT.address)}
    assert count(found) == 2
    services.administration.set_active(ada.id, active=False, actor=OPERATOR)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    assert count(entries(services, event="login.failed")) == 3, "inactive, with the right password"


def test_an_email_that_nobody_has_is_told_by_its_hash(services: Services) -> None:
    sign_up(services)
    for email in ("nobody@example.org", "NOBODY@example.org", "else@example.org"):
        fail(services, email)
    fail(services)
    found = entries(services, event="login.failed")
    of_nobody = [entry for entry in found if entry.user is None]
    assert {entry.address for entry in found} == {CLIENT.address}
    hashes = [entry.details["email_hash"] for entry in of_nobody]
    assert len(set(hashes)) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", told) for told in hashes)
    (of_ada,) = [entry for entry in found if entry.user]
    assert "email_hash" not in of_ada.details, "the id of the user says it"


def test_an_attempt_that_a_limit_stops_is_recorded(services: Services) -> None:
    sign_up(services)
    log_in(services)
    for _ in range(10):
        fail(services)
    for _ in range(3):
        with pytest.raises(TooManyAttempts):
            log_in(services)
    assert count(entries(services, event="login.failed")) == 10
    found = entries(services, event="login.limited")
    assert {told(entry) for entry in found} == {("login.limited", EMAIL, None, CLIENT.address)}
    assert {entry.details["window"] for entry in found} == {"login-account"}
    assert count(found) == 3


def test_an_address_that_tries_many_emails_is_recorded(services: Services) -> None:
    for number in range(25):
        with pytest.raises((InvalidCredentials, TooManyAttempts)):
            services.authentication.log_in(f"nobody{number}@example.org", PASSWORD, CLIENT)
    found = entries(services, event="login.limited")
    assert {entry.details["window"] for entry in found} == {"login-address"}
    assert (found[0].user, count(found)) == (None, 5)
    assert len(entries(services, event="login.failed")) == 20


def test_a_wrong_current_password_is_recorded(services: Services) -> None:
    sign_up(services)
    live = log_in(services)
    for _ in range(10):
        with pytest.raises(InvalidField):
            services.password_changes.change_password(live, "wrong", OTHER_PASSWORD, CLIENT)
    for _ in range(2):
        with pytest.raises(TooManyAttempts):
            services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    found = entries(services, event="password.refused")
    assert {told(entry) for entry in found} == {("password.refused", EMAIL, EMAIL, CLIENT.address)}
    assert count(found) == 10
    found = entries(services, event="password.limited")
    assert {told(entry) for entry in found} == {("password.limited", EMAIL, EMAIL, CLIENT.address)}
    assert count(found) == 2


def test_what_is_recorded_of_a_failure_holds_nothing_that_was_typed(services: Services) -> None:
    sign_up(services)
    fail(services)
    fail(services, "nobody@example.org")
    services.refused_attempts.flush()
    rows = str(sql(services, "SELECT audit_events::text FROM audit_events"))
    assert "email_hash" in rows
    for typed in ("not the password", EMAIL, "nobody"):
        assert typed not in rows


def test_a_failure_is_written_after_the_answer(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an account that is there would cost more time than one that is not."""
    sign_up(services)
    monkeypatch.setattr(RefusedAttempts, "_work", lambda _: None)
    costs = []
    for email in (EMAIL, "nobody@example.org"):
        fail(services, email)  # copies and leases are there from here on
        with traffic() as seen, hashing() as hashed:
            fail(services, email)
        costs.append((len(seen.sql), len(hashed)))
    assert costs[0] == costs[1]
    assert services.audit.page(which=Filter(event="login.failed")).entries == []
    with traffic() as seen:
        services.refused_attempts.flush()
    assert len([s for s in seen.sql if s.startswith("SELECT")]) == 1, "for both alike"
    assert len(entries(services, event="login.failed")) == 2


def test_a_person_who_goes_meanwhile_is_no_defect(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(services)
    live = log_in(services)
    monkeypatch.setattr(RefusedAttempts, "_work", lambda _: None)
    fail(services)
    with pytest.raises(InvalidField):
        services.password_changes.change_password(live, "wrong", OTHER_PASSWORD, CLIENT)
    sql(services, "DELETE FROM users")
    services.refused_attempts.flush()
    (entry,) = entries(services, event="login.failed")
    assert entry.user is None
    (entry,) = entries(services, event="password.refused")
    assert entry.user is None


def test_failures_at_once_are_all_recorded(services: Services) -> None:
    sign_up(services)
    at_once(*[lambda: fail(services, client=replace(CLIENT, address="192.0.2.9"))] * 3)
    assert count(entries(services, event="login.failed")) == 3


def test_changing_a_password_is_told_with_the_sessions_it_ends(services: Services) -> None:
    sign_up(services)
    live = log_in(services)
    services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    found = entries(services)[:2]
    assert {told(entry) for entry in found} == {
        ("password.changed", EMAIL, EMAIL, CLIENT.address),
        ("session.ended", EMAIL, None, ""),
    }
