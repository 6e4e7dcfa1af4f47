"""Mailed links: their token leaves the address bar at once, and waits sealed in `flask.session`."""

import base64
import binascii
from typing import Final

from flask import Response, after_this_request, current_app, redirect, session, url_for
from markupsafe import escape
from werkzeug.wrappers import Response as AnyResponse

from authapp.crypto.sealing import Sealer
from authapp.mail.one_time_links import Purpose, is_spelt
from authapp.web.session.auth_session import auth_session

KEYS: Final[dict[Purpose, str]] = {
    "verify": "_verify_link",
    "reset": "_reset_link",
    "change_email": "_change_email_link",
    "undo_email": "_undo_email_link",
}

ONWARD: Final = "_reset_onward"


def set_aside(purpose: Purpose, token: str, endpoint: str, onward: str = "") -> AnyResponse:
    """Takes the token out of the address bar: leads to the page that finds it by `waiting`.

    Nothing is used up. The token is sealed, because the session of somebody who is signed in is
    kept in the stores, where no token that can be used ever is.

    Args:
        onward: where that page shall lead, as `next` in its address; "" if nowhere.
    """
    if is_spelt(token):
        sealed = _sealer().seal(KEYS[purpose], token.encode())
        session[KEYS[purpose]] = base64.urlsafe_b64encode(sealed).decode()
    else:
        drop(purpose)  # or the page would show a form for the link before this one
    refer_nobody()
    page = url_for(endpoint, next=onward or None)
    if current_app.config["SESSION_COOKIE_SAMESITE"] == "Strict":
        # A browser that comes from a mail sends such a cookie only to where a page of ours leads.
        link = f'<a href="{escape(page)}">Go on</a>'
        html = f'<!doctype html><html lang="en"><title>…</title>{link}</html>'
        return Response(html, headers={"Refresh": f"0; url={page}"}, mimetype="text/html")
    return redirect(page, 303)


def waiting(purpose: Purpose) -> str:
    """The token that was set aside; empty where there is none."""
    try:
        sealed = base64.urlsafe_b64decode(session.get(KEYS[purpose], ""))
    except (binascii.Error, TypeError, ValueError):
        return ""
    opened = _sealer().open(KEYS[purpose], sealed)
    return "" if opened is None else opened.decode()


def drop(purpose: Purpose) -> None:
    """Forgets the token that was set aside, once its link is used up."""
    session.pop(KEYS[purpose], None)


def keep_onward(onward: str | None) -> None:
    """Keeps where a person wanted to go who asked for a link, if there is room: the mail can't say.

    Args:
        onward: a target that was found to be safe; None if nowhere.
    """
    session.pop(ONWARD, None)
    if onward:
        session[ONWARD] = onward
        if not auth_session().fits():
            del session[ONWARD]


def kept_onward() -> str | None:
    """Where the person wanted to go who asked for a link in this browser; not checked."""
    onward = session.get(ONWARD)
    return onward if isinstance(onward, str) else None


def refer_nobody() -> None:
    """Has the browser tell nobody from which page it came.

    It then says `Origin: null` of the form on this page, so the view that takes the form is marked
    with `from_hidden_origin`.
    """

    def add(response: Response) -> Response:
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    after_this_request(add)


def _sealer() -> Sealer:
    config = current_app.config
    return Sealer([config["SECRET_KEY"], *config["SECRET_KEY_FALLBACKS"]], "mailed links")
