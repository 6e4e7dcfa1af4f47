"""Copies of ended sessions: if Postgres loses the end of a session, only its copy knows of it."""

from datetime import datetime
from typing import Any

from authapp.accounts.identity import Identity
from authapp.cache.versioned_cache import Copy
from authapp.sessions.records import EndReason, SessionRecord
from authapp.storage.models import SessionRow, table_of

_sessions = table_of(SessionRow).c

COLUMNS = (
    _sessions.digest,
    _sessions.ver,
    _sessions.user_id,
    _sessions.id,
    _sessions.kind,
    _sessions.created_at,
    _sessions.expires_at,
)

# Limits hold whatever Postgres loses, and the life knows of the end of everybody's sessions.
_KNOWN_OTHERWISE = frozenset({EndReason.IDLE, EndReason.ABSOLUTE, EndReason.ENDED_FOR_EVERYBODY})


def ended_copy(row: Any, why: EndReason, now: datetime) -> Copy | None:
    """The copy of a session that ends, kept until the session's own limit.

    It holds nothing of the person but the id: nobody is shown a session that has ended.

    Args:
        row: `COLUMNS` of the session, after the end.
    Returns:
        None if the end is known without a copy.
    """
    if why in _KNOWN_OTHERWISE:
        return None
    record = SessionRecord(
        id=row.id,
        kind=row.kind,
        user=Identity(row.user_id, "", "", "", (), False, row.created_at),
        created_at=row.created_at,
        last_seen_at=now,
        idle_seconds=0,
        expires_at=row.expires_at,
        data={},
        ver=row.ver,
        checked_at=now,
        ended_why=why,
    )
    return Copy(record, max(60.0, (row.expires_at - now).total_seconds()))
