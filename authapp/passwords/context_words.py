"""Context words: the person's email and name and the name of the service, found in a password."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from authapp.passwords.block_list import folded

# Words that stand for a service of this kind, whatever its name is.
SERVICE_WORDS = ("authapp", "password", "session", "login", "admin")

_SHORTEST = 3  # letters of a word; the shortest ones must stand alone
_EMAIL, _NAME, _SERVICE = "your email", "your name", "the name of this service"
# Each character for the letter that it may stand for: 1 is i, and then l.
_AS_LETTERS = tuple(
    str.maketrans("4@8({[<3690!|1$5+72%", f"aabcccceggo{one * 3}ssttzx") for one in "il"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Words that were found in a password.

    Attributes:
        kinds: what they are, in words: "your name".
        rest: what is left of the password without them, folded.
    """

    kinds: tuple[str, ...]
    rest: str


class ContextWords:
    """The words that an attacker tries first for one person.

    Args:
        service_name: what people call the service.
    """

    def __init__(self, email: str, name: str, service_name: str) -> None:
        kinds = {word: f'the word "{word}"' for word in SERVICE_WORDS}
        kinds |= dict.fromkeys(_parts(service_name), _SERVICE)
        kinds |= dict.fromkeys(_parts(name), _NAME)
        kinds |= dict.fromkeys(_parts(email), _EMAIL)
        self._kinds = dict(sorted(kinds.items(), key=lambda item: -len(item[0])))

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def find(self, text: str) -> Found | None:
        """The words in a folded password, also where signs stand for letters; None: there are none.

        The longest words count first, and each character counts once.
        """
        found = [self._find(text, letters) for letters in _AS_LETTERS]
        return min(filter(None, found), key=lambda one: len(one.rest), default=None)

    def _find(self, text: str, letters: dict[int, int]) -> Found | None:
        spelt = text.translate(letters)
        kinds: dict[str, None] = {}
        for word, kind in self._kinds.items():
            left = _without(spelt, word.translate(letters), text)
            if left != spelt:
                kinds[kind] = None
                spelt = left
        if not kinds:
            return None
        kept = "".join(
            "\0" if now == "\0" else typed for typed, now in zip(text, spelt, strict=True)
        )
        rest = "".join(re.sub(r"^[\W_]+|[\W_]+$", "", piece) for piece in kept.split("\0"))
        return Found(tuple(kinds), rest)


def _without(spelt: str, word: str, typed: str) -> str:
    """The text with NULs in place of a word. Patterns would have to be compiled for each person."""
    at = spelt.find(word)
    while at >= 0:
        end = at + len(word)
        within = typed[at - 1 : at].isalpha() or typed[end : end + 1].isalpha()
        if len(word) > _SHORTEST or not within:
            spelt = spelt[:at] + "\0" * len(word) + spelt[end:]
        at = spelt.find(word, at + 1)
    return spelt


def _parts(text: str) -> set[str]:
    """A text, its words, and all of them in one, folded; without the shortest."""
    whole = folded(text)
    words = re.split(r"[\W_]+", whole)
    parts = {whole, *words, "".join(words), *whole.split("@")}
    return {part for part in parts if len(part) >= _SHORTEST}
