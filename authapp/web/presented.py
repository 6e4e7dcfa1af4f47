"""What a visitor brings to say who they are, and whose it is. Flask is not needed for it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from authapp.access_tokens import AccessTokens
from authapp.errors import StoreUnavailable, TooManyTokens, TwoIdentities
from authapp.session_records import Found, Live
from authapp.sessions import SessionStore
from authapp.tokens import SessionToken, SessionTokens
from authapp.web.access_tokens import HEADERS, read_access_tokens
from authapp.web.cookies import all_values, read_cookie
from authapp.web.request_log import note_user

FOUND = "authapp.found"  # in the WSGI environment: `Known`
VARY = ", ".join(("Cookie", *HEADERS))  # what an answer to somebody depends on

# Limits of different cookies of our name in one request. A browser has two after a change of the
# cookie's domain or path. An attacker sends more, so that each costs us a look.
MAX_TOKENS = 4  # that we minted: each costs a store something
MAX_VALUES = 16  # in all: each costs arithmetic


@dataclass(frozen=True, slots=True)
class Judge:
    """Says whose a token is."""

    store: SessionStore
    tokens: SessionTokens
    access_tokens: AccessTokens
    cookie_name: str

    def find(self, token: SessionToken | None, access_tokens: Collection[str]) -> Found:
        """The session that a visitor's token names, of these that they sent."""
        if not access_tokens:
            return self.store.find(token) if token else None
        if len(access_tokens) + (token is not None) > 1:
            raise TwoIdentities("Send the cookie or one access token, not two of them.")
        claim = self.access_tokens.check(*access_tokens)
        return self.store.find(claim) if claim else None


@dataclass(frozen=True, slots=True)
class Known:
    """What the store said already, or its error. A type of ours, because a server may lay variables
    of any name under a request."""

    found: Found | StoreUnavailable

    def tell(self) -> Found:
        """
        Raises:
            StoreUnavailable: nobody could say.
        """
        if isinstance(self.found, StoreUnavailable):
            raise self.found
        return self.found


class Presented:
    """
    Attributes:
        environ: of WSGI.
        access_tokens: that they sent, sound or not.
    """

    def __init__(self, judge: Judge, environ: dict[str, Any]) -> None:
        self._judge = judge
        self.environ = environ
        self.access_tokens = read_access_tokens(environ)
        self._header: str = environ.get("HTTP_COOKIE", "")
        self._text = read_cookie(self._header, judge.cookie_name)
        self._checked: SessionToken | None = None
        self._is_checked = False

    @property
    def token(self) -> SessionToken | None:
        """The token in the cookie, if we minted it; its session may have ended."""
        if not self._is_checked:
            self._is_checked = True
            self._checked = self._judge.tokens.check(self._text) if self._text else None
        return self._checked

    @property
    def is_token(self) -> bool:
        """Whether they sent one value under the cookie's name, or an access token."""
        return bool(self._text or self.access_tokens)

    @property
    def is_cookie(self) -> bool:
        """Whether there is anything to clear."""
        return self._judge.cookie_name in self._header

    def all_tokens(self) -> list[SessionToken]:
        """Every token of ours among the cookies, each once, for log-out to end them all.

        Raises:
            TooManyTokens
        """
        values = dict.fromkeys(all_values(self._header, self._judge.cookie_name))
        if len(values) > MAX_VALUES:
            raise TooManyTokens
        found = [token for v in values if (token := self._judge.tokens.check(v))]
        if len(found) > MAX_TOKENS:
            raise TooManyTokens
        return found

    def find(self) -> Found:
        """What the store says.

        Raises:
            StoreUnavailable: nobody could say.
            TwoIdentities: they sent two tokens that may name two sessions.
        """
        known = self.environ.pop(FOUND, None)
        if isinstance(known, Known):
            return known.tell()
        found = self._judge.find(self.token, self.access_tokens)
        if isinstance(found, Live):
            note_user(self.environ, found.record.user.id)
        return found
