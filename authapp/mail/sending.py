"""Sending: a thread of each process takes mails from the queue and gives them to the transport."""

import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from authapp.accounts.emails import Email
from authapp.errors import StoreUnavailable
from authapp.mail.messages import Messages
from authapp.mail.outbox import Letter, MailKind
from authapp.mail.queue import Claimed, MailQueue, Outcome
from authapp.mail.transport import (
    Connection,
    DeliveryFailed,
    RenderedMail,
    Transport,
    Unconfirmed,
    Unreachable,
)
from authapp.telemetry import metrics
from authapp.telemetry.deferred import before_end
from authapp.telemetry.logging import get_logger

BATCH = 20  # mails that are claimed at once
GROUP = 5  # mails that are noted in Postgres at once, before and after they are given to the server
POLL = 5.0  # seconds between two looks for mails that other processes wrote, or that are due again
PAUSES = (1.0, 60.0)  # seconds after the server could not be reached: at first, at most
RETRIES = (timedelta(seconds=15), timedelta(hours=1))  # after a mail was refused: first, at most
GIVE_UP = timedelta(days=1)  # how long a mail is tried
UNCONFIRMED = 2  # attempts whose outcome nobody knows: more could deliver a mail more than twice
GOT_TWICE = "the server got it twice and never said whether it took it"
_END_SECONDS = 5.0  # that the end of a process waits for the mail at hand

_log = get_logger(__name__)


class MailSender:
    """Sends mails from a thread, so that no request waits for a mail server.

    A mail is given to the server at least once, and at most twice where the server, or this
    process, dies before the answer is noted down.

    Args:
        open_letter: opens the sealed part of a mail; None: the key is gone.
    """

    def __init__(
        self,
        queue: MailQueue,
        open_letter: Callable[[bytes], Letter | None],
        messages: Messages,
        transport: Transport,
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._open_letter = open_letter
        self._messages = messages
        self._transport = transport
        self._clock = clock
        self._connection: Connection | None = None
        self._outcomes: list[Outcome] = []  # that are not noted down yet
        self._failures = 0  # since the server could last be reached
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def keep_running(self) -> None:
        """Starts the thread in this process, which ends with `stop` or with the process."""
        if self._process != os.getpid():  # forked: the thread, and what it had, is the parent's
            self._connection, self._outcomes = None, []
            self._begin()
        if self._thread is None and not self._stopped.is_set():
            thread = threading.Thread(target=self._loop, name="mail", daemon=True)
            thread.start()  # fails where the system has none to give; the next request tries again
            self._thread = thread
            before_end(self.stop)

    def wake(self) -> None:
        """Has the thread look at once."""
        self._due.set()

    def send_now(self, kind: MailKind, to: Email) -> str:
        """Sends a mail past the queue, in the caller's thread; for operators.

        Returns:
            where it is now.
        Raises:
            DeliveryFailed, Unreachable, Unconfirmed
        """
        letter = Letter(to.stored, {})
        mail = self._messages.render(kind, letter, self._clock(), secrets.randbits(63))
        connection = self._transport.connect()
        try:
            connection.send(mail)
        finally:
            connection.close()
        return self._transport.destination

    def stop(self) -> None:
        """Begins no mail any more, and waits a moment for the one at hand."""
        self._stopped.set()
        self._due.set()
        if self._thread is not None and self._process == os.getpid():
            self._thread.join(_END_SECONDS)

    def _loop(self) -> None:
        while not self._stopped.is_set():
            pause = self._pause_after_batch()
            if pause is None:
                continue
            self._close()
            if self._failures:  # nothing that is new makes the server answer
                self._stopped.wait(pause)
            else:
                self._due.wait(pause)
                self._due.clear()
        self._close()

    def _pause_after_batch(self) -> float | None:
        """Sends a batch; seconds to wait then, None if there may be more to do at once."""
        spread = random.uniform(0.8, 1.2)  # noqa: S311 — spreads the load
        try:
            is_busy = self.send_batch()
        except Unreachable as error:
            first, last = PAUSES
            pause: float = min(last, first * 2.0 ** min(self._failures, 10)) * spread
            self._failures += 1
            _log.warning("mail_server_unreachable", reason=error.reason, pause=round(pause, 1))
            return pause
        except StoreUnavailable as error:
            _log.warning("mail_postponed", store=error.store)
            return POLL * spread
        except Exception:  # noqa: BLE001 - a defect must not end the thread, and with it all mail
            _log.exception("mail_sending_failed")
            return PAUSES[1] * spread
        self._failures = 0
        return None if is_busy else POLL * spread

    def send_batch(self) -> bool:
        """Sends mails that are due; whether there were any.

        Raises:
            Unreachable: the mails wait on.
            StoreUnavailable: Postgres could not be asked.
        """
        self._note_outcomes()
        claimed = self._queue.claim(BATCH)
        waiting = list(claimed)
        try:
            for group in _groups(claimed):
                if self._stopped.is_set():
                    break
                self._send(group, waiting)
        except Unreachable as error:
            self._close()
            self._queue.release(waiting, error.reason)
            raise
        self._queue.release(waiting)
        self._note_outcomes()
        return bool(claimed)

    def _send(self, group: Sequence[Claimed], waiting: list[Claimed]) -> None:
        """Sends the mails of a group, or drops them, or puts them off.

        Args:
            waiting: mails that were claimed and not begun; those of the group leave it.
        Raises:
            Unreachable, StoreUnavailable
        """
        ready: dict[int, RenderedMail] = {}
        for mail in group:
            if rendered := self._render(mail):
                ready[mail.id] = rendered
            else:
                waiting.remove(mail)
        if not ready:
            return
        self._connected()
        sent = [mail for mail in group if mail.id in ready]
        begun = self._queue.begin(sent, self._outcomes)
        self._outcomes = []
        for mail in sent:
            waiting.remove(mail)
        unsent = [mail for mail in sent if mail.id in begun]
        why = "the process ended"
        try:
            while unsent and not self._stopped.is_set():
                connection = self._connected()
                self._give(connection, unsent.pop(0), ready)
        except Unreachable as error:
            why = error.reason
            raise
        finally:
            now = self._clock()
            self._outcomes += [Outcome(mail.id, why, now) for mail in unsent]

    def _connected(self) -> Connection:
        """The connection, which is opened if there is none.

        Raises:
            Unreachable
        """
        if self._connection is None:
            self._connection = self._transport.connect()
        return self._connection

    def _render(self, mail: Claimed) -> RenderedMail | None:
        """The mail as it leaves; None if it is dropped or put off."""
        if why := self._why_useless(mail):
            self._end(mail, "expired", Outcome(mail.id, why, was_begun=False))
            return None
        letter = self._open_letter(mail.sealed) if mail.sealed else None
        if letter is None:
            why = "SECRET_KEY has lost the key of this mail"
            self._end(mail, "failed", Outcome(mail.id, why, was_begun=False))
            return None
        try:
            return self._messages.render(mail.kind, letter, mail.created_at, mail.id)
        except Exception as error:  # noqa: BLE001 - templates are the app's own, and may be mended
            self._put_off(mail, f"template: {type(error).__name__}", was_begun=False)
            return None

    def _give(
        self, connection: Connection, mail: Claimed, ready: Mapping[int, RenderedMail]
    ) -> None:
        try:
            connection.send(ready[mail.id])
        except DeliveryFailed as error:
            if error.is_final:
                self._end(mail, "failed", Outcome(mail.id, error.reason))
            else:
                self._put_off(mail, error.reason)
        except Unconfirmed as error:
            self._close()
            if mail.unconfirmed + 1 >= UNCONFIRMED:
                outcome = Outcome(mail.id, error.reason, is_known=False)
                self._end(mail, "failed", outcome)
            else:
                self._put_off(mail, error.reason, is_known=False)
        except Unreachable as error:
            self._put_off(mail, error.reason)
            raise
        else:
            self._end(mail, "sent", Outcome(mail.id))

    def _why_useless(self, mail: Claimed) -> str:
        """Why a mail need not be sent any more; empty: it is to be sent."""
        now = self._clock()
        if mail.expires_at is not None and mail.expires_at <= now:
            return "its link has expired"
        if mail.created_at + GIVE_UP <= now:
            return "it could not be sent for a day"
        if mail.unconfirmed >= UNCONFIRMED:
            return GOT_TWICE
        return ""

    def _put_off(
        self, mail: Claimed, reason: str, *, is_known: bool = True, was_begun: bool = True
    ) -> None:
        first, last = RETRIES
        pause = min(last, first * 2 ** min(mail.attempts, 20))
        again_at = self._clock() + pause * random.uniform(0.8, 1.2)  # noqa: S311 — spreads the load
        self._outcomes.append(Outcome(mail.id, reason, again_at, is_known, was_begun))
        metrics.MAILS.labels("retried").inc()

    def _end(self, mail: Claimed, outcome: str, noted: Outcome) -> None:
        metrics.MAILS.labels(outcome).inc()
        if noted.error:
            _log.warning("mail_dropped", mail=mail.id, kind=mail.kind, reason=noted.error)
        self._outcomes.append(noted)

    def _note_outcomes(self) -> None:
        """Notes down how attempts ended. While Postgres is away they are kept here."""
        if self._outcomes:
            self._queue.settle(self._outcomes)
            self._outcomes = []

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _groups(mails: Sequence[Claimed]) -> Iterator[Sequence[Claimed]]:
    """The mails in groups. One with which a process may have died is alone, or it could take others
    with it again."""
    suspects = [mail for mail in mails if mail.unconfirmed]
    others = [mail for mail in mails if not mail.unconfirmed]
    for first in range(0, len(others), GROUP):
        yield others[first : first + GROUP]
    for mail in suspects:
        yield [mail]
