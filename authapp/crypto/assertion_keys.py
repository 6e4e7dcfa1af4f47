"""The keys that sign assertions (ES256), derived from SECRET_KEY, and their public halves."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
)

from authapp.crypto.sealing import derive_key

ALGORITHM: Final = "ES256"

_PURPOSE = "assertion"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
_BYTES = 40  # 64 bits more than the order has, so that no key is likelier (FIPS 186-5, A.2.1)


@dataclass(frozen=True, slots=True)
class _Key:
    private: EllipticCurvePrivateKey
    public: Mapping[str, str]

    @property
    def kid(self) -> str:
        return self.public["kid"]


class AssertionKeys:
    """
    Args:
        secrets: first signs, all are published; the order of SECRET_KEY.
    Attributes:
        key_set: the public keys as a JWK Set (RFC 7517, 5), in JSON.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        keys = [_derive(secret) for secret in dict.fromkeys(secrets)]
        self._signing = keys[0]
        self.key_set = json.dumps({"keys": [key.public for key in keys]}).encode()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """These claims as a JWT (RFC 7519) in compact form."""
        key = self._signing
        return jwt.encode(dict(claims), key.private, ALGORITHM, headers={"kid": key.kid})


def _derive(secret: str) -> _Key:
    raw = derive_key(secret, _PURPOSE, _BYTES)
    private = derive_private_key(int.from_bytes(raw) % (_ORDER - 1) + 1, SECP256R1())
    numbers = private.public_key().public_numbers()
    required = {"crv": "P-256", "kty": "EC", "x": _text(numbers.x), "y": _text(numbers.y)}
    # RFC 7638, 3: a hash of the required members, by name, without blanks
    spelt = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    kid = _encode(hashlib.sha256(spelt).digest())
    return _Key(private, {**required, "use": "sig", "alg": ALGORITHM, "kid": kid})


def _text(coordinate: int) -> str:
    return _encode(coordinate.to_bytes(32))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
