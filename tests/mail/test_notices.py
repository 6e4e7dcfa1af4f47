"""People are told what happened to their accounts, and nobody is flooded (OWASP ASVS 5.0, 6.3.5,
6.3.7)."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.emails import parse_email
from authapp.authentication import notices
from authapp.errors import InvalidCredentials, InvalidField, StoreUnavailable, TooManyAttempts
from authapp.mail.outbox import Mail
from authapp.services import Services
from authapp.sessions.beginning import SessionBeginning
from tests.mail.conftest import OpenMailing, sender_of
from tests.support.clock import Clock
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.smtp import MailServer, Received
from tests.support.traffic import traffic

HOUR = 3600.0
ELSEWHERE = replace(CLIENT, address="198.51.100.9")


def kinds(services: Services) -> list[str]:
    return [str(kind) for (kind,) in sql(services, "SELECT kind FROM outgoing_mails ORDER BY id")]


def arrive(
    services: Services, actor: Actor = CLIENT, devices: Sequence[str] = ()
) -> tuple[str, ...]:
    """Logs in; the device tokens that the browser has then."""
    issued = services.authentication.log_in(EMAIL, PASSWORD, actor, devices=devices)
    return tuple(issued.devices)


def delivered(services: Services, server: MailServer) -> list[Received]:
    before = len(server.mails)
    sender_of(services).send_batch()
    return server.mails[before:]


def assert_is_a_notice(mail: Received, *facts: str) -> None:
    """It says when, which device, from where and what to do, and no link in it logs anybody in."""
    for body in (mail.text, mail.html):
        for fact in ("4 May 2031, 12:00 UTC", *facts):
            assert fact in body
        assert "https://auth.example.org/forgot" in body
        assert "/login" not in body
        assert "token=" not in body
    assert mail.recipients == (EMAIL,)


@pytest.fixture
def settled(mailing: Services) -> Services:
    """A person who has logged in before, from CLIENT."""
    sign_up(mailing)
    arrive(mailing)
    assert kinds(mailing) == []  # the first log-in is told to nobody
    return mailing


# -- log-ins ---------------------------------------------------------------------------------------


def test_a_log_in_from_a_new_device_and_place_is_told(
    settled: Services, mail_server: MailServer
) -> None:
    arrive(settled, ELSEWHERE)
    (mail,) = delivered(settled, mail_server)
    assert mail.subject == "New log-in to your account"
    assert_is_a_notice(mail, "Firefox on Linux", "198.51.100.9", "ends all sessions")


def test_nobody_is_told_of_places_and_devices_that_are_known(settled: Services) -> None:
    arrive(settled, replace(CLIENT, address="192.0.2.200"))  # of the same network
    devices = arrive(settled)
    arrive(settled, ELSEWHERE, devices)
    arrive(settled, ELSEWHERE)  # which is known by now
    assert kinds(settled) == []
    arrive(settled, replace(CLIENT, address="2001:db8:1:1::1"))
    assert kinds(settled) == ["new_device"]
    arrive(settled, replace(CLIENT, address="2001:db8:1:2::2"))
    assert kinds(settled) == ["new_device"]
    arrive(settled, replace(CLIENT, address="2001:db8:2::1"))
    assert kinds(settled) == ["new_device"] * 2


def test_a_device_of_somebody_else_is_no_known_device(settled: Services) -> None:
    settled.registration.sign_up("bob@example.org", PASSWORD)
    issued = settled.authentication.log_in("bob@example.org", PASSWORD, ELSEWHERE)
    arrive(settled, ELSEWHERE, issued.devices)
    assert kinds(settled) == ["new_device"]


def test_programs_and_applications_are_told_of_too(settled: Services) -> None:
    settled.authentication.issue_token(EMAIL, PASSWORD, ELSEWHERE)
    assert kinds(settled) == ["new_device"]
    person = settled.users.find(parse_email(EMAIL))
    assert person is not None
    settled.authentication.log_in_as(person.id, replace(CLIENT, address="203.0.113.1"))
    assert kinds(settled) == ["new_device"] * 2


def test_events_in_between_hide_no_new_place(settled: Services, clock: Clock) -> None:
    """Whoever fails a thousand times does not make the log-in after it the first one."""
    sql(
        settled,
        "INSERT INTO audit_events (at, event, user_id) SELECT at + interval '1 second',"
        " 'login.failed', user_id FROM audit_events, generate_series(1, 300)"
        " WHERE event = 'session.begun'",
    )
    arrive(settled, ELSEWHERE)
    assert kinds(settled) == ["new_device"]


def test_many_new_places_are_folded(settled: Services, clock: Clock) -> None:
    for number in range(6):
        arrive(settled, replace(CLIENT, address=f"198.51.{number}.9"))
    assert kinds(settled) == ["new_device"] * 3
    clock.forward(HOUR)
    arrive(settled, replace(CLIENT, address="203.0.113.1"))
    assert kinds(settled) == ["new_device"] * 4


def test_a_cap_refuses_the_notice_and_not_the_log_in(open_mailing: OpenMailing) -> None:
    services = open_mailing(MAIL_LIMIT_PER_RECIPIENT="1 per hour")
    sign_up(services)
    arrive(services)
    arrive(services, ELSEWHERE)
    assert arrive(services, replace(CLIENT, address="203.0.113.1"))
    assert kinds(services) == ["new_device"]


def test_a_log_in_waits_for_no_other_mail_to_the_same_person(
    settled: Services, open_mailing: OpenMailing
) -> None:
    other = open_mailing()
    with other.database.transaction() as db:
        assert other.outbox.put(db, Mail("test", parse_email(EMAIL)))
        db.flush()
        arrive(settled, ELSEWHERE)  # LOCK_TIMEOUT would refuse it
    assert sorted(kinds(settled)) == ["new_device", "test"]


def test_while_postgres_is_away_nobody_is_told_and_the_log_in_passes(
    settled: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("postgres")

    monkeypatch.setattr(SessionBeginning, "begin", away)
    issued = settled.authentication.log_in(EMAIL, PASSWORD, ELSEWHERE)
    assert issued.session.record.provisional is not None
    assert kinds(settled) == []


def test_what_it_costs(settled: Services, services: Services) -> None:
    """A known device costs nothing more; a known place one statement; without mail nothing."""
    devices = arrive(settled)
    with traffic() as with_device:
        arrive(settled, CLIENT, devices)
    with traffic() as with_place:
        arrive(settled)
    with traffic() as without_mail:
        services.authentication.log_in(EMAIL, PASSWORD, ELSEWHERE)
    assert len(with_place.sql) == len(with_device.sql) + 1
    assert len(without_mail.sql) == len(with_device.sql)


# -- passwords -------------------------------------------------------------------------------------


def test_a_changed_password_is_told(settled: Services, mail_server: MailServer) -> None:
    live = log_in(settled)
    settled.password_changes.change_password(live, PASSWORD, OTHER_PASSWORD, CLIENT)
    (mail,) = delivered(settled, mail_server)
    assert mail.subject == "Your password was changed"
    assert_is_a_notice(mail, "Firefox on Linux", "192.0.2.7")


def test_a_password_that_an_operator_sets_is_told(
    settled: Services, mail_server: MailServer
) -> None:
    settled.password_changes.set_password(EMAIL, OTHER_PASSWORD, OPERATOR)
    (mail,) = delivered(settled, mail_server)
    assert_is_a_notice(mail)


def test_a_password_that_is_not_changed_is_not_told(settled: Services) -> None:
    with pytest.raises(InvalidField):
        settled.password_changes.change_password(
            log_in(settled), OTHER_PASSWORD, OTHER_PASSWORD, CLIENT
        )
    assert kinds(settled) == []


# -- refused log-ins -------------------------------------------------------------------------------


def fail(services: Services, times: int) -> None:
    for _ in range(times):
        with pytest.raises((InvalidCredentials, TooManyAttempts)):
            services.authentication.log_in(EMAIL, "a wrong passphrase", ELSEWHERE)
    services.refused_attempts.flush()


def test_an_unusual_number_of_refused_log_ins_is_told_once_a_day(
    settled: Services, mail_server: MailServer, clock: Clock
) -> None:
    fail(settled, notices.UNUSUAL - 1)
    assert kinds(settled) == []
    fail(settled, 1)
    (mail,) = delivered(settled, mail_server)
    assert mail.subject == "Many refused log-ins to your account"
    assert_is_a_notice(mail, "10 times", "198.51.100.9", "Nobody got in by that")
    fail(settled, 5)
    assert kinds(settled) == ["refused_logins"]
    clock.forward(86_400 + 1)
    settled.redis.flushall()  # the windows of the limits, which go by the server's clock
    fail(settled, 15)
    assert kinds(settled) == ["refused_logins"] * 2


def test_nobody_is_told_of_an_account_that_there_is_not_or_that_is_inactive(
    settled: Services,
) -> None:
    for email in ("bob@example.org", EMAIL):
        sql(settled, "UPDATE users SET active = false")
        for _ in range(12):
            with pytest.raises((InvalidCredentials, TooManyAttempts)):
                settled.authentication.log_in(email, "a wrong passphrase", ELSEWHERE)
    settled.refused_attempts.flush()
    assert kinds(settled) == []
