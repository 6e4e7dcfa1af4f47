"""Registration: a person, or an operator for them, creates an account."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.assurance import PASSWORD, Amr
from authapp.accounts.authority.roles import roles_named
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import USER, Identity, identity_of
from authapp.accounts.invitations import Invitations, OpenInvitation
from authapp.accounts.new_accounts import NewAccount
from authapp.accounts.profiles import stored_name, why_name_refused
from authapp.accounts.store import UserStore
from authapp.authentication.factors.enrolment import Enrolment
from authapp.authentication.factors.holdings import FactorHoldings
from authapp.authentication.limits import Attempt, LoginLimits
from authapp.authentication.recovery import one_time_passwords
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.authentication.verification import MailCapped, PasswordProof, VerificationMails
from authapp.cache.changes import Changes
from authapp.errors import EmailTaken, InvalidField, InvalidInvitation, SignupClosed, Window
from authapp.passwords.constant_time import ConstantTimeRefusal
from authapp.passwords.new_passwords import NewPasswords
from authapp.storage.models import User

_TRIES = 3  # at an address that others sign up with at the same moment


@dataclass(frozen=True, slots=True)
class SignupPolicy:
    """Who may sign up.

    Attributes:
        mode: `open`: everybody; `domains`: addresses of these domains; `invite`: people with an
            invitation; `closed`: people whom an operator invited.
        verifies: an address must be confirmed before the account is of any use.
        support_url: where people ask for an account; empty: nobody says.
    """

    mode: str = "closed"
    domains: tuple[str, ...] = ()
    verifies: bool = False
    support_url: str = ""

    @property
    def needs_invitation(self) -> bool:
        return self.mode in {"closed", "invite"}

    @property
    def rule(self) -> str:
        """Who may sign up, as a sentence for people; empty where everybody may."""
        if self.mode == "closed":
            return "Nobody can sign up here. Whoever runs this service makes the accounts."
        if self.mode == "invite":
            return "An account here needs an invitation. If you have one, open its link."
        if self.mode == "domains":
            named = " or ".join(f"@{domain}" for domain in self.domains)
            return f"Accounts here are for people with an address that ends in {named}."
        return ""

    def require_uninvited(self) -> None:
        """
        Raises:
            SignupClosed: people without an invitation may not sign up.
        """
        if self.needs_invitation:
            raise self.refusal()

    def require_domain(self, email: Email) -> None:
        """
        Raises:
            SignupClosed: the address is of another domain.
        """
        if self.mode == "domains" and email.canonical.rpartition("@")[2] not in self.domains:
            raise self.refusal()

    def refusal(self) -> SignupClosed:
        asking = f" Ask for one at {self.support_url}" if self.support_url else ""
        return SignupClosed(f"{self.rule}{asking}")


@dataclass(frozen=True, slots=True)
class SignupGate:
    """Says who may sign up, and how often from one address."""

    policy: SignupPolicy
    limits: LoginLimits
    refused_attempts: RefusedAttempts

    def count(self, actor: Actor) -> Attempt:
        """Counts a sign-up: it costs a hash, and may tell whether an email is taken.

        Raises:
            TooManyAttempts
        """
        with self.refused_attempts.noting_limits("signup.limited", actor):
            return self.limits.count_sign_up(actor.address)


@dataclass(frozen=True, slots=True)
class SignedUp:
    """A sign-up that was accepted, as far as its sender may learn of it.

    Attributes:
        user: the person, who can log in now. None: the address must be confirmed first, and a mail
            says how. So it is where the address is taken, too.
        proof: for the browser, see `Verification`. Where the address is taken it proves nothing.
        email: as it was read.
        amr: how a session is proven that begins now.
        recovery_codes: of a person who signed up with a passkey and can log in; shown this once.
        rate_limit: the window that counted the sign-up, see `Attempt`.
    """

    user: Identity | None
    proof: PasswordProof
    email: Email = field(repr=False)
    amr: Amr = PASSWORD
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)
    rate_limit: Window | None = None


@dataclass(frozen=True, slots=True)
class _Secret:
    """The means by which the new person will log in."""

    password_hash: str = field(default="", repr=False)
    enrolment: Enrolment | None = None


class Registration:
    """The use case of signing up.

    Attributes:
        policy: who may sign up.
    Raises:
        StoreUnavailable: nothing was changed.
        Busy: the password hashing queue is full.
    """

    def __init__(
        self,
        users: UserStore,
        credentials: CredentialStore,
        changes: Changes,
        *,
        gate: SignupGate,
        invitations: Invitations,
        mails: VerificationMails,
        new_passwords: NewPasswords,
        holdings: FactorHoldings,
        parse_email: ParseEmail,
    ) -> None:
        self._holdings = holdings
        self._users = users
        self._credentials = credentials
        self._changes = changes
        self._invitations = invitations
        self._mails = mails
        self._new_passwords = new_passwords
        self._parse_email = parse_email
        self._gate = gate
        self.policy = gate.policy

    def sign_up(
        self,
        email: str,
        password: str | None,
        name: str = "",
        roles: tuple[str, ...] = (USER,),
        actor: Actor = OPERATOR,
        *,
        verified: bool = False,
        is_one_time: bool = False,
    ) -> Identity:
        """Adds a person for an operator or another person: no limit holds them back.

        Args:
            password: None for an account that nobody can log in to with a password.
            verified: the email is known to be the person's.
            is_one_time: the password opens nothing but the choice of another, for a while.
        Raises:
            InvalidField: everything that is wrong with the input, by field.
            EmailTaken, UnknownRole
            ExceedsOwnPermissions: a role allows more than the person may who adds this one.
        """
        parsed, name = self.validate(email, password, name)
        if password is None:
            return self._users.create(parsed, name, "", roles, actor, verified=verified)
        hashed = self._new_passwords.hash(password)
        lasts = one_time_passwords.LASTS if is_one_time else None
        user = self._users.create(
            parsed, name, hashed, roles, actor, verified=verified, password_lasts=lasts
        )
        self._credentials.prime(parsed)
        return user

    def sign_up_from(
        self, actor: Actor, email: str, password: str, name: str = "", invitation: str = ""
    ) -> SignedUp:
        """Adds a person who signs up.

        Where addresses are verified, the answer is the same, in content and time, whether the
        address is new, waits for its confirmation, or is taken.

        Args:
            invitation: the token of one; empty: the person has none.
        Raises:
            SignupClosed: this visitor may not sign up. Nothing was hashed or looked up.
            InvalidField: everything that is wrong with the input, by field.
            TooManyAttempts: raised before anything is hashed.
            InvalidInvitation
            EmailTaken: only where addresses are not verified.
        """

        def secret(counted: Attempt, pace: ConstantTimeRefusal) -> _Secret:
            hasher = self._new_passwords.hasher
            with hasher.queue.place(counted, address=actor.address), pace.hashing():
                return _Secret(hasher.hash(password))

        return self._sign_up(secret, actor, email, password, name, invitation)

    def sign_up_with(
        self, enrolment: Enrolment, actor: Actor, email: str, name: str = "", invitation: str = ""
    ) -> SignedUp:
        """As `sign_up_from`, with a passkey in place of the password.

        Raises:
            InvalidField, PasskeyTaken: as `Enrolment.claim`.
        """
        key = _Secret(enrolment=enrolment)
        return self._sign_up(lambda *_: key, actor, email, None, name, invitation)

    def _sign_up(
        self,
        secret: Callable[[Attempt, ConstantTimeRefusal], _Secret],
        actor: Actor,
        email: str,
        password: str | None,
        name: str,
        invitation: str,
    ) -> SignedUp:
        if not invitation:
            self.policy.require_uninvited()
        parsed, name = self.validate(email, password, name)
        if not invitation:
            self.policy.require_domain(parsed)
        counted = self._gate.count(actor)
        with counted.told_by_errors():
            invited = self._open_invitation(invitation, parsed) if invitation else None
            with ConstantTimeRefusal(always=self.policy.verifies) as pace:
                signed_up = self._add(parsed, name, secret(counted, pace), invited, actor)
        if signed_up.user is not None:
            self._credentials.prime(parsed)
        return replace(signed_up, rate_limit=counted.window)

    def _open_invitation(self, token: str, email: Email) -> OpenInvitation:
        invited = self._invitations.find_open(token)
        if invited.email_canonical not in {"", email.canonical}:
            raise InvalidInvitation
        return invited

    def _add(
        self,
        email: Email,
        name: str,
        secret: _Secret,
        invited: OpenInvitation | None,
        actor: Actor,
    ) -> SignedUp:
        """Adds the person, or replaces one who waits for the confirmation of this address."""
        if not self.policy.verifies:
            return self._add_once(email, name, secret, invited, actor)
        for _ in range(_TRIES):
            with suppress(EmailTaken):  # since it was looked for: then it is looked for again
                return self._add_once(email, name, secret, invited, actor)
        return _nobody(email)

    def _add_once(
        self,
        email: Email,
        name: str,
        secret: _Secret,
        invited: OpenInvitation | None,
        actor: Actor,
    ) -> SignedUp:
        with suppress(MailCapped), self._changes.begin(acknowledged=False) as change:
            if secret.enrolment:
                secret.enrolment.claim(change.db)
            there = self._users.lock_by_email(
                change, email, invited.created_by if invited else None
            )
            if there is not None and not _waits(there):
                if not self.policy.verifies:
                    raise EmailTaken(f"{email.stored} is taken")
                if invited is not None:  # as for a new address, or the invitation would tell
                    self._invitations.use(change, invited)
                self._mails.tell_owner(change.db, there)
                return _nobody(email)
            if invited is None:
                roles = roles_named(change.db, (USER,))
            else:
                roles = self._invitations.use(change, invited)
            account = self._account(email, name, secret.password_hash, invited)
            if there is None:
                user = self._users.add(change, account, roles, actor)
            else:
                user = there
                if user.second_factor:  # of the person who signed up before
                    self._holdings.remove_all(change.db, user)
                self._users.replace_unconfirmed(change, user, account, roles, actor)
            if invited:
                self._invitations.note_used_by(change, invited, user.id)
            if account.confirmation_due:
                self._mails.send(change.db, user)
            codes: tuple[str, ...] = ()
            if secret.enrolment:
                may_log_in = not account.confirmation_due
                codes = secret.enrolment.enrol(change.db, user, actor, makes_codes=may_log_in)
            person = None if account.confirmation_due else identity_of(user)
            amr = secret.enrolment.amr if secret.enrolment else PASSWORD
            return SignedUp(person, PasswordProof(user.id, user.epoch), email, amr, codes)
        return _nobody(email)  # a cap refuses the mail, so nothing was changed

    def _account(
        self, email: Email, name: str, password_hash: str, invited: OpenInvitation | None
    ) -> NewAccount:
        """The account as it is added. An invitation that was mailed proves the address."""
        verified = invited is not None and invited.proves_email
        return NewAccount(
            email,
            name,
            password_hash,
            verified=verified,
            confirmation_due=self.policy.verifies and not verified,
            invitation=invited.id if invited else None,
        )

    def validate(self, email: str, password: str | None, name: str) -> tuple[Email, str]:
        """The email and the name of a new account as they are stored.

        Raises:
            InvalidField: everything that is wrong, by field.
        """
        errors: dict[str, str] = {}
        parsed: Email | None = None
        try:
            parsed = self._parse_email(email)
        except InvalidField as invalid:
            errors |= invalid.errors
        if reason := why_name_refused(name):
            errors["name"] = reason
            name = ""
        name = stored_name(name)
        if password is not None and (
            reason := self._new_passwords.policy.why_refused(
                password, parsed.stored if parsed else "", name
            )
        ):
            errors["password"] = reason
        if errors or parsed is None:
            raise InvalidField(errors)
        return parsed, name


def _waits(user: User) -> bool:
    """Whether nobody has confirmed the address yet, so that a later sign-up replaces this one."""
    return user.active and user.email_confirmation_due


def _nobody(email: Email) -> SignedUp:
    """The answer where nobody was added: with a proof of no account, as long as one of an account
    that was made just now."""
    return SignedUp(None, PasswordProof(uuid4(), 1), email)
