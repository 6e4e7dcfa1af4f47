"""Changes that one statement makes to one row: fence, commit, read, then store the copy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, select

from authapp.cache.changes import Changed, Changes, any_pending, write_down
from authapp.cache.entries import Versioned
from authapp.cache.versioned_cache import Copy, Lease
from authapp.errors import OutcomeUnknown
from authapp.storage.postgres import Database, PostgresUnavailable

R = TypeVar("R", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Reread:
    """Facts that were read after a change was committed.

    Attributes:
        copy: to be stored, if any.
        fences_pending: see `any_pending`.
    """

    copy: Copy | None
    fences_pending: bool


class RowChanges:
    """Runs changes of one row that has one cache entry. All others go through `Changes`."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    def run(
        self,
        key: str,
        write: Callable[[Connection], R | None],
        reread: Callable[[Connection, R, Lease], Reread],
    ) -> Changed[bool]:
        """Writes the row and, after the commit, stores its copy, so that the next read finds one.

        No copy is stored if the entry has changed since its first fence.

        Args:
            key: of the entry.
            write: runs one statement with the condition `is_fenced()`, which locks the row and
                changes it. Returns the result of the statement, or None if there is no such row.
            reread: reads the other facts in the copy after the commit, as any reader with a lease.
                A change of the row since then has taken the lease, or its fence is pending.
        Returns:
            whether there is such a row.
        Raises:
            StoreUnavailable: Postgres could not be asked; nothing was changed.
            OutcomeUnknown: the connection was lost during the commit.
        """
        fences: dict[str, int] = {}
        try:
            with self._database.connection() as db:
                row = write(db)
                if row is not None:
                    fences[key] = row.ver
                leases = self._changes.fence_first(fences, fences)
                if leases is None:
                    write_down(db, fences)
        except PostgresUnavailable as error:
            if error.committing:
                raise OutcomeUnknown(error.store) from error
            raise
        try:
            with self._database.connection() as db:
                if row is None or not leases:
                    facts = Reread(None, bool(db.scalar(select(any_pending()))))
                else:
                    facts = reread(db, row, leases[key])
        except PostgresUnavailable:  # the change is committed
            self._changes.complete(fences, {}, fenced=leases is not None, unreplayed=False)
            return Changed(row is not None, everywhere=False)  # fences of others may be pending
        copies: Mapping[str, tuple[Lease, Copy]] = {}
        if leases and facts.copy is not None and not facts.fences_pending:
            copies = {key: (leases[key], facts.copy)}
        everywhere = self._changes.complete(
            fences, copies, fenced=leases is not None, unreplayed=facts.fences_pending
        )
        return Changed(row is not None, everywhere)
