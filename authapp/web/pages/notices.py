"""Notices on the page after a form, which say once what was done. Flask's `flash()` carries them.

Messages of `flash()` are in `flask.session`, where nobody but the app can write. So no link makes a
page show a notice.
"""

from flask import flash, get_flashed_messages, redirect, session, url_for
from werkzeug.wrappers import Response

from authapp.web.guards import services
from authapp.web.pages.messages import DONE, within
from authapp.web.session.auth_session import FLASHES, auth_session


def say(name: str) -> None:
    """Have the next page say what was done, and how long other devices may take to notice.

    Args:
        name: of the message, in `messages.py`.
    """
    text = DONE[name]
    if auth_session().is_change_pending:
        text = f"{text} {within(services().revalidate_seconds)}"
    _flash(text)


def redirect_with(name: str, endpoint: str, **values: object) -> Response:
    """Redirect to a page that says what was done.

    Args:
        name: as for `say`.
    """
    say(name)
    return redirect(url_for(endpoint, **values), 303)  # type: ignore[arg-type]


def notices() -> list[str]:
    """The messages for this page. Each is shown once.

    Raises:
        StoreUnavailable: there may be some, and nobody could say whose session this is.
    """
    return get_flashed_messages()  # type: ignore[return-value]  # no categories were asked for


def tells_of_log_out(messages: list[str]) -> bool:
    """Whether one of the messages says that the visitor was logged out."""
    told = DONE["logged-out"], DONE["everybody-signed-out"]
    return any(message.startswith(told) for message in messages)


def _flash(text: str) -> None:
    flash(text, "success")
    if not auth_session().fits():  # the act itself is not refused for want of room for a notice
        session[FLASHES].pop()
        if not session[FLASHES]:
            del session[FLASHES]
