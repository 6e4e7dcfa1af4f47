"""The visitor and the guards of views: `current_user`, `login_required`, `step_up_required`…"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from flask import current_app, request, url_for
from werkzeug.local import LocalProxy
from werkzeug.routing import BuildError

from authapp.accounts.actor import Actor
from authapp.accounts.identity import Identity
from authapp.accounts.visible_text import shown
from authapp.authentication.addresses import read_address
from authapp.errors import Forbidden, NotAuthenticated
from authapp.services import Services
from authapp.sessions.records import ActiveSession
from authapp.sessions.user_agents import MAX_USER_AGENT
from authapp.web.app_state import BLUEPRINT, state_of
from authapp.web.session.auth_session import auth_session

P = ParamSpec("P")
R = TypeVar("R")


# The person whose session this request belongs to. Without a session: `ANONYMOUS`, which is false.
# Reading any attribute raises StoreUnavailable while neither store can say whose session it is.
current_user: Any = LocalProxy(auth_session, "identity")


def services() -> Services:
    """The stores and use cases of the current application."""
    return state_of().services


def is_own_view() -> bool:
    """Whether one of our own views answers the current request."""
    return state_of().mount.serves(request)


def login_url(onward: str | None = None) -> str | None:
    """Where people log in: the app's own page if it names one, else ours; None if there is none.

    Args:
        onward: where log-in shall lead.

    Raises:
        RuntimeError: LOGIN_VIEW names no endpoint that can be linked to.
    """
    state = state_of()
    if not state.login_view:
        return url_for(f"{BLUEPRINT}.pages.login", next=onward) if state.mount.pages else None
    try:
        return url_for(state.login_view, next=onward)
    except BuildError:
        raise no_login_view(state.login_view) from None


def confirm_url(onward: str | None = None) -> str | None:
    """The page that asks for the password again; None if it is not mounted.

    Args:
        onward: where the page shall lead.
    """
    if not state_of().mount.pages:
        return None
    return url_for(f"{BLUEPRINT}.confirm.confirm", next=onward)


def no_login_view(name: str) -> RuntimeError:
    """LOGIN_VIEW names no endpoint that can be linked to."""
    return RuntimeError(
        f"LOGIN_VIEW: there is no endpoint {name!r} without parameters; name the one of your "
        "log-in page, as `url_for` takes it"
    )


def unknown_actor() -> Actor:
    """The actor of the current request, whoever they are. Looks no session up."""
    # again, as a layer that an embedding app put between may have set another one
    address = read_address(request.remote_addr or "") or ""
    user_agent = shown(request.user_agent.string[:MAX_USER_AGENT])
    return Actor(address=address, user_agent=user_agent)


def known_actor() -> Actor:
    """The actor of the current request, who is logged in.

    Raises:
        NotAuthenticated: nobody is.
    """
    return unknown_actor().known_as(require_live().record.user.id)


def require_live() -> ActiveSession:
    """The live session of the visitor.

    Raises:
        NotAuthenticated: there is none.
    """
    visitor = auth_session()
    live = visitor.live
    if live is None:
        raise NotAuthenticated(presented=visitor.credentials.has_token)
    return live


def require_roles(*names: str) -> Identity:
    """The person asking, who has any of these roles.

    Raises:
        NotAuthenticated: nobody is asking.
        Forbidden: they have none of the roles.
    """
    person = require_live().record.user
    if not person.has_role(*names):
        raise Forbidden(f"this needs the role {' or '.join(names)}")
    return person


def require_permission(permission: str) -> Identity:
    """The person asking, one of whose roles allows this.

    Raises:
        NotAuthenticated: nobody is asking.
        Forbidden: none does.
    """
    person = require_live().record.user
    if not person.can(permission):
        raise Forbidden(f"this needs the permission {permission}")
    return person


def require_step_up() -> ActiveSession:
    """The live session of the visitor, who proved not long ago who they are.

    Raises:
        NotAuthenticated: there is none.
        StepUpRequired: the proof is too old. People are led to the page that asks for another.
    """
    live = require_live()
    services().step_up.require_fresh(live)
    return live


def login_required(view: Callable[P, R]) -> Callable[P, R]:
    """Decorator: only people who are signed in reach the view.

    Other people are sent to log in; programs get 401. The view may be `async def`, as with Flask
    (extra `flask[async]`); the same is true of the other guards.
    """

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        require_live()
        return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

    return guarded


def step_up_required(view: Callable[P, R]) -> Callable[P, R]:
    """Decorator: only people with a fresh proof, not older than STEP_UP_SECONDS, reach the view.

    Other people are asked for their password, or for their second factor, and come back by GET;
    programs get 403 `step_up_required`. Write it below other guards, so that only people who may
    do the act are asked. Guard the view that shows a form as well as the one that takes it, so that
    people are asked before they type.
    """

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        require_step_up()
        return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

    return guarded


def roles_required(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: only people with any of these roles reach the view; others get 403."""
    if not names:
        raise ValueError("roles_required needs at least one role")

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            require_roles(*names)
            return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

        return guarded

    return decorate


def permission_required(permission: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: only people whose roles have this permission reach the view; others get 403."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            require_permission(permission)
            return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

        return guarded

    return decorate
