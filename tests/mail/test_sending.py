"""Mails leave in the background: at least once, in time, and whatever the server does."""

import threading
import time
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise

import pytest

from authapp import dev
from authapp.accounts.emails import parse_email
from authapp.errors import StoreUnavailable
from authapp.mail import sending
from authapp.mail.outbox import Mail
from authapp.mail.queue import LEASE, Claimed
from authapp.mail.transport import Unreachable
from authapp.services import Services
from authapp.storage.models import User
from authapp.telemetry import metrics
from tests.mail.conftest import (
    ANN,
    OpenMailing,
    impatient_sender,
    put,
    sender_of,
    transport_to,
)
from tests.support.clock import Clock
from tests.support.people import sign_up
from tests.support.services import sql
from tests.support.smtp import MailServer, silent_server
from tests.support.threads import no_thread_left
from tests.support.waiting import wait_until

HOUR = 3600.0


def rows(services: Services) -> list[tuple[object, ...]]:
    """Of each mail: sent, failed, attempts, whether its content is kept, the error."""
    return sql(
        services,
        "SELECT sent_at IS NOT NULL, failed_at IS NOT NULL, attempts, sealed IS NOT NULL,"
        " last_error FROM outgoing_mails ORDER BY id",
    )


SENT = (True, False, 1, False, "")


def counted(outcome: str) -> float:
    return float(metrics.MAILS.labels(outcome)._value.get())


# -- once ------------------------------------------------------------------------------------------


def test_a_mail_leaves_soon_after_the_commit_and_not_before(
    mailing: Services, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "POLL", 600.0)  # so that only the commit can wake the thread
    queued, sent = counted("queued"), counted("sent")
    sender = sender_of(mailing)
    with no_thread_left(), pytest.raises(RuntimeError):
        sender.keep_running()
    sender.keep_running()
    sender.keep_running()  # of no effect
    assert [thread.name for thread in threading.enumerate()].count("mail") == 1
    put(mailing)
    mail_server.wait_for(ANN)
    with mailing.database.transaction() as db:
        mailing.outbox.put(db, Mail("test", parse_email("nobody@example.org")))
        db.rollback()
    put(mailing, "bob@example.org")
    mail_server.wait_for("bob@example.org")
    wait_until(lambda: rows(mailing) == [SENT, SENT])
    assert mail_server.to("nobody@example.org") == []
    assert (counted("queued") - queued, counted("sent") - sent) == (2, 2)


def test_a_mail_of_another_process_leaves_too(
    mailing: Services,
    open_mailing: OpenMailing,
    mail_server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "POLL", 0.05)
    sender_of(mailing).keep_running()
    put(open_mailing())  # it does not send
    mail_server.wait_for(ANN)


def test_instances_share_the_queue_and_each_mail_leaves_once(
    open_mailing: OpenMailing, mail_server: MailServer
) -> None:
    instances = [open_mailing(MAIL_LIMIT_PER_RECIPIENT="1000 per hour") for _ in range(3)]
    for number in range(120):
        put(instances[0], f"p{number % 40}@example.org")
    for services in instances:
        sender_of(services).keep_running()
    wait_until(lambda: rows(instances[0]).count(SENT) == 120)
    assert len(mail_server.mails) == 120
    assert {len(mail_server.to(f"p{number}@example.org")) for number in range(40)} == {3}


def test_no_transaction_is_open_while_the_server_is_waited_for(
    mailing: Services, mail_server: MailServer
) -> None:
    put(mailing)
    mail_server.freezes_after_data = True
    thread = threading.Thread(target=sender_of(mailing).send_batch)
    thread.start()
    mail_server.wait_for(ANN)
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert sql(mailing, open_ones) == [(0,)]
    mail_server.thaw()
    thread.join()
    assert rows(mailing) == [SENT]


# -- crashes ---------------------------------------------------------------------------------------


def test_a_sender_that_dies_before_it_notes_a_mail_makes_it_arrive_twice_and_no_more(
    mailing: Services, mail_server: MailServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    put(mailing)
    for crashes in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr(mailing.mail_queue, "settle", die)
            with pytest.raises(Killed):
                sender_of(mailing).send_batch()
        sender_of(mailing)._outcomes.clear()  # they were the dead one's
        assert len(mail_server.mails) == crashes
        assert not sender_of(mailing).send_batch()  # the lease lasts
        clock.forward(LEASE.total_seconds())
    assert sender_of(mailing).send_batch()
    assert len(mail_server.mails) == 2
    assert rows(mailing) == [(False, True, 2, False, sending.GOT_TWICE)]
    first, second = (mail.message["Message-ID"] for mail in mail_server.mails)
    assert first == second  # so that mail programs can tell


def test_a_mail_that_kills_its_sender_takes_no_other_mail_with_it(
    mailing: Services, mail_server: MailServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mails are noted in groups, of which all may have been given away when the process died."""
    for number in range(5):
        put(mailing, f"p{number}@example.org")
    give = sending.MailSender._give

    class Killed(BaseException):
        pass

    def kill_at_third(self: object, connection: object, mail: Claimed, *rest: object) -> None:
        if mail.id == third:
            raise Killed
        give(self, connection, mail, *rest)  # type: ignore[arg-type]

    ((third,),) = sql(mailing, "SELECT id FROM outgoing_mails ORDER BY id OFFSET 2 LIMIT 1")
    monkeypatch.setattr(sending.MailSender, "_give", kill_at_third)
    for _ in range(4):
        with suppress(Killed):
            sender_of(mailing).send_batch()
        sender_of(mailing)._outcomes.clear()  # they were the dead one's
        clock.forward(LEASE.total_seconds())
    counts = [len(mail_server.to(f"p{number}@example.org")) for number in range(5)]
    assert counts == [2, 2, 0, 1, 1]
    assert [row[0] for row in rows(mailing)] == [True, True, False, True, True]


def test_a_sender_that_dies_before_it_begins_does_no_harm(
    mailing: Services, open_mailing: OpenMailing, mail_server: MailServer, clock: Clock
) -> None:
    put(mailing)
    (claimed,) = mailing.mail_queue.claim(10)
    other = open_mailing()
    assert not sender_of(other).send_batch()
    clock.forward(LEASE.total_seconds())
    assert sender_of(other).send_batch()
    assert mailing.mail_queue.begin([claimed]) == set()  # it was frozen, and wakes up too late
    assert rows(mailing) == [SENT]
    assert len(mail_server.mails) == 1


def test_a_sender_that_was_frozen_does_not_take_a_mail_from_who_has_it_now(
    mailing: Services, open_mailing: OpenMailing, clock: Clock
) -> None:
    put(mailing)
    (frozen,) = mailing.mail_queue.claim(10)
    clock.forward(LEASE.total_seconds())
    other = open_mailing()
    (claimed,) = other.mail_queue.claim(10)
    assert other.mail_queue.begin([claimed]) == {claimed.id}
    assert mailing.mail_queue.begin([frozen]) == set()


def test_a_server_that_dies_after_data_gets_a_mail_twice_at_most(
    mailing: Services, mail_server: MailServer, clock: Clock
) -> None:
    mail_server.dies_after_data = 1
    put(mailing)
    sender_of(mailing).send_batch()
    assert rows(mailing) == [
        (False, False, 1, True, "after DATA: the server closed the connection")
    ]
    clock.forward(HOUR)
    sender_of(mailing).send_batch()
    assert len(mail_server.to(ANN)) == 2
    assert rows(mailing)[0][:2] == (True, False)

    mail_server.dies_after_data = 3
    put(mailing, "bob@example.org")
    for _ in range(4):
        sender_of(mailing).send_batch()
        clock.forward(HOUR)
    assert len(mail_server.to("bob@example.org")) == 2
    assert rows(mailing)[1][1:4] == (True, 2, False)


def test_postgres_goes_away_between_sending_and_noting(
    mailing: Services, mail_server: MailServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("postgres")

    put(mailing)
    with monkeypatch.context() as patched:
        patched.setattr(mailing.mail_queue, "settle", away)
        with pytest.raises(StoreUnavailable):
            sender_of(mailing).send_batch()
    clock.forward(LEASE.total_seconds())
    assert not sender_of(mailing).send_batch()
    assert rows(mailing) == [SENT]
    assert len(mail_server.mails) == 1


def test_the_thread_outlives_an_outage_of_postgres(
    mailing: Services,
    mail_server: MailServer,
    postgres: dev.PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "POLL", 0.05)
    sender_of(mailing).keep_running()
    claim, asked = mailing.mail_queue.claim, []

    def away(limit: int) -> object:
        asked.append(limit)
        if len(asked) < 3:
            raise StoreUnavailable("postgres")
        if len(asked) == 3:
            raise ZeroDivisionError  # a defect
        return claim(limit)

    monkeypatch.setattr(sending, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(mailing.mail_queue, "claim", away)
    put(mailing)
    mail_server.wait_for(ANN)


# -- servers that are away, hang, or refuse --------------------------------------------------------


def test_while_the_server_is_away_mails_wait_and_nothing_is_held_against_them(
    mailing: Services, mail_server: MailServer, clock: Clock
) -> None:
    for number in range(3):
        put(mailing, f"p{number}@example.org")
    with silent_server() as url:
        pass
    gone = impatient_sender(mailing, url, clock)
    for _ in range(5):
        with pytest.raises(Unreachable):
            gone.send_batch()
    assert rows(mailing) == [(False, False, 0, True, "connect: Connection refused")] * 3
    assert sender_of(mailing).send_batch()
    assert rows(mailing) == [SENT] * 3


@pytest.mark.parametrize("hangs", ["at once", "at MAIL", "after DATA"])
def test_a_server_that_hangs_delays_no_request_and_every_mail_arrives(
    open_mailing: OpenMailing,
    mail_server: MailServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    hangs: str,
) -> None:
    """A short while stands for the minute, and half a second for each time-out while it hangs."""
    mailing = open_mailing()
    monkeypatch.setattr(sending, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(sending, "POLL", 0.05)
    sender = impatient_sender(mailing, mail_server.url, clock)
    put(mailing, "first@example.org")
    mail_server.freezes_after_data = hangs == "after DATA"
    mail_server.freezes_at_mail = hangs == "at MAIL"
    if hangs == "at once":
        mail_server.freeze()
    sender.keep_running()
    started = time.monotonic()
    for number in range(10):
        assert put(mailing, f"p{number}@example.org")
    assert time.monotonic() - started < 10  # writing waits for no server
    time.sleep(1)  # some time-outs
    sender._transport = transport_to(mail_server.url)  # or a late answer would be a time-out
    time.sleep(0.7)  # the last of the others
    mail_server.thaw()

    def all_arrived() -> bool:
        clock.forward(1)  # the mail at hand was put off
        return all(row[0] for row in rows(mailing))

    wait_until(all_arrived, lambda: rows(mailing), pause=0.05)
    for number in range(10):
        assert mail_server.to(f"p{number}@example.org")
    sender.stop()
    twice = [mail for mail in mail_server.mails if len(mail_server.to(mail.recipients[0])) > 1]
    assert {mail.recipients for mail in twice} <= (
        {("first@example.org",)} if hangs == "after DATA" else set()
    )


def test_a_mail_that_is_refused_for_good_is_dropped_at_once(
    mailing: Services, mail_server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    failed = counted("failed")
    mail_server.replies[ANN] = f"550 5.1.1 {ANN}: no such user"
    put(mailing)
    put(mailing, "bob@example.org")
    sender_of(mailing).send_batch()
    assert rows(mailing) == [(False, True, 1, False, "RCPT: 550 5.1.1"), SENT]
    assert counted("failed") - failed == 1
    assert "mail_dropped" in caplog.text
    assert "ann" not in caplog.text


def test_a_mail_that_is_refused_for_now_is_tried_again_later_and_later(
    mailing: Services, mail_server: MailServer, clock: Clock
) -> None:
    mail_server.replies["RCPT"] = "450 4.2.0 greylisted"
    put(mailing)
    pauses = []
    for attempts in range(1, 7):
        sender_of(mailing).send_batch()
        assert rows(mailing) == [(False, False, attempts, True, "RCPT: 450 4.2.0")]
        ((pause,),) = sql(mailing, "SELECT extract(epoch FROM next_attempt_at) FROM outgoing_mails")
        pauses.append(float(pause) - clock.now.timestamp())
        assert not sender_of(mailing).send_batch()
        clock.forward(pauses[-1] + 0.001)
    assert 12 <= pauses[0] <= 18
    assert all(1.3 < after / before < 3 for before, after in pairwise(pauses))
    mail_server.replies.clear()
    sender_of(mailing).send_batch()
    assert rows(mailing) == [(True, False, 7, False, "")]


def test_a_mail_is_dropped_when_its_link_has_expired_or_after_a_day(
    mailing: Services, mail_server: MailServer, clock: Clock
) -> None:
    expired = counted("expired")
    put(mailing, expires_at=clock.now + timedelta(minutes=30))
    put(mailing)
    clock.forward(1800)
    mail_server.replies["RCPT"] = "450 later"
    sender_of(mailing).send_batch()
    assert [row[1] for row in rows(mailing)] == [True, False]
    clock.forward(86_400)
    sender_of(mailing).send_batch()
    assert [row[1:4:2] for row in rows(mailing)] == [(True, False)] * 2
    assert counted("expired") - expired == 2
    assert mail_server.mails == []


def test_a_mail_whose_key_is_gone_is_dropped(
    mailing: Services, open_mailing: OpenMailing, mail_server: MailServer
) -> None:
    put(mailing)
    sender_of(open_mailing(SECRET_KEY="another secret key of 32 bytes or more")).send_batch()
    assert [row[1] for row in rows(mailing)] == [True]
    assert mail_server.mails == []


def test_a_mail_whose_template_is_broken_waits_for_another_release(
    mailing: Services, mail_server: MailServer, clock: Clock
) -> None:
    put(mailing, kind="of tomorrow")  # type: ignore[arg-type]
    put(mailing, "bob@example.org")
    sender_of(mailing).send_batch()
    assert rows(mailing) == [(False, False, 0, True, "template: TemplateNotFound"), SENT]


# -- the end, and what stays -----------------------------------------------------------------------


def test_the_end_of_a_process_waits_for_the_mail_at_hand_and_gives_the_others_back(
    mailing: Services, mail_server: MailServer
) -> None:
    for number in range(3):
        put(mailing, f"p{number}@example.org")
    mail_server.freezes_after_data = True
    sender = sender_of(mailing)
    sender.keep_running()
    mail_server.wait_for("p0@example.org")

    def thaw_in_the_end() -> None:
        assert sender._stopped.wait(30)
        time.sleep(0.3)
        mail_server.thaw()

    threading.Thread(target=thaw_in_the_end).start()
    sender.stop()
    assert rows(mailing)[0] == SENT
    assert rows(mailing)[1:] == [(False, False, 1, True, "the process ended")] * 2
    assert len(mailing.mail_queue.claim(10)) == 2


def test_old_mails_are_removed(mailing: Services, clock: Clock) -> None:
    put(mailing)
    sender_of(mailing).send_batch()
    put(mailing, "bob@example.org")
    clock.forward(86_400 * 29)
    assert [progress.step for progress in mailing.maintenance.run()] == []
    clock.forward(86_400 * 2)
    steps = [(progress.step, progress.rows) for progress in mailing.maintenance.run()]
    assert steps == [("old mails removed", 1)]
    assert len(rows(mailing)) == 1  # the one that waits is for the sender to drop


def test_links_that_expired_long_ago_are_removed(mailing: Services, clock: Clock) -> None:
    sign_up(mailing)
    with mailing.database.transaction() as db:
        mailing.one_time_links.issue(db, "reset", db.query(User).one())
    clock.forward(86_400 * 30)
    assert [progress.step for progress in mailing.maintenance.run()] == []
    clock.forward(1800 + 1)
    assert [progress.step for progress in mailing.maintenance.run()] == ["old links removed"]
    assert sql(mailing, "SELECT * FROM one_time_links") == []


def test_the_metrics_tell_how_many_wait_and_how_long(mailing: Services, clock: Clock) -> None:
    put(mailing)
    clock.forward(90)
    put(mailing, "bob@example.org")
    mailing.note_pending()
    assert metrics.MAILS_WAITING._value.get() == 2
    assert metrics.OLDEST_MAIL_SECONDS._value.get() == 90
    sender_of(mailing).send_batch()
    mailing.note_pending()
    assert metrics.MAILS_WAITING._value.get() == 0
    assert metrics.OLDEST_MAIL_SECONDS._value.get() == 0
