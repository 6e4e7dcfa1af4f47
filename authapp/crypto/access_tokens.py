"""Access tokens: JWTs (RFC 7519), each a signed name for a session: issue, check.

One algorithm (HS256), one header, one spelling (RFC 8725, 3.1 to 3.11). Header and form are looked
at first, then the signature, then what it says is read. The signature is one HMAC. PyJWT takes ten
times as long to refuse a forged token, and accepts a second spelling (`token=`); the tests read our
tokens with it.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID, uuid4

import msgspec

from authapp.crypto.sealing import KeyedHash
from authapp.crypto.tokens import SessionToken

ISSUER: Final = "authapp"
AUDIENCE: Final = "authapp"

_PURPOSE = "access token"  # of the key
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
_LONGEST = 1024  # characters; ours have about 360
_FOREVER = 1 << 35  # seconds since 1970; what datetime can hold


_BY_PASSWORD = ("pwd",)


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All are required, and of exactly these types; but for the last two, which a token has whose
    session was proven by more than a password."""

    iss: Literal["authapp"]
    aud: Literal["authapp"]
    sub: UUID
    sid: UUID
    jti: UUID
    iat: int
    exp: int
    amr: tuple[str, ...] = _BY_PASSWORD
    auth_time: int | None = None


_decoder = msgspec.json.Decoder(_Claims)


class AccessTokens:
    """
    Args:
        secrets: first signs, all verify; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._signatures = [KeyedHash(secret, _PURPOSE) for secret in secrets]
        self._clock = clock

    def issue(
        self,
        session_id: UUID,
        user_id: UUID,
        seconds: int,
        amr: Sequence[str] = _BY_PASSWORD,
        auth_time: datetime | None = None,
    ) -> str:
        """A token that names this session for so long.

        Args:
            amr, auth_time: how and when the person proved who they are. They are for programs that
                read the token; here the session itself says it.
        """
        now = int(self._clock().timestamp())
        claims = _Claims(ISSUER, AUDIENCE, user_id, session_id, uuid4(), now, now + seconds)
        if tuple(amr) != _BY_PASSWORD:
            proved_at = int(auth_time.timestamp()) if auth_time else now
            claims = msgspec.structs.replace(claims, amr=tuple(amr), auth_time=proved_at)
        signed = f"{_HEADER}.{_encode(msgspec.json.encode(claims))}"
        return f"{signed}.{_encode(self._signatures[0](signed.encode()))}"

    def check(self, text: str) -> SessionToken | None:
        """The token; None when we did not sign it or it has expired."""
        if len(text) > _LONGEST or not text.isascii():
            return None
        header, *rest = text.split(".")
        if header != _HEADER or len(rest) != 2:  # no other algorithm, no kid, jku, crit …
            return None
        signature = _decode(rest[1])
        if signature is None or not self._is_signed(text.rpartition(".")[0].encode(), signature):
            return None
        payload = _decode(rest[0])
        try:
            claims = _decoder.decode(payload or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not self._clock().timestamp() < claims.exp < _FOREVER:
            return None
        return SessionToken(text, digest_of(claims.sid), claims.sub)

    def _is_signed(self, signed: bytes, signature: bytes) -> bool:
        return any(hmac.compare_digest(sign(signed), signature) for sign in self._signatures)


def digest_of(session_id: UUID) -> bytes:
    """The digest of a session that access tokens name. It is no secret, nor made from one."""
    return hashlib.sha256(b"authapp/api session/" + session_id.bytes).digest()


def _decode(part: str) -> bytes | None:
    """The bytes of a part; None when they are not spelled as we spell them."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    # a last character may hold bits that no byte takes: other spellings of the same bytes
    return raw if _encode(raw) == part else None


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
