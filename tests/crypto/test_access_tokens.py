"""Access tokens: nobody else makes one, each has one spelling, and none outlives its time."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import HMACAlgorithm

from authapp.crypto.access_tokens import AccessTokens, digest_of
from authapp.crypto.tokens import RefreshTokens, SessionToken, SessionTokens
from tests.support.access_tokens import encode, parts_of, signed, signing_key
from tests.support.clock import Clock

KEY, OLD_KEY, OTHER_KEY = "a" * 32, "b" * 32, "c" * 32
CLOCK = Clock()
TOKENS = AccessTokens([KEY], CLOCK)
SESSION, USER = UUID(int=7), UUID(int=9)
TOKEN = TOKENS.issue(SESSION, USER, 3600)
NOW = int(CLOCK().timestamp())


def is_ours(text: str, tokens: AccessTokens = TOKENS) -> bool:
    return tokens.check(text) is not None


def test_an_issued_token_names_its_session() -> None:
    assert TOKENS.check(TOKEN) == SessionToken(TOKEN, digest_of(SESSION), USER)


def test_it_says_what_is_promised_and_nothing_else() -> None:
    header, claims = parts_of(TOKEN)
    assert header == {"alg": "HS256", "typ": "JWT"}
    UUID(claims.pop("jti"))
    assert claims == {
        "iss": "authapp",
        "aud": "authapp",
        "sub": str(USER),
        "sid": str(SESSION),
        "iat": NOW,
        "exp": NOW + 3600,
    }


def test_any_library_reads_it() -> None:
    clock = Clock()
    clock.now = clock.now.now(clock.now.tzinfo)
    token = AccessTokens([KEY], clock).issue(SESSION, USER, 3600)
    claims = jwt.decode(
        token, signing_key(KEY), algorithms=["HS256"], audience="authapp", issuer="authapp"
    )
    assert claims["sid"] == str(SESSION)


def test_two_tokens_of_a_session_differ() -> None:
    assert TOKENS.issue(SESSION, USER, 3600) != TOKEN


def test_the_token_is_not_shown() -> None:
    assert TOKEN.rpartition(".")[2] not in repr(TOKENS.check(TOKEN))


def with_claim(name: str, value: Any) -> str:
    return signed(parts_of(TOKEN)[1] | {name: value}, signing_key(KEY))


def without_claim(name: str) -> str:
    claims = {k: v for k, v in parts_of(TOKEN)[1].items() if k != name}
    return signed(claims, signing_key(KEY))


def with_header(header: Any) -> str:
    return signed(parts_of(TOKEN)[1], signing_key(KEY), header)


def by_algorithm(name: str) -> str:
    """Signed with our key, soundly, by another algorithm."""
    return jwt.encode(parts_of(TOKEN)[1], signing_key(KEY) * 2, algorithm=name)


def unsigned(algorithm: str) -> str:
    return f"{encode({'alg': algorithm, 'typ': 'JWT'})}.{TOKEN.split('.')[1]}."


def other_spelling() -> str:
    """The last character of a 32-byte signature holds two bits that no byte takes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return TOKEN[:-1] + alphabet[alphabet.index(TOKEN[-1]) ^ 1]


def test_a_token_signed_by_hand_is_as_good() -> None:
    """Or the table below would refuse everything for one reason that nobody meant."""
    assert is_ours(with_claim("jti", str(uuid4())))
    assert is_ours(with_header({"alg": "HS256", "typ": "JWT"}))
    assert is_ours(signed_payload(json.dumps(parts_of(TOKEN)[1]).encode()))


REFUSED: dict[str, Callable[[], str]] = {
    # whose signature is right
    "another issuer": lambda: with_claim("iss", "somebody"),
    "another audience": lambda: with_claim("aud", "somebody"),
    "several audiences": lambda: with_claim("aud", ["authapp", "somebody"]),
    "exp as text": lambda: with_claim("exp", str(NOW + 3600)),
    "exp as a fraction": lambda: with_claim("exp", NOW + 3600.5),
    "exp as true": lambda: with_claim("exp", True),
    "exp of null": lambda: with_claim("exp", None),
    "exp beyond any date": lambda: with_claim("exp", 1 << 60),
    "exp beyond any number": lambda: with_claim("exp", 1 << 90),
    "expired": lambda: with_claim("exp", NOW),
    "iat as text": lambda: with_claim("iat", str(NOW)),
    "sid that is none": lambda: with_claim("sid", "../../admin"),
    "sid as a number": lambda: with_claim("sid", 7),
    "sub as a number": lambda: with_claim("sub", 9),
    "an unknown claim": lambda: with_claim("roles", ["admin"]),
    **{
        f"no {name}": lambda name=name: without_claim(name)  # type: ignore[misc]
        for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp")
    },
    "claims that are a list": lambda: signed_payload(b"[]"),
    "claims that are no JSON": lambda: signed_payload(b"\xff"),
    "no claims": lambda: signed_payload(b""),
    "kid": lambda: with_header({"alg": "HS256", "typ": "JWT", "kid": "0"}),
    "kid that is a path": lambda: with_header({"alg": "HS256", "typ": "JWT", "kid": "/dev/null"}),
    "kid that is no text": lambda: with_header({"alg": "HS256", "typ": "JWT", "kid": [0]}),
    "jku": lambda: with_header({"alg": "HS256", "typ": "JWT", "jku": "https://evil.example"}),
    "jwk": lambda: with_header({"alg": "HS256", "typ": "JWT", "jwk": {"kty": "oct", "k": "AA"}}),
    "crit": lambda: with_header({"alg": "HS256", "typ": "JWT", "crit": ["exp"]}),
    "b64": lambda: with_header({"alg": "HS256", "typ": "JWT", "b64": True}),
    "another typ": lambda: with_header({"alg": "HS256", "typ": "JOSE"}),
    "no typ": lambda: with_header({"alg": "HS256"}),
    "HS384": lambda: by_algorithm("HS384"),
    "HS512": lambda: by_algorithm("HS512"),
    "a header in another order": lambda: with_header({"typ": "JWT", "alg": "HS256"}),
    "more characters than ours ever have": lambda: signed_payload(
        json.dumps(parts_of(TOKEN)[1]).encode() + b" " * 1000
    ),
    # without a signature
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg of nothing": lambda: unsigned(""),
    "no signature": lambda: TOKEN.rpartition(".")[0] + ".",
    "another key": lambda: signed(parts_of(TOKEN)[1], b"x" * 32),
    "SECRET_KEY itself": lambda: signed(parts_of(TOKEN)[1], KEY.encode()),
    "an empty key": lambda: signed(parts_of(TOKEN)[1], b""),
    # spelled otherwise
    "trailing =": lambda: TOKEN + "=",
    "trailing letter": lambda: TOKEN + "A",
    "trailing dot": lambda: TOKEN + ".",
    "trailing newline": lambda: TOKEN + "\n",
    "trailing space": lambda: TOKEN + " ",
    "trailing NUL": lambda: TOKEN + "\0",
    "leading space": lambda: " " + TOKEN,
    "other spare bits": other_spelling,
    "padded claims": lambda: TOKEN.replace(".", "=.", 2).replace("=", "", 1),
    "two segments": lambda: TOKEN.rpartition(".")[0],
    "four segments": lambda: "A." + TOKEN,
    "five segments, as if encrypted": lambda: TOKEN + ".AAAA.AAAA",
    "an empty middle": lambda: "..".join(TOKEN.split(".")[::2]),
    "JSON serialization": lambda: json.dumps(
        dict(zip(("protected", "payload", "signature"), TOKEN.split("."), strict=True))
    ),
    "letters beyond ASCII": lambda: TOKEN[:-1] + "é",
    "half a surrogate pair": lambda: TOKEN[:-1] + "\ud800",
    "nothing": lambda: "",
    "dots": lambda: "..",
    "very long": lambda: "A" * 1_000_000,
    # of another kind
    "a session token": lambda: SessionTokens([KEY]).mint().text,
    "a refresh token": lambda: RefreshTokens([KEY]).mint(SESSION).text,
}


def signed_payload(payload: bytes) -> str:
    signing_input = f"{TOKEN.split('.', maxsplit=1)[0]}.{encode(payload)}"
    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    return f"{signing_input}.{encode(algorithm.sign(signing_input.encode(), signing_key(KEY)))}"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    assert not is_ours(REFUSED[case]())


@given(st.data(), st.integers(0, len(TOKEN) - 1), st.characters())
def test_no_changed_character_verifies(data: st.DataObject, at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    assert changed == TOKEN or not is_ours(changed)


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert TOKENS.check(text) is None


@given(st.binary())
def test_no_claims_make_it_fail(payload: bytes) -> None:
    assert not is_ours(signed_payload(payload))


def test_it_counts_until_it_expires() -> None:
    clock = Clock()
    tokens = AccessTokens([KEY], clock)
    token = tokens.issue(SESSION, USER, 60)
    clock.forward(59.9)
    assert is_ours(token, tokens)
    clock.forward(0.1)
    assert not is_ours(token, tokens)


def test_a_token_survives_rotation_until_its_key_is_retired() -> None:
    old = AccessTokens([OLD_KEY], CLOCK)
    before, after = AccessTokens([OLD_KEY, KEY], CLOCK), AccessTokens([KEY, OLD_KEY], CLOCK)
    token = old.issue(SESSION, USER, 3600)
    assert is_ours(token, before)
    assert is_ours(token, after)
    assert is_ours(after.issue(SESSION, USER, 3600), before)  # instances restart one by one
    assert is_ours(after.issue(SESSION, USER, 3600))
    assert not is_ours(token)
    assert not is_ours(token, AccessTokens([OTHER_KEY], CLOCK))


def test_no_key_does_two_things() -> None:
    raw = base64.urlsafe_b64decode(SessionTokens([KEY]).mint().text)
    token = base64.urlsafe_b64encode(raw).decode()
    assert RefreshTokens([KEY]).check(token) is None
    assert SessionTokens([KEY]).check(RefreshTokens([KEY]).mint(SESSION).text) is None


def test_more_than_a_password_is_said_in_the_claims() -> None:
    proved_at = CLOCK() - timedelta(hours=1)
    token = TOKENS.issue(SESSION, USER, 3600, ("pwd", "otp"), proved_at)
    claims = parts_of(token)[1]
    assert claims["amr"] == ["pwd", "otp"]
    assert claims["auth_time"] == NOW - 3600
    assert is_ours(token)
