"""Verifies assertions: signature, issuer, audience, host, method and time."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt

from authapp.assertions.keys import ALGORITHM, WELL_KNOWN, GivenKeys, PublishedKeys

LONGEST_SECONDS = 60  # that an assertion is good for
LEEWAY_SECONDS = 5  # that clocks may differ

_MAX_CHARACTERS = 8 * 1024
_HEADER = {"alg", "kid", "typ"}  # no jku, x5u, crit …: keys are found by name alone
_CLAIMS = ("iss", "aud", "sub", "email", "groups", "sid", "host", "method", "iat", "exp")
_TEXTS = ("sub", "email", "sid", "host", "method", "aud")


class InvalidAssertion(Exception):
    """The assertion proves nothing. The message says why, for the log: it is not for a client."""


class _Keys(Protocol):
    def find(self, kid: str) -> Any | None: ...


@dataclass(frozen=True, slots=True)
class Asserted:
    """A person, as authapp asserts them.

    Attributes:
        id: by which an app knows the person again: the only one that never changes.
        email: empty where nobody has confirmed it.
        groups: the roles.
        session: the same for all requests of one session; it opens nothing.
        audience: the origin that the request asked.
        amr: how the person proved who they are in this session, in words of RFC 8176.
        auth_time: when they last did, in seconds since 1970.
        assurance_level: 2 after two factors, else 1.
    """

    id: str
    email: str
    groups: tuple[str, ...]
    session: str
    audience: str
    amr: tuple[str, ...] = ()
    auth_time: int = 0
    assurance_level: int = 1


class Verifier:
    """
    Args:
        issuer: PUBLIC_URL of authapp, like `https://auth.example.org`.
        audience: the origin by which people reach the guarded app, like `https://app.example.org`;
            several, if it has several. Never take it from a request: another guarded app could
            then pass on the assertions that it received.
        keys: a JWK Set, which is then never fetched; or a `PublishedKeys`. Without it, keys are
            fetched from the issuer.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Collection[str],
        keys: Mapping[str, Any] | PublishedKeys | None = None,
    ) -> None:
        audiences = [audience] if isinstance(audience, str) else list(audience)
        for origin in audiences:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or origin.lower() != (
                f"{parts.scheme}://{parts.netloc}".lower()
            ):
                raise ValueError(f"write the audience like https://app.example.org, not {origin!r}")
        self._issuer = issuer.rstrip("/")
        self._audiences = frozenset(origin.lower() for origin in audiences)
        self._keys: _Keys
        if isinstance(keys, Mapping):
            self._keys = GivenKeys(keys)
        else:
            self._keys = keys or PublishedKeys(self._issuer + WELL_KNOWN)

    def verify(self, assertion: str, method: str) -> Asserted:
        """The person that a `Remote-Assertion` is about.

        Args:
            method: of the request that it came with.

        Raises:
            InvalidAssertion: it proves nothing; so does none, an empty one and two of them.
            KeysUnavailable: nobody can say: answer 503.
        """
        claims = self._signed_claims(assertion)
        for name in _TEXTS:
            if not isinstance(claims[name], str):
                raise InvalidAssertion(f"its {name} is no text")
        groups = _texts_of(claims, "groups")
        # a version before this one asserts nothing of the proof, which then counts for nothing
        amr, auth_time = _texts_of({"amr": [], **claims}, "amr"), claims.get("auth_time", 0)
        if any(type(when) is not int for when in (claims["iat"], claims["exp"], auth_time)):
            raise InvalidAssertion("its times are no whole numbers")
        lasts = claims["exp"] - claims["iat"]
        if not 0 < lasts <= LONGEST_SECONDS:
            raise InvalidAssertion(f"it says that it is good for {lasts} s, not for 1 to 60")
        if claims["aud"] not in self._audiences:  # PyJWT has accepted a list, too
            raise InvalidAssertion(f"it is for {claims['aud'][:100]!r}, which is another app")
        if claims["host"] != urlsplit(claims["aud"]).netloc:
            raise InvalidAssertion("its host is not that of its audience")
        if claims["method"] != method:
            raise InvalidAssertion(f"it is for {claims['method'][:20]!r}, not for {method[:20]!r}")
        return Asserted(
            claims["sub"],
            claims["email"],
            groups,
            claims["sid"],
            claims["aud"],
            amr,
            auth_time,
            2 if claims.get("acr") == "2" else 1,
        )

    def _signed_claims(self, assertion: str) -> dict[str, Any]:
        if not assertion:
            raise InvalidAssertion("there is none")
        if len(assertion) > _MAX_CHARACTERS or not assertion.isascii():
            raise InvalidAssertion("it is too long, or no ASCII")
        try:
            header = jwt.get_unverified_header(assertion)
            if not set(header) <= _HEADER or header.get("alg") != ALGORITHM:
                raise InvalidAssertion(f"it is not signed with {ALGORITHM} and a named key alone")
            kid = header.get("kid")
            key = self._keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise InvalidAssertion("it is signed with a key that authapp does not publish")
            return jwt.decode(
                assertion,
                key,
                algorithms=[ALGORITHM],
                audience=self._audiences,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": list(_CLAIMS)},
            )
        except jwt.PyJWTError as error:
            raise InvalidAssertion(f"{type(error).__name__}: {error}") from error


def _texts_of(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """
    Raises:
        InvalidAssertion: the claim is no list of texts.
    """
    found = claims[name]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise InvalidAssertion(f"its {name} are no list of texts")
    return tuple(found)
