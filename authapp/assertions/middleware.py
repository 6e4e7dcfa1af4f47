"""WSGI middleware for a guarded app: the identity in a request is the one that authapp signed."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from authapp.assertions.keys import KeysUnavailable
from authapp.assertions.verifier import Asserted, InvalidAssertion, Verifier

ASSERTED = "authapp.asserted"  # in the WSGI environment: an `Asserted`, or None

_log = logging.getLogger(__name__)


class AssertedIdentity:
    """Middleware (PEP 3333) that drops every `Remote-…` header, however it is spelt, and sets
    `REMOTE_USER` and the others from a valid assertion, but for the name and the assertion itself.

    Args:
        app: the guarded app. It finds an `Asserted` in `environ["authapp.asserted"]`, too.
        optional: requests without an assertion pass, as nobody's. For apps with public pages.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], verifier: Verifier, *, optional: bool = False
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._optional = optional

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        sent = environ.get("HTTP_REMOTE_ASSERTION", "")
        for name in [name for name in environ if _is_identity(name)]:
            del environ[name]
        try:
            person = self._verify(sent, environ["REQUEST_METHOD"])
        except InvalidAssertion as error:
            _log.warning("refused a request: its Remote-Assertion proves nothing: %s", error)
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"This request does not come by way of the log-in. Open the page again.\n"]
        except KeysUnavailable as error:
            _log.error("refused a request: %s", error)
            start_response("503 Service Unavailable", [("Retry-After", "10")])
            return [b""]
        environ[ASSERTED] = person
        if person is not None:
            environ["REMOTE_USER"] = environ["HTTP_REMOTE_USER"] = person.id
            environ["HTTP_REMOTE_EMAIL"] = _as_wsgi(person.email)
            environ["HTTP_REMOTE_GROUPS"] = _as_wsgi(",".join(person.groups))
            environ["HTTP_REMOTE_AMR"] = _as_wsgi(",".join(person.amr))
            environ["HTTP_REMOTE_AUTH_TIME"] = str(person.auth_time or "")
            environ["HTTP_REMOTE_ASSURANCE_LEVEL"] = str(person.assurance_level)
        return self._app(environ, start_response)

    def _verify(self, sent: str, method: str) -> Asserted | None:
        return None if self._optional and not sent else self._verifier.verify(sent, method)


def _is_identity(name: str) -> bool:
    """Servers write `Remote-User`, `Remote_User` and `remote.user` alike, or nearly."""
    return name == "REMOTE_USER" or name.replace(".", "_").startswith("HTTP_REMOTE_")


def _as_wsgi(text: str) -> str:
    """UTF-8, as WSGI has bytes: as Latin-1; and nothing that ends a header."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.encode("utf-8", "replace").decode("latin-1")
