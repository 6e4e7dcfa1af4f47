"""The JSON forms of WebAuthn Level 3: options that we send, and credentials that come back.

Other members are ignored, because browsers add some over time. Lengths are bounded here, so that
nothing long is decoded.
"""

from typing import Annotated, Literal

import msgspec

MAX_CREDENTIAL = 16 * 1024  # characters of a credential as JSON; most have about a thousand
_Bytes = Annotated[str, msgspec.Meta(max_length=8_192, description="base64url")]
_Id = Annotated[str, msgspec.Meta(max_length=1_364, description="base64url, 1,023 bytes at most")]
_Signature = Annotated[str, msgspec.Meta(max_length=1_024, description="base64url")]
_Word = Annotated[str, msgspec.Meta(max_length=32)]


class _Form(msgspec.Struct, frozen=True, rename="camel"):
    """Members are written as the standard writes them."""


class Attestation(_Form, frozen=True):
    """The statement of an authenticator about a passkey that it made."""

    client_data: Annotated[_Bytes, msgspec.Meta(description="base64url")] = msgspec.field(
        name="clientDataJSON"
    )
    attestation_object: _Bytes
    transports: Annotated[list[_Word], msgspec.Meta(max_length=10)] = []


class Assertion(_Form, frozen=True):
    """The signature of an authenticator, and the data that it signed."""

    client_data: _Bytes = msgspec.field(name="clientDataJSON")
    authenticator_data: _Bytes
    signature: _Signature
    user_handle: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class RegistrationCredential(_Form, frozen=True):
    """`PublicKeyCredential.toJSON()` of a passkey that was made."""

    id: _Id
    raw_id: _Id
    type: Literal["public-key"]
    response: Attestation


class AuthenticationCredential(_Form, frozen=True):
    """`PublicKeyCredential.toJSON()` of a passkey that was used."""

    id: _Id
    raw_id: _Id
    type: Literal["public-key"]
    response: Assertion


class Descriptor(_Form, frozen=True):
    id: str
    transports: list[str]
    type: str = "public-key"


class RelyingPartyForm(_Form, frozen=True):
    id: str
    name: str


class UserForm(_Form, frozen=True):
    """
    Attributes:
        id: the user handle: random, it says nothing of the person.
    """

    id: str
    name: str
    display_name: str


class KeyParameters(_Form, frozen=True):
    alg: int
    type: str


class Selection(_Form, frozen=True):
    resident_key: str
    require_resident_key: bool
    user_verification: str


class CreationOptions(_Form, frozen=True):
    """For `PublicKeyCredential.parseCreationOptionsFromJSON`."""

    rp: RelyingPartyForm
    user: UserForm
    challenge: str
    pub_key_cred_params: list[KeyParameters]
    timeout: int
    exclude_credentials: list[Descriptor]
    authenticator_selection: Selection
    attestation: str


class RequestOptions(_Form, frozen=True):
    """For `PublicKeyCredential.parseRequestOptionsFromJSON`.

    Attributes:
        allow_credentials: empty: whichever the person chooses.
    """

    challenge: str
    rp_id: str
    timeout: int
    user_verification: str
    allow_credentials: list[Descriptor]


# while this is imported, not by the threads that decode the first ones: see `cache.entries.prepare`
for _credential in (RegistrationCredential, AuthenticationCredential):
    msgspec.json.Decoder(_credential)
