"""`NewAccount`: an account before it is added."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from authapp.accounts.emails import Email
from authapp.storage.models import Role


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that is added.

    Attributes:
        password_hash: empty for an account that nobody can log in to with a password.
        verified: the email is known to be the user's.
        confirmation_due: the account is of no use until the email is confirmed.
        invitation: id of the one that was used.
        password_lasts: of a one-time password.
    """

    email: Email
    name: str
    password_hash: str = field(repr=False)
    verified: bool = False
    confirmation_due: bool = False
    invitation: UUID | None = None
    password_lasts: timedelta | None = None

    def event_details(self, roles: Iterable[Role]) -> dict[str, Any]:
        """Details of the account with these roles, for its event in the audit log."""
        details: dict[str, Any] = {"roles": [role.name for role in roles]}
        if self.invitation is not None:
            details["invitation"] = str(self.invitation)
        return details
