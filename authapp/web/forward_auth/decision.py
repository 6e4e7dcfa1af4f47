"""The decision of forward-auth: may this request pass, and whose is it? Alike for all proxies."""

from dataclasses import dataclass
from typing import Any

from authapp.accounts.identity import Identity
from authapp.errors import AuthappError, Forbidden, InvalidField, StoreUnavailable, TooManyTokens
from authapp.sessions.records import ActiveSession, LookupResult
from authapp.web.cookies.header import read_cookies
from authapp.web.forward_auth.demands import Demand
from authapp.web.forward_auth.original_request import OriginalRequest
from authapp.web.forward_auth.proxies import Proxy
from authapp.web.middleware.request_log import note_user
from authapp.web.request_credentials import Authenticator, read_access_tokens

Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The request may pass, as this person's; as nobody's without a `person`."""

    person: Identity | None


@dataclass(frozen=True, slots=True)
class SignedOut:
    """The visitor must log in first."""

    demand: Demand


@dataclass(frozen=True, slots=True)
class Refused:
    """The request may not pass, or nobody can say. `person`: whose it is, if that is known."""

    error: AuthappError
    person: Identity | None = None


Verdict = Allowed | SignedOut | Refused


class Decision:
    """Decides on requests that a proxy asks about. Knows WSGI and no Flask."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def decide(self, proxy: Proxy, environ: Environ) -> Verdict:
        """
        Args:
            environ: of WSGI (PEP 3333), with what a trusted proxy forwarded in its place.
        """
        demand = proxy.demand(environ)
        if demand.unknown:
            return Refused(InvalidField({demand.unknown: _KNOWN}))
        if demand.lets_preflights_pass and _is_preflight(proxy.original(environ), environ):
            return Allowed(None)
        try:
            found = self._find(environ)
        except (StoreUnavailable, Forbidden) as error:
            return Refused(error)
        if not isinstance(found, ActiveSession):
            return SignedOut(demand)
        person = found.record.user
        note_user(environ, person.id)
        if demand.roles and not person.has_role(*demand.roles):
            return Refused(Forbidden(f"this needs the role {' or '.join(demand.roles)}"), person)
        return Allowed(person)

    def _find(self, environ: Environ) -> LookupResult:
        """Whose request it is. A token that can't be one of ours is of the guarded app.

        Raises:
            Forbidden: a cookie and a token of ours were sent, or two tokens, or too many cookies.
            StoreUnavailable: nobody could say.
        """
        values = read_cookies(environ.get("HTTP_COOKIE", ""), self._authenticator.cookie_name)
        try:
            cookies = self._authenticator.minted(values)
        except TooManyTokens:
            raise Forbidden("this brings too many session cookies") from None
        access_tokens = [
            token
            for sent in read_access_tokens(environ)
            if (token := self._authenticator.access_tokens.check(sent)) is not None
        ]
        if len(access_tokens) + bool(cookies) > 1:
            raise Forbidden("this says in two ways who is asking")
        return self._authenticator.find(access_tokens or cookies)


_KNOWN = "only role, login and preflight=pass are known"


def _is_preflight(original: OriginalRequest, environ: Environ) -> bool:
    """Whether a browser asks for permission to send a script's request (Fetch, 4.8)."""
    return (
        original.method == "OPTIONS"
        and "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    )
