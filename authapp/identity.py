"""Who is asking: a person, or nobody known."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

ADMIN = "admin"
USER = "user"


class Identity(msgspec.Struct, frozen=True):
    """A person as of the moment their session was last read.

    Attributes:
        roles: names, sorted.
        created_at: aware, UTC.
    """

    id: UUID
    email: str
    name: str
    image: str
    roles: tuple[str, ...]
    active: bool
    created_at: datetime

    @property
    def is_authenticated(self) -> Literal[True]:
        return True

    def has_role(self, *names: str) -> bool:
        """Whether the person has any of these roles."""
        return any(name in self.roles for name in names)


class Anonymous(msgspec.Struct, frozen=True):
    """Nobody known: the same questions, answered no."""

    id: None = None
    email: str = ""
    name: str = ""
    image: str = ""
    roles: tuple[str, ...] = ()
    active: bool = False

    @property
    def is_authenticated(self) -> Literal[False]:
        return False

    def has_role(self, *names: str) -> bool:  # noqa: ARG002 — the same question as Identity's
        return False


ANONYMOUS = Anonymous()
