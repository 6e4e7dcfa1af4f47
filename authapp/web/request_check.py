"""The check of every request of an app, before its view runs."""

from flask import Flask, Request, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from authapp.telemetry.logging import get_logger
from authapp.web.api.bodies import MAX_BODY, MAX_FIELDS, expect_whole_body
from authapp.web.app_state import Mount
from authapp.web.csrf import SAFE_METHODS, OriginPolicy
from authapp.web.error_handlers import answer_error
from authapp.web.session.interface import SessionInterface

_log = get_logger(__name__)

_ANNOUNCE_BODY = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"})


class RequestCheck:
    """Refuses a request whose body is cut short, or that another origin made a browser send.

    A safe request without a body passes at once. Our own views take fewer parameters and shorter
    bodies. Below our paths, an address that is not there has an error page of ours.

    Raises:
        RuntimeError: another extension took `flask.session` over.
    """

    def __init__(self, mount: Mount, origins: OriginPolicy) -> None:
        self._mount = mount
        self._has_mounted = mount.has_any
        self._owns_all = mount.is_whole_app
        self._origins = origins
        self._is_first = True

    def __call__(self) -> ResponseReturnValue | None:
        if self._is_first:  # by now every extension of the app is set up
            _check_neighbours(current_app)
            self._is_first = False
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        if self._owns_all or (self._has_mounted and self._mount.owns(current)):
            error = current.routing_exception
            if error is not None and not self._owns_all and (error.code or 500) >= 400:
                return answer_error(error, ())
            _bound(current)
        if _ANNOUNCE_BODY & current.environ.keys():
            expect_whole_body(current)
        if current.method not in SAFE_METHODS:
            self._origins.check(current)
        return None


def _bound(request: Request) -> None:
    # each parameter takes its time, and no address of ours has so many
    if request.environ.get("QUERY_STRING", "").count("&") > MAX_FIELDS:
        raise BadRequest(f"Send at most {MAX_FIELDS} parameters.")
    request.max_content_length = min(MAX_BODY, request.max_content_length or MAX_BODY)


def _check_neighbours(app: Flask) -> None:
    """Looks for other extensions that would show people who are signed in here as anonymous."""
    is_ours = isinstance(app.session_interface, SessionInterface)
    if not is_ours:
        raise RuntimeError(
            "another extension replaced app.session_interface, so authapp can't see any session: "
            "remove its set-up, such as Session(app) of Flask-Session"
        )
    manager = getattr(app, "login_manager", None)
    if manager is not None and getattr(manager, "request_callback", None) is None:
        _log.warning(
            "Flask-Login does not know who is signed in by authapp, so its current_user, also in "
            "templates, is anonymous for them: give it a request_loader that reads "
            "authapp.current_user"
        )
