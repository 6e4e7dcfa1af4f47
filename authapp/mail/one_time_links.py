"""One-time links: random tokens that are mailed, of which only the SHA-256 is kept."""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from authapp.crypto.sealing import KeyedHash
from authapp.storage.models import OneTimeLink, User
from authapp.storage.postgres import Database

Purpose = Literal["verify", "reset", "change_email", "undo_email"]

LIFETIMES: Final[Mapping[Purpose, timedelta]] = {
    "verify": timedelta(hours=24),
    "reset": timedelta(minutes=30),
    "change_email": timedelta(hours=24),
    "undo_email": timedelta(days=7),
}
# details of a reset link: whoever has it reads the mail of the account
MAILED: Final[Mapping[str, Any]] = {"mailed": True}
CODE_LIFETIME: Final = timedelta(minutes=10)  # OWASP ASVS 5.0, 6.5.5
CODE_DIGITS: Final = 8  # 26 bits; OWASP ASVS 5.0, 6.5.4 asks for 20
MAX_CODE_FAILURES: Final = 10  # of all codes of an account, also after Redis was wiped …
CODE_FAILURES_COUNT: Final = timedelta(hours=1)  # … for so long after a code was made

_TOKEN_BYTES = 32
is_spelt = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """A link that was made, as it is mailed; neither token nor code is kept.

    Attributes:
        code: digits that stand for the link for a while; empty where it has none.
    """

    token: str = field(repr=False)
    code: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RedeemedLink:
    """A link that was used up just now, and the user whose row is locked.

    Attributes:
        email_canonical: the address that it was mailed to.
        created_at: when it was mailed.
    """

    user: User
    details: Mapping[str, Any]
    email_canonical: str
    created_at: datetime


class OneTimeLinks:
    """Issues and redeems links, within transactions that the callers complete.

    Args:
        secrets: the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._code_hashes = [KeyedHash(secret, "mailed codes") for secret in secrets]
        self._clock = clock

    def issue(
        self,
        db: Session,
        purpose: Purpose,
        user: User,
        *,
        email_canonical: str = "",
        with_code: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> IssuedLink:
        """Makes a link. Older ones of this purpose and user are void, but for undoing a change: a
        second change takes nothing from the owner of the first address.

        Args:
            user: whose row the caller has locked.
            email_canonical: the address that it is mailed to; empty: the address of the user.
            details: JSON that `redeem` gives back; no secret.
        """
        now = self._clock()
        if purpose != "undo_email":
            self.void(db, user, purpose)
        token = base64.urlsafe_b64encode(os.urandom(_TOKEN_BYTES)).decode().rstrip("=")
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}" if with_code else ""
        expires_at = now + LIFETIMES[purpose]
        db.add(
            OneTimeLink(
                purpose=purpose,
                digest=_digest(token),
                code_digest=self._code_hash(user, code) if code else None,
                code_expires_at=now + CODE_LIFETIME if code else None,
                user_id=user.id,
                email_canonical=email_canonical or user.email_canonical,
                epoch=user.epoch,
                details=dict(details or {}),
                created_at=now,
                expires_at=expires_at,
            )
        )
        return IssuedLink(token, code, expires_at)

    def look_up(self, db: Session, purpose: Purpose, token: str) -> tuple[OneTimeLink, User] | None:
        """The link of a token and its user, while it counts. Nothing is used up."""
        link = self._find(db, purpose, token)
        user = db.get(User, link.user_id) if link else None
        if link is None or user is None or not user.active or not _is_bound(link, user):
            return None
        return link, user

    def _find(self, db: Session, purpose: Purpose, token: str) -> OneTimeLink | None:
        if not is_spelt(token):
            return None
        return db.scalar(
            select(OneTimeLink).where(
                OneTimeLink.digest == _digest(token),
                OneTimeLink.purpose == purpose,
                OneTimeLink.used_at.is_(None),
                OneTimeLink.expires_at > self._clock(),
            )
        )

    def redeem(self, db: Session, purpose: Purpose, token: str) -> RedeemedLink | None:
        """Uses a link up, and locks its user: of many at once, one gets it.

        Returns:
            None when the token is unknown, of another purpose, used, expired or void, or the
            user is inactive or has another password or address since it was made.
        """
        link = self._find(db, purpose, token)
        if link is None:
            return None
        user = _lock_active(db, link.user_id)
        return None if user is None else self._use_up(db, link, user)

    def redeem_code(
        self, db: Session, purpose: Purpose, user_id: UUID, code: str
    ) -> RedeemedLink | None:
        """As `redeem`, by the code that stands for the link."""
        user = _lock_active(db, user_id)
        link = self._link_with_code(db, purpose, user_id)
        if user is None or link is None or not self.code_matches(link, user, code):
            return None
        return self._use_up(db, link, user)

    def try_code(self, db: Session, purpose: Purpose, user: User, code: str) -> bool:
        """Whether a code stands for the newest link of a user. Nothing is used up.

        A failure is noted in the caller's transaction. After `MAX_CODE_FAILURES` by all codes of
        the user no code counts for a while. Parallel tries wait for one another.
        """
        link = self._link_with_code(db, purpose, user.id)
        if link is None:
            return False
        self._note_failures(db, link, 1)  # before the comparison, so that parallel tries see it
        failures = db.scalar(
            select(func.sum(OneTimeLink.code_failures)).where(
                OneTimeLink.user_id == user.id,
                OneTimeLink.purpose == purpose,
                OneTimeLink.created_at > self._clock() - CODE_FAILURES_COUNT,
            )
        )
        if (failures or 0) > MAX_CODE_FAILURES or not self.code_matches(link, user, code):
            return False
        self._note_failures(db, link, -1)
        return True

    def _link_with_code(self, db: Session, purpose: Purpose, user_id: UUID) -> OneTimeLink | None:
        now = self._clock()
        return db.scalar(
            select(OneTimeLink)
            .where(
                OneTimeLink.user_id == user_id,
                OneTimeLink.purpose == purpose,
                OneTimeLink.used_at.is_(None),
                OneTimeLink.expires_at > now,
                OneTimeLink.code_expires_at > now,
            )
            .order_by(OneTimeLink.id.desc())
            .limit(1)
        )

    def _note_failures(self, db: Session, link: OneTimeLink, change: int) -> None:
        db.execute(
            update(OneTimeLink)
            .where(OneTimeLink.id == link.id)
            .values(code_failures=OneTimeLink.code_failures + change)
            .execution_options(synchronize_session=False)
        )

    def _use_up(self, db: Session, link: OneTimeLink, user: User) -> RedeemedLink | None:
        used = db.execute(
            update(OneTimeLink)
            .where(OneTimeLink.id == link.id, OneTimeLink.used_at.is_(None))
            .values(used_at=self._clock())
            .returning(OneTimeLink.id)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if used is None or not _is_bound(link, user):
            return None
        return RedeemedLink(user, dict(link.details), link.email_canonical, link.created_at)

    def void(self, db: Session, user: User, *purposes: Purpose) -> None:
        """Makes links of a user void: those of these purposes, or all that a new password voids.

        Links that undo a change of address outlive a new password, because a thief may have chosen
        it. They are void only where they are named.
        """
        named = OneTimeLink.purpose.in_(purposes)
        which = [named if purposes else OneTimeLink.purpose != "undo_email"]
        db.execute(
            update(OneTimeLink)
            .where(OneTimeLink.user_id == user.id, OneTimeLink.used_at.is_(None), *which)
            .values(used_at=self._clock())
            .execution_options(synchronize_session=False)
        )

    def void_undo_to(self, db: Session, user: User, email_canonical: str) -> None:
        """Makes the links void by which this address, which the user has again, would come back."""
        db.execute(
            update(OneTimeLink)
            .where(
                OneTimeLink.user_id == user.id,
                OneTimeLink.purpose == "undo_email",
                OneTimeLink.email_canonical == email_canonical,
                OneTimeLink.used_at.is_(None),
            )
            .values(used_at=self._clock())
            .execution_options(synchronize_session=False)
        )

    def _code_hash(self, user: User, code: str) -> bytes:
        return self._code_hashes[0](user.id.bytes + code.encode())

    def code_matches(self, link: OneTimeLink, user: User, code: str) -> bool:
        """Whether a code stands for this link; the caller counts failures."""
        body = user.id.bytes + code.encode()
        digest = link.code_digest or b""
        return any(hmac.compare_digest(digest, keyed(body)) for keyed in self._code_hashes)


def _lock_active(db: Session, user_id: UUID) -> User | None:
    """Locks an active user. Users are locked before whatever belongs to them."""
    return db.scalar(
        select(User)
        .where(User.id == user_id, User.active)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_bound(link: OneTimeLink, user: User) -> bool:
    """Whether password and address are those that the link was made for."""
    if link.purpose == "undo_email":  # it outlives a password that a thief chose
        return True
    if link.purpose != "change_email" and link.email_canonical != user.email_canonical:
        return False
    return link.epoch == user.epoch


def prune_links(database: Database, before: datetime, limit: int) -> int:
    """Removes up to `limit` links that expired before; how many."""
    old = select(OneTimeLink.id).where(OneTimeLink.expires_at < before).limit(limit)
    with database.transaction() as db:
        removed = db.scalars(
            delete(OneTimeLink)
            .where(OneTimeLink.id.in_(old))
            .returning(OneTimeLink.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(removed)
