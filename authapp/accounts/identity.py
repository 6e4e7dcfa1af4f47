"""The identity behind a request: a person, or nobody known."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

import msgspec

from authapp.storage.models import User

ADMIN = "admin"
USER = "user"


class Permission(StrEnum):
    """Our own permissions. An app may register others; `roles.permissions` says who allows what."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    ROLES_GRANT = "roles:grant"
    SESSIONS_END = "sessions:end"
    AUDIT_READ = "audit:read"


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """A person as of the moment their session was last read.

    Attributes:
        roles: names, sorted.
        permissions: what the roles list, sorted. `can` and `covers` know what they allow.
        created_at: aware, UTC.
        email_verified: somebody showed that the email is this person's.
        second_factor: the person holds a factor beside the password.
    """

    id: UUID
    email: str
    name: str
    image: str
    roles: tuple[str, ...]
    active: bool
    created_at: datetime
    permissions: tuple[str, ...] = ()
    email_verified: bool = False
    second_factor: bool = False

    @property
    def is_authenticated(self) -> Literal[True]:
        return True

    @property
    def is_anonymous(self) -> Literal[False]:
        return False

    @property
    def is_active(self) -> bool:
        return self.active

    def get_id(self) -> str:
        """The id as text, as apps written for Flask-Login ask for it."""
        return str(self.id)

    def has_role(self, *names: str) -> bool:
        """Whether the person has any of these roles."""
        return any(name in self.roles for name in names)

    def can(self, permission: str) -> bool:
        """Whether any of the person's roles allows this. `admin` allows everything."""
        return ADMIN in self.roles or permission in self.permissions

    def covers(self, role: str, permissions: Iterable[str]) -> bool:
        """Whether the person may do all that a role allows.

        `admin` allows everything, also what later versions and the app add. So only an
        administrator covers it, whatever another role lists today.
        """
        if ADMIN in self.roles:
            return True
        return role != ADMIN and set(permissions) <= set(self.permissions)


class SignedIn(Identity, frozen=True, array_like=True, kw_only=True):
    """A person in a session of theirs: who they are, and how they proved it.

    Attributes:
        amr: the methods, since the session began, in words of RFC 8176: `pwd`, `otp`, `hwk`, …
        auth_time: when they last proved it.
        assurance_level: 2 after two factors, else 1.
    """

    amr: tuple[str, ...]
    auth_time: datetime
    assurance_level: int


def identity_of(user: User) -> Identity:
    """The person that a row of `users` describes."""
    names = [role.name for role in user.roles]
    return identity_with(user, names, (p for role in user.roles for p in role.permissions))


def identity_with(user: User, roles: Iterable[str], permissions: Iterable[str]) -> Identity:
    """As `identity_of`, with roles that were read otherwise: names in order, and what they list."""
    return Identity(
        id=user.id,
        email=user.email,
        name=user.name,
        image=user.image,
        roles=tuple(roles),
        active=user.active,
        created_at=user.created_at,
        permissions=tuple(sorted(set(permissions))),
        email_verified=user.email_verified_at is not None,
        second_factor=user.second_factor,
    )


class Anonymous(msgspec.Struct, frozen=True):
    """A visitor whom no session names. The attributes are those of `Identity`, and all say no.

    It is false where a condition asks: `{% if current_user %}` means that somebody is signed in.
    """

    id: None = None
    email: str = ""
    name: str = ""
    image: str = ""
    roles: tuple[str, ...] = ()
    active: bool = False
    email_verified: bool = False
    second_factor: bool = False

    def __bool__(self) -> Literal[False]:
        return False

    @property
    def is_authenticated(self) -> Literal[False]:
        return False

    @property
    def is_anonymous(self) -> Literal[True]:
        return True

    @property
    def is_active(self) -> Literal[False]:
        return False

    def get_id(self) -> None:
        return None

    def has_role(self, *names: str) -> bool:  # noqa: ARG002 — the same question as Identity's
        return False

    def can(self, permission: str) -> bool:  # noqa: ARG002 — as above
        return False


ANONYMOUS = Anonymous()
