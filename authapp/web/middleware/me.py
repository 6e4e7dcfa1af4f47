"""`GET /api/v1/me` by cookie, from the WSGI environment alone."""

import re
from typing import Any

import msgspec

from authapp.errors import StoreUnavailable, TooManyTokens
from authapp.sessions.records import ActiveSession
from authapp.web.api.representations import UserView
from authapp.web.middleware.fast_path import Answer
from authapp.web.request_credentials import FOUND, VARY, Judge, Known, Presented

ME = "/api/v1/me"

# other names are for Flask, which refuses some
_is_plain_host = re.compile(r"[A-Za-z0-9.:-]{1,63}").fullmatch
_MORE_TO_LOOK_AT = (
    *("HTTP_AUTHORIZATION", "HTTP_X_ACCESS_TOKEN"),
    *("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"),
)


class Me:
    """Says who a cookie belongs to, as the view in `api.py` does; the same tests hold both."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def plain(self, environ: dict[str, Any]) -> Answer | None:
        """The answer to a person who is signed in. None: Flask answers, with what was found, so
        that no store is asked twice."""
        if environ["REQUEST_METHOD"] != "GET" or not _is_plain_host(environ.get("HTTP_HOST", "")):
            return None
        if any(name in environ for name in _MORE_TO_LOOK_AT):
            return None
        presented = Presented(self._judge, environ)
        try:
            if not presented.tokens:
                return None
            found = presented.find()
        except TooManyTokens:
            return None
        except StoreUnavailable as error:
            environ[FOUND] = Known(error)
            return None
        if not isinstance(found, ActiveSession):
            environ[FOUND] = Known(found)
            return None
        body = msgspec.json.encode(UserView.of(found.record.user))
        return Answer(200, [("Content-Type", "application/json"), ("Vary", VARY)], body)
