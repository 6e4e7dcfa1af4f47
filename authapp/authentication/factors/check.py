"""The check of a second factor that a person shows: each code counts once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import update
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import CODE, Amr
from authapp.authentication.factors import totp
from authapp.authentication.factors.holdings import Method
from authapp.authentication.factors.passkeys.check import PasskeyCheck
from authapp.authentication.factors.passkeys.json_forms import AuthenticationCredential
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.notices import Notices
from authapp.crypto.sealing import Sealer
from authapp.errors import InvalidPasskey
from authapp.storage.factors.models import TotpSecret
from authapp.storage.models import User

# Wrong codes of an app in a row, after which it counts no more (NIST SP 800-63B-4, 3.2.2). Limits
# let an attacker who knows the password try a few codes a minute for years; this does not.
MOST_FAILURES: Final = 100


@dataclass(frozen=True, slots=True)
class ShownFactor:
    """A second factor as somebody shows it.

    Attributes:
        code: of an app, or a recovery code.
        credential: what a passkey signed.
        bound_to: the session or log-in that asked for the credential.
    """

    method: Method
    code: str = field(default="", repr=False)
    credential: AuthenticationCredential | None = field(default=None, repr=False)
    bound_to: bytes = field(default=b"", repr=False)


class TotpSecrets:
    """The secrets of authenticator apps, sealed, within transactions of the callers.

    Args:
        secrets: the first seals, all open; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._sealer = Sealer(secrets, "totp secrets")
        self._clock = clock

    def propose(self, db: Session, user: User, secret: str) -> None:
        """Keeps a secret that counts once a code of it was right. It replaces one that waits."""
        row = db.get(TotpSecret, user.id)
        if row is None:
            row = TotpSecret(user_id=user.id)
            db.add(row)
        row.candidate, row.candidate_at = self._seal(user, secret), self._clock()

    def candidate(self, db: Session, user: User) -> str | None:
        """The secret that waits for its first code; None: there is none, or it is too old."""
        row = db.get(TotpSecret, user.id)
        if row is None or row.candidate_at is None:
            return None
        if self._clock() - row.candidate_at >= totp.SET_UP_LASTS:
            return None
        return self._open(user, row.candidate)

    def accept(self, db: Session, user: User, step: int) -> bool:
        """Lets the secret that waits count from now on; returns whether it replaces another.

        Args:
            step: of the code by which it was confirmed, which counts no more.
        """
        row = db.get_one(TotpSecret, user.id)
        is_replacement = row.sealed is not None
        row.sealed, row.confirmed_at, row.last_step = row.candidate, self._clock(), step
        row.candidate, row.candidate_at, row.failures = None, None, 0
        return is_replacement

    def use(self, db: Session, user: User, code: str) -> bool:
        """Uses a code up; False if it is wrong, or was used before.

        The time step that was used last is a fact in Postgres, so no loss of Redis brings a code
        back.
        """
        row = db.get(TotpSecret, user.id)
        if row is None or row.sealed is None or row.failures >= MOST_FAILURES:
            return False
        secret = self._open(user, row.sealed)
        if not secret:
            return False
        step = totp.matching_step(secret, code, self._clock(), row.last_step)
        if step is None:
            row.failures += 1
            return False
        used = db.execute(
            update(TotpSecret)
            .where(TotpSecret.user_id == user.id, TotpSecret.last_step < step)
            # sealed again, so that a SECRET_KEY can be dropped some time after it was replaced
            .values(last_step=step, failures=0, sealed=self._seal(user, secret))
            .returning(TotpSecret.user_id)
        ).first()
        return used is not None

    def _seal(self, user: User, secret: str) -> bytes:
        return self._sealer.seal(f"totp:{user.id}", secret.encode())

    def _open(self, user: User, sealed: bytes | None) -> str | None:
        opened = self._sealer.open(f"totp:{user.id}", sealed or b"")
        return opened.decode() if opened else None


class FactorCheck:
    """Checks and uses up what a person shows, within changes that hold the person's row."""

    def __init__(
        self,
        totp_secrets: TotpSecrets,
        recovery_codes: RecoveryCodes,
        passkeys: PasskeyCheck,
        notices: Notices,
        clock: Callable[[], datetime],
    ) -> None:
        self._totp_secrets = totp_secrets
        self._recovery_codes = recovery_codes
        self._passkeys = passkeys
        self._notices = notices
        self._clock = clock

    def verify(self, db: Session, user: User, shown: ShownFactor, actor: Actor) -> Amr | None:
        """How the person proved who they are by it; None if it is wrong or was used before.

        Raises:
            FactorsOff: the extra is not installed.
            PasskeysOff
        """
        if shown.method == "passkey":
            return self._use_passkey(db, user, shown, actor)
        if shown.method == "totp":
            return CODE if self._totp_secrets.use(db, user, shown.code) else None
        return CODE if self._use_recovery_code(db, user, shown.code, actor) else None

    def _use_passkey(self, db: Session, user: User, shown: ShownFactor, actor: Actor) -> Amr | None:
        if shown.credential is None:
            return None
        try:
            return self._passkeys.use(
                db,
                user,
                shown.credential,
                actor,
                ceremony="second factor",
                bound_to=shown.bound_to,
            )
        except InvalidPasskey:
            return None

    def _use_recovery_code(self, db: Session, user: User, code: str, actor: Actor) -> bool:
        if not user.second_factor or not self._recovery_codes.use(db, user.id, code):
            return False
        left = self._recovery_codes.left(db, user.id)
        audit.record(
            db,
            "recovery_code.used",
            self._clock(),
            user_id=user.id,
            actor=actor.known_as(user.id),
            left=left,
        )
        self._notices.recovery_code_used(db, user, actor, left)
        return True
