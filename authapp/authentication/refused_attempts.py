"""Refused attempts (wrong passwords, limits that are used up) become audit events, a moment later.

A flood of attempts stays a few rows: attempts that are alike are counted together.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import NOBODY, Actor
from authapp.accounts.audit import EmailHashes, Event, Fact
from authapp.accounts.emails import Email
from authapp.authentication.addresses import network_of
from authapp.authentication.notices import Notices
from authapp.errors import StoreUnavailable, TooManyAttempts
from authapp.storage.models import User
from authapp.storage.postgres import Database
from authapp.telemetry.deferred import before_end
from authapp.telemetry.forks import start_in_forks
from authapp.telemetry.logging import get_logger

FOLD_SECONDS = 60.0  # attempts that are alike are one event in so long, after the first
MAX_FOLDS = 1_000  # kinds of attempts that are told apart at the same moment
ROWS_A_MINUTE = 60  # of this process; all further attempts become one row

_MOMENT = 0.2  # seconds; attempts within one are written together
_RETRY_SECONDS = 10.0  # when Postgres could not be asked
_ADDRESSES = 5  # that the row of a flood names

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of attempts: those of one kind are counted together.

    Attributes:
        network: of the addresses they came from.
        email: in canonical form, whose account was tried, if nobody is signed in; it is not
            written.
        user_id: who is signed in and tried.
        window: the limit that was used up.
    """

    event: Event
    network: str
    email: str
    user_id: UUID | None
    window: str


@dataclass(slots=True)
class _Fold:
    """Attempts of a kind.

    Attributes:
        address: of the last one, at `at`.
        count: how many wait to be written.
        due: when they are, by the monotonic clock.
    """

    address: str
    at: datetime
    count: int = 0
    due: float = 0.0  # the first is written at once


@dataclass(slots=True)
class _Flood:
    """Attempts beyond those that get rows of their own."""

    events: Counter[str] = field(default_factory=Counter)
    networks: Counter[str] = field(default_factory=Counter)

    def add(self, kind: _Kind, count: int) -> None:
        self.events[kind.event] += count
        if kind.network in self.networks or len(self.networks) < MAX_FOLDS:
            self.networks[kind.network] += count


_Row = tuple[_Kind, str, datetime, int]  # of which kind, from where, when, how many


class RefusedAttempts:
    """Counts refused attempts, and writes them from a thread of its own.

    So nobody waits for it, and the time of an answer tells nothing. The thread runs only while
    there is something to write. A process that is killed loses what waits; one that ends does not.

    Args:
        tick: seconds of a clock that only goes forward.
        observe: told of each wrong password or unknown email at log-in. It raises nothing.
        notices: tells people of an unusual number.
    """

    def __init__(
        self,
        database: Database,
        email_hashes: EmailHashes,
        clock: Callable[[], datetime],
        tick: Callable[[], float] = time.monotonic,
        observe: Callable[[Fact], None] = lambda _: None,
        notices: Notices | None = None,
    ) -> None:
        self._notices = notices
        self._observe = observe
        self._database = database
        self._email_hashes = email_hashes
        self._clock = clock
        self._tick = tick
        self._start()
        start_in_forks(self._start)  # the parent writes the attempts that wait in it
        before_end(self.finish)

    def _start(self) -> None:
        self._noting = threading.Lock()  # held for microseconds
        self._writing = threading.Lock()  # held while Postgres is asked
        self._wake = threading.Event()
        self._folds: dict[_Kind, _Fold] = {}
        self._flood = _Flood()
        self._minute_began, self._rows = self._tick(), 0
        self._retry_at = 0.0
        self._thread: threading.Thread | None = None

    def note(
        self,
        event: Event,
        actor: Actor,
        *,
        email: Email | None = None,
        window: str = "",
    ) -> None:
        """Counts an attempt that was refused.

        Args:
            email: whose account was tried; it need not exist. The event names the user who has it,
                or holds a keyed hash of it.
            window: the limit that was used up.
        """
        address, at = actor.address, self._clock()
        canonical = email.canonical if email else ""
        if event == "login.failed":  # limits bound how many there are
            self._observe(Fact(event, None, actor, {"email": canonical}))
        kind = _Kind(event, network_of(address), canonical, actor.id, window)
        with self._noting:
            fold = self._folds.get(kind)
            if fold is None and len(self._folds) >= MAX_FOLDS:
                self._flood.add(kind, 1)
                return
            if fold is None:
                fold = self._folds[kind] = _Fold(address, at)
                self._wake.set()
            fold.address, fold.at = address, at
            fold.count += 1
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="refused-attempts", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no thread left: the next attempt tries again
                    return
                self._thread = thread

    @contextmanager
    def noting_limits(
        self, event: Event, actor: Actor, email: Email | None = None
    ) -> Iterator[None]:
        """Notes an attempt that a limit refuses in this block as `event`, see `note`."""
        try:
            yield
        except TooManyAttempts as error:
            self.note(event, actor, email=email, window=error.window)
            raise

    def flush(self, *, everything: bool = True) -> None:
        """Writes attempts that wait.

        Args:
            everything: also attempts that would be counted on for a while.
        """
        with self._writing:
            rows, flood = self._take(everything)
            if not rows and not flood.events:
                return
            try:
                self._write(rows, flood)
            except StoreUnavailable:
                _log.warning("attempts_not_recorded_yet", waiting=self._put_back(rows, flood))

    def finish(self) -> None:
        """Writes everything that waits, at the end of the process; says in the log what is lost."""
        self.flush()
        with self._noting:
            lost = self._waiting()
            self._folds.clear()
            self._flood = _Flood()
            self._wake.set()  # the thread ends
        if lost:
            _log.warning("attempts_not_recorded", lost=lost)

    def _work(self) -> None:
        wait: float | None = 0.0
        try:
            while wait is not None:
                self._wake.wait(wait)
                time.sleep(_MOMENT)
                self._wake.clear()
                self.flush(everything=False)
                wait = self._until_due()
        except BaseException:  # a defect, which is shown; the next attempt starts another thread
            self._thread = None
            raise

    def _until_due(self) -> float | None:
        """Seconds until there is something to do; None: the thread ends."""
        with self._noting:
            dues = [fold.due for fold in self._folds.values()]
            if self._flood.events:
                dues.append(self._minute_began + 60)
            if not dues:
                self._thread = None
                return None
            return max(0.0, min(dues) - self._tick(), self._retry_at - self._tick())

    def _take(self, everything: bool) -> tuple[list[_Row], _Flood]:
        """Takes the rows to write now out of those that wait."""
        rows: list[_Row] = []
        with self._noting:
            now = self._tick()
            if not everything and now < self._retry_at:
                return [], _Flood()
            minute_is_over = everything or now >= self._minute_began + 60
            if minute_is_over:
                self._minute_began, self._rows = now, 0
            for kind, fold in list(self._folds.items()):
                if fold.due > now and not (everything and fold.count):
                    continue
                if not fold.count:  # a whole fold without another attempt
                    del self._folds[kind]
                    continue
                if self._rows < ROWS_A_MINUTE:
                    rows.append((kind, fold.address, fold.at, fold.count))
                    self._rows += 1
                else:
                    self._flood.add(kind, fold.count)
                fold.count, fold.due = 0, now + FOLD_SECONDS
            flood = _Flood()
            if minute_is_over:
                flood, self._flood = self._flood, flood
        return rows, flood

    def _put_back(self, rows: list[_Row], flood: _Flood) -> int:
        """Lets these attempts wait again. Returns how many wait in all."""
        with self._noting:
            self._retry_at = self._tick() + _RETRY_SECONDS
            for kind, address, at, count in rows:
                fold = self._folds.setdefault(kind, _Fold(address, at))
                fold.count += count
                fold.due = self._retry_at
            self._rows = max(0, self._rows - len(rows))
            self._flood.events.update(flood.events)
            self._flood.networks.update(flood.networks)
            return self._waiting()

    def _waiting(self) -> int:
        return sum(fold.count for fold in self._folds.values()) + self._flood.events.total()

    def _write(self, rows: list[_Row], flood: _Flood) -> None:
        with self._database.transaction() as db:
            by_email, there = _people(db, [kind for kind, *_ in rows])
            for kind, address, at, count in rows:
                user_id = by_email.get(kind.email)
                details: dict[str, Any] = {}
                if kind.window:
                    details["window"] = kind.window
                if kind.email and user_id is None:
                    details["email_hash"] = self._email_hashes(kind.email)
                if count > 1:
                    details["count"] = count
                actor_id = kind.user_id if kind.user_id in there else None
                audit.record(
                    db,
                    kind.event,
                    at,
                    user_id=actor_id or user_id,
                    actor=Actor(actor_id, address),
                    **details,
                )
            self._tell(db, rows, by_email)
            if flood.events:
                most = [network for network, _ in flood.networks.most_common(_ADDRESSES)]
                counts: dict[str, Any] = {"count": flood.events.total(), "addresses": most}
                counts |= flood.events
                audit.record(db, "login.flood", self._clock(), user_id=None, actor=NOBODY, **counts)

    def _tell(self, db: Session, rows: list[_Row], by_email: dict[str, UUID]) -> None:
        """Tells the people whose accounts were tried, if it was unusually often."""
        if self._notices is None or not self._notices.are_sent:
            return
        addresses = {
            by_email[kind.email]: address for kind, address, *_ in rows if kind.email in by_email
        }
        for user_id, address in addresses.items():
            user = db.get(User, user_id)
            if user is not None:
                self._notices.refused_logins(db, user, Actor(address=address))


def _people(db: Session, kinds: list[_Kind]) -> tuple[dict[str, UUID], set[UUID]]:
    """Users by email, and those that are there by id. They stay until the commit."""
    emails = {kind.email for kind in kinds if kind.email}
    ids = {kind.user_id for kind in kinds if kind.user_id}
    if not emails and not ids:
        return {}, set()
    found = db.execute(
        select(User.id, User.email_canonical)
        .where(or_(User.email_canonical.in_(emails), User.id.in_(ids)))
        .order_by(User.id)
        .with_for_update(read=True, key_share=True)
    ).all()
    return {email: user_id for user_id, email in found}, {user_id for user_id, _ in found}
