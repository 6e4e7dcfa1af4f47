"""Recovery codes: ten for each person, each stands in for another factor once."""

import base64
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from authapp.crypto.sealing import KeyedHash
from authapp.storage.factors.models import RecoveryCode

COUNT: Final = 10
_BYTES: Final = 10  # 80 random bits; OWASP ASVS 5.0, 6.5.2 and 6.5.4, asks for 20
_LONGEST: Final = 64  # characters that are looked at
_is_code = re.compile(r"[A-Z2-7]{16}").fullmatch


class RecoveryCodes:
    """Makes, counts and uses up recovery codes, within transactions of the callers.

    Args:
        secrets: the first hashes, all verify; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._hashes = [KeyedHash(secret, "recovery codes") for secret in secrets]
        self._clock = clock

    def replace(self, db: Session, user_id: UUID) -> list[str]:
        """New codes in place of all that the person had. They can't be shown again."""
        self.remove(db, user_id)
        now, codes = self._clock(), [_new_code() for _ in range(COUNT)]
        for code in codes:
            digest = self._digests(user_id, _plain(code))[0]
            db.add(RecoveryCode(user_id=user_id, digest=digest, created_at=now))
        db.flush()
        return codes

    def remove(self, db: Session, user_id: UUID) -> None:
        """Removes all codes of a person."""
        db.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))

    def use(self, db: Session, user_id: UUID, code: str) -> bool:
        """Uses a code up; False if this person has no such code, or used it before."""
        plain = _plain(code[:_LONGEST])
        if _is_code(plain) is None:
            return False
        used = db.execute(
            update(RecoveryCode)
            .where(
                RecoveryCode.user_id == user_id,
                RecoveryCode.digest.in_(self._digests(user_id, plain)),
                RecoveryCode.used_at.is_(None),
            )
            .values(used_at=self._clock())
            .returning(RecoveryCode.id)
            .execution_options(synchronize_session=False)
        ).first()
        return used is not None

    def left(self, db: Session, user_id: UUID) -> int:
        """How many codes the person can still use."""
        unused = (RecoveryCode.user_id == user_id) & RecoveryCode.used_at.is_(None)
        return db.scalar(select(func.count()).select_from(RecoveryCode).where(unused)) or 0

    def _digests(self, user_id: UUID, plain: str) -> list[bytes]:
        return [keyed(user_id.bytes + plain.encode()) for keyed in self._hashes]


def _new_code() -> str:
    """Sixteen letters and digits that nobody mixes up, in four groups."""
    plain = base64.b32encode(os.urandom(_BYTES)).decode()
    return "-".join(plain[start : start + 4] for start in range(0, len(plain), 4))


def _plain(code: str) -> str:
    """A code as it was typed, without the marks between its groups and in capitals."""
    return re.sub(r"[\s-]", "", code, flags=re.ASCII).upper()
