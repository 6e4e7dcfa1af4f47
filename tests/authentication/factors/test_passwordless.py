"""Accounts without a password: removed, set again, and never without a way in."""

from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

import bcrypt
import pytest

from authapp.accounts.actor import OPERATOR
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.config import Config
from authapp.errors import (
    FactorNeeded,
    InvalidCredentials,
    InvalidField,
    LoginExpired,
    NoFactor,
    NotAuthenticated,
    PasskeysOff,
    ReplacedPassword,
    SecondFactorRequired,
    StoreUnavailable,
    TooManyAttempts,
)
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from tests.support.clock import Clock
from tests.support.mails import WITHOUT_VERIFICATION, mails
from tests.support.passkey_holders import Holder, a_holder, events, settings
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in
from tests.support.services import await_trust, open_services, sql
from tests.support.sessions import ending, is_live
from tests.support.threads import at_once

ROUNDS = 4  # of each race; either may win


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    with open_services(settings(config), clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Holder:
    """A person with a passkey and recovery codes."""
    holder = a_holder(services)
    holder.add()
    return holder


def remove_password(ada: Holder) -> None:
    changed = ada.services.passwordless.remove_password(ada.live, CLIENT)
    ada.live = changed.value.session


def set_password(ada: Holder, new: str = OTHER_PASSWORD) -> None:
    changed = ada.services.passwordless.set_password(ada.live, new, CLIENT)
    ada.live = changed.value.session


def use_codes_up(services: Services, left: int = 0) -> None:
    sql(
        services,
        "UPDATE recovery_codes SET used_at = now() WHERE id NOT IN"
        " (SELECT id FROM recovery_codes ORDER BY id LIMIT :left)",
        left=left,
    )


def user_id_of(ada: Holder) -> UUID:
    return ada.live.record.user.id


# -- remove ----------------------------------------------------------------------------------------


def test_a_removed_password_opens_nothing_and_the_passkey_does(
    services: Services, ada: Holder
) -> None:
    elsewhere = ada.log_in().session
    before = ada.live
    remove_password(ada)
    assert is_live(services, ada.live)
    assert not is_live(services, before)
    assert ending(services, elsewhere) is EndReason.PASSWORD_CHANGED
    for password in (PASSWORD, "", "x"):
        with pytest.raises(InvalidCredentials):
            log_in(services, password=password)
        with pytest.raises(InvalidCredentials):
            services.authentication.issue_token(EMAIL, password, CLIENT)
    assert ada.log_in().session.record.amr == ("hwk", "user")
    assert not services.factors.of(user_id_of(ada)).has_password
    [event] = events(services, "password.removed")
    assert event[0] == user_id_of(ada)
    with pytest.raises(NoFactor):
        services.passwordless.remove_password(ada.live, CLIENT)


def test_a_log_in_without_a_password_hashes_like_a_wrong_one(
    services: Services, ada: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comparison each, of the same cost."""
    compared: list[bytes] = []
    checkpw = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        compared.append(hashed[:7])  # the kind and the cost
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    for email in (EMAIL, "nobody@example.org"):
        with pytest.raises(InvalidCredentials):
            log_in(services, email, OTHER_PASSWORD)
    remove_password(ada)
    for _ in range(2):  # before there is a copy, and after
        with pytest.raises(InvalidCredentials):
            log_in(services, password=OTHER_PASSWORD)
    assert compared == compared[:1] * 4


def test_what_the_person_holds_must_suffice(services: Services) -> None:
    nobody = a_holder(services)
    with pytest.raises(FactorNeeded):  # no passkey
        remove_password(nobody)
    nobody.add()
    use_codes_up(services)
    with pytest.raises(FactorNeeded):  # one, without codes
        remove_password(nobody)
    assert is_live(services, nobody.live)
    second = nobody.add()
    use_codes_up(services)
    remove_password(nobody)  # two, without codes
    with pytest.raises(FactorNeeded):
        nobody.remove(second)
    set_password(nobody)
    nobody.remove(second)


def test_passkeys_for_another_name_do_not_count(services: Services, ada: Holder) -> None:
    """They open nothing since the site is served under another name."""
    ada.add()
    sql(services, "UPDATE passkeys SET rp_id = 'old.example.org'")
    with pytest.raises(FactorNeeded):
        remove_password(ada)
    ada.add()
    remove_password(ada)


def test_where_passkeys_are_off_no_password_is_removed(
    config: Config, services: Services, ada: Holder, clock: Clock
) -> None:
    with open_services(settings(config, PUBLIC_URL=""), clock) as off, pytest.raises(PasskeysOff):
        off.passwordless.remove_password(ada.live, CLIENT)


def test_a_half_log_in_by_the_removed_password_is_void(services: Services, ada: Holder) -> None:
    with pytest.raises(SecondFactorRequired) as half:
        log_in(services)
    remove_password(ada)
    code = ShownFactor("recovery_code", ada.codes[0])
    with pytest.raises(LoginExpired):
        services.factor_login.complete(half.value.login_token, code, CLIENT, Browser())


def test_a_removed_password_opens_nothing_on_another_instance(
    config: Config, services: Services, ada: Holder, clock: Clock
) -> None:
    with open_services(settings(config), clock) as other:
        with pytest.raises(SecondFactorRequired):  # it has a copy now
            log_in(other)
        remove_password(ada)
        with pytest.raises(InvalidCredentials):
            log_in(other)
        other.database.breaker.open()
        with pytest.raises(StoreUnavailable):
            log_in(other)


def test_a_log_in_that_was_compared_before_the_removal_opens_nothing(
    services: Services, ada: Holder
) -> None:
    """The password was right when it was compared, and is gone when the session would begin."""
    found = services.credentials.find(services.parse_email(EMAIL))
    assert found is not None
    remove_password(ada)
    with pytest.raises(InvalidCredentials):
        services.sessions.begin(found.user.id, found.epoch, CLIENT)
    with pytest.raises(InvalidCredentials):
        services.sessions.begin_program(found.user.id, found.epoch, CLIENT)


def test_a_removal_that_postgres_loses_does_not_let_the_password_in(
    services: Services, ada: Holder
) -> None:
    before = sql(services, "SELECT password_hash, epoch, ver FROM users")
    remove_password(ada)
    services.background.drain()
    password_hash, epoch, ver = before[0]
    sql(  # a replica without the last commit has taken over
        services,
        "WITH _ AS (SELECT set_config('authapp.fenced', 'on', true)) UPDATE users"
        " SET password_hash = :password_hash, epoch = :epoch, ver = :ver FROM _",
        password_hash=password_hash,
        epoch=epoch,
        ver=ver,
    )
    with pytest.raises(ReplacedPassword):
        log_in(services)


# -- set again -------------------------------------------------------------------------------------


def test_a_password_is_set_where_there_is_none(services: Services, ada: Holder) -> None:
    with pytest.raises(InvalidField, match="current_password"):
        set_password(ada)
    remove_password(ada)
    elsewhere = ada.log_in().session
    with pytest.raises(InvalidField, match="new_password"):
        set_password(ada, "short")
    assert is_live(services, elsewhere)
    set_password(ada)
    assert not is_live(services, elsewhere)
    assert is_live(services, ada.live)
    with pytest.raises(SecondFactorRequired):  # the password alone opens nothing
        log_in(services, password=OTHER_PASSWORD)
    assert len(events(services, "password.added")) == 1
    with pytest.raises(InvalidField, match="current_password"):
        set_password(ada, PASSWORD)


def test_of_two_passwords_at_once_one_is_set(services: Services, ada: Holder) -> None:
    for _ in range(ROUNDS):
        remove_password(ada)
        outcomes = at_once(*[lambda: set_password(ada)] * 2)
        assert sorted(type(o) is type(None) for o in outcomes) == [False, True]
        ada.live = ada.log_in().session
    assert len(events(services, "password.added")) == ROUNDS


# -- the last way in, in parallel ------------------------------------------------------------------


def has_a_way_in(ada: Holder) -> bool:
    held = ada.services.factors.of(user_id_of(ada))
    return held.has_password or held.suffice_alone


def race(ada: Holder, other: Callable[[ActiveSession], object]) -> list[bool]:
    """Removes the password in one session, and does something else in another, at once. Gives
    which of them succeeded."""
    live, elsewhere = ada.log_in().session, ada.log_in().session
    removing = ada.services.passwordless.remove_password
    refusals = (FactorNeeded, NotAuthenticated, NoFactor, InvalidField, LoginExpired)
    outcomes = at_once(lambda: removing(live, CLIENT), lambda: other(elsewhere))
    for outcome in outcomes:
        assert not isinstance(outcome, Exception) or isinstance(outcome, refusals), outcome
    return [not isinstance(outcome, Exception) for outcome in outcomes]


def removal_of(services: Services, passkey_id: UUID) -> Callable[[ActiveSession], object]:
    return lambda live: services.passkeys.remove(live, passkey_id, CLIENT)


def ignoring_session(act: Callable[[], object]) -> Callable[[ActiveSession], object]:
    return lambda _: act()


def give_password_back(services: Services) -> None:
    services.password_changes.set_password(EMAIL, PASSWORD, OPERATOR)


def test_of_two_removals_at_once_one_succeeds(services: Services, ada: Holder) -> None:
    removing = services.passwordless.remove_password
    for _ in range(ROUNDS):
        assert sum(race(ada, lambda live: removing(live, CLIENT))) == 1
        give_password_back(services)
    assert len(events(services, "password.removed")) == ROUNDS


def test_of_the_password_and_the_passkey_one_stays(services: Services, ada: Holder) -> None:
    """Either is removed alone; both would leave nothing."""
    winners = set()
    for _ in range(ROUNDS):
        [passkey] = services.passkeys.of(user_id_of(ada))
        won = race(ada, removal_of(services, passkey.id))
        assert sum(won) == 1
        assert has_a_way_in(ada)
        winners.add(won.index(True))
        give_password_back(services)
        if won[1]:  # the passkey is gone
            ada.live = log_in(services)
            ada.add()
    assert winners


def test_of_the_password_and_one_of_two_passkeys_without_codes_one_stays(
    services: Services, ada: Holder
) -> None:
    [older] = services.passkeys.of(user_id_of(ada))
    newer = ada.add().passkey
    for _ in range(ROUNDS):
        use_codes_up(services)
        won = race(ada, removal_of(services, older.id))
        assert sum(won) == 1
        assert has_a_way_in(ada)
        give_password_back(services)
        ada.live = ada.log_in().session
        if won[1]:
            older, newer = newer, ada.add().passkey


def test_the_last_recovery_code_is_used_or_the_password_removed(
    services: Services, ada: Holder
) -> None:
    """A log-in by the password and the last code; then neither is there."""
    for _ in range(ROUNDS):
        codes = services.factors.make_recovery_codes(ada.log_in().session, CLIENT).value
        use_codes_up(services, left=1)
        with pytest.raises(SecondFactorRequired) as half:
            log_in(services)
        token, shown = half.value.login_token, ShownFactor("recovery_code", codes[0])

        complete = partial(services.factor_login.complete, token, shown, CLIENT, Browser())
        assert sum(race(ada, ignoring_session(complete))) == 1
        assert has_a_way_in(ada)
        give_password_back(services)


def test_new_recovery_codes_leave_a_way_in(services: Services, ada: Holder) -> None:
    for _ in range(ROUNDS):
        won = race(ada, lambda live: services.factors.make_recovery_codes(live, CLIENT))
        assert won[0]
        assert services.factors.of(user_id_of(ada)).recovery_codes_left == 10
        give_password_back(services)


# -- recovery --------------------------------------------------------------------------------------


@pytest.fixture
def with_mail(config: Config, clock: Clock) -> Iterator[Services]:
    mail = settings(config, **WITHOUT_VERIFICATION)
    with open_services(mail, clock) as services:
        yield services


@pytest.fixture
def without(with_mail: Services) -> Holder:
    """A person without a password, where there is mail."""
    holder = a_holder(with_mail)
    holder.add()
    remove_password(holder)
    return holder


def test_the_person_is_told(with_mail: Services, without: Holder) -> None:
    set_password(without)
    told = [mail.context["what"] for mail in mails(with_mail, "factors_changed")]
    assert told == ["passkey_added", "password_removed", "password_added"]


def test_a_reset_sets_a_password_and_asks_for_the_second_factor(
    with_mail: Services, without: Holder
) -> None:
    """A person who lost the only passkey proves it by two things: the mailbox, and a code."""
    with_mail.forgotten_passwords.forgot(EMAIL, CLIENT)
    [mail] = mails(with_mail, "reset")
    with_mail.password_resets.reset(mail.token, OTHER_PASSWORD, CLIENT)
    with pytest.raises(SecondFactorRequired) as half:
        log_in(with_mail, password=OTHER_PASSWORD)
    shown = ShownFactor("recovery_code", without.codes[0])
    done = with_mail.factor_login.complete(half.value.login_token, shown, CLIENT, Browser())
    assert is_live(with_mail, done.issued.session)
    assert len(events(with_mail, "password.reset")) == 1
    assert [mail.kind for mail in mails(with_mail, "password_changed")] == ["password_changed"]


def test_an_administrator_s_reset_leaves_a_way_in(with_mail: Services, without: Holder) -> None:
    with_mail.factors.reset(user_id_of(without), OPERATOR)
    [mail] = mails(with_mail, "reset")
    with pytest.raises(InvalidCredentials):
        without.log_in()
    with_mail.password_resets.reset(mail.token, OTHER_PASSWORD, CLIENT)
    assert is_live(with_mail, log_in(with_mail, password=OTHER_PASSWORD))


def test_a_reset_of_somebody_with_a_password_mails_no_link(with_mail: Services) -> None:
    holder = a_holder(with_mail)
    holder.add()
    with_mail.factors.reset(user_id_of(holder), OPERATOR)
    assert mails(with_mail, "reset") == []


def test_a_reset_that_a_cap_of_mails_refuses_changes_nothing(
    config: Config, with_mail: Services, without: Holder, clock: Clock
) -> None:
    one = settings(config, **WITHOUT_VERIFICATION, MAIL_LIMIT_PER_RECIPIENT="1 per hour")
    with open_services(one, clock) as capped, pytest.raises(TooManyAttempts):
        capped.factors.reset(user_id_of(without), OPERATOR)
    without.log_in()


def test_without_mail_factors_are_reset_once_there_is_a_password(
    services: Services, ada: Holder
) -> None:
    remove_password(ada)
    with pytest.raises(FactorNeeded, match="set-password"):
        services.factors.reset(user_id_of(ada), OPERATOR)
    ada.log_in()
    give_password_back(services)
    services.factors.reset(user_id_of(ada), OPERATOR)
    assert is_live(services, log_in(services))


def test_of_a_reset_and_a_removal_at_once_a_way_in_stays(services: Services, ada: Holder) -> None:
    for _ in range(ROUNDS):
        won = race(ada, lambda _: services.factors.reset(user_id_of(ada), OPERATOR))
        assert sum(won) == 1
        assert has_a_way_in(ada)
        give_password_back(services)
        if won[1]:
            ada.live = log_in(services)
            ada.add()


# -- outages ---------------------------------------------------------------------------------------


def test_without_postgres_nothing_is_changed(services: Services, ada: Holder) -> None:
    def away() -> None:
        raise StoreUnavailable("postgres")

    services.database.breaker.recover = away
    services.database.breaker.open()
    try:
        with pytest.raises(StoreUnavailable):
            services.passwordless.remove_password(ada.live, CLIENT)
        with pytest.raises(StoreUnavailable):
            services.passwordless.set_password(ada.live, OTHER_PASSWORD, CLIENT)
    finally:
        services.database.breaker.recover = services.database.ping
        await_trust(services)
    with pytest.raises(SecondFactorRequired):
        log_in(services)


def test_without_redis_it_works(services: Services, ada: Holder) -> None:
    def away() -> None:
        raise StoreUnavailable("redis")

    services.cache.breaker.recover = away
    services.cache.breaker.open()
    remove_password(ada)
    with pytest.raises(InvalidCredentials):
        log_in(services)
    set_password(ada)
    with pytest.raises(SecondFactorRequired):
        log_in(services, password=OTHER_PASSWORD)
