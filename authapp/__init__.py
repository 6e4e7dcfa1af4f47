"""Sessions and log-in for Flask, and for any web app behind a proxy.

The promise: either store can die and nobody is logged out; and nobody who was logged out gets back
in. `__all__` names the public API.

The parts of the package, top down. A part imports only parts below it:

    __main__, wsgi     the console script `authapp`; the WSGI application
    testing            pytest fixtures for apps that embed authapp
    app, extension     `create_app`: the whole product; `Auth`: the Flask extension
    embedding          the embedding app's settings, rate limiter and mounted blueprints
    signals            blinker signals about people and sessions
    python_api         `auth.users`, `auth.sessions` and `auth.roles`
    serving, dev       configuration of gunicorn and granian; `make run` with its own stores
    web, cli           HTTP (pages, API, forward-auth, `flask.session`); the command line
    services           the stores and use cases that `web` and `cli` call
    doctor             checks of settings and stores
    assembly           builds parts from the settings: stores, mail, passwords, maintenance
    authentication     log-in, sign-up, change of password, rate limits of attempts
    guarding           forward-auth: demands on a request, assertions to the guarded app
    mail               the queue of mails, one-time links, SMTP
    sessions           begin, find, change and end sessions
    accounts           users, roles, emails, the audit log, import
    cache              the versioned cache in Redis, and changes that invalidate it
    passwords          the policy for new passwords; hashing, and its queue
    storage            Postgres and Redis: connections, time-outs, circuit breakers, tables
    crypto, telemetry  keys and tokens; metrics and logs
    config             the settings; `setting_types`: parsers of their values
    assertions         for guarded apps: verifies assertions; imports no other part
    brand              the deployment's name and colours
    processors         the number of processors that this process may use
    errors             the exceptions that callers may catch

A request: `web/middleware` → guard → `SessionStore.find` → `Identity` → view. Requests that only
check a session (forward-auth, `GET /api/v1/me`) are answered by the middleware, in front of Flask.
A log-in: page or API → `Authentication.log_in` → stores → cookie. `docs/architecture.md` gives the
reasons.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authapp.accounts.actor import OPERATOR, Actor
    from authapp.app import create_app
    from authapp.config import Config
    from authapp.extension import Auth
    from authapp.storage.models import User, users_table
    from authapp.web.guards import (
        current_user,
        login_required,
        permission_required,
        roles_required,
        step_up_required,
    )

__all__ = [
    "OPERATOR",
    "Actor",
    "Auth",
    "Config",
    "User",
    "create_app",
    "current_user",
    "login_required",
    "permission_required",
    "roles_required",
    "step_up_required",
    "users_table",
]

_HOMES = {
    "OPERATOR": "authapp.accounts.actor",
    "Actor": "authapp.accounts.actor",
    "Auth": "authapp.extension",
    "Config": "authapp.config",
    "User": "authapp.storage.models",
    "create_app": "authapp.app",
    "users_table": "authapp.storage.models",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562).

    So a server can name the directory of its metrics before prometheus-client is imported.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "authapp.web.guards")), name)
    globals()[name] = value
    return value
