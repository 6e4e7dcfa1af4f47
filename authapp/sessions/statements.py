"""The SQL of log-in, log-out, look-up, data writes and lists, built once with bind parameters."""

from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    insert,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import lazyload

from authapp.accounts.authority.person_rows import PERSON, roles_of
from authapp.cache.changes import any_pending, is_fenced
from authapp.sessions.ended_copies import COLUMNS
from authapp.sessions.generation import is_live, is_outlived
from authapp.storage.deployments import current_generation
from authapp.storage.models import AuditEvent, SessionRow, User, table_of

_sessions, _users = table_of(SessionRow), table_of(User)
_row = _sessions.c
_NOW = bindparam("now", type_=_row.last_seen_at.type)

_events = table_of(AuditEvent)
_GIVEN = {
    column.key: bindparam(f"event_{column.key}", type_=column.type)
    for column in _events.columns
    if column.key != "id"
}
# An event that is a part of another statement, with the parameters of `audit.record_within`.
_INSERT_EVENT = insert(_events).values(_GIVEN).cte("event")


def _insert_event_for_each(found: FromClause) -> CTE:
    """As `_INSERT_EVENT`, one event for each `user_id` in another part of the statement.

    The user is the actor, too, where the parameter `by_owner` is true.
    """
    actor = case((bindparam("by_owner", type_=Boolean), found.c.user_id), else_=_GIVEN["actor_id"])
    given = _GIVEN | {"user_id": found.c.user_id, "actor_id": actor}
    values = select(*given.values()).select_from(found)
    return insert(_events).from_select(list(given), values).cte("event")


_UNREAD = {"digest", "user_id", "address", "user_agent", "refresh_digest"}

# The facts of a look-up, by digest.
FACTS: Final = (
    select(
        *(column for column in _sessions.columns if column.key not in _UNREAD),
        *PERSON,
        _users.c.epoch.label("person_epoch"),
        _users.c.ver.label("person_ver"),
        is_outlived().label("outlived"),
        any_pending().label("fences_pending"),
    )
    .join_from(_sessions, _users)
    .where(_row.digest == bindparam("digest", type_=LargeBinary))
)

# The versions that a change of a session's data compares once it is committed.
VERSIONS: Final = select(
    _users.c.ver.label("user_ver"),
    current_generation().label("generation"),
    any_pending().label("fences_pending"),
).where(_users.c.id == bindparam("user_id", type_=Uuid))

# in SQL `-` binds closer than `||`
_kept = _row.data.op("-")(bindparam("removed", type_=ARRAY(Text)))
PATCH: Final = (
    update(_sessions)
    .where(_row.digest == bindparam("of", type_=LargeBinary), is_live(), is_fenced())
    .values(data=_kept.op("||")(bindparam("changed", type_=JSONB)), ver=_row.ver + 1)
    .returning(_row.ver, _row.data)
)

# Not a change that entries must not miss, so no new version. The conditions leave a session that
# ended in the meantime as it is, and wait for nobody who is changing it.
NOTE_VISIT: Final[Executable] = (
    update(_sessions)
    .where(
        _row.id.in_(
            select(_row.id)
            .where(_row.id == bindparam("session_id", type_=Uuid), _row.ended_at.is_(None))
            .with_for_update(skip_locked=True)
        )
    )
    .values(last_seen_at=_NOW)
)

HOLD_VERIFIED: Final[Select[User]] = (
    select(User)
    .where(User.id == bindparam("user_id"), User.epoch == bindparam("of_epoch"), User.active)
    .with_for_update(key_share=True)
    .options(lazyload(User.roles))  # whoever begins a session reads them after the lock
)
LOCK: Final[Executable] = select(func.pg_advisory_xact_lock(bindparam("number", type_=BigInteger)))

# The sessions of a kind, of one user, that a new one ends, locked in one order: those that it
# replaces, of whichever user, and the oldest above the cap.
_OLDEST = (
    select(_row.id)
    .where(
        _row.user_id == bindparam("user_id", type_=Uuid),
        _row.kind == bindparam("kind", type_=Text),
        is_live(),
        _row.expires_at > _NOW,
        # a name of its own: the two mean something else where the list is empty
        _row.digest.not_in(bindparam("without", type_=LargeBinary, expanding=True)),
    )
    .order_by(_row.created_at.desc())
    .offset(bindparam("kept", type_=Integer))
)
# not `digest IN … OR id IN …`, for which Postgres looks at each session there is
_REPLACED = select(_row.id).where(
    _row.digest.in_(bindparam("replaces", type_=LargeBinary, expanding=True))
)
HOLD_ENDING: Final[Executable] = (
    select(_row.id, _row.digest)
    .where(_row.id.in_(union_all(_OLDEST, _REPLACED)))
    .order_by(_row.id)
    .with_for_update()
)

_END = (
    update(_sessions)
    .where(_row.ended_at.is_(None))
    .values(ended_at=_NOW, ended_why=bindparam("why", type_=Text), ver=_row.ver + 1)
    .returning(*COLUMNS)
)


def end(which: ColumnElement[bool]) -> Executable:
    """Ends the sessions that have not ended, and records an event of each."""
    ended = _END.where(which).cte("ended")
    return select(ended).add_cte(_insert_event_for_each(ended))


def end_silently(which: ColumnElement[bool]) -> Executable:
    """As `end`, without events."""
    return _END.where(which)


# not named like the column: SQLAlchemy would set it to that
END_ONE: Final = end(_row.digest == bindparam("of_digest", type_=LargeBinary))

# Returns the roles of the user, whose row the change holds: so they are those of now.
_BEGUN = [column for column in _sessions.columns if column.key not in {"ended_at", "ended_why"}]
INSERT: Final = (
    insert(_sessions)
    .values({column: bindparam(f"of_{column.key}", type_=column.type) for column in _BEGUN})
    .returning(*roles_of(bindparam("of_user_id", type_=Uuid)))
)
INSERT_AND_RECORD: Final[Executable] = INSERT.add_cte(_INSERT_EVENT)


def parameters_of(row: SessionRow) -> dict[str, Any]:
    """The parameters of `INSERT` for a new session."""
    return {f"of_{column.key}": getattr(row, column.key) for column in _BEGUN}


LIST: Final[Executable] = (
    select(
        _row.id,
        _row.kind,
        _row.created_at,
        _row.last_seen_at,
        _row.expires_at,
        _row.address,
        _row.user_agent,
        _row.idle_seconds,
        _row.amr,
        _row.proved_at,
    )
    .where(_row.user_id == bindparam("user_id", type_=Uuid), is_live(), _row.expires_at > _NOW)
    .order_by(_row.last_seen_at.desc(), _row.id)
)
