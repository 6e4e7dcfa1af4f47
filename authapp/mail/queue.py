"""The rows of mails that wait: claimed by one sender at a time, then settled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from authapp.storage.models import OutgoingMail
from authapp.storage.postgres import Database
from authapp.telemetry import metrics

LEASE = timedelta(minutes=5)  # longer than any server may take for one mail, see `smtp.TimeOuts`

WAITS: tuple[ColumnElement[bool], ...] = (
    OutgoingMail.sent_at.is_(None),
    OutgoingMail.failed_at.is_(None),
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A mail that is ours to send for a while."""

    id: int
    kind: str
    sealed: bytes | None = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    attempts: int
    unconfirmed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt.

    Attributes:
        again_at: when to try again; None: the mail was sent, or is dropped.
        error: why it was not sent; empty: it was.
        is_known: the server said whether it took the mail.
        was_begun: there was an attempt.
    """

    id: int
    error: str = ""
    again_at: datetime | None = None
    is_known: bool = True
    was_begun: bool = True


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many mails wait or were dropped.

    Attributes:
        oldest: when the mail that waits longest was written.
        failed: dropped, and still to be seen.
        last_error: of the mail that failed last, waiting or dropped.
    """

    waiting: int
    oldest: datetime | None
    sent: int
    failed: int
    last_error: str


class MailQueue:
    """Mails that wait, as senders and operators see them. Each method is one short transaction.

    Raises:
        StoreUnavailable: from every method.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def claim(self, limit: int) -> Sequence[Claimed]:
        """Mails that are due, the longest due first. Nobody else gets them during the lease."""
        now = self._clock()
        due = (
            select(OutgoingMail.id)
            .where(*WAITS, OutgoingMail.next_attempt_at <= now)
            .order_by(OutgoingMail.next_attempt_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")  # runs once; a sub-select could run again and claim more
        )
        with self._database.transaction() as db:
            rows = db.execute(
                update(OutgoingMail)
                .where(OutgoingMail.id.in_(select(due.c.id)))
                .values(next_attempt_at=now + LEASE)
                .returning(
                    OutgoingMail.id,
                    OutgoingMail.kind,
                    OutgoingMail.sealed,
                    OutgoingMail.created_at,
                    OutgoingMail.expires_at,
                    OutgoingMail.attempts,
                    OutgoingMail.unconfirmed,
                )
                .execution_options(synchronize_session=False)
            ).all()
        return sorted((Claimed(*row) for row in rows), key=lambda mail: mail.id)

    def begin(self, mails: Sequence[Claimed], outcomes: Sequence[Outcome] = ()) -> set[int]:
        """Notes that mails are about to be given to the server; until they are settled, the server
        may have them.

        Args:
            outcomes: settles other mails in the same transaction.
        Returns:
            The ids of those that are begun. Of the others the lease ran out, and somebody else has
            begun.
        """
        seen = tuple_(OutgoingMail.id, OutgoingMail.attempts)
        with self._database.transaction() as db:
            self._settle(db, outcomes)
            begun = db.scalars(
                update(OutgoingMail)
                .where(seen.in_([(mail.id, mail.attempts) for mail in mails]), *WAITS)
                .values(
                    attempts=OutgoingMail.attempts + 1,
                    unconfirmed=OutgoingMail.unconfirmed + 1,
                    next_attempt_at=self._clock() + LEASE,
                )
                .returning(OutgoingMail.id)
                .execution_options(synchronize_session=False)
            ).all()
        return set(begun)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Notes how attempts ended, or that mails are dropped without one."""
        with self._database.transaction() as db:
            self._settle(db, outcomes)

    def release(self, mails: Sequence[Claimed], error: str = "") -> None:
        """Gives mails back that were not begun."""
        if not mails:
            return
        values = {"next_attempt_at": self._clock()} | ({"last_error": error} if error else {})
        with self._database.transaction() as db:
            db.execute(
                update(OutgoingMail)
                .where(OutgoingMail.id.in_([mail.id for mail in mails]), *WAITS)
                .values(values)
                .execution_options(synchronize_session=False)
            )

    def state(self) -> QueueState:
        """How it stands, for operators."""
        with self._database.transaction() as db:
            waiting, oldest = _waiting(db)
            sent, failed = db.execute(
                select(func.count(OutgoingMail.sent_at), func.count(OutgoingMail.failed_at))
            ).one()
            last_error = db.scalar(
                select(OutgoingMail.last_error)
                .where(OutgoingMail.last_error != "", OutgoingMail.sent_at.is_(None))
                .order_by(OutgoingMail.created_at.desc())
                .limit(1)
            )
        return QueueState(waiting, oldest, sent, failed, last_error or "")

    def note_waiting(self) -> None:
        """Has the metrics say how many mails wait, and how long the oldest does."""
        with self._database.transaction() as db:
            count, oldest = _waiting(db)
        waited = 0.0 if oldest is None else (self._clock() - oldest).total_seconds()
        metrics.MAILS_WAITING.set(count)
        metrics.OLDEST_MAIL_SECONDS.set(max(0.0, waited))

    def retry(self) -> int:
        """Has the mails that would wait longer tried now; how many.

        Those that are due within the lease are left: one of them may be on its way.
        """
        now = self._clock()
        with self._database.transaction() as db:
            made_due = db.scalars(
                update(OutgoingMail)
                .where(*WAITS, OutgoingMail.next_attempt_at > now + LEASE)
                .values(next_attempt_at=now)
                .returning(OutgoingMail.id)
                .execution_options(synchronize_session=False)
            ).all()
        return len(made_due)

    def prune(self, retention: timedelta, limit: int) -> int:
        """Removes up to `limit` mails that are older and wait no more; how many."""
        with self._database.transaction() as db:
            old = (
                select(OutgoingMail.id)
                .where(
                    OutgoingMail.created_at < self._clock() - retention,
                    OutgoingMail.sent_at.is_not(None) | OutgoingMail.failed_at.is_not(None),
                )
                .limit(limit)
            )
            removed = db.scalars(
                delete(OutgoingMail)
                .where(OutgoingMail.id.in_(old))
                .returning(OutgoingMail.id)
                .execution_options(synchronize_session=False)
            ).all()
        return len(removed)

    def _settle(self, db: Session, outcomes: Sequence[Outcome]) -> None:
        now = self._clock()
        sent = [outcome.id for outcome in outcomes if not outcome.error]
        if sent:  # by far the most
            values = {"sent_at": now, "sealed": None, "last_error": "", **_CONFIRMED}
            _note(db, OutgoingMail.id.in_(sent), values)
        for outcome in outcomes:
            if not outcome.error:
                continue
            noted: dict[str, object] = {"last_error": outcome.error}
            if outcome.is_known and outcome.was_begun:
                noted |= _CONFIRMED
            if outcome.again_at is not None:
                noted["next_attempt_at"] = outcome.again_at
            else:
                noted |= {"sealed": None, "failed_at": now}
            _note(db, OutgoingMail.id == outcome.id, noted)


_CONFIRMED = {"unconfirmed": func.greatest(OutgoingMail.unconfirmed - 1, 0)}


def _waiting(db: Session) -> tuple[int, datetime | None]:
    """How many mails wait, and when the oldest was written."""
    waiting = select(func.count(), func.min(OutgoingMail.created_at)).where(*WAITS)
    count, oldest = db.execute(waiting).one()
    return count, oldest


def _note(db: Session, which: ColumnElement[bool], values: Mapping[str, object]) -> None:
    db.execute(
        update(OutgoingMail)
        .where(which, *WAITS)
        .values(values)
        .execution_options(synchronize_session=False)
    )
