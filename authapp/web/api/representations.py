"""The JSON records of people, sessions, tokens and roles."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

import msgspec
from flask import Response

from authapp.accounts.assurance import level_of
from authapp.accounts.identity import Identity, Permission
from authapp.sessions.records import IssuedTokens, SessionRecord, SessionSummary
from authapp.sessions.user_agents import device_name
from authapp.storage.models import Role


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """A user as the API shows one."""

    id: UUID
    email: str
    name: str
    image: str
    roles: tuple[str, ...]
    active: bool
    created_at: datetime
    email_verified: bool

    @classmethod
    def of(cls, user: Identity, **more: Any) -> Self:
        """
        Args:
            more: the fields that a view has beside these.
        """
        return cls(
            id=user.id,
            email=user.email,
            email_verified=user.email_verified,
            name=user.name,
            image=user.image,
            roles=user.roles,
            active=user.active,
            created_at=user.created_at,
            **more,
        )


class MeView(UserView, frozen=True, kw_only=True):
    """Whoever is asking, and how they proved it in this session (RFC 8176). `assurance_level` is 2
    after two factors, else 1."""

    amr: tuple[str, ...]
    auth_time: datetime
    assurance_level: int

    @classmethod
    def in_session(cls, record: SessionRecord, user: Identity | None = None) -> Self:
        """
        Args:
            user: the person as they are since a change in this request.
        """
        return cls.of(
            user or record.user,
            amr=record.amr,
            auth_time=record.auth_time,
            assurance_level=level_of(record.amr),
        )


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """A user for people who may change one and may not read users: who it is stays unsaid."""

    id: UUID
    roles: tuple[str, ...]
    active: bool
    created_at: datetime


def view_for(viewer: Identity, user: Identity) -> UserView | AccountView:
    """A user as far as this viewer may see one."""
    if viewer.id == user.id or viewer.can(Permission.USERS_READ):
        return UserView.of(user)
    return AccountView(id=user.id, roles=user.roles, active=user.active, created_at=user.created_at)


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session as its user sees it. Times are aware and in UTC; `device` is for people; `amr` is
    how the person proved who they are (RFC 8176), last at `auth_time`."""

    id: UUID
    kind: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool
    address: str
    user_agent: str
    device: str
    amr: tuple[str, ...]
    auth_time: datetime
    assurance_level: int

    @classmethod
    def of(cls, summary: SessionSummary, current: UUID) -> Self:
        return cls(
            id=summary.id,
            kind=summary.kind,
            created_at=summary.created_at,
            last_seen_at=summary.last_seen_at,
            expires_at=summary.expires_at,
            current=summary.id == current,
            address=summary.address,
            user_agent=summary.user_agent,
            device=device_name(summary.user_agent),
            amr=summary.amr,
            auth_time=summary.auth_time,
            assurance_level=level_of(summary.amr),
        )


class LoginAnswer(msgspec.Struct, frozen=True):
    """The user who logged in, and the session that began.

    Attributes:
        password_advice: why the person should choose another password; for them.
        recovery_codes: those that were made, where the log-in set up a factor; shown this once.
    """

    user: UserView
    session: SessionView
    warning: str | msgspec.UnsetType = msgspec.UNSET
    password_advice: str | msgspec.UnsetType = msgspec.UNSET
    recovery_codes: list[str] | msgspec.UnsetType = msgspec.UNSET


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens issued to a program (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 — its kind, no token
    expires_in: int
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET
    user: UserView
    recovery_codes: list[str] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(
        cls, issued: IssuedTokens, recovery_codes: list[str] | msgspec.UnsetType = msgspec.UNSET
    ) -> Self:
        return cls(
            access_token=issued.session.token.text,
            expires_in=issued.expires_in,
            refresh_token=issued.refresh.text if issued.refresh else msgspec.UNSET,
            user=UserView.of(issued.session.record.user),
            recovery_codes=recovery_codes,
        )


class SessionList(msgspec.Struct, frozen=True):
    """Where somebody is signed in."""

    sessions: list[SessionView]


class UserList(msgspec.Struct, frozen=True):
    """A part of the users; `next_cursor` leads to the next one."""

    users: list[UserView]
    next_cursor: str | None


class MailAnswer(msgspec.Struct, frozen=True):
    """The answer to a call whose outcome comes by mail; it is alike for every address."""

    status: str


class RoleView(msgspec.Struct, frozen=True):
    """A role, and the permissions it gives."""

    name: str
    description: str
    permissions: list[str]

    @classmethod
    def of(cls, role: Role) -> Self:
        return cls(role.name, role.description, role.permissions)


class RoleList(msgspec.Struct, frozen=True):
    """The roles there are."""

    roles: list[RoleView]


def json_response(value: object, status: int = 200) -> Response:
    """`value` as JSON; times become RFC 3339 in UTC."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")
