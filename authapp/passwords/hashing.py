"""Password hashing: hash, verify, and a dummy verification of equal cost."""

import base64
import hmac
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar
from uuid import UUID

import bcrypt

from authapp.crypto.sealing import Sealer, derive_key
from authapp.errors import Busy
from authapp.passwords.foreign_hashes import (
    INSTALL_ARGON2,
    ForeignHash,
    LibraryMissing,
    UnreadableHash,
    bcrypt_seconds,
    has_argon2,
    read_hash,
    typed_forms,
)
from authapp.passwords.hashing_queue import HashingQueue
from authapp.passwords.policy import MAX_TYPED
from authapp.storage.models import IMPORTED
from authapp.telemetry.logging import get_logger

T = TypeVar("T")

_log = get_logger(__name__)

_MARGIN = 1.25  # of the time that a refusal takes, over the estimate of the slowest comparison
_LONGEST_REFUSAL = 2.0  # seconds of hashing that a refusal is drawn out to, at most
_PACED = 0.02  # seconds; shorter hashes say more about the threads than about the pace of hashing


class Verdict(Enum):
    """The result of comparing a password with a stored hash."""

    MATCH = "match"
    MATCH_REHASH = "match, but the hash should be replaced"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict, and the seconds that the hashing thread worked for it."""

    verdict: Verdict
    seconds: float


class PasswordHasher:
    """bcrypt behind a keyed hash: NFC → HMAC-SHA-256(pepper) → base64 → bcrypt.

    So passwords are not cut at 72 bytes, NUL is no special case, and a stolen hash is useless
    without the pepper. One hash costs about 0.2 s of one core at 12 rounds. Imported hashes are
    kept sealed under the pepper, and are compared as their system did.

    Args:
        peppers: in the order of PASSWORD_PEPPER; the first one hashes, all of them verify.
        rounds: bcrypt's cost, log2.
        queue: where the hashing is done.
    Raises:
        Busy: from every method that hashes.
    """

    def __init__(self, peppers: Sequence[str], rounds: int, queue: HashingQueue) -> None:
        self.queue = queue
        self._keys = {
            derive_key(pepper, "pepper name").hex()[:8]: derive_key(pepper, "pepper")
            for pepper in peppers
        }
        self._current = next(iter(self._keys))
        self._rounds = rounds
        self._seconds = bcrypt_seconds(rounds)
        # a well-formed hash of the same cost as real ones that no known password matches
        self._dummy = f"$2b${rounds:02d}$" + "authappauthappauthapu." + "x" * 31
        self._imported = Sealer(peppers)
        # how many times as long as estimated the latest hashes took
        self._paces: deque[float] = deque([1.0], maxlen=16)

    def hash(self, password: str) -> str:
        """`name of the pepper:bcrypt hash`, ASCII, under 80 characters."""
        prepared = _prepare(self._keys[self._current], password)
        made, _ = self._run(
            lambda: bcrypt.hashpw(prepared, bcrypt.gensalt(self._rounds)), self._seconds
        )
        return f"{self._current}:{made.decode()}"

    def seal_imported(self, account: UUID, text: str) -> str:
        """The text to store for a hash that another system made: sealed, bound to the account.

        `imported:kind:milliseconds:sealed`. The milliseconds are the estimate of one comparison.

        Raises:
            UnreadableHash
        """
        foreign = read_hash(text)
        if foreign.kind == "argon2" and not has_argon2():
            raise UnreadableHash(f"argon2 needs a library; run {INSTALL_ARGON2}")
        milliseconds = max(1, round(foreign.seconds * 1000))
        sealed = self._imported.seal(_sealed_name(account), text.encode())
        return (
            f"{IMPORTED}{foreign.kind}:{milliseconds}:{base64.urlsafe_b64encode(sealed).decode()}"
        )

    def verify(self, password: str, stored: str, account: UUID) -> Comparison:
        """
        Args:
            account: whose stored hash it is.
        """
        if stored.startswith(IMPORTED):
            return self._verify_imported(password, stored, account)
        name, _, hashed = stored.partition(":")
        key = self._keys.get(name)
        if key is None:  # its pepper was retired: no answer is possible, but it must take as long
            return self.verify_dummy(password)
        try:
            matches, seconds = self._run(
                lambda: bcrypt.checkpw(_prepare(key, password), hashed.encode()), self._seconds
            )
        except ValueError:  # bcrypt raises on a malformed stored hash
            return self.verify_dummy(password)
        if not matches:
            return Comparison(Verdict.MISMATCH, seconds)
        if name != self._current or hashed[4:6] != f"{self._rounds:02d}":
            return Comparison(Verdict.MATCH_REHASH, seconds)
        return Comparison(Verdict.MATCH, seconds)

    def verify_dummy(self, password: str) -> Comparison:
        """Takes as long as `verify`, for an email without an account or an inactive user."""
        prepared = _prepare(self._keys[self._current], password)
        _, seconds = self._run(
            lambda: bcrypt.checkpw(prepared, self._dummy.encode()), self._seconds
        )
        return Comparison(Verdict.MISMATCH, seconds)

    def refusal_seconds(self, slowest_imported: float, password: str) -> float:
        """The seconds of hashing that every refusal of this password is drawn out to.

        Args:
            slowest_imported: estimate of the slowest comparison with an imported hash that there
                is; 0 where there is none. Then every refusal does equal work, and the result is 0.
        """
        if not slowest_imported:
            return 0.0
        slowest = max(slowest_imported * len(typed_forms(password)), self._seconds)
        return min(_LONGEST_REFUSAL, slowest * _MARGIN * max(tuple(self._paces)))

    def _verify_imported(self, password: str, stored: str, account: UUID) -> Comparison:
        foreign = self._open_imported(stored, account)
        if foreign is None:  # its pepper was retired, or it was moved here from another account
            return self.verify_dummy(password)
        forms = typed_forms(password)
        try:
            matches, seconds = self._run(
                lambda: any(foreign.matches(form) for form in forms), foreign.seconds * len(forms)
            )
        except LibraryMissing as missing:
            _log.error("imported_hash_not_compared", kind=foreign.kind, remedy=str(missing))
            return self.verify_dummy(password)
        except ValueError:
            return self.verify_dummy(password)
        except MemoryError:
            raise Busy from None  # this says nothing about the password
        return Comparison(Verdict.MATCH_REHASH if matches else Verdict.MISMATCH, seconds)

    def _open_imported(self, stored: str, account: UUID) -> ForeignHash | None:
        try:
            sealed = base64.urlsafe_b64decode(stored.rpartition(":")[2])
            text = self._imported.open(_sealed_name(account), sealed)
            return None if text is None else read_hash(text.decode())
        except (ValueError, UnreadableHash):
            return None

    def _run(self, work: Callable[[], T], expected: float) -> tuple[T, float]:
        """The result of `work`, and the seconds that it took, without the wait for its turn."""

        def timed() -> tuple[T, float]:
            started = time.perf_counter()
            result = work()
            return result, time.perf_counter() - started

        result, seconds = self.queue.run(timed)
        if expected >= _PACED:
            self._paces.append(seconds / expected)
        return result, seconds


def _sealed_name(account: UUID) -> str:
    return f"imported hash/{account}"


def _prepare(key: bytes, password: str) -> bytes:
    # Normalising is slower than linear, and above MAX_TYPED no password can match.
    text = unicodedata.normalize("NFC", password) if len(password) <= MAX_TYPED else password
    # surrogatepass: text that is not valid Unicode can't match, and must cost as much as other text
    return base64.b64encode(hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256"))
