"""The tables of factors: authenticator apps, recovery codes, passkeys, log-ins that wait for a
factor."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Boolean, ForeignKey, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from authapp.storage.models import Base


class TotpSecret(Base):
    """The authenticator app of a person: its secret, and one that waits for its first code.

    Attributes:
        sealed: the secret that log-ins ask for; None before the first right code.
        last_step: the time step of the last code that was accepted. No code of it or before counts.
        failures: wrong codes since the last right one.
        candidate: a sealed secret that counts once it is confirmed by a code.
    """

    __tablename__ = "totp_secrets"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[bytes | None]
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    candidate: Mapped[bytes | None]
    candidate_at: Mapped[datetime | None]


class RecoveryCode(Base):
    """A recovery code, which stands in for another factor once.

    Attributes:
        digest: keyed hash of the code.
    """

    __tablename__ = "recovery_codes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    digest: Mapped[bytes]
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (Index("uq_recovery_codes_user_id_digest", "user_id", "digest", unique=True),)


class PendingLogin(Base):
    """A log-in that still needs a second factor. It is no session, and opens nothing.

    Attributes:
        digest: keyed hash of its login token.
        epoch, factors_version: of the person when the first factor was shown.
        kind: of the session that would begin.
        remember: as for that session.
        amr: how the person proved who they are so far.
        method: what the event in the audit log will say of the log-in; empty: nothing.
        enrols: the person holds no factor and must set one up first.
        failures: wrong factors so far.
    """

    __tablename__ = "pending_logins"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    epoch: Mapped[int]
    factors_version: Mapped[int]
    kind: Mapped[str]
    remember: Mapped[bool] = mapped_column(Boolean)
    amr: Mapped[list[str]] = mapped_column(ARRAY(Text))
    method: Mapped[str] = mapped_column(server_default="")
    enrols: Mapped[bool] = mapped_column(Boolean)
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Passkey(Base):
    """A passkey of a person. One belongs to one person.

    Attributes:
        credential_id, public_key, transports, aaguid: as the authenticator gave them.
        sign_count: of its last use; 0: it counts nothing.
        backup_eligible, backed_up: whether it may be, and is, on more than one device. They decide
            nothing.
        rp_id: the name that it was made for, and counts for alone.
        counter_fell_at: when its counter did not go up: another device may hold a copy.
    """

    __tablename__ = "passkeys"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    credential_id: Mapped[bytes] = mapped_column(unique=True)
    public_key: Mapped[bytes]
    sign_count: Mapped[int] = mapped_column(BigInteger)
    transports: Mapped[list[str]] = mapped_column(ARRAY(Text))
    aaguid: Mapped[UUID]
    backup_eligible: Mapped[bool]
    backed_up: Mapped[bool]
    rp_id: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    counter_fell_at: Mapped[datetime | None]


class UsedChallenge(Base):
    """A challenge that was answered. It counts once, so it is kept until it has expired."""

    __tablename__ = "used_challenges"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
