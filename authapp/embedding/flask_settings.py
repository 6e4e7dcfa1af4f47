"""Settings that an app chose in `app.config`, and those that Flask has to know."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask

from authapp.config import Config
from authapp.errors import SettingError
from authapp.telemetry.logging import get_logger

_FALLBACKS = "SECRET_KEY_FALLBACKS"  # Flask's name for former secrets

_log = get_logger(__name__)


def chosen_settings(app: Flask) -> dict[str, Any]:
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


def warn_of_secure(chosen: Mapping[str, Any], config: Config) -> None:
    """Tells in the log that an app which set SESSION_COOKIE_SECURE to False is not heard."""
    if config.SESSION_COOKIE_SECURE and "SESSION_COOKIE_SECURE" not in chosen:
        _log.warning(
            "session_cookie_is_secure",
            why="SESSION_COOKIE_SECURE is False in app.config, which is Flask's default",
            remedy='set it to True; or to "off" where there is no https',
        )


def with_login_view(config: Config, chosen: Mapping[str, Any]) -> Config:
    """The settings, with LOGIN_VIEW of `app.config` unless they name one.

    An app writes this one setting in its code, also where all others come from the environment.
    """
    view = chosen.get("LOGIN_VIEW")
    return replace(config, LOGIN_VIEW=view) if view and not config.LOGIN_VIEW else config


def tell_flask(app: Flask, config: Config, chosen: Mapping[str, Any]) -> None:
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
