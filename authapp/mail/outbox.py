"""The outbox: mails that wait in Postgres, written in the transaction that needs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args
from uuid import UUID

import msgspec
from limits import RateLimitItem, parse
from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    bindparam,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session

from authapp.accounts.emails import Email
from authapp.crypto.sealing import KeyedHash, Sealer
from authapp.storage.models import OutgoingMail, table_of
from authapp.telemetry import metrics

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
    "factors_changed",
    "factor_refused",
    "deleted",
    "test",
]
CAP_RETRY_AFTER: Final = 600  # seconds; when a cap has room again is not known

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


class Letters:
    """Seals and opens letters.

    Args:
        secrets: first seals, all open; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._sealer = Sealer(secrets, "mail")

    def seal(self, letter: Letter) -> bytes:
        return self._sealer.seal(_SEALED_FOR, msgspec.msgpack.encode(letter))

    def open(self, sealed: bytes) -> Letter | None:
        """None where SECRET_KEY no longer has the key."""
        opened = self._sealer.open(_SEALED_FOR, sealed)
        return None if opened is None else msgspec.msgpack.decode(opened, type=Letter)


class Outbox:
    """Mails that wait to be sent. `sending.py` sends them.

    Args:
        letters: seals them.
        key: of the hashes by which mails to one address are counted.
        wake: is called when a mail was written and can be sent.
        per_recipient: a rate, like `10 per hour`.
        total: a rate of all mails, like `1000 per minute`.
    Attributes:
        enabled: whether mail is configured.
    """

    def __init__(
        self,
        letters: Letters,
        key: str,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        *,
        enabled: bool,
        per_recipient: str,
        total: str,
    ) -> None:
        self.enabled = enabled
        self._letters = letters
        self._hash = KeyedHash(key, "mail recipients")
        self._clock = clock
        self._wake = wake
        self._per_recipient = parse(per_recipient)
        self._total = parse(total)

    def put(self, db: Session, mail: Mail) -> bool:
        """Writes a mail down within the caller's transaction; it leaves once that is committed.

        Until the end of the transaction no other one can write to this address, so that the cap of
        a recipient is exact. The total cap may be exceeded by the mails that are written at this
        very moment, at most one for each thread that answers requests.

        Returns:
            False where mail is off, or a cap refuses: then nothing was written.
        """
        if not self.enabled:
            return False
        number = int.from_bytes(self._recipient_hash(mail.to)[:8], signed=True)
        db.execute(select(func.pg_advisory_xact_lock(number)))
        return self._insert(db, _INSERT, mail)

    def put_notice(self, db: Session, mail: Mail, most: int, within: timedelta) -> bool:
        """As `put`, for a mail that tells of an act which must not wait. The cap of the recipient
        may be exceeded by mails that are written at this very moment.

        Args:
            most: mails of this kind that the user gets `within` some time; one more is refused.
        """
        if not self.enabled:
            return False
        cap = {"most_of_kind": most, "since_of_kind": self._clock() - within}
        return self._insert(db, _INSERT_NOTICE, mail, **cap)

    def _insert(self, db: Session, statement: Executable, mail: Mail, **cap: object) -> bool:
        now = self._clock()
        db.flush()  # the mail may tell of a user who was just added
        inserted = db.execute(
            statement,
            {
                "kind": mail.kind,
                "user_id": mail.user_id,
                "recipient_hash": self._recipient_hash(mail.to),
                "sealed": self._letters.seal(Letter(mail.to.stored, dict(mail.context))),
                "now": now,
                "expires_at": mail.expires_at,
                "most_to_one": self._per_recipient.amount,
                "since_to_one": now - _period(self._per_recipient),
                "most_in_all": self._total.amount,
                "since_in_all": now - _period(self._total),
                **cap,
            },
        ).one_or_none()
        if inserted is None:
            return False
        event.listen(db, "after_commit", self._written, once=True)
        return True

    def _written(self, _db: Session) -> None:
        metrics.MAILS.labels("queued").inc()
        self._wake()

    def _recipient_hash(self, to: Email) -> bytes:
        return self._hash(to.canonical.encode())


_SEALED_FOR = "outgoing mail"


_mails = table_of(OutgoingMail)
_RECIPIENT_HASH = bindparam("recipient_hash", type_=LargeBinary)


def _below_cap(name: str, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there are fewer such mails than `most_…`, since `since_…`. It counts no further."""
    most = bindparam(f"most_{name}", type_=Integer)
    since = bindparam(f"since_{name}", type_=_mails.c.created_at.type)
    found = select(_mails.c.id).where(*which, _mails.c.created_at > since).limit(most).subquery()
    return select(func.count()).select_from(found).scalar_subquery() < most


def _insert_below(*caps: ColumnElement[bool]) -> Executable:
    """Inserts a mail if caps let it go; returns its id, or nothing."""
    given = {"recipient_hash": _RECIPIENT_HASH}
    for name in ("created_at", "next_attempt_at"):
        given[name] = bindparam("now", type_=_mails.c[name].type)
    given |= {
        name: bindparam(name, type_=_mails.c[name].type)
        for name in ("kind", "user_id", "sealed", "expires_at")
    }
    values = select(*given.values()).where(*caps)
    return insert(_mails).from_select(list(given), values).returning(_mails.c.id)


_CAPS = (
    _below_cap("to_one", _mails.c.recipient_hash == _RECIPIENT_HASH),
    _below_cap("in_all"),
)
_INSERT = _insert_below(*_CAPS)
_INSERT_NOTICE = _insert_below(
    *_CAPS,
    _below_cap(
        "of_kind",
        _mails.c.user_id == bindparam("user_id", type_=Uuid),
        _mails.c.kind == bindparam("kind", type_=Text),
    ),
)


def _period(cap: RateLimitItem) -> timedelta:
    return timedelta(seconds=cap.get_expiry())


def plain(context: Mapping[str, Any]) -> dict[str, str]:
    """Text for a mail, without line breaks and other controls."""
    return {
        name: "".join(c if c.isprintable() else " " for c in str(value))
        for name, value in context.items()
    }
