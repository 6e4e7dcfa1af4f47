"""Access tokens as others would like to write them."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from jwt.algorithms import HMACAlgorithm

from authapp.crypto.sealing import derive_key


def signing_key(secret: str) -> bytes:
    """The key that signs access tokens under this SECRET_KEY."""
    return derive_key(secret, "access token")


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unchecked."""
    header, claims, _ = token.split(".")
    return _decode(header), _decode(claims)


def _decode(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def encode(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(claims: Mapping[str, Any], key: bytes, header: Mapping[str, Any] | None = None) -> str:
    """A token with these claims whose signature is right, whatever else is wrong with it."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    signing_input = f"{encode(head)}.{encode(dict(claims))}"
    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    return f"{signing_input}.{encode(algorithm.sign(signing_input.encode(), key))}"


def forged(token: str) -> str:
    """The same claims, signed by somebody else."""
    return signed(parts_of(token)[1], b"somebody else's key, of 32 bytes")


def unheard_of(token: str, key: bytes) -> str:
    """A sound token of a session that never was."""
    return signed(parts_of(token)[1] | {"sid": str(uuid4())}, key)
