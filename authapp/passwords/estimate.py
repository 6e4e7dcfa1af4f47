"""Estimate: how many guesses a password takes, and what makes it easy to guess, by zxcvbn.

zxcvbn as a whole takes seconds for 40 characters that may stand for several letters, because it
tries all their combinations. So its matchers are called one by one here: each such character stands
for one letter, and only the beginning and the end of a password are judged: whatever is hard to
guess does not get easier by what is written beside it. This takes 15 ms at most.

zxcvbn adds 10,000 guesses for each further part of a password, whatever the part is, so that two
common words with a blank between them would do. That sum is left out.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

SEEN = 32  # characters that are judged at once
# Guesses that are enough: eight random characters, or three unrelated words, take as many. At ten
# guesses in 15 minutes that is 285 years, and with stolen hashes half a year of one core.
ENOUGH = 10**8

# Characters that stand for a letter, each by the one that stands for it in `_LETTERS`.
_ALIKE = str.maketrans("@{[<!|$+6", "4(((11579")
_LETTERS = {
    "a": ["4"],
    "b": ["8"],
    "c": ["("],
    "e": ["3"],
    "g": ["9"],
    "o": ["0"],
    "s": ["5"],
    "t": ["7"],
    "x": ["%"],
    "z": ["2"],
}
# Characters that zxcvbn would take for letters within a repeated text, replaced by others in a row.
_NO_LETTERS = {ord(sign): 0xE000 + ord(sign) for sign in "0123456789@({[<!|$+%"}

_WEAKNESSES = {
    "dictionary": "it is made of common words, names or passwords",
    "spatial": "it is made of runs of neighbouring keys",
    "repeat": "it repeats the same characters",
    "sequence": "it is made of sequences, like abcd or 6543",
    "regex": "it is made of dates or years",
    "date": "it is made of dates or years",
    "bruteforce": "it is too simple",
}
_YEARS = {"recent_year": re.compile(r"19\d\d|20[0-4]\d")}
_Match = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    Attributes:
        guesses: of an attacker who knows words, names, dates and keyboards.
        weakness: what makes them so few, in words that follow a colon.
    """

    guesses: int
    weakness: str

    @property
    def is_enough(self) -> bool:
        return self.guesses >= ENOUGH


def estimate(text: str, words: Collection[str] = ()) -> Estimate:
    """The estimate for a password.

    Args:
        words: those that an attacker tries first, in lower case.
    """
    judged = _judged(text[:SEEN], words)
    if judged.is_enough or len(text) <= SEEN:
        return judged
    return max(judged, _judged(text[-SEEN:], words), key=lambda one: one.guesses)


def is_among_the_most_common(text: str) -> bool:
    """Whether a password is among the 30,000 that zxcvbn knows. Those may be short."""
    return text in _matching().RANKED_DICTIONARIES["passwords"]


def _judged(text: str, words: Collection[str]) -> Estimate:
    from zxcvbn.scoring import most_guessable_match_sequence  # noqa: PLC0415 — as `_matching`

    if not text:
        return Estimate(0, _WEAKNESSES["bruteforce"])
    found = sorted(_matches(text, words), key=lambda match: (match["i"], match["j"]))
    judged = most_guessable_match_sequence(text, found, _exclude_additive=True)
    longest = max(judged["sequence"], key=lambda match: len(match["token"]))
    weakness = _WEAKNESSES[longest["pattern"]]
    if longest.get("l33t"):
        weakness += "; signs in place of letters are tried, too"
    if longest.get("reversed"):
        weakness += "; they are tried backwards, too"
    return Estimate(int(judged["guesses"]), weakness)


def _matches(text: str, words: Collection[str]) -> list[_Match]:
    matching = _matching()
    # a dictionary of our own: zxcvbn keeps the words of the last caller, also for other threads
    known = {**matching.RANKED_DICTIONARIES, "words": matching.build_ranked_dict(list(words))}
    alike = text.translate(_ALIKE)
    found: list[_Match] = []
    found += matching.dictionary_match(text, known)
    found += matching.reverse_dictionary_match(text, known)
    for letter in ("i", "l"):
        found += matching.l33t_match(alike, known, {**_LETTERS, letter: ["1"]})
    found += matching.repeat_match(text.translate(_NO_LETTERS))
    found += matching.spatial_match(text)
    found += matching.sequence_match(text)
    found += matching.regex_match(text, _YEARS)
    found += matching.date_match(text)
    return found


@cache
def _matching() -> Any:
    from zxcvbn import matching  # noqa: PLC0415 — large; many commands never need it

    return matching
