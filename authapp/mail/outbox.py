"""The outbox: mails that wait in Postgres, written in the transaction that needs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec
from limits import RateLimitItem, parse
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from authapp.accounts.emails import Email
from authapp.crypto.sealing import KeyedHash, Sealer
from authapp.storage.models import OutgoingMail

MailKind = Literal[
    "verify",  # confirm the address of a new account: link and code
    "already_registered",  # somebody signed up with the address of an account
    "reset",  # choose a new password
    "confirm_change",  # to the new address: confirm it
    "change_announced",  # to the old address: a change was asked for
    "email_changed",  # to the old address, with a way to undo; to the new one
    "invitation",
    "new_device",
    "password_changed",
    "refused_logins",
    "deleted",
    "test",
]
MAIL_KINDS: tuple[MailKind, ...] = get_args(MailKind)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one person, not yet rendered.

    Attributes:
        to: the stored form of the address is written to, the canonical one is counted.
        context: what the template of this kind shows: plain text, links among it.
        expires_at: the mail is dropped then, because its link is of no use any more.
        user_id: whose account it is about.
    """

    kind: MailKind
    to: Email
    context: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires_at: datetime | None = None
    user_id: UUID | None = None


class Letter(msgspec.Struct, frozen=True):
    """The part of a mail that is sealed."""

    recipient: str
    context: dict[str, str]


class Outbox:
    """Mails that wait to be sent. `sending.py` sends them.

    Args:
        secrets: first seals, all open; the order of SECRET_KEY.
        per_recipient: a rate, like `10 per hour`.
        total: a rate of all mails, like `1000 per minute`.
    Attributes:
        enabled: whether mail is configured.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        clock: Callable[[], datetime],
        *,
        enabled: bool,
        per_recipient: str,
        total: str,
    ) -> None:
        self.enabled = enabled
        self._sealer = Sealer(secrets, "mail")
        self._hash = KeyedHash(secrets[0], "mail recipients")
        self._clock = clock
        self._per_recipient = parse(per_recipient)
        self._total = parse(total)

    def has_room(self, db: Session, to: Email) -> bool:
        """Whether the caps let another mail to this address go."""
        now = self._clock()
        recipient = OutgoingMail.recipient_hash == self._recipient_hash(to)
        for cap, which in ((self._per_recipient, recipient), (self._total, text("true"))):
            sent = db.scalar(
                select(func.count())
                .select_from(OutgoingMail)
                .where(which, OutgoingMail.created_at > now - _period(cap))
            )
            if (sent or 0) >= cap.amount:
                return False
        return True

    def put(self, db: Session, mail: Mail) -> bool:
        """Writes a mail down within the caller's transaction; it leaves once that is committed.

        Returns:
            False where mail is off, or a cap refuses: then nothing was written.
        """
        if not self.enabled or not self.has_room(db, mail.to):
            return False
        now = self._clock()
        row = OutgoingMail(
            kind=mail.kind,
            user_id=mail.user_id,
            recipient_hash=self._recipient_hash(mail.to),
            sealed=self._sealer.seal(
                _SEALED_FOR, msgspec.msgpack.encode(Letter(mail.to.stored, dict(mail.context)))
            ),
            created_at=now,
            next_attempt_at=now,
            expires_at=mail.expires_at,
        )
        db.add(row)
        return True

    def open(self, sealed: bytes) -> Letter | None:
        """The sealed part of a mail; None where SECRET_KEY no longer has the key."""
        opened = self._sealer.open(_SEALED_FOR, sealed)
        return None if opened is None else msgspec.msgpack.decode(opened, type=Letter)

    def _recipient_hash(self, to: Email) -> bytes:
        return self._hash(to.canonical.encode())


_SEALED_FOR = "outgoing mail"


def _period(cap: RateLimitItem) -> timedelta:
    return timedelta(seconds=cap.get_expiry())


def plain(context: Mapping[str, Any]) -> dict[str, str]:
    """Text for a mail, without line breaks and other controls."""
    return {
        name: "".join(c if c.isprintable() else " " for c in str(value))
        for name, value in context.items()
    }
