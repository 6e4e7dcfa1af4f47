"""The keys of cache entries in Redis. No key contains a usable token or an email."""

import hmac
from collections.abc import Sequence
from uuid import UUID

from authapp.crypto.sealing import derive_key

# The key of the life of all copies. Accounts of the ACL may already use keys that begin so.
LIFE_KEY = "lock:life"


def session_key(digest: bytes) -> str:
    """The key of a session.

    Args:
        digest: a keyed hash of the token, from which the token can't be made.
    """
    return f"sess:{digest.hex()}"


def user_key(user_id: UUID) -> str:
    return f"user:{user_id}"


class CredentialKeys:
    """Keys of credential copies: a keyed hash of the canonical email.

    Args:
        secrets: the order of SECRET_KEY; copies are read and filled under the first.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [derive_key(secret, "credential keys") for secret in secrets]

    def current(self, canonical_email: str) -> str:
        return _credential_key(self._keys[0], canonical_email)

    def all(self, canonical_email: str) -> list[str]:
        """The keys under all secrets: instances may be ahead or behind in a rotation."""
        return [_credential_key(key, canonical_email) for key in self._keys]


def _credential_key(key: bytes, canonical_email: str) -> str:
    return f"cred:{hmac.digest(key, canonical_email.encode(), 'sha256').hex()}"
