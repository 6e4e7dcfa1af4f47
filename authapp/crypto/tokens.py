"""Opaque tokens, of sessions, of devices, of log-ins that wait and to refresh, and challenges of
passkeys: mint, check. A forged one is refused by arithmetic.
"""

import base64
import binascii
import hmac
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from authapp.crypto.sealing import KeyedHash

_BODY_BYTES = 32
_MAC_BYTES = 16
_TRUSTED = b"trusted\0"  # before the email, in the MAC of a device that is; no email holds NUL
# 48 bytes are 64 characters without padding or spare bits: one spelling each
_is_spelt = re.compile(r"[A-Za-z0-9_-]{64}").fullmatch


class SessionToken(msgspec.Struct, frozen=True):
    """A verified credential: the token of a session, from a cookie or an access token.

    Attributes:
        text: what the visitor sends; goes to them and nowhere else, so it is not shown.
        digest: 32 bytes that name the session in the stores. They can't be turned back into the
            token.
        user_id: the person that an access token names; None for the token of a cookie.
    """

    text: str
    digest: bytes
    user_id: UUID | None = None

    def __repr__(self) -> str:
        return f"SessionToken(digest={self.digest!r})"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token that was checked: we minted it for this session.

    Attributes:
        text: what the program sends; goes to it and nowhere else.
        digest: 32 bytes; the only form that is stored.
    """

    text: str = field(repr=False)
    digest: bytes
    session_id: UUID


class SessionTokens:
    """Mints and checks tokens of sessions: 256 random bits; OWASP ASVS 5.0 7.2.3 asks for 128.

    Args:
        secrets: first signs, all verify; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._signer = _Signer(secrets, "token")

    def mint(self) -> SessionToken:
        return SessionToken(*self._signer.sign(os.urandom(_BODY_BYTES)))

    def check(self, text: str) -> SessionToken | None:
        """The token, or None when we did not mint it."""
        found = self._signer.open(text)
        return SessionToken(text, found[1]) if found else None


class RefreshTokens:
    """Mints and checks refresh tokens. Each names its session beside 128 random bits, so that one
    that was used before is known for what it is, with nothing kept of it.

    Args:
        secrets: as for `SessionTokens`.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._signer = _Signer(secrets, "refresh token")

    def mint(self, session_id: UUID) -> RefreshToken:
        body = session_id.bytes + os.urandom(_BODY_BYTES - len(session_id.bytes))
        return RefreshToken(*self._signer.sign(body), session_id)

    def check(self, text: str) -> RefreshToken | None:
        """The token, or None when we did not mint it."""
        found = self._signer.open(text)
        return RefreshToken(text, found[1], UUID(bytes=found[0][:16])) if found else None


@dataclass(frozen=True, slots=True)
class DeviceToken:
    """A device token that was checked: somebody logged in to this account from there.

    Attributes:
        text: what the browser sends; goes to it and nowhere else.
        digest: 32 bytes that name the device where its attempts are counted.
        epoch: of the credentials that were verified there.
        trust: what the browser is trusted for beside; None: nothing.
    """

    text: str = field(repr=False)
    digest: bytes
    epoch: int
    trust: "DeviceTrust | None" = None


@dataclass(frozen=True, slots=True)
class DeviceTrust:
    """A person's word that a browser is theirs alone: it needs no second factor for a while.

    Attributes:
        factors_version: of the person's factors when one of them was shown there.
        until: in whole seconds since 1970.
    """

    factors_version: int
    until: int


class DeviceTokens:
    """Mints and checks tokens of devices. One holds random bits and the epoch; for which account
    it is, only who has the key and guesses the email can tell.

    Args:
        secrets: as for `SessionTokens`.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._signer = _Signer(secrets, "device token")

    def mint(
        self, canonical_email: str, epoch: int, trust: DeviceTrust | None = None
    ) -> DeviceToken:
        body = os.urandom(_BODY_BYTES - 8) + epoch.to_bytes(8)
        about = canonical_email.encode()
        if trust is not None:
            facts = trust.factors_version.to_bytes(4) + trust.until.to_bytes(8)
            body, about = body[len(facts) :][:-8] + facts + body[-8:], _TRUSTED + about
        return DeviceToken(*self._signer.sign(body, about), epoch, trust)

    def check(self, text: str, canonical_email: str) -> DeviceToken | None:
        """The token, or None when we did not mint it for this account."""
        about = canonical_email.encode()
        if found := self._signer.open(text, about):
            body, digest = found
            return DeviceToken(text, digest, int.from_bytes(body[-8:]))
        if found := self._signer.open(text, _TRUSTED + about):
            body, digest = found
            trust = DeviceTrust(int.from_bytes(body[-20:-16]), int.from_bytes(body[-16:-8]))
            return DeviceToken(text, digest, int.from_bytes(body[-8:]), trust)
        return None


class LoginTokens:
    """Mints and checks login tokens: 256 random bits that stand for a log-in without its second
    factor.

    Args:
        secrets: as for `SessionTokens`.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._signer = _Signer(secrets, "login token")

    def mint(self) -> tuple[str, bytes]:
        """The token's text, and the digest that is stored."""
        return self._signer.sign(os.urandom(_BODY_BYTES))

    def check(self, text: str) -> bytes | None:
        """The digest of the token, or None when we did not mint it."""
        found = self._signer.open(text)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge that was checked: we made it for this ceremony, and it has not expired.

    Attributes:
        digest: 32 bytes; what is stored once it has been used.
    """

    digest: bytes
    expires_at: datetime


class Challenges:
    """Mints and checks challenges of passkeys. One holds random bits and the time of its expiry, so
    nothing is stored for a stranger who asks for one. Whoever accepts an answer to it stores its
    digest, so that it counts once.

    Args:
        secrets: as for `SessionTokens`.
    """

    LASTS = timedelta(minutes=5)

    def __init__(self, secrets: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._signer = _Signer(secrets, "challenge")
        self._clock = clock

    def mint(self, ceremony: str, bound_to: bytes = b"") -> str:
        """
        Args:
            ceremony: what an answer to it does; it does nothing else.
            bound_to: the session or log-in for which alone it counts.
        """
        expires = int((self._clock() + self.LASTS).timestamp())
        body = os.urandom(_BODY_BYTES - 8) + expires.to_bytes(8)
        return self._signer.sign(body, _about(ceremony, bound_to))[0]

    def check(self, text: str, ceremony: str, bound_to: bytes = b"") -> Challenge | None:
        """The challenge, or None when we did not mint it for this, or it has expired."""
        found = self._signer.open(text, _about(ceremony, bound_to))
        if found is None:
            return None
        expires_at = datetime.fromtimestamp(int.from_bytes(found[0][-8:]), UTC)
        return Challenge(found[1], expires_at) if self._clock() < expires_at else None


def _about(ceremony: str, bound_to: bytes) -> bytes:
    return ceremony.encode() + b"\0" + bound_to


class _Signer:
    """Makes tokens of one purpose: 32 bytes and their MAC, which may cover more that is known."""

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        self._keys = [
            (KeyedHash(secret, f"{purpose} mac"), KeyedHash(secret, f"{purpose} digest"))
            for secret in secrets
        ]

    def sign(self, body: bytes, about: bytes = b"") -> tuple[str, bytes]:
        """The token's text and its digest."""
        mac, digest = self._keys[0]
        raw = body + mac(body + about)[:_MAC_BYTES]
        text = base64.urlsafe_b64encode(raw).decode("ascii")
        return text, digest(raw)

    def open(self, text: str, about: bytes = b"") -> tuple[bytes, bytes] | None:
        """The 32 bytes and the token's digest, or None when we did not sign it."""
        if _is_spelt(text) is None:
            return None
        raw = binascii.a2b_base64(text.replace("-", "+").replace("_", "/"))
        body, sent = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
        for mac, digest in self._keys:
            if hmac.compare_digest(sent, mac(body + about)[:_MAC_BYTES]):
                return body, digest(raw)
        return None
