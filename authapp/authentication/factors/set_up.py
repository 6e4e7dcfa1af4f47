"""The set-up of an authenticator app: a secret counts once a code of it was right."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import CODE, Amr
from authapp.authentication.factors import totp
from authapp.authentication.factors.check import ShownFactor, TotpSecrets
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.notices import Notices
from authapp.storage.models import User


@dataclass(frozen=True, slots=True)
class ProposedSecret:
    """A secret that waits for its first code.

    Attributes:
        otpauth_uri: what the QR code says to an app.
    """

    secret: str = field(repr=False)
    otpauth_uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AddedFactor:
    """A factor that was set up.

    Attributes:
        amr: how the person proved who they are by its set-up.
        recovery_codes: those that were made with the first factor.
    """

    amr: Amr
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class FactorSetUp:
    """Adds authenticator apps, within changes that hold the person's row.

    Args:
        issuer: names us in the app.
    """

    def __init__(
        self,
        totp_secrets: TotpSecrets,
        recovery_codes: RecoveryCodes,
        holdings: FactorHoldings,
        notices: Notices,
        issuer: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._totp_secrets = totp_secrets
        self._recovery_codes = recovery_codes
        self._holdings = holdings
        self._notices = notices
        self._issuer = issuer
        self._clock = clock

    def propose(self, db: Session, user: User) -> ProposedSecret:
        """A new secret, in place of one that waits. One that counts goes on to count.

        Raises:
            FactorsOff
        """
        secret = totp.new_secret()
        self._totp_secrets.propose(db, user, secret)
        return self._proposed(user, secret)

    def proposed(self, db: Session, user: User) -> ProposedSecret | None:
        """The secret that waits, to be shown again."""
        secret = self._totp_secrets.candidate(db, user)
        return self._proposed(user, secret) if secret else None

    def accept(
        self, db: Session, user: User, shown: ShownFactor, actor: Actor
    ) -> AddedFactor | None:
        """Lets the secret that waits count, if the code is right. The caller ends the sessions.

        Raises:
            FactorsOff
        """
        if shown.method != "totp":
            return None
        secret = self._totp_secrets.candidate(db, user)
        if not secret:
            return None
        step = totp.matching_step(secret, shown.code, self._clock(), after=0)
        if step is None:
            return None
        is_replacement = self._totp_secrets.accept(db, user, step)
        return self.added(
            db, user, actor, "totp_replaced" if is_replacement else "totp_added", CODE
        )

    def added(self, db: Session, user: User, actor: Actor, what: str, amr: Amr) -> AddedFactor:
        """Notes that a factor was added; makes recovery codes if the person has none.

        Args:
            what: for the notice and the audit log, like `totp_added`.
        """
        held = self._holdings.note_change(db, user)
        codes = [] if held.recovery_codes_left else self._recovery_codes.replace(db, user.id)
        now = self._clock()
        audit.record(
            db, "factor.added", now, user_id=user.id, actor=actor.known_as(user.id), what=what
        )
        if codes:
            audit.record(
                db, "recovery_codes.made", now, user_id=user.id, actor=actor.known_as(user.id)
            )
        self._notices.factors_changed(db, user, actor, what)
        return AddedFactor(amr, tuple(codes))

    def _proposed(self, user: User, secret: str) -> ProposedSecret:
        return ProposedSecret(secret, totp.otpauth_uri(secret, user.email, self._issuer))
