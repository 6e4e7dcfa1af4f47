"""Reads access tokens from the headers of a request."""

from collections.abc import Mapping
from typing import Any

HEADERS = ("Authorization", "X-Access-Token")

_FAR_TOO_LONG = 4096  # characters
_NONE: frozenset[str] = frozenset()


def read_access_tokens(environ: Mapping[str, Any]) -> frozenset[str]:
    """The different access tokens sent, sound or not; one that is sent in both headers is one.

    `Authorization` with another scheme than Bearer (RFC 6750, 2.1) is nothing to us.
    """
    if "HTTP_AUTHORIZATION" not in environ and "HTTP_X_ACCESS_TOKEN" not in environ:
        return _NONE
    found = set()
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        found.add(_stripped(credentials))
    if (token := environ.get("HTTP_X_ACCESS_TOKEN")) is not None:
        found.add(_stripped(token))
    return frozenset(found)


def _stripped(text: str) -> str:
    """Without blanks around it. What is far longer than a token is none, and is left as it is."""
    return text.strip(" ") if len(text) < _FAR_TOO_LONG else text
