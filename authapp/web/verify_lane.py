"""Answers forward-auth in front of Flask, whose dispatch costs more than the answer.

It decides by the same `ForwardAuth` and answers what is plain: who may pass, and who must log in.
All else goes on to Flask, a refusal with what was decided, so that it is not decided twice.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from authapp.web.envelope import ROUTE
from authapp.web.forward_auth import NGINX, REDIRECT, REFUSAL, ForwardAuth, Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class VerifyLane:
    """WSGI (PEP 3333).

    Args:
        app: answers all other requests.
    """

    def __init__(self, app: "WSGIApplication", forward_auth: ForwardAuth) -> None:
        self._app = app
        self._forward_auth = forward_auth

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        route = environ["PATH_INFO"]
        if route != NGINX and route != REDIRECT:  # noqa: PLR1714 - a set takes longer
            return self._app(environ, start_response)
        method = environ["REQUEST_METHOD"]
        if route == NGINX and method not in {"GET", "HEAD"}:
            return self._app(environ, start_response)
        answer = self._forward_auth.answer(route, environ)
        if isinstance(answer, Refusal):
            environ[REFUSAL] = answer
            return self._app(environ, start_response)
        environ[ROUTE] = route
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        start_response(_STATUS_LINES[answer.status], headers)
        return [] if method == "HEAD" or not answer.body else [answer.body]
