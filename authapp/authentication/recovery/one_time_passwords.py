"""One-time passwords: made up by the command line, they open nothing but the choice of another."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from authapp.accounts.credentials import Credentials
from authapp.accounts.store import UserStore
from authapp.cache.changes import Changes
from authapp.errors import InvalidCredentials, PasswordChangeRequired, UnknownUser
from authapp.mail.one_time_links import OneTimeLinks

LASTS: Final = timedelta(hours=72)
HOURS: Final = int(LASTS.total_seconds()) // 3600


class OneTimePasswords:
    """Tells one-time passwords from those that people chose (OWASP ASVS 5.0, 6.4.1)."""

    def __init__(
        self,
        changes: Changes,
        users: UserStore,
        links: OneTimeLinks,
        clock: Callable[[], datetime],
    ) -> None:
        self._changes = changes
        self._users = users
        self._links = links
        self._clock = clock

    def has_expired(self, found: Credentials) -> bool:
        """Whether the password of these credentials is a one-time one that counts no more."""
        expires_at = found.password_expires_at
        return expires_at is not None and expires_at <= self._clock()

    def lead_on(self, verified: Credentials) -> None:
        """Returns if a session may begin for credentials whose password was right.

        Raises:
            PasswordChangeRequired: it is a one-time password. The error brings the token of a link
                by which another password can be chosen.
            InvalidCredentials: the person was changed or removed since the password was compared.
            StoreUnavailable
        """
        if verified.password_expires_at is None:
            return
        with self._changes.begin(acknowledged=False) as change:
            try:
                user = self._users.lock(change, verified.user.id, verified.epoch)
            except UnknownUser:
                raise InvalidCredentials from None
            issued = self._links.issue(change.db, "reset", user)
        raise PasswordChangeRequired(issued.token)
