"""Reserved emails: their former owner may take them back, so nobody else gets them."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from authapp.accounts.emails import Email
from authapp.storage.models import OneTimeLink


def reserved(
    db: Session, emails: Collection[Email], now: datetime, *, besides: UUID | None = None
) -> set[str]:
    """The canonical forms of those addresses that somebody gave up not long ago, and may take back.

    Args:
        besides: a user for whom nothing is reserved.
    """
    query = select(OneTimeLink.email_canonical).where(
        OneTimeLink.email_canonical.in_([email.canonical for email in emails]),
        OneTimeLink.purpose == "undo_email",
        OneTimeLink.used_at.is_(None),
        OneTimeLink.expires_at > now,
    )
    if besides is not None:
        query = query.where(OneTimeLink.user_id != besides)
    return set(db.scalars(query))
