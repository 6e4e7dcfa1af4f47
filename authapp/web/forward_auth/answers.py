"""Answers to proxies: the decision, in the form that each kind of proxy can pass on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from authapp.accounts.identity import Identity
from authapp.crypto.recent import Recent
from authapp.errors import AuthappError, InvalidField
from authapp.guarding.assertions import AssertionIssuer
from authapp.sessions.records import SessionRecord
from authapp.web.forward_auth.decision import Allowed, Decision, Refused
from authapp.web.forward_auth.demands import Demand
from authapp.web.forward_auth.identity_headers import NOBODY, Headers, identity_headers
from authapp.web.forward_auth.login_page import LoginPage
from authapp.web.forward_auth.original_request import READING, OriginalRequest
from authapp.web.forward_auth.proxies import Proxy
from authapp.web.middleware.fast_path import Answer
from authapp.web.request_credentials import CHALLENGE, VARY

REFUSAL = "authapp.forward_auth.refusal"  # in the WSGI environment: what has been decided already

Environ = dict[str, Any]

_FIXED: Headers = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Vary", VARY),
]
_LOG_IN = b"Log in first.\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal. It is answered as any other error, as a page or problem+json, with `headers`."""

    error: AuthappError
    headers: Headers


class ForwardAuth:
    """Answers proxies. Knows WSGI and no Flask.

    Args:
        assertions: issues them; None: without PUBLIC_URL they would name nobody who did.
        remedies: the path of the page, without the mount point, where people can mend why they were
            refused.
        hides_unverified: no email is passed on that nobody has shown to be the person's.
    """

    def __init__(
        self,
        decision: Decision,
        login_page: LoginPage,
        assertions: AssertionIssuer | None,
        remedies: Mapping[type[AuthappError], str],
        *,
        hides_unverified: bool,
    ) -> None:
        self._decision = decision
        self._login_page = login_page
        self._assertions = assertions
        self._remedies = remedies
        self._hides_unverified = hides_unverified
        self._headers: Recent[UUID, tuple[SessionRecord, Headers]] = Recent()

    def try_answer(self, proxy: Proxy, environ: Environ) -> Answer | None:
        """The answer if the request may pass or its sender must log in. None: Flask answers.

        A refusal goes along to Flask, so that nothing is decided twice.
        """
        if proxy.only_get and environ["REQUEST_METHOD"] not in READING:
            return None
        answer = self.answer(proxy, environ)
        if isinstance(answer, Refusal):
            environ[REFUSAL] = answer
            return None
        return answer

    def answer(self, proxy: Proxy, environ: Environ) -> Answer | Refusal:
        verdict = self._decision.decide(proxy, environ)
        try:
            if isinstance(verdict, Allowed):
                return Answer(200, [*self._of_session(proxy, environ, verdict), *_FIXED], b"")
            if isinstance(verdict, Refused):
                return self._refuse(proxy, environ, verdict)
            return self._log_in_first(proxy, environ, verdict.demand)
        except InvalidField as error:
            return Refusal(error, NOBODY)

    def _refuse(self, proxy: Proxy, environ: Environ, refused: Refused) -> Answer | Refusal:
        page = self._remedies.get(type(refused.error))
        if page is None or not opens_page(environ):
            return Refusal(refused.error, self._identity_headers(refused.session))
        original = proxy.original(environ)
        location = self._login_page.leading_back(environ, page, original)
        return _led_to(location, proxy, original, f"{refused.error}\n".encode())

    def _log_in_first(self, proxy: Proxy, environ: Environ, demand: Demand) -> Answer:
        if proxy.passes_redirects and not opens_page(environ):
            headers = [*NOBODY, *_FIXED, ("WWW-Authenticate", CHALLENGE)]
            return Answer(401, headers, _LOG_IN)
        original = proxy.original(environ)
        location = self._login_page.address(environ, demand.login, original)
        return _led_to(location, proxy, original, _LOG_IN)

    def _of_session(self, proxy: Proxy, environ: Environ, allowed: Allowed) -> Headers:
        session = allowed.session
        if session is None:
            return NOBODY
        assertion = ""
        if allowed.wants_assertion:
            assertion = self._assertion(session, proxy.original(environ))
        return self._identity_headers(session, assertion)

    def _assertion(self, session: SessionRecord, original: OriginalRequest) -> str:
        """
        Raises:
            InvalidField: without a setting, or without a word of the proxy, there can be none.
        """
        if self._assertions is None:
            raise InvalidField({"assertion": "set PUBLIC_URL, which assertions name as issuer"})
        if not original.origin:
            raise InvalidField({"assertion": "the proxy does not say which host this is about"})
        email = self._email(session.user)
        return self._assertions.issue(session, email, original.origin, original.method)

    def _identity_headers(self, session: SessionRecord | None, assertion: str = "") -> Headers:
        if session is None:
            return NOBODY
        headers = self._known_headers(session)
        return [*headers[:-1], (headers[-1][0], assertion)] if assertion else headers

    def _known_headers(self, session: SessionRecord) -> Headers:
        known = self._headers.get(session.id)
        if known is not None and known[0] is session:  # read from the same entry as before
            return known[1]
        headers = identity_headers(session, self._email(session.user))
        return self._headers.keep(session.id, (session, headers))[1]

    def _email(self, person: Identity) -> str:
        return "" if self._hides_unverified and not person.email_verified else person.email


def _led_to(location: str, proxy: Proxy, original: OriginalRequest, text: bytes) -> Answer:
    """Sends a browser to another page. No guarded app is told whose request it is."""
    headers = [*NOBODY, *_FIXED, ("Location", location)]
    if not proxy.passes_redirects:
        return Answer(401, headers, b"")  # the proxy shows a page of its own
    # RFC 9110, 15.4: after 303 a browser asks with GET
    return Answer(302 if original.method in READING else 303, headers, text)


def opens_page(environ: Environ) -> bool:
    """Whether somebody opens a page, and not a script in one, or a program."""
    if environ.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate":
        return False
    if environ.get("HTTP_X_REQUESTED_WITH", "").lower() == "xmlhttprequest":
        return False
    return "text/html" in environ.get("HTTP_ACCEPT", "").lower()
