"""The fast path answers session checks in front of Flask, whose dispatch would cost more.

Session checks are forward-auth ("may this request pass?") and `/api/v1/me` ("who is asking?"). The
fast path answers the common cases. All others go on to Flask, with the result of the look-up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from flask import Flask

from authapp.web.middleware.request import ROUTE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


Hook = TypeVar("Hook", bound=Callable[..., Any])
_blind_hooks: WeakSet[Callable[..., Any]] = WeakSet()


def sees_no_plain_request(hook: Hook) -> Hook:
    """Marks a hook of ours that has nothing to do in requests that the fast path answers."""
    _blind_hooks.add(hook)
    return hook


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the fast path."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FastPath:
    """WSGI middleware (PEP 3333) that answers some paths without Flask.

    Hooks that somebody else adds to the application before its first request (`before_request` and
    the like) must see every request. Where there are any, the fast path is closed.

    Args:
        app: the application, with all our own hooks.
        wsgi: answers all other requests.
        answers: path → the function that tries to answer; it returns None to leave it to Flask.
    """

    def __init__(
        self,
        app: Flask,
        wsgi: "WSGIApplication",
        answers: Mapping[str, Callable[[dict[str, Any]], Answer | None]],
    ) -> None:
        self._flask = app
        self._wsgi = wsgi
        self._answers = answers
        self._own_hooks = _hooks(app)
        self._is_open: bool | None = None

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        route = environ["PATH_INFO"]
        try_answer = self._answers.get(route)
        if try_answer is None:
            return self._wsgi(environ, start_response)
        if self._is_open is None:
            hosts = self._flask.config.get("TRUSTED_HOSTS")  # Flask holds requests to these
            self._is_open = not hosts and _hooks(self._flask) == self._own_hooks
        answer = try_answer(environ) if self._is_open else None
        if answer is None:
            return self._wsgi(environ, start_response)
        environ[ROUTE] = route
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        start_response(_STATUS_LINES[answer.status], headers)
        return [answer.body] if answer.body and environ["REQUEST_METHOD"] != "HEAD" else []


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
