"""The decision of forward-auth: may this request pass, and whose is it? Alike for all proxies."""

from typing import Any

import msgspec

from authapp.accounts.assurance import level_of, proves_second_factor
from authapp.errors import (
    AddressUnconfirmed,
    AuthappError,
    FactorMissing,
    FactorUnproven,
    Forbidden,
    InvalidField,
    StoreUnavailable,
    TooManyTokens,
)
from authapp.guarding.rules import GuardRules, Rule
from authapp.sessions.records import ActiveSession, LookupResult, SessionRecord
from authapp.web.forward_auth.demands import Demand
from authapp.web.forward_auth.original_request import OriginalRequest
from authapp.web.forward_auth.proxies import Proxy
from authapp.web.middleware.request_log import note_user
from authapp.web.request_credentials import Authenticator, read_access_tokens

Environ = dict[str, Any]


class Allowed(msgspec.Struct, frozen=True):
    """The request may pass: in the name of the session's person, or of nobody without a session.

    Attributes:
        wants_assertion: the guarded app verifies who the person is.
    """

    session: SessionRecord | None = None
    wants_assertion: bool = False


class SignedOut(msgspec.Struct, frozen=True):
    """The visitor must log in first."""

    demand: Demand


class Refused(msgspec.Struct, frozen=True):
    """The request may not pass, or nobody can say. `session`: whose it is, if that is known."""

    error: AuthappError
    session: SessionRecord | None = None


Verdict = Allowed | SignedOut | Refused


class Decision:
    """Decides on requests that a proxy asks about. Knows WSGI and no Flask.

    Args:
        rules: the path rules, if there are any. They hold beside what the proxy demands.
    """

    def __init__(self, authenticator: Authenticator, rules: GuardRules | None = None) -> None:
        self._authenticator = authenticator
        self._rules = rules

    def decide(self, proxy: Proxy, environ: Environ) -> Verdict:
        """
        Args:
            environ: of WSGI (PEP 3333), with what a trusted proxy forwarded in its place.
        """
        demand = proxy.demand(environ)
        if demand.unknown:
            return Refused(InvalidField({demand.unknown: _KNOWN}))
        try:
            rule = self._rule(proxy, environ)
        except Forbidden as error:
            return Refused(error)
        is_public = rule is not None and rule.is_public and not demand.demands
        may_be_preflight = is_public or demand.lets_preflights_pass
        if may_be_preflight and _is_preflight(proxy.original(environ), environ):
            return Allowed()
        try:
            found = self._find(environ)
        except (StoreUnavailable, Forbidden) as error:
            return Allowed() if is_public else Refused(error)
        if not isinstance(found, ActiveSession):
            return Allowed() if is_public else SignedOut(demand)
        note_user(environ, found.record.user.id)
        is_demanding = demand.demands or rule is not None
        if is_demanding and (lacking := _lacking(found.record, demand, rule)):
            return Refused(lacking, found.record)
        return Allowed(found.record, demand.wants_assertion)

    def _rule(self, proxy: Proxy, environ: Environ) -> Rule | None:
        """The path rule for the visitor's request; None where none are set.

        Raises:
            Forbidden: some are set, and none matches.
        """
        if self._rules is None:
            return None
        original = proxy.original(environ)
        return self._rules.find(original.method, original.host, original.path)

    def _find(self, environ: Environ) -> LookupResult:
        """Whose request it is. A token that can't be one of ours is of the guarded app.

        Raises:
            Forbidden: a cookie and a token of ours were sent, or two tokens, or too many cookies.
            StoreUnavailable: nobody could say.
        """
        try:
            cookies = self._authenticator.read(environ.get("HTTP_COOKIE", ""))
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


_KNOWN = "only role, factor=2, login, preflight=pass and assertion=1 are known"


def _lacking(session: SessionRecord, demand: Demand, rule: Rule | None) -> Forbidden | None:
    """The first thing that this session lacks. Roles are looked at first: people can't get them."""
    for roles in (demand.roles, rule.roles if rule else ()):
        if roles and not session.user.has_role(*roles):
            return Forbidden(f"this needs the role {' or '.join(roles)}")
    if (demand.needs_factor or (rule and rule.needs_factor)) and level_of(session.amr) < 2:
        return _without_factor(session)
    if rule and rule.needs_verified and not session.user.email_verified:
        return AddressUnconfirmed("This needs an email address that you have confirmed.")
    return None


def _without_factor(session: SessionRecord) -> Forbidden:
    if not session.user.second_factor:
        return FactorMissing("This needs a second factor. Set one up first.")
    if proves_second_factor(session.amr):  # to show it once more would add nothing
        return Forbidden("this needs a log-in with two factors")
    return FactorUnproven("This needs your second factor. Show it first.")


def _is_preflight(original: OriginalRequest, environ: Environ) -> bool:
    """Whether a browser asks for permission to send a script's request (Fetch, 4.8)."""
    return (
        original.method == "OPTIONS"
        and "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    )
