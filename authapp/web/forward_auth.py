"""Forward-auth: a proxy asks whether a request to another web app may pass, and whose it is.

Every answer carries all of `Remote-…`, empty where nobody is known: what a proxy copies from it
then replaces whatever the client sent under these names.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from flask import Response, g, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.urls import iri_to_uri
from werkzeug.wsgi import get_host

from authapp.accounts.identity import Identity
from authapp.errors import AuthappError, Forbidden, InvalidField, StoreUnavailable, TooManyTokens
from authapp.sessions.records import ActiveSession, LookupResult
from authapp.web.api.bodies import MAX_FIELDS
from authapp.web.blueprint import OwnBlueprint
from authapp.web.cookies.header import read_cookies
from authapp.web.csrf import from_any_origin
from authapp.web.middleware.fast_path import Answer
from authapp.web.middleware.mount_point import link_to
from authapp.web.middleware.request_log import note_user
from authapp.web.redirects import safe_next
from authapp.web.request_credentials import VARY, Authenticator, read_access_tokens
from authapp.web.unlisted_hosts import UnlistedHosts

NGINX = "/forward-auth/nginx"
REDIRECT = "/forward-auth/redirect"
REFUSAL = "authapp.forward_auth.refusal"  # in the WSGI environment: what has been decided already
_IDENTITY = "_authapp_identity_headers"  # in flask.g: those of an answer that is an error

_LONGEST_NEXT = 2_000  # characters; proxies have 4 KB for all headers of an answer

_READING = ("GET", "HEAD")

Headers = list[tuple[str, str]]
Environ = dict[str, Any]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal. It is answered as any other error, as a page or problem+json, with `headers`."""

    error: AuthappError
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Demand:
    """The parameters in the address that the proxy asks.

    Attributes:
        roles: any of these is needed; empty: anybody who is signed in may pass.
        login: the log-in page, where that is on another host than the guarded app.
    """

    roles: tuple[str, ...] = ()
    login: str = ""
    unknown: str = ""


class ForwardAuth:
    """Decides on requests that a proxy asks about. Knows WSGI and no Flask.

    Args:
        allowed_hosts: other hosts that log-in may lead to, and may be on.
        login: gives the path of the log-in page, without the mount point.
        home: gives the path that log-in leads to by itself, in the same way.
        hides_unverified: no email is passed on that nobody has shown to be the person's.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        allowed_hosts: Collection[str],
        login: Callable[[], str] = lambda: "/login",
        home: Callable[[], str] = lambda: "/",
        *,
        hides_unverified: bool = False,
    ) -> None:
        self._authenticator = authenticator
        self._login_path = login
        self._home_path = home
        self._hides_unverified = hides_unverified
        self._allowed_hosts = allowed_hosts
        self._unlisted_hosts = UnlistedHosts()

    def try_answer(self, route: str, environ: Environ) -> Answer | None:
        """The answer if the request may pass or its sender must log in. None: Flask answers.

        A refusal goes along to Flask, so that nothing is decided twice.
        """
        if route == NGINX and environ["REQUEST_METHOD"] not in _READING:
            return None
        answer = self.answer(route, environ)
        if isinstance(answer, Refusal):
            environ[REFUSAL] = answer
            return None
        return answer

    def answer(self, route: str, environ: Environ) -> Answer | Refusal:
        """
        Args:
            route: NGINX or REDIRECT.
            environ: of WSGI (PEP 3333), with what a trusted proxy forwarded in its place.
        """
        demand = _demand(environ.get("QUERY_STRING", ""))
        if demand.unknown:
            return Refusal(InvalidField({demand.unknown: "only role and login are known"}), NOBODY)
        try:
            found = self._find(environ)
        except (StoreUnavailable, Forbidden) as error:
            return Refusal(error, NOBODY)
        if isinstance(found, ActiveSession):
            person = found.record.user
            note_user(environ, person.id)
            if demand.roles and not person.has_role(*demand.roles):
                needed = f"this needs the role {' or '.join(demand.roles)}"
                return Refusal(Forbidden(needed), self._identity_headers(person))
            return Answer(200, [*self._identity_headers(person), *_FIXED], b"")
        try:
            return self._not_signed_in(route, environ, demand)
        except InvalidField as error:
            return Refusal(error, NOBODY)

    def _identity_headers(self, person: Identity) -> Headers:
        is_hidden = self._hides_unverified and not person.email_verified
        return identity_headers(person, "" if is_hidden else person.email)

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

    def _not_signed_in(self, route: str, environ: Environ, demand: _Demand) -> Answer:
        if route == NGINX:
            status, sent = 401, "HTTP_X_ORIGINAL_URL"
            if sent not in environ:  # the name in nginx's own guide, for a path
                sent = "HTTP_X_ORIGINAL_URI"
        elif _is_browser(environ):
            method = environ.get("HTTP_X_FORWARDED_METHOD") or environ["REQUEST_METHOD"]
            # RFC 9110, 15.4: after 303 a browser asks with GET
            status = 302 if method in _READING else 303
            sent = "HTTP_X_FORWARDED_URI"
        else:
            return Answer(401, [*NOBODY, *_FIXED], _LOG_IN)
        location = self._login(environ, demand.login, environ.get(sent, ""))
        body = b"" if route == NGINX else _LOG_IN  # nginx shows a page of its own
        return Answer(status, [*NOBODY, *_FIXED, ("Location", location)], body)

    def _login(self, environ: Environ, login: str, original: str) -> str:
        """Where to log in, to be led back to `original` if log-in may lead there.

        Raises:
            InvalidField: `login` is on no host that is allowed.
        """
        page = link_to(environ, self._login_path())
        home = link_to(environ, self._home_path())
        if not login and not original:
            return page
        own_host = get_host(environ)
        origin = f"{environ['wsgi.url_scheme']}://{own_host}"
        target = safe_next(original, self._allowed_hosts, own_host)
        if target is None:
            self._unlisted_hosts.note(original)
            target = home
        if login:
            return self._login_elsewhere(login, own_host, "" if target == home else target, origin)
        target = target.removeprefix(origin) if target.startswith(f"{origin}/") else target
        if target == home:
            return page
        if own_host and not target.startswith("/"):  # the browser is on another host than we are
            return _with_next(f"{origin}{page}", target)
        return _with_next(page, target)

    def _login_elsewhere(self, login: str, own_host: str, target: str, origin: str) -> str:
        """As `_login`, with the page that the proxy names; without a target, that page alone."""
        named = safe_next(login, self._allowed_hosts, own_host)
        if named is None or named == "/":
            raise InvalidField({"login": "name a page on this host or an allowed one"})
        page = iri_to_uri(named)
        if not target:
            return page
        if not target.startswith("/"):
            return _with_next(page, target)
        target = f"{origin}{target}"
        if safe_next(target, self._allowed_hosts, urlsplit(page).netloc) is None:
            self._unlisted_hosts.note(target)  # the log-in page will not lead there
        return _with_next(page, target)


def _with_next(page: str, target: str) -> str:
    """The address of a log-in page that leads on to `target`, unless that is too long."""
    onward = quote(target.encode("latin-1"), safe="/")
    if len(onward) > _LONGEST_NEXT:
        return page
    return f"{page}{'&' if '?' in page else '?'}next={onward}"


def identity_headers(person: Identity, email: str) -> Headers:
    """The headers that name a person to the guarded app: UTF-8, and nothing that ends a header."""
    return [
        ("Remote-User", str(person.id)),
        ("Remote-Email", _header_text(email)),
        ("Remote-Name", _header_text(person.name)),
        # a name with a comma would be read as two
        ("Remote-Groups", _header_text(",".join(r for r in person.roles if "," not in r))),
    ]


def _header_text(value: str) -> str:
    """As WSGI has it: bytes as Latin-1."""
    if value.isascii() and value.isprintable():
        return value
    return _CONTROLS.sub(" ", value).strip().encode("utf-8", "replace").decode("latin-1")


NOBODY: Headers = [(name, "") for name in ("Remote-User", "Remote-Email", "Remote-Name")]
NOBODY.append(("Remote-Groups", ""))

_FIXED: Headers = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Vary", VARY),
]
_LOG_IN = b"Log in first.\n"


@lru_cache(maxsize=256)
def _demand(query: str) -> _Demand:
    roles, login = [], ""
    if query.count("&") > MAX_FIELDS:
        return _Demand(unknown="role")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "role":
            roles.append(value)
        elif name == "login":
            login = value
        else:  # mistyped, it must not let everybody pass
            return _Demand(unknown=name[:50] or "role")
    return _Demand(tuple(roles), login)


def _is_browser(environ: Environ) -> bool:
    """Whether somebody opens a page, and not a script in one, or a program."""
    if environ.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate":
        return False
    return "text/html" in environ.get("HTTP_ACCEPT", "").lower()


def make_forward_auth(guard: ForwardAuth) -> OwnBlueprint:
    """The two calls, in Flask."""
    blueprint = OwnBlueprint("forward_auth", __name__)

    def answer(route: str) -> Response:
        decided = request.environ.pop(REFUSAL, None)
        if not isinstance(decided, Refusal):  # nothing of ours, whatever it is
            decided = guard.answer(route, request.environ)
        if isinstance(decided, Refusal):
            setattr(g, _IDENTITY, decided.headers)
            raise decided.error
        return Response(decided.body, decided.status, decided.headers)

    @from_any_origin
    def nginx() -> Response:
        # never 200: a proxy that forwards the method would take that for a yes
        if request.method not in _READING:
            raise MethodNotAllowed(_READING)
        return answer(NGINX)

    @from_any_origin
    def redirect() -> Response:
        return answer(REDIRECT)

    def add(state: BlueprintSetupState) -> None:
        for route, view in ((NGINX, nginx), (REDIRECT, redirect)):
            endpoint = f"{state.name_prefix}.{state.name}.{view.__name__}"
            path = f"{state.url_prefix or ''}{route}"
            # `route` can't be told to take any method
            rule = state.app.url_rule_class(path, endpoint=endpoint, merge_slashes=False)
            state.app.url_map.add(rule)
            state.app.view_functions[endpoint] = view

    def add_identity(response: Response) -> Response:
        for name, value in g.pop(_IDENTITY, NOBODY):
            response.headers.setdefault(name, value)
        return response

    blueprint.record(add)
    blueprint.after_request(add_identity)
    return blueprint
