"""A change of address: confirmed by the new one, told to the old one, undone by it; at once
everywhere."""

from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from sqlalchemy import select

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.emails import parse_email
from authapp.authentication.email_changes import EmailChanges
from authapp.config import Config
from authapp.errors import (
    AuthappError,
    EmailTaken,
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
)
from authapp.mail.outbox import Mail
from authapp.services import Services
from authapp.sessions.beginning import SessionBeginning
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from authapp.storage.models import OutgoingMail
from tests.support.clock import Clock
from tests.support.people import (
    CLIENT,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    grant_role,
    log_in,
    sign_up,
)
from tests.support.services import await_trust, sql
from tests.support.threads import at_once

NEW, OTHER = "ada@new.example", "bob@example.org"
PUBLIC_URL = "https://auth.example.org/base"
# a port that nobody listens at, so that mails wait
MAIL = {"MAIL_URL": "smtp://127.0.0.1:9", "PUBLIC_URL": PUBLIC_URL}


@pytest.fixture
def config(config: Config) -> Config:
    return replace(config, **MAIL)  # type: ignore[arg-type]


@pytest.fixture
def ada(services: Services) -> ActiveSession:
    """Ada's session; her address is verified."""
    sign_up(services)
    verify(services, EMAIL)
    return log_in(services)


@dataclass(frozen=True)
class Letter:
    kind: str
    to: str
    context: dict[str, str]

    def token(self, name: str = "link") -> str:
        (token,) = parse_qs(urlsplit(self.context[name]).query)["token"]
        return token


def letters(services: Services, kind: str = "") -> list[Letter]:
    """The mails that wait, the oldest first."""
    with services.database.transaction() as db:
        rows = db.scalars(select(OutgoingMail).order_by(OutgoingMail.id)).all()
    found = []
    for row in rows:
        opened = services.outbox._letters.open(row.sealed) if row.sealed else None
        if opened is not None and kind in {"", row.kind}:
            found.append(Letter(row.kind, opened.recipient, opened.context))
    return found


def verify(services: Services, email: str) -> None:
    sql(
        services,
        "UPDATE users SET email_verified_at = now() WHERE email_canonical = :email",
        email=email,
    )
    services.changes.replay()


def ask(services: Services, live: ActiveSession, email: str = NEW) -> str:
    """Asks for a change; returns the token that was mailed to the new address."""
    services.email_changes.ask(live, email, CLIENT)
    return letters(services, "confirm_change")[-1].token()


def change(services: Services, live: ActiveSession, email: str = NEW) -> str:
    """Changes the address; returns the token by which it can be undone."""
    services.email_changes.confirm(ask(services, live, email), "", live, CLIENT)
    told = [one for one in letters(services, "email_changed") if "undo_link" in one.context]
    return told[-1].token("undo_link")


def lets_in(services: Services, email: str, password: str = PASSWORD) -> bool:
    try:
        log_in(services, email, password)
    except InvalidCredentials:
        return False
    return True


# -- ask -------------------------------------------------------------------------------------------


def test_nothing_changes_before_the_new_address_is_confirmed(
    services: Services, ada: ActiveSession
) -> None:
    services.email_changes.ask(ada, NEW, CLIENT)
    assert [(one.kind, one.to) for one in letters(services)] == [
        ("confirm_change", NEW),
        ("change_announced", EMAIL),
    ]
    confirm, announced = letters(services)
    assert confirm.context["link"].startswith(f"{PUBLIC_URL}/verify?token=")
    assert announced.context["new_email"] == NEW
    assert announced.context["address"] == CLIENT.address
    assert announced.context["device"] == "Firefox on Linux"
    assert "link" not in announced.context
    assert lets_in(services, EMAIL)
    assert not lets_in(services, NEW)


def test_a_taken_address_is_treated_as_any_other(services: Services, ada: ActiveSession) -> None:
    sign_up(services, OTHER, OTHER_PASSWORD)
    before = ask(services, ada)
    sql(services, "DELETE FROM outgoing_mails")
    services.email_changes.ask(ada, "BOB@Example.ORG", CLIENT)
    assert [(one.kind, one.to) for one in letters(services)] == [
        ("already_registered", OTHER),  # the stored address, not the typed one
        ("change_announced", EMAIL),
    ]
    assert services.email_changes.look_up(before) is None, "the older link is void in any case"
    assert ("email.change_requested",) in sql(services, "SELECT event FROM audit_events")


def test_without_mail_nobody_changes_an_address(services: Services, clock: Clock) -> None:
    sign_up(services)
    live = log_in(services)
    services.email_changes._mails.outbox.enabled = False
    with pytest.raises(MailOff):
        services.email_changes.ask(live, NEW, CLIENT)


@pytest.mark.parametrize("email", ["", "nobody", "a@b", "x" * 400, EMAIL, "ADA@Example.ORG"])
def test_what_is_no_new_address_is_refused(
    services: Services, ada: ActiveSession, email: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        services.email_changes.ask(ada, email, CLIENT)
    assert list(refused.value.errors) == ["email"]
    assert letters(services) == []


def test_a_request_that_a_cap_refuses_leaves_the_older_link(
    services: Services, ada: ActiveSession
) -> None:
    token = ask(services, ada)
    for number in range(9):
        services.email_changes.ask(ada, f"ada{number}@new.example", CLIENT)
    last = letters(services, "confirm_change")[-1]
    services.email_changes.ask(ada, "onemore@new.example", CLIENT)  # the old address got ten
    assert letters(services, "confirm_change")[-1] == last
    assert services.email_changes.look_up(token) is None
    assert services.email_changes.look_up(last.token()) is not None


def test_a_session_that_has_ended_asks_for_nothing(services: Services, ada: ActiveSession) -> None:
    services.authentication.log_out(ada.token, CLIENT)
    with pytest.raises(NotAuthenticated):
        services.email_changes.ask(ada, NEW, CLIENT)
    assert letters(services) == []


# -- confirm ---------------------------------------------------------------------------------------


def test_the_session_that_asked_confirms_and_goes_on(
    services: Services, ada: ActiveSession
) -> None:
    elsewhere = log_in(services)
    token = ask(services, ada)
    changed = services.email_changes.confirm(token, "", ada, CLIENT)
    assert changed.everywhere
    assert (changed.value.email, changed.value.email_verified) == (NEW, True)
    found = services.sessions.find(ada.token)
    assert isinstance(found, ActiveSession)
    assert found.record.user.email == NEW
    assert services.sessions.find(elsewhere.token) == EndedSession(EndReason.EMAIL_CHANGED)
    assert lets_in(services, NEW)
    assert not lets_in(services, EMAIL)
    old, new = letters(services, "email_changed")
    assert (old.to, new.to) == (EMAIL, NEW)
    assert old.context["undo_link"].startswith(f"{PUBLIC_URL}/email/undo?token=")
    assert "undo_link" not in new.context
    events = sql(services, "SELECT event FROM audit_events WHERE event LIKE 'email.%' ORDER BY id")
    assert events == [("email.change_requested",), ("email.changed",)]


def test_elsewhere_the_password_is_needed(services: Services, ada: ActiveSession) -> None:
    token, elsewhere = ask(services, ada), log_in(services)
    confirm = services.email_changes.confirm
    for live in (None, elsewhere):
        with pytest.raises(InvalidField) as refused:
            confirm(token, "", live, CLIENT)
        assert list(refused.value.errors) == ["password"]
        with pytest.raises(InvalidCredentials):
            confirm(token, "not the password", live, CLIENT)
    assert not lets_in(services, NEW)
    confirm(token, PASSWORD, None, CLIENT)
    assert lets_in(services, NEW)
    assert isinstance(services.sessions.find(ada.token), ActiveSession), "the one that asked"
    assert services.sessions.find(elsewhere.token) == EndedSession(EndReason.EMAIL_CHANGED)


def test_guesses_of_the_password_are_limited(services: Services, ada: ActiveSession) -> None:
    token = ask(services, ada)
    for _ in range(10):
        with pytest.raises(InvalidCredentials):
            services.email_changes.confirm(token, "not the password", None, CLIENT)
    with pytest.raises(TooManyAttempts):
        services.email_changes.confirm(token, PASSWORD, None, CLIENT)


def test_whoever_has_the_mistyped_address_gains_nothing(
    services: Services, ada: ActiveSession
) -> None:
    sign_up(services, NEW, OTHER_PASSWORD)
    theirs = log_in(services, NEW, OTHER_PASSWORD)
    sql(services, "UPDATE users SET email_canonical = 'x@y.example' WHERE email = :e", e=NEW)
    services.changes.replay()
    token = ask(services, ada)
    for live, password in ((None, OTHER_PASSWORD), (theirs, ""), (theirs, OTHER_PASSWORD)):
        with pytest.raises((InvalidField, InvalidCredentials)):
            services.email_changes.confirm(token, password, live, CLIENT)
    assert lets_in(services, EMAIL)


def test_of_many_confirmations_at_once_one_wins(
    services: Services, two_instances: Services, ada: ActiveSession
) -> None:
    token = ask(services, ada)

    def confirm(instance: Services) -> str:
        try:
            instance.email_changes.confirm(token, "", ada, CLIENT)
        except InvalidToken:
            return "void"
        return "changed"

    found = map(str, at_once(*[partial(confirm, one) for one in [services, two_instances] * 5]))
    assert sorted(found) == ["changed"] + ["void"] * 9


def test_two_people_confirm_one_address_at_once(
    services: Services, two_instances: Services, ada: ActiveSession
) -> None:
    sign_up(services, OTHER, OTHER_PASSWORD)
    bob = log_in(services, OTHER, OTHER_PASSWORD)
    of_ada, of_bob = ask(services, ada), ask(services, bob)

    def confirm(instance: Services, token: str, live: ActiveSession) -> str:
        try:
            instance.email_changes.confirm(token, "", live, CLIENT)
        except EmailTaken:
            return "taken"
        return "changed"

    both = [partial(confirm, services, of_ada, ada), partial(confirm, two_instances, of_bob, bob)]
    assert sorted(map(str, at_once(*both))) == ["changed", "taken"]
    assert lets_in(services, NEW) is not lets_in(services, NEW, OTHER_PASSWORD)
    assert lets_in(services, EMAIL) is not lets_in(services, OTHER, OTHER_PASSWORD)


def test_a_sign_up_in_the_meantime_keeps_the_address(
    services: Services, ada: ActiveSession
) -> None:
    token = ask(services, ada)
    sign_up(services, NEW, OTHER_PASSWORD)
    with pytest.raises(EmailTaken):
        services.email_changes.confirm(token, "", ada, CLIENT)
    assert lets_in(services, EMAIL)
    assert isinstance(services.sessions.find(ada.token), ActiveSession)


def test_an_account_that_nobody_confirmed_gives_way(services: Services, ada: ActiveSession) -> None:
    """A stranger who signed up with the address holds nobody off from their own mailbox."""
    sign_up(services, NEW, OTHER_PASSWORD)
    sql(
        services,
        "UPDATE users SET email_confirmation_due = true, email_verified_at = NULL WHERE email = :e",
        e=NEW,
    )
    services.changes.replay()
    change(services, ada)
    assert lets_in(services, NEW)
    assert not lets_in(services, NEW, OTHER_PASSWORD)
    assert sql(services, "SELECT count(*) FROM users") == [(1,)]


@pytest.mark.parametrize("how", ["a new password", "deactivation", "another request", "time"])
def test_a_pending_change_dies(
    services: Services, ada: ActiveSession, clock: Clock, how: str
) -> None:
    token, live = ask(services, ada), ada
    match how:
        case "a new password":
            changed = services.password_changes.change_password(
                ada, PASSWORD, OTHER_PASSWORD, CLIENT
            )
            live = changed.value.session
        case "deactivation":
            services.administration.set_active(ada.record.user.id, active=False, actor=OPERATOR)
        case "another request":
            services.email_changes.ask(ada, "ada@third.example", CLIENT)
        case _:
            clock.forward(24 * 3_600)
    with pytest.raises(InvalidToken):
        services.email_changes.confirm(token, PASSWORD, live, CLIENT)
    assert services.email_changes.look_up(token) is None


def test_a_token_for_another_purpose_changes_nothing(
    services: Services, ada: ActiveSession
) -> None:
    with services.changes.begin() as made:
        user = services.users.lock(made, ada.record.user.id, 1)
        tokens = [
            services.one_time_links.issue(made.db, purpose, user).token
            for purpose in ("verify", "reset", "undo_email")
        ]
    for token in (*tokens, "", "x", "A" * 43, "é" * 43):
        with pytest.raises(InvalidToken):
            services.email_changes.confirm(token, PASSWORD, ada, CLIENT)
    for token in (*tokens[:2], ask(services, ada), ""):
        with pytest.raises(InvalidToken):
            services.email_changes.undo(token, CLIENT)


def test_the_change_waits_where_the_old_address_can_not_be_told(
    services: Services, ada: ActiveSession, clock: Clock
) -> None:
    """Somebody who fills the cap of the old address could else have it learn nothing."""
    token = ask(services, ada)
    for number in range(9):
        with services.database.transaction() as db:
            services.outbox.put(db, Mail("test", parse_email(EMAIL), {"n": str(number)}))
    with pytest.raises(TooManyAttempts):
        services.email_changes.confirm(token, "", ada, CLIENT)
    assert lets_in(services, EMAIL)
    clock.forward(3_601)
    services.email_changes.confirm(token, PASSWORD, None, CLIENT)
    assert lets_in(services, NEW)


# -- at once, everywhere ---------------------------------------------------------------------------


def test_the_old_address_opens_nothing_on_any_instance(
    services: Services, two_instances: Services, ada: ActiveSession
) -> None:
    for instance in (services, two_instances):
        assert lets_in(instance, EMAIL)  # both hold copies
        instance.background.drain()
        assert instance.credentials.find(parse_email(EMAIL)) is not None
    change(services, ada)
    for instance in (two_instances, services):
        assert instance.credentials.find(parse_email(EMAIL)) is None
        assert not lets_in(instance, EMAIL)
        assert lets_in(instance, NEW)
        found = instance.sessions.find(ada.token)
        assert isinstance(found, ActiveSession)
        assert found.record.user.email == NEW
        assert instance.users.look_up(ada.record.user.id)[0].email == NEW  # type: ignore[union-attr]


def test_without_redis_the_old_address_opens_nothing_once_it_is_back(
    services: Services,
    two_instances: Services,
    ada: ActiveSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for instance in (services, two_instances):
        assert lets_in(instance, EMAIL)
        instance.background.drain()
        assert instance.credentials.find(parse_email(EMAIL)) is not None
    token = ask(services, ada)
    with monkeypatch.context() as patch:

        def fails(_versions: object, **_how: object) -> None:
            services.cache.breaker.open()
            raise StoreUnavailable("redis")

        patch.setattr(services.cache, "fence", fails)
        changed = services.email_changes.confirm(token, "", ada, CLIENT)
    assert not changed.everywhere, "the answer is 202"
    await_trust(services)
    for instance in (two_instances, services):
        assert instance.credentials.find(parse_email(EMAIL)) is None
        assert not lets_in(instance, EMAIL)
        assert lets_in(instance, NEW)


def test_a_log_in_that_read_the_old_address_before_begins_no_session(
    services: Services, two_instances: Services, ada: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ask(services, ada)
    begin = SessionBeginning.begin

    def late(*args: object, **kwargs: object) -> ActiveSession:
        services.email_changes.confirm(token, "", ada, CLIENT)
        return begin(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SessionBeginning, "begin", late)
    assert not lets_in(two_instances, EMAIL)


def test_the_freed_address_is_of_use_to_somebody_else(
    services: Services, ada: ActiveSession, clock: Clock
) -> None:
    change(services, ada)
    clock.forward(7 * 86_400)
    sign_up(services, EMAIL, OTHER_PASSWORD)
    assert lets_in(services, EMAIL, OTHER_PASSWORD)
    assert not lets_in(services, EMAIL)


# -- undo ------------------------------------------------------------------------------------------


def test_an_undo_gives_the_address_back_and_shuts_everybody_out(
    services: Services, two_instances: Services, ada: ActiveSession
) -> None:
    token = change(services, ada)
    thief = log_in(services, NEW)
    assert isinstance(two_instances.sessions.find(thief.token), ActiveSession)
    assert services.email_changes.undo(token, CLIENT).value == ada.record.user.id
    for instance in (two_instances, services):
        for live in (ada, thief):
            found = instance.sessions.find(live.token)
            assert found == EndedSession(EndReason.EMAIL_CHANGED)
        for email in (EMAIL, NEW):
            assert not lets_in(instance, email), "a thief may know the password"
    assert services.users.read(ada.record.user.id).user.email == EMAIL  # type: ignore[union-attr]
    assert services.users.read(ada.record.user.id).user.email_verified  # type: ignore[union-attr]
    [reset] = letters(services, "reset")
    assert reset.to == EMAIL
    assert reset.context["link"].startswith(f"{PUBLIC_URL}/reset?token=")
    with services.database.transaction() as db:
        assert services.one_time_links.look_up(db, "reset", reset.token()) is not None
    with pytest.raises(InvalidToken):
        services.email_changes.undo(token, CLIENT)


def test_an_undo_outlives_a_new_password(services: Services, ada: ActiveSession) -> None:
    token = change(services, ada)
    thief = log_in(services, NEW)
    services.password_changes.change_password(thief, PASSWORD, OTHER_PASSWORD, CLIENT)
    services.password_changes.set_password(NEW, "a third long enough password")
    services.email_changes.undo(token, CLIENT)
    for password in (PASSWORD, OTHER_PASSWORD, "a third long enough password"):
        assert not lets_in(services, EMAIL, password)


def test_a_second_change_takes_nothing_from_the_first_address(
    services: Services, ada: ActiveSession
) -> None:
    first = change(services, ada)
    second = change(services, ada, "ada@third.example")
    services.email_changes.undo(first, CLIENT)
    assert services.users.read(ada.record.user.id).user.email == EMAIL  # type: ignore[union-attr]
    with pytest.raises(InvalidToken):  # it was mailed to the address that the thief chose first
        services.email_changes.undo(second, CLIENT)


def test_pending_changes_of_a_thief_die_with_the_undo(
    services: Services, ada: ActiveSession
) -> None:
    undo = change(services, ada)
    pending = ask(services, ada, "ada@third.example")
    services.email_changes.undo(undo, CLIENT)
    with pytest.raises(InvalidToken):
        services.email_changes.confirm(pending, PASSWORD, ada, CLIENT)


def test_the_address_is_reserved_while_the_change_can_be_undone(
    services: Services, ada: ActiveSession, clock: Clock
) -> None:
    sign_up(services, OTHER, OTHER_PASSWORD)
    bob = log_in(services, OTHER, OTHER_PASSWORD)
    pending = ask(services, bob, "bob@new.example")
    token = change(services, ada)
    with pytest.raises(EmailTaken):
        sign_up(services, EMAIL, OTHER_PASSWORD)
    with pytest.raises(EmailTaken):
        services.email_changes.set_email(bob.record.user.id, EMAIL, verified=True, actor=OPERATOR)
    asked = len(letters(services, "confirm_change"))
    services.email_changes.ask(bob, EMAIL, CLIENT)
    assert len(letters(services, "confirm_change")) == asked, "no link that would lead nowhere"
    with pytest.raises(InvalidToken):
        services.email_changes.confirm(pending, "", bob, CLIENT)
    services.email_changes.undo(token, CLIENT)
    assert services.users.find(parse_email(EMAIL)).id == ada.record.user.id  # type: ignore[union-attr]
    sign_up(services, NEW, OTHER_PASSWORD)


def test_its_owner_changes_back_and_the_link_to_it_is_void(
    services: Services, ada: ActiveSession
) -> None:
    token = change(services, ada)
    back = change(services, ada, EMAIL)
    assert lets_in(services, EMAIL)
    with pytest.raises(InvalidToken):
        services.email_changes.undo(token, CLIENT)
    services.email_changes.undo(back, CLIENT)
    assert services.users.read(ada.record.user.id).user.email == NEW  # type: ignore[union-attr]


def test_an_old_address_that_nobody_verified_can_undo_nothing(services: Services) -> None:
    """It may be another person's, by a slip at sign-up: they would get the account."""
    services.registration.sign_up(EMAIL, PASSWORD, verified=False)
    live = log_in(services)
    services.email_changes.confirm(ask(services, live), "", live, CLIENT)
    old, _new = letters(services, "email_changed")
    assert old.to == EMAIL
    assert "undo_link" not in old.context
    sign_up(services, EMAIL, OTHER_PASSWORD)  # and it is not reserved


def test_the_link_expires_after_seven_days(
    services: Services, ada: ActiveSession, clock: Clock
) -> None:
    token = change(services, ada)
    clock.forward(7 * 86_400)
    with pytest.raises(InvalidToken):
        services.email_changes.undo(token, CLIENT)


def test_of_many_uses_of_an_undo_link_one_wins(
    services: Services, two_instances: Services, ada: ActiveSession
) -> None:
    token = change(services, ada)

    def undo(instance: Services) -> str:
        try:
            instance.email_changes.undo(token, CLIENT)
        except InvalidToken:
            return "void"
        return "undone"

    found = map(str, at_once(*[partial(undo, one) for one in [services, two_instances] * 5]))
    assert sorted(found) == ["undone"] + ["void"] * 9


# -- by an operator or an administrator ------------------------------------------------------------


@pytest.fixture
def admin(services: Services) -> Actor:
    admin = sign_up(services, "root@example.org")
    grant_role(services, "root@example.org", "admin")
    return Actor(admin.id, "192.0.2.99")


@pytest.mark.parametrize("verified", [False, True])
def test_an_operator_sets_an_address(
    services: Services, ada: ActiveSession, verified: bool
) -> None:
    user_id = ada.record.user.id
    changed = services.email_changes.set_email(user_id, NEW, verified=verified, actor=OPERATOR)
    assert (changed.value.email, changed.value.email_verified) == (NEW, verified)
    assert services.sessions.find(ada.token) == EndedSession(EndReason.EMAIL_CHANGED)
    assert lets_in(services, NEW)
    assert not lets_in(services, EMAIL)
    old, new = letters(services, "email_changed")
    assert (old.to, new.to) == (EMAIL, NEW)
    assert "undo_link" not in old.context
    assert "address" not in old.context


def test_what_an_administrator_did_can_be_undone(
    services: Services, ada: ActiveSession, admin: Actor
) -> None:
    services.email_changes.set_email(ada.record.user.id, NEW, verified=False, actor=admin)
    old, _new = letters(services, "email_changed")
    assert admin.address not in str(old), "where administrators sit is nobody's business"
    services.email_changes.undo(old.token("undo_link"), CLIENT)
    assert services.users.read(ada.record.user.id).user.email == EMAIL  # type: ignore[union-attr]


def test_who_may_not_set_an_address(services: Services, ada: ActiveSession, admin: Actor) -> None:
    helper = sign_up(services, "helper@example.org")
    sql(services, "INSERT INTO roles (id, name, permissions) VALUES (98, 'h', '{users:write}')")
    grant_role(services, "helper@example.org", "h")
    of_helper = Actor(helper.id, "192.0.2.98")
    set_email: EmailChanges.set_email = services.email_changes.set_email  # type: ignore[valid-type]
    cases: list[tuple[object, Actor, type[AuthappError]]] = [
        (admin.id, of_helper, ExceedsOwnPermissions),
        (ada.record.user.id, Actor(ada.record.user.id), Forbidden),
        (admin.id, admin, InvalidField),
        ("6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11", admin, UnknownUser),
    ]
    for user_id, actor, error in cases:
        with pytest.raises(error):
            set_email(user_id, NEW, verified=False, actor=actor)  # type: ignore[misc]
    with pytest.raises(EmailTaken):
        set_email(ada.record.user.id, "root@example.org", verified=False, actor=OPERATOR)  # type: ignore[misc]
    with pytest.raises(InvalidField):
        set_email(ada.record.user.id, "nobody", verified=False, actor=OPERATOR)  # type: ignore[misc]
    set_email(ada.record.user.id, NEW, verified=False, actor=of_helper)  # type: ignore[misc]


def test_another_spelling_of_the_same_address_ends_nothing(
    services: Services, ada: ActiveSession
) -> None:
    user_id = ada.record.user.id
    services.email_changes.set_email(user_id, "Ada@Example.org", verified=True, actor=OPERATOR)
    found = services.sessions.find(ada.token)
    assert isinstance(found, ActiveSession)
    assert found.record.user.email == "Ada@example.org"
    assert letters(services) == []


def test_no_event_holds_an_address(services: Services, ada: ActiveSession) -> None:
    services.email_changes.undo(change(services, ada), CLIENT)
    events = str(sql(services, "SELECT event, details::text FROM audit_events"))
    assert "email.change_undone" in events
    assert "new.example" not in events
    assert EMAIL not in events


def test_a_stale_email_proves_nothing_by_the_password_of_who_has_it_now(
    services: Services, ada: ActiveSession
) -> None:
    sign_up(services, OTHER, OTHER_PASSWORD)
    stale = msgspec.structs.replace(ada.record.user, email=OTHER)
    live = msgspec.structs.replace(ada, record=msgspec.structs.replace(ada.record, user=stale))
    with pytest.raises(InvalidCredentials):
        services.step_up.confirm(live, OTHER_PASSWORD, CLIENT)
    with pytest.raises(InvalidCredentials):
        services.password_changes.change_password(live, OTHER_PASSWORD, PASSWORD, CLIENT)


def test_an_administrator_who_fills_the_cap_first_changes_no_email(
    services: Services, ada: ActiveSession
) -> None:
    sign_up(services, "root@example.org")
    grant_role(services, "root@example.org", "admin")
    root = services.users.find(parse_email("root@example.org"))
    assert root is not None
    with services.database.transaction() as db:
        while services.outbox.put(db, Mail("reset", parse_email(EMAIL), user_id=root.id)):
            pass
    ada_id, admin = ada.record.user.id, Actor(id=root.id)
    with pytest.raises(TooManyAttempts):
        services.email_changes.set_email(ada_id, NEW, verified=False, actor=admin)
    assert services.users.find(parse_email(NEW)) is None
    assert services.sessions.find(ada.token) is not None
    assert sql(services, "SELECT count(*) FROM one_time_links") == [(0,)]
    services.email_changes.set_email(ada_id, NEW, verified=False, actor=OPERATOR)
    assert services.users.find(parse_email(NEW)) is not None
