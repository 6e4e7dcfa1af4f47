"""The Flask extension: sessions, guards, errors, pages and API of authapp in any Flask app.

`Auth` is for other apps; `create_app` calls `set_up` itself.
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
    """The arguments of `Auth` and `init_app`: see `Mount`."""

    url_prefix: str
    pages: bool
    api: bool
    admin: bool
    health: bool
    forward_auth: bool


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
        """Logs the visitor in; the cookie goes out with the answer.

        With a user of `auth.users` in place of email and password, the visitor is logged in as that
        user, and nothing is verified: the app has done it, by OAuth for example. No limit counts
        such a log-in. It needs Postgres, and its event in the audit log has the method
        `application`.

        Args:
            amr: with a user, how the app verified them, in words of RFC 8176. With `mfa`, `otp`,
                `hwk` or `swk` among them a person who holds a second factor is not asked for it.
        Raises:
            InvalidField, InvalidCredentials, TooManyAttempts, StoreUnavailable: unless the view
                catches them they become HTTP errors. A user who is deactivated or deleted is
                refused with `InvalidCredentials`.
            PasswordChangeRequired: the password is a one-time one. Unless the view catches it,
                people are led to our page that asks for another, if pages are mounted.
            SecondFactorRequired: the person must show a second factor. Unless the view catches it,
                people are led to our page that asks for it, if pages are mounted.
        """
        if isinstance(email, Identity):
            return log_in_visitor_as(email.id, remember=remember, amr=amr)
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
    """Tells an operator who may rely on the open sign-up of before that it is closed by default."""
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
