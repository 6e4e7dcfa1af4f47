"""Registration: a person, or an operator for them, creates an account."""

from authapp.accounts.credentials import CredentialStore
from authapp.accounts.emails import Email
from authapp.accounts.identity import USER, Identity
from authapp.accounts.profiles import stored_name, why_name_refused
from authapp.accounts.store import UserStore
from authapp.authentication.limits import LoginLimits
from authapp.authentication.password_hashing import PasswordHasher
from authapp.authentication.passwords import why_refused
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.errors import InvalidField
from authapp.sessions.records import Client


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
        hasher: PasswordHasher,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._hasher = hasher
        self._limits = limits
        self._refused_attempts = refused_attempts

    def sign_up(
        self,
        email: str,
        password: str,
        name: str = "",
        roles: tuple[str, ...] = (USER,),
        client: Client | None = None,
    ) -> Identity:
        """Adds a person who can log in.

        Args:
            client: where the request came from; None for the command line, which has no limit.
        Raises:
            InvalidField: everything that is wrong with the input, by field.
            TooManyAttempts: raised before anything is hashed.
            EmailTaken, UnknownRole
        """
        address, name = self._validate(email, password, name)
        from_address = client.address if client else None
        counted = []
        if from_address is not None:  # a sign-up costs a hash, and tells whether an email is taken
            with self._refused_attempts.noting_limits("signup.limited", from_address):
                counted.append(self._limits.count_sign_up(from_address))
        with self._hasher.queue.place(*counted):
            password_hash = self._hasher.hash(password)
            user = self._users.create(address, name, password_hash, roles, from_address)
        self._credentials.prime(address.canonical)
        return user

    def _validate(self, email: str, password: str, name: str) -> tuple[Email, str]:
        """The email and the name as they are stored.

        Raises:
            InvalidField: everything that is wrong, by field.
        """
        errors: dict[str, str] = {}
        address: Email | None = None
        try:
            address = self._users.parse_email(email)
        except InvalidField as invalid:
            errors |= invalid.errors
        if reason := why_name_refused(name):
            errors["name"] = reason
            name = ""
        name = stored_name(name)
        if reason := why_refused(password, (address.stored if address else "", name)):
            errors["password"] = reason
        if errors or address is None:
            raise InvalidField(errors)
        return address, name
