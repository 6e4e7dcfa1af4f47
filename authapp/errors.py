"""The errors, as types. Each carries the facts that the message to the person needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Window:
    """A rate-limit window after an attempt: what is left of it.

    Attributes:
        taken: whether the attempt was within the limit, and counted.
        policy: the name of the limit.
        quota: attempts that the limit allows in so many seconds.
        remaining: attempts that it would allow now.
        more_in: whole seconds until it allows one more than now, at least 1.
    """

    taken: bool
    policy: str
    quota: int
    seconds: int
    remaining: int
    more_in: int


class AuthappError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        rate_limit: the window that counted the attempt which failed, if the person who made the
            attempt may know it.
    """

    rate_limit: Window | None = None


class UnsavableSession(TypeError, ValueError):
    """`flask.session` holds what can't be kept. The message names the key and the remedy.

    This is a mistake in the app and no answer to a person, so no HTTP error is made of it. It is a
    TypeError, as Flask's own session raises.
    """


class SettingError(AuthappError):
    """A setting is missing, weak or unknown. The message is one line that names the remedy."""


class InvalidCredentials(AuthappError):
    """Unknown email, wrong password or inactive user: the caller can't tell which."""


class InvalidPasskey(InvalidCredentials):
    """The passkey belongs to nobody here, or its answer is not accepted: the caller can't tell
    which."""


class ReplacedPassword(InvalidCredentials):
    """The password was right until it was changed. Postgres has lost that change."""


class UnknownPasskey(InvalidPasskey):
    """Nobody has a passkey of this id; it may have been removed."""


class PasskeyTaken(AuthappError):
    """Somebody has a passkey of this id already."""


class NoSuchPasskey(AuthappError):
    """The person has no such passkey."""


class PasskeysOff(AuthappError):
    """There are no passkeys here. The message says why, and the remedy."""


class InvalidField(AuthappError):
    """Input that can't be accepted.

    Attributes:
        errors: field name → reason, written for the person who typed it.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in errors.items()))
        self.errors = dict(errors)


class EmailTaken(AuthappError):
    """Somebody has signed up with this email, in this or an equivalent spelling."""


class SignupClosed(AuthappError):
    """This visitor may not sign up. The message says who may."""


class InvalidInvitation(AuthappError):
    """The invitation is unknown, used, revoked or expired, or is for another address."""


class EmailUnverified(AuthappError):
    """The password is right, but the address must be confirmed first.

    Attributes:
        user_id: whose address.
        epoch: of the credentials that were verified.
    """

    def __init__(self, user_id: UUID, epoch: int) -> None:
        super().__init__("Confirm your email first, by the mail that we sent.")
        self.user_id = user_id
        self.epoch = epoch


class PasswordChangeRequired(AuthappError):
    """The password is right, but opens nothing but the choice of another.

    Attributes:
        reset_token: of a one-time link, by which another password can be chosen.
    """

    def __init__(self, reset_token: str) -> None:
        super().__init__("Choose a password of your own first.")
        self.reset_token = reset_token


class SecondFactorDue(AuthappError):
    """The first factor is right, but no session begins without a second one.

    Attributes:
        user_id: who logs in.
        epoch: of the credentials that were verified.
    """

    def __init__(self, user_id: UUID, epoch: int) -> None:
        super().__init__("This account needs a second factor.")
        self.user_id = user_id
        self.epoch = epoch


class SecondFactorRequired(AuthappError):
    """The first factor is right, and a second one is needed: the log-in waits for it.

    Attributes:
        login_token: stands for the log-in that waits.
        methods: by which the person can go on.
        expires_in: whole seconds that the login token counts.
        enrols: the person holds no second factor and must set one up first.
    """

    def __init__(
        self, login_token: str, methods: Sequence[str], expires_in: int, *, enrols: bool
    ) -> None:
        super().__init__(
            "Set up a second factor first." if enrols else "Show your second factor, too."
        )
        self.login_token = login_token
        self.methods = tuple(methods)
        self.expires_in = expires_in
        self.enrols = enrols


class InvalidFactor(AuthappError):
    """The code, or another second factor, is wrong or was used before."""


class LoginExpired(AuthappError):
    """The log-in that waited for a second factor is used up, too old or void."""


class NoFactor(AuthappError):
    """There is no such factor. The message says what there would have to be."""


class FactorNeeded(AuthappError):
    """This is the last factor of a person who must hold one, or the last way into the account. The
    message says the remedy."""


class FactorsOff(AuthappError):
    """The feature needs the extra `factors`, which is not installed."""


class UserInactive(AuthappError):
    """The account is deactivated, so the act would be of no use. The message says the remedy."""


class StepUpRequired(AuthappError):
    """The act needs a fresh proof of the person's identity."""


class InvalidToken(AuthappError):
    """A one-time link or code is unknown, used, replaced or expired."""


class MailOff(AuthappError):
    """The feature needs mail, and no mail is configured."""


class UnknownRole(AuthappError):
    """The named role does not exist. The message lists those that do."""


class NoSuchRole(UnknownRole):
    """The role that is asked for itself does not exist. The message lists those that do."""


class BuiltInRole(AuthappError):
    """The role belongs to the product and can't be deleted."""


class RoleInUse(AuthappError):
    """So many people hold the role that this way can't delete it. The message says which can."""


class UnknownUser(AuthappError):
    """No user has this email or id."""


class UserInUse(AuthappError):
    """Rows that authapp does not know refer to the person. The message says which table's."""


class LastAdmin(AuthappError):
    """The change would leave the product without an active administrator."""


class OwnAccount(AuthappError):
    """People may not change this of themselves. The message says who can."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Nobody {what}: ask another administrator, or an operator at the command line."
        )


class ExceedsOwnPermissions(AuthappError):
    """The change is about a person, or a role, with permissions that the actor lacks."""


class TooManyAttempts(AuthappError):
    """A limit is used up.

    Attributes:
        retry_after: whole seconds until another attempt is taken, at least 1.
        window: the name of the limit.
    """

    def __init__(self, retry_after: int, window: str = "") -> None:
        super().__init__(f"Too many attempts; try again in {retry_after} s.")
        self.retry_after = max(1, retry_after)
        self.window = window


class UnknownAddress(AuthappError):
    """Nobody can say from which address a request came, so its attempts can't be counted."""


class StoreUnavailable(AuthappError):
    """A store could not be asked. It says nothing about the user.

    Attributes:
        store: `postgres` or `redis`.
        retry_after: seconds a client should wait before it asks again.
    """

    def __init__(self, store: str, retry_after: int = 2) -> None:
        super().__init__(f"{store} could not be asked")
        self.store = store
        self.retry_after = retry_after


class SecondFactorUnavailable(StoreUnavailable):
    """A log-in needs a second factor, and the store that knows used codes could not be asked."""


class OutcomeUnknown(StoreUnavailable):
    """A store was lost while it noted the change: it may have been made, or not."""


class Busy(AuthappError):
    """More people log in at this moment than can be served.

    Attributes:
        retry_after: seconds a client should wait before it asks again.
    """

    def __init__(self, retry_after: int = 2) -> None:
        super().__init__("too many log-ins at this moment")
        self.retry_after = retry_after


class InvalidJson(AuthappError):
    """The body is not a JSON object. The message says what it is instead."""


class NotAuthenticated(AuthappError):
    """The request needs a person and has none.

    Attributes:
        presented: whether it brought a session, which is no longer live or never was.
    """

    def __init__(self, *, presented: bool) -> None:
        super().__init__("the session is not valid" if presented else "there is no session")
        self.presented = presented


class TwoIdentities(AuthappError):
    """The request says in two ways who is asking, and they differ."""


class TooManyTokens(AuthappError):
    """The request brings more session cookies than any browser of ours has. Nothing was changed."""


class Forbidden(AuthappError):
    """The person is known and may not do this."""


class FactorUnproven(Forbidden):
    """The person holds a second factor, and has not shown it in this session."""


class FactorMissing(Forbidden):
    """The person holds no second factor, and needs one for this."""


class AddressUnconfirmed(Forbidden):
    """The person has not confirmed their address, and has to for this."""


class CrossOrigin(AuthappError):
    """An unsafe request that does not come from our own pages."""
