"""Keys derived from SECRET_KEY, and the sealing of what is written to Redis."""

import hmac
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


@lru_cache(maxsize=64)
def derive_key(secret: str, purpose: str, length: int = 32) -> bytes:
    """Key for one purpose (HKDF-SHA-256, RFC 5869): no key is used for two things."""
    return HKDF(SHA256(), length=length, salt=None, info=b"authapp/" + purpose.encode()).derive(
        secret.encode()
    )


class KeyedHash:
    """HMAC-SHA-256 (RFC 2104) under a key derived for one purpose, prepared once."""

    def __init__(self, secret: str, purpose: str) -> None:
        self._prepared = hmac.new(derive_key(secret, purpose), digestmod="sha256")

    def __call__(self, message: bytes) -> bytes:
        """32 bytes."""
        prepared = self._prepared.copy()
        prepared.update(message)
        return prepared.digest()


class Sealer:
    """Encrypts and authenticates values bound to the key they are stored under.

    Each stored key has an AES-256-GCM key of its own (HMAC of the stored key), so a value moved to
    another key does not open, and random nonces never come near GCM's limit of 2^32 for one key
    (NIST SP 800-38D, 8.3).

    Args:
        secrets: first seals, all open; the order of SECRET_KEY.
        purpose: what is sealed has a key of its own for each purpose.
    """

    def __init__(self, secrets: Sequence[str], purpose: str = "seal") -> None:
        self._keys = [KeyedHash(secret, purpose) for secret in secrets]

    def seal(self, stored_key: str, value: bytes) -> bytes:
        """Returns nonce + ciphertext + tag: 28 bytes more than `value`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + _cipher(self._keys[0], stored_key).encrypt(nonce, value, None)

    def open(self, stored_key: str, sealed: bytes) -> bytes | None:
        """The value, or None when it was not sealed by us for this key."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for key in self._keys:
            try:
                return _cipher(key, stored_key).decrypt(nonce, body, None)
            except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
                continue
        return None


def _cipher(key: KeyedHash, stored_key: str) -> AESGCM:
    return AESGCM(key(stored_key.encode()))
