"""Changes made by hand in SQL leave a trace: events, and sessions that say why they ended."""

from typing import Any

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.audit import Filter
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import sql

Events = list[tuple[str, dict[str, Any]]]
ENDED = ("session.ended", {"why": "changed_in_sql"})


def changed(*fields: str) -> tuple[str, dict[str, Any]]:
    return "user.changed_in_sql", {"fields": sorted(fields)}


def events(services: Services, since: int) -> Events:
    """In the order of recording, because triggers and tests go by different clocks."""
    found = sql(services, "SELECT event, details FROM audit_events ORDER BY id")
    return [(event, dict(details)) for event, details in found][since:]


# what is done by hand, the events that tell of it, and why the person's session ended
CHANGES: dict[str, tuple[str, Events, EndReason | None]] = {
    "email": (
        "UPDATE users SET email = 'new@example.org', email_canonical = 'new@example.org'",
        [changed("email", "email_canonical"), ENDED],
        EndReason.CHANGED_IN_SQL,
    ),
    "spelling of the email": (
        "UPDATE users SET email = 'ADA@example.org'",
        [changed("email")],
        None,
    ),
    "name": ("UPDATE users SET name = 'Other'", [changed("name")], None),
    "password": (
        "UPDATE users SET password_hash = 'x'",
        [changed("password_hash"), ("session.ended", {"why": "password_changed"})],
        EndReason.PASSWORD_CHANGED,
    ),
    "deactivated": (
        "UPDATE users SET active = false",
        [changed("active"), ("session.ended", {"why": "deactivated"})],
        EndReason.DEACTIVATED,
    ),
    "epoch": (
        "UPDATE users SET epoch = epoch + 1",
        [changed("epoch"), ENDED],
        EndReason.CHANGED_IN_SQL,
    ),
    "nothing": ("UPDATE users SET name = name, ver = ver + 1", [], None),
    "session ended": (
        "UPDATE sessions SET ended_at = now(), ended_why = 'logout'",
        [("session.ended", {"why": "logout"})],
        EndReason.LOGOUT,
    ),
    "session ended for a reason of their own": (
        "UPDATE sessions SET ended_at = now(), ended_why = 'it was stolen'",
        [("session.ended", {"why": "it was stolen"})],
        EndReason.CHANGED_IN_SQL,
    ),
    "session's data": ("UPDATE sessions SET data = '{}'", [], None),
    "role granted": (
        "INSERT INTO user_roles SELECT u.id, r.id FROM users u, roles r WHERE r.name = 'admin'",
        [("roles.changed_in_sql", {"granted": ["admin"]})],
        None,
    ),
    "role revoked": (
        "DELETE FROM user_roles",
        [("roles.changed_in_sql", {"revoked": ["user"]})],
        None,
    ),
    "role replaced": (
        "UPDATE user_roles SET role_id = (SELECT id FROM roles WHERE name = 'admin')",
        [("roles.changed_in_sql", {"granted": ["admin"], "revoked": ["user"]})],
        None,
    ),
    "permissions": (
        "UPDATE roles SET permissions = ARRAY['users:read'] WHERE name = 'user'",
        [("role.changed_in_sql", {"role": "user", "fields": ["permissions"]})],
        None,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_hand_leaves_a_trace(services: Services, name: str) -> None:
    statement, expected, why = CHANGES[name]
    ada = sign_up(services)
    live = log_in(services)
    before = len(events(services, 0))
    sql(services, statement)
    assert events(services, before) == expected
    found = services.sessions.find(live.token)
    assert found == EndedSession(why) if why else isinstance(found, ActiveSession)
    assert len(services.sessions.of_user(ada.id)) == (0 if why else 1), "the list says the same"


def test_an_account_made_or_removed_by_hand_leaves_a_trace(services: Services) -> None:
    sql(
        services,
        "INSERT INTO users (id, email, email_canonical, password_hash, created_at, updated_at)"
        " VALUES (gen_random_uuid(), 'a@example.org', 'a@example.org', '', now(), now())",
    )
    assert events(services, 0) == [("user.created_in_sql", {})]
    sign_up(services)
    log_in(services)
    before = len(events(services, 0))
    sql(services, "DELETE FROM users")
    assert events(services, before) == [("user.deleted_in_sql", {})] * 2
    entries = services.audit.page(which=Filter()).entries
    assert [entry.user for entry in entries] == [None] * len(entries)


def test_a_session_removed_by_hand_leaves_a_trace(services: Services) -> None:
    sign_up(services)
    log_in(services)
    before = len(events(services, 0))
    sql(services, "DELETE FROM sessions")
    assert events(services, before) == [ENDED]


def test_what_the_product_changes_is_told_once(services: Services) -> None:
    """The triggers leave its own changes alone."""
    ada = sign_up(services)
    log_in(services)
    services.users.update_profile(ada.id, "Ada", None, CLIENT)
    services.administration.set_roles(ada.id, ["admin", "user"], OPERATOR)
    services.password_changes.set_password(EMAIL, PASSWORD + "!")
    told = {event for event, _ in events(services, 0)}
    assert not [event for event in told if event.endswith("in_sql")]


def test_no_value_is_told(services: Services) -> None:
    sign_up(services)
    for statement in (
        "UPDATE users SET email = 'new@example.org', email_canonical = 'new@example.org'",
        "UPDATE users SET name = 'Secret Name', password_hash = 'secret hash'",
        "DELETE FROM users",
    ):
        sql(services, statement)
    rows = str(sql(services, "SELECT audit_events::text FROM audit_events")).lower()
    assert "new@" not in rows
    assert EMAIL not in rows
    assert "secret" not in rows
