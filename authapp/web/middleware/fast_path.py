"""Answers session checks in front of Flask, whose dispatch costs more than the answer: whether a
request may pass (forward-auth), and who is asking (`/api/v1/me`).

It answers what is plain. All else goes on to Flask, with what was found already.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask

from authapp.web.middleware.envelope import ROUTE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is plain to answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class VerifyLane:
    """WSGI (PEP 3333).

    What others hang on each request of the application (`before_request` and the like), before its
    first, shall see these too: then all of them go to Flask.

    Args:
        app: the application, with all hooks of ours.
        wsgi: answers all other requests.
        answers: by path; None for what is not plain.
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
        plain = self._answers.get(route)
        if plain is None:
            return self._wsgi(environ, start_response)
        if self._is_open is None:
            hosts = self._flask.config.get("TRUSTED_HOSTS")  # Flask holds requests to these
            self._is_open = not hosts and _hooks(self._flask) == self._own_hooks
        answer = plain(environ) if self._is_open else None
        if answer is None:
            return self._wsgi(environ, start_response)
        environ[ROUTE] = route
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        start_response(_STATUS_LINES[answer.status], headers)
        return [answer.body] if answer.body and environ["REQUEST_METHOD"] != "HEAD" else []


def _hooks(app: Flask) -> list[Any]:
    """What sees requests, of all or of a blueprint."""
    found = (
        *(app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs),
        app.url_value_preprocessors,
    )
    hooks = [{scope: list(functions) for scope, functions in kind.items()} for kind in found]
    return [*hooks, list(app.teardown_appcontext_funcs)]
