"""authapp keeps people signed in: either store can die and nobody is logged out, and nobody who was
logged out gets back in.

The house, from the top; imports only point down:

    __main__, wsgi     the console script `authapp`; the WSGI application
    testing            pytest fixtures for apps that embed authapp
    app, extension     `create_app`: the whole product; `Auth`: the Flask extension
    embedding          for each app: the settings it chose, its limiter, what is mounted in it
    signals            what happened to people and sessions, for receivers of an app
    python_api         `auth.users`, `auth.sessions` and `auth.roles` for the code of an app
    serving, dev       how gunicorn and granian serve it; embedded engines and `make run`
    web, cli           the edges: pages, API, forward-auth, `flask.session`; the command line
    services           the stores and use cases that the edges call, built from the settings
    doctor             examines settings and stores
    assembly           builds parts from the settings: stores, mailing, passwords, maintenance
    authentication     log-in, sign-up, change of password, limits of attempts
    guarding           guards other apps: what is demanded of a request, what is asserted to the app
    mail               mails that wait, one-time links, and how they leave
    sessions           begin, find, change, end
    accounts           users, roles, emails, the audit log, import
    cache              copies in Redis, and the changes that keep them true
    passwords          which ones are accepted; hashing, and its queue
    storage            Postgres and Redis: connections, bounds, circuit breakers, tables
    crypto, telemetry  keys and tokens; metrics and logs
    config             settings from the environment; `setting_types`: the kinds of their values
    assertions         for guarded apps: verifies what is asserted to them; needs no other part
    brand              name and look on pages and in mails
    processors         processors this process may use
    errors             what callers may catch

A request flows `web/middleware` → guard → `SessionStore.find` → `Identity` → view. A session check
alone (forward-auth, `GET /api/v1/me`) is answered in front of Flask. A log-in flows page or API →
`Authentication.log_in` → stores → cookie. `docs/architecture.md` says why.
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
