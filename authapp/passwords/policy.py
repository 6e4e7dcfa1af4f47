"""Password policy: which new passwords are accepted, and the reason for a refusal."""

import unicodedata
from collections.abc import Sequence
from functools import cache

MAX_CODE_POINTS = 128  # the same section asks for at least 64
# Code points as typed. NFC joins at most four of them into one, so nobody has a longer password.
MAX_TYPED = 4 * MAX_CODE_POINTS
SERVICE_WORDS = ("authapp", "password", "session", "login", "admin")

_ROWS = ("1234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


class PasswordPolicy:
    """The rules that a new password must keep.

    Args:
        min_length: in code points.
        service_name: what people call the service; no password may be that.
    """

    def __init__(self, min_length: int, service_name: str = "") -> None:
        self.min_length = min_length
        self._service_words = (*SERVICE_WORDS, service_name)

    def why_refused(self, password: str, email: str = "", name: str = "") -> str | None:
        """The reason why a new password is refused, written for the person; None: it is accepted.

        Length counts code points after NFC; there are no composition rules (NIST SP 800-63B-4,
        3.1.1.2). The block list is compared with the whole password. It holds common passwords,
        common passwords repeated to fill the length, runs of the keyboard, and words of the
        context (OWASP ASVS 5.0, 6.2.4 and 6.2.11).

        Args:
            email: of the person whose password it will be, and `name` as well: an attacker tries
                them first.
        """
        if len(password) > MAX_TYPED:  # first, because normalising is slower than linear
            return f"use at most {MAX_CODE_POINTS} characters"
        try:
            password.encode()
        except UnicodeEncodeError:
            return "it holds characters that can't be stored; use others"
        length = len(unicodedata.normalize("NFC", password))
        if length < self.min_length:
            return f"use at least {self.min_length} characters; a few unrelated words do well"
        if length > MAX_CODE_POINTS:
            return f"use at most {MAX_CODE_POINTS} characters"
        unit = _unit(unicodedata.normalize("NFKC", password).casefold())
        if unit in _common() or len(unit) == 1:
            return "it is among the first passwords that attackers try; choose another"
        if any(unit in row + row or unit[::-1] in row + row for row in _ROWS):
            return "it is a run of neighbouring keys; choose another"
        if unit in _context_words((email, name, *self._service_words)):
            return "it is your email, your name or the name of this service; choose another"
        return None

    def is_short(self, password: str) -> bool:
        """Whether a password is shorter than new ones have to be, as imported ones may be."""
        if len(password) >= MAX_TYPED:  # NFC leaves a quarter at least
            return False
        return len(unicodedata.normalize("NFC", password)) < self.min_length


def _unit(text: str) -> str:
    """The shortest text that repeats to give `text`."""
    return text[: (text + text).index(text, 1)]


@cache
def _common() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 — large, and rarely needed

    return frozenset(FREQUENCY_LISTS["passwords"])


def _context_words(context: Sequence[str]) -> set[str]:
    given = (unicodedata.normalize("NFKC", word) for word in context)
    words = {word.casefold() for word in given if word}
    parts = {part for word in words for part in word.replace("@", " ").split()}
    joined = {word.replace(" ", "") for word in words}
    return words | parts | joined
