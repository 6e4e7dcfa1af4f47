"""Log-ins that wait for a second factor. Each is named by a login token, which is no session."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authapp.accounts.assurance import Amr
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.crypto.tokens import LoginTokens
from authapp.errors import (
    InvalidCredentials,
    LoginExpired,
    SecondFactorDue,
    SecondFactorRequired,
    SecondFactorUnavailable,
    StoreUnavailable,
)
from authapp.sessions.records import Kind
from authapp.storage.factors.models import PendingLogin, UsedChallenge
from authapp.storage.models import User
from authapp.storage.postgres import Database

LASTS: Final = timedelta(minutes=10)
MOST_FAILURES: Final = 5
_AS_IT_IS: Final = {"synchronize_session": False}


class PendingLogins:
    """Issues login tokens, and finds the log-ins that they stand for."""

    def __init__(
        self,
        database: Database,
        tokens: LoginTokens,
        holdings: FactorHoldings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._holdings = holdings
        self._clock = clock

    def issue(
        self, due: SecondFactorDue, *, kind: Kind, remember: bool, amr: Amr, method: str = ""
    ) -> SecondFactorRequired:
        """Writes down a log-in whose first factor was right.

        Args:
            kind, remember: of the session that will begin.
            amr: how the person proved who they are so far.
            method: what the event in the audit log will say of the log-in.
        Returns:
            The error for the person, which brings the login token.
        Raises:
            InvalidCredentials: the user was changed or deactivated in the meantime.
            SecondFactorUnavailable: Postgres could not be asked.
        """
        text, digest = self._tokens.mint()
        now = self._clock()
        try:
            with self._database.transaction() as db:
                user = db.scalar(
                    select(User)
                    .where(User.id == due.user_id, User.epoch == due.epoch, User.active)
                    .with_for_update(read=True, key_share=True)
                )
                if user is None:
                    raise InvalidCredentials
                enrols = not user.second_factor
                methods = () if enrols else self._holdings.of(db, user.id).methods
                db.add(
                    PendingLogin(
                        digest=digest,
                        user_id=user.id,
                        epoch=user.epoch,
                        factors_version=user.factors_version,
                        kind=kind,
                        remember=remember,
                        amr=list(amr),
                        method=method,
                        enrols=enrols,
                        created_at=now,
                        expires_at=now + LASTS,
                    )
                )
        except StoreUnavailable as error:
            raise SecondFactorUnavailable(error.store) from error
        return SecondFactorRequired(text, methods, int(LASTS.total_seconds()), enrols=enrols)

    def digest_of(self, login_token: str) -> bytes:
        """
        Raises:
            LoginExpired: we did not mint the token.
        """
        digest = self._tokens.check(login_token)
        if digest is None:
            raise LoginExpired("this is no login token")
        return digest

    def owner_of(self, digest: bytes) -> UUID:
        """The person who logs in.

        Raises:
            LoginExpired
        """
        with self._database.transaction() as db:
            return self.find(db, digest).user_id

    def find(self, db: Session, digest: bytes) -> PendingLogin:
        """The log-in that waits, as of now.

        Raises:
            LoginExpired
        """
        found = db.get(PendingLogin, digest)
        if found is None or found.expires_at <= self._clock():
            raise LoginExpired("the log-in is used up, too old or void")
        return found

    def claim(self, db: Session, digest: bytes, user: User) -> PendingLogin:
        """As `find`, for good: no other request sees it before this transaction ends.

        Args:
            user: the person, whose row is locked.
        Raises:
            LoginExpired: also if the person's factors changed in the meantime.
        """
        query = select(PendingLogin).where(PendingLogin.digest == digest).with_for_update()
        found = db.scalar(query.execution_options(populate_existing=True))
        if (
            found is None
            or found.expires_at <= self._clock()
            or found.factors_version != user.factors_version
        ):
            raise LoginExpired("the log-in is used up, too old or void")
        return found

    def use_up(self, db: Session, digest: bytes) -> None:
        """Removes a log-in that was completed."""
        used = delete(PendingLogin).where(PendingLogin.digest == digest)
        db.execute(used, execution_options=_AS_IT_IS)

    def note_failure(self, db: Session, pending: PendingLogin) -> bool:
        """Counts a wrong factor; returns whether the login token is used up by it."""
        pending.failures += 1
        is_used_up = pending.failures >= MOST_FAILURES
        if is_used_up:
            db.delete(pending)
        return is_used_up


def prune_pending(database: Database, now: datetime, limit: int) -> int:
    """Removes up to `limit` log-ins that waited in vain, and as many old challenges; returns how
    many."""
    removed = 0
    with database.transaction() as db:
        for table, key in (
            (PendingLogin, PendingLogin.digest),
            (UsedChallenge, UsedChallenge.digest),
        ):
            old = select(key).where(table.expires_at <= now).limit(limit)
            gone = delete(table).where(key.in_(old)).returning(key)
            removed += len(db.scalars(gone, execution_options=_AS_IT_IS).all())
    return removed
