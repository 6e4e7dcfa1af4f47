"""The credentials of a request, and whose they are. This module knows WSGI and no Flask."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authapp.crypto.access_tokens import AccessTokens
from authapp.crypto.recent import Recent
from authapp.crypto.tokens import SessionToken, SessionTokens
from authapp.errors import StoreUnavailable, TooManyTokens, TwoIdentities
from authapp.sessions.records import ActiveSession, EndedSession, LookupResult
from authapp.sessions.store import SessionStore
from authapp.web.cookies.header import all_values, base_name, names_under, read_cookies
from authapp.web.middleware.request_log import FIELDS, note_user

TOKEN_HEADERS = ("Authorization", "X-Access-Token")
VARY = ", ".join(("Cookie", *TOKEN_HEADERS))  # the headers that identify a visitor
CHALLENGE = 'Bearer realm="authapp"'  # programs are told so with every 401 (RFC 9110, 11.6.1)
KNOWN_RESULT = "authapp.known_result"  # in the WSGI environment: a `KnownResult`

# Limits of different cookies of our name in one request. A browser has two after a change of the
# cookie's domain or path. An attacker may send more, because each costs us a check.
MAX_TOKENS = 4  # tokens that we minted: each costs a look-up in a store
MAX_VALUES = 16  # values in all: each costs a MAC

_FAR_TOO_LONG = 4096  # characters
_LONGEST_KEPT = 4096  # characters


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Finds the session that credentials belong to."""

    store: SessionStore
    tokens: SessionTokens
    access_tokens: AccessTokens
    cookie_name: str
    _read: Recent[str, tuple[SessionToken, ...]] = field(default_factory=Recent, init=False)

    def read(self, cookie_header: str) -> tuple[SessionToken, ...]:
        """The tokens that we minted, among the cookies of our name.

        A browser sends the same header again soon, so tokens that were found are kept.

        Raises:
            TooManyTokens
        """
        if (known := self._read.get(cookie_header)) is not None:
            return known
        found = self.minted(read_cookies(cookie_header, self.cookie_name))
        if found and len(cookie_header) <= _LONGEST_KEPT:
            self._read.keep(cookie_header, found)
        return found

    def minted(self, values: Collection[str]) -> tuple[SessionToken, ...]:
        """The tokens that we minted, among the different values of cookies.

        Raises:
            TooManyTokens
        """
        if len(values) > MAX_VALUES:
            raise TooManyTokens
        found = tuple(token for value in values if (token := self.tokens.check(value)))
        if len(found) > MAX_TOKENS:
            raise TooManyTokens
        return found

    def find(self, tokens: Sequence[SessionToken]) -> LookupResult:
        """The session of these tokens, which all came in one visitor's cookies.

        A browser sends several tokens after a change of the cookie's domain or path. Then the
        newest live session counts. Live sessions of two people count as none: an attacker may have
        planted one of the cookies, and nobody can tell which. At a log-in all of them end.

        Raises:
            StoreUnavailable: a store could not be asked about one of the tokens.
        """
        if len(tokens) == 1:
            return self.store.find(tokens[0])
        found = [self.store.find(token) for token in tokens]
        lives = [one for one in found if isinstance(one, ActiveSession)]
        if lives:
            people = {live.record.user.id for live in lives}
            newest = max(lives, key=lambda live: (live.record.created_at, live.record.id))
            return newest if len(people) == 1 else None
        ended = [one for one in found if isinstance(one, EndedSession)]
        # people are told of an end that they did not ask for
        return min(ended, key=lambda one: one.why.by_its_owner, default=None)


@dataclass(frozen=True, slots=True)
class KnownResult:
    """The result of a look-up that was already made for this request, or its error.

    This is a type of our own, because a server may put variables of any name into an environment.
    """

    result: LookupResult | StoreUnavailable

    def unwrap(self) -> LookupResult:
        """
        Raises:
            StoreUnavailable: the look-up failed.
        """
        if isinstance(self.result, StoreUnavailable):
            raise self.result
        return self.result


class RequestCredentials:
    """The cookies and access tokens of a request.

    Attributes:
        environ: the WSGI environment.
        access_tokens: the access tokens sent, valid or not.
        cookie_header: the Cookie header as received.
    """

    def __init__(self, authenticator: Authenticator, environ: dict[str, Any]) -> None:
        self._authenticator = authenticator
        self.environ = environ
        self.access_tokens = read_access_tokens(environ)
        self.cookie_header: str = environ.get("HTTP_COOKIE", "")
        self._tokens: tuple[SessionToken, ...] | None = None

    @property
    def tokens(self) -> tuple[SessionToken, ...]:
        """The tokens in the cookies, as far as we minted them; their sessions may have ended.

        Raises:
            TooManyTokens
        """
        if self._tokens is None:
            self._tokens = self._authenticator.read(self.cookie_header)
        return self._tokens

    @property
    def has_token(self) -> bool:
        """Whether a clean value came under the cookie's name, or an access token."""
        values = read_cookies(self.cookie_header, self._authenticator.cookie_name)
        return any(values) or bool(self.access_tokens)

    @property
    def needs_lookup(self) -> bool:
        """Whether a store must be asked who the visitor is."""
        try:
            return bool(self.tokens or self.access_tokens)
        except TooManyTokens:
            return True

    @property
    def has_cookie(self) -> bool:
        """Whether a cookie of ours came along, which can be cleared."""
        return base_name(self._authenticator.cookie_name) in self.cookie_header

    def all_tokens(self) -> tuple[SessionToken, ...]:
        """Every token of ours among the cookies, each once, however its cookie is spelled.

        Log-in and log-out end the sessions of all of them. Cookies whose name has another prefix
        count, too. Where there are too many, those are left out, because any host can plant them.

        Raises:
            TooManyTokens
        """
        name = self._authenticator.cookie_name
        found = self._authenticator.minted(all_values(self.cookie_header, [name]))
        others = set(all_values(self.cookie_header, names_under(name)[1:]))
        others -= {token.text for token in found}
        checked = (self._authenticator.tokens.check(value) for value in sorted(others)[:MAX_VALUES])
        return (*found, *(token for token in checked if token))[:MAX_TOKENS]

    @property
    def has_foreign_cookie(self) -> bool:
        """Whether a cookie of our name holds no token of ours.

        It may be the cookie of another app, set for a domain that both share.
        """
        try:
            values = all_values(self.cookie_header, names_under(self._authenticator.cookie_name))
        except TooManyTokens:
            return True
        check = self._authenticator.tokens.check
        return any(check(value) is None for value in values[:MAX_VALUES])

    @property
    def is_ambiguous(self) -> bool:
        """Whether several tokens of ours came along, so that none may be taken for the visitor's.

        There are too many of them, or live ones of two people, or several unknown ones.
        """
        try:
            return len(self.tokens) > 1
        except TooManyTokens:
            return True

    def find(self) -> LookupResult:
        """Look the visitor's session up.

        Raises:
            StoreUnavailable: a store could not be asked.
            TwoIdentities: a cookie and an access token came, or access tokens in two headers.
            TooManyTokens
        """
        known = self.environ.pop(KNOWN_RESULT, None)
        if isinstance(known, KnownResult):
            return known.unwrap()
        found = self._find()
        if isinstance(found, ActiveSession) and FIELDS in self.environ:
            note_user(self.environ, found.record.user.id)
        return found

    def _find(self) -> LookupResult:
        if not self.access_tokens:
            return self._authenticator.find(self.tokens)
        if len(self.access_tokens) + bool(self.tokens) > 1:
            raise TwoIdentities("Send the cookie or one access token, not two of them.")
        token = self._authenticator.access_tokens.check(*self.access_tokens)
        return self._authenticator.store.find(token) if token else None


def read_access_tokens(environ: Mapping[str, Any]) -> tuple[str, ...]:
    """The access tokens that a request sends, valid or not: one for each header that has one.

    `Authorization` with another scheme than Bearer (RFC 6750, 2.1) is ignored.
    """
    if "HTTP_AUTHORIZATION" not in environ and "HTTP_X_ACCESS_TOKEN" not in environ:
        return ()
    found = []
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(_stripped(credentials))
    if (token := environ.get("HTTP_X_ACCESS_TOKEN")) is not None:
        found.append(_stripped(token))
    return tuple(found)


def _stripped(text: str) -> str:
    """`text` without blanks around it. A text far longer than any token stays as it is."""
    return text.strip(" ") if len(text) < _FAR_TOO_LONG else text
