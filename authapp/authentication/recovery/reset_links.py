"""Reset links: who gets one, by mail or from an operator, and what it stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.authority.authorization import lock_user
from authapp.accounts.emails import Email
from authapp.accounts.identity import Permission
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.notices import Notices
from authapp.cache.changes import Change, Changes
from authapp.errors import MailOff, TooManyAttempts, UserInactive
from authapp.mail.account_mails import address_of
from authapp.mail.one_time_links import LIFETIMES, MAILED, OneTimeLinks, is_spelt
from authapp.mail.outbox import CAP_RETRY_AFTER, Mail, Outbox
from authapp.mail.public_links import PublicLinks
from authapp.storage.models import User
from authapp.storage.postgres import Database

RESET_MINUTES: Final = int(LIFETIMES["reset"].total_seconds()) // 60


@dataclass(frozen=True, slots=True)
class OfferedReset:
    """A link that counts, for a page that asks for the new password.

    Attributes:
        email, name: of the account.
        is_mailed: the link came by mail. Otherwise an operator handed it over, or a log-in with a
            one-time password leads on to it.
    """

    email: str
    name: str
    is_mailed: bool


class ResetLinks:
    """Makes the links by which passwords are chosen.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        *,
        outbox: Outbox,
        links: OneTimeLinks,
        public_link: PublicLinks,
        notices: Notices,
        holdings: FactorHoldings,
        clock: Callable[[], datetime],
    ) -> None:
        self._holdings = holdings
        self._database = database
        self._changes = changes
        self._outbox = outbox
        self._links = links
        self._public_link = public_link
        self._notices = notices
        self._clock = clock

    def require_mail(self) -> None:
        """
        Raises:
            MailOff
        """
        if not self._outbox.enabled:
            raise MailOff("no mail is configured")

    def mail_to(self, email: Email, actor: Actor) -> None:
        """Mails a link to the active account with this email, if there is one.

        Raises:
            TooManyAttempts: a cap of mails refuses; nothing was changed.
        """
        with self._changes.begin(acknowledged=False) as change:
            if user := _lock_active(change.db, email):
                self._mail(change, user, "reset.requested", actor)

    def mail_for(self, user_id: UUID, actor: Actor) -> None:
        """Mails a link to a person for an administrator, who sees neither link nor password
        (OWASP ASVS 5.0, 6.4.6). Sessions and password stay until the person uses the link.

        Raises:
            MailOff
            UnknownUser, UserInactive
            TooManyAttempts: a cap of mails refuses.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        self.require_mail()
        with self._changes.begin(acknowledged=False) as change:
            user = _lock_for_reset(change.db, user_id, actor)
            self._mail(change, user, "reset.started", actor)

    def make(self, user_id: UUID, actor: Actor = OPERATOR) -> str:
        """A link for an operator to hand over, where no mail is configured.

        Raises:
            UnknownUser, UserInactive
        """
        with self._changes.begin(acknowledged=False) as change:
            user = _lock_for_reset(change.db, user_id, actor)
            issued = self._links.issue(change.db, "reset", user)
            self._record(change, user, "reset.started", actor)
        return self._public_link("/reset", token=issued.token)

    def look_up(self, token: str) -> OfferedReset | None:
        """The account that a token stands for; None if it does not count. Nothing is used up."""
        if not is_spelt(token):
            return None

        def query(db: Session) -> OfferedReset | None:
            found = self._links.look_up(db, "reset", token)
            if found is None:
                return None
            link, user = found
            return OfferedReset(user.email, user.name, is_mailed=was_mailed(link.details))

        return self._database.read(query)

    def prove_address(self, db: Session, user: User, actor: Actor) -> None:
        """Notes that a person used a mailed link, so that the address is theirs.

        If nobody had shown that before, somebody else may have signed up with the address: the
        factors of the account are gone with its password.
        """
        if user.email_verified_at is None and user.second_factor:
            self._holdings.remove_all(db, user)
            audit.record(db, "factor.reset", self._clock(), user_id=user.id, actor=actor)
            self._notices.factors_changed(db, user, actor, "factors_reset")
        user.email_verified_at = user.email_verified_at or self._clock()
        user.email_confirmation_due = False

    def tell_of_new_password(self, db: Session, user: User, actor: Actor) -> None:
        """Mails a person that their password was changed, within the caller's transaction.

        Where a cap refuses the mail, the new password counts all the same.
        """
        self._notices.password_changed(db, user, actor)

    def _mail(self, change: Change, user: User, event: audit.Event, actor: Actor) -> None:
        """Mails a link to a person whose row is locked, to the address that is stored.

        Raises:
            TooManyAttempts: a cap of mails refuses. The error takes back what this change has done,
                so the older link goes on to count.
        """
        issued = self._links.issue(change.db, "reset", user, details=MAILED)
        context = {
            "link": self._public_link("/reset", token=issued.token),
            "name": user.name,
            "when": self._clock().isoformat(),
            "address": "" if actor.id else actor.address,  # an administrator's is nobody's business
        }
        mail = Mail("reset", address_of(user), context, issued.expires_at, user.id)
        if not self._outbox.put(change.db, mail):
            raise TooManyAttempts(CAP_RETRY_AFTER, "mail")
        self._record(change, user, event, actor)

    def _record(self, change: Change, user: User, event: audit.Event, actor: Actor) -> None:
        audit.record_act(change.db, event, self._clock(), user_id=user.id, actor=actor)


def was_mailed(details: object) -> bool:
    """Whether a link with these details came by mail."""
    return details == MAILED


def _lock_active(db: Session, email: Email) -> User | None:
    return db.scalar(
        select(User)
        .where(User.email_canonical == email.canonical, User.active)
        .with_for_update(key_share=True)
    )


def _lock_for_reset(db: Session, user_id: UUID, actor: Actor) -> User:
    user, _ = lock_user(db, user_id, actor, Permission.USERS_WRITE)
    if not user.active:
        raise UserInactive("This account is deactivated: activate it first.")
    return user
