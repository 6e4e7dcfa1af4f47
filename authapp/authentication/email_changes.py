"""Changes of a person's email: asked for, confirmed by the new address, undone by the old one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Uuid, literal, select, union_all
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.authority.authorization import lock_user
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import Identity, Permission, identity_of
from authapp.accounts.reserved_emails import reserved
from authapp.accounts.store import UserStore
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.reauthentication import Reauthentication
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import (
    EmailTaken,
    InvalidCredentials,
    InvalidField,
    InvalidToken,
    MailOff,
    NotAuthenticated,
    TooManyAttempts,
)
from authapp.mail.account_mails import AccountMails, MailCapped, address_of
from authapp.mail.one_time_links import is_spelt
from authapp.mail.outbox import CAP_RETRY_AFTER
from authapp.sessions.records import ActiveSession, EndReason
from authapp.sessions.rotation import hold_row
from authapp.sessions.store import SessionStore
from authapp.storage.models import User
from authapp.storage.postgres import Database

THIEF_PREPARES = timedelta(days=1)
"""For so long before a change of address a thief may have added factors of their own."""


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A change that waits for its confirmation.

    Attributes:
        old, new: addresses.
        epoch: of the credentials under which it was asked for.
        session_id: of the session that asked.
        has_password: whether the person can show a password.
    """

    user_id: UUID
    old: Email
    new: Email
    epoch: int
    session_id: UUID
    has_password: bool

    def was_asked_in(self, live: ActiveSession | None) -> bool:
        return live is not None and live.record.id == self.session_id

    def asks_password(self, live: ActiveSession | None) -> bool:
        """Whether the session does not show already that it is the person who confirms. Without a
        password any session of theirs shows it."""
        if self.has_password or live is None:
            return not self.was_asked_in(live)
        return live.record.user.id != self.user_id


class EmailChanges:
    """The use cases that replace the email of a person.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        users: UserStore,
        sessions: SessionStore,
        *,
        reauthentication: Reauthentication,
        mails: AccountMails,
        holdings: FactorHoldings,
        parse_email: ParseEmail,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._changes = changes
        self._users = users
        self._sessions = sessions
        self._reauthentication = reauthentication
        self._mails = mails
        self._links = mails.links
        self._holdings = holdings
        self._parse_email = parse_email
        self._clock = clock

    def require_mail(self) -> None:
        """
        Raises:
            MailOff
        """
        if not self._mails.outbox.enabled:
            raise MailOff("no mail is configured")

    # -- ask -----------------------------------------------------------------------------------

    def ask(self, live: ActiveSession, email: str, actor: Actor) -> None:
        """Mails a link to a new address, by which it becomes the person's, and tells the old one.

        Whoever asks learns nothing of whether somebody has the address: its owner is told instead.
        A request that a cap of mails refuses sends nothing, and no older link becomes void.

        Args:
            live: the session, in which the person proved who they are (see `StepUp`).
        Raises:
            MailOff
            InvalidField: `email` is not an email address, or is the person's already.
            NotAuthenticated: the session has ended.
        """
        self.require_mail()
        new = self._parse_email(email)
        with suppress(MailCapped), self._changes.begin(acknowledged=False) as change:
            self._ask(change, live, new, actor.known_as(live.record.user.id))

    def _ask(self, change: Change, live: ActiveSession, new: Email, actor: Actor) -> None:
        db, now = change.db, self._clock()
        user, holder = _lock_both(db, live.record.user.id, new)
        row = hold_row(change, live)
        if user is None or row is None or not user.active or row.epoch != user.epoch:
            raise NotAuthenticated(presented=True)
        if holder is user:
            raise InvalidField({"email": "this is your email already"})
        # The link is made in any case, so that the one before is void in any case.
        issued = self._links.issue(
            db,
            "change_email",
            user,
            email_canonical=new.canonical,
            details={"email": new.stored, "session": str(live.record.id)},
        )
        is_reserved = bool(reserved(db, [new], now, besides=user.id))
        if holder is not None and not holder.email_confirmation_due:
            self._mails.tell_holder(db, holder)
        elif not is_reserved:
            self._mails.ask_new(db, user, new, issued.token, issued.expires_at)
        self._mails.announce(db, user, new, actor)
        audit.record_act(db, "email.change_requested", now, user_id=user.id, actor=actor)

    # -- confirm -------------------------------------------------------------------------------

    def look_up(self, token: str) -> PendingChange | None:
        """The change that a token would confirm. Nothing is used up."""
        if not is_spelt(token):
            return None

        def query(db: Session) -> PendingChange | None:
            found = self._links.look_up(db, "change_email", token)
            if found is None:
                return None
            link, user = found
            return PendingChange(
                user.id,
                address_of(user),
                Email(link.details["email"], link.email_canonical),
                user.epoch,
                UUID(link.details["session"]),
                bool(user.password_hash),
            )

        return self._database.read(query)

    def confirm(
        self, token: str, password: str, live: ActiveSession | None, actor: Actor
    ) -> Changed[Identity]:
        """Gives the person the new address: the link that was mailed there is used up.

        The session that asked goes on, all others end. The old address is told how to undo it.

        Args:
            password: the current one; needed but in the session that asked. So an address that was
                mistyped gives nothing to its owner. See `PendingChange.asks_password`.
        Raises:
            InvalidToken: the link is unknown, used, replaced or too old.
            InvalidField: `password` is needed.
            InvalidCredentials: the password is wrong.
            EmailTaken: somebody else has the address by now.
            TooManyAttempts: too many wrong passwords, or a cap of mails refuses to tell the old
                address; the link still counts.
            Busy: the password hashing queue is full.
        """
        pending = self.look_up(token)
        if pending is None:
            raise InvalidToken("the link does not count")
        actor = actor.known_as(pending.user_id)
        if pending.asks_password(live):
            self._show_password(pending, password, actor)
        try:
            with self._changes.begin() as change:
                user = self._confirm(change, token, pending, actor)
        except MailCapped:
            raise TooManyAttempts(CAP_RETRY_AFTER, "mail") from None
        return change.returning(user)

    def _show_password(self, pending: PendingChange, password: str, actor: Actor) -> None:
        if not password:
            why = "enter your password; if you have none, log in first"
            raise InvalidField({"password": why})
        try:
            with self._reauthentication.verified(pending.old, password, actor) as (found, _):
                is_same = (found.user.id, found.epoch) == (pending.user_id, pending.epoch)
        except InvalidField:
            raise InvalidCredentials from None
        if not is_same:
            raise InvalidToken("the account was changed in the meantime")

    def _confirm(
        self, change: Change, token: str, pending: PendingChange, actor: Actor
    ) -> Identity:
        db, new = change.db, pending.new
        user, holder = _lock_both(db, pending.user_id, new)
        redeemed = self._links.redeem(db, "change_email", token)
        if user is None or redeemed is None or user.epoch != pending.epoch:
            raise InvalidToken("the link does not count")
        if holder is not None and holder is not user:
            self._remove_unconfirmed(change, holder, actor)
        old, may_undo = address_of(user), user.email_verified_at is not None
        why = EndReason.EMAIL_CHANGED
        self._sessions.end_others_within(change, user, pending.session_id, why, actor)
        self._move(change, user, new, verified=True)
        self._mails.tell_both(db, user, old, actor, may_undo=may_undo)
        audit.record(db, "email.changed", self._clock(), user_id=user.id, actor=actor)
        return identity_of(user)

    def _remove_unconfirmed(self, change: Change, holder: User, actor: Actor) -> None:
        """Removes an account that has the address and was never of use: nobody confirmed it.

        Raises:
            EmailTaken: the account is of use.
        """
        if not holder.email_confirmation_due:
            raise EmailTaken("somebody has this email")
        removed = holder.id
        self._users.delete(change, removed)
        audit.record(
            change.db,
            "user.deleted",
            self._clock(),
            user_id=None,
            deleted_id=removed,
            actor=actor,
        )

    # -- undo ----------------------------------------------------------------------------------

    def undo(self, token: str, actor: Actor) -> Changed[UUID]:
        """Gives the person the old address again, by the link that was mailed there.

        Somebody else may have made the change. So all sessions end, and no password opens the
        account until the person has chosen another by the link that is mailed to the old address.
        Second factors count no more that were added since the day before the change.

        Returns:
            The id of the person.
        Raises:
            InvalidToken: the link is unknown, used or too old.
            EmailTaken: somebody else has the address by now.
        """
        with self._changes.begin() as change:
            db = change.db
            redeemed = self._links.redeem(db, "undo_email", token)
            if redeemed is None:
                raise InvalidToken("the link does not count")
            user, lost = redeemed.user, address_of(redeemed.user)
            back = Email(redeemed.details["email"], redeemed.email_canonical)
            actor = actor.known_as(user.id)
            self._sessions.end_all(change, user, EndReason.EMAIL_CHANGED)
            user.password_hash, user.password_expires_at = "", None
            if self._holdings.remove_newer(db, user, redeemed.created_at - THIEF_PREPARES):
                audit.record(db, "factor.reset", self._clock(), user_id=user.id, actor=actor)
            self._move(change, user, back, verified=True)
            self._links.void(db, user, "undo_email")  # a thief's address has such a link, too
            # Refused by a cap, the mails do not stop this: the person asks for a link later.
            with suppress(MailCapped):
                self._mails.tell_both(db, user, lost, actor, may_undo=False)
            with suppress(MailCapped):
                self._mails.send_reset(db, user)
            audit.record(db, "email.change_undone", self._clock(), user_id=user.id, actor=actor)
        return change.returning(user.id)

    # -- by somebody else ----------------------------------------------------------------------

    def set_email(
        self, user_id: UUID, email: str, *, verified: bool, actor: Actor
    ) -> Changed[Identity]:
        """Gives a person another address, as an administrator or an operator; all sessions end.

        The old address is told where mail is configured. It can undo what an administrator did.

        Args:
            verified: the address is known to be the person's.
        Raises:
            InvalidField: `email` is not an email address; or the account is the actor's, who has to
                confirm the address as everybody does.
            EmailTaken
            UnknownUser
            TooManyAttempts: a cap refuses the mail by which the old address can undo it.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        new = self._parse_email(email)
        with self._changes.begin() as change:
            db = change.db
            user, _ = lock_user(db, user_id, actor, Permission.USERS_WRITE)
            if actor.id == user.id and not actor.is_operator:
                raise InvalidField({"email": "change your own on your account page"})
            old, is_moved = address_of(user), new.canonical != user.email_canonical
            may_undo = is_moved and user.email_verified_at is not None and not actor.is_operator
            if is_moved:
                self._sessions.end_all(change, user, EndReason.EMAIL_CHANGED)
            self._move(change, user, new, verified=verified)
            if is_moved:
                try:
                    self._mails.tell_both(db, user, old, actor, may_undo=may_undo)
                except MailCapped:
                    if may_undo:  # whoever fills the cap first would change it unnoticed
                        raise TooManyAttempts(CAP_RETRY_AFTER, "mail") from None
            audit.record_act(db, "email.changed", self._clock(), user_id=user.id, actor=actor)
        return change.returning(identity_of(user))

    # -- common --------------------------------------------------------------------------------

    def _move(self, change: Change, user: User, new: Email, *, verified: bool) -> None:
        """Gives a locked user the address. All links are void that stood for the one before."""
        self._users.set_email(change, user, new, verified=verified)
        self._links.void(change.db, user)
        self._links.void_undo_to(change.db, user, new.canonical)


def _lock_both(db: Session, user_id: UUID, email: Email) -> tuple[User | None, User | None]:
    """Locks a user and the holder of an address, in the one order; and returns them."""
    holders = select(User.id).where(User.email_canonical == email.canonical)
    locked = db.scalars(
        select(User)
        # not `id = … OR email = …`, for which Postgres looks at each user there is
        .where(User.id.in_(union_all(holders, select(literal(user_id, Uuid)))))
        .order_by(User.id)
        .with_for_update(key_share=True)
    ).all()
    user = next((one for one in locked if one.id == user_id), None)
    return user, next((u for u in locked if u.email_canonical == email.canonical), None)
