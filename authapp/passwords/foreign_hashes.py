"""Password hashes that other systems made: the forms, their costs, and the comparison."""

import base64
import hashlib
import hmac
import importlib.util
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import bcrypt

from authapp.passwords.policy import MAX_TYPED

MAX_LENGTH = 512  # characters of a hash; the longest that the named systems make has about 200
MAX_SECONDS = 1.0  # of one comparison
MAX_MEMORY = 256 * 1024  # KiB of one comparison; each worker makes one at a time
INSTALL_ARGON2 = "pip install 'authapp[import]'"
_MAX_LANES = 16  # of argon2, each a thread
_MIN_DIGEST = 16  # bytes; a shorter digest could match passwords by chance

# Seconds of one core for one unit of work, as measured on a server of 2024. They only have to be
# right to within a factor of two: the pace of the process itself is measured (`PasswordHasher`).
_BCRYPT_UNIT = 58e-6  # a unit: of 2 ** rounds
_PBKDF2_UNITS = {  # a unit: an iteration
    "sha1": 0.23e-6,
    "sha224": 0.24e-6,
    "sha256": 0.24e-6,
    "sha384": 0.53e-6,
    "sha512": 0.53e-6,
}
_SCRYPT_UNIT = 0.38e-6  # a unit: of N · r · p
_ARGON2_UNIT = 1.0e-6  # a unit: a pass over one KiB


class UnreadableHash(ValueError):
    """A hash that can't be imported. The message is the reason, and what to do instead."""


class LibraryMissing(Exception):
    """The comparison needs a library that is not installed."""


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """A password hash of another system, as it was read.

    Attributes:
        kind: `bcrypt`, `pbkdf2`, `scrypt` or `argon2`.
        seconds: estimate of one comparison on one core.
        matches: whether these bytes are the password.
    """

    kind: str
    seconds: float
    matches: Callable[[bytes], bool]


def bcrypt_seconds(rounds: int) -> float:
    """Estimate of one bcrypt hash on one core."""
    return float(2**rounds) * _BCRYPT_UNIT


def typed_forms(password: str) -> list[bytes]:
    """The forms of a typed password to compare: the exact one, then the one that NFC makes of it.

    Most systems hash what was typed. The same keys may give other code points on another device,
    and NFC is what most of them give.
    """
    exact = password.encode("utf-8", "surrogatepass")
    if len(password) > MAX_TYPED:  # normalising is slower than linear
        return [exact]
    composed = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return [exact] if composed == exact else [exact, composed]


def read_hash(text: str) -> ForeignHash:
    """Reads a hash, and refuses one whose comparison would cost too much. Nothing is hashed.

    Raises:
        UnreadableHash
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableHash(f"it is longer than {MAX_LENGTH} characters")
    for form, read in _FORMS:
        if text.isascii() and (found := form.fullmatch(text)):
            foreign = read(found)
            if foreign.seconds > MAX_SECONDS:
                raise UnreadableHash(
                    f"one comparison would take about {foreign.seconds:.1f} s, and at most "
                    f"{MAX_SECONDS:.0f} s is allowed; leave it out and have a password set"
                )
            return foreign
    raise UnreadableHash(
        "it is of no known form; bcrypt, argon2, and the pbkdf2 and scrypt of Werkzeug, Django and "
        "passlib are known (docs/operations.md); leave it out and have a password set"
    )


def has_argon2() -> bool:
    """Whether the library that compares argon2 hashes is installed."""
    return importlib.util.find_spec("argon2") is not None


# -- bcrypt ----------------------------------------------------------------------------------------

_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # of bcrypt's base64


def _as_is(password: bytes) -> bytes:
    return password


def _bcrypt(rounds: str, salt: str, digest: str, prepare: Callable[[bytes], bytes]) -> ForeignHash:
    cost = int(rounds)
    if not 4 <= cost <= 31:
        raise UnreadableHash("bcrypt has 4 to 31 rounds")
    # Some systems filled the unused bits of the last character at random. They mean nothing, and
    # the library refuses or compares them.
    salt = salt[:-1] + _ALPHABET[_ALPHABET.index(salt[-1]) & 0b110000]
    digest = digest[:-1] + _ALPHABET[_ALPHABET.index(digest[-1]) & 0b111100]
    stored = f"$2b${cost:02d}${salt}{digest}".encode()

    def matches(password: bytes) -> bool:
        # bcrypt reads 72 bytes; its library raises above that, where older ones cut
        return bcrypt.checkpw(prepare(password)[:72], stored)

    return ForeignHash("bcrypt", bcrypt_seconds(cost), matches)


def _read_bcrypt(found: re.Match[str]) -> ForeignHash:
    def sha256(password: bytes) -> bytes:
        return hashlib.sha256(password).hexdigest().encode()

    prepare = sha256 if found["django"] == "bcrypt_sha256$" else _as_is
    return _bcrypt(found["rounds"], found["salt"], found["digest"], prepare)


def _read_passlib_bcrypt(found: re.Match[str]) -> ForeignHash:
    salt = found["salt"].encode()

    def keyed(password: bytes) -> bytes:
        return base64.b64encode(hmac.digest(salt, password, "sha256"))

    def plain(password: bytes) -> bytes:
        return base64.b64encode(hashlib.sha256(password).digest())

    prepare = keyed if found["version"] else plain
    return _bcrypt(found["rounds"], found["salt"], found["digest"], prepare)


# -- pbkdf2 ----------------------------------------------------------------------------------------


def _pbkdf2(name: str, rounds: str, salt: bytes, digest: bytes) -> ForeignHash:
    iterations = int(rounds)
    if iterations < 1:
        raise UnreadableHash("pbkdf2 has one iteration or more")
    _expect_digest(digest, hashlib.new(name).digest_size)

    def matches(password: bytes) -> bool:
        made = hashlib.pbkdf2_hmac(name, password, salt, iterations, len(digest))
        return hmac.compare_digest(made, digest)

    return ForeignHash("pbkdf2", iterations * _PBKDF2_UNITS[name], matches)


def _read_werkzeug_pbkdf2(found: re.Match[str]) -> ForeignHash:
    salt, digest = found["salt"].encode(), bytes.fromhex(found["digest"])
    return _pbkdf2(found["name"], found["rounds"], salt, digest)


def _read_django_pbkdf2(found: re.Match[str]) -> ForeignHash:
    salt, digest = found["salt"].encode(), _from_base64(found["digest"])
    return _pbkdf2(found["name"], found["rounds"], salt, digest)


def _read_passlib_pbkdf2(found: re.Match[str]) -> ForeignHash:
    salt, digest = _from_base64(found["salt"]), _from_base64(found["digest"])
    return _pbkdf2(found["name"] or "sha1", found["rounds"], salt, digest)


# -- scrypt ----------------------------------------------------------------------------------------


def _scrypt(n: int, r: int, p: int, salt: bytes, digest: bytes) -> ForeignHash:
    # RFC 7914, 2: N is a power of 2, larger than 1 and less than 2 ^ (16 · r)
    if r < 1 or p < 1 or n < 2 or n & (n - 1) or n.bit_length() > 16 * r:
        raise UnreadableHash("scrypt has no such parameters")
    _expect_memory(n * r // 8)
    _expect_digest(digest, 64)
    room = 128 * r * (n + p + 2) + 1024 * 1024

    def matches(password: bytes) -> bool:
        made = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=room, dklen=len(digest))
        return hmac.compare_digest(made, digest)

    return ForeignHash("scrypt", n * r * p * _SCRYPT_UNIT, matches)


def _read_werkzeug_scrypt(found: re.Match[str]) -> ForeignHash:
    salt, digest = found["salt"].encode(), bytes.fromhex(found["digest"])
    return _scrypt(int(found["n"]), int(found["r"]), int(found["p"]), salt, digest)


def _read_django_scrypt(found: re.Match[str]) -> ForeignHash:
    salt, digest = found["salt"].encode(), _from_base64(found["digest"])
    return _scrypt(int(found["n"]), int(found["r"]), int(found["p"]), salt, digest)


def _read_passlib_scrypt(found: re.Match[str]) -> ForeignHash:
    salt, digest = _from_base64(found["salt"]), _from_base64(found["digest"])
    return _scrypt(2 ** int(found["ln"]), int(found["r"]), int(found["p"]), salt, digest)


# -- argon2 ----------------------------------------------------------------------------------------


def _read_argon2(found: re.Match[str]) -> ForeignHash:
    memory, passes, lanes = int(found["m"]), int(found["t"]), int(found["p"])
    if not (1 <= lanes <= _MAX_LANES and passes >= 1 and memory >= 8 * lanes):
        raise UnreadableHash(
            f"argon2 has one pass or more, 1 to {_MAX_LANES} lanes here, and 8 KiB for each lane"
        )
    _expect_memory(memory)
    if len(_from_base64(found["salt"])) < 8:
        raise UnreadableHash("the salt of argon2 has 8 bytes or more")
    _expect_digest(_from_base64(found["digest"]), 64)
    for part in (found["salt"], found["digest"]):
        if base64.b64encode(_from_base64(part)).decode().rstrip("=") != part:
            raise UnreadableHash("it is damaged: the end of its base64 can't be")
    stored = found["phc"].encode()

    def matches(password: bytes) -> bool:
        try:
            from argon2 import exceptions, low_level  # noqa: PLC0415 — of the extra `import`
        except ImportError:
            raise LibraryMissing(INSTALL_ARGON2) from None
        kind = {"id": low_level.Type.ID, "i": low_level.Type.I, "d": low_level.Type.D}
        try:
            return low_level.verify_secret(stored, password, kind[found["type"]])
        except exceptions.VerifyMismatchError:
            return False
        except exceptions.VerificationError as error:
            if "memory" in str(error).lower():
                raise MemoryError from error
            raise ValueError(str(error)) from error

    return ForeignHash("argon2", memory * passes * _ARGON2_UNIT, matches)


def _expect_digest(digest: bytes, longest: int) -> None:
    if not _MIN_DIGEST <= len(digest) <= longest:
        raise UnreadableHash(
            f"its digest has {len(digest)} bytes, where {_MIN_DIGEST} to {longest} are possible"
        )


def _expect_memory(kib: int) -> None:
    if kib > MAX_MEMORY:
        raise UnreadableHash(
            f"one comparison would take {kib // 1024} MiB of memory, and at most "
            f"{MAX_MEMORY // 1024} MiB is allowed; leave it out and have a password set"
        )


def _from_base64(text: str) -> bytes:
    """The bytes of base64, with or without padding; passlib writes `.` for `+`."""
    plain = text.rstrip("=").replace(".", "+")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise UnreadableHash("it is damaged: its base64 can't be read") from None


_BASE64 = "[A-Za-z0-9+/.]+"
_BCRYPT_SALT, _BCRYPT_DIGEST = "(?P<salt>[./A-Za-z0-9]{22})", "(?P<digest>[./A-Za-z0-9]{31})"
_HEX = "(?P<digest>(?:[0-9a-f]{2})+)"
_NAMES = "(?P<name>sha1|sha224|sha256|sha384|sha512)"
_ROUNDS = "(?P<rounds>[0-9]{1,9})"
_N, _R, _P = "(?P<n>[0-9]{1,9})", "(?P<r>[0-9]{1,3})", "(?P<p>[0-9]{1,3})"

# what a form looks like → its reader
_FORMS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], ForeignHash]]] = [
    (re.compile(form, re.ASCII), read)
    for form, read in (
        # bcrypt, Flask-Bcrypt, passlib, and Django, which puts a name in front
        (
            r"(?P<django>bcrypt\$|bcrypt_sha256\$|)\$2[aby]\$(?P<rounds>[0-9]{2})\$"
            + _BCRYPT_SALT
            + _BCRYPT_DIGEST,
            _read_bcrypt,
        ),
        (
            r"\$bcrypt-sha256\$(?P<version>v=2,t=)?2[ab],(?:r=)?(?P<rounds>[0-9]{1,2})\$"
            + rf"{_BCRYPT_SALT}\${_BCRYPT_DIGEST}",
            _read_passlib_bcrypt,
        ),
        (rf"pbkdf2:{_NAMES}:{_ROUNDS}\$(?P<salt>[^$]+)\${_HEX}", _read_werkzeug_pbkdf2),
        (
            rf"pbkdf2_{_NAMES}\${_ROUNDS}\$(?P<salt>[^$]+)\$(?P<digest>{_BASE64}=*)",
            _read_django_pbkdf2,
        ),
        (
            r"\$pbkdf2(?:-(?P<name>sha256|sha512))?"
            + rf"\${_ROUNDS}\$(?P<salt>{_BASE64})\$(?P<digest>{_BASE64})",
            _read_passlib_pbkdf2,
        ),
        (rf"scrypt:{_N}:{_R}:{_P}\$(?P<salt>[^$]+)\${_HEX}", _read_werkzeug_scrypt),
        (
            rf"scrypt\${_N}\$(?P<salt>[^$]+)\${_R}\${_P}\$(?P<digest>{_BASE64}=*)",
            _read_django_scrypt,
        ),
        (
            rf"\$scrypt\$ln=(?P<ln>[0-9]{{1,2}}),r={_R},p={_P}"
            + rf"\$(?P<salt>{_BASE64})\$(?P<digest>{_BASE64})",
            _read_passlib_scrypt,
        ),
        (
            r"(?:argon2)?(?P<phc>\$argon2(?P<type>id|i|d)\$(?:v=(?:16|19)\$)?"
            r"m=(?P<m>[0-9]{1,9}),t=(?P<t>[0-9]{1,9}),p=(?P<p>[0-9]{1,3})"
            r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<digest>[A-Za-z0-9+/]+))",
            _read_argon2,
        ),
    )
]
