"""Changes that one statement makes to one row: fence, commit, fence again, in few steps."""

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
    """Facts of a change that were read once its first fence was set.

    Attributes:
        copy: to be stored after the commit, if any.
        fences_pending: whether fences are written down (`any_pending`).
    """

    copy: Copy | None
    fences_pending: bool


class RowChanges:
    """The entrance to changes of one row that has one cache entry; `Changes` is for all others."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    def run(
        self,
        key: str,
        write: Callable[[Connection], R | None],
        reread: Callable[[Connection, R, Lease], Reread],
    ) -> Changed[bool]:
        """Writes the row, and stores its copy once that is committed, so that the next read is hot.

        No copy is stored where anything happened to the key since its first fence.

        Args:
            key: of the entry.
            write: runs one statement with the condition `is_fenced()`, which locks the row and
                changes it; returns what the statement says of it, None where there is no such row.
            reread: reads the facts of the copy, in the same transaction. The row is locked by then;
                everything else that is in the copy must be read, or compared, here. A statement
                that waited for a lock (`UPDATE … FROM`, `RETURNING`) returns other rows as they
                were before the wait.
        Returns:
            whether there is such a row.
        Raises:
            StoreUnavailable: Postgres could not be asked; nothing was changed.
            OutcomeUnknown: the connection was lost during the commit.
        """
        fences: dict[str, int] = {}
        copies: Mapping[str, tuple[Lease, Copy]] = {}
        try:
            with self._database.connection() as db:
                row = write(db)
                if row is not None:
                    fences[key] = row.ver
                leases = self._changes.fence_first(fences, fences)
                if row is None or leases is None:
                    write_down(db, fences)
                    unreplayed = bool(db.scalar(select(any_pending())))
                else:
                    facts = reread(db, row, leases[key])
                    unreplayed = facts.fences_pending
                    if facts.copy is not None and not unreplayed:
                        copies = {key: (leases[key], facts.copy)}
        except PostgresUnavailable as error:
            if error.committing:
                raise OutcomeUnknown(error.store) from error
            raise
        everywhere = self._changes.complete(
            fences, copies, fenced=leases is not None, unreplayed=unreplayed
        )
        return Changed(row is not None, everywhere)
