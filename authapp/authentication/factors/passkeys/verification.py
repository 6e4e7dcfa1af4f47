"""Ceremonies: the options that a browser gets, and the check of what its authenticator answers.

The library checks type, origin, RP ID, signature and, where it is told to, that the person was
verified. The rest is checked here: whose challenge it is, pages of other sites, the counter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import msgspec

from authapp.authentication.factors.passkeys.json_forms import (
    Assertion,
    Attestation,
    AuthenticationCredential,
    CreationOptions,
    Descriptor,
    KeyParameters,
    RegistrationCredential,
    RelyingPartyForm,
    RequestOptions,
    Selection,
    UserForm,
)
from authapp.authentication.factors.passkeys.relying_party import RelyingParty
from authapp.crypto.base64url import from_base64url, to_base64url
from authapp.crypto.tokens import Challenge, Challenges
from authapp.errors import InvalidPasskey
from authapp.telemetry.logging import get_logger

Ceremony = Literal["enrol", "sign up", "log in", "second factor"]

_ALGORITHMS = (-8, -7, -257)  # EdDSA, ES256, RS256: what authenticators have, best first
_FORMATS = {"none", "packed"}  # of attestations; we ask for none, and some give one of themselves
_MAX_KEY = 600  # bytes; RSA of 4,096 bits has 530
_TRANSPORTS = {"usb", "nfc", "ble", "smart-card", "hybrid", "internal"}
_MILLISECONDS = int(Challenges.LASTS.total_seconds() * 1_000)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MadePasskey:
    """A passkey that an authenticator made, verified.

    Attributes:
        backup_eligible, backed_up: whether it may be, and is, kept in more than one place. They are
            recorded and decide nothing.
    """

    credential_id: bytes
    public_key: bytes
    sign_count: int
    transports: tuple[str, ...]
    aaguid: UUID
    backup_eligible: bool
    backed_up: bool


@dataclass(frozen=True, slots=True)
class UsedPasskey:
    """The statement of an authenticator about a passkey that was used, verified."""

    sign_count: int
    backed_up: bool


class _ClientData(msgspec.Struct, rename="camel"):
    """The statement of the browser about the page that asked."""

    type: str
    challenge: str
    origin: str
    cross_origin: bool = False
    top_origin: str = ""


class Ceremonies:
    """Makes options and verifies the answers. No store is asked."""

    def __init__(self, relying_party: RelyingParty, challenges: Challenges) -> None:
        self.relying_party = relying_party
        self._challenges = challenges

    # -- options -------------------------------------------------------------------------------

    def creation_options(
        self, user_handle: bytes, email: str, name: str, held: Sequence[Descriptor], session: bytes
    ) -> CreationOptions:
        """
        Args:
            held: passkeys of this person; their authenticators make no second one.
            session: for which alone the answer counts.
        """
        challenge = self._challenges.mint("enrol", session)
        return self._creation_options(challenge, user_handle, email, name, held)

    def sign_up_options(
        self, handle_for: Callable[[str], bytes], email: str, name: str, bound_to: bytes
    ) -> CreationOptions:
        """The options for somebody who has no account yet.

        Args:
            handle_for: gives the user handle that belongs to a challenge.
            bound_to: the email for which alone the answer counts.
        """
        challenge = self._challenges.mint("sign up", bound_to)
        return self._creation_options(challenge, handle_for(challenge), email, name, ())

    def _creation_options(
        self,
        challenge: str,
        user_handle: bytes,
        email: str,
        name: str,
        held: Sequence[Descriptor],
    ) -> CreationOptions:
        rp = self.relying_party
        return CreationOptions(
            rp=RelyingPartyForm(rp.id, rp.name),
            user=UserForm(to_base64url(user_handle), email, name or email),
            challenge=challenge,
            pub_key_cred_params=[KeyParameters(alg, "public-key") for alg in _ALGORITHMS],
            timeout=_MILLISECONDS,
            exclude_credentials=list(held),
            authenticator_selection=Selection("required", True, "required"),
            attestation="none",
        )

    def request_options(
        self, ceremony: Ceremony, bound_to: bytes = b"", allowed: Sequence[Descriptor] = ()
    ) -> RequestOptions:
        """
        Args:
            bound_to: the session or log-in for which alone the answer counts.
            allowed: the passkeys that may be used. None are named to a stranger.
        """
        return RequestOptions(
            challenge=self._challenges.mint(ceremony, bound_to),
            rp_id=self.relying_party.id,
            timeout=_MILLISECONDS,
            user_verification="required",
            allow_credentials=list(allowed),
        )

    # -- answers -------------------------------------------------------------------------------

    def verify_made(
        self,
        credential: RegistrationCredential,
        bound_to: bytes,
        ceremony: Ceremony = "enrol",
    ) -> tuple[MadePasskey, Challenge]:
        """
        Args:
            bound_to: the session, or the email of a sign-up, for which alone it counts.
        Raises:
            InvalidPasskey
        """
        from webauthn import verify_registration_response  # noqa: PLC0415 — an extra, 0.2 s
        from webauthn.helpers import parse_attestation_object  # noqa: PLC0415
        from webauthn.helpers.cose import COSEAlgorithmIdentifier  # noqa: PLC0415

        challenge = self.check_challenge(credential.response, ceremony, bound_to)
        response = credential.response
        try:
            statement = from_base64url(response.attestation_object)
            kind = str(parse_attestation_object(statement).fmt)
            verified = kind in _FORMATS and verify_registration_response(
                credential=msgspec.to_builtins(credential),
                expected_challenge=_challenge_of(response),
                expected_rp_id=self.relying_party.id,
                expected_origin=list(self.relying_party.origins),
                require_user_verification=True,
                supported_pub_key_algs=[COSEAlgorithmIdentifier(alg) for alg in _ALGORITHMS],
            )
        except Exception as error:  # the library lets what its parsers raise pass
            raise _refused(str(error)) from error
        if not verified:
            raise _refused(f"attestation {kind[:20]!r}")
        if len(verified.credential_public_key) > _MAX_KEY:
            raise _refused("public key too long")
        if verified.credential_id != from_base64url(credential.raw_id):
            raise _refused("another id in the attestation")
        made = MadePasskey(
            verified.credential_id,
            verified.credential_public_key,
            verified.sign_count,
            tuple(sorted(_TRANSPORTS.intersection(response.transports))),
            UUID(verified.aaguid),
            backup_eligible=verified.credential_device_type == "multi_device",
            backed_up=verified.credential_backed_up,
        )
        return made, challenge

    def check_challenge(
        self, response: Attestation | Assertion, ceremony: Ceremony, bound_to: bytes = b""
    ) -> Challenge:
        """The challenge that was answered, if it is one of ours for this ceremony. It costs little,
        and comes before any store is asked.

        Raises:
            InvalidPasskey: also where the page that asked is not one of ours.
        """
        client = _client_data(response)
        makes_one = ceremony in {"enrol", "sign up"}
        wanted = "webauthn.create" if makes_one else "webauthn.get"
        if client.type != wanted:
            raise _refused("type")
        if client.cross_origin or client.top_origin:
            raise _refused("cross-origin")
        if client.origin not in self.relying_party.origins:
            raise _refused(f"origin {client.origin[:100]!r}")
        challenge = self._challenges.check(client.challenge, ceremony, bound_to)
        if challenge is None:
            raise _refused("challenge")
        return challenge

    def verify_used(
        self,
        credential: AuthenticationCredential,
        public_key: bytes,
        user_handle: bytes,
        *,
        is_person_known: bool = False,
    ) -> UsedPasskey:
        """The statement that was signed with this key. `check_challenge` has been called.

        The caller judges the counter, and may record that it fell, because the signature is right.

        Args:
            user_handle: of the person whose passkey it is.
            is_person_known: then an authenticator need not say whose passkey it is.
        Raises:
            InvalidPasskey
        """
        from webauthn import verify_authentication_response  # noqa: PLC0415 — an extra, 0.2 s

        response = credential.response
        said = response.user_handle or ""
        if said != to_base64url(user_handle) and not (is_person_known and not said):
            raise _refused("user handle")
        try:
            verified = verify_authentication_response(
                credential=msgspec.to_builtins(credential),
                expected_challenge=_challenge_of(response),
                expected_rp_id=self.relying_party.id,
                expected_origin=list(self.relying_party.origins),
                credential_public_key=public_key,
                credential_current_sign_count=0,  # which it would judge before the signature
                require_user_verification=True,
            )
        except Exception as error:  # the library lets what its parsers raise pass
            raise _refused(str(error)) from error
        return UsedPasskey(verified.new_sign_count, verified.credential_backed_up)


def _client_data(response: Attestation | Assertion) -> _ClientData:
    try:
        return msgspec.json.decode(from_base64url(response.client_data), type=_ClientData)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _refused("client data") from error


def challenge_text(response: Attestation) -> str:
    """The challenge that `check_challenge` has found to be ours, as it was minted."""
    return _client_data(response).challenge


def _challenge_of(response: Attestation | Assertion) -> bytes:
    """The challenge that `check_challenge` has found to be ours."""
    return from_base64url(_client_data(response).challenge)


def _refused(why: str) -> InvalidPasskey:
    """People are told nothing of it but the remedy; whoever runs this finds it in the log."""
    _log.info("passkey_refused", why=why[:200])
    return InvalidPasskey("the passkey is not accepted")
