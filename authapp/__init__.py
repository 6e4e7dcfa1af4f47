"""authapp keeps people signed in: either store can die and nobody is logged out, and nobody who was
logged out gets back in.

Read this file top to bottom to know how the product is put together:

    values          errors, config, identity, visible_text, emails, profiles, passwords,
                    hashing_slots, tokens, access_tokens, addresses, sealing, copy_keys, devices,
                    session_records, resilience, background, forks, processors, metrics,
                    log_lines, together, database_urls
    stores          models, database, deployments, postgres_connections, bounded_connections,
                    redis_clients, versioned_cache, changes, users, roles, administrators,
                    authorization, credentials, session_rows, provisional_sessions,
                    session_lookup, sessions, limits, locks, audit, refused_attempts
    use cases       authentication, maintenance
    assembly        services, doctor/, schema, observability
    edges           web/, cli, embedded, child_processes, launcher

A request flows `web/middleware/envelope.py` → guard → `SessionStore.find` → `Identity` → view; a mere session
check (`web/forward_auth.py`, `web/middleware/me.py`) is answered in front of Flask (`web/middleware/fast_path.py`). A
log-in flows page or API → `Authentication.log_in` → stores → the one place that starts a session →
cookie. Imports point down only; `docs/architecture.md` says why.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from flask import Blueprint, Flask, Request, request, url_for
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from limits.strategies import RateLimiter
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule

from authapp.authentication.addresses import network_of
from authapp.cli.commands import register_commands
from authapp.config import Config
from authapp.doctor import examine
from authapp.services import POOL_SIZE, Services, build_services
from authapp.sessions.records import Live
from authapp.storage.redis import LimiterStorage
from authapp.telemetry.logging import configure_logging
from authapp.web.api.account import api
from authapp.web.api.bodies import MAX_BODY, MAX_FIELDS, expect_whole_body
from authapp.web.api.docs import api_docs
from authapp.web.api.users import users_api
from authapp.web.csrf import check_origin
from authapp.web.error_handlers import register_domain_errors, register_error_answers
from authapp.web.forward_auth import NGINX, REDIRECT, ForwardAuth, make_forward_auth
from authapp.web.guards import (
    client,
    current_user,
    enter,
    leave,
    login_required,
    permission_required,
    roles_required,
)
from authapp.web.headers import security_headers
from authapp.web.health import ProbedFlask, health
from authapp.web.middleware.client_address import ClientAddress
from authapp.web.middleware.envelope import Envelope
from authapp.web.middleware.fast_path import VerifyLane
from authapp.web.middleware.me import ME, Me
from authapp.web.middleware.mount_point import TrustedProxies
from authapp.web.pages.account import pages
from authapp.web.pages.admin import admin
from authapp.web.pending_changes import note_pending, tell_pending
from authapp.web.rate_limits import note_attempt
from authapp.web.request_credentials import Judge
from authapp.web.session_interface import SessionInterface

__all__ = [
    "Auth",
    "Config",
    "create_app",
    "current_user",
    "login_required",
    "permission_required",
    "roles_required",
]


class Auth:
    """Flask extension: `flask.session` becomes the server-side session, `current_user` the person.

    Settings come from `app.config`, under the names in `authapp/config.py`, or from `config`.
    """

    services: Services
    judge: Judge
    addresses: ClientAddress
    blueprints: Collection[Blueprint] = ()  # of our own views, where `create_app` mounted them

    def __init__(self, app: Flask | None = None, config: Config | None = None) -> None:
        if app is not None:
            self.init_app(app, config)

    def init_app(self, app: Flask, config: Config | None = None) -> None:
        """
        Raises:
            SettingError: a setting is missing, weak or unknown.
            RuntimeError: `app.extensions` has an "authapp" already.
        """
        if "authapp" in app.extensions:
            raise RuntimeError(
                'app.extensions["authapp"] is taken: call Auth(app) or init_app(app) once for each '
                "app, and let no other extension use that name"
            )
        config = config or Config.from_mapping(_without_flask_defaults(app))
        _tell_flask(app, config)
        self.services = build_services(
            config, self._limiter(app, config), on_pending=note_pending, on_attempt=note_attempt
        )
        self.judge = Judge(
            self.services.sessions,
            self.services.tokens,
            self.services.access_tokens,
            config.SESSION_COOKIE_NAME,
        )
        app.extensions["authapp"] = self
        app.session_interface = SessionInterface(
            app,
            self.judge,
            client,
            partial(tell_pending, within=config.REVALIDATE_SECONDS, calls=(api, users_api)),
        )
        self.addresses = ClientAddress(app.wsgi_app, config.TRUSTED_PROXY_HOPS)
        app.wsgi_app = self.addresses  # type: ignore[method-assign]
        if config.TRUSTED_PROXY_HOPS:
            app.wsgi_app = TrustedProxies(  # type: ignore[method-assign]
                app, config.TRUSTED_PROXY_HOPS
            )
        app.before_request(partial(_expect_sound, config.SESSION_COOKIE_NAME))
        app.context_processor(lambda: {"current_user": current_user})
        register_domain_errors(app, lambda: _login_url(app))

    def log_in(self, email: str, password: str, *, remember: bool = False) -> Live:
        """Logs the visitor in; the cookie goes out with the answer.

        Raises:
            InvalidField, InvalidCredentials, TooManyAttempts, StoreUnavailable: unless the view
                catches them they become HTTP errors.
        """
        return enter(email, password, remember=remember)

    def log_out(self) -> None:
        """Ends the visitor's session, if there is one, and clears the cookie.

        Raises:
            StoreUnavailable: nothing was changed.
        """
        leave()

    def _limiter(self, app: Flask, config: Config) -> Callable[[], RateLimiter] | None:
        app.config.setdefault("RATELIMIT_STRATEGY", "moving-window")
        storage: dict[str, Any] = {
            "storage_uri": f"{LimiterStorage.STORAGE_SCHEME[0]}://",
            "storage_options": {"redis_url": config.REDIS_URL, "key_prefix": config.KEY_PREFIX},
        }
        own = app.config.get("RATELIMIT_STORAGE_URI")
        if own:  # the app's own storage; only those of Redis know a prefix, "LIMITS" by default
            is_redis = config.KEY_PREFIX and own.startswith(("redis", "valkey"))
            options = {"key_prefix": f"{config.KEY_PREFIX}LIMITS"} if is_redis else {}
            storage = {"storage_options": options}
        counted = app
        if not _has_limits(app):
            counted = Flask(app.import_name)  # or each request pays for limits there are none of
            counted.config.update(app.config)
        limiter = Limiter(
            key_func=lambda: network_of(request.remote_addr or ""),
            app=counted,
            in_memory_fallback_enabled=True,
            **storage,
        )
        return (lambda: limiter.limiter) if limiter.enabled else None


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
    auth = Auth(app, config)
    services, judge = auth.services, auth.judge
    Bootstrap5(app)
    app.add_template_filter(lambda at: f"{at:%-d %b %Y, %H:%M} UTC", "utc")

    forward_auth = ForwardAuth(judge, config.ALLOWED_REDIRECT_HOSTS)
    auth.blueprints = (
        *(pages, admin, api, users_api, api_docs, health),
        make_forward_auth(forward_auth),
    )
    for blueprint in auth.blueprints:
        app.register_blueprint(blueprint)
    for_proxies = frozenset({NGINX, REDIRECT})
    files = frozenset(rule.rule for rule in app.url_map.iter_rules() if _is_file(rule))
    register_error_answers(app, without_visitor=for_proxies | files)
    headers = security_headers(config.ALLOWED_REDIRECT_HOSTS, secure=config.SESSION_COOKIE_SECURE)
    plain = {route: partial(forward_auth.plain, route) for route in for_proxies}
    # in front of Flask, and behind what believes the proxies
    auth.addresses.app = Envelope(
        VerifyLane(
            app, auth.addresses.app, {} if _has_limits(app) else {**plain, ME: Me(judge).plain}
        ),
        headers,
        behind_proxy=config.TRUSTED_PROXY_HOPS > 0,
        for_proxies=for_proxies,
        files=files,
    )
    register_commands(app, config.DATABASE_URL, services, lambda: examine(config, POOL_SIZE))
    return app


def _has_limits(app: Flask) -> bool:
    """Whether Flask-Limiter counts each request."""
    names = ("RATELIMIT_DEFAULT", "RATELIMIT_APPLICATION", "RATELIMIT_META")
    return any(name in app.config for name in names)


def _is_file(rule: Rule) -> bool:
    return rule.endpoint in {"static", "bootstrap.static"}


def _expect_sound(cookie_name: str) -> None:
    """Refuses a request whose body is cut short, or that another origin made a browser send."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    expect_whole_body(current)
    check_origin(current, cookie_name)


def _expect_few_parameters() -> None:
    """Refuses a query with more parameters than any address of ours has: each takes its time."""
    if request.environ.get("QUERY_STRING", "").count("&") > MAX_FIELDS:
        raise BadRequest(f"Send at most {MAX_FIELDS} parameters.")


def _without_flask_defaults(app: Flask) -> dict[str, Any]:
    # Flask fills in defaults of its own for some of our names; only what the app chose counts.
    return {name: v for name, v in app.config.items() if v != Flask.default_config.get(name)}


def _tell_flask(app: Flask, config: Config) -> None:
    app.config.update(
        SECRET_KEY=config.SECRET_KEY[0],
        SECRET_KEY_FALLBACKS=list(config.SECRET_KEY[1:]),
        SESSION_COOKIE_NAME=config.SESSION_COOKIE_NAME,
        SESSION_COOKIE_DOMAIN=config.SESSION_COOKIE_DOMAIN or None,
        SESSION_COOKIE_SECURE=config.SESSION_COOKIE_SECURE,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
    )


def _login_url(app: Flask) -> str | None:
    return url_for("pages.login") if app.blueprints.get("pages") is pages else None
