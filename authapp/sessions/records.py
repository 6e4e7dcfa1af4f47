"""Records and values of sessions. They use no store."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import msgspec

from authapp.accounts.assurance import PASSWORD, Amr, level_of
from authapp.accounts.identity import Identity, SignedIn
from authapp.crypto.tokens import RefreshToken, SessionToken
from authapp.errors import Window

# in JSON; behind an escaped backslash it is only text that looks so
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Kind = Literal["browser", "api"]


class EndReason(StrEnum):
    """Why a session ended; people are told (`messages.py`)."""

    LOGOUT = "logout"
    IDLE = "idle"
    ABSOLUTE = "absolute"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 — a reason, no password
    EMAIL_CHANGED = "email_changed"
    REVOKED_BY_USER = "revoked_by_user"
    REVOKED_BY_ADMIN = "revoked_by_admin"
    DEACTIVATED = "deactivated"
    EVICTED_BY_CAP = "evicted_by_cap"
    REPLACED = "replaced"
    REFRESH_REUSED = "refresh_reused"
    FACTORS_CHANGED = "factors_changed"
    ENDED_FOR_EVERYBODY = "ended_for_everybody"
    CHANGED_IN_SQL = "changed_in_sql"
    LOST = "lost"

    @classmethod
    def _missing_(cls, value: object) -> "EndReason":  # noqa: ARG003 — as Enum calls it
        """An unknown reason: an operator wrote it by hand in SQL."""
        return cls.CHANGED_IN_SQL

    @property
    def by_its_owner(self) -> bool:
        """Whether the owner of the session ended it."""
        return self in {EndReason.LOGOUT, EndReason.REVOKED_BY_USER, EndReason.REPLACED}


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long sessions last (OWASP ASVS 5.0, 7.3.1 and 7.3.2) and how many a user has (7.1.2).

    Attributes:
        longest_idle, longest: no session lasts longer, of whatever kind it is.
    """

    idle: timedelta
    absolute: timedelta
    remember: timedelta
    revalidate: timedelta
    max_per_user: int
    access_token: timedelta
    longest_idle: timedelta = timedelta.max
    longest: timedelta = timedelta.max

    def lifetime(self, now: datetime, *, remember: bool, kind: Kind = "browser") -> "Lifetime":
        """The lifetime of a session that begins now.

        Args:
            remember: a long session; of a program, one that can be refreshed. Without it a
                program's session ends with its only token, and not before.
        """
        idle, absolute = self.idle, self.absolute
        if remember:
            idle = absolute = self.remember
        elif kind == "api":
            idle = absolute = self.access_token
        return Lifetime(min(idle, self.longest_idle), now + min(absolute, self.longest))


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The limits of a session: the time without a visit, and the latest end."""

    idle: timedelta
    expires_at: datetime


class Provisional(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The facts that the row of a provisional session will need.

    Attributes:
        epoch, generation: of the credentials that were verified.
        expires_at: the latest end once the session has a row.
        replaces: digests of the sessions that the browser had so far.
    """

    epoch: int
    generation: int
    expires_at: datetime
    address: str
    user_agent: str
    replaces: tuple[bytes, ...]


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A session and a snapshot of its user, as read at `checked_at`.

    Attributes:
        remembered: the person asked to stay signed in on this device, or the program can refresh.
        provisional: present while the session has no row.
        proved_at: when the person last proved who they are; None: when the session began.
        epoch, generation: of its row, which a change of the user or of everybody compares.
        amr: how the person proved who they are, since the session began (RFC 8176).
        user_ver: the version of the user that the snapshot shows; 0 where nobody noted it.
    """

    id: UUID
    kind: Kind
    user: Identity
    created_at: datetime
    last_seen_at: datetime
    idle_seconds: int
    expires_at: datetime
    data: dict[str, Any]
    ver: int
    checked_at: datetime
    remembered: bool = False
    ended_why: EndReason | None = None
    provisional: Provisional | None = None
    proved_at: datetime | None = None
    epoch: int = 0
    generation: int = 0
    amr: Amr = PASSWORD
    user_ver: int = 0

    @property
    def person(self) -> SignedIn:
        """The user, with how they proved who they are."""
        return SignedIn(
            **msgspec.structs.asdict(self.user),
            amr=self.amr,
            auth_time=self.auth_time,
            assurance_level=level_of(self.amr),
        )

    @property
    def auth_time(self) -> datetime:
        """When the person last proved who they are."""
        return self.proved_at or self.created_at


class ActiveSession(msgspec.Struct, frozen=True):
    """A session that may act for its user, and the token that names it."""

    token: SessionToken
    record: SessionRecord


@dataclass(frozen=True, slots=True)
class IssuedLogin:
    """A log-in as a browser receives it: the session that began, and device tokens.

    Attributes:
        devices: the device tokens that the browser sends from now on, this account's first. Empty
            where no password was verified.
        rate_limit: the window that counted the attempt, if it may be told.
    """

    session: ActiveSession
    devices: tuple[str, ...] = field(default=(), repr=False)
    rate_limit: Window | None = None


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """Tokens as a program receives them: the session's token is the access token.

    Attributes:
        expires_in: whole seconds that the access token lasts.
        refresh: brings the next access token, once; None if the session can't be refreshed.
        rate_limit: the window that counted the attempt, if it may be told.
    """

    session: ActiveSession
    expires_in: int
    refresh: RefreshToken | None
    rate_limit: Window | None = None


class EndedSession(msgspec.Struct, frozen=True):
    """A session that has ended, and the reason."""

    why: EndReason


LookupResult = ActiveSession | EndedSession | None


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as its user sees it in a list.

    Attributes:
        user_agent: as it was sent.
        amr, auth_time: how and when the person last proved who they are.
    """

    id: UUID
    kind: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str
    amr: Amr
    auth_time: datetime


def is_storable(value: object) -> bool:
    """Whether Postgres can keep a value as JSONB: no NUL, no half of a surrogate pair."""
    try:
        return _NUL.search(msgspec.json.encode(value)) is None
    except UnicodeEncodeError:
        return False
