"""`SessionInterface`: opens and saves `flask.session`, as a Flask-Session backend."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response
from flask_session.base import ServerSideSessionInterface

from authapp.accounts.actor import Actor
from authapp.errors import StoreUnavailable, UnsavableSession
from authapp.sessions.records import ActiveSession, IssuedLogin
from authapp.telemetry.logging import get_logger
from authapp.web.request_credentials import TOKEN_HEADERS, VARY, Authenticator, RequestCredentials
from authapp.web.session.auth_session import FLASHES, AuthSession, CookieOutcome
from authapp.web.session.cookie_writer import CookieWriter
from authapp.web.session.visitor_data import VisitorData

_log = get_logger(__name__)


class SessionInterface(ServerSideSessionInterface):  # type: ignore[misc]  # Flask-Session: no types
    """Opens and saves `flask.session`.

    Args:
        app: has SECRET_KEY and the attributes of cookies in its settings.
        authenticator: finds the session that credentials belong to.
        actor: the actor of the current request.
        mark_pending: marks the answer to a change that other instances may see late. It is called
            last, when all that the request changes is changed.
    """

    session_class = AuthSession

    def __init__(
        self,
        app: Flask,
        authenticator: Authenticator,
        actor: Callable[[], Actor],
        mark_pending: Callable[[Response], None],
    ) -> None:
        super().__init__(app)
        self._mark_pending = mark_pending
        self._authenticator = authenticator
        self._store = authenticator.store
        self._actor = actor
        self._visitor_data = VisitorData(
            [app.config["SECRET_KEY"], *app.config["SECRET_KEY_FALLBACKS"]],
            authenticator.cookie_name,
            app.permanent_session_lifetime.total_seconds(),
        )
        self.serializer = self._visitor_data.serializer
        self._cookies = CookieWriter(authenticator.cookie_name, self._visitor_data.name, self)

    def open_session(self, app: Flask, request: Request) -> AuthSession:  # noqa: ARG002 - Flask's
        credentials = RequestCredentials(self._authenticator, request.environ)
        return AuthSession(credentials, self._visitor_data)

    def save_session(self, app: Flask, session: AuthSession, response: Response) -> None:
        """Saves what changed, key by key, and sets or clears the cookies where a view asked for it.

        A session that ended while the request ran stays ended. The session's cookie is never
        touched because a store could not be asked.

        Raises:
            UnsavableSession: the data can't be kept. None of its changes were.
        """
        if session.cookie is not CookieOutcome.UNCHANGED:
            self._write_token(app, session, response)
        try:
            if session.is_loaded or session.modified:  # else nobody need be asked who it is
                self._save_data(app, session, response)
        except StoreUnavailable as error:
            _become(response, app.make_response(app.handle_user_exception(error)))
        except UnsavableSession:
            session.reload()  # Flask saves again, with the page that tells of the error
            raise
        if session.accessed or session.cookie is not CookieOutcome.UNCHANGED:
            if response.headers.getlist("Vary"):
                response.vary.update(("Cookie", *TOKEN_HEADERS))
            else:  # to parse and update a set costs more than all else here
                response.headers.add("Vary", VARY)
        if session.is_change_pending:
            self._mark_pending(response)

    def _write_token(self, app: Flask, session: AuthSession, response: Response) -> None:
        visitor = session.credentials
        match session.cookie:
            case CookieOutcome.ISSUED if session.issued:
                self._cookies.issue(app, visitor, session.issued, response)
                self._cookies.delete_visitor_data(app, visitor, response)
            case CookieOutcome.CLEARED:
                self._cookies.clear(app, visitor, response, in_all_scopes=False)
            case CookieOutcome.CLEARED_IN_ALL_SCOPES:
                self._cookies.clear(app, visitor, response, in_all_scopes=True)

    def _save_data(self, app: Flask, session: AuthSession, response: Response) -> None:
        session.load()
        if live := session.live:
            self._save_in_store(session, live)
        elif bool(session):  # more than `_permanent`
            if self.should_set_cookie(app, session):
                max_age = self._visitor_data.max_seconds if session.permanent else None
                value = self._visitor_data.write(session)
                visitor = session.credentials
                self._cookies.set_visitor_data(app, visitor, value, max_age, response)
        elif session.modified:
            self._cookies.delete_visitor_data(app, session.credentials, response)

    def _save_in_store(self, session: AuthSession, live: ActiveSession) -> None:
        changed, removed = session.patch() if session.modified else ({}, [])
        if not changed and not removed:
            return
        try:
            session.settle(self._store.patch(live, changed, removed))
        except StoreUnavailable as error:
            if {*changed, *removed} != {FLASHES}:
                raise
            # The page is right all the same: a message is lost, or shown once more.
            _log.warning("flash_messages_unsaved", store=error.store)

    def regenerate(self, session: AuthSession) -> None:
        """A new token for the same session; the old one is dead at once.

        The session of a program keeps its token: there is no cookie to hand it a new one.
        """
        live = session.live
        if live and live.record.kind == "browser":
            fresh = session.settle(self._store.regenerate(live, self._actor()))
            if fresh:
                session.rotate(IssuedLogin(fresh))
            else:
                session.forget()

    # Flask-Session's storage hooks: it never calls them, as opening and saving are done above.

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        raise NotImplementedError(store_id)

    def _delete_session(self, store_id: str) -> None:
        raise NotImplementedError(store_id)

    def _upsert_session(self, session_lifetime: Any, session: Any, store_id: str) -> None:
        raise NotImplementedError(store_id)


def _become(response: Response, answer: Response) -> None:
    """Turn a response into another one, because Flask can't replace one that is being finished."""
    response.status = answer.status
    response.set_data(answer.get_data())
    response.headers.update(answer.headers)
