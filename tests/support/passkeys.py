"""An authenticator of one's own: makes and uses passkeys as devices do, or as they should not."""

import json
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import cbor2
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from authapp.authentication.factors.passkeys.json_forms import (
    AuthenticationCredential,
    CreationOptions,
    RegistrationCredential,
    RequestOptions,
)
from authapp.crypto.base64url import from_base64url, to_base64url

PRESENT, VERIFIED, BACKUP_ELIGIBLE, BACKED_UP, ATTESTED = 1, 4, 8, 16, 64


@dataclass
class Passkey:
    """
    Attributes:
        counter: of signatures; None: this authenticator counts none, and says 0.
        flags: of each answer.
    """

    id: bytes
    user_handle: bytes
    private: ec.EllipticCurvePrivateKey
    counter: int | None = 0
    flags: int = PRESENT | VERIFIED


@dataclass
class Authenticator:
    """A browser with a platform authenticator.

    Attributes:
        origin: of the page that asks.
        client_data: members that the browser adds or changes.
    """

    origin: str = "https://auth.example.org"
    counts: bool = True
    flags: int = PRESENT | VERIFIED
    client_data: dict[str, Any] = field(default_factory=dict)
    passkeys: list[Passkey] = field(default_factory=list)

    def create(
        self, options: dict[str, Any], *, key_id: bytes = b"", fmt: str = "none"
    ) -> dict[str, Any]:
        """Makes a passkey, as `navigator.credentials.create()` does. Gives its JSON form."""
        passkey = Passkey(
            key_id or secrets.token_bytes(32),
            from_base64url(options["user"]["id"]),
            ec.generate_private_key(ec.SECP256R1()),
            counter=0 if self.counts else None,
            flags=self.flags,
        )
        self.passkeys.append(passkey)
        numbers = passkey.private.public_key().public_numbers()
        cose = cbor2.dumps(
            {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        )
        attested = bytes(16) + len(passkey.id).to_bytes(2) + passkey.id + cose
        rp_id = options["rp"]["id"]
        data = self._authenticator_data(rp_id, passkey, ATTESTED) + attested
        statement = cbor2.dumps({"fmt": fmt, "attStmt": {}, "authData": data})
        return self._credential(
            passkey,
            {
                "clientDataJSON": self._client_data("webauthn.create", options["challenge"]),
                "attestationObject": to_base64url(statement),
                "transports": ["internal", "hybrid"],
            },
        )

    def get(self, options: dict[str, Any], passkey: Passkey | None = None) -> dict[str, Any]:
        """Uses a passkey, as `navigator.credentials.get()` does. Gives its JSON form."""
        passkey = passkey or self.passkeys[-1]
        if passkey.counter is not None:
            passkey.counter += 1
        data = self._authenticator_data(options["rpId"], passkey)
        client_data = self._client_data("webauthn.get", options["challenge"])
        signed = data + sha256(from_base64url(client_data)).digest()
        return self._credential(
            passkey,
            {
                "clientDataJSON": client_data,
                "authenticatorData": to_base64url(data),
                "signature": to_base64url(passkey.private.sign(signed, ec.ECDSA(SHA256()))),
                "userHandle": to_base64url(passkey.user_handle),
            },
        )

    def _authenticator_data(self, rp_id: str, passkey: Passkey, flags: int = 0) -> bytes:
        counter = (passkey.counter or 0).to_bytes(4)
        return sha256(rp_id.encode()).digest() + bytes([passkey.flags | flags]) + counter

    def _client_data(self, kind: str, challenge: str) -> str:
        said = {
            "type": kind,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": False,
            "other_keys_can_be_added_here": "browsers do so",
        }
        return to_base64url(json.dumps(said | self.client_data).encode())

    def _credential(self, passkey: Passkey, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": to_base64url(passkey.id),
            "rawId": to_base64url(passkey.id),
            "type": "public-key",
            "response": response,
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
        }


def created(options: CreationOptions, browser: Authenticator, **how: Any) -> RegistrationCredential:
    """A passkey that the browser makes by these options."""
    return msgspec.convert(browser.create(read(options), **how), RegistrationCredential)


def used(
    options: RequestOptions, browser: Authenticator, passkey: Passkey | None = None
) -> AuthenticationCredential:
    """The answer of the browser to these options."""
    return msgspec.convert(browser.get(read(options), passkey), AuthenticationCredential)


def read(options: CreationOptions | RequestOptions) -> dict[str, Any]:
    """These options as a browser reads them."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return found
