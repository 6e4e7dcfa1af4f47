"""Verification: a person shows that an address is theirs, by a link or a code that was mailed."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import Identity, identity_of
from authapp.accounts.invitations import InvitationMail
from authapp.accounts.store import UserStore
from authapp.authentication.factors.recovery_codes import RecoveryCodes
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import InvalidCredentials, InvalidField, InvalidToken, MailOff, Window
from authapp.mail.one_time_links import OneTimeLinks, RedeemedLink
from authapp.mail.outbox import Mail, Outbox, plain
from authapp.mail.public_links import PublicLinks
from authapp.passwords.constant_time import ConstantTimeRefusal
from authapp.passwords.hashing import PasswordHasher, Verdict
from authapp.storage.deadlines import deadline
from authapp.storage.models import User

_HOW_TO_PROVE = (
    "enter the password that you signed up with; if it was a passkey, log in with it first"
)


@dataclass(frozen=True, slots=True)
class PasswordProof:
    """A browser's proof that the password of an account was typed in it, or its passkey shown.

    The edge keeps it sealed. It is void as soon as the account has another epoch, so whoever signs
    up later with the same address voids it.
    """

    user_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A person whose address is confirmed, and whose password, or passkey, was shown.

    Attributes:
        epoch: of the credentials that were verified.
        has_password: False for a person who signed up with a passkey.
        recovery_codes: made for such a person; shown this once.
        rate_limit: the window that counted the attempt, if it may be told.
    """

    user: Identity
    epoch: int
    has_password: bool = True
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)
    rate_limit: Window | None = None


def mail_invitation(
    outbox: Outbox, public_link: PublicLinks, db: Session, invitation: InvitationMail
) -> bool:
    """Writes down the mail to an invited person; False where mail is off, or a cap refuses."""
    context = plain(
        {
            "link": public_link(f"/signup/{invitation.token}"),
            "invited_by": invitation.invited_by,
        }
    )
    return outbox.put(db, Mail("invitation", invitation.to, context, invitation.expires_at))


class MailCapped(Exception):
    """A cap refuses a mail, so nothing that the mail tells of may happen."""


@dataclass(frozen=True, slots=True)
class _Account:
    """An account whose link or code was shown, as read without a lock."""

    user_id: UUID
    email: Email
    password_hash: str
    epoch: int
    has_one_time_password: bool

    @classmethod
    def of(cls, user: User) -> "_Account":
        email = Email(user.email, user.email_canonical)
        is_one_time = user.password_expires_at is not None
        return cls(user.id, email, user.password_hash, user.epoch, is_one_time)


@dataclass(frozen=True, slots=True)
class VerificationMails:
    """Writes the mails of sign-up down, each with its link.

    Args:
        public_link: makes the links.
    """

    outbox: Outbox
    links: OneTimeLinks
    public_link: PublicLinks

    def send(self, db: Session, user: User) -> None:
        """Writes the mail with link and code, within the transaction that holds the user's row.

        Raises:
            MailCapped: a cap refuses. The transaction has to end without a commit, so that older
                links still count.
        """
        issued = self.links.issue(db, "verify", user, with_code=True)
        # The name is left out: a stranger may have typed it.
        context = {
            "link": self.public_link("/verify", token=issued.token),
            "code": issued.code,
        }
        to = Email(user.email, user.email_canonical)
        if not self.outbox.put(db, Mail("verify", to, context, issued.expires_at, user.id)):
            raise MailCapped

    def tell_owner(self, db: Session, user: User) -> None:
        """Tells the owner of an account that somebody signed up with its address.

        Raises:
            MailCapped: as `send`.
        """
        if not user.active:
            return
        context = {
            "login_link": self.public_link("/login"),
            "forgot_link": self.public_link("/forgot"),
        }
        to = Email(user.email, user.email_canonical)
        if not self.outbox.put(db, Mail("already_registered", to, context, user_id=user.id)):
            raise MailCapped


class Verification:
    """The use cases of confirming an address.

    A link alone confirms nothing: the person shows the password as well, or uses the browser in
    which it was typed. So a person who signed up with somebody else's address gains nothing when
    the owner of the address follows the link.

    Args:
        timeout: seconds that a confirmation may take.
    Raises:
        StoreUnavailable: from every method; nothing was changed.
        Busy: the password hashing queue is full.
    """

    def __init__(
        self,
        changes: Changes,
        users: UserStore,
        *,
        mails: VerificationMails,
        hasher: PasswordHasher,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        recovery_codes: RecoveryCodes,
        parse_email: ParseEmail,
        timeout: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._recovery_codes = recovery_codes
        self._changes = changes
        self._users = users
        self._mails = mails
        self._links = mails.links
        self._hasher = hasher
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._parse_email = parse_email
        self._timeout = timeout
        self._clock = clock

    def resend(self, email: str, actor: Actor) -> Window | None:
        """Mails link and code again, if an account waits for it. Nobody learns whether one does.

        Returns:
            The window that counted the request, see `Attempt`.
        Raises:
            MailOff
            InvalidField: `email` is not an email address.
            TooManyAttempts
        """
        if not self._mails.outbox.enabled:
            raise MailOff
        parsed = self._parse_email(email)
        counted = self._limits.count_mail_request(actor.address)
        with (
            counted.told_by_errors(),
            ConstantTimeRefusal(always=True),
            suppress(MailCapped),
            self._changes.begin(acknowledged=False) as change,
        ):
            user = self._users.lock_by_email(change, parsed)
            if user is not None and user.active and user.email_verified_at is None:
                self._mails.send(change.db, user)
        return counted.window

    # -- confirm -------------------------------------------------------------------------------

    def confirm(
        self, token: str, password: str, proof: PasswordProof | None, actor: Actor
    ) -> Changed[Verified]:
        """Confirms the address that a link was mailed to, and uses the link up.

        Args:
            password: empty where none was typed.
            proof: of the browser, if it holds one.
        Raises:
            InvalidToken: unknown, used, replaced or too old; or the person was deactivated.
            InvalidField: `password` is needed.
            InvalidCredentials: it is wrong. The link still counts.
            TooManyAttempts
        """
        with deadline(self._timeout):
            account = self._of_link(token)
            window = self._show_password(account, password, proof, actor)

            def redeem(db: Session) -> RedeemedLink | None:
                return self._links.redeem(db, "verify", token)

            return self._use_up(redeem, account, actor, window)

    def confirm_by_code(
        self, email: str, code: str, password: str, proof: PasswordProof | None, actor: Actor
    ) -> Changed[Verified]:
        """Confirms an address by the code that was mailed with the link, and uses both up.

        Wrong codes count by account, so that asking for more mails gives no more guesses.

        Raises:
            InvalidField: `email` is not an email address, or `password` is needed.
            InvalidToken: the code is wrong, used, replaced or too old, or there is no such account.
            InvalidCredentials: the password is wrong. The code still counts.
            TooManyAttempts
        """
        parsed = self._parse_email(email)
        with deadline(self._timeout):
            with self._refused_attempts.noting_limits("login.limited", actor, parsed):
                counted = self._limits.count_address(actor.address)
                tried = self._limits.count_code(parsed)
            with counted.told_by_errors():
                with ConstantTimeRefusal():
                    account = self._of_code(parsed, code)
                tried.take_back()
                self._show_password(account, password, proof, actor, counted)

                def redeem(db: Session) -> RedeemedLink | None:
                    return self._links.redeem_code(db, "verify", account.user_id, code)

                return self._use_up(redeem, account, actor, counted.window)

    def _of_link(self, token: str) -> _Account:
        with self._changes.begin(acknowledged=False) as change:
            db = change.db
            found = self._links.look_up(db, "verify", token)
            if found is None:
                raise InvalidToken
            return _Account.of(found[1])

    def _of_code(self, email: Email, code: str) -> _Account:
        """The account that waits for this code. A wrong code is noted with the code it missed.

        Raises:
            InvalidToken
        """
        with self._changes.begin(acknowledged=False) as change:
            db = change.db
            user = db.scalar(
                select(User).where(User.email_canonical == email.canonical, User.active)
            )
            if user is not None and self._links.try_code(db, "verify", user, code):
                return _Account.of(user)
        raise InvalidToken  # behind the block, so that the failure is committed

    def _show_password(
        self,
        account: _Account,
        password: str,
        proof: PasswordProof | None,
        actor: Actor,
        counted: Attempt | None = None,
    ) -> Window | None:
        """Sees to it that the person knows the password of the account.

        Args:
            counted: the attempt, if it was counted by its address already.
        Returns:
            The window that counted the attempt, see `Attempt`.
        """
        if proof == PasswordProof(account.user_id, account.epoch):
            return None
        if not password:
            raise InvalidField({"password": _HOW_TO_PROVE})
        with self._refused_attempts.noting_limits("login.limited", actor, account.email):
            by_address = counted or self._limits.count_address(actor.address)
            by_account = self._limits.count_account(account.email)
        with by_address.told_by_errors(), self._hasher.queue.place(by_address, by_account):
            compared = self._hasher.verify(password, account.password_hash, account.user_id)
            # a one-time password opens nothing but the choice of another
            if compared.verdict is Verdict.MISMATCH or account.has_one_time_password:
                self._refused_attempts.note("login.failed", actor, email=account.email)
                raise InvalidCredentials
            by_account.take_back()
        return by_address.window

    def _use_up(
        self,
        redeem: Callable[[Session], RedeemedLink | None],
        account: _Account,
        actor: Actor,
        window: Window | None,
    ) -> Changed[Verified]:
        with self._changes.begin() as change:
            redeemed = redeem(change.db)
            if redeemed is None or redeemed.user.epoch != account.epoch:
                raise InvalidToken
            user = redeemed.user
            self._confirm(change, user, actor)
            codes = () if user.password_hash else self._make_codes(change.db, user, actor)
            has_password = bool(user.password_hash)
            verified = Verified(identity_of(user), account.epoch, has_password, codes, window)
        return change.returning(verified)

    def _make_codes(self, db: Session, user: User, actor: Actor) -> tuple[str, ...]:
        """Recovery codes for a person who signed up with a passkey, which alone is one way in."""
        if not user.second_factor or self._recovery_codes.left(db, user.id):
            return ()
        by = actor.known_as(user.id)
        audit.record(db, "recovery_codes.made", self._clock(), user_id=user.id, actor=by)
        return tuple(self._recovery_codes.replace(db, user.id))

    def verify(self, user_id: UUID, actor: Actor) -> Changed[Identity]:
        """Confirms an address for an operator, who knows that it is the person's.

        Raises:
            UnknownUser
        """
        with self._changes.begin() as change:
            user = self._users.lock_by_id(change, user_id)
            if user.email_verified_at is None or user.email_confirmation_due:
                self._confirm(change, user, actor)
            else:
                change.touch_unchanged_user(user)
        return change.returning(identity_of(user))

    def _confirm(self, change: Change, user: User, actor: Actor) -> None:
        self._links.void(change.db, user, "verify")
        self._users.mark_verified(change, user)
        actor = actor if actor.is_operator else actor.known_as(user.id)
        audit.record(change.db, "email.verified", self._clock(), user_id=user.id, actor=actor)
