"""The verifier believes what authapp signed for this app, this method and this minute alone."""

import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key

from authapp.assertions import Asserted, InvalidAssertion, Verifier
from authapp.crypto.assertion_keys import AssertionKeys
from authapp.guarding.assertions import AssertionIssuer
from tests.support.assertions import APP, ISSUER, KEYS, asserted, claims, key_set, record

OTHER_KEYS = AssertionKeys(["another secret of 32 bytes or more, of another deployment"])
VERIFIER = Verifier(ISSUER, APP, key_set())


def refusal(assertion: str, method: str = "GET", verifier: Verifier = VERIFIER) -> str:
    with pytest.raises(InvalidAssertion) as caught:
        verifier.verify(assertion, method)
    return str(caught.value)


def signed(**others: Any) -> str:
    return KEYS.sign({name: value for name, value in claims(**others).items() if value is not None})


def test_it_names_the_person() -> None:
    found = VERIFIER.verify(asserted("POST"), "POST")
    proved_at = int(record().auth_time.timestamp())
    assert found == Asserted(
        str(UUID(int=9)),
        "ada@example.org",
        ("staff", "user"),
        found.session,
        APP,
        ("pwd",),
        proved_at,
        1,
    )
    assert str(UUID(int=7)) not in found.session


def test_it_says_what_is_promised_and_nothing_else() -> None:
    assertion = asserted(now=lambda: 1_900_000_000.7)
    header = jwt.get_unverified_header(assertion)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": key_set()["keys"][0]["kid"]}
    said = jwt.decode(assertion, options={"verify_signature": False})
    assert len(base64.urlsafe_b64decode(said["sid"] + "=")) == 32
    assert said == claims(iat=1_900_000_000, exp=1_900_000_060, sid=said["sid"])


def test_one_that_tells_no_proof_is_of_the_lowest_level() -> None:
    """As an authapp before this version signs it."""
    found = VERIFIER.verify(signed(amr=None, acr=None, auth_time=None), "GET")
    assert (found.amr, found.auth_time, found.assurance_level) == ((), 0, 1)
    assert VERIFIER.verify(signed(acr=2), "GET").assurance_level == 1


CHANGED = {
    "another issuer": {"iss": "https://auth.example.org"},
    "no issuer": {"iss": None},
    "for another app": {"aud": "https://other.example.org", "host": "other.example.org"},
    "for several apps": {"aud": [APP, "https://other.example.org"]},
    "for nobody": {"aud": None},
    "another host": {"host": "other.example.org"},
    "no host": {"host": None},
    "another method": {"method": "POST"},
    "no method": {"method": None},
    "methods": {"method": ["GET"]},
    "no person": {"sub": None},
    "a number": {"sub": 9},
    "no email": {"email": None},
    "groups as text": {"groups": "admin"},
    "groups of numbers": {"groups": [1]},
    "a proof as text": {"amr": "otp"},
    "a textual time of the proof": {"auth_time": "1"},
    "no session": {"sid": None},
    "without end": {"exp": None},
    "without beginning": {"iat": None},
}
TIMES: dict[str, Callable[[int], dict[str, Any]]] = {
    "for an hour": lambda now: {"exp": now + 3600},
    "textual times": lambda now: {"iat": str(now), "exp": str(now + 60)},
    "of the future": lambda now: {"iat": now + 600, "exp": now + 660},
    "expired": lambda now: {"iat": now - 120, "exp": now - 60},
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
def test_one_claim_that_is_wrong_refuses_it(changed: dict[str, Any]) -> None:
    assert VERIFIER.verify(signed(), "GET").id == str(UUID(int=9))
    assert refusal(signed(**changed))


@pytest.mark.parametrize("changed", TIMES.values(), ids=TIMES)
def test_times_that_are_wrong_refuse_it(changed: Callable[[int], dict[str, Any]]) -> None:
    assert refusal(signed(**changed(int(time.time()))))


@pytest.mark.parametrize("lasts", [0, -2])
def test_one_that_is_good_for_no_time_is_refused(lasts: int) -> None:
    now = int(time.time())  # clocks may differ by a few seconds, so these times alone are fine
    assert f"good for {lasts} s" in refusal(signed(iat=now + 1, exp=now + 1 + lasts))


def test_methods_are_told_apart() -> None:
    assert "'GET', not for 'POST'" in refusal(asserted(), "POST")
    assert refusal(asserted(), "get")


def forged(header: dict[str, Any], key: Any, algorithm: str | None) -> str:
    return jwt.encode(claims(), key, algorithm, headers=header)


KID = key_set()["keys"][0]["kid"]


def test_other_algorithms_and_keys_are_refused() -> None:
    public = key_set()["keys"][0]["x"]
    own = generate_private_key(SECP256R1())
    for assertion in (
        forged({"kid": KID}, None, "none"),
        forged({"kid": KID}, public, "HS256"),
        forged({"kid": KID}, own, "ES256"),
        forged({"kid": KID}, generate_private_key(SECP384R1()), "ES384"),
        forged({}, own, "ES256"),
        forged({"kid": "unknown"}, own, "ES256"),
        forged({"kid": KID, "jku": "https://evil.example/keys"}, own, "ES256"),
        forged({"kid": KID, "crit": ["exp"]}, own, "ES256"),
        asserted(keys=OTHER_KEYS),
    ):
        assert refusal(assertion)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_a_header_that_names_another_key_is_refused_whoever_signed_it(name: str) -> None:
    ours = KEYS._signing.private  # no call signs such a header
    VERIFIER.verify(forged({"kid": KID}, ours, "ES256"), "GET")
    assert "a named key alone" in refusal(forged({"kid": KID, name: "x"}, ours, "ES256"))


def test_what_is_no_assertion_is_refused() -> None:
    sound = asserted()
    header, body, signature = sound.split(".")
    for text in (
        *("", "x", "..", "a.b.c", "ä.b.c", "A" * 9000, f"{sound},{sound}", f"{sound}, root"),
        *(f"{header}.{body}.", f"{header}.{body}", f"{header}..{signature}", f"{sound}.x"),
        f"{header}.{body[:-2]}AA.{signature}",
        f"{base64.urlsafe_b64encode(b'[]').decode()}.{body}.{signature}",
    ):
        assert refusal(text)


def test_an_app_with_two_origins() -> None:
    verifier = Verifier(f"{ISSUER}/", [APP, "http://localhost:8080"], key_set())
    assert verifier.verify(asserted(), "GET").audience == APP
    found = verifier.verify(asserted(origin="http://localhost:8080"), "GET")
    assert found.audience == "http://localhost:8080"


@pytest.mark.parametrize("audience", ["app.example.org", "https://app.example.org/x", "ftp://a"])
def test_an_audience_that_is_no_origin_is_a_mistake(audience: str) -> None:
    with pytest.raises(ValueError, match="write the audience like"):
        Verifier(ISSUER, audience, key_set())


# -- rotation --------------------------------------------------------------------------------------


def test_a_rotated_secret_signs_first_and_the_old_one_is_still_published() -> None:
    secrets = [
        "new secret of 32 bytes or more, random",
        "tests-only secret key of 32 bytes or more",
    ]
    rotated = AssertionKeys(secrets)
    both, (new, old) = Verifier(ISSUER, APP, key_set(rotated)), key_set(rotated)["keys"]
    assert old == key_set()["keys"][0]
    assert both.verify(asserted(), "GET") == both.verify(asserted(keys=rotated), "GET")
    assert jwt.get_unverified_header(asserted(keys=rotated))["kid"] == new["kid"]


def test_a_secret_that_was_dropped_signs_for_nobody() -> None:
    dropped = Verifier(ISSUER, APP, key_set(OTHER_KEYS))
    assert "does not publish" in refusal(asserted(), verifier=dropped)


def test_published_keys_hold_nothing_private() -> None:
    (key,) = key_set()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert jwt.PyJWK(key).key.public_numbers()
    assert AssertionKeys(["tests-only secret key of 32 bytes or more"]).key_set == KEYS.key_set


# -- what is used again ----------------------------------------------------------------------------


def test_an_assertion_is_used_again_for_seconds_and_for_the_same_facts() -> None:
    times = iter([100.0, 104.9, 105.0, 106.0, 106.0, 106.0, 106.0, 106.0, 90.0])
    issuer = AssertionIssuer(KEYS, ISSUER, lambda: next(times))
    first = issuer.issue(record(), "a@b", APP, "GET")
    assert issuer.issue(record(), "a@b", APP, "GET") == first
    later = issuer.issue(record(), "a@b", APP, "GET")
    others = [
        issuer.issue(record(ver=2), "a@b", APP, "GET"),
        issuer.issue(record(roles=("user",)), "a@b", APP, "GET"),
        issuer.issue(record(), "", APP, "GET"),
        issuer.issue(record(), "a@b", "https://other.example.org", "GET"),
        issuer.issue(record(), "a@b", APP, "POST"),
        issuer.issue(record(), "a@b", APP, "GET"),  # the clock was set back
    ]
    assert len({first, later, *others}) == 2 + len(others)


def test_few_are_held() -> None:
    issuer = AssertionIssuer(KEYS, ISSUER)
    for number in range(300):
        issuer.issue(record(ver=number), "", APP, "GET")
    assert len(issuer._issued) <= 128
