"""The calls of forward-auth, and the keys of its assertions, in Flask."""

from collections.abc import Callable
from functools import partial

from flask import Response, g, redirect, request
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from authapp.crypto.assertion_keys import AssertionKeys
from authapp.web.blueprint import OwnBlueprint
from authapp.web.csrf import from_any_origin
from authapp.web.error_handlers import AS_JSON
from authapp.web.forward_auth.answers import REFUSAL, ForwardAuth, Refusal, opens_page
from authapp.web.forward_auth.identity_headers import NOBODY
from authapp.web.forward_auth.logout_page import LogoutPage
from authapp.web.forward_auth.original_request import READING
from authapp.web.forward_auth.proxies import PROXIES, Proxy

KEY_SET = "/.well-known/jwks.json"

_KEPT_SECONDS = 60  # a secret that leaked must soon count for nothing
_IDENTITY = "_authapp_identity_headers"  # in flask.g: those of an answer that is an error


def make_forward_auth(forward_auth: ForwardAuth, logout_page: LogoutPage | None) -> OwnBlueprint:
    """One call for each kind of proxy, and a way to the log-out page.

    Args:
        logout_page: ours, if it is mounted.
    """
    blueprint = OwnBlueprint("forward_auth", __name__)

    def answer(proxy: Proxy) -> Response:
        # never 200: a proxy that forwards the method would take that for a yes
        if proxy.only_get and request.method not in READING:
            raise MethodNotAllowed(READING)
        decided = request.environ.pop(REFUSAL, None)
        if not isinstance(decided, Refusal):  # nothing of ours, whatever it is
            decided = forward_auth.answer(proxy, request.environ)
        if isinstance(decided, Refusal):
            setattr(g, _IDENTITY, decided.headers)
            if not opens_page(request.environ):
                setattr(g, AS_JSON, True)
            raise decided.error
        return Response(decided.body, decided.status, decided.headers)

    if logout_page is not None:
        address = logout_page.address

        @blueprint.get("/forward-auth/logout")
        def logout() -> ResponseReturnValue:
            return redirect(address(request.environ, request.args.get("next", "")))

    def add(state: BlueprintSetupState) -> None:
        for proxy in PROXIES:
            name = proxy.route.rpartition("/")[2]
            endpoint = f"{state.name_prefix}.{state.name}.{name}"
            path = f"{state.url_prefix or ''}{proxy.route}"
            # `route` can't be told to take any method
            rule = state.app.url_rule_class(path, endpoint=endpoint, merge_slashes=False)
            state.app.url_map.add(rule)
            view: Callable[[], Response] = from_any_origin(partial(answer, proxy))
            state.app.view_functions[endpoint] = view

    def add_identity(response: Response) -> Response:
        for name, value in g.pop(_IDENTITY, NOBODY):
            response.headers.setdefault(name, value)
        return response

    blueprint.record(add)
    blueprint.after_request(add_identity)
    return blueprint


def make_key_set(keys: AssertionKeys) -> OwnBlueprint:
    """The public keys, by which guarded apps verify assertions (RFC 7517).

    They are at the root of the app as well: the issuer that an assertion names is PUBLIC_URL, which
    says nothing of the prefix under which an app mounts us.
    """
    blueprint = OwnBlueprint("key_set", __name__)

    def add_at_root(state: BlueprintSetupState) -> None:
        if state.url_prefix:
            endpoint = f"{state.name_prefix}.{state.name}.key_set"
            rule = state.app.url_rule_class(
                KEY_SET, endpoint=endpoint, methods={"GET"}, merge_slashes=False
            )
            state.app.url_map.add(rule)

    blueprint.record(add_at_root)

    @blueprint.get(KEY_SET)
    def key_set() -> Response:
        response = Response(keys.key_set, mimetype="application/json")
        response.headers["Cache-Control"] = f"public, max-age={_KEPT_SECONDS}"
        return response

    return blueprint
