"""Sets, clears and expires the cookies of authapp in an answer, with the attributes of the app."""

from collections.abc import Iterable
from typing import Any

from flask import Flask, Response
from flask.sessions import SessionInterface

from authapp.sessions.records import IssuedLogin
from authapp.web.cookies.header import (
    DEVICE_SECONDS,
    base_name,
    device_cookie_name,
    has_several,
    names_in,
    write_devices,
)
from authapp.web.cookies.plain_http import DroppedCookies
from authapp.web.cookies.scopes import Scope, expire, other_scopes, path_prefixes
from authapp.web.request_credentials import RequestCredentials


class CookieWriter:
    """Writes SESSION-TOKEN, DEVICE-TOKEN and VISITOR-DATA.

    Args:
        attributes: tells the attributes that the app is configured for.
    """

    def __init__(self, session_cookie: str, visitor_cookie: str, attributes: SessionInterface):
        self._session_cookie = session_cookie
        self._device_cookie = device_cookie_name(session_cookie)
        self._visitor_cookie = visitor_cookie
        self._interface = attributes
        self._dropped_cookies = DroppedCookies()

    # -- the session's cookie ------------------------------------------------------------------

    def issue(
        self, app: Flask, visitor: RequestCredentials, issued: IssuedLogin, response: Response
    ) -> None:
        """Sets the session's token, and the device tokens where a password was just verified.

        Old cookies are expired before: a browser that takes two scopes for one is left with the
        cookie that counts. A cookie that may be another app's is left alone.
        """
        live, attributes = issued.session, self._attributes(app)
        names = [] if visitor.has_foreign_cookie else [self._session_cookie]
        if issued.devices and has_several(visitor.cookie_header, self._device_cookie):
            names.append(self._device_cookie)
        self._expire_elsewhere(app, visitor, response, names)
        # Not what ends the session (NIST SP 800-63B-4, 5.1.1): the store does that.
        max_age = live.record.idle_seconds if live.record.remembered else None
        response.set_cookie(self._session_cookie, live.token.text, max_age=max_age, **attributes)
        if issued.devices:
            devices = write_devices(issued.devices)
            response.set_cookie(self._device_cookie, devices, max_age=DEVICE_SECONDS, **attributes)
        self._dropped_cookies.note(visitor.environ, secure=attributes["secure"])

    def clear(
        self, app: Flask, visitor: RequestCredentials, response: Response, *, in_all_scopes: bool
    ) -> None:
        """Clears the session's token.

        Args:
            in_all_scopes: also what may be another app's, and for each part of the path.
        """
        if in_all_scopes or not visitor.has_foreign_cookie:
            asked = visitor.environ.get("SCRIPT_NAME", "") + visitor.environ.get("PATH_INFO", "")
            paths = path_prefixes(asked) if in_all_scopes else ()
            self._expire_elsewhere(app, visitor, response, [self._session_cookie], paths)
        response.delete_cookie(self._session_cookie, **self._attributes(app))

    # -- the visitor's data --------------------------------------------------------------------

    def set_visitor_data(
        self,
        app: Flask,
        visitor: RequestCredentials,
        value: str,
        max_age: int | None,
        response: Response,
    ) -> None:
        """Sets VISITOR-DATA, and expires others of its name, which would make it ambiguous."""
        self._expire_visitor_data_elsewhere(app, visitor, response)
        attributes = self._host_only(app)
        response.set_cookie(self._visitor_cookie, value, max_age=max_age, **attributes)
        self._dropped_cookies.note(visitor.environ, secure=attributes["secure"])

    def delete_visitor_data(
        self, app: Flask, visitor: RequestCredentials, response: Response
    ) -> None:
        """Deletes VISITOR-DATA, if it came along."""
        if base_name(self._visitor_cookie) not in visitor.cookie_header:
            return
        self._expire_visitor_data_elsewhere(app, visitor, response)
        response.delete_cookie(self._visitor_cookie, **self._host_only(app))

    def _expire_visitor_data_elsewhere(
        self, app: Flask, visitor: RequestCredentials, response: Response
    ) -> None:
        if has_several(visitor.cookie_header, self._visitor_cookie):
            self._expire_elsewhere(app, visitor, response, [self._visitor_cookie])

    # -- all of them ---------------------------------------------------------------------------

    def _expire_elsewhere(
        self,
        app: Flask,
        visitor: RequestCredentials,
        response: Response,
        names: Iterable[str],
        paths: Iterable[str] = (),
    ) -> None:
        """Expires what the browser sent under these names and may keep in other scopes than ours.

        Args:
            paths: more paths that such a cookie may have.
        """
        scopes: list[Scope] = []
        attributes, environ = self._attributes(app), visitor.environ
        likely = [attributes["path"], "/", environ.get("SCRIPT_NAME", "") or "/", *paths]
        for name in names:
            domain = None if name == self._visitor_cookie else attributes["domain"]
            own = Scope(name, domain, attributes["path"])
            host = environ.get("HTTP_HOST", "")
            scopes += other_scopes(own, visitor.cookie_header, host, likely)
            if attributes["partitioned"] and name in names_in(visitor.cookie_header):
                scopes.insert(0, own)  # a cookie that is not partitioned, from before
        expire(response, scopes, secure=attributes["secure"], samesite=attributes["samesite"])

    def _attributes(self, app: Flask) -> dict[str, Any]:
        interface = self._interface
        return {
            "domain": interface.get_cookie_domain(app),
            "path": interface.get_cookie_path(app),
            "secure": interface.get_cookie_secure(app),
            "httponly": True,
            "samesite": interface.get_cookie_samesite(app) or "Lax",
            "partitioned": interface.get_cookie_partitioned(app),
        }

    def _host_only(self, app: Flask) -> dict[str, Any]:
        return {**self._attributes(app), "domain": None}
