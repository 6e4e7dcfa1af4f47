"""Passwords: policy, hash, verify, and a dummy verify of equal cost."""

import base64
import hmac
import unicodedata
from collections.abc import Sequence
from enum import Enum
from functools import cache

import bcrypt

from authapp.authentication.hashing_queue import HashingSlots
from authapp.crypto.sealing import derive_key

MIN_CODE_POINTS = 15  # NIST SP 800-63B-4, 3.1.1.2: a password that is the only factor
MAX_CODE_POINTS = 128  # the same section asks for at least 64
# Code points as typed. NFC joins four of them at most into one, so a longer password is nobody's.
MAX_TYPED = 4 * MAX_CODE_POINTS
_SERVICE_WORDS = ("authapp", "password", "session", "login", "admin")

_ROWS = ("1234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


class Verdict(Enum):
    """What comparing a password with a stored hash told."""

    MATCH = "match"
    MATCH_REHASH = "match, but the hash should be made anew"
    MISMATCH = "mismatch"


class PasswordHasher:
    """bcrypt behind a keyed hash: NFC → HMAC-SHA-256(pepper) → base64 → bcrypt.

    So there is no cut at 72 bytes, no special case for NUL, and a hash that was stolen is useless
    without the pepper. Costs about 0.2 s of one core at 12 rounds.

    Args:
        peppers: first hashes, all verify; the order of PASSWORD_PEPPER.
        rounds: bcrypt's cost, log2.
        slots: where the hashing is done, and for how many at once.
    Raises:
        Busy: from every method that hashes.
    """

    def __init__(
        self,
        peppers: Sequence[str],
        rounds: int,
        slots: HashingSlots,
    ) -> None:
        self._run = slots.run
        self.slot = slots.slot
        self._keys = {
            derive_key(pepper, "pepper name").hex()[:8]: derive_key(pepper, "pepper")
            for pepper in peppers
        }
        self._current = next(iter(self._keys))
        self._rounds = rounds
        # a well-formed hash that nothing is known to match, of the same cost as real ones
        self._dummy = f"$2b${rounds:02d}$" + "authappauthappauthapu." + "x" * 31

    def hash(self, password: str) -> str:
        """`name of the pepper:bcrypt hash`, ASCII, under 80 characters."""
        prepared = _prepare(self._keys[self._current], password)
        made = self._run(lambda: bcrypt.hashpw(prepared, bcrypt.gensalt(self._rounds)))
        return f"{self._current}:{made.decode()}"

    def verify(self, password: str, stored: str) -> Verdict:
        name, _, hashed = stored.partition(":")
        key = self._keys.get(name)
        if key is None:  # its pepper was retired: nobody can say, and it must take as long
            self.verify_dummy(password)
            return Verdict.MISMATCH
        try:
            matches = self._run(lambda: bcrypt.checkpw(_prepare(key, password), hashed.encode()))
        except ValueError:  # bcrypt raises on a malformed stored hash
            self.verify_dummy(password)
            return Verdict.MISMATCH
        if not matches:
            return Verdict.MISMATCH
        if name != self._current or hashed[4:6] != f"{self._rounds:02d}":
            return Verdict.MATCH_REHASH
        return Verdict.MATCH

    def verify_dummy(self, password: str) -> None:
        """Takes as long as `verify`: for people who are unknown or inactive."""
        prepared = _prepare(self._keys[self._current], password)
        self._run(lambda: bcrypt.checkpw(prepared, self._dummy.encode()))


def why_refused(password: str, context: Sequence[str] = ()) -> str | None:
    """The reason a new password can't be taken, written for the person; None when it can.

    Length counts code points after NFC; no composition rules (NIST SP 800-63B-4, 3.1.1.2). The
    block list is compared with the whole password; it holds common ones, those repeated to fill
    the length, runs of the keyboard, and words of the context (OWASP ASVS 5.0, 6.2.4 and 6.2.11).

    Args:
        context: words an attacker tries first: the person's email and name.
    """
    if len(password) > MAX_TYPED:  # first: normalising takes longer than the text grows
        return f"use at most {MAX_CODE_POINTS} characters"
    try:
        password.encode()
    except UnicodeEncodeError:
        return "it holds characters that can't be stored; use others"
    length = len(unicodedata.normalize("NFC", password))
    if length < MIN_CODE_POINTS:
        return f"use at least {MIN_CODE_POINTS} characters; a few unrelated words do well"
    if length > MAX_CODE_POINTS:
        return f"use at most {MAX_CODE_POINTS} characters"
    unit = _unit(unicodedata.normalize("NFKC", password).casefold())
    if unit in _common() or len(unit) == 1:
        return "it is among the first passwords that attackers try; choose another"
    if any(unit in row + row or unit[::-1] in row + row for row in _ROWS):
        return "it is a run of neighbouring keys; choose another"
    if unit in _context_words(context):
        return "it is your email, your name or the name of this service; choose another"
    return None


def _unit(text: str) -> str:
    """The shortest text that repeats to give `text`."""
    return text[: (text + text).index(text, 1)]


@cache
def _common() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 — large, and rarely needed

    return frozenset(FREQUENCY_LISTS["passwords"])


def _context_words(context: Sequence[str]) -> set[str]:
    given = (unicodedata.normalize("NFKC", word) for word in (*context, *_SERVICE_WORDS))
    words = {word.casefold() for word in given if word}
    parts = {part for word in words for part in word.replace("@", " ").split()}
    joined = {word.replace(" ", "") for word in words}
    return words | parts | joined


def _prepare(key: bytes, password: str) -> bytes:
    # normalising takes longer than the text grows; a longer one than MAX_TYPED matches nothing
    text = unicodedata.normalize("NFC", password) if len(password) <= MAX_TYPED else password
    # surrogatepass: text that is no valid Unicode can't match, and must cost as much as other text
    return base64.b64encode(hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256"))
