"""Sign-up, log-in, log-out and passwords, and what a stranger can learn from them: nothing."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import bcrypt
import email_validator
import pytest

from authapp.accounts import emails
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.store import UserStore
from authapp.config import Config
from authapp.errors import (
    Busy,
    EmailTaken,
    InvalidCredentials,
    InvalidField,
    NotAuthenticated,
    StoreUnavailable,
    TooManyAttempts,
    UnknownRole,
    UnknownUser,
)
from authapp.passwords import constant_time
from authapp.passwords.hashing import PasswordHasher
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from authapp.storage.models import User
from tests.support.clock import Clock
from tests.support.hashing import hashing
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.sessions import ending, is_live
from tests.support.settings import PEPPER, make_config
from tests.support.threads import at_once

WRONG = "not the password of anyone"


def can_log_in(services: Services, password: str) -> bool:
    try:
        log_in(services, password=password)
    except InvalidCredentials:
        return False
    return True


def field_errors(work: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(InvalidField) as caught:
        work()
    return caught.value.errors


# -- sign up -----------------------------------------------------------------------------------


def test_who_signs_up_can_log_in(services: Services) -> None:
    ada = services.registration.sign_up("Ada@Example.org", PASSWORD, "  Ada \n King ")
    assert (ada.email, ada.name, ada.roles) == ("Ada@example.org", "Ada King", ("user",))
    assert log_in(services, "ADA@example.ORG").record.user == ada


def test_all_that_is_wrong_is_told_at_once(services: Services) -> None:
    errors = field_errors(lambda: services.registration.sign_up("ada", "short", "x" * 101))
    assert set(errors) == {"email", "password", "name"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"email": "ada\0@example.org"}, "email"),
        ({"password": "ada@example.org"}, "password"),
        ({"password": "Ada King" * 2, "name": "Ada King"}, "password"),
        ({"password": "lone surrogate \ud800"}, "password"),
        ({"name": "nul \0"}, "name"),
        ({"name": "right to left \u202e"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x" * 101}, "name"),
    ],
)
def test_bad_input_signs_nobody_up(services: Services, values: dict[str, str], field: str) -> None:
    given: dict[str, Any] = {"email": EMAIL, "password": PASSWORD, "name": "Ada"} | values
    with hashing() as costs:
        assert set(field_errors(lambda: services.registration.sign_up(**given))) == {field}
    assert costs == []
    assert services.users.page().users == []


@pytest.mark.parametrize("again", [EMAIL, "ADA@EXAMPLE.ORG", "ａｄａ@example.org"])
def test_a_taken_email_is_refused(services: Services, again: str) -> None:
    sign_up(services)
    with pytest.raises(EmailTaken):
        sign_up(services, again, OTHER_PASSWORD)
    assert can_log_in(services, PASSWORD)
    assert not can_log_in(services, OTHER_PASSWORD)


def test_an_unknown_role_is_refused(services: Services) -> None:
    with pytest.raises(UnknownRole):
        services.registration.sign_up(EMAIL, PASSWORD, roles=("auditor",))
    assert services.users.page().users == []


# -- log in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "x" * 72 + "-the end counts",
        "with a nul \0 and more",
        "äö" * 50 + "ß und drei Wörter dazu!",
        "e\u0301l" * 3 + " \u0301a nave va in alto mare",
    ],
)
def test_every_password_works_whole(services: Services, password: str) -> None:
    sign_up(services, password=password)
    assert can_log_in(services, password)
    assert not can_log_in(services, password[:-1])
    assert not can_log_in(services, password[:73] + "?")


def test_composed_and_decomposed_spellings_log_in(services: Services) -> None:
    sign_up(services, password="caf\u00e9 au lait, encore")
    assert can_log_in(services, "cafe\u0301 au lait, encore")


def refused_log_in(services: Services, email: str, password: str) -> tuple[object, ...]:
    """All that a caller can tell of a refusal, and the bcrypt work it took."""
    with hashing() as costs, pytest.raises(InvalidCredentials) as caught:
        log_in(services, email, password)
    error = caught.value
    told = vars(error)
    window = told.pop("rate_limit")  # whose count each attempt changes, whatever the reason
    return type(error), str(error), error.args, told, (window.policy, window.quota), costs


def test_an_issued_log_in_shows_no_token(services: Services) -> None:
    sign_up(services)
    issued = services.authentication.log_in(EMAIL, PASSWORD, CLIENT)
    assert issued.devices
    for secret in (issued.session.token.text, *issued.devices):
        assert secret not in repr(issued)


def test_an_email_is_parsed_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_up(services)
    parsed: list[str] = []
    validate = email_validator.validate_email

    def noted(text: str, **how: Any) -> Any:
        parsed.append(text)
        return validate(text, **how)

    monkeypatch.setattr(emails, "validate_email", noted)
    live = log_in(services)
    assert parsed == [EMAIL]
    with pytest.raises(InvalidCredentials):
        log_in(services, password=WRONG)
    assert parsed == [EMAIL] * 2
    services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    assert parsed == [EMAIL] * 3
    sign_up(services, "bob@example.org")
    assert len(parsed) == 4


def test_a_password_does_not_grow_old(services: Services, clock: Clock) -> None:
    sign_up(services)
    clock.forward(20 * 365 * 86_400)
    assert is_live(services, log_in(services))


@pytest.mark.parametrize("rounds", [4, 5])
def test_a_refusal_does_not_tell_why(config: Config, clock: Clock, rounds: int) -> None:
    costly = make_config(config.DATABASE_URL, config.REDIS_URL, BCRYPT_ROUNDS=rounds)
    with open_services(costly, clock) as services:
        for name in ("ada", "inactive", "broken", "retired"):
            sign_up(services, f"{name}@example.org")
        by_hand = "UPDATE users SET {} WHERE email_canonical = '{}@example.org'"
        sql(services, by_hand.format("active = false", "inactive"))
        sql(services, by_hand.format("password_hash = 'not a hash'", "broken"))
        sql(services, by_hand.format("password_hash = 'x' || password_hash", "retired"))
        services.changes.catch_up()
        wrong = refused_log_in(services, EMAIL, WRONG)
        assert wrong[-1] == [rounds]
        assert refused_log_in(services, "nobody@example.org", PASSWORD) == wrong
        for name in ("inactive", "broken", "retired"):
            for password in (PASSWORD, WRONG):
                assert refused_log_in(services, f"{name}@example.org", password) == wrong
        for password in ("", "\0", "\ud800", "x" * 10_000):
            assert refused_log_in(services, EMAIL, password) == wrong
            assert refused_log_in(services, "nobody@example.org", password) == wrong


def test_what_is_no_email_is_told_so(services: Services) -> None:
    with hashing() as costs:
        assert set(field_errors(lambda: log_in(services, "ada"))) == {"email"}
    assert costs == []


def test_a_log_in_replaces_the_session_the_browser_had(services: Services) -> None:
    sign_up(services)
    before = log_in(services)
    after = log_in(services, replaces=[before.token])
    assert after.token != before.token
    assert ending(services, before) is EndReason.REPLACED
    assert is_live(services, after)


def test_a_log_in_that_fails_ends_nothing(services: Services) -> None:
    sign_up(services)
    before = log_in(services)
    with pytest.raises(InvalidCredentials):
        log_in(services, password=WRONG, replaces=[before.token])
    assert is_live(services, before)


def test_remember_me(services: Services) -> None:
    sign_up(services)
    assert log_in(services, remember=True).record.remembered
    assert not log_in(services).record.remembered


@pytest.mark.parametrize(
    "change",
    ["epoch = epoch + 1, password_hash = 'another'", "epoch = epoch + 1, active = false"],
)
def test_a_password_changed_while_it_was_verified_opens_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sign_up(services)
    verify = PasswordHasher.verify

    def verify_slowly(*args: Any) -> Any:
        verdict = verify(*args)
        sql(services, f"UPDATE users SET {change}")
        return verdict

    monkeypatch.setattr(PasswordHasher, "verify", verify_slowly)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    assert sql(services, "SELECT id FROM sessions") == []


def test_who_logs_in_while_their_sessions_are_ended_is_in(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All trust from before ends, and the password still is right: the session begins after it."""
    ada = sign_up(services)
    verify = PasswordHasher.verify

    def verify_slowly(*args: Any) -> Any:
        verdict = verify(*args)
        services.administration.end_sessions_of(ada.id, OPERATOR)
        return verdict

    monkeypatch.setattr(PasswordHasher, "verify", verify_slowly)
    assert is_live(services, log_in(services))


@pytest.mark.parametrize(
    "settings",
    [
        {"BCRYPT_ROUNDS": 5},
        {"PASSWORD_PEPPER": f"a new pepper of thirty-two bytes,{PEPPER}"},
    ],
    ids=["rounds", "pepper"],
)
def test_a_log_in_makes_an_outdated_hash_anew(
    services: Services, config: Config, clock: Clock, settings: dict[str, Any]
) -> None:
    sign_up(services)
    before = log_in(services)
    stored = sql(services, "SELECT password_hash, epoch FROM users")[0]
    with open_services(
        make_config(config.DATABASE_URL, config.REDIS_URL, **settings), clock
    ) as later:
        log_in(later)
        fresh = sql(services, "SELECT password_hash, epoch FROM users")[0]
        assert fresh[0] != stored[0]
        assert fresh[1] == stored[1]
        with hashing() as costs:
            log_in(later)
        assert len(costs) == 1
        assert sql(services, "SELECT password_hash, epoch FROM users")[0] == fresh
        assert is_live(later, before)


def test_a_log_out_is_final(services: Services) -> None:
    sign_up(services)
    live, other = log_in(services), log_in(services)
    services.authentication.log_out(live.token, CLIENT)
    services.authentication.log_out(live.token, CLIENT)
    assert ending(services, live) is EndReason.LOGOUT
    assert is_live(services, other)


# -- limits ------------------------------------------------------------------------------------


def outcomes(services: Services, *attempts: tuple[str, str, str]) -> tuple[list[str], int]:
    """The outcome of each attempt (email, password, address), and how often bcrypt ran."""
    results = []
    with hashing() as costs:
        for email, password, address in attempts:
            try:
                services.authentication.log_in(email, password, Actor(address=address))
                results.append("in")
            except InvalidCredentials:
                results.append("401")
            except TooManyAttempts as refused:
                results.append("429" if refused.retry_after >= 1 else "429 without a time")
    return results, len(costs)


def addresses(count: int) -> list[str]:
    return [f"198.51.100.{number}" for number in range(count)]


def test_guessing_at_an_account_is_refused_before_hashing(services: Services) -> None:
    sign_up(services)
    attempts = [(EMAIL, WRONG, address) for address in addresses(13)]
    assert outcomes(services, *attempts) == (["401"] * 10 + ["429"] * 3, 10)
    assert outcomes(services, (EMAIL, PASSWORD, "203.0.113.1")) == (["429"], 0)


def test_an_unknown_account_is_limited_alike(services: Services) -> None:
    attempts = [("nobody@example.org", WRONG, address) for address in addresses(13)]
    assert outcomes(services, *attempts) == (["401"] * 10 + ["429"] * 3, 10)


def test_spellings_of_an_email_share_a_window(services: Services) -> None:
    sign_up(services)
    spellings = [EMAIL, "ADA@example.org", "ａｄａ@example.org", " ada@EXAMPLE.org "] * 3
    attempts = list(zip(spellings, [WRONG] * 12, addresses(12), strict=True))
    assert outcomes(services, *attempts) == (["401"] * 10 + ["429"] * 2, 10)


def by_page(services: Services, address: str) -> object:
    return services.authentication.log_in(EMAIL, PASSWORD, Actor(address=address))


def by_program(services: Services, address: str) -> object:
    return services.authentication.issue_token(EMAIL, PASSWORD, Actor(address=address))


@pytest.mark.parametrize("enter", [by_page, by_program])
def test_an_owner_who_logs_in_often_is_not_locked_out(
    services: Services, enter: Callable[[Services, str], object]
) -> None:
    sign_up(services)
    for address in addresses(30):
        enter(services, address)
    assert outcomes(services, (EMAIL, WRONG, "203.0.113.1")) == (["401"], 1)


def stays_away() -> None:
    raise StoreUnavailable("redis")


@pytest.mark.parametrize("enter", [by_page, by_program])
@pytest.mark.parametrize("redis_is_away", [False, True])
def test_log_ins_of_the_owner_buy_nobody_a_guess(
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    enter: Callable[[Services, str], object],
    *,
    redis_is_away: bool,
) -> None:
    """Seen before: 72 guesses in 4 s beside 8 log-ins, each of which cleared the window."""
    sign_up(services)
    if redis_is_away:
        monkeypatch.setattr(services.cache.breaker, "recover", stays_away)
        monkeypatch.setattr(services.authentication._limits, "_workers", 1)
        services.cache.breaker.open()
    guesses: list[str] = []
    for number, address in enumerate(addresses(40)):
        guesses += outcomes(services, (EMAIL, WRONG, address))[0]
        if number % 5 == 0:
            with suppress(TooManyAttempts):
                enter(services, f"203.0.113.{number}")
    assert guesses == ["401"] * 10 + ["429"] * 30


def test_guesses_beside_log_ins_at_the_same_moment_are_all_counted(services: Services) -> None:
    sign_up(services)

    def guess() -> int:
        compared = 0
        for address in addresses(6):
            with suppress(TooManyAttempts, Busy):
                try:
                    services.authentication.log_in(EMAIL, WRONG, Actor(address=address))
                except InvalidCredentials:
                    compared += 1
        return compared

    def enter() -> int:
        for address in addresses(6):
            with suppress(TooManyAttempts, Busy):
                by_program(services, address)
        return 0

    compared = at_once(*[guess] * 4, *[enter] * 2)
    assert all(isinstance(each, int) for each in compared), compared
    before = sum(each for each in compared if isinstance(each, int))
    rest = outcomes(services, *[(EMAIL, WRONG, address) for address in addresses(12)])[0]
    assert before + rest.count("401") == 10


def test_guessing_from_an_address_is_refused_before_hashing(services: Services) -> None:
    emails = [f"user{number}@example.org" for number in range(22)]
    attempts = [(email, WRONG, "192.0.2.7") for email in emails]
    assert outcomes(services, *attempts) == (["401"] * 20 + ["429"] * 2, 20)
    assert outcomes(services, (emails[0], WRONG, "192.0.2.8")) == (["401"], 1)


def test_an_ipv6_customer_is_one_address(services: Services) -> None:
    emails = [f"user{number}@example.org" for number in range(22)]
    attempts = [(email, WRONG, f"2001:db8::{n:x}") for n, email in enumerate(emails)]
    assert outcomes(services, *attempts) == (["401"] * 20 + ["429"] * 2, 20)
    assert outcomes(services, (emails[0], WRONG, "2001:db8:0:1::1")) == (["401"], 1)


def test_a_success_does_not_clear_the_address(services: Services) -> None:
    """Otherwise somebody with an account could guess at others without end."""
    sign_up(services)
    attempts = [(EMAIL, PASSWORD, "192.0.2.7")] * 22
    assert outcomes(services, *attempts) == (["in"] * 20 + ["429"] * 2, 20)


def sign_up_from(services: Services, address: str | None, count: int) -> tuple[int, int]:
    """How many of so many sign-ups pass, and how often bcrypt ran."""
    passed = 0
    with hashing() as costs, suppress(TooManyAttempts):
        for _ in range(count):
            email = f"{len(sql(services, 'SELECT 1 FROM users'))}@example.org"
            if address is None:
                services.registration.sign_up(email, PASSWORD)
            else:
                services.registration.sign_up_from(Actor(address=address), email, PASSWORD)
            passed += 1
    return passed, len(costs)


def test_sign_ups_from_an_address_are_limited_before_hashing(services: Services) -> None:
    assert sign_up_from(services, "192.0.2.7", 22) == (20, 20)
    assert sign_up_from(services, "192.0.2.8", 1) == (1, 1)
    assert outcomes(services, (EMAIL, PASSWORD, "192.0.2.7"))[0] == ["401"], "log-ins have another"


def test_who_is_told_what_is_wrong_with_a_sign_up_used_up_nothing(services: Services) -> None:
    for _ in range(22):
        with pytest.raises(InvalidField):
            services.registration.sign_up_from(CLIENT, "ada", PASSWORD)
    assert sign_up_from(services, CLIENT.address, 1) == (1, 1)


def test_the_operator_signs_up_whom_they_like(services: Services) -> None:
    assert sign_up_from(services, None, 22) == (22, 22)


# -- a new password ----------------------------------------------------------------------------


@pytest.fixture
def live(services: Services) -> ActiveSession:
    sign_up(services)
    return log_in(services)


def change(
    services: Services, live: ActiveSession, current: str = PASSWORD, new: str = OTHER_PASSWORD
) -> ActiveSession:
    changed = services.password_changes.change_password(live, current, new, CLIENT)
    return changed.value.session


def test_a_new_password_ends_all_sessions_and_begins_a_new_one(
    services: Services, live: ActiveSession
) -> None:
    services.sessions.patch(live, {"cart": 1}, [])
    found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    others = [log_in(services, remember=True), log_in(services)]
    for other in others:
        services.sessions.find(other.token)
    fresh = change(services, found)
    assert fresh.token != live.token
    for ended in (live, *others):
        assert ending(services, ended) is EndReason.PASSWORD_CHANGED
    assert is_live(services, fresh)
    assert [s.id for s in services.sessions.of_user(live.record.user.id)] == [fresh.record.id]
    assert fresh.record.data == {"cart": 1}
    assert can_log_in(services, OTHER_PASSWORD)
    assert not can_log_in(services, PASSWORD)


def test_what_a_parallel_request_saved_outlives_the_change(
    services: Services, live: ActiveSession
) -> None:
    services.sessions.patch(live, {"cart": 1}, [])  # not known to `live`
    found = services.sessions.find(change(services, live).token)
    assert isinstance(found, ActiveSession)
    assert found.record.data == {"cart": 1}


def test_a_change_in_flight_during_log_out_brings_no_session_back(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-out while the change runs wins, and nothing was changed."""
    other = log_in(services)
    hash_ = PasswordHasher.hash

    def log_out_then_hash(self: PasswordHasher, password: str) -> str:
        services.authentication.log_out(live.token, CLIENT)
        return hash_(self, password)

    monkeypatch.setattr(PasswordHasher, "hash", log_out_then_hash)
    with pytest.raises(NotAuthenticated) as caught:
        change(services, live)
    assert caught.value.presented
    assert ending(services, live) is EndReason.LOGOUT
    assert [s.id for s in services.sessions.of_user(live.record.user.id)] == [other.record.id]
    assert is_live(services, other)
    monkeypatch.undo()
    assert can_log_in(services, PASSWORD)
    assert not can_log_in(services, OTHER_PASSWORD)
    assert sql(services, "SELECT 1 FROM audit_events WHERE event = 'password.changed'") == []


def test_a_remembered_device_stays_remembered(services: Services) -> None:
    sign_up(services)
    fresh = change(services, log_in(services, remember=True))
    assert fresh.record.remembered


def test_both_limits_begin_anew(services: Services, live: ActiveSession, clock: Clock) -> None:
    clock.forward(1_000)
    fresh = change(services, live)
    assert fresh.record.created_at == clock.now
    assert fresh.record.expires_at - live.record.expires_at == clock.now - live.record.created_at


@pytest.mark.parametrize(
    ("current", "new", "field"),
    [
        (WRONG, OTHER_PASSWORD, "current_password"),
        (WRONG, "short", "current_password"),
        ("", OTHER_PASSWORD, "current_password"),
        (PASSWORD, "short", "new_password"),
        (PASSWORD, EMAIL, "new_password"),
        (PASSWORD, "\ud800" * 20, "new_password"),
    ],
)
def test_a_refused_change_changes_nothing(
    services: Services, live: ActiveSession, current: str, new: str, field: str
) -> None:
    other = log_in(services)
    assert set(field_errors(lambda: change(services, live, current, new))) == {field}
    assert is_live(services, live)
    assert is_live(services, other)
    assert can_log_in(services, PASSWORD)


def test_guessing_the_current_password_is_limited(services: Services, live: ActiveSession) -> None:
    for _ in range(10):
        field_errors(lambda: change(services, live, WRONG))
    with hashing() as costs, pytest.raises(TooManyAttempts):
        change(services, live)
    assert costs == []


def test_a_password_changed_meanwhile_is_not_overwritten(
    services: Services, live: ActiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who change it at once, both with the old one: the second is refused."""
    lock = UserStore.lock

    def second(*args: Any) -> User:
        monkeypatch.undo()
        services.password_changes.set_password(EMAIL, OTHER_PASSWORD)
        return lock(*args)

    monkeypatch.setattr(UserStore, "lock", second)
    with pytest.raises(InvalidCredentials):
        change(services, live, new="a third passphrase, also long")
    assert can_log_in(services, OTHER_PASSWORD)
    assert ending(services, live) is EndReason.PASSWORD_CHANGED


def test_an_operator_sets_a_password(services: Services, live: ActiveSession) -> None:
    services.sessions.find(live.token)
    services.password_changes.set_password("ADA@example.org", OTHER_PASSWORD)
    assert ending(services, live) is EndReason.PASSWORD_CHANGED
    assert services.sessions.of_user(live.record.user.id) == []
    assert can_log_in(services, OTHER_PASSWORD)
    assert not can_log_in(services, PASSWORD)


def test_an_operator_is_told_what_is_wrong(services: Services, live: ActiveSession) -> None:
    set_password = services.password_changes.set_password
    assert set(field_errors(lambda: set_password("ada", OTHER_PASSWORD))) == {"email"}
    assert set(field_errors(lambda: set_password(EMAIL, "short"))) == {"password"}
    with pytest.raises(UnknownUser):
        set_password("nobody@example.org", OTHER_PASSWORD)
    assert is_live(services, live)


# -- profile -----------------------------------------------------------------------------------


def test_people_change_their_profile(services: Services, live: ActiveSession) -> None:
    image = "https://img.example/ada.png?size=1"
    user_id = live.record.user.id
    changed = services.users.update_profile(user_id, " Ada  King ", image, CLIENT).value
    assert (changed.name, changed.image) == ("Ada King", image)
    found = services.sessions.find(live.token)
    assert isinstance(found, ActiveSession)
    assert found.record.user == changed


@pytest.mark.parametrize(
    ("name", "image", "field"),
    [
        ("x" * 101, "", "name"),
        ("nul \0", "", "name"),
        ("", "javascript:alert(1)", "image"),
        ("", "http://img.example/ada.png", "image"),
        ("", "//img.example/ada.png", "image"),
        ("", "https://", "image"),
        ("", "https://user:secret@img.example/", "image"),
        ("", "https://img.example:port/", "image"),
        ("", "https://[/", "image"),
        ("", "https://img.example/\0", "image"),
        ("", "https://img.example/a b", "image"),
        ("", "https://img.example/" + "x" * 2_048, "image"),
    ],
)
def test_a_bad_profile_is_refused(
    services: Services, live: ActiveSession, name: str, image: str, field: str
) -> None:
    user = live.record.user
    update = services.users.update_profile
    assert set(field_errors(lambda: update(user.id, name, image, CLIENT))) == {field}
    assert services.users.get(user.id) == user


# -- audit -------------------------------------------------------------------------------------


def test_what_happened_is_on_record_without_secrets(
    services: Services, live: ActiveSession
) -> None:
    fresh = change(services, live)
    services.password_changes.set_password(EMAIL, PASSWORD)
    events = sql(services, "SELECT event, address, details::text FROM audit_events ORDER BY id")
    names = [event for event, _, _ in events]
    assert names.count("password.changed") == names.count("password.set") == 1
    assert {"user.created", "session.begun", "session.ended"} <= set(names)
    text = str(events)
    for secret in (PASSWORD, OTHER_PASSWORD, EMAIL, live.token.text, fresh.token.text):
        assert secret not in text


def test_a_copy_that_is_behind_refuses_no_new_password(
    services: Services, two_instances: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password was changed where Redis could not be reached, so its old copy is still there."""
    sign_up(services)
    live = log_in(services)
    two_instances.authentication.log_in(EMAIL, PASSWORD, CLIENT)

    def lost(_versions: object, **_how: bool) -> None:
        services.cache.breaker.open()
        raise StoreUnavailable("redis")

    monkeypatch.setattr(services.cache, "fence", lost)
    services.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    assert services.changes.pending(), "the copy is not behind, so this shows nothing"
    two_instances.authentication.log_in(EMAIL, OTHER_PASSWORD, CLIENT)
    with pytest.raises(InvalidCredentials):
        two_instances.authentication.log_in(EMAIL, PASSWORD, CLIENT)


def changed_by_hand(services: Services, change: str) -> None:
    """So that the copy of the credentials is behind until somebody catches up."""
    log_in(services)
    sql(services, f"UPDATE users SET {change} WHERE email = :e", e=EMAIL)
    assert services.changes.pending(), "the copy is not behind, so this shows nothing"


def test_who_does_not_match_a_copy_is_hashed_for_once_more_only_where_that_may_match(
    services: Services,
) -> None:
    """The second hash takes time, and a refusal without an account must not take it."""
    sign_up(services)
    for change, hashes in (
        ("name = 'Countess'", 1),
        ("password_hash = password_hash || ' '", 2),  # as good as another one
        ("active = false", 1),
    ):
        changed_by_hand(services, change)
        with hashing() as costs, pytest.raises(InvalidCredentials):
            log_in(services, password=WRONG)
        assert len(costs) == hashes, change
        services.changes.catch_up()
        sql(services, "UPDATE users SET password_hash = trim(password_hash), active = true")
        services.changes.catch_up()


def test_who_was_activated_again_is_not_refused_by_a_copy_that_is_behind(
    services: Services,
) -> None:
    sign_up(services)
    sql(services, "UPDATE users SET active = false")
    services.changes.catch_up()
    with pytest.raises(InvalidCredentials):
        log_in(services)  # which fills the copy
    services.background.drain()
    sql(services, "UPDATE users SET active = true")
    assert services.changes.pending(), "the copy is not behind, so this shows nothing"
    log_in(services)


def test_a_refusal_takes_its_time_beside_all_its_hashing(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside the second, where the copy is behind."""
    sign_up(services)
    changed_by_hand(services, "password_hash = password_hash || ' '")
    took = 0.2

    def slowly(_password: bytes, _hashed: bytes) -> bool:
        time.sleep(took)
        return False

    monkeypatch.setattr(constant_time, "REFUSAL_SECONDS", 0.3)
    monkeypatch.setattr(bcrypt, "checkpw", slowly)
    begun = time.perf_counter()
    with pytest.raises(InvalidCredentials):
        log_in(services, password=WRONG)
    assert time.perf_counter() - begun >= 2 * took + 0.3
