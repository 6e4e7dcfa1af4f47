"""What a visitor brings to say who they are, and whose it is. Flask is not needed for it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from authapp.crypto.access_tokens import AccessTokens
from authapp.crypto.tokens import SessionToken, SessionTokens
from authapp.errors import StoreUnavailable, TooManyTokens, TwoIdentities
from authapp.sessions.records import ActiveSession, EndedSession, LookupResult
from authapp.sessions.store import SessionStore
from authapp.web.access_tokens import HEADERS, read_access_tokens
from authapp.web.cookies import all_values, base_name, names_under, read_cookies
from authapp.web.middleware.request_log import note_user

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

    def minted(self, values: Collection[str]) -> tuple[SessionToken, ...]:
        """The tokens that we minted, among different values of cookies.

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
        """The session of these tokens, all of one visitor's cookies.

        A browser sends several after a change of the cookie's domain or path. Then the newest live
        session counts. Live sessions of two people count as none: one of them may be an attacker
        who planted a cookie, and nobody can tell which. At a log-in all of them end.

        Raises:
            StoreUnavailable: nobody could say, if only of one token.
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
class Known:
    """What the store said already, or its error. A type of ours, because a server may lay variables
    of any name under a request."""

    found: LookupResult | StoreUnavailable

    def tell(self) -> LookupResult:
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
        self._texts = read_cookies(self._header, judge.cookie_name)
        self._tokens: tuple[SessionToken, ...] | None = None

    @property
    def tokens(self) -> tuple[SessionToken, ...]:
        """The tokens in the cookies that we minted; their sessions may have ended.

        Raises:
            TooManyTokens
        """
        if self._tokens is None:
            self._tokens = self._judge.minted(self._texts)
        return self._tokens

    @property
    def is_token(self) -> bool:
        """Whether they sent a clean value under the cookie's name, or an access token."""
        return any(self._texts) or bool(self.access_tokens)

    @property
    def is_named(self) -> bool:
        """Whether there is anything that a store must be asked about."""
        try:
            return bool(self.tokens or self.access_tokens)
        except TooManyTokens:
            return True

    @property
    def is_cookie(self) -> bool:
        """Whether there is anything to clear."""
        return base_name(self._judge.cookie_name) in self._header

    def all_tokens(self) -> tuple[SessionToken, ...]:
        """Every token of ours among the cookies, each once, however its cookie is spelled: log-in
        and log-out end them all. Those under the name with another prefix are among them, and are
        left out where they would be too many, as any host can plant these.

        Raises:
            TooManyTokens
        """
        name = self._judge.cookie_name
        found = self._judge.minted(all_values(self._header, [name]))
        others = set(all_values(self._header, names_under(name)[1:]))
        others -= {token.text for token in found}
        checked = (self._judge.tokens.check(value) for value in sorted(others)[:MAX_VALUES])
        return (*found, *(token for token in checked if token))[:MAX_TOKENS]

    @property
    def is_foreign(self) -> bool:
        """Whether a cookie of our name holds no token of ours: it may be another app's, set for a
        domain that both share."""
        try:
            values = all_values(self._header, names_under(self._judge.cookie_name))
        except TooManyTokens:
            return True
        check = self._judge.tokens.check
        return any(check(value) is None for value in values[:MAX_VALUES])

    @property
    def is_ambiguous(self) -> bool:
        """Whether tokens of ours came along of which none can be said to be the visitor's: too many
        of them, or live ones of two people, or several that nobody knows any more."""
        try:
            return len(self.tokens) > 1
        except TooManyTokens:
            return True

    def find(self) -> LookupResult:
        """What the store says.

        Raises:
            StoreUnavailable: nobody could say.
            TwoIdentities: they sent a cookie and an access token, or two of these.
            TooManyTokens
        """
        known = self.environ.pop(FOUND, None)
        if isinstance(known, Known):
            return known.tell()
        found = self._find()
        if isinstance(found, ActiveSession):
            note_user(self.environ, found.record.user.id)
        return found

    def _find(self) -> LookupResult:
        if not self.access_tokens:
            return self._judge.find(self.tokens)
        if len(self.access_tokens) + bool(self.tokens) > 1:
            raise TwoIdentities("Send the cookie or one access token, not two of them.")
        claim = self._judge.access_tokens.check(*self.access_tokens)
        return self._judge.store.find(claim) if claim else None
