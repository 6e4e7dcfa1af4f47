"""The credentials of a user for log-in: from Redis first, from Postgres on a miss."""

from collections.abc import Callable

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from authapp.accounts.identity import Identity, identity_of
from authapp.cache.keys import CredentialKeys
from authapp.cache.versioned_cache import VersionedCache
from authapp.errors import StoreUnavailable
from authapp.storage.models import User
from authapp.storage.postgres import Database


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """The record a password is compared with.

    Attributes:
        epoch: raised by whatever ends trust in this record; a session starts only under it.
    """

    user: Identity
    password_hash: str
    epoch: int
    ver: int


class CredentialStore:
    """
    Args:
        filler: the same copies through a connection of its own, for the filling.
        fill: runs the filling of a copy, now or in the background; log-in never depends on it.
        ttl: seconds a copy is kept.
    """

    def __init__(
        self,
        database: Database,
        cache: VersionedCache,
        filler: VersionedCache,
        keys: CredentialKeys,
        ttl: float,
        fill: Callable[[Callable[[], None]], None],
    ) -> None:
        self._database = database
        self._cache = cache
        self._filler = filler
        self._keys = keys
        self._ttl = ttl
        self._fill = fill

    def find(self, canonical_email: str) -> Credentials | None:
        """
        Raises:
            StoreUnavailable: there is no copy and Postgres could not be asked.
        """
        return self._find(canonical_email, self._fill)

    def _find(
        self, canonical_email: str, fill: Callable[[Callable[[], None]], None]
    ) -> Credentials | None:
        found, _ = self._cache.read_through(
            self._keys.current(canonical_email),
            Credentials,
            lambda: self.read(canonical_email),
            self._ttl,
            fill,
            self._filler,
        )
        return found

    def read(self, canonical_email: str) -> Credentials | None:
        """From Postgres.

        Raises:
            StoreUnavailable
        """

        def query(db: Session) -> Credentials | None:
            # one statement, whether there is such a user or not: neither takes longer
            user = (
                db.scalars(
                    select(User)
                    .where(User.email_canonical == canonical_email)
                    .options(joinedload(User.roles))
                )
                .unique()
                .one_or_none()
            )
            if user is None:
                return None
            return Credentials(identity_of(user), user.password_hash, user.epoch, user.ver)

        return self._database.read(query)

    def prime(self, canonical_email: str) -> None:
        """Fills the copy of somebody who has just signed up, for the log-in that follows."""

        def find() -> None:
            try:
                self._find(canonical_email, lambda fill: fill())
            except StoreUnavailable:
                return  # the log-in will ask Postgres

        self._fill(find)
