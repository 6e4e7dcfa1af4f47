"""Registration: a person, or an operator for them, creates an account."""

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import Email, ParseEmail
from authapp.accounts.identity import USER, Identity
from authapp.accounts.profiles import stored_name, why_name_refused
from authapp.accounts.store import UserStore
from authapp.authentication.limits import LoginLimits
from authapp.authentication.recovery import one_time_passwords
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.errors import InvalidField, Window
from authapp.passwords.hashing import PasswordHasher
from authapp.passwords.policy import PasswordPolicy


class Registration:
    """The use case of signing up.

    Raises:
        StoreUnavailable: nothing was changed.
        Busy: the password hashing queue is full.
    """

    def __init__(
        self,
        users: UserStore,
        credentials: CredentialStore,
        policy: PasswordPolicy,
        hasher: PasswordHasher,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        parse_email: ParseEmail,
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._policy = policy
        self._hasher = hasher
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._parse_email = parse_email

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
        parsed, name = self._validate(email, password, name)
        if password is None:
            return self._users.create(parsed, name, "", roles, actor, verified=verified)
        with self._hasher.queue.place():
            hashed = self._hasher.hash(password)
        lasts = one_time_passwords.LASTS if is_one_time else None
        user = self._users.create(
            parsed, name, hashed, roles, actor, verified=verified, password_lasts=lasts
        )
        self._credentials.prime(parsed)
        return user

    def sign_up_from(
        self, actor: Actor, email: str, password: str, name: str = ""
    ) -> tuple[Identity, Window | None]:
        """Adds a person who signs up.

        Returns:
            The person, and the window that counted the sign-up, see `Attempt`.
        Raises:
            InvalidField: everything that is wrong with the input, by field.
            TooManyAttempts: raised before anything is hashed.
            EmailTaken
        """
        parsed, name = self._validate(email, password, name)
        # a sign-up costs a hash, and tells whether an email is taken
        with self._refused_attempts.noting_limits("signup.limited", actor):
            counted = self._limits.count_sign_up(actor.address)
        with counted.told_by_errors():
            with self._hasher.queue.place(counted, address=actor.address):
                hashed = self._hasher.hash(password)
                user = self._users.create(parsed, name, hashed, actor=actor)
            self._credentials.prime(parsed)
        return user, counted.window

    def _validate(self, email: str, password: str | None, name: str) -> tuple[Email, str]:
        """The email and the name as they are stored.

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
            reason := self._policy.why_refused(password, parsed.stored if parsed else "", name)
        ):
            errors["password"] = reason
        if errors or parsed is None:
            raise InvalidField(errors)
        return parsed, name
