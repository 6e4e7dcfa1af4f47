"""Passkeys in Postgres, and the challenges that were answered. Works within transactions of the
callers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from authapp.authentication.factors.passkeys.json_forms import Descriptor
from authapp.authentication.factors.passkeys.verification import MadePasskey
from authapp.crypto.base64url import to_base64url
from authapp.crypto.tokens import Challenge
from authapp.storage.factors.models import Passkey, UsedChallenge
from authapp.storage.models import User

_HANDLE_BYTES = 64  # as many as the standard allows


@dataclass(frozen=True, slots=True)
class Owner:
    """The person whose passkey it is, as of now."""

    user_id: UUID
    epoch: int


class PasskeyRows:
    """The passkeys of people."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def of(self, db: Session, user_id: UUID) -> list[Passkey]:
        """The passkeys of a person, the oldest first."""
        query = select(Passkey).where(Passkey.user_id == user_id)
        return list(db.scalars(query.order_by(Passkey.created_at, Passkey.id)))

    def owner_of(self, db: Session, credential_id: bytes) -> Owner | None:
        query = select(User.id, User.epoch).join(Passkey, Passkey.user_id == User.id)
        found = db.execute(query.where(Passkey.credential_id == credential_id)).one_or_none()
        return Owner(*found) if found else None

    def user_handle(self, user: User) -> bytes:
        """The random name by which authenticators know a locked user; made at the first use."""
        if user.webauthn_handle is None:
            user.webauthn_handle = os.urandom(_HANDLE_BYTES)
        return user.webauthn_handle

    def add(
        self, db: Session, user: User, made: MadePasskey, name: str, rp_id: str
    ) -> Passkey | None:
        """Keeps a passkey; None if somebody has one of this id."""
        return db.scalar(
            insert(Passkey)
            .values(
                user_id=user.id,
                credential_id=made.credential_id,
                public_key=made.public_key,
                sign_count=made.sign_count,
                transports=list(made.transports),
                aaguid=made.aaguid,
                backup_eligible=made.backup_eligible,
                backed_up=made.backed_up,
                rp_id=rp_id,
                name=name,
                created_at=self._clock(),
            )
            .on_conflict_do_nothing(index_elements=[Passkey.credential_id])
            .returning(Passkey)
        )

    def lock(self, db: Session, user_id: UUID, credential_id: bytes) -> Passkey | None:
        """A passkey of this person, which no other request uses at the same moment."""
        return db.scalar(
            select(Passkey)
            .where(Passkey.user_id == user_id, Passkey.credential_id == credential_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )

    def rename(self, db: Session, user_id: UUID, passkey_id: UUID, name: str) -> Passkey | None:
        """The passkey under its new name; None if this person has no such passkey."""
        found = self._one(db, user_id, passkey_id)
        if found is not None:
            found.name = name
        return found

    def remove(self, db: Session, user_id: UUID, passkey_id: UUID) -> bool:
        """Whether this person had such a passkey."""
        mine = (Passkey.user_id == user_id) & (Passkey.id == passkey_id)
        return db.scalar(delete(Passkey).where(mine).returning(Passkey.id)) is not None

    def _one(self, db: Session, user_id: UUID, passkey_id: UUID) -> Passkey | None:
        mine = (Passkey.user_id == user_id) & (Passkey.id == passkey_id)
        return db.scalar(select(Passkey).where(mine).with_for_update())

    def use_challenge(self, db: Session, challenge: Challenge) -> bool:
        """Uses a challenge up; False if it was used before. A second use waits for the first."""
        used = db.scalar(
            insert(UsedChallenge)
            .values(digest=challenge.digest, expires_at=challenge.expires_at)
            .on_conflict_do_nothing()
            .returning(UsedChallenge.digest)
        )
        return used is not None


def descriptors(passkeys: list[Passkey]) -> list[Descriptor]:
    """These passkeys as options name them."""
    return [Descriptor(to_base64url(held.credential_id), held.transports) for held in passkeys]
