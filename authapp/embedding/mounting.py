"""Mounts pages, API, health and forward-auth in an app, with the WSGI layers in front of it."""

from collections.abc import Callable
from functools import cache, partial

from flask import Flask
from werkzeug.routing import BuildError

from authapp.config import Config
from authapp.crypto.assertion_keys import AssertionKeys
from authapp.errors import AddressUnconfirmed, AuthappError, FactorMissing, FactorUnproven
from authapp.guarding.assertions import AssertionIssuer
from authapp.guarding.rule_file import read_rules
from authapp.web.api.account import api
from authapp.web.api.docs import api_docs
from authapp.web.api.factors import factors_api
from authapp.web.api.invitations import invitations_api
from authapp.web.api.leaving import leaving_api
from authapp.web.api.passkeys import passkeys_api
from authapp.web.api.recovery import recovery_api
from authapp.web.api.signup import signup_api
from authapp.web.api.users import users_api
from authapp.web.app_state import BLUEPRINT, AppState, Mount
from authapp.web.blueprint import OwnBlueprint
from authapp.web.error_handlers import register_error_answers
from authapp.web.forward_auth.answers import ForwardAuth
from authapp.web.forward_auth.asked_address import AskedAddress
from authapp.web.forward_auth.blueprint import KEY_SET, make_forward_auth, make_key_set
from authapp.web.forward_auth.decision import Decision
from authapp.web.forward_auth.login_page import LoginPage
from authapp.web.forward_auth.logout_page import LogoutPage
from authapp.web.forward_auth.proxies import PROXIES
from authapp.web.guards import no_login_view
from authapp.web.health import health
from authapp.web.middleware.client_address import ClientAddress
from authapp.web.middleware.cors import ReadableByOrigins
from authapp.web.middleware.fast_path import FastPath
from authapp.web.middleware.first_request import FirstRequest
from authapp.web.middleware.headers import form_targets, page_policy, security_headers
from authapp.web.middleware.me import ME, Me
from authapp.web.middleware.mount_point import PublicMount, TrustedProxies
from authapp.web.middleware.request import RequestMiddleware
from authapp.web.pages.account import pages
from authapp.web.pages.address import address_pages
from authapp.web.pages.admin import admin
from authapp.web.pages.confirm import confirm_pages
from authapp.web.pages.factors.administration import factor_admin
from authapp.web.pages.factors.login import factor_pages
from authapp.web.pages.factors.passkeys import passkey_pages
from authapp.web.pages.factors.security import security_pages
from authapp.web.pages.factors.sign_up import passkey_sign_up_pages
from authapp.web.pages.invitations import invitation_pages
from authapp.web.pages.leaving import leaving_pages
from authapp.web.pages.recovery import recovery_pages
from authapp.web.pages.rendering import brand_style, change_password, favicon, static_file
from authapp.web.pages.signup import signup_pages
from authapp.web.redirects import start_page

# whose unsafe methods `OriginPolicy` looks at
_WITH_ORIGIN_CHECK = (
    *(pages, signup_pages, recovery_pages, confirm_pages, address_pages, leaving_pages),
    *(passkey_pages, passkey_sign_up_pages, admin, invitation_pages),
    *(api, signup_api, recovery_api, leaving_api, passkeys_api, users_api, invitations_api),
    api_docs,
    *(factor_pages, security_pages, factor_admin, factors_api),
    health,
)


def put_mounted(app: Flask, config: Config, state: AppState, *, has_fast_path: bool) -> None:
    """Adds to an app what `state.mount` says. Comes after all hooks of ours.

    Args:
        has_fast_path: session checks may be answered in front of Flask. That is for the whole
            product alone: hooks of another app must see every request.
    """
    mount = state.mount
    keys = AssertionKeys(config.SECRET_KEY)
    forward_auth = ForwardAuth(
        Decision(state.authenticator, read_rules(config.GUARD_RULES)),
        LoginPage(
            config.ALLOWED_REDIRECT_HOSTS,
            _login_path(app, state),
            cache(lambda: start_page(app.url_map, mount.url_prefix)),
            config.public_origin,
        ),
        AssertionIssuer(keys, config.PUBLIC_URL) if config.PUBLIC_URL else None,
        _remedies(mount, has_mail=bool(config.MAIL_URL)),
        hides_unverified=config.is_verification_required or config.SIGNUP in {"open", "domains"},
    )
    if mount.has_any:
        logout_page = LogoutPage(
            config.ALLOWED_REDIRECT_HOSTS, f"{mount.url_prefix}/logout", config.public_origin
        )
        own = _blueprint(mount, forward_auth, logout_page if mount.pages else None, keys)
        app.register_blueprint(own, url_prefix=mount.url_prefix or None)
    if mount.is_whole_app:
        register_error_answers(app, {*_for_proxies(mount), *_files(mount)})
    else:
        has_fast_path = False
    _put_in_front(app, config, state, forward_auth, has_fast_path=has_fast_path)


def _blueprint(
    mount: Mount, forward_auth: ForwardAuth, logout_page: LogoutPage | None, keys: AssertionKeys
) -> OwnBlueprint:
    """All that is mounted, each part nested in one blueprint with our templates and errors."""
    own = OwnBlueprint(BLUEPRINT, "authapp", template_folder="templates")
    register_error_answers(own, {*_for_proxies(mount), *_files(mount)})
    if mount.has_pages:
        own.add_url_rule(_STATIC, "static", static_file)
        own.add_url_rule(_BRAND, "brand_style", brand_style)
    if mount.is_whole_app:  # else they are the app's
        own.add_url_rule(_FAVICON, "favicon", favicon)
        own.add_url_rule("/.well-known/change-password", "change_password", change_password)
    parts = (
        (mount.pages, pages),
        (mount.pages, confirm_pages),
        (mount.pages, address_pages),
        (mount.pages, leaving_pages),
        (mount.pages, passkey_pages),
        (mount.pages, passkey_sign_up_pages),
        (mount.pages, factor_pages),
        (mount.pages, security_pages),
        (mount.admin, factor_admin),
        (mount.api, factors_api),
        (mount.api, leaving_api),
        (mount.api, passkeys_api),
        (mount.pages, signup_pages),
        (mount.pages, recovery_pages),
        (mount.admin, admin),
        (mount.admin, invitation_pages),
        (mount.api, api),
        (mount.api, signup_api),
        (mount.api, recovery_api),
        (mount.api and mount.admin, users_api),
        (mount.api and mount.admin, invitations_api),
        (mount.api, api_docs),
        (mount.health, health),
        (mount.forward_auth, make_forward_auth(forward_auth, logout_page)),
        (mount.forward_auth, make_key_set(keys)),
    )
    for is_mounted, part in parts:
        if is_mounted:
            own.register_blueprint(part)
    return own


_STATIC, _BRAND = "/static/authapp/<path:filename>", "/static/authapp/brand.css"
_FAVICON = "/favicon.ico"


def _files(mount: Mount) -> frozenset[str]:
    """The routes whose answers browsers may store."""
    files = (_STATIC, _BRAND, _FAVICON, KEY_SET)
    return frozenset((*(mount.url_prefix + path for path in files), KEY_SET))


def _for_proxies(mount: Mount) -> dict[str, frozenset[int]]:
    """By route, the statuses of answers that a proxy reads and no browser does."""
    return {mount.url_prefix + proxy.route: proxy.kept_statuses for proxy in PROXIES}


def _put_in_front(
    app: Flask, config: Config, state: AppState, forward_auth: ForwardAuth, *, has_fast_path: bool
) -> None:
    """Puts the WSGI layers in front of an app, the innermost first."""
    mount, hops = state.mount, config.TRUSTED_PROXY_HOPS
    wsgi = app.wsgi_app
    policy = page_policy(form_targets(config.ALLOWED_REDIRECT_HOSTS), state.brand.logo_origin)
    is_https = config.SESSION_COOKIE_SECURE and mount.is_whole_app  # it is said of a whole host
    if mount.has_any:
        wsgi = RequestMiddleware(
            wsgi,
            security_headers(policy, secure=is_https),
            owns=mount.owns,
            behind_proxy=hops > 0,
            for_proxies=_for_proxies(mount),
            files=_files(mount),
            logs_allowed=config.LOG_ALLOWED_CHECKS,
            fast_path=_fast_path(app, state, forward_auth) if has_fast_path else None,
        )
    if mount.forward_auth:
        wsgi = AskedAddress(wsgi, mount.url_prefix)
    if mount.api and config.CORS_ORIGINS:
        wsgi = ReadableByOrigins(wsgi, mount.url_prefix + ME, config.CORS_ORIGINS)
    app.wsgi_app = ClientAddress(wsgi, hops)  # type: ignore[method-assign]
    if hops:
        app.wsgi_app = TrustedProxies(app, hops)  # type: ignore[method-assign]
    if config.PUBLIC_URL:  # outermost: then no proxy says where we are mounted
        app.wsgi_app = PublicMount(app, config.mount_point)  # type: ignore[method-assign]
    state.first_request = FirstRequest(app, partial(_at_first_request, app, state))


def _fast_path(app: Flask, state: AppState, forward_auth: ForwardAuth) -> FastPath:
    answers = {
        state.mount.url_prefix + proxy.route: partial(forward_auth.try_answer, proxy)
        for proxy in PROXIES
    }
    return FastPath(app, {**answers, ME: Me(state.authenticator).try_answer})


def _at_first_request(app: Flask, state: AppState) -> None:
    """Starts maintenance and mail, and settles with what the app set up after us."""
    state.services.maintenance.keep_running()
    if state.remind is not None:
        state.services.background.submit(state.remind)
    if state.services.mail_sender is not None:
        state.services.mail_sender.keep_running()
    # Flask-WTF's CSRFProtect: our forms have no token of its kind, but the origin check
    exempt = getattr(app.extensions.get("csrf"), "exempt", None)
    if exempt is not None:
        for blueprint in _WITH_ORIGIN_CHECK:
            exempt(blueprint)


def _remedies(mount: Mount, *, has_mail: bool) -> dict[type[AuthappError], str]:
    """The pages where people of guarded apps can mend why they were refused."""
    if not mount.pages:
        return {}
    pages: dict[type[AuthappError], str] = {
        FactorUnproven: f"{mount.url_prefix}/account/confirm",
        FactorMissing: f"{mount.url_prefix}/account/security",
    }
    if has_mail:  # by which they confirm it
        pages[AddressUnconfirmed] = f"{mount.url_prefix}/account"
    return pages


def _login_path(app: Flask, state: AppState) -> Callable[[], str]:
    """Gives the path of the log-in page, without the mount point. Its route may come later."""

    @cache
    def path() -> str:
        if not state.login_view:
            return f"{state.mount.url_prefix}/login"
        try:
            return app.url_map.bind("localhost").build(state.login_view)
        except BuildError:
            raise no_login_view(state.login_view) from None

    return path
