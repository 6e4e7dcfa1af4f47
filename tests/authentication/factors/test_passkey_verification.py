"""Passkeys: what the check of an authenticator's answer refuses, each for its own reason."""

from typing import Any

import msgspec
import pytest

from authapp.authentication.factors.passkeys.json_forms import (
    AuthenticationCredential,
    RegistrationCredential,
)
from authapp.authentication.factors.passkeys.relying_party import RelyingParty
from authapp.authentication.factors.passkeys.verification import Ceremonies, MadePasskey
from authapp.crypto.base64url import from_base64url, to_base64url
from authapp.crypto.tokens import Challenges
from authapp.errors import InvalidPasskey
from tests.support.clock import Clock
from tests.support.passkeys import (
    BACKED_UP,
    BACKUP_ELIGIBLE,
    PRESENT,
    VERIFIED,
    Authenticator,
    Passkey,
)
from tests.support.settings import SECRET_KEY

ORIGIN = "https://auth.example.org"
HANDLE, SESSION = b"h" * 64, b"session"


class Ceremony:
    """Ada's browser, and the site."""

    def __init__(self, **browser: Any) -> None:
        self.clock = Clock()
        party = RelyingParty("auth.example.org", "Example", frozenset({ORIGIN}), ORIGIN)
        self.site = Ceremonies(party, Challenges([SECRET_KEY], self.clock))
        self.browser = Authenticator(**{"origin": ORIGIN} | browser)

    def creation_options(self) -> dict[str, Any]:
        made = self.site.creation_options(HANDLE, "ada@example.org", "Ada", [], SESSION)
        return read(made)

    def enrol(self, credential: dict[str, Any] | None = None) -> MadePasskey:
        credential = credential or self.browser.create(self.creation_options())
        return self.site.verify_made(msgspec.convert(credential, RegistrationCredential), SESSION)[
            0
        ]

    def request_options(self) -> dict[str, Any]:
        return read(self.site.request_options("log in"))

    def log_in(
        self, made: MadePasskey, credential: dict[str, Any] | None = None, **how: Any
    ) -> int:
        credential = credential or self.browser.get(self.request_options())
        read_credential = msgspec.convert(credential, AuthenticationCredential)
        self.site.check_challenge(read_credential.response, "log in")
        used = self.site.verify_used(read_credential, made.public_key, HANDLE, **how)
        return used.sign_count


def read(options: Any) -> dict[str, Any]:
    """As a browser reads them."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return found


@pytest.fixture
def ceremony() -> Ceremony:
    return Ceremony()


@pytest.fixture
def made(ceremony: Ceremony) -> MadePasskey:
    return ceremony.enrol()


def test_a_passkey_is_made_and_used(ceremony: Ceremony, made: MadePasskey) -> None:
    assert made.transports == ("hybrid", "internal")
    assert [ceremony.log_in(made) for _ in range(2)] == [1, 2]


def test_options_ask_for_a_passkey_that_the_browser_finds_itself(ceremony: Ceremony) -> None:
    options = ceremony.creation_options()
    assert options["rp"] == {"id": "auth.example.org", "name": "Example"}
    assert options["user"] == {
        "id": to_base64url(HANDLE),
        "name": "ada@example.org",
        "displayName": "Ada",
    }
    assert options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert options["attestation"] == "none"
    asked = ceremony.request_options()
    assert asked["userVerification"] == "required"
    assert asked["rpId"] == "auth.example.org"
    assert asked["allowCredentials"] == []
    assert asked["timeout"] == 300_000


def test_a_synced_passkey_counts_nothing_and_is_fine() -> None:
    ceremony = Ceremony(counts=False, flags=PRESENT | VERIFIED | BACKUP_ELIGIBLE | BACKED_UP)
    made = ceremony.enrol()
    assert made.backup_eligible
    assert made.backed_up
    assert [ceremony.log_in(made) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    "browser",
    [
        {"flags": PRESENT},  # the person was not verified
        {"flags": VERIFIED},  # nobody was there
        {"origin": "https://evil.example.org"},
        {"origin": f"{ORIGIN}.evil.example"},
        {"origin": "http://auth.example.org"},
        {"origin": f"{ORIGIN}:8443"},
        {"client_data": {"crossOrigin": True}},
        {"client_data": {"topOrigin": "https://evil.example"}},
        {"client_data": {"type": "webauthn.get"}},
        {"client_data": {"type": "payment.get"}},
        {"client_data": {"challenge": to_base64url(b"c" * 48)}},
        {"client_data": {"challenge": 7}},
        {"client_data": {"origin": None}},
    ],
    ids=str,
)
def test_it_is_not_made(browser: dict[str, Any]) -> None:
    with pytest.raises(InvalidPasskey):
        Ceremony(**browser).enrol()


@pytest.mark.parametrize(
    "client_data",
    [
        {"crossOrigin": True},
        {"topOrigin": "https://evil.example"},
        {"type": "webauthn.create"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"challenge": ""},
    ],
    ids=str,
)
def test_it_is_not_used(ceremony: Ceremony, made: MadePasskey, client_data: dict[str, Any]) -> None:
    ceremony.browser.client_data = client_data
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made)


@pytest.mark.parametrize("flags", [PRESENT, VERIFIED, 0])
def test_it_is_not_used_unless_the_person_was_verified(
    ceremony: Ceremony, made: MadePasskey, flags: int
) -> None:
    ceremony.browser.passkeys[0].flags = flags
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made)


@pytest.mark.parametrize("user_handle", [b"", b"x" * 64, HANDLE[:-1], HANDLE + b"h"])
def test_it_is_not_used_for_another_person(
    ceremony: Ceremony, made: MadePasskey, user_handle: bytes
) -> None:
    ceremony.browser.passkeys[0].user_handle = user_handle
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made)


def test_of_a_known_person_an_authenticator_may_keep_the_name(
    ceremony: Ceremony, made: MadePasskey
) -> None:
    passkey = ceremony.browser.passkeys[0]
    passkey.user_handle = b""
    assert ceremony.log_in(made, is_person_known=True)
    passkey.user_handle = b"x" * 64
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made, is_person_known=True)


def test_another_key_does_not_sign_for_it(ceremony: Ceremony, made: MadePasskey) -> None:
    other = Authenticator(ORIGIN).create(ceremony.creation_options())
    assert other["id"] != to_base64url(made.credential_id)
    ceremony.enrol()
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made)


def test_what_was_signed_for_another_site_is_refused(ceremony: Ceremony, made: MadePasskey) -> None:
    options = ceremony.request_options() | {"rpId": "evil.example"}
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made, ceremony.browser.get(options))


def test_a_challenge_lasts_five_minutes(ceremony: Ceremony, made: MadePasskey) -> None:
    options = ceremony.request_options()
    ceremony.clock.forward(299)
    assert ceremony.log_in(made, ceremony.browser.get(options))
    ceremony.clock.forward(1)
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made, ceremony.browser.get(options))


def test_a_challenge_counts_for_its_ceremony_and_session_alone(
    ceremony: Ceremony, made: MadePasskey
) -> None:
    others = [
        read(ceremony.site.request_options("second factor")),
        read(ceremony.site.request_options("log in", SESSION)),
        ceremony.creation_options() | {"rpId": "auth.example.org"},
    ]
    for options in others:
        with pytest.raises(InvalidPasskey):
            ceremony.log_in(made, ceremony.browser.get(options))
    foreign = Challenges(["another secret of 32 bytes or more"], ceremony.clock).mint("log in")
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(
            made, ceremony.browser.get(ceremony.request_options() | {"challenge": foreign})
        )


def test_an_enrolment_is_for_the_session_that_asked(ceremony: Ceremony) -> None:
    made = ceremony.browser.create(ceremony.creation_options())
    credential = msgspec.convert(made, RegistrationCredential)
    with pytest.raises(InvalidPasskey):
        ceremony.site.verify_made(credential, b"another session")


@pytest.mark.parametrize("fmt", ["packed", "tpm", "apple", "fido-u2f", "unheard of"])
def test_attestations_that_prove_nothing_are_refused(ceremony: Ceremony, fmt: str) -> None:
    """A packed one needs a signature; the others are not asked for, and never read."""
    with pytest.raises(InvalidPasskey):
        ceremony.enrol(ceremony.browser.create(ceremony.creation_options(), fmt=fmt))


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("attestationObject", "AAAA"),
        ("attestationObject", "!"),
        ("attestationObject", to_base64url(b"\x9f" * 4_000)),
        ("attestationObject", to_base64url(b"\x81" * 5_000)),
        ("clientDataJSON", "!"),
        ("clientDataJSON", to_base64url(b"[" * 5_000)),
    ],
)
def test_what_can_not_be_read_is_refused(ceremony: Ceremony, member: str, text: str) -> None:
    credential = ceremony.browser.create(ceremony.creation_options())
    credential["response"][member] = text
    with pytest.raises(InvalidPasskey):
        ceremony.enrol(credential)


@pytest.mark.parametrize("member", ["authenticatorData", "signature"])
@pytest.mark.parametrize("text", ["", "AAAA", "!", to_base64url(b"\xff" * 700)])
def test_what_was_not_signed_is_refused(
    ceremony: Ceremony, made: MadePasskey, member: str, text: str
) -> None:
    credential = ceremony.browser.get(ceremony.request_options())
    credential["response"][member] = text
    with pytest.raises(InvalidPasskey):
        ceremony.log_in(made, credential)


def test_long_members_are_refused_before_they_are_decoded() -> None:
    credential = {
        "id": "A" * 1_365,
        "rawId": "A",
        "type": "public-key",
        "response": {"clientDataJSON": "", "authenticatorData": "", "signature": ""},
    }
    with pytest.raises(msgspec.ValidationError, match="length <= 1364"):
        msgspec.convert(credential, AuthenticationCredential)


def test_each_value_has_one_spelling() -> None:
    assert from_base64url(to_base64url(b"\xfb\xff")) == b"\xfb\xff"
    for other in ("-_8=", "+/8", "-_9", "-_8\n", "-_ 8", "-"):
        with pytest.raises(ValueError, match=r"base64|padding"):
            from_base64url(other)


def test_a_passkey_knows_its_person(made: MadePasskey, ceremony: Ceremony) -> None:
    assert isinstance(ceremony.browser.passkeys[0], Passkey)
    assert ceremony.browser.passkeys[0].id == made.credential_id
