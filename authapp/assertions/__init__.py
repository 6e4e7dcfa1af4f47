"""For apps that authapp guards: prove that the identity in a request comes from authapp.

A proxy that is set up wrongly may let a client's own `Remote-User` pass. It can't make a
`Remote-Assertion`, because authapp signs that:

    from authapp.assertions import AssertedIdentity, Verifier

    verifier = Verifier("https://auth.example.org", "https://app.example.org")
    app.wsgi_app = AssertedIdentity(app.wsgi_app, verifier)

This package needs PyJWT and cryptography alone: neither Flask nor a driver of a store.
"""

from authapp.assertions.keys import KeysUnavailable, PublishedKeys
from authapp.assertions.middleware import AssertedIdentity
from authapp.assertions.verifier import Asserted, InvalidAssertion, Verifier

__all__ = [
    "Asserted",
    "AssertedIdentity",
    "InvalidAssertion",
    "KeysUnavailable",
    "PublishedKeys",
    "Verifier",
]
