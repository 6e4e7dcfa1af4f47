"""Forgotten passwords: anybody may ask for a link, and learns nothing of whether there is an
account."""

import random
import threading
import time
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.orm import Session

from authapp.accounts.actor import Actor
from authapp.accounts.emails import Email, ParseEmail
from authapp.authentication.limits import LoginLimits
from authapp.authentication.recovery.reset_links import ResetLinks
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.errors import Busy, StoreUnavailable, TooManyAttempts, Window
from authapp.storage.background import Background
from authapp.storage.deadlines import deadline
from authapp.storage.postgres import Database, again_if_lost
from authapp.telemetry.forks import start_in_forks
from authapp.telemetry.logging import get_logger

MAX_WAITING = 1_000  # requests of a process that wait for their mail
_PAUSE = (0.05, 0.25)  # seconds, the shortest and the longest

_log = get_logger(__name__)


class ForgottenPasswords:
    """The use case of asking for a link.

    Args:
        background: writes the mails after the answer. It is used for nothing else, because it
            pauses.
        timeout: seconds that a request may take.
    """

    def __init__(
        self,
        database: Database,
        reset_links: ResetLinks,
        *,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        parse_email: ParseEmail,
        background: Background,
        timeout: float,
    ) -> None:
        self._database = database
        self._reset_links = reset_links
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._parse_email = parse_email
        self._timeout = timeout
        self._background = background
        self._requests = _Requests(background, self._mail)

    def forgot(self, email: str, actor: Actor) -> Window | None:
        """Mails a link to the account with this email, if there is an active one.

        Neither the result nor its time tells whether there is (OWASP ASVS 5.0, 6.3.8): the account
        is looked up after the answer. A request that a cap of mails refuses sends nothing, and no
        older link becomes void.

        Returns:
            The window that counted the request, see `Attempt`.
        Raises:
            MailOff
            InvalidField: `email` is not an email address.
            TooManyAttempts
            StoreUnavailable: Postgres can't be asked now, so no mail could be written.
            Busy: too many requests wait.
        """
        self._reset_links.require_mail()
        parsed = self._parse_email(email)
        with self._refused_attempts.noting_limits("reset.limited", actor):
            counted = self._limits.count_mail_request(actor.address)
        with counted.told_by_errors(), deadline(self._timeout):
            self._database.read(_ask)  # while it can't be asked, no mail could be written
            self._requests.add(parsed, actor)
        return counted.window

    def finish(self) -> None:
        """Waits until the mails that were asked for are written; for tests and at the end."""
        self._background.drain()

    def _mail(self, email: Email, actor: Actor) -> None:
        try:
            with self._refused_attempts.noting_limits("reset.limited", actor, email):
                again_if_lost(lambda: self._reset_links.mail_to(email, actor))
        except TooManyAttempts:
            return  # nobody waits for an answer, and the attempt is noted
        except StoreUnavailable as error:
            _log.warning("reset_mail_not_written", store=error.store)


def _ask(db: Session) -> None:
    db.execute(text("SELECT 1"))


class _Requests:
    """Requests that were answered. Each waits for a moment before its mail is written.

    The moment is of random length. So the time of a later answer does not tell how much work this
    request was, which is more where there is an account.

    Args:
        work: called with each request, on the thread of `background`.
    """

    def __init__(self, background: Background, work: Callable[[Email, Actor], None]) -> None:
        self._background = background
        self._work = work
        self._start()
        start_in_forks(self._start)  # requests that wait are for the parent to do

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Email, Actor]] = {}

    def add(self, email: Email, actor: Actor) -> None:
        """Has the work of a request done in a moment. Several for one email become one until then.

        Raises:
            Busy: too many wait.
        """
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                raise Busy
            is_first = not self._waiting
            self._waiting[email.canonical] = (email, actor)
        if is_first:
            self._background.submit(self._work_off)

    def _work_off(self) -> None:
        time.sleep(random.uniform(*_PAUSE))  # noqa: S311 - it hides a time, and guards no secret
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for email, actor in waiting.values():
            self._work(email, actor)
