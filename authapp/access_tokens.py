"""Access tokens: JWTs (RFC 7519), each a signed name for a session: issue, read, verify.

One algorithm (HS256), one header, one spelling: whatever is not written exactly as we write it is
refused before its signature is looked at (RFC 8725, 3.1 to 3.11).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID, uuid4

import jwt
import msgspec

from authapp.sealing import derive_key

ISSUER: Final = "authapp"
AUDIENCE: Final = "authapp"

_ALGORITHM = "HS256"
_SIGNATURE_BYTES = 32
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
_LONGEST = 1024  # characters; ours have about 360
_FOREVER = 1 << 35  # seconds since 1970; what datetime can hold


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All are required, and of exactly these types."""

    iss: Literal["authapp"]
    aud: Literal["authapp"]
    sub: UUID
    sid: UUID
    jti: UUID
    iat: int
    exp: int


_decoder = msgspec.json.Decoder(_Claims)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an access token says. Until `verify` returns, anyone may have said it.

    Attributes:
        digest: names the session in the stores, as that of a session token does.
        fingerprints: of the whole text, one for each of our keys.
        expires_at: not passed when it was read.
    """

    text: str = field(repr=False)
    digest: bytes
    fingerprints: tuple[bytes, ...]
    user_id: UUID
    expires_at: datetime

    def is_among(self, verified: Sequence[bytes]) -> bool:
        """Whether one of these is a fingerprint of this token, under a key that still counts."""
        return any(hmac.compare_digest(a, b) for a in verified for b in self.fingerprints)


class AccessTokens:
    """
    Args:
        secrets: first signs, all verify; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._keys = [
            (derive_key(secret, "access token"), derive_key(secret, "access token fingerprint"))
            for secret in secrets
        ]
        self._clock = clock

    def issue(self, session_id: UUID, user_id: UUID, seconds: int) -> str:
        """A token that names this session for so long."""
        now = int(self._clock().timestamp())
        claims = _Claims(ISSUER, AUDIENCE, user_id, session_id, uuid4(), now, now + seconds)
        return jwt.api_jws.encode(msgspec.json.encode(claims), self._keys[0][0], _ALGORITHM)

    def read(self, text: str) -> Claim | None:
        """What the token says; None when it can't be ours or has expired. Its signature is not
        checked."""
        if len(text) > _LONGEST or not text.isascii():
            return None
        header, *rest = text.split(".")
        if header != _HEADER or len(rest) != 2:  # no other algorithm, no kid, jku, crit …
            return None
        payload, signature = (_decode(part) for part in rest)
        if payload is None or signature is None or len(signature) != _SIGNATURE_BYTES:
            return None
        try:
            claims = _decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        now = self._clock().timestamp()
        if not now < claims.exp < _FOREVER:
            return None
        return Claim(
            text=text,
            digest=digest_of(claims.sid),
            fingerprints=tuple(_fingerprint(key, text) for _, key in self._keys),
            user_id=claims.sub,
            expires_at=datetime.fromtimestamp(claims.exp, UTC),
        )

    def verify(self, claim: Claim) -> bytes | None:
        """The fingerprint to know this token by from now on; None when we did not sign it."""
        for (key, _), fingerprint in zip(self._keys, claim.fingerprints, strict=True):
            try:
                jwt.api_jws.decode(claim.text, key, algorithms=[_ALGORITHM])
            except jwt.InvalidTokenError:
                continue
            return fingerprint
        return None


def digest_of(session_id: UUID) -> bytes:
    """What the stores know a session by that access tokens name: no secret, nor made from one."""
    return hashlib.sha256(b"authapp/api session/" + session_id.bytes).digest()


def _fingerprint(key: bytes, text: str) -> bytes:
    """Keyed, so that a token that was verified by a key is not known any more without that key."""
    return hmac.digest(key, text.encode(), "sha256")


def _decode(part: str) -> bytes | None:
    """The bytes of a part; None when they are not spelled as we spell them."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    # a last character may hold bits that no byte takes: other spellings of the same bytes
    return raw if base64.urlsafe_b64encode(raw).decode().rstrip("=") == part else None
