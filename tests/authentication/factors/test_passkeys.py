"""Passkeys: log-in, second factor and step-up by one; adding and removing; outages."""

from typing import Any

import msgspec
import pytest

from authapp.accounts.actor import OPERATOR
from authapp.accounts.assurance import level_of
from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.check import ShownFactor
from authapp.config import Config
from authapp.crypto.base64url import from_base64url
from authapp.errors import (
    FactorNeeded,
    InvalidCredentials,
    InvalidFactor,
    InvalidField,
    InvalidPasskey,
    NoSuchPasskey,
    NotAuthenticated,
    PasskeysOff,
    PasskeyTaken,
    SecondFactorRequired,
    StepUpRequired,
    StoreUnavailable,
    TooManyAttempts,
    UnknownPasskey,
)
from authapp.services import Services
from authapp.sessions.records import IssuedLogin
from tests.support.clock import Clock
from tests.support.passkey_holders import Holder, a_holder, events, settings
from tests.support.passkeys import (
    BACKED_UP,
    BACKUP_ELIGIBLE,
    PRESENT,
    VERIFIED,
    Authenticator,
    created,
    used,
)
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import open_services, sql
from tests.support.sessions import is_live
from tests.support.threads import at_once
from tests.support.traffic import traffic

SYNCED = PRESENT | VERIFIED | BACKUP_ELIGIBLE | BACKED_UP
OTHER = "bob@example.org"


@pytest.fixture
def services(config: Config, clock: Clock) -> Any:
    with open_services(settings(config), clock) as services:
        yield services


@pytest.fixture
def ada(services: Services) -> Holder:
    holder = a_holder(services)
    holder.add()
    return holder


def forget_password(services: Services) -> None:
    sql(services, "UPDATE users SET password_hash = ''")


# -- log in ----------------------------------------------------------------------------------------


def test_a_passkey_is_two_factors_and_needs_neither_email_nor_password(
    services: Services, ada: Holder, clock: Clock
) -> None:
    clock.forward(60)
    issued = ada.log_in(remember=True)
    record = issued.session.record
    assert record.user.email == EMAIL
    assert record.amr == ("hwk", "user")
    assert level_of(record.amr) == 2
    assert record.remembered
    assert not issued.devices  # no password was verified
    assert is_live(services, issued.session)
    [held] = services.passkeys.of(record.user.id)
    assert held.last_used_at == clock.now
    assert events(services, "session.begun")[-1][1]["method"] == "passkey"
    services.step_up.require_fresh(issued.session)


def test_a_synced_passkey_is_fine(services: Services) -> None:
    holder = a_holder(services, counts=False, flags=SYNCED)
    added = holder.add()
    assert added.passkey.is_synced
    for _ in range(3):
        assert holder.log_in().session.record.amr == ("swk", "user")


def test_backup_flags_lock_nobody_out(services: Services, ada: Holder) -> None:
    """An authenticator may begin to keep copies, which is noted."""
    ada.browser.passkeys[0].flags = SYNCED
    ada.log_in()
    [held] = services.passkeys.of(ada.live.record.user.id)
    assert held.is_synced


def test_a_session_that_it_replaces_ends(services: Services, ada: Holder) -> None:
    former = ada.log_in().session
    answer = used(services.passkey_login.options(), ada.browser)
    services.passkey_login.log_in(answer, CLIENT, Browser(replaces=(former.token,)))
    assert not is_live(services, former)


def test_an_answer_counts_once(services: Services, ada: Holder) -> None:
    answer = used(services.passkey_login.options(), ada.browser)
    services.passkey_login.log_in(answer, CLIENT, Browser())
    for _ in range(2):
        with pytest.raises(InvalidPasskey):
            services.passkey_login.log_in(answer, CLIENT, Browser())
        services.redis.flushall()  # ours; what was used is a fact


def test_an_answer_that_counts_nothing_counts_once(services: Services) -> None:
    """Also where no counter would tell."""
    holder = a_holder(services, counts=False)
    holder.add()
    answer = used(services.passkey_login.options(), holder.browser)
    services.passkey_login.log_in(answer, CLIENT, Browser())
    services.redis.flushall()
    with pytest.raises(InvalidPasskey):
        services.passkey_login.log_in(answer, CLIENT, Browser())


def test_of_twenty_uses_of_one_answer_one_wins(
    services: Services, two_instances: Services, config: Config, clock: Clock
) -> None:
    holder = a_holder(services, counts=False)
    holder.add()
    answer = used(services.passkey_login.options(), holder.browser)
    with open_services(settings(config), clock) as other:
        outcomes = at_once(
            *[
                lambda here=here: here.passkey_login.log_in(answer, CLIENT, Browser())
                for here in [services, other] * 10
            ]
        )
    won = [outcome for outcome in outcomes if isinstance(outcome, IssuedLogin)]
    assert len(won) == 1
    assert all(isinstance(o, InvalidPasskey) for o in outcomes if o not in won)


def test_options_are_alike_for_everybody_and_cost_no_store(services: Services, ada: Holder) -> None:
    with traffic() as cost:
        options = services.passkey_login.options()
    assert cost.sql == []
    assert cost.redis == []
    assert options.allow_credentials == []
    assert len({services.passkey_login.options().challenge for _ in range(10)}) == 10


def test_what_is_no_answer_of_ours_costs_no_look_up(services: Services, ada: Holder) -> None:
    """Only the address is counted."""
    other = services.passkeys.request_options(ada.live)
    answer = used(other, ada.browser)
    with traffic() as cost, pytest.raises(InvalidPasskey):
        services.passkey_login.log_in(answer, CLIENT, Browser())
    assert cost.sql == []


def test_attempts_count_by_address_before_anything_is_verified(
    config: Config, clock: Clock
) -> None:
    with open_services(settings(config, LOGIN_LIMIT_PER_ADDRESS="3 per minute"), clock) as services:
        holder = a_holder(services)
        holder.add()
        holder.log_in()
        holder.log_in()
        with traffic() as cost, pytest.raises(TooManyAttempts):
            holder.log_in()
        assert cost.sql == []
        assert events(services, "login.limited")


# -- refused ---------------------------------------------------------------------------------------


def test_a_counter_that_falls_is_refused_and_recorded(
    services: Services, ada: Holder, clock: Clock
) -> None:
    ada.log_in()
    ada.log_in()
    copy = ada.browser.passkeys[0]
    copy.counter = 0  # the next is 1, as it was in the first log-in
    with pytest.raises(InvalidPasskey):
        ada.log_in()
    [held] = services.passkeys.of(ada.live.record.user.id)
    assert held.counter_fell_at == clock.now
    [(user_id, details)] = events(services, "passkey.counter_fell")
    assert user_id == ada.live.record.user.id
    assert details == {"passkey": str(held.id)}
    copy.counter = 1
    with pytest.raises(InvalidPasskey):  # the same number again
        ada.log_in()
    copy.counter = 10
    ada.log_in()  # the mark stays, and locks nobody out
    assert services.passkeys.of(ada.live.record.user.id)[0].counter_fell_at


def test_a_forged_counter_marks_nothing(services: Services, ada: Holder) -> None:
    """Whoever knows the id of a passkey, and can't sign, writes nothing."""
    ada.log_in()
    real = ada.browser.passkeys[0]
    forger = Authenticator()
    forger.create(
        {"user": {"id": "AAAA"}, "rp": {"id": "auth.example.org"}, "challenge": "A"},
        key_id=real.id,
    )
    forger.passkeys[0].user_handle, forger.passkeys[0].counter = real.user_handle, -1
    with pytest.raises(InvalidPasskey):
        services.passkey_login.log_in(
            used(services.passkey_login.options(), forger), CLIENT, Browser()
        )
    assert services.passkeys.of(ada.live.record.user.id)[0].counter_fell_at is None
    assert len(events(services, "factor.refused")) == 1


def test_an_unknown_passkey_is_refused(services: Services, ada: Holder) -> None:
    stranger = Authenticator()
    stranger.create({"user": {"id": "AAAA"}, "rp": {"id": "auth.example.org"}, "challenge": "A"})
    with pytest.raises(UnknownPasskey):
        services.passkey_login.log_in(
            used(services.passkey_login.options(), stranger), CLIENT, Browser()
        )
    assert len(events(services, "login.failed")) == 1


def test_who_is_deactivated_does_not_get_in(services: Services, ada: Holder) -> None:
    services.administration.set_active(ada.live.record.user.id, active=False, actor=OPERATOR)
    with pytest.raises(InvalidPasskey):
        ada.log_in()


def test_a_passkey_is_its_person_s(services: Services, ada: Holder) -> None:
    """The user handle of another person under one's own key is refused."""
    bob = a_holder(services, OTHER)
    bob.add()
    bob.browser.passkeys[0].user_handle = ada.browser.passkeys[0].user_handle
    with pytest.raises(InvalidPasskey):
        bob.log_in()


def test_one_passkey_does_not_belong_to_two_people(services: Services, ada: Holder) -> None:
    bob = a_holder(services, OTHER)
    with pytest.raises(PasskeyTaken):
        bob.add(key_id=ada.browser.passkeys[0].id)
    with pytest.raises(PasskeyTaken):
        ada.add(key_id=ada.browser.passkeys[0].id)
    ada.log_in(ada.browser.passkeys[0])


# -- add, rename, remove ---------------------------------------------------------------------------


def test_a_challenge_makes_one_passkey(services: Services, ada: Holder) -> None:
    options = services.passkeys.creation_options(ada.live)
    first, second = (created(options, Authenticator()) for _ in range(2))
    ada.live = services.passkeys.enrol(ada.live, first, "", CLIENT).value.issued.session
    with pytest.raises(InvalidField) as refused:
        services.passkeys.enrol(ada.live, second, "", CLIENT)
    assert list(refused.value.errors) == ["credential"]
    assert len(services.passkeys.of(ada.live.record.user.id)) == 2


def test_an_answer_under_the_id_of_another_passkey_is_refused(
    services: Services, ada: Holder
) -> None:
    made = created(services.passkeys.creation_options(ada.live), Authenticator())
    other = created(services.passkeys.creation_options(ada.live), Authenticator())
    for spoilt in (
        msgspec.structs.replace(made, id=other.id, raw_id=other.raw_id),
        msgspec.structs.replace(made, id=other.id),
    ):
        with pytest.raises(InvalidField):
            services.passkeys.enrol(ada.live, spoilt, "", CLIENT)
    assert len(services.passkeys.of(ada.live.record.user.id)) == 1


def test_the_first_passkey_brings_recovery_codes_and_ends_other_sessions(
    services: Services,
) -> None:
    holder = a_holder(services)
    before, elsewhere = holder.live, log_in(services)
    added = holder.add()
    assert len(added.recovery_codes) == 10
    assert not is_live(services, before)
    assert not is_live(services, elsewhere)
    assert is_live(services, holder.live)
    assert set(holder.live.record.amr) == {"pwd", "hwk", "user"}
    assert holder.add().recovery_codes == ()
    assert [e[1]["what"] for e in events(services, "factor.added")] == ["passkey_added"] * 2


def test_each_has_a_name(services: Services, ada: Holder, clock: Clock) -> None:
    services.passkeys.rename(ada.live, services.passkeys.of(ada.live.record.user.id)[0].id, "Phone")
    clock.forward(1)
    ada.add("  My   laptop ")
    clock.forward(1)
    ada.add()
    names = [held.name for held in services.passkeys.of(ada.live.record.user.id)]
    assert names == ["Phone", "My laptop", "Firefox on Linux"]


@pytest.mark.parametrize("name", ["x" * 101, "a\0b", "\u202e", " "])
def test_names_that_can_not_be_shown_are_refused(
    services: Services, ada: Holder, name: str
) -> None:
    [held] = services.passkeys.of(ada.live.record.user.id)
    with pytest.raises(InvalidField):
        services.passkeys.rename(ada.live, held.id, name)


def test_nobody_touches_another_person_s(services: Services, ada: Holder) -> None:
    bob = a_holder(services, OTHER)
    bobs = bob.add()
    with pytest.raises(NoSuchPasskey):
        services.passkeys.rename(ada.live, bobs.passkey.id, "mine")
    with pytest.raises(NoSuchPasskey):
        services.passkeys.remove(ada.live, bobs.passkey.id, CLIENT)
    bob.log_in()


def test_a_removed_passkey_opens_nothing(services: Services, ada: Holder) -> None:
    second = ada.add()
    ada.remove(second)
    with pytest.raises(UnknownPasskey):
        ada.log_in()
    ada.log_in(ada.browser.passkeys[0])
    assert [e[1]["what"] for e in events(services, "factor.removed")] == ["passkey_removed"]


def test_without_the_last_one_the_password_is_enough(services: Services) -> None:
    holder = a_holder(services)
    added = holder.add()
    with pytest.raises(SecondFactorRequired):
        log_in(services)
    holder.remove(added)
    log_in(services)


def test_the_browser_learns_which_passkeys_count(services: Services, ada: Holder) -> None:
    accepted = services.passkeys.accepted(ada.live.record.user.id)
    assert accepted is not None
    assert accepted.rp_id == "auth.example.org"
    assert from_base64url(accepted.user_handle) == ada.browser.passkeys[0].user_handle
    assert [from_base64url(i) for i in accepted.credential_ids] == [ada.browser.passkeys[0].id]


def test_the_user_handle_is_random_and_stays(services: Services, ada: Holder) -> None:
    bob = a_holder(services, OTHER)
    bob.add()
    bob.add()
    ada.add()
    handles = [passkey.user_handle for passkey in ada.browser.passkeys + bob.browser.passkeys]
    assert len(set(handles)) == 2
    assert {len(handle) for handle in handles} == {64}


def test_options_name_the_passkeys_that_there_are(services: Services, ada: Holder) -> None:
    """So that a device makes no second one, and offers the right ones."""
    held = ada.browser.passkeys[0].id
    made = services.passkeys.creation_options(ada.live)
    asked = services.passkeys.request_options(ada.live)
    for descriptors in (made.exclude_credentials, asked.allow_credentials):
        [named] = descriptors
        assert from_base64url(named.id) == held
        assert named.transports == ["hybrid", "internal"]


def test_an_answer_adds_one_passkey(services: Services, ada: Holder) -> None:
    made = created(services.passkeys.creation_options(ada.live), ada.browser)
    services.passkeys.enrol(ada.live, made, "", CLIENT)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the session has another token
        services.passkeys.enrol(ada.live, made, "", CLIENT)
    assert len(services.passkeys.of(ada.live.record.user.id)) == 2


# -- second factor ---------------------------------------------------------------------------------


def waiting(services: Services) -> SecondFactorRequired:
    with pytest.raises(SecondFactorRequired) as caught:
        log_in(services)
    return caught.value


def shown(answer: Any) -> ShownFactor:

    return ShownFactor("passkey", credential=answer)


def test_it_is_a_second_factor(services: Services, ada: Holder) -> None:
    half = waiting(services)
    assert half.methods == ("recovery_code", "passkey")
    options = services.passkey_login.second_factor_options(half.login_token)
    assert [from_base64url(d.id) for d in options.allow_credentials] == [ada.browser.passkeys[0].id]
    issued = services.factor_login.complete(
        half.login_token, shown(used(options, ada.browser)), CLIENT
    ).issued
    assert issued.session.record.amr == ("pwd", "hwk", "user")


def test_as_a_second_factor_it_counts_for_its_log_in_alone(services: Services, ada: Holder) -> None:
    bob = a_holder(services, OTHER)
    bob.add()
    half = waiting(services)
    options = services.passkey_login.second_factor_options(half.login_token)
    others = [
        used(options, bob.browser),  # another person's
        used(services.passkey_login.options(), ada.browser),  # of a log-in by passkey
        used(
            services.passkey_login.second_factor_options(waiting(services).login_token),
            ada.browser,
        ),
        used(services.passkeys.request_options(ada.live), ada.browser),  # of a step-up
    ]
    for answer in others:
        with pytest.raises(InvalidFactor):
            services.factor_login.complete(half.login_token, shown(answer), CLIENT)
    answer = used(options, ada.browser)
    services.factor_login.complete(half.login_token, shown(answer), CLIENT)


def test_without_a_credential_it_is_a_wrong_factor(services: Services, ada: Holder) -> None:
    with pytest.raises(InvalidFactor):
        services.factor_login.complete(
            waiting(services).login_token, ShownFactor("passkey"), CLIENT
        )


# -- step-up ---------------------------------------------------------------------------------------


def test_it_is_a_fresh_proof_in_this_session_alone(
    services: Services, ada: Holder, clock: Clock
) -> None:
    bob = a_holder(services, OTHER)
    bob.add()
    elsewhere = ada.log_in().session
    clock.forward(601)
    with pytest.raises(StepUpRequired):
        services.step_up.require_fresh(ada.live)
    options = services.passkeys.request_options(ada.live)
    others = [
        used(options, bob.browser),  # another person's
        used(services.passkeys.request_options(elsewhere), ada.browser),  # of another session
        used(services.passkey_login.options(), ada.browser),  # of a log-in
    ]
    for answer in others:
        with pytest.raises(InvalidField):
            services.step_up.confirm_by_factor(ada.live, shown(answer), CLIENT)
    with pytest.raises(InvalidField):  # with a second factor the password alone is no proof
        services.step_up.confirm(ada.live, PASSWORD, CLIENT)
    before = ada.live
    answer = used(options, ada.browser)
    fresh = services.step_up.confirm_by_factor(before, shown(answer), CLIENT).value.session
    services.step_up.require_fresh(fresh)
    assert not is_live(services, before)
    with pytest.raises(StepUpRequired):
        services.step_up.require_fresh(elsewhere)
    clock.forward(600)
    with pytest.raises(StepUpRequired):
        services.step_up.require_fresh(fresh)
    with pytest.raises((InvalidField, NotAuthenticated)):  # it was used
        services.step_up.confirm_by_factor(fresh, shown(answer), CLIENT)


# -- no password -----------------------------------------------------------------------------------


def test_the_last_way_in_can_not_be_removed(services: Services, ada: Holder) -> None:
    second = ada.add()
    forget_password(services)
    ada.live = ada.log_in().session
    ada.remove(second)  # a passkey and recovery codes are left
    [last] = services.passkeys.of(ada.live.record.user.id)
    with pytest.raises(FactorNeeded):
        services.passkeys.remove(ada.live, last.id, CLIENT)
    third = ada.add()
    sql(services, "UPDATE recovery_codes SET used_at = now()")
    with pytest.raises(FactorNeeded):  # one passkey without codes is not enough
        services.passkeys.remove(ada.live, third.passkey.id, CLIENT)
    assert len(services.passkeys.of(ada.live.record.user.id)) == 2
    ada.log_in()


def test_without_a_password_none_is_right(services: Services, ada: Holder) -> None:
    forget_password(services)
    for password in ("", " ", "x"):
        with pytest.raises(InvalidCredentials):
            log_in(services, password=password)


# -- off, and outages ------------------------------------------------------------------------------


@pytest.mark.parametrize("public_url", ["", "http://auth.example.org", "https://192.0.2.7"])
def test_where_browsers_refuse_them_they_are_off(
    config: Config, clock: Clock, public_url: str
) -> None:
    with open_services(settings(config, PUBLIC_URL=public_url), clock) as services:
        sign_up(services)
        live = log_in(services)
        assert services.passkeys.why_off
        for way in (
            services.passkey_login.options,
            lambda: services.passkeys.creation_options(live),
            lambda: services.passkeys.request_options(live),
        ):
            with pytest.raises(PasskeysOff, match="There are no passkeys here"):
                way()
        assert services.passkeys.accepted(live.record.user.id) is None


def test_without_postgres_nobody_logs_in_by_a_passkey(services: Services, ada: Holder) -> None:
    def away() -> None:
        raise StoreUnavailable("postgres")

    assert is_live(services, ada.live)
    services.database.breaker.recover = away
    services.database.breaker.open()
    try:
        with pytest.raises(StoreUnavailable):
            ada.log_in()
        assert is_live(services, ada.live)
    finally:
        services.database.breaker.recover = services.database.ping


def test_without_redis_nothing_changes(services: Services, ada: Holder) -> None:
    def away() -> None:
        raise StoreUnavailable("redis")

    services.cache.breaker.recover = away
    services.cache.breaker.open()
    ada.log_in()
    ada.add()
    ada.log_in()
