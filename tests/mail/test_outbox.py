"""The outbox: caps that hold whoever writes, and rows that tell nothing about people."""

from concurrent.futures import ThreadPoolExecutor, wait

from authapp.accounts.emails import parse_email
from authapp.mail.outbox import Mail
from authapp.services import Services
from tests.mail.conftest import ANN, OpenMailing, put, sender_of
from tests.support.clock import Clock
from tests.support.services import sql
from tests.support.smtp import MailServer


def count(services: Services) -> int:
    ((found,),) = sql(services, "SELECT count(*) FROM outgoing_mails")
    return int(found)


def test_a_recipient_gets_so_many_mails_and_no_more_in_any_spelling(
    open_mailing: OpenMailing, clock: Clock
) -> None:
    services = open_mailing(MAIL_LIMIT_PER_RECIPIENT="3 per hour")
    for address in (ANN, "Ann@Example.org", "ANN@EXAMPLE.ORG"):
        assert put(services, address)
    assert not put(services, "ａnn@example.org")
    assert put(services, "bob@example.org")
    assert count(services) == 4
    sender_of(services).send_batch()  # what was sent counts on
    assert not put(services)
    clock.forward(3600)
    assert put(services)


def test_the_cap_of_a_recipient_is_exact_under_any_crowd(open_mailing: OpenMailing) -> None:
    instances = [open_mailing(MAIL_LIMIT_PER_RECIPIENT="7 per hour") for _ in range(2)]
    with ThreadPoolExecutor(16) as crowd:
        taken = list(crowd.map(lambda number: put(instances[number % 2]), range(48)))
    assert taken.count(True) == count(instances[0]) == 7


def test_a_mail_waits_for_one_to_the_same_recipient_that_is_being_written(
    open_mailing: OpenMailing,
) -> None:
    services, other = (open_mailing(MAIL_LIMIT_PER_RECIPIENT="1 per hour") for _ in range(2))
    with ThreadPoolExecutor(1) as meanwhile:
        with services.database.transaction() as db:
            assert services.outbox.put(db, Mail("test", parse_email(ANN)))
            second = meanwhile.submit(put, other)
            assert not wait([second], 0.3).done
            assert put(other, "bob@example.org")
        assert second.result() is False


def test_all_mails_together_have_a_cap(open_mailing: OpenMailing, clock: Clock) -> None:
    services = open_mailing(MAIL_LIMIT_TOTAL="5 per minute")
    taken = [put(services, f"p{number}@example.org") for number in range(8)]
    assert taken == [True] * 5 + [False] * 3
    clock.forward(60)
    assert put(services)


def test_without_mail_nothing_is_written(services: Services) -> None:
    assert not services.outbox.enabled
    assert services.mail_sender is None
    assert not put(services)
    assert count(services) == 0


def test_a_row_holds_neither_address_nor_content_in_clear_and_nothing_once_sent(
    mailing: Services, mail_server: MailServer
) -> None:
    token = "t" * 43
    link = f"https://auth.example.org/reset?token={token}"
    put(mailing, context={"link": link, "name": "Annabel"})
    whole = str(sql(mailing, "SELECT * FROM outgoing_mails")) + str(
        sql(mailing, "SELECT encode(sealed, 'escape') FROM outgoing_mails")
    )
    for secret in (ANN.partition("example")[0], "Annabel", token, "example"):
        assert secret not in whole
    sender_of(mailing).send_batch()
    assert sql(mailing, "SELECT sealed FROM outgoing_mails") == [(None,)]
    assert ANN in mail_server.mails[0].recipients
