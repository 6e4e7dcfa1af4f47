"""The whole product as one Flask app: extension, pages, API, forward-auth, health, command line."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, request
from flask_bootstrap import Bootstrap5
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule

from authapp.config import Config
from authapp.extension import Auth, counts_each_request
from authapp.telemetry.logging import configure_logging
from authapp.web.api.account import api
from authapp.web.api.bodies import MAX_BODY, MAX_FIELDS
from authapp.web.api.docs import api_docs
from authapp.web.api.users import users_api
from authapp.web.error_handlers import register_error_answers
from authapp.web.forward_auth import NGINX, REDIRECT, ForwardAuth, make_forward_auth
from authapp.web.headers import security_headers
from authapp.web.health import ProbedFlask, health
from authapp.web.middleware.fast_path import Answer, FastPath
from authapp.web.middleware.me import ME, Me
from authapp.web.middleware.request import RequestMiddleware
from authapp.web.pages.account import pages
from authapp.web.pages.admin import admin


def create_app(config: Config) -> Flask:
    """The whole product: the extension, pages, API, forward-auth, health and the command line."""
    configure_logging()
    app = ProbedFlask(__name__)
    app.url_map.merge_slashes = False  # by a redirect to whatever host the request names
    # Flask answers OPTIONS with 200, and a proxy that forwards the method takes that for a yes
    app.config.update(
        BOOTSTRAP_SERVE_LOCAL=True, MAX_CONTENT_LENGTH=MAX_BODY, PROVIDE_AUTOMATIC_OPTIONS=False
    )
    app.config.from_prefixed_env()  # Flask's own settings: FLASK_…
    app.before_request(_expect_few_parameters)
    state = Auth(app, config).state(app)
    authenticator = state.authenticator
    Bootstrap5(app)
    app.add_template_filter(lambda at: f"{at:%-d %b %Y, %H:%M} UTC", "utc")

    forward_auth = ForwardAuth(authenticator, config.ALLOWED_REDIRECT_HOSTS)
    state.blueprints = (
        *(pages, admin, api, users_api, api_docs, health),
        make_forward_auth(forward_auth),
    )
    for blueprint in state.blueprints:
        app.register_blueprint(blueprint)
    for_proxies = frozenset({NGINX, REDIRECT})
    files = frozenset(rule.rule for rule in app.url_map.iter_rules() if _is_file(rule))
    register_error_answers(app, without_visitor=for_proxies | files)
    headers = security_headers(config.ALLOWED_REDIRECT_HOSTS, secure=config.SESSION_COOKIE_SECURE)
    # in front of Flask, and behind what believes the proxies
    answers: dict[str, Callable[[dict[str, Any]], Answer | None]] = {}
    if not counts_each_request(app):
        answers = {route: partial(forward_auth.try_answer, route) for route in for_proxies}
        answers[ME] = Me(authenticator).try_answer
    state.addresses.app = RequestMiddleware(
        FastPath(app, state.addresses.app, answers),
        headers,
        behind_proxy=config.TRUSTED_PROXY_HOPS > 0,
        for_proxies=for_proxies,
        files=files,
    )
    return app


def _is_file(rule: Rule) -> bool:
    return rule.endpoint in {"static", "bootstrap.static"}


def _expect_few_parameters() -> None:
    """Refuses a query with more parameters than any address of ours has: each takes its time."""
    if request.environ.get("QUERY_STRING", "").count("&") > MAX_FIELDS:
        raise BadRequest(f"Send at most {MAX_FIELDS} parameters.")
