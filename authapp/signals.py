"""Blinker signals about people and sessions, such as `user_logged_in`.

Pages, JSON API, commands, Python API and maintenance all send them. The sender is the Flask app.
`docs/python-api.md` lists the arguments.

A signal is sent after the change is committed. In a request it is sent at the end, when
`current_user` is the person who is signed in by then; elsewhere it is sent at once. If a receiver
raises, the error is logged, and the change stands.
"""

from collections.abc import Iterator
from typing import Any

from blinker import NamedSignal, Namespace
from flask import (
    Flask,
    Response,
    after_this_request,
    current_app,
    has_app_context,
    has_request_context,
    request,
)
from flask.globals import request_ctx

from authapp.accounts.audit import Event, Fact
from authapp.sessions.records import EndReason
from authapp.telemetry.logging import get_logger
from authapp.web.middleware.fast_path import sees_no_plain_request

_log = get_logger(__name__)
_signals = Namespace()

user_signed_up = _signals.signal("authapp.user_signed_up")
user_logged_in = _signals.signal("authapp.user_logged_in")
login_failed = _signals.signal("authapp.login_failed")
user_logged_out = _signals.signal("authapp.user_logged_out")
session_ended = _signals.signal("authapp.session_ended")
password_changed = _signals.signal("authapp.password_changed")
profile_changed = _signals.signal("authapp.profile_changed")
roles_changed = _signals.signal("authapp.roles_changed")
user_activated = _signals.signal("authapp.user_activated")
user_deactivated = _signals.signal("authapp.user_deactivated")
user_deleted = _signals.signal("authapp.user_deleted")
everybody_signed_out = _signals.signal("authapp.everybody_signed_out")

_BY_EVENT: dict[Event, NamedSignal] = {
    "user.created": user_signed_up,
    "session.begun": user_logged_in,
    "login.failed": login_failed,
    "session.ended": session_ended,
    "password.changed": password_changed,
    "password.set": password_changed,
    "password.removed": password_changed,
    "password.added": password_changed,
    "password.reset": password_changed,
    "profile.changed": profile_changed,
    "roles.set": roles_changed,
    "role.granted": roles_changed,
    "role.revoked": roles_changed,
    "user.activated": user_activated,
    "user.deactivated": user_deactivated,
    "user.deleted": user_deleted,
    "sessions.ended_for_everybody": everybody_signed_out,
}

_QUEUE = "authapp.signals"  # in the environment of a request


class SignalSender:
    """Sends the signals of one app."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._has_hook = False

    def __call__(self, fact: Fact) -> None:
        """Has the receivers told of a fact: now, or at the end of the app's current request."""
        if not any(signal.receivers for signal, _ in _told(fact)):
            return
        if not has_request_context() or request_ctx.app is not self._app:
            self._send(fact)
            return
        queue = request.environ.setdefault(_QUEUE, [])
        if not queue:
            after_this_request(self._after_request)
            self._add_hook()
        queue.append(fact)

    def _add_hook(self) -> None:
        """Looks at the end of requests from now on, for facts after the answer was made.

        An app without receivers has no such hook in its requests.
        """
        if not self._has_hook:
            self._has_hook = True
            self._app.teardown_request_funcs.setdefault(None, []).append(self._teardown_request)

    def _after_request(self, response: Response) -> Response:
        self._teardown_request()
        return response

    @sees_no_plain_request
    def _teardown_request(self, _error: BaseException | None = None) -> None:
        while queue := request.environ.pop(_QUEUE, None):  # a receiver may change something, too
            for fact in queue:
                self._send(fact)

    def _send(self, fact: Fact) -> None:
        if not has_app_context() or current_app._get_current_object() is not self._app:  # type: ignore[attr-defined]
            with self._app.app_context():
                return self._send(fact)
        for signal, arguments in _told(fact):
            for receiver in list(signal.receivers_for(self._app)):
                try:
                    self._app.ensure_sync(receiver)(self._app, **arguments)
                except Exception:  # noqa: BLE001 - the act stands, whatever a receiver makes of it
                    _log.exception("signal_receiver_failed", signal=signal.name)
        return None


def _told(fact: Fact) -> Iterator[tuple[NamedSignal, dict[str, Any]]]:
    """The signals of a fact, and their arguments."""
    signal = _BY_EVENT.get(fact.event)
    if signal is None:
        return
    arguments = {
        "user_id": fact.user_id,
        "actor_id": fact.actor.id,
        "address": fact.actor.address,
    }
    if signal is login_failed:
        yield signal, {"email": fact.details["email"], "address": fact.actor.address}
    elif signal is user_logged_in:
        how = {"kind": fact.details["kind"], "method": fact.details.get("method", "password")}
        yield signal, {"user_id": fact.user_id, "address": fact.actor.address, **how}
    elif signal is session_ended:
        reason = str(fact.details["why"])
        yield signal, {"user_id": fact.user_id, "reason": reason}
        if reason == EndReason.LOGOUT:
            yield user_logged_out, {"user_id": fact.user_id, "address": fact.actor.address}
    else:
        yield signal, arguments
