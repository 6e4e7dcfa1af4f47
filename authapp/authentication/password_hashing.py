"""Password hashing: hash, verify, and a dummy verification of equal cost."""

import base64
import hmac
import unicodedata
from collections.abc import Sequence
from enum import Enum

import bcrypt

from authapp.authentication.hashing_queue import HashingQueue
from authapp.authentication.passwords import MAX_TYPED
from authapp.crypto.sealing import derive_key


class Verdict(Enum):
    """The result of comparing a password with a stored hash."""

    MATCH = "match"
    MATCH_REHASH = "match, but the hash should be replaced"
    MISMATCH = "mismatch"


class PasswordHasher:
    """bcrypt behind a keyed hash: NFC → HMAC-SHA-256(pepper) → base64 → bcrypt.

    So passwords are not cut at 72 bytes, NUL is no special case, and a stolen hash is useless
    without the pepper. One hash costs about 0.2 s of one core at 12 rounds.

    Args:
        peppers: in the order of PASSWORD_PEPPER; the first one hashes, all of them verify.
        rounds: bcrypt's cost, log2.
        queue: where the hashing is done.
    Raises:
        Busy: from every method that hashes.
    """

    def __init__(self, peppers: Sequence[str], rounds: int, queue: HashingQueue) -> None:
        self.queue = queue
        self._run = queue.run
        self._keys = {
            derive_key(pepper, "pepper name").hex()[:8]: derive_key(pepper, "pepper")
            for pepper in peppers
        }
        self._current = next(iter(self._keys))
        self._rounds = rounds
        # a well-formed hash of the same cost as real ones that no known password matches
        self._dummy = f"$2b${rounds:02d}$" + "authappauthappauthapu." + "x" * 31

    def hash(self, password: str) -> str:
        """`name of the pepper:bcrypt hash`, ASCII, under 80 characters."""
        prepared = _prepare(self._keys[self._current], password)
        made = self._run(lambda: bcrypt.hashpw(prepared, bcrypt.gensalt(self._rounds)))
        return f"{self._current}:{made.decode()}"

    def verify(self, password: str, stored: str) -> Verdict:
        name, _, hashed = stored.partition(":")
        key = self._keys.get(name)
        if key is None:  # its pepper was retired: no answer is possible, but it must take as long
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
        """Takes as long as `verify`, for an email without an account or an inactive user."""
        prepared = _prepare(self._keys[self._current], password)
        self._run(lambda: bcrypt.checkpw(prepared, self._dummy.encode()))


def _prepare(key: bytes, password: str) -> bytes:
    # Normalising is slower than linear, and above MAX_TYPED no password can match.
    text = unicodedata.normalize("NFC", password) if len(password) <= MAX_TYPED else password
    # surrogatepass: text that is not valid Unicode can't match, and must cost as much as other text
    return base64.b64encode(hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256"))
