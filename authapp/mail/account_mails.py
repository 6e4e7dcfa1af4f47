"""`AccountMails`: mails about a change of address, or the end of an account, with their links."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from authapp.accounts.actor import Actor
from authapp.accounts.emails import Email
from authapp.mail.one_time_links import MAILED, OneTimeLinks
from authapp.mail.outbox import Mail, MailKind, Outbox
from authapp.mail.public_links import PublicLinks
from authapp.mail.queue import WAITS
from authapp.storage.models import OutgoingMail, User


class MailCapped(Exception):
    """A cap refuses a mail, so nothing that the mail tells of may happen."""


def address_of(user: User) -> Email:
    return Email(user.email, user.email_canonical)


@dataclass(frozen=True, slots=True)
class AccountMails:
    """Writes mails down within transactions that the callers complete.

    Attributes:
        device_name: names the device of a User-Agent for people.

    Raises:
        MailCapped: from every method. The transaction has to end without a commit, or the act has
            to be of use without the mail.
    """

    outbox: Outbox
    links: OneTimeLinks
    public_link: PublicLinks
    clock: Callable[[], datetime]
    device_name: Callable[[str], str]

    def ask_new(self, db: Session, user: User, new: Email, token: str, expires: datetime) -> None:
        """Asks a new address to confirm that it is the person's."""
        link = {"link": self.public_link("/verify", token=token)}
        self._put(db, "confirm_change", new, link, user, expires)

    def tell_holder(self, db: Session, holder: User) -> None:
        """Tells the owner of an address that somebody else asked for it."""
        link = {"login_link": self.public_link("/login")}
        self._put(db, "already_registered", address_of(holder), link, holder)

    def announce(self, db: Session, user: User, new: Email, actor: Actor) -> None:
        """Tells the present address that another was asked for."""
        told = {"new_email": new.stored, **self._facts(user, actor)}
        self._put(db, "change_announced", address_of(user), told, user)

    def tell_both(
        self, db: Session, user: User, old: Email, actor: Actor, *, may_undo: bool
    ) -> None:
        """Tells the old address of a change that was made, and the new one as far as a cap lets.

        Args:
            may_undo: the mail to the old address has a link that gives it back.
        """
        if not self.outbox.enabled:
            return
        told = {"new_email": user.email, **self._facts(user, actor)}
        undo = {}
        if may_undo:
            token = self.links.issue(
                db, "undo_email", user, email_canonical=old.canonical, details={"email": old.stored}
            ).token
            undo = {"undo_link": self.public_link("/email/undo", token=token)}
        self._put(db, "email_changed", old, {**told, **undo, "former_email": old.stored}, user)
        with suppress(MailCapped):
            self._put(db, "email_changed", address_of(user), told, user)

    def send_reset(self, db: Session, user: User) -> None:
        """Mails the link by which a person chooses a password."""
        issued = self.links.issue(db, "reset", user, details=MAILED)
        link = {"link": self.public_link("/reset", token=issued.token)}
        self._put(db, "reset", address_of(user), link, user, issued.expires_at)

    def tell_deleted(self, db: Session, user: User, actor: Actor) -> None:
        """Tells a person that the account is gone. No other mail about it leaves any more."""
        db.execute(
            update(OutgoingMail)
            .where(OutgoingMail.user_id == user.id, *WAITS)
            .values(sealed=None, failed_at=self.clock(), last_error="the account was deleted")
            .execution_options(synchronize_session=False)
        )
        if self.outbox.enabled:
            told = self._facts(user, actor)
            # not about an account that is there, so that nothing refers to it
            if not self.outbox.put(db, Mail("deleted", address_of(user), told)):
                raise MailCapped

    def _facts(self, user: User, actor: Actor) -> dict[str, str]:
        """When it happened; and from where, if the person did it."""
        when = {"when": self.clock().isoformat()}
        if actor.id != user.id:
            return when
        return {**when, "address": actor.address, "device": self.device_name(actor.user_agent)}

    def _put(
        self,
        db: Session,
        kind: MailKind,
        to: Email,
        context: Mapping[str, str],
        user: User,
        expires_at: datetime | None = None,
    ) -> None:
        context = {"forgot_link": self.public_link("/forgot"), **context}
        if not self.outbox.put(db, Mail(kind, to, context, expires_at, user.id)):
            raise MailCapped
