"""The credentials of a user for log-in: from Redis first, from Postgres on a miss."""

from collections.abc import Callable
from datetime import datetime

import msgspec
from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)

from authapp.accounts.authority.person_rows import PERSON, person_in
from authapp.accounts.emails import Email
from authapp.accounts.identity import Identity
from authapp.cache.entries import prepare
from authapp.cache.keys import CredentialKeys
from authapp.cache.versioned_cache import VersionedCache
from authapp.errors import StoreUnavailable
from authapp.storage.deployments import current_generation
from authapp.storage.models import IMPORTED, User, table_of
from authapp.storage.postgres import Database


def is_imported() -> ColumnElement[bool]:
    """Whether another system made the password hash of a user."""
    return User.password_hash.like(literal_column(f"'{IMPORTED}%'"))


def imported_part(number: int) -> ColumnElement[str]:
    """A part of an imported hash: 2 is its kind, 3 its milliseconds."""
    return func.split_part(User.password_hash, literal_column("':'"), literal_column(str(number)))


def _slowest_imported() -> Select[int]:
    """As the index `ix_users_imported` answers it: one look, however many users there are."""
    return select(func.max(cast(imported_part(3), Integer))).where(is_imported())


_asked = select(bindparam("asked", type_=Text).label("email")).subquery("asked")
_users = table_of(User)
# one row, whether there is such a user or not: neither takes longer
_READ: Executable = (
    select(
        _slowest_imported().scalar_subquery().label("slowest"),
        current_generation().label("generation"),
        *PERSON,
        _users.c.password_hash,
        _users.c.epoch,
        _users.c.ver,
        _users.c.email_confirmation_due,
        _users.c.password_expires_at,
    )
    .select_from(_asked)
    .outerjoin(_users, _users.c.email_canonical == _asked.c.email)
)


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """The record a password is compared with.

    Attributes:
        epoch: raised by whatever ends trust in this record; a session starts only under it.
        generation: of sessions, when this was read; one that begins without Postgres is of it.
        email_confirmation_due: the address must be confirmed before anybody logs in.
        password_expires_at: of a one-time password; None for one that the person chose.
    """

    user: Identity
    password_hash: str
    epoch: int
    ver: int
    email_confirmation_due: bool = False
    password_expires_at: datetime | None = None
    generation: int = 0


prepare(Credentials)


class CredentialStore:
    """
    Args:
        filler: the same copies through a connection of its own, for the filling.
        fill: runs the filling of a copy, now or in the background; log-in never depends on it.
        ttl: seconds a copy is kept.
    Attributes:
        slowest_imported: estimate, in seconds, of the slowest comparison with an imported hash as
            of the last look; 0 where there is none.
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
        self.slowest_imported = 0.0

    def find(self, email: Email) -> Credentials | None:
        """
        Raises:
            StoreUnavailable: there is no copy and Postgres could not be asked.
        """
        return self._find(email, self._fill)

    def _find(self, email: Email, fill: Callable[[Callable[[], None]], None]) -> Credentials | None:
        found, hit = self._cache.read_through(
            self._keys.current(email.canonical),
            Credentials,
            lambda: self.read(email),
            self._ttl,
            fill,
            self._filler,
        )
        if hit and found and found.password_hash.startswith(IMPORTED):
            # Postgres may be away, and this process may not have asked it yet.
            self._note_imported(found.password_hash)
        return found

    def _note_imported(self, password_hash: str) -> None:
        seconds = int(password_hash.split(":")[2]) / 1000
        self.slowest_imported = max(self.slowest_imported, seconds)

    def read(self, email: Email) -> Credentials | None:
        """From Postgres.

        Raises:
            StoreUnavailable
        """

        row = self._database.read(lambda db: db.execute(_READ, {"asked": email.canonical}).one())
        self.slowest_imported = (row.slowest or 0) / 1000
        if row.person_id is None:
            return None
        return Credentials(
            person_in(row),
            row.password_hash,
            row.epoch,
            row.ver,
            row.email_confirmation_due,
            row.password_expires_at,
            row.generation,
        )

    def prime(self, email: Email) -> None:
        """Fills the copy of somebody who has just signed up or changed the password: for the log-in
        that follows, and for one with the old password, should Postgres lose the change."""

        def find() -> None:
            try:
                self._find(email, lambda fill: fill())
            except StoreUnavailable:
                return  # the log-in will ask Postgres

        self._fill(find)
