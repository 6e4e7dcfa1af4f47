"""Session tokens: mint, check. A forged token is refused by arithmetic, with no I/O."""

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from authapp.sealing import derive_key

_RANDOM_BYTES = 32  # 256 bits; OWASP ASVS 5.0 7.2.3 asks for 128
_MAC_BYTES = 16
_LENGTH = (_RANDOM_BYTES + _MAC_BYTES) // 3 * 4  # 64 characters, no padding: one spelling each


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A token that was checked.

    Attributes:
        text: what the cookie holds; goes to the browser and nowhere else.
        digest: 32 bytes; the only form that is stored. It can't be turned back into the token.
    """

    text: str = field(repr=False)
    digest: bytes


class SessionTokens:
    """Mints and checks tokens.

    Args:
        secrets: first signs, all verify; the order of SECRET_KEY.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [
            (derive_key(secret, "token mac"), derive_key(secret, "token digest"))
            for secret in secrets
        ]

    def mint(self) -> SessionToken:
        mac_key, digest_key = self._keys[0]
        random = os.urandom(_RANDOM_BYTES)
        raw = random + _mac(mac_key, random)
        text = base64.urlsafe_b64encode(raw).decode("ascii")
        return SessionToken(text, hmac.digest(digest_key, raw, "sha256"))

    def check(self, text: str) -> SessionToken | None:
        """The token, or None when we did not mint it."""
        if len(text) != _LENGTH or not text.isascii():
            return None
        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        if base64.urlsafe_b64encode(raw).decode("ascii") != text:  # it also reads +, / and =
            return None
        random, mac = raw[:_RANDOM_BYTES], raw[_RANDOM_BYTES:]
        for mac_key, digest_key in self._keys:
            if hmac.compare_digest(mac, _mac(mac_key, random)):
                return SessionToken(text, hmac.digest(digest_key, raw, "sha256"))
        return None


def _mac(key: bytes, random: bytes) -> bytes:
    return hmac.digest(key, random, "sha256")[:_MAC_BYTES]
