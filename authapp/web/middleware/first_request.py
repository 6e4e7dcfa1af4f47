"""Does what each process does once, before its first request."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

from flask import Flask

from authapp.telemetry.forks import start_in_forks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


class FirstRequest:
    """WSGI middleware (PEP 3333) that acts once in each process, before its first request.

    A server may fork after the app was made. A process that answers requests is one that stays.
    Afterwards this layer steps aside, unless the app put another one in front of it.

    Args:
        app: this layer puts itself in front of it. Whoever made it keeps it, for later forks.
        act: is called then; all routes and extensions of the app are there.
    """

    def __init__(self, app: Flask, act: Callable[[], None]) -> None:
        self._flask = app
        self._act = act
        self._app = app.wsgi_app
        self._begin()
        start_in_forks(self._begin)

    def _begin(self) -> None:
        self._lock = Lock()
        self._has_acted = False
        if self._flask.wsgi_app is self._app:
            self._flask.wsgi_app = self  # type: ignore[method-assign]

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if not self._has_acted:
            with self._lock:
                if not self._has_acted:
                    self._act()
                    self._has_acted = True
            if self._flask.wsgi_app is self:
                self._flask.wsgi_app = self._app  # type: ignore[method-assign]
        return self._app(environ, start_response)
