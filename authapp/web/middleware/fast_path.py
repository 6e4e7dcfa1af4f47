"""The fast path answers session checks in front of Flask, whose dispatch would cost more.

Session checks are forward-auth ("may this request pass?") and `/api/v1/me` ("who is asking?"). The
fast path answers the common cases. All others go on to Flask, with the result of the look-up.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakSet

import msgspec
from flask import Flask

Hook = TypeVar("Hook", bound=Callable[..., Any])
_blind_hooks: WeakSet[Callable[..., Any]] = WeakSet()


def sees_no_plain_request(hook: Hook) -> Hook:
    """Marks a hook of ours that has nothing to do in requests that the fast path answers."""
    _blind_hooks.add(hook)
    return hook


class Answer(msgspec.Struct, frozen=True):
    """An answer of the fast path.

    Attributes:
        headers: without the length, the id and the security headers, which the request middleware
            adds.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FastPath:
    """Answers some paths without Flask.

    Hooks that somebody else adds to the application before its first request (`before_request` and
    the like) must see every request. Where there are any, the fast path is closed.

    Args:
        app: the application, with all our own hooks.
        answers: path → the function that tries to answer; it returns None to leave it to Flask.
    """

    def __init__(
        self, app: Flask, answers: Mapping[str, Callable[[dict[str, Any]], Answer | None]]
    ) -> None:
        self._flask = app
        self._answers = answers
        self._own_hooks = _hooks(app)
        self._is_open: bool | None = None

    def try_answer(self, environ: dict[str, Any]) -> Answer | None:
        """The answer; None: Flask answers."""
        try_answer = self._answers.get(environ["PATH_INFO"])
        if try_answer is None:
            return None
        if self._is_open is None:
            hosts = self._flask.config.get("TRUSTED_HOSTS")  # Flask holds requests to these
            self._is_open = not hosts and _hooks(self._flask) == self._own_hooks
        return try_answer(environ) if self._is_open else None


def _hooks(app: Flask) -> list[Any]:
    """The functions that see requests, of the application and of its blueprints."""
    found = (
        *(app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs),
        app.url_value_preprocessors,
    )
    hooks = [
        (id(kind), scope, hook)
        for kind in found
        for scope, functions in kind.items()
        for hook in functions
        if getattr(hook, "__func__", hook) not in _blind_hooks
    ]
    return [*hooks, *app.teardown_appcontext_funcs]
