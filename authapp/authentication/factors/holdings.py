"""Holdings: the factors that a person holds beside the password, and the effects of a change."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, get_args
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.storage.factors.models import Passkey, PendingLogin, RecoveryCode, TotpSecret
from authapp.storage.models import User

Method = Literal["totp", "recovery_code", "passkey"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The factors of a person.

    Attributes:
        totp_since: when the authenticator app was set up; None: there is none.
        recovery_codes_left: codes that were not used yet.
        passkeys: how many.
        usable_passkeys: those that were made for the name under which we are served now.
        has_password: whether log-ins by password are possible.
    """

    totp_since: datetime | None
    recovery_codes_left: int
    passkeys: int = 0
    usable_passkeys: int = 0
    has_password: bool = True

    @property
    def has_second_factor(self) -> bool:
        """Whether there is one that log-ins ask for. Recovery codes alone do not count."""
        return self.totp_since is not None or self.passkeys > 0

    @property
    def suffice_alone(self) -> bool:
        """Whether the account can do without a password: one lost passkey locks nobody out."""
        usable = self.usable_passkeys
        return usable > 1 or (usable == 1 and self.recovery_codes_left > 0)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods by which the person can show a second factor."""
        held = {
            "totp": self.totp_since is not None,
            "recovery_code": self.recovery_codes_left > 0,
            "passkey": self.passkeys > 0,
        }
        return tuple(method for method in METHODS if held.get(method))


class FactorHoldings:
    """Reads what people hold, and keeps `users.second_factor` true to it.

    All methods work within transactions of the callers.

    Args:
        rp_id: the name that passkeys must have been made for; empty: there are no passkeys here.
    """

    def __init__(
        self, recovery_codes: RecoveryCodes, rp_id: str, clock: Callable[[], datetime]
    ) -> None:
        self._recovery_codes = recovery_codes
        self._rp_id = rp_id
        self._clock = clock

    def of(self, db: Session, user_id: UUID) -> Holdings:
        since = db.scalar(
            select(TotpSecret.confirmed_at).where(
                TotpSecret.user_id == user_id, TotpSecret.sealed.is_not(None)
            )
        )
        usable = func.count().filter(Passkey.rp_id == self._rp_id)
        passkeys = db.execute(
            select(func.count(), usable).select_from(Passkey).where(Passkey.user_id == user_id)
        ).one()
        has_password = select(User.password_hash != "").where(User.id == user_id)
        return Holdings(
            since,
            self._recovery_codes.left(db, user_id),
            *passkeys,
            has_password=bool(db.scalar(has_password)),
        )

    def note_change(self, db: Session, user: User) -> Holdings:
        """Notes that factors of a locked user were added, removed or replaced.

        Log-ins that wait for a factor and browsers that are trusted count no more. The caller ends
        the sessions, which fences every copy.
        """
        db.flush()
        held = self.of(db, user.id)
        if not held.has_second_factor:
            self._recovery_codes.remove(db, user.id)
        user.second_factor = held.has_second_factor
        user.factors_version += 1
        db.execute(delete(PendingLogin).where(PendingLogin.user_id == user.id))
        return held

    def remove_all(self, db: Session, user: User) -> None:
        """Removes every factor of a locked user."""
        self.remove_newer(db, user, datetime.min.replace(tzinfo=UTC))

    def remove_newer(self, db: Session, user: User, since: datetime) -> bool:
        """Removes each factor of a locked user that is of this moment or newer; returns whether
        there was one."""
        before = self.of(db, user.id)
        for table, made_at in (
            (TotpSecret, func.coalesce(TotpSecret.confirmed_at, TotpSecret.candidate_at)),
            (Passkey, Passkey.created_at),
            (RecoveryCode, RecoveryCode.created_at),
        ):
            db.execute(delete(table).where(table.user_id == user.id, made_at >= since))
        return self.note_change(db, user) != before
