"""Reads access tokens from the headers of a request."""

from werkzeug.datastructures import Headers

HEADERS = ("Authorization", "X-Access-Token")


def read_access_tokens(headers: Headers) -> frozenset[str]:
    """The different access tokens sent, sound or not; one that is sent in both headers is one.

    `Authorization` with another scheme than Bearer (RFC 6750, 2.1) is nothing to us.
    """
    found = set()
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        found.add(credentials.strip(" "))
    if (token := headers.get("X-Access-Token")) is not None:
        found.add(token.strip(" "))
    return frozenset(found)
