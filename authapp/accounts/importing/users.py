"""The import of users whom another system knows, in batches that can be repeated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR
from authapp.accounts.authority.roles import all_roles, roles_named
from authapp.accounts.emails import ParseEmail
from authapp.accounts.importing.lines import LineReader, LineRefused, NewUser, numbered_lines
from authapp.accounts.reserved_emails import reserved
from authapp.cache.changes import Changes
from authapp.storage.models import AuditEvent, User, UserRole
from authapp.storage.postgres import Database

BATCH = 500  # lines; each batch is one transaction, which takes a fraction of a second


@dataclass(slots=True)
class Batch:
    """The result of some lines of the file.

    Attributes:
        last_line: the number of the last line that was read.
        made: how many users were added.
        skipped: the numbers of lines whose email has an account, which stays as it is.
        refused: the number of each line that can't be imported, and the reason.
    """

    last_line: int = 0
    made: int = 0
    skipped: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


class UserImport:
    """The use case of an operator who brings the users of another system along.

    Args:
        seal: what is stored for a password hash; see `LineReader`.
    Raises:
        StoreUnavailable: batches that were yielded are done; the current one may be.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        parse_email: ParseEmail,
        seal: Callable[[UUID, str], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._changes = changes
        self._parse_email = parse_email
        self._seal = seal
        self._clock = clock

    def run(self, file: BinaryIO, *, dry_run: bool = False) -> Iterator[Batch]:
        """Adds the users of a file, batch by batch. An account that is there is never changed.

        Args:
            file: one JSON object a line; see `lines.FIELDS`.
            dry_run: only says what would be done.
        """
        with self._database.transaction() as db:
            roles = [role.name for role in all_roles(db)]
        reader = LineReader(self._parse_email, roles, self._seal, self._clock())
        add = self._would_add if dry_run else self._add
        lines_of: dict[str, int] = {}  # canonical email → the line that has it
        batch, users = Batch(), list[tuple[int, NewUser]]()
        for number, line in numbered_lines(file):
            batch.last_line = number
            try:
                user = reader.read(line)
            except LineRefused as refused:
                batch.refused.append((number, str(refused)))
            else:
                first = lines_of.setdefault(user.email.canonical, number)
                if first == number:
                    users.append((number, user))
                else:
                    reason = f"email: line {first} has the same; remove one of them"
                    batch.refused.append((number, reason))
            if len(users) + len(batch.refused) >= BATCH:
                add(batch, users)
                yield batch
                batch, users = Batch(), []
        if batch.last_line:
            add(batch, users)
            yield batch

    def _would_add(self, batch: Batch, users: Sequence[tuple[int, NewUser]]) -> None:
        emails = [user.email.canonical for _, user in users]
        with self._database.transaction() as db:
            taken = set(
                db.scalars(select(User.email_canonical).where(User.email_canonical.in_(emails)))
            )
            taken |= reserved(db, [user.email for _, user in users], self._clock())
        for number, user in users:
            if user.email.canonical in taken:
                batch.skipped.append(number)
            else:
                batch.made += 1

    def _add(self, batch: Batch, users: Sequence[tuple[int, NewUser]]) -> None:
        if not users:
            return
        now = self._clock()
        # in one order, so that two imports at once wait for each other and not in a circle
        rows = sorted(
            (_row(user, now) for _, user in users), key=lambda row: str(row["email_canonical"])
        )
        adding = (
            postgresql.insert(User)
            .on_conflict_do_nothing(index_elements=["email_canonical"])
            .returning(User.id)
        )
        # nobody has copies of these users yet, so that there is nothing to fence
        with self._changes.begin(acknowledged=False) as change:
            db = change.db
            roles = roles_named(db, {role for _, user in users for role in user.roles})
            ids = {role.name: role.id for role in roles}
            taken = reserved(db, [user.email for _, user in users], now)
            free = [row for row in rows if row["email_canonical"] not in taken]
            added = set(db.scalars(adding, free)) if free else set()
            made = [user for _, user in users if user.id in added]
            links = [{"user_id": u.id, "role_id": ids[name]} for u in made for name in u.roles]
            if links:
                db.execute(insert(UserRole), links)
            if made:
                db.execute(insert(AuditEvent), [_event(user, now) for user in made])
        batch.made = len(made)
        batch.skipped = [number for number, user in users if user.id not in added]


def _row(user: NewUser, now: datetime) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email.stored,
        "email_canonical": user.email.canonical,
        "name": user.name,
        "password_hash": user.password_hash,
        "created_at": user.created_at or now,
        "updated_at": now,
        "email_verified_at": now if user.verified else None,
    }


def _event(user: NewUser, now: datetime) -> dict[str, Any]:
    event: audit.Event = "user.created"
    return {
        "at": now,
        "event": event,
        "user_id": user.id,
        "actor_id": OPERATOR.id,
        "address": OPERATOR.address,
        "details": {"roles": list(user.roles), "imported": True},
    }
