"""`GET /api/v1/me` by cookie, from the WSGI environment alone."""

import re
from typing import Any

import msgspec

from authapp.errors import StoreUnavailable, TooManyTokens
from authapp.sessions.records import ActiveSession
from authapp.web.api.representations import MeView
from authapp.web.middleware.fast_path import Answer
from authapp.web.request_credentials import (
    KNOWN_RESULT,
    VARY,
    Authenticator,
    KnownResult,
    RequestCredentials,
)

ME = "/api/v1/me"

_HEADERS = [
    ("Content-Type", "application/json"),
    ("Vary", VARY),
    ("Cache-Control", "no-store"),
]

# other names are for Flask, which refuses some
_is_plain_host = re.compile(r"[A-Za-z0-9.:-]{1,63}").fullmatch
_MORE_TO_LOOK_AT = (
    *("HTTP_AUTHORIZATION", "HTTP_X_ACCESS_TOKEN"),
    *("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"),
)


class Me:
    """The fast path of `GET /api/v1/me`. It answers as the view does; the same tests hold both."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def try_answer(self, environ: dict[str, Any]) -> Answer | None:
        """The answer to a person who is signed in. None: Flask answers.

        The result of the look-up goes along to Flask, so that no store is asked twice.
        """
        if environ["REQUEST_METHOD"] != "GET" or not _is_plain_host(environ.get("HTTP_HOST", "")):
            return None
        if any(name in environ for name in _MORE_TO_LOOK_AT):
            return None
        credentials = RequestCredentials(self._authenticator, environ)
        try:
            if not credentials.tokens:
                return None
            found = credentials.find()
        except TooManyTokens:
            return None
        except StoreUnavailable as error:
            environ[KNOWN_RESULT] = KnownResult(error)
            return None
        if not isinstance(found, ActiveSession):
            environ[KNOWN_RESULT] = KnownResult(found)
            return None
        body = msgspec.json.encode(MeView.in_session(found.record))
        return Answer(200, _HEADERS, body)
