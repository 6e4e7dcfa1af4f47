"""Log-in with a second factor: nothing begins before it, and each factor counts once."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.identity import Identity
from authapp.authentication.factors import pending_logins
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.factor_login import CompletedLogin
from authapp.config import Config
from authapp.errors import (
    InvalidFactor,
    InvalidField,
    LoginExpired,
    SecondFactorRequired,
    SecondFactorUnavailable,
    StoreUnavailable,
    TooManyAttempts,
)
from authapp.services import Services
from authapp.sessions.records import IssuedLogin, IssuedTokens
from authapp.sessions.store import SessionStore
from tests.support.authenticator import Authenticator, Enrolled, enrol_person
from tests.support.clock import Clock
from tests.support.mails import WITHOUT_VERIFICATION, mails
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.settings import UNLIMITED, make_config
from tests.support.threads import at_once


@pytest.fixture
def services(config: Config, clock: Clock) -> Any:
    """One instance, whose limits keep no test waiting."""
    unlimited = make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT="30 per 15 minutes",
    )
    with open_services(unlimited, clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Identity:
    return sign_up(services)


@pytest.fixture
def enrolled(services: Services, ada: Identity, clock: Clock) -> Enrolled:
    enrolled = enrol_person(services, ada, clock.now)
    clock.forward(30)
    return enrolled


def half(services: Services, password: str = PASSWORD, **how: Any) -> SecondFactorRequired:
    """A log-in that waits for its second factor."""
    with pytest.raises(SecondFactorRequired) as caught:
        log_in(services, password=password, **how)
    return caught.value


def totp(code: str) -> ShownFactor:
    return ShownFactor("totp", code)


def complete(
    services: Services, waiting: SecondFactorRequired, shown: ShownFactor, **browser: Any
) -> CompletedLogin:
    return services.factor_login.complete(waiting.login_token, shown, CLIENT, Browser(**browser))


def sessions(services: Services) -> int:
    return int(sql(services, "SELECT count(*) FROM sessions WHERE ended_at IS NULL")[0][0])


# -- the first half --------------------------------------------------------------------------------


def test_a_right_password_alone_begins_nothing(services: Services, enrolled: Enrolled) -> None:
    before = sessions(services)
    waiting = half(services)
    assert waiting.methods == ("totp", "recovery_code")
    assert not waiting.enrols
    assert waiting.expires_in == pending_logins.LASTS.total_seconds()
    with pytest.raises(SecondFactorRequired):
        services.authentication.issue_token(EMAIL, PASSWORD, CLIENT)
    assert sessions(services) == before


def test_each_way_to_log_in_asks_for_it(
    services: Services, ada: Identity, enrolled: Enrolled
) -> None:
    epoch = enrolled_epoch(services)
    ways: list[Callable[[], object]] = [
        lambda: services.authentication.log_in_as(ada.id, CLIENT),
        lambda: services.authentication.log_in_proved(ada, epoch, CLIENT, method="verification"),
        lambda: services.sessions.begin_program(ada.id, epoch, CLIENT),
    ]
    before = sessions(services)
    for way in ways[:2]:
        with pytest.raises(SecondFactorRequired):
            way()
    assert sessions(services) == before


def enrolled_epoch(services: Services) -> int:
    return int(sql(services, "SELECT epoch FROM users")[0][0])


def test_an_app_may_say_that_it_saw_a_second_factor(
    services: Services, ada: Identity, enrolled: Enrolled
) -> None:
    live = services.authentication.log_in_as(ada.id, CLIENT, amr=("pwd", "otp")).session
    assert live.record.amr == ("pwd", "otp")


def test_the_login_token_is_none_of_the_others(services: Services, enrolled: Enrolled) -> None:
    token = half(services).login_token
    assert services.tokens.check(token) is None
    assert services.refresh_tokens.check(token) is None
    assert services.access_tokens.check(token) is None
    [(stored,)] = sql(services, "SELECT digest FROM pending_logins")
    assert bytes(stored).hex() not in token
    assert token.encode() not in bytes(stored)


# -- the second half -------------------------------------------------------------------------------


def test_the_session_knows_how_it_was_proven(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    completed = complete(services, half(services), totp(enrolled.app.code(clock.now)))
    assert isinstance(completed.issued, IssuedLogin)
    live = completed.issued.session
    assert live.record.amr == ("pwd", "otp")
    assert completed.issued.devices
    found = services.sessions.find(live.token)
    assert found is not None
    [summary] = [
        s for s in services.sessions.of_user(live.record.user.id) if s.id == live.record.id
    ]
    assert summary.amr == ("pwd", "otp")


def test_a_program_gets_tokens(services: Services, enrolled: Enrolled, clock: Clock) -> None:
    with pytest.raises(SecondFactorRequired) as caught:
        services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=True)
    issued = complete(services, caught.value, totp(enrolled.app.code(clock.now))).issued
    assert isinstance(issued, IssuedTokens)
    assert issued.refresh is not None
    assert issued.session.record.amr == ("pwd", "otp")


def test_one_of_20_tries_of_a_code_wins(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    code = totp(enrolled.app.code(clock.now))
    waiting = [half(services) for _ in range(20)]
    won = at_once(*(lambda one=one: complete(services, one, code) for one in waiting))
    assert (
        sorted(type(outcome).__name__ for outcome in won)
        == ["CompletedLogin"] + ["InvalidFactor"] * 19
    )
    services.redis.flushdb()
    with pytest.raises(InvalidFactor):
        complete(services, half(services), code)


def test_no_code_of_the_neighbouring_steps_comes_back(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    now, before = enrolled.app.code(clock.now), clock.now
    clock.forward(30)
    later = enrolled.app.code(clock.now)
    complete(services, half(services), totp(later))
    for code in (now, later, enrolled.app.code(before)):
        with pytest.raises(InvalidFactor):
            complete(services, half(services), totp(code))


def test_the_clock_of_a_phone_may_be_one_step_off(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    clock.forward(60)
    app, at = enrolled.app, clock.now
    codes = []
    for seconds in (-30, 30, -60, 60):
        clock.forward(seconds)
        codes.append(app.code(clock.now))
        clock.now = at
    behind, ahead, *far = codes
    for code in far:
        with pytest.raises(InvalidFactor):
            complete(services, half(services), totp(code))
    complete(services, half(services), totp(behind))
    complete(services, half(services), totp(ahead))


def test_a_secret_waits_half_an_hour_for_its_first_code(
    services: Services, ada: Identity, clock: Clock
) -> None:
    app = Authenticator(services.factors.propose_totp(log_in(services)).secret)
    clock.forward(1_800)
    with pytest.raises(InvalidField):
        services.factors.confirm_totp(log_in(services), app.code(clock.now), CLIENT)
    app = Authenticator(services.factors.propose_totp(log_in(services)).secret)
    clock.forward(1_799)
    added = services.factors.confirm_totp(log_in(services), app.code(clock.now), CLIENT)
    assert len(added.value.recovery_codes) == 10


@pytest.mark.parametrize("spelt", ["{0:d}", "{0} ", " {0}", "{0}\n", "full-width", "0{0}", "+{0}"])
def test_a_code_is_six_ascii_digits(
    services: Services, enrolled: Enrolled, clock: Clock, spelt: str
) -> None:
    code = enrolled.app.code(clock.now)
    if spelt == "full-width":
        text = code.translate({ord("0") + n: chr(0xFF10 + n) for n in range(10)})
    elif spelt == "{0:d}":
        text = f"{int(code):x}"
    else:
        text = spelt.format(code)
    with pytest.raises(InvalidFactor):
        complete(services, half(services), totp(text))
    complete(services, half(services), totp(code))


def test_a_code_of_somebody_else_opens_nothing(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    eve = enrol_person(services, sign_up(services, "eve@example.org"), clock.now)
    with pytest.raises(InvalidFactor):
        complete(services, half(services), totp(eve.app.code(clock.now)))
    with pytest.raises(InvalidFactor):
        complete(services, half(services), ShownFactor("recovery_code", eve.recovery_codes[0]))


# -- recovery codes --------------------------------------------------------------------------------


def test_recovery_codes_are_ten_hashed_and_long(services: Services, enrolled: Enrolled) -> None:
    codes = enrolled.recovery_codes
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"(?:[A-Z2-7]{4}-){3}[A-Z2-7]{4}", code) for code in codes)
    stored = [bytes(digest) for (digest,) in sql(services, "SELECT digest FROM recovery_codes")]
    assert len(stored) == 10
    for code in codes:
        plain = code.replace("-", "").encode()
        assert not any(plain in digest for digest in stored)


def test_a_recovery_code_counts_once_of_20_tries(services: Services, enrolled: Enrolled) -> None:
    code = ShownFactor("recovery_code", enrolled.recovery_codes[3])
    waiting = [half(services) for _ in range(20)]
    won = at_once(*(lambda one=one: complete(services, one, code) for one in waiting))
    assert [type(outcome).__name__ for outcome in won].count("CompletedLogin") == 1
    assert services.factors.of(enrolled.live.record.user.id).recovery_codes_left == 9


def test_a_recovery_code_may_be_typed_carelessly(services: Services, enrolled: Enrolled) -> None:
    typed = f" {enrolled.recovery_codes[0].lower().replace('-', ' ')}  "
    complete(services, half(services), ShownFactor("recovery_code", typed))


# -- failures --------------------------------------------------------------------------------------


def test_five_failures_use_the_token_up(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    waiting = half(services)
    for _ in range(5):
        with pytest.raises(InvalidFactor):
            complete(services, waiting, totp("000000"))
    with pytest.raises(LoginExpired):
        complete(services, waiting, totp(enrolled.app.code(clock.now)))
    complete(services, half(services), totp(enrolled.app.code(clock.now)))


def test_20_failures_at_once_use_it_up_after_five(services: Services, enrolled: Enrolled) -> None:
    waiting = half(services)
    done = at_once(*[lambda: complete(services, waiting, totp("000000"))] * 20)
    names = [type(outcome).__name__ for outcome in done]
    assert (names.count("InvalidFactor"), names.count("LoginExpired")) == (5, 15)


def test_success_uses_it_up(services: Services, enrolled: Enrolled, clock: Clock) -> None:
    waiting = half(services)
    complete(services, waiting, totp(enrolled.app.code(clock.now)))
    clock.forward(30)
    with pytest.raises(LoginExpired):
        complete(services, waiting, totp(enrolled.app.code(clock.now)))


def test_it_counts_for_minutes(services: Services, enrolled: Enrolled, clock: Clock) -> None:
    waiting = half(services)
    clock.forward(pending_logins.LASTS.total_seconds())
    with pytest.raises(LoginExpired):
        complete(services, waiting, totp(enrolled.app.code(clock.now)))
    assert {progress.step for progress in services.maintenance.run()} >= {
        "log-ins that waited in vain removed"
    }
    assert sql(services, "SELECT count(*) FROM pending_logins") == [(0,)]


def test_all_log_ins_share_a_window_that_no_password_clears(config: Config, clock: Clock) -> None:
    limited = make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT="7 per 15 minutes",
    )
    with open_services(limited, clock) as services:
        enrolled = enrol_person(services, sign_up(services), clock.now)
        clock.forward(30)
        for _ in range(7):
            with pytest.raises(InvalidFactor):
                complete(services, half(services), totp("000000"))
        with pytest.raises(TooManyAttempts) as refused:
            complete(services, half(services), totp(enrolled.app.code(clock.now)))
        assert refused.value.window == "factor-account"


def test_a_hundred_failures_in_a_row_stop_the_app_and_not_the_recovery_codes(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    sql(services, "UPDATE totp_secrets SET failures = 99")
    with pytest.raises(InvalidFactor):
        complete(services, half(services), totp("000000"))
    services.redis.flushdb()
    with pytest.raises(InvalidFactor):
        complete(services, half(services), totp(enrolled.app.code(clock.now)))
    complete(services, half(services), ShownFactor("recovery_code", enrolled.recovery_codes[0]))


def test_a_log_in_that_fails_after_the_code_strands_nobody(
    services: Services, enrolled: Enrolled, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, code = half(services), totp(enrolled.app.code(clock.now))
    recovery = ShownFactor("recovery_code", enrolled.recovery_codes[0])

    def fails(*_: object, **__: object) -> None:
        raise StoreUnavailable("postgres")

    with monkeypatch.context() as broken:
        broken.setattr(services.sessions, "begin_after_factor", fails)
        for shown in (code, recovery):
            with pytest.raises(StoreUnavailable):
                complete(services, waiting, shown)
    complete(services, waiting, code)
    complete(services, half(services), recovery)


# -- what voids a log-in that waits ----------------------------------------------------------------


def _deactivate(services: Services, enrolled: Enrolled) -> None:
    services.administration.set_active(enrolled.live.record.user.id, active=False, actor=OPERATOR)


def _new_password(services: Services, _: Enrolled) -> None:
    services.password_changes.set_password(EMAIL, OTHER_PASSWORD)


def _end_all(services: Services, enrolled: Enrolled) -> None:
    services.administration.end_sessions_of(enrolled.live.record.user.id, OPERATOR)


def _reset(services: Services, enrolled: Enrolled) -> None:
    services.factors.reset(enrolled.live.record.user.id, OPERATOR)


@pytest.mark.parametrize("change", [_deactivate, _new_password, _end_all, _reset])
def test_a_change_of_the_account_voids_it(
    services: Services,
    enrolled: Enrolled,
    clock: Clock,
    change: Callable[[Services, Enrolled], None],
) -> None:
    waiting = half(services)
    change(services, enrolled)
    with pytest.raises(LoginExpired):
        complete(services, waiting, totp(enrolled.app.code(clock.now)))


# -- outages ---------------------------------------------------------------------------------------


def test_without_postgres_nobody_logs_in_with_a_factor_and_sessions_go_on(
    services: Services, enrolled: Enrolled, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = half(services)
    assert services.sessions.find(enrolled.live.token) is not None

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(services.database, "transaction", away)
    monkeypatch.setattr(services.database, "read", away)
    with pytest.raises(SecondFactorUnavailable):
        log_in(services)
    with pytest.raises(SecondFactorUnavailable):
        complete(services, waiting, totp(enrolled.app.code(clock.now)))
    assert services.sessions.find(enrolled.live.token) is not None


# -- browsers that are trusted ---------------------------------------------------------------------


def trusted(services: Services, enrolled: Enrolled, clock: Clock) -> tuple[str, ...]:
    code = totp(enrolled.app.code(clock.now))
    issued = complete(services, half(services), code, is_trusted=True).issued
    assert isinstance(issued, IssuedLogin)
    return issued.devices


def test_a_trusted_browser_skips_the_factor_for_a_while(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    devices = trusted(services, enrolled, clock)
    issued = services.authentication.log_in(EMAIL, PASSWORD, CLIENT, devices=devices)
    assert issued.session.record.amr == ("pwd",), "the browser is no factor"
    again = services.authentication.log_in(EMAIL, PASSWORD, CLIENT, devices=issued.devices)
    clock.forward(2_592_000)
    half(services, devices=again.devices)


@pytest.mark.parametrize("change", [_new_password, _end_all, _reset])
def test_trust_ends_with_a_change(
    services: Services,
    enrolled: Enrolled,
    clock: Clock,
    change: Callable[[Services, Enrolled], None],
) -> None:
    devices = trusted(services, enrolled, clock)
    change(services, enrolled)
    clock.forward(60)
    password = OTHER_PASSWORD if change is _new_password else PASSWORD
    if change is _reset:
        enrol_person(services, enrolled.live.record.user, clock.now)
    half(services, password=password, devices=devices)


def test_trust_is_of_one_account(services: Services, enrolled: Enrolled, clock: Clock) -> None:
    devices = trusted(services, enrolled, clock)
    enrol_person(services, sign_up(services, "bob@example.org"), clock.now)
    with pytest.raises(SecondFactorRequired):
        log_in(services, "bob@example.org", devices=devices)


def test_the_store_itself_begins_no_session_without_it(
    services: Services, ada: Identity, enrolled: Enrolled
) -> None:
    """Whatever a caller forgets; a version before this one is refused by the database."""
    assert isinstance(services.sessions, SessionStore)
    with pytest.raises(Exception, match="second factor"):
        services.sessions.begin(ada.id, enrolled_epoch(services), CLIENT)
    with pytest.raises(Exception, match="holds a second factor"):
        sql(
            services,
            "INSERT INTO sessions (id, digest, user_id, kind, epoch, created_at, last_seen_at,"
            " idle_seconds, expires_at) SELECT gen_random_uuid(), 'x', id, 'browser', epoch, now(),"
            " now(), 60, now() + interval '1 hour' FROM users",
        )


def test_a_code_stays_used_after_redis_was_restored_from_an_older_snapshot(
    services: Services, enrolled: Enrolled, clock: Clock
) -> None:
    waiting, code = half(services), totp(enrolled.app.code(clock.now))
    recovery = ShownFactor("recovery_code", enrolled.recovery_codes[0])
    snapshot: dict[bytes, Any] = {
        key: services.redis.dump(key) for key in services.redis.scan_iter()
    }
    complete(services, waiting, code)
    complete(services, half(services), recovery)
    services.redis.flushdb()
    for key, value in snapshot.items():
        services.redis.restore(key, 60_000, value)
    with pytest.raises(LoginExpired):
        complete(services, waiting, code)
    for used in (code, recovery):
        with pytest.raises(InvalidFactor):
            complete(services, half(services), used)


def test_the_use_of_a_recovery_code_is_told_and_recorded(config: Config, clock: Clock) -> None:
    settings = make_config(config.DATABASE_URL, config.REDIS_URL, **WITHOUT_VERIFICATION)
    with open_services(settings, clock) as services:
        enrolled = enrol_person(services, sign_up(services), clock.now)
        shown = ShownFactor("recovery_code", enrolled.recovery_codes[0])
        complete(services, half(services), shown)
        told = mails(services, "factors_changed")[-1].context
        assert (told["what"], told["left"]) == ("recovery_code_used", "9")
        [(left,)] = sql(
            services, "SELECT details->'left' FROM audit_events WHERE event = 'recovery_code.used'"
        )
        assert left == 9
