"""Passwords whose last change Postgres has lost, while a copy of the credentials knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import select

from authapp.accounts import audit
from authapp.accounts.actor import NOBODY
from authapp.accounts.credentials import Credentials
from authapp.cache.changes import Changes
from authapp.errors import InvalidCredentials
from authapp.sessions.lost_commits import LostCommits
from authapp.sessions.records import EndReason
from authapp.sessions.store import SessionStore
from authapp.storage.models import User


def went_back(facts: Credentials, cached: Credentials) -> bool:
    """Whether trust in these facts was ended by a change that only the copy knows."""
    return facts.user.id == cached.user.id and facts.epoch < cached.epoch


@dataclass(frozen=True, slots=True)
class LostPasswords:
    """Puts back the change of a password, for a person who knows the new one."""

    sessions: SessionStore
    changes: Changes
    lost_commits: LostCommits
    clock: Callable[[], datetime]

    def put_back(self, verified: Credentials) -> Credentials:
        """Gives the account the password that its copy knows. As at every change of a password, all
        sessions end: those of before, too, which the lost change had ended.

        Args:
            verified: from the copy; the person has just typed their password.
        Returns:
            The credentials of the row, at an epoch and a version above both.
        Raises:
            InvalidCredentials: the row is newer by now, or the account inactive.
            StoreUnavailable
        """
        with self.changes.begin(acknowledged=False) as change:
            user = change.db.scalar(
                select(User)
                .where(User.id == verified.user.id, User.epoch < verified.epoch, User.active)
                .with_for_update(key_share=True)
            )
            if user is None:
                raise InvalidCredentials
            user.epoch, user.ver = verified.epoch, max(user.ver, verified.ver)
            self.sessions.end_all(change, user, EndReason.PASSWORD_CHANGED)  # raises both by one
            user.password_hash = verified.password_hash
            user.password_expires_at = verified.password_expires_at
            self.lost_commits.note(change, "password")
            audit.record(
                change.db,
                "password.changed",
                self.clock(),
                user_id=user.id,
                actor=NOBODY,
                put_back=True,
            )
        return msgspec.structs.replace(verified, epoch=user.epoch, ver=user.ver)
