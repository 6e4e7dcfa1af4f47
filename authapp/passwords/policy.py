"""Password policy: which new passwords are accepted, and the reason for a refusal."""

import unicodedata

from authapp.passwords.block_list import BlockList, folded
from authapp.passwords.context_words import ContextWords
from authapp.passwords.estimate import ENOUGH, estimate, is_among_the_most_common

MAX_CODE_POINTS = 128  # NIST SP 800-63B-4, 3.1.1.2, asks for at least 64
# Code points as typed. NFC joins at most four of them into one, so nobody has a longer password.
MAX_TYPED = 4 * MAX_CODE_POINTS

_ROWS = ("1234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")
_ADVICE = "a few unrelated words do well"
# Guesses that are enough for the rest beside context words: where these stand is guessed, too.
_ENOUGH_BESIDE_WORDS = ENOUGH // 10


class PasswordPolicy:
    """The rules that a new password must keep.

    Args:
        min_length: in code points.
        service_name: what people call the service; no password may be that.
    """

    def __init__(self, min_length: int, block_list: BlockList, service_name: str = "") -> None:
        self.min_length = min_length
        self._block_list = block_list
        self._service_name = service_name

    def why_refused(self, password: str, email: str = "", name: str = "") -> str | None:
        """The reason why a new password is refused, written for the person; None: it is accepted.

        Length counts code points after NFC; there are no composition rules (NIST SP 800-63B-4,
        3.1.1.2). The block list is compared with the whole password, and with the text that it
        repeats (OWASP ASVS 5.0, 6.2.4 and 6.2.12). A word of the context is refused with whatever
        is easy to guess around it (6.2.11). The estimate has the last word.

        Args:
            email: of the person whose password it will be, and `name` as well: an attacker tries
                them first.
        """
        if reason := self._why_unfit(password):
            return reason
        text = folded(password)
        unit = _unit(text)
        if len(unit) > 1 and any(unit in row + row or unit[::-1] in row + row for row in _ROWS):
            return f"it is a run of neighbouring keys; {_ADVICE}"
        if len(unit) == 1 or is_among_the_most_common(unit):
            return f"it is among the first passwords that attackers try; {_ADVICE}"
        if any(self._block_list.is_common(one) for one in {unit, text}):
            return f"it is among the first passwords that attackers try; {_ADVICE}"
        if any(self._block_list.is_own(one) for one in {unit, text}):
            return f"it is on the list of passwords that nobody may use here; {_ADVICE}"
        words = ContextWords(email, name, self._service_name)
        if found := words.find(text):
            if estimate(found.rest).guesses >= _ENOUGH_BESIDE_WORDS:
                return None
            added = " with a few characters added" if found.rest else ""
            return f"it is {' and '.join(found.kinds)}{added}; {_ADVICE}"
        judged = estimate(unicodedata.normalize("NFKC", password), list(words))
        return None if judged.is_enough else f"{judged.weakness}; {_ADVICE}"

    def is_short(self, password: str) -> bool:
        """Whether a password is shorter than new ones have to be, as imported ones may be."""
        if len(password) >= MAX_TYPED:  # NFC leaves a quarter at least
            return False
        return len(unicodedata.normalize("NFC", password)) < self.min_length

    def _why_unfit(self, password: str) -> str | None:
        """The reason why nobody's password can be this one: its length, or what is in it."""
        if len(password) > MAX_TYPED:  # first, because normalising is slower than linear
            return f"use at most {MAX_CODE_POINTS} characters"
        try:
            password.encode()
        except UnicodeEncodeError:
            return "it holds characters that can't be stored; use others"
        length = len(unicodedata.normalize("NFC", password))
        if length < self.min_length:
            return f"use at least {self.min_length} characters; {_ADVICE}"
        if length > MAX_CODE_POINTS:
            return f"use at most {MAX_CODE_POINTS} characters"
        return None


def _unit(text: str) -> str:
    """The shortest text that repeats to give `text`."""
    return text[: (text + text).index(text, 1)]
