"""The actor of a change: who does something, and from where."""

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who does something: a person, a visitor whom nobody knows yet, or the operator.

    Attributes:
        id: of the person; None for a visitor who is not logged in, and for the operator.
        address: the IP address that they came from; empty where it is not known.
        user_agent: the browser or program, as it calls itself. A session that begins keeps it.
        is_operator: this is the command line, which may do everything.
    """

    id: UUID | None = None
    address: str = ""
    user_agent: str = ""
    is_operator: bool = False

    def known_as(self, user_id: UUID) -> "Actor":
        """The same actor, now that it is known which person they are."""
        return replace(self, id=user_id)


NOBODY: Final = Actor()  # for what happens by itself, or from where nobody can say
OPERATOR: Final = Actor(is_operator=True)
