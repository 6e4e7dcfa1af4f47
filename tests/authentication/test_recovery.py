"""A forgotten password: who is mailed a link, what it opens, and what it ends."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol
from uuid import uuid4

import pytest

from authapp.accounts.actor import OPERATOR, Actor
from authapp.authentication.recovery import forgotten
from authapp.config import Config
from authapp.errors import (
    Busy,
    ExceedsOwnPermissions,
    Forbidden,
    InvalidCredentials,
    InvalidField,
    InvalidToken,
    MailOff,
    NotAuthenticated,
    StoreUnavailable,
    TooManyAttempts,
    UnknownUser,
    UserInactive,
)
from authapp.mail.one_time_links import LIFETIMES, Purpose
from authapp.services import Services
from authapp.storage.models import User
from tests.support.clock import Clock
from tests.support.hashing import hashing
from tests.support.mails import MAIL_SETTINGS, PUBLIC_URL, mails
from tests.support.people import (
    CLIENT,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    grant_role,
    log_in,
    sign_up,
)
from tests.support.services import open_services, sql
from tests.support.sessions import is_live
from tests.support.settings import make_config
from tests.support.threads import at_once

NEW = "eleven brass clocks tick on"
WRONG = "x" * 43
TOKENS_OF_NOBODY = ["", "x" * 42, "x" * 44, WRONG, "x" * 100_000, "ö" * 43, "\0" * 43]
SPELLINGS = [EMAIL, "ADA@EXAMPLE.ORG", "ａｄａ@example.org", " ada@example.org"]
ATTACKER = Actor(address="198.51.100.66")


@pytest.fixture
def config(config: Config) -> Config:
    return make_config(config.DATABASE_URL, config.REDIS_URL, **MAIL_SETTINGS)


@pytest.fixture(autouse=True)
def at_once_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.0, 0.0))


class Open(Protocol):
    def __call__(self, **settings: str) -> Services: ...


@pytest.fixture
def open_with(config: Config, clock: Clock) -> Iterator[Open]:
    """Opens an instance with other settings."""
    with ExitStack() as stack:

        def open_one(**settings: str) -> Services:
            changed = make_config(config.DATABASE_URL, config.REDIS_URL, **settings)
            return stack.enter_context(open_services(changed, clock))

        yield open_one


@pytest.fixture
def without_mail(open_with: Open) -> Services:
    return open_with()


def ask(services: Services, email: str = EMAIL) -> None:
    services.forgotten_passwords.forgot(email, CLIENT)
    services.forgotten_passwords.finish()


def mailed_token(services: Services, email: str = EMAIL) -> str:
    """The token of the link in the newest mail, which was asked for now."""
    before = len(mails(services, "reset"))
    ask(services, email)
    found = mails(services, "reset")
    assert len(found) == before + 1
    return found[-1].token


def reset(services: Services, token: str, new: str = NEW) -> None:
    changed, _ = services.password_resets.reset(token, new, CLIENT)
    assert changed.everywhere


def counts(services: Services, token: str) -> bool:
    return services.reset_links.look_up(token) is not None


def can_log_in(services: Services, password: str, email: str = EMAIL) -> bool:
    try:
        log_in(services, email, password)
    except InvalidCredentials:
        return False
    return True


def events(services: Services, event: str) -> list[tuple[object, ...]]:
    return sql(
        services, "SELECT user_id, actor_id, address FROM audit_events WHERE event = :e", e=event
    )


# -- asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed", [EMAIL, "ADA@EXAMPLE.ORG", "ａｄａ@example.org", " ada@example.org"]
)
def test_the_mail_goes_to_the_address_that_is_stored(services: Services, typed: str) -> None:
    ada = sign_up(services, "Ada@example.org")
    ask(services, typed)
    (mail,) = mails(services)
    assert (mail.kind, mail.recipient) == ("reset", "Ada@example.org")
    assert mail.link == f"{PUBLIC_URL}/reset?token={mail.token}"
    assert events(services, "reset.requested") == [(ada.id, None, CLIENT.address)]


@pytest.mark.parametrize("alike", ["adа@example.org", "ada@examp1e.org", "ada@exаmple.org"])
def test_an_address_that_looks_alike_is_another_one(services: Services, alike: str) -> None:
    sign_up(services)
    with suppress(InvalidField):
        ask(services, alike)
    assert mails(services) == []


def test_nobody_is_mailed_who_has_no_active_account(services: Services) -> None:
    ada = sign_up(services)
    services.administration.set_active(ada.id, active=False, actor=OPERATOR)
    ask(services)
    ask(services, "nobody@example.org")
    assert mails(services) == []


def test_only_digests_are_kept(services: Services) -> None:
    sign_up(services)
    token = mailed_token(services)
    stored = sql(services, "SELECT one_time_links::text FROM one_time_links")
    stored += sql(services, "SELECT outgoing_mails::text FROM outgoing_mails")
    stored += sql(services, "SELECT audit_events::text FROM audit_events")
    text = str(stored)
    assert token not in text
    assert token.encode().hex() not in text


def test_a_newer_request_kills_the_older_token(services: Services) -> None:
    sign_up(services)
    older, newer = mailed_token(services), mailed_token(services)
    assert not counts(services, older)
    with pytest.raises(InvalidToken):
        reset(services, older)
    reset(services, newer)


@pytest.mark.parametrize("cap", ["MAIL_LIMIT_PER_RECIPIENT", "MAIL_LIMIT_TOTAL"])
def test_a_request_that_a_cap_refuses_kills_nothing(
    open_with: Open, clock: Clock, cap: str
) -> None:
    services = open_with(**MAIL_SETTINGS, **{cap: "1 per hour"})
    sign_up(services)
    token = mailed_token(services)
    ask(services)
    assert len(mails(services)) == 1
    assert counts(services, token)
    services.refused_attempts.flush()
    assert len(events(services, "reset.limited")) == 1
    reset(services, token)
    clock.forward(3_600)
    mailed_token(services)


def test_requests_for_one_email_at_the_same_moment_are_one_mail(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.3, 0.3))
    sign_up(services)
    for typed in (EMAIL, "ADA@example.org", EMAIL):
        services.forgotten_passwords.forgot(typed, CLIENT)
    assert len(mails(services)) == 1


def test_requests_from_one_address_are_limited(open_with: Open) -> None:
    services = open_with(**MAIL_SETTINGS, LOGIN_LIMIT_PER_ADDRESS="2 per minute")
    sign_up(services)
    for email in ("one@example.org", "two@example.org"):
        ask(services, email)
    with pytest.raises(TooManyAttempts):
        ask(services)
    services.forgotten_passwords.forgot(EMAIL, Actor(address="192.0.2.8"))
    assert len(mails(services)) == 1


def test_requests_that_wait_are_bounded(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.5, 0.5))
    monkeypatch.setattr(forgotten, "MAX_WAITING", 2)
    for number in range(2):
        services.forgotten_passwords.forgot(f"n{number}@example.org", CLIENT)
    with pytest.raises(Busy):
        services.forgotten_passwords.forgot(EMAIL, CLIENT)


def test_without_mail_nobody_is_promised_one(without_mail: Services) -> None:
    ada = sign_up(without_mail)
    with pytest.raises(MailOff):
        ask(without_mail)
    with pytest.raises(MailOff):
        without_mail.reset_links.mail_for(ada.id, OPERATOR)


def test_while_postgres_is_away_nobody_is_promised_a_mail(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services.database.breaker, "admit", away)
    for email in (EMAIL, "nobody@example.org"):
        with pytest.raises(StoreUnavailable):
            ask(services, email)


# -- used ------------------------------------------------------------------------------------------


def test_a_reset_sets_the_password_and_ends_everything(services: Services) -> None:
    ada = sign_up(services)
    live = log_in(services)
    tokens = services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=True)
    assert tokens.refresh
    reset(services, mailed_token(services))
    assert not is_live(services, live)
    assert not is_live(services, tokens.session)
    with pytest.raises(NotAuthenticated):
        services.sessions.refresh(tokens.refresh, CLIENT)
    assert sql(services, "SELECT DISTINCT ended_why FROM sessions") == [("password_changed",)]
    assert not can_log_in(services, PASSWORD)
    assert can_log_in(services, NEW)
    assert events(services, "password.reset") == [(ada.id, ada.id, CLIENT.address)]


def test_a_reset_begins_no_session(services: Services) -> None:
    sign_up(services)
    reset(services, mailed_token(services))
    assert sql(services, "SELECT count(*) FROM sessions") == [(0,)]


def test_the_person_is_told(services: Services) -> None:
    sign_up(services)
    reset(services, mailed_token(services))
    (told,) = mails(services, "password_changed")
    assert told.recipient == EMAIL
    assert told.context["address"] == CLIENT.address
    assert "link" not in told.context


def test_of_many_uses_at_once_one_wins(services: Services, two_instances: Services) -> None:
    sign_up(services)
    token = mailed_token(services)
    passwords = [f"{NEW} {number}" for number in range(16)]

    def use(number: int) -> str:
        instance = services if number % 2 else two_instances
        with suppress(InvalidToken):
            reset(instance, token, passwords[number])
            return passwords[number]
        return ""

    won = [outcome for outcome in at_once(*(partial(use, n) for n in range(16))) if outcome]
    assert len(won) == 1
    assert can_log_in(services, str(won[0]))
    assert len(events(services, "password.reset")) == 1


@pytest.mark.parametrize(
    "token", ["", "x" * 42, "x" * 44, WRONG, "x" * 100_000, "ö" * 43, "\0" * 43]
)
def test_what_is_no_token_of_ours_is_refused_and_costs_no_hash(
    services: Services, token: str
) -> None:
    sign_up(services)
    with hashing() as costs, pytest.raises(InvalidToken):
        reset(services, token)
    assert costs == []
    assert not counts(services, token)


def test_a_token_counts_once(services: Services) -> None:
    sign_up(services)
    token = mailed_token(services)
    reset(services, token)
    with hashing() as costs, pytest.raises(InvalidToken):
        reset(services, token, OTHER_PASSWORD)
    assert costs == []
    assert can_log_in(services, NEW)


def test_a_token_expires_by_the_clock_of_the_server(services: Services, clock: Clock) -> None:
    sign_up(services)
    token = mailed_token(services)
    clock.forward(LIFETIMES["reset"].total_seconds() - 1)
    assert counts(services, token)
    clock.forward(1)
    assert not counts(services, token)
    with pytest.raises(InvalidToken):
        reset(services, token)


@pytest.mark.parametrize("purpose", ["verify", "change_email", "undo_email"])
def test_a_token_is_for_one_purpose(services: Services, purpose: Purpose) -> None:
    ada = sign_up(services)
    with services.database.transaction() as db:
        other = services.one_time_links.issue(db, purpose, db.get_one(User, ada.id)).token
    with pytest.raises(InvalidToken):
        reset(services, other)
    with services.database.transaction() as db:
        assert services.one_time_links.look_up(db, purpose, other), "the wrong use uses nothing up"
    token = mailed_token(services)
    with services.database.transaction() as db:
        assert services.one_time_links.redeem(db, purpose, token) is None
    assert counts(services, token)


def test_a_password_that_is_refused_does_not_strand_its_owner(services: Services) -> None:
    sign_up(services)
    token = mailed_token(services)
    for new in ("short", EMAIL, "x" * 1_000, "\ud800" * 20):
        with hashing() as costs, pytest.raises(InvalidField) as caught:
            reset(services, token, new)
        assert set(caught.value.errors) == {"new_password"}
        assert costs == []
    reset(services, token)
    assert can_log_in(services, NEW)


def test_a_queue_that_is_full_does_not_strand_the_owner(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(services)
    token = mailed_token(services)
    with monkeypatch.context() as patch:
        patch.setattr(services.authentication._passwords.queue, "_places", 0)
        with pytest.raises(Busy):
            reset(services, token)
    reset(services, token)


def test_a_new_password_kills_the_links_of_before(services: Services, clock: Clock) -> None:
    ada = sign_up(services)
    token = mailed_token(services)
    with services.database.transaction() as db:
        user = db.get_one(User, ada.id)
        pending = services.one_time_links.issue(db, "change_email", user).token
        undo = services.one_time_links.issue(db, "undo_email", user).token
    services.password_changes.set_password(EMAIL, OTHER_PASSWORD)
    assert not counts(services, token)
    with pytest.raises(InvalidToken):
        reset(services, token)
    reset(services, mailed_token(services))
    with services.database.transaction() as db:
        assert services.one_time_links.look_up(db, "change_email", pending) is None
        assert services.one_time_links.look_up(db, "undo_email", undo), (
            "a thief could keep the address"
        )


def test_a_new_address_kills_the_links_of_before(services: Services) -> None:
    ada = sign_up(services)
    token = mailed_token(services)
    sql(
        services,
        "UPDATE users SET email = :e, email_canonical = :e WHERE id = :id",
        e="countess@example.org",
        id=ada.id,
    )
    with pytest.raises(InvalidToken):
        reset(services, token)


def test_deactivation_counts_when_the_link_is_used(services: Services) -> None:
    ada = sign_up(services)
    token = mailed_token(services)
    services.administration.set_active(ada.id, active=False, actor=OPERATOR)
    assert not counts(services, token)
    with pytest.raises(InvalidToken):
        reset(services, token)
    services.administration.set_active(ada.id, active=True, actor=OPERATOR)
    with pytest.raises(InvalidToken):
        reset(services, token)


def test_uses_from_one_address_are_limited_before_anything_is_hashed(
    open_with: Open,
) -> None:
    services = open_with(**MAIL_SETTINGS, LOGIN_LIMIT_PER_ADDRESS="1 per minute")
    sign_up(services)
    token = mailed_token(services)
    for _ in range(5):
        with pytest.raises(InvalidToken):
            services.password_resets.reset(WRONG, NEW, CLIENT)
    with hashing() as costs, pytest.raises(TooManyAttempts):
        reset(services, token)
    assert costs == []
    services.password_resets.reset(token, NEW, Actor(address="192.0.2.8"))


def test_a_reset_shows_that_the_email_is_the_person_s(services: Services) -> None:
    """Whoever signed up with it before gains nothing."""
    ada = sign_up(services)
    thief = log_in(services)
    sql(services, "UPDATE users SET email_verified_at = NULL, email_confirmation_due = true")
    reset(services, mailed_token(services))
    assert not is_live(services, thief)
    assert not can_log_in(services, PASSWORD)
    assert can_log_in(services, NEW)
    found = services.users.get(ada.id)
    assert found is not None
    assert found.email_verified
    assert sql(services, "SELECT email_confirmation_due FROM users") == [(False,)]


def test_a_reset_of_a_verified_account_leaves_the_time_of_it(services: Services) -> None:
    sign_up(services)
    sql(services, "UPDATE users SET email_verified_at = '2020-01-01'")
    reset(services, mailed_token(services))
    assert sql(services, "SELECT extract(year FROM email_verified_at)::int FROM users") == [(2020,)]


def test_a_deleted_account_has_no_links(services: Services) -> None:
    ada = sign_up(services)
    token = mailed_token(services)
    services.administration.delete_user(ada.id, OPERATOR)
    with pytest.raises(InvalidToken):
        reset(services, token)


def test_while_postgres_is_away_a_token_stays(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(services)
    token = mailed_token(services)
    with monkeypatch.context() as patch:

        def away() -> None:
            raise StoreUnavailable("postgres")

        patch.setattr(services.database.breaker, "admit", away)
        with pytest.raises(StoreUnavailable):
            reset(services, token)
    reset(services, token)


# -- started by an administrator -------------------------------------------------------------------


@pytest.fixture
def admin(services: Services) -> Actor:
    root = sign_up(services, "root@example.org")
    grant_role(services, "root@example.org", "admin")
    return Actor(id=root.id, address="192.0.2.99")


def test_an_administrator_starts_a_reset_and_sees_nothing_of_it(
    services: Services, admin: Actor
) -> None:
    ada = sign_up(services)
    live = log_in(services)
    services.reset_links.mail_for(ada.id, admin)
    (mail,) = mails(services)
    assert (mail.kind, mail.recipient) == ("reset", EMAIL)
    assert admin.address not in str(mail.context)
    assert events(services, "reset.started") == [(ada.id, admin.id, admin.address)]
    assert is_live(services, live), "nothing changes until the link is used"
    assert can_log_in(services, PASSWORD)
    reset(services, mail.token)
    assert not is_live(services, live)


def test_who_may_start_a_reset(services: Services, admin: Actor) -> None:
    ada, bob = sign_up(services), sign_up(services, "bob@example.org")
    with pytest.raises(Forbidden):
        services.reset_links.mail_for(bob.id, Actor(id=ada.id))
    services.roles.create("helpdesk", ["users:read", "users:write"], OPERATOR)
    grant_role(services, EMAIL, "helpdesk")
    services.reset_links.mail_for(bob.id, Actor(id=ada.id))
    assert admin.id is not None
    with pytest.raises(ExceedsOwnPermissions):
        services.reset_links.mail_for(admin.id, Actor(id=ada.id))
    with pytest.raises(UnknownUser):
        services.reset_links.mail_for(uuid4(), admin)
    services.administration.set_active(bob.id, active=False, actor=OPERATOR)
    with pytest.raises(UserInactive):
        services.reset_links.mail_for(bob.id, admin)
    assert [mail.recipient for mail in mails(services)] == ["bob@example.org"]


def test_a_reset_that_a_cap_refuses_is_told_to_the_administrator(
    open_with: Open, admin: Actor
) -> None:
    services = open_with(**MAIL_SETTINGS, MAIL_LIMIT_PER_RECIPIENT="1 per hour")
    ada = sign_up(services)
    token = mailed_token(services)
    with pytest.raises(TooManyAttempts):
        services.reset_links.mail_for(ada.id, admin)
    assert counts(services, token)


def test_a_link_that_an_operator_hands_over_verifies_no_address(without_mail: Services) -> None:
    ada = sign_up(without_mail)
    sql(without_mail, "UPDATE users SET email_verified_at = NULL")
    token = without_mail.reset_links.make(ada.id).rpartition("token=")[2]
    reset(without_mail, token)
    found = without_mail.users.get(ada.id)
    assert found is not None
    assert not found.email_verified
    assert can_log_in(without_mail, NEW)
