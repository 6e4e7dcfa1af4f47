"""Answers forward-auth in front of Flask, whose dispatch costs more than the answer.

It decides by the same `ForwardAuth` and answers what is plain: who may pass, and who must log in.
All else goes on to Flask, a refusal with what was decided, so that it is not decided twice.
"""

import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from authapp.web.forward_auth import NGINX, REDIRECT, REFUSAL, ForwardAuth, Refusal
from authapp.web.request_log import given_id, new_id, note_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class VerifyLane:
    """WSGI (PEP 3333).

    Args:
        app: answers all other requests.
        headers: for every answer.
        behind_proxy: the proxy in front says the id of a request, if it has one.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        forward_auth: ForwardAuth,
        headers: Mapping[str, str],
        *,
        behind_proxy: bool,
    ) -> None:
        self._app = app
        self._forward_auth = forward_auth
        self._headers = list(headers.items())
        self._behind_proxy = behind_proxy

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        route, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if route != REDIRECT and (route != NGINX or method not in {"GET", "HEAD"}):
            return self._app(environ, start_response)
        started = time.perf_counter()
        request_id = given_id(environ, behind_proxy=self._behind_proxy) or new_id()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = self._forward_auth.answer(route, environ)
        if isinstance(answer, Refusal):
            environ[REFUSAL] = answer
            return self._app(environ, start_response)
        headers = [
            *answer.headers,
            *(() if answer.status == 200 else self._headers),  # which the proxy reads, no browser
            ("Content-Length", str(len(answer.body))),
            ("X-Request-ID", request_id),
        ]
        start_response(_STATUS_LINES[answer.status], headers)
        note_request(request_id, method, route, answer.status, time.perf_counter() - started)
        return [] if method == "HEAD" else [answer.body]
