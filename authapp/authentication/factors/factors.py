"""Factors of people who are logged in: look, set up, remove; and reset by an administrator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.assurance import SecondFactorRule
from authapp.accounts.authority.authorization import lock_user
from authapp.accounts.identity import Identity, Permission, identity_of
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.holdings import Holdings
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.set_up import ProposedSecret
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import (
    FactorNeeded,
    InvalidField,
    NoFactor,
    NotAuthenticated,
    OwnAccount,
    TooManyAttempts,
    UnknownUser,
)
from authapp.mail.account_mails import MailCapped
from authapp.mail.outbox import CAP_RETRY_AFTER
from authapp.sessions.records import ActiveSession, EndReason, IssuedLogin, IssuedTokens
from authapp.sessions.rotation import hold_row
from authapp.sessions.store import SessionStore
from authapp.storage.factors.models import TotpSecret
from authapp.storage.models import User
from authapp.storage.postgres import Database


@dataclass(frozen=True, slots=True)
class FactorAdded:
    """A factor that was added, and how the session goes on.

    Attributes:
        recovery_codes: those that were made with the first factor; they can't be shown again.
    """

    issued: IssuedLogin | IssuedTokens
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class Factors:
    """The use cases that look at factors and change them.

    Whoever changes a factor has proved not long ago who they are: the callers see to it. Every
    change ends the other sessions of the person (OWASP ASVS 5.0, 7.4.3), gives this one a new
    token, is told by mail and noted in the audit log.

    Raises:
        NotAuthenticated: from every method that takes a session, if it has ended.
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        sessions: SessionStore,
        parts: FactorParts,
        *,
        rule: SecondFactorRule,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._changes = changes
        self._sessions = sessions
        self._set_up = parts.set_up
        self._holdings = parts.holdings
        self._recovery_codes = parts.recovery_codes
        self._notices = parts.notices
        self._mails = parts.mails
        self._rule = rule
        self._clock = clock

    def of(self, user_id: UUID) -> Holdings:
        """The factors of a person."""
        with self._database.transaction() as db:
            return self._holdings.of(db, user_id)

    def are_due(self, person: Identity) -> bool:
        """Whether a log-in of this person needs a second factor."""
        return self._rule.is_due(person, ())

    @property
    def trusts_browsers(self) -> bool:
        """Whether people may have a browser of theirs log in without a factor for a while."""
        return self._rule.trusts_browsers

    def propose_totp(self, live: ActiveSession) -> ProposedSecret:
        """A secret for an authenticator app. It counts once it is confirmed by a code.

        Raises:
            FactorsOff
        """
        with self._changes.begin(acknowledged=False) as change:
            user = self.hold(change, live)
            return self._set_up.propose(change.db, user)

    def proposed_totp(self, live: ActiveSession) -> ProposedSecret | None:
        """The secret that waits, to be shown again."""
        with self._database.transaction() as db:
            user = db.get(User, live.record.user.id)
            return None if user is None else self._set_up.proposed(db, user)

    def confirm_totp(self, live: ActiveSession, code: str, actor: Actor) -> Changed[FactorAdded]:
        """Lets the secret that waits count, in place of the one before, if there is one.

        Raises:
            InvalidField: the code is wrong, or no secret waits.
            FactorsOff
        """
        actor = actor.known_as(live.record.user.id)
        with self._changes.begin() as change:
            user = self.hold(change, live)
            added = self._set_up.accept(change.db, user, ShownFactor("totp", code), actor)
            if added is None:
                raise InvalidField(
                    {"code": "this is not the code that the app shows now; try the next one"}
                )
            issued = self.go_on(change, user, live, actor, added.amr)
        return change.returning(FactorAdded(issued, added.recovery_codes))

    def remove_totp(self, live: ActiveSession, actor: Actor) -> Changed[IssuedLogin | IssuedTokens]:
        """Removes the authenticator app; without another factor the recovery codes, too.

        Raises:
            NoFactor: there is none.
            FactorNeeded: the person must hold a second factor, and has no other.
        """
        actor = actor.known_as(live.record.user.id)
        with self._changes.begin() as change:
            user = self.hold(change, live)
            removed = change.db.scalar(
                delete(TotpSecret)
                .where(TotpSecret.user_id == user.id, TotpSecret.sealed.is_not(None))
                .returning(TotpSecret.user_id)
            )
            if removed is None:
                raise NoFactor("There is no authenticator app.")
            self.note_removal(change, user, actor, "totp_removed")
            issued = self.go_on(change, user, live, actor)
        return change.returning(issued)

    def note_removal(self, change: Change, user: User, actor: Actor, what: str) -> None:
        """Notes that a factor of a locked user was removed, within the caller's change.

        Raises:
            FactorNeeded: also if nobody could log in to the account any more.
        """
        held = self._holdings.note_change(change.db, user)
        if not held.has_second_factor and self._rule.demands(identity_of(user)):
            raise FactorNeeded(
                "Your account needs a second factor. Set up another one first, or replace this one."
            )
        if not user.password_hash and not held.suffice_alone:
            raise FactorNeeded(
                "Nobody could log in to your account any more. Add another passkey, or set a "
                "password first."
            )
        audit.record(
            change.db, "factor.removed", self._clock(), user_id=user.id, actor=actor, what=what
        )
        self._notices.factors_changed(change.db, user, actor, what)

    def make_recovery_codes(self, live: ActiveSession, actor: Actor) -> Changed[list[str]]:
        """New recovery codes in place of all former ones. They can't be shown again.

        Raises:
            NoFactor: the person has no second factor that a code could stand in for.
        """
        actor = actor.known_as(live.record.user.id)
        with self._changes.begin() as change:
            user = self.hold(change, live)
            if not user.second_factor:
                raise NoFactor("Set up an authenticator app or a passkey first.")
            codes = self._recovery_codes.replace(change.db, user.id)
            now = self._clock()
            audit.record(change.db, "recovery_codes.made", now, user_id=user.id, actor=actor)
            self._notices.factors_changed(change.db, user, actor, "recovery_codes_made")
        return change.returning(codes)

    def reset(self, user_id: UUID, actor: Actor) -> Changed[None]:
        """Removes all factors of another person, who lost them. All their sessions end.

        A person without a password gets a mail with a link by which they set one.

        Raises:
            UnknownUser
            NoFactor: there are none.
            FactorNeeded: the person has no password, and there is no mail to set one by.
            TooManyAttempts: a cap refuses that mail.
            OwnAccount: the actor would remove their own, which needs these factors.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            user, _ = lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            if actor.id == user.id and not actor.is_operator:
                raise OwnAccount("resets their own factors")
            if not user.second_factor:
                raise NoFactor("This person has no second factor.")
            self._holdings.remove_all(change.db, user)
            self._sessions.end_all(change, user, EndReason.FACTORS_CHANGED)
            audit.record(change.db, "factor.reset", self._clock(), user_id=user.id, actor=actor)
            self._notices.factors_changed(change.db, user, actor, "factors_reset")
            if not user.password_hash:
                self._leave_a_way_in(change.db, user)
        return change.returning(None)

    def _leave_a_way_in(self, db: Session, user: User) -> None:
        if not self._mails.outbox.enabled:
            raise FactorNeeded(
                "This person has no password, so nobody could log in to the account any more. Have "
                "an operator set one first, by the command users set-password."
            )
        if not user.active:  # a link would not count; they ask for one when they are active
            return
        try:
            self._mails.send_reset(db, user)
        except MailCapped:
            raise TooManyAttempts(CAP_RETRY_AFTER, "mail") from None

    def hold(self, change: Change, live: ActiveSession) -> User:
        """Locks the person and the session, which is still live."""
        user = change.db.scalar(
            select(User).where(User.id == live.record.user.id).with_for_update(key_share=True)
        )
        if user is None:
            raise UnknownUser("there is no such user")
        row = hold_row(change, live)
        if row is None or not user.active or row.epoch != user.epoch:
            raise NotAuthenticated(presented=True)
        return user

    def go_on(
        self,
        change: Change,
        user: User,
        live: ActiveSession,
        actor: Actor,
        amr: tuple[str, ...] = (),
        *,
        why: EndReason = EndReason.FACTORS_CHANGED,
    ) -> IssuedLogin | IssuedTokens:
        """Ends the other sessions, and gives this one a new token."""
        fresh = self._sessions.end_others_and_rotate(change, user, live, why, actor, amr)
        if fresh is None:
            raise NotAuthenticated(presented=True)
        return fresh if isinstance(fresh, IssuedTokens) else IssuedLogin(fresh)
