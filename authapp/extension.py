"""The Flask extension: sessions, guards, errors, pages and API of authapp in any Flask app.

`Auth` is for other apps; `create_app` calls `set_up` itself.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, TypedDict, Unpack, overload

from flask import Flask, request
from flask_limiter import Limiter
from jinja2 import ChoiceLoader, FileSystemLoader
from limits.strategies import RateLimiter

from authapp.accounts.identity import Identity
from authapp.accounts.roles import known_permissions
from authapp.authentication.addresses import network_of
from authapp.cli.deployment import Deployment
from authapp.cli.tree import register_commands
from authapp.config import Config
from authapp.doctor import examine
from authapp.errors import AuthappError, SettingError, StoreUnavailable
from authapp.mailing import TEMPLATES, brand_of
from authapp.mounting import put_mounted
from authapp.python_api import Roles, Sessions, Users
from authapp.services import POOL_SIZE, Services, build_services
from authapp.sessions.records import ActiveSession
from authapp.signals import SignalSender
from authapp.storage.redis import LimiterStorage
from authapp.telemetry.logging import get_logger
from authapp.web.api.account import api
from authapp.web.api.leaving import leaving_api
from authapp.web.api.recovery import recovery_api
from authapp.web.api.signup import signup_api
from authapp.web.api.users import users_api
from authapp.web.app_state import EXTENSION, AppState, Mount, state_of
from authapp.web.csrf import OriginPolicy, View, from_any_origin
from authapp.web.error_handlers import answer_domain_error
from authapp.web.guards import current_user, unknown_actor
from authapp.web.pending_changes import mark_pending
from authapp.web.request_check import RequestCheck
from authapp.web.request_credentials import Authenticator
from authapp.web.session.interface import SessionInterface
from authapp.web.visitor_login import (
    log_in_visitor,
    log_in_visitor_as,
    log_out_visitor,
    next_target,
    sign_out_reason,
)


class MountOptions(TypedDict, total=False):
    """The arguments of `Auth` and `init_app`: see `Mount`."""

    url_prefix: str
    pages: bool
    api: bool
    admin: bool
    health: bool
    forward_auth: bool


_FALLBACKS = "SECRET_KEY_FALLBACKS"  # Flask's name for former secrets
_NONE: Mapping[str, str] = MappingProxyType({})

_log = get_logger(__name__)


class Auth:
    """Flask extension: `flask.session` becomes the server-side session, `current_user` the person.

    Settings come from `app.config`, under the names in `authapp/config.py`, or from `config`. The
    extension itself keeps no state, so one may serve any number of apps: each has its own
    `AppState`.

    By itself it mounts nothing. `Auth(app, url_prefix="/auth", pages=True)` adds the pages under
    `/auth`; see `Mount` for all there is.

    Attributes:
        users, sessions, roles: the Python API, see `authapp.python_api`.
    """

    users = Users()
    sessions = Sessions()
    roles = Roles()

    def __init__(
        self,
        app: Flask | None = None,
        config: Config | None = None,
        *,
        permissions: Mapping[str, str] = _NONE,
        **mount: Unpack[MountOptions],
    ) -> None:
        """
        Args:
            permissions: permissions of the app's own that roles may give, each with a description:
                `{"reports:read": "See the reports"}`.
            mount: what is mounted and where, for each app; see `Mount`.
        """
        self._permissions = permissions
        self._mount = mount
        if app is not None:
            self.init_app(app, config)

    def init_app(
        self,
        app: Flask,
        config: Config | None = None,
        *,
        permissions: Mapping[str, str] = _NONE,
        **mount: Unpack[MountOptions],
    ) -> None:
        """Sets authapp up for an app.

        Args:
            permissions, mount: as for `Auth`, which they add to.

        Raises:
            SettingError: a setting is missing, weak or unknown, or a permission can't be one.
            RuntimeError: `app.extensions` has an "authapp" already.
            ValueError: the prefix can't be one, or nothing is mounted there.
        """
        told: Any = {**self._mount, **mount}
        set_up(app, config, Mount(**told), known_permissions(self._permissions, permissions))

    def state(self, app: Flask | None = None) -> AppState:
        """The `AppState` of this app; without an argument, of the current one.

        Raises:
            RuntimeError: there is no current app, or `init_app` was not called for it.
        """
        return state_of(app)

    @staticmethod
    def exempt(view: View) -> View:
        """Accepts unsafe requests to this view from any origin, such as a SAML response or the
        return of a payment: `@auth.exempt`, below `@app.route`.

        The view must prove by other means, such as a signature, that the request is genuine: a
        browser may send it in the name of a person who knows nothing of it.
        """
        return from_any_origin(view)

    @overload
    def log_in(self, user: Identity, /, *, remember: bool = False) -> ActiveSession: ...

    @overload
    def log_in(self, email: str, password: str, *, remember: bool = False) -> ActiveSession: ...

    def log_in(
        self, email: str | Identity, password: str | None = None, *, remember: bool = False
    ) -> ActiveSession:
        """Logs the visitor in; the cookie goes out with the answer.

        With a user of `auth.users` in place of email and password, the visitor is logged in as that
        user, and nothing is verified: the app has done it, by OAuth for example. No limit counts
        such a log-in. It needs Postgres, and its event in the audit log has the method
        `application`.

        Raises:
            InvalidField, InvalidCredentials, TooManyAttempts, StoreUnavailable: unless the view
                catches them they become HTTP errors. A user who is deactivated or deleted is
                refused with `InvalidCredentials`.
            PasswordChangeRequired: the password is a one-time one. Unless the view catches it,
                people are led to our page that asks for another, if pages are mounted.
        """
        if isinstance(email, Identity):
            return log_in_visitor_as(email.id, remember=remember)
        if password is None:
            raise TypeError("log_in takes an email and a password, or a user of auth.users")
        return log_in_visitor(email, password, remember=remember)

    def next_url(self, default: str) -> str:
        """Where the app's own log-in page leads to afterwards: `next` of the request, or `default`.

        `next` counts if it leads to this host or to one of ALLOWED_REDIRECT_HOSTS (OWASP ASVS 5.0,
        3.7.2), in whatever spelling browsers understand. It is read from the form, else from the
        address.
        """
        return next_target() or default

    def sign_out_reason(self) -> str | None:
        """Why the visitor's last session ended, as a sentence for the app's own log-in page.

        None: they had none, or logged out themselves.

        Raises:
            StoreUnavailable: nobody could say.
        """
        return sign_out_reason()

    def log_out(self) -> None:
        """Ends the visitor's session, if there is one, and clears the cookie.

        Raises:
            StoreUnavailable: nothing was changed.
        """
        log_out_visitor()


def set_up(
    app: Flask,
    config: Config | None,
    mount: Mount,
    permissions: Mapping[str, str] | None = None,
) -> AppState:
    """Sets authapp up for an app: sessions, guards, errors, commands, and what is mounted.

    Args:
        permissions: as for `build_services`.
    Raises:
        SettingError, RuntimeError: as `Auth.init_app`.
    """
    if EXTENSION in app.extensions:
        raise RuntimeError(
            'app.extensions["authapp"] is taken: call Auth(app) or init_app(app) once for each '
            "app, and let no other extension use that name"
        )
    chosen = _chosen(app)
    if config is None:
        config = Config.from_mapping(chosen)
        _tell_of_secure(chosen, config)
    if mount.forward_auth and not mount.pages and not config.LOGIN_VIEW:
        raise SettingError(
            "LOGIN_VIEW: forward-auth sends people to log in; set it to the endpoint of your "
            "log-in page, or mount ours with pages=True"
        )
    if mount.url_prefix and f"{config.mount_point}/".endswith(f"{mount.url_prefix}/"):
        raise SettingError(
            f"PUBLIC_URL: leave {mount.url_prefix} out at its end, it is added as url_prefix says"
        )
    _tell_flask(app, config, chosen)
    services = build_services(
        config,
        _limiter(app, config),
        observe=SignalSender(app),
        permissions=permissions,
        url_prefix=mount.url_prefix,
        mail_templates=ChoiceLoader(
            [app.create_global_jinja_loader(), FileSystemLoader(TEMPLATES)]
        ),
    )
    authenticator = Authenticator(
        services.sessions,
        services.tokens,
        services.access_tokens,
        config.SESSION_COOKIE_NAME,
    )
    state = AppState(services, authenticator, mount, brand_of(config), config.LOGIN_VIEW)
    app.extensions[EXTENSION] = state
    app.session_interface = SessionInterface(
        app,
        authenticator,
        unknown_actor,
        partial(
            mark_pending,
            within=config.REVALIDATE_SECONDS,
            calls=(api, signup_api, recovery_api, leaving_api, users_api),
        ),
    )
    app.before_request(RequestCheck(mount, _origin_policy(config)))
    app.context_processor(lambda: {"current_user": current_user})
    app.register_error_handler(AuthappError, answer_domain_error)
    register_commands(
        app,
        Deployment(
            config.DATABASE_URL,
            config.DATABASE_SCHEMA,
            services,
            lambda: examine(config, POOL_SIZE, guards=mount.forward_auth),
        ),
    )
    if config.SIGNUP == "closed" and not (app.config.get("SIGNUP") or os.environ.get("SIGNUP")):
        state.remind = partial(remind_of_closed_sign_up, services)
    put_mounted(app, config, state, has_fast_path=not counts_each_request(app))
    return state


def remind_of_closed_sign_up(services: Services) -> None:
    """Tells an operator who may rely on the open sign-up of before that it is closed by default."""
    with suppress(StoreUnavailable):
        if services.users.any_admin():
            _log.warning(
                "sign-up is closed, because SIGNUP is not set: set it to open, domains or invite, "
                "or to closed to say that this is meant"
            )


def counts_each_request(app: Flask) -> bool:
    """Whether Flask-Limiter counts each request."""
    names = ("RATELIMIT_DEFAULT", "RATELIMIT_APPLICATION", "RATELIMIT_META")
    return any(name in app.config for name in names)


def _limiter(app: Flask, config: Config) -> Callable[[], RateLimiter] | None:
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
    limiter = Limiter(
        # Flask-Limiter skips a limit whose key is empty
        key_func=lambda: network_of(request.remote_addr or "") or "unknown",
        in_memory_fallback_enabled=True,
        **storage,
    )
    if not counts_each_request(app):
        # An app that has a limiter already gets no hooks of it. Each request would pay for them.
        app.extensions.setdefault("limiter", set()).add(limiter)
    limiter.init_app(app)
    return (lambda: limiter.limiter) if limiter.enabled else None


def _origin_policy(config: Config) -> OriginPolicy:
    return OriginPolicy(
        config.SESSION_COOKIE_NAME,
        own="/".join(config.PUBLIC_URL.split("/")[:3]),
        trusted=frozenset(config.TRUSTED_ORIGINS),
    )


def _chosen(app: Flask) -> dict[str, Any]:
    """The settings that the app chose. Flask fills in defaults of its own for some of our names.

    `0` is chosen. `False` is Flask's default for SESSION_COOKIE_SECURE, so it counts as chosen only
    where Flask read it from the environment.
    """
    defaults = Flask.default_config
    found = {
        name: value
        for name, value in app.config.items()
        if type(value) is not type(defaults.get(name)) or value != defaults.get(name)
    }
    if "FLASK_SESSION_COOKIE_SECURE" in os.environ:
        found["SESSION_COOKIE_SECURE"] = app.config["SESSION_COOKIE_SECURE"]
    if found.get("SECRET_KEY") and found.get(_FALLBACKS):
        # Flask's own way to rotate: without the former secrets, everybody would be logged out
        secrets = (*Config.read("SECRET_KEY", found["SECRET_KEY"]), *_former_secrets(found))
        found["SECRET_KEY"] = tuple(dict.fromkeys(secrets))
    return found


def _former_secrets(chosen: Mapping[str, Any]) -> list[str]:
    """The secrets in SECRET_KEY_FALLBACKS.

    Raises:
        SettingError: one is weak.
    """
    value = chosen.get(_FALLBACKS) or ()
    values = [value] if isinstance(value, (str, bytes)) else value
    try:
        return [secret for one in values for secret in Config.read("SECRET_KEY", one)]
    except SettingError as error:
        raise SettingError(str(error).replace("SECRET_KEY", _FALLBACKS, 1)) from None


def _tell_of_secure(chosen: Mapping[str, Any], config: Config) -> None:
    """Tells in the log that an app which set SESSION_COOKIE_SECURE to False is not heard."""
    if config.SESSION_COOKIE_SECURE and "SESSION_COOKIE_SECURE" not in chosen:
        _log.warning(
            "session_cookie_is_secure",
            why="SESSION_COOKIE_SECURE is False in app.config, which is Flask's default",
            remedy='set it to True; or to "off" where there is no https',
        )


def _tell_flask(app: Flask, config: Config, chosen: Mapping[str, Any]) -> None:
    """Tells Flask the attributes of cookies.

    Raises:
        SettingError: the app chose another one.
    """
    ours = {
        "SESSION_COOKIE_NAME": config.SESSION_COOKIE_NAME,
        "SESSION_COOKIE_DOMAIN": config.SESSION_COOKIE_DOMAIN or None,
        "SESSION_COOKIE_SECURE": config.SESSION_COOKIE_SECURE,
        "SESSION_COOKIE_SAMESITE": config.SESSION_COOKIE_SAMESITE,
        "SESSION_COOKIE_PATH": config.SESSION_COOKIE_PATH,
        "SESSION_COOKIE_PARTITIONED": config.SESSION_COOKIE_PARTITIONED,
    }
    for name, value in ours.items():
        if name in chosen and Config.read(name, chosen[name]) != getattr(config, name):
            raise SettingError(
                f"{name}: it is {chosen[name]!r} in app.config (perhaps by FLASK_{name}), and "
                f"{value!r} in the settings of authapp: set it once, as {name}"
            )
    if not set(_former_secrets(chosen)) <= set(config.SECRET_KEY):
        raise SettingError(
            f"{_FALLBACKS}: it has a secret that SECRET_KEY in the settings of authapp lacks: add "
            "it there, after the new one and a comma"
        )
    if not app.config["SESSION_COOKIE_HTTPONLY"]:
        raise SettingError(
            "SESSION_COOKIE_HTTPONLY: leave it on, or any script in a page can take the session"
        )
    app.config.update(
        ours,
        SECRET_KEY=config.SECRET_KEY[0],
        SECRET_KEY_FALLBACKS=list(config.SECRET_KEY[1:]),
    )
