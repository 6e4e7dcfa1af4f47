"""The Flask extension `Auth`: sessions, guards, errors, pages and API of authapp in a Flask app.

`create_app`, which builds authapp as a product of its own, calls `set_up` directly.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, TypedDict, Unpack, overload

from flask import Flask
from jinja2 import ChoiceLoader, FileSystemLoader

from authapp.accounts.authority.roles import known_permissions
from authapp.accounts.identity import Identity
from authapp.assembly.capacity import POOL_SIZE
from authapp.assembly.mailing import TEMPLATES, brand_of
from authapp.cli.deployment import Deployment
from authapp.cli.tree import register_commands
from authapp.config import Config
from authapp.doctor import examine
from authapp.embedding.flask_settings import (
    chosen_settings,
    tell_flask,
    warn_of_secure,
    with_login_view,
)
from authapp.embedding.limiter import build_limiter, counts_each_request
from authapp.embedding.mounting import put_mounted
from authapp.errors import AuthappError, SettingError, StoreUnavailable
from authapp.python_api import Roles, Sessions, Users
from authapp.services import Services, build_services
from authapp.sessions.records import ActiveSession
from authapp.signals import SignalSender
from authapp.telemetry.logging import get_logger
from authapp.web.api.account import api
from authapp.web.api.leaving import leaving_api
from authapp.web.api.passkeys import passkeys_api
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
    """The arguments by which `Auth` and `init_app` mount parts of authapp: see `Mount`."""

    url_prefix: str
    pages: bool
    api: bool
    admin: bool
    health: bool
    forward_auth: bool


_NONE: Mapping[str, str] = MappingProxyType({})

_log = get_logger(__name__)


class Auth:
    """Flask extension for sessions and log-in.

    `flask.session` becomes the server-side session, and `current_user` the person it belongs to.
    `Auth(app)` adds no routes. `Auth(app, url_prefix="/auth", pages=True)` adds the pages under
    `/auth`; `Mount` lists all other parts.

    Settings come from `app.config`, under the names in `authapp/config.py`. With the argument
    `config`, such as `Config.from_env()`, `app.config` is not read, except for LOGIN_VIEW.

    The extension keeps no state, so one object may serve several apps. State is in
    `app.extensions["authapp"]`, an `AppState`.

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
        """Without `app`, call `init_app` later.

        Args:
            config: the settings; None: those in `app.config`.
            permissions: the app's own permissions, which roles may include, with descriptions:
                `{"reports:read": "See the reports"}`.
            mount: the parts to mount, and where; see `Mount`.
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
            config: as for `Auth`.
            permissions, mount: as for `Auth`, in addition to what `Auth` was given.

        Raises:
            SettingError: a setting is missing or malformed, or the name of a permission is.
            RuntimeError: the app has an `Auth` already.
            ValueError: `url_prefix` is malformed, or nothing is mounted below it.
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
        """Decorator: accepts unsafe requests to this view from any origin.

        For a SAML response or a call-back of a payment. Write `@auth.exempt` below `@app.route`.
        The view must verify the request by other means, such as a signature, because a page of
        another site can make a person's browser send it.
        """
        return from_any_origin(view)

    @overload
    def log_in(
        self, user: Identity, /, *, remember: bool = False, amr: tuple[str, ...] = ()
    ) -> ActiveSession: ...

    @overload
    def log_in(self, email: str, password: str, *, remember: bool = False) -> ActiveSession: ...

    def log_in(
        self,
        email: str | Identity,
        password: str | None = None,
        *,
        remember: bool = False,
        amr: tuple[str, ...] = (),
    ) -> ActiveSession:
        """Logs the visitor in, and sets the session's cookie on the response.

        `log_in(email, password)` verifies the password. `log_in(user)`, with a user of
        `auth.users`, verifies nothing: the app has verified the person, for example by OAuth. No
        rate limit counts such a log-in. It needs Postgres, and its event in the audit log has the
        method `application`.

        Args:
            remember: keep the session after the browser is closed, for REMEMBER_ME_SECONDS.
            amr: with a user, how the app verified them, in words of RFC 8176. With `mfa`, `otp`,
                `hwk` or `swk` a person who holds a second factor is not asked for it.
        Raises:
            InvalidField, InvalidCredentials, TooManyAttempts, StoreUnavailable: unless the view
                catches them they become HTTP errors. A user who is deactivated or deleted is
                refused with `InvalidCredentials`.
            PasswordChangeRequired: the password is a one-time password. Unless the view catches
                it, and if pages are mounted, the person is sent to our page to choose another.
            SecondFactorRequired: the person must show a second factor. Unless the view catches
                it, and if pages are mounted, the person is sent to our page that asks for it.
        """
        if isinstance(email, Identity):
            return log_in_visitor_as(email.id, remember=remember, amr=amr)
        if password is None:
            raise TypeError("log_in takes an email and a password, or a user of auth.users")
        return log_in_visitor(email, password, remember=remember)

    def next_url(self, default: str) -> str:
        """The URL to redirect to after a log-in at the app's own page.

        It is `next` of the form, else `next` of the query, if that leads to this host or to one of
        ALLOWED_REDIRECT_HOSTS (OWASP ASVS 5.0, 3.7.2). Otherwise it is `default`.
        """
        return next_target() or default

    def sign_out_reason(self) -> str | None:
        """Why the visitor's last session ended, as a sentence for the app's own log-in page.

        None if there was no session, or if the visitor logged out.

        Raises:
            StoreUnavailable: neither store could say.
        """
        return sign_out_reason()

    def log_out(self) -> None:
        """Ends the visitor's session, if there is one, and deletes the cookie.

        Raises:
            StoreUnavailable: the session could not be ended; nothing was changed.
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
    chosen = chosen_settings(app)
    if config is None:
        config = Config.from_mapping(chosen)
        warn_of_secure(chosen, config)
    else:
        config = with_login_view(config, chosen)
    if mount.forward_auth and not mount.pages and not config.LOGIN_VIEW:
        raise SettingError(
            "LOGIN_VIEW: forward-auth sends people to log in; set it to the endpoint of your "
            "log-in page, or mount ours with pages=True"
        )
    if mount.url_prefix and f"{config.mount_point}/".endswith(f"{mount.url_prefix}/"):
        raise SettingError(
            f"PUBLIC_URL: leave {mount.url_prefix} out at its end, it is added as url_prefix says"
        )
    tell_flask(app, config, chosen)
    services = build_services(
        config,
        build_limiter(app, config),
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
            calls=(api, signup_api, recovery_api, leaving_api, passkeys_api, users_api),
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
            config.SESSION_COOKIE_NAME,
            config.PUBLIC_URL,
        ),
    )
    if config.SIGNUP == "closed" and not (app.config.get("SIGNUP") or os.environ.get("SIGNUP")):
        state.remind = partial(remind_of_closed_sign_up, services)
    put_mounted(app, config, state, has_fast_path=not counts_each_request(app))
    return state


def remind_of_closed_sign_up(services: Services) -> None:
    """Logs that sign-up is closed by default. In a former version it was open."""
    with suppress(StoreUnavailable):
        if services.users.any_admin():
            _log.warning(
                "sign-up is closed, because SIGNUP is not set: set it to open, domains or invite, "
                "or to closed to say that this is meant"
            )


def _origin_policy(config: Config) -> OriginPolicy:
    return OriginPolicy(
        config.SESSION_COOKIE_NAME,
        own=config.public_origin,
        trusted=frozenset(config.TRUSTED_ORIGINS),
    )
