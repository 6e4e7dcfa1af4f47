"""Users: one for each address, never without an administrator, listed completely."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.credentials import Credentials
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.cache.changes import Changes
from authapp.cache.keys import session_key, user_key
from authapp.errors import EmailTaken, InvalidField, LastAdmin, UnknownRole, UnknownUser
from authapp.services import Services
from authapp.sessions.records import EndReason
from tests.support.clock import Clock
from tests.support.people import CLIENT, grant_role, revoke_role
from tests.support.services import sql
from tests.support.threads import at_once


def create(
    services: Services,
    email: str = "ada@example.org",
    name: str = "",
    roles: tuple[str, ...] = ("user",),
) -> Identity:
    return services.users.create(parse_email(email), name, "a hash", roles)


def credentials(services: Services, email: str = "ada@example.org") -> Credentials:
    found = services.credentials.read(parse_email(email))
    assert found is not None
    return found


def audited(services: Services) -> list[str]:
    return [event for (event,) in sql(services, "SELECT event FROM audit_events ORDER BY id")]


# -- create and find ---------------------------------------------------------------------------


def test_a_user_is_created_and_found(services: Services, clock: Clock) -> None:
    ada = create(services, "Ada@Example.org", "Ada")
    assert (ada.email, ada.name, ada.roles) == ("Ada@example.org", "Ada", ("user",))
    assert (ada.active, ada.created_at) == (True, clock.now)
    assert services.users.get(ada.id) == ada
    assert services.users.find(parse_email("ada@example.org")) == ada
    assert credentials(services) == Credentials(ada, "a hash", epoch=1, ver=1)
    assert audited(services) == ["user.created"]


def test_who_is_not_there_is_none(services: Services) -> None:
    assert services.users.get(uuid4()) is None
    assert services.users.find(parse_email("ada@example.org")) is None
    assert services.credentials.read(parse_email("ada@example.org")) is None


@pytest.mark.parametrize("again", ["ada@example.org", "ADA@EXAMPLE.ORG", "ａｄａ@example.org"])
def test_an_email_is_taken_in_every_spelling(services: Services, again: str) -> None:
    ada = create(services)
    with pytest.raises(EmailTaken):
        create(services, again)
    assert services.users.page().users == [ada]


def test_of_people_who_take_an_email_at_once_one_wins(services: Services) -> None:
    outcomes = at_once(*[lambda: create(services)] * 6)
    assert sorted(type(o).__name__ for o in outcomes) == ["EmailTaken"] * 5 + ["Identity"]
    assert len(services.users.page().users) == 1
    assert audited(services) == ["user.created"]


def test_an_unknown_role_creates_nobody(services: Services) -> None:
    with pytest.raises(UnknownRole):
        create(services, roles=("user", "auditor"))
    assert services.users.page().users == []


def test_a_profile_is_updated(services: Services, clock: Clock) -> None:
    ada = create(services)
    image = "https://img.example/ada.png"
    changed = services.users.update_profile(ada.id, "Countess", image, CLIENT).value
    assert (changed.name, changed.image) == ("Countess", image)
    assert services.users.get(ada.id) == changed
    assert credentials(services).epoch == 1
    with pytest.raises(UnknownUser):
        services.users.update_profile(uuid4(), "Nobody", "", CLIENT)


# -- passwords ---------------------------------------------------------------------------------


def version_of(services: Services, user_id: UUID) -> tuple[int, int, str]:
    ((epoch, version, hashed),) = sql(
        services, "SELECT epoch, ver, password_hash FROM users WHERE id = :id", id=user_id
    )
    return epoch, version, hashed


def test_a_rehash_keeps_the_epoch(services: Services) -> None:
    ada = create(services)
    services.users.rehash(ada.id, 1, "made anew")
    assert version_of(services, ada.id) == (1, 2, "made anew")


def test_a_rehash_never_undoes_a_new_password(services: Services) -> None:
    ada = create(services)
    sql(services, "UPDATE users SET password_hash = 'newer'")
    services.users.rehash(ada.id, 1, "of the old one")
    assert version_of(services, ada.id) == (2, 2, "newer")


def test_a_user_is_locked_at_the_epoch_of_the_credentials(
    services: Services, changes: Changes
) -> None:
    ada = create(services)
    with changes.begin() as change:
        user = services.users.lock(change, ada.id, 1)
        services.sessions.end_all(change, user, EndReason.PASSWORD_CHANGED)
        user.password_hash = "newer"
    assert version_of(services, ada.id) == (2, 2, "newer")
    with pytest.raises(UnknownUser), changes.begin() as change:
        services.users.lock(change, ada.id, 1)


@pytest.fixture
def changes(services: Services) -> Changes:
    return services.changes


# -- roles -------------------------------------------------------------------------------------


def test_a_role_is_granted_and_revoked_once(services: Services) -> None:
    create(services)
    create(services, "root@example.org", roles=("admin",))
    for _ in range(2):
        granted = grant_role(services, "ada@example.org", "admin").value
        assert granted.roles == ("admin", "user")
        assert services.users.get(granted.id) == granted
    for _ in range(2):
        revoked = revoke_role(services, "ada@example.org", "admin").value
        assert revoked.roles == ("user",)
        assert services.users.get(revoked.id) == revoked
    assert audited(services)[2:] == ["role.granted", "role.revoked"]
    assert version_of(services, granted.id)[1] == 3


def test_unknown_roles_and_people_are_refused(services: Services) -> None:
    ada = create(services)
    for work in (services.administration.grant_role, services.administration.revoke_role):
        with pytest.raises(UnknownRole):
            work(ada.id, "auditor", OPERATOR)
        with pytest.raises(UnknownUser):
            work(uuid4(), "user", OPERATOR)
    assert audited(services) == ["user.created"]


def test_the_last_active_admin_stays(services: Services) -> None:
    ada = create(services, roles=("admin", "user"))
    create(services, "gone@example.org", roles=("admin",))
    sql(services, "UPDATE users SET active = false WHERE email_canonical = 'gone@example.org'")
    with pytest.raises(LastAdmin):
        revoke_role(services, "ada@example.org", "admin")
    assert services.users.get(ada.id) == ada
    assert services.users.any_admin()
    assert revoke_role(services, "gone@example.org", "admin").value.roles == ()


def test_any_admin(services: Services) -> None:
    assert not services.users.any_admin()
    create(services)
    assert not services.users.any_admin()
    create(services, "root@example.org", roles=("admin",))
    assert services.users.any_admin()
    sql(services, "UPDATE users SET active = false")
    assert not services.users.any_admin()


def test_two_admins_who_remove_each_other_leave_one(services: Services) -> None:
    for _ in range(5):
        sql(services, "DELETE FROM users")
        for email in ("a@example.org", "b@example.org"):
            create(services, email, roles=("admin",))
        outcomes = at_once(
            lambda: revoke_role(services, "a@example.org", "admin").value,
            lambda: revoke_role(services, "b@example.org", "admin").value,
        )
        assert sorted(type(o).__name__ for o in outcomes) == ["Identity", "LastAdmin"]
        assert services.users.any_admin()


# -- the list ----------------------------------------------------------------------------------


def walk(services: Services, limit: int, search: str = "") -> list[str]:
    emails: list[str] = []
    cursor = None
    while True:
        page = services.users.page(cursor, limit, search)
        assert len(page.users) <= limit
        emails += [user.email for user in page.users]
        if (cursor := page.next_cursor) is None:
            return emails


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 50])
def test_pages_hold_all_users_exactly_once_newest_first(
    services: Services, clock: Clock, limit: int
) -> None:
    for number in range(7):
        create(services, f"u{number}@example.org")
        if number % 3 == 2:  # some are created in the same moment
            clock.forward(0.001)
    emails = walk(services, limit)
    assert len(emails) == 7
    assert set(emails) == {f"u{number}@example.org" for number in range(7)}
    assert emails[0] == "u6@example.org"
    assert set(emails[1:4]) == {f"u{number}@example.org" for number in (3, 4, 5)}


def test_who_signs_up_meanwhile_shifts_no_page(services: Services, clock: Clock) -> None:
    for number in range(4):
        create(services, f"u{number}@example.org")
        clock.forward(1)
    first = services.users.page(limit=2)
    create(services, "late@example.org")
    rest = services.users.page(first.next_cursor, limit=2)
    assert [u.email for u in rest.users] == ["u1@example.org", "u0@example.org"]
    assert rest.next_cursor is None


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"100%", "1000", "a_b", "axb", "back\\slash"}),
        ("%", {"100%"}),
        ("100%", {"100%"}),
        ("_", {"a_b"}),
        ("A_B", {"a_b"}),
        ("\\", {"back\\slash"}),
        ("/", set()),
        ("USER-3", {"axb"}),
        ("nobody", set()),
        ("' OR true --", set()),
    ],
)
def test_search_takes_every_character_literally(
    services: Services, search: str, found: set[str]
) -> None:
    for number, name in enumerate(["100%", "1000", "a_b", "axb", "back\\slash"]):
        create(services, f"user-{number}@example.org", name)
    assert {user.name for user in services.users.page(search=search).users} == found
    assert len(walk(services, 1, search)) == len(found)


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "=",
        "AAAA",
        "\0",
        "MjAzMQ",
        "MjAzMS0wNS0wNCBub3QgYW4gaWQ",
        "____",
    ],
)
def test_a_cursor_we_did_not_give_is_refused(services: Services, cursor: str) -> None:
    with pytest.raises(InvalidField) as caught:
        services.users.page(cursor)
    assert set(caught.value.errors) == {"cursor"}


def test_identity_tells_the_roles_in_order(services: Services, clock: Clock) -> None:
    ada = create(services, roles=("user", "admin"))
    assert ada.roles == ("admin", "user")
    assert clock.now - ada.created_at == timedelta(0)


@pytest.mark.parametrize(
    "again",
    [
        lambda s, ada: grant_role(s, ada.email, "user"),
        lambda s, ada: revoke_role(s, ada.email, "admin"),
        lambda s, ada: s.administration.set_roles(ada.id, ["user"], OPERATOR),
        lambda s, ada: s.administration.set_active(ada.id, active=True, actor=OPERATOR),
    ],
    ids=["grant", "revoke", "set roles", "activate"],
)
def test_who_asks_for_what_is_done_already_is_promised_it_too(
    services: Services, again: Callable[[Services, Identity], object]
) -> None:
    """The first change may not have set its last fences yet, so they are set again."""
    ada = create(services)
    live = services.sessions.begin(ada.id, 1, CLIENT)
    keys = [user_key(ada.id), session_key(live.token.digest)]
    services.users.look_up(ada.id)
    services.sessions.find(live.token)
    assert [services.redis.hexists(key, "v") for key in keys] == [1, 1]
    before = sql(services, "SELECT u.ver, s.ver FROM users u JOIN sessions s ON user_id = u.id")
    again(services, ada)
    assert [services.redis.hexists(key, "v") for key in keys] == [0, 0]
    assert (
        sql(services, "SELECT u.ver, s.ver FROM users u JOIN sessions s ON user_id = u.id")
        == before
    )
