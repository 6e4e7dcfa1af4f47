"""Assurance: the methods of a log-in, the level that they reach, and the rule that demands it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from authapp.accounts.identity import Identity

Amr = tuple[str, ...]  # words of RFC 8176, like `pwd`, `otp`, `hwk`, `user`

PASSWORD: Final[Amr] = ("pwd",)
CODE: Final[Amr] = ("otp",)  # of an authenticator app, or a recovery code
# How long a session of two factors may last without another proof, and without a visit
# (NIST SP 800-63B-4, 2.2.3).
AAL2_OVERALL: Final = timedelta(hours=24)
AAL2_IDLE: Final = timedelta(hours=1)
_PASSKEYS: Final = frozenset({"hwk", "swk"})
_SECOND_FACTORS: Final = frozenset({"otp", "mfa"}) | _PASSKEYS


def proves_second_factor(amr: Collection[str]) -> bool:
    """Whether a factor is among the methods that is no password."""
    return not _SECOND_FACTORS.isdisjoint(amr)


def level_of(amr: Collection[str]) -> Literal[1, 2]:
    """The level of assurance (NIST SP 800-63B-4): 2 is two factors. A passkey with which the person
    was verified is two."""
    found = set(amr)
    if "mfa" in found or found >= {"pwd", "otp"}:
        return 2
    if "user" in found and not _PASSKEYS.isdisjoint(found):
        return 2
    return 1


def with_second_factor(first: Amr, second: Amr) -> Amr:
    """The methods of a log-in after its second factor.

    An app that verified the person by means of its own says of them nothing that has a word.
    """
    return together(first or ("mfa",), second)


def together(former: Iterable[str], added: Iterable[str]) -> Amr:
    """The methods of a session in which the person has proved once more who they are."""
    return tuple(dict.fromkeys([*former, *added]))


@dataclass(frozen=True, slots=True)
class SecondFactorRule:
    """The people who log in with a second factor: those who hold one, and those who must hold one.

    Attributes:
        everybody: all people must hold one.
        roles: people with any of these roles must.
        trusts_browsers: people may have a browser of theirs log in without it for a while.
    """

    everybody: bool = False
    roles: frozenset[str] = frozenset()
    trusts_browsers: bool = True

    def demands(self, person: Identity) -> bool:
        """Whether this person must hold one."""
        return self.everybody or not self.roles.isdisjoint(person.roles)

    def is_due(self, person: Identity, amr: Collection[str]) -> bool:
        """Whether a log-in that proved so much still needs a second factor."""
        needs_one = person.second_factor or self.demands(person)
        return needs_one and not proves_second_factor(amr)
