"""Audit events: who did what to which account, from where. Part of the transaction they tell of."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from authapp.models import AuditEvent


def record(
    db: Session,
    event: str,
    at: datetime,
    *,
    user_id: UUID | None,
    actor_id: UUID | None = None,
    address: str = "",
    **details: Any,
) -> None:
    """Adds one event.

    Args:
        event: `noun.verb`, like `session.begun`.
        actor_id: who did it; None for the operator's command line.
        details: JSON values; no password, token or full email.
    """
    db.add(
        AuditEvent(
            at=at,
            event=event,
            user_id=user_id,
            actor_id=actor_id,
            address=address,
            details=details,
        )
    )
