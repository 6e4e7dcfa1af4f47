"""`flask.session` and its cookie: a Flask-Session backend that reads nothing before it is used."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Flask, Request, Response
from flask_session.base import ServerSideSession, ServerSideSessionInterface

from authapp.accounts.actor import Actor
from authapp.accounts.identity import ANONYMOUS, Anonymous, Identity
from authapp.errors import StoreUnavailable
from authapp.sessions.records import ActiveSession, LookupResult
from authapp.web.cookies.header import (
    DEVICE_SECONDS,
    device_cookie_name,
    names_in,
    names_under,
    write_devices,
)
from authapp.web.cookies.plain_http import DroppedCookies
from authapp.web.cookies.scopes import Scope, expire, other_scopes, path_prefixes
from authapp.web.middleware.request_log import note_user
from authapp.web.pending_changes import are_pending
from authapp.web.request_credentials import TOKEN_HEADERS, VARY, Authenticator, RequestCredentials
from authapp.web.session.data import SessionSerializer, is_same


class AuthSession(ServerSideSession):  # type: ignore[misc]  # Flask-Session ships no types
    """The visitor's session. Their identity and data are read together, at the first use.

    Keys can be set only once somebody is logged in: a visitor without a session leaves nothing
    behind. Those set before are dropped at the end of the request.
    """

    def __init__(self, credentials: RequestCredentials, serializer: SessionSerializer) -> None:
        super().__init__()
        self.credentials = credentials
        self._serializer = serializer
        self._found: LookupResult = None
        self._has_found = False
        self._has_data = False
        self.issued: ActiveSession | None = None
        self.forgotten = False
        self.in_all_scopes = False

    # -- who -----------------------------------------------------------------------------------

    @property
    def found(self) -> LookupResult:
        """The result of looking the visitor's session up, which happens once a request.

        Raises:
            StoreUnavailable: nobody could say.
            TwoIdentities: the visitor sent two tokens that may name two sessions.
        """
        self.accessed = True
        if not self._has_found:
            self._found = self.credentials.find()
            self._has_found = True
        return self._found

    @property
    def live(self) -> ActiveSession | None:
        found = self.found
        return found if isinstance(found, ActiveSession) else None

    @property
    def identity(self) -> Identity | Anonymous:
        live = self.live
        return live.record.user if live else ANONYMOUS

    @property
    def is_known(self) -> bool:
        """Whether who the visitor is has been asked already, so that asking again costs nothing."""
        return self._has_found or not self.credentials.needs_lookup

    @property
    def is_unknown(self) -> bool:
        """Whether several tokens came along, and the store was asked and named no session."""
        return self._has_found and self._found is None and self.credentials.is_ambiguous

    @property
    def sid(self) -> str | None:
        """The session's public id (it is no token); None without a live session."""
        live = self.live
        return str(live.record.id) if live else None

    @sid.setter
    def sid(self, value: str | None) -> None:
        """Ignored: Flask-Session assigns ids of its own making, ours come from the store."""

    # -- begin and end -------------------------------------------------------------------------

    def begin(self, live: ActiveSession) -> None:
        """The visitor has this session from now on; its cookie goes out with the answer.

        The session of a program has no cookie: its token never becomes one.
        """
        self._become(live)
        self.issued, self.forgotten = (live if live.record.kind == "browser" else None), False

    def forget(self, *, in_all_scopes: bool = False) -> None:
        """The visitor has no session any more; their cookie is cleared with the answer.

        Args:
            in_all_scopes: whatever else came along under its name is cleared, too, even if it may
                be another app's.
        """
        self._become(None)
        self.issued, self.forgotten = None, self.credentials.has_cookie
        self.in_all_scopes = in_all_scopes

    def _become(self, found: ActiveSession | None) -> None:
        if found:
            note_user(self.credentials.environ, found.record.user.id)
        self._found, self._has_found, self._has_data = found, True, False
        dict.clear(self)
        self.modified = False

    # -- data ----------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the data, once; every method of the mapping does this first."""
        if self._has_data:
            return
        self._has_data = True
        if live := self.live:
            dict.update(self, self._serializer.decode(live.record.data))

    def patch(self) -> tuple[dict[str, Any], list[str]]:
        """The changes: keys with their new values, as JSON, and removed keys.

        Raises:
            UnsavableSession: a value can't be kept.
        """
        before = self.live.record.data if self.live else {}
        after = self._serializer.encode(self)
        changed = {k: v for k, v in after.items() if k not in before or not is_same(before[k], v)}
        return changed, [key for key in before if key not in after]


def _reads_first(name: str) -> Callable[..., Any]:
    method = getattr(ServerSideSession, name)

    @wraps(method)
    def reading(self: AuthSession, *args: Any, **kwargs: Any) -> Any:
        self.load()
        return method(self, *args, **kwargs)

    return reading


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__"),
    *("__bool__", "__eq__", "__or__", "__ior__", "__reversed__", "__repr__"),
    *("get", "setdefault", "pop", "popitem", "update", "clear", "keys", "values", "items", "copy"),
):
    setattr(AuthSession, _name, _reads_first(_name))


class SessionInterface(ServerSideSessionInterface):  # type: ignore[misc]  # as above
    """Opens and saves `flask.session`.

    Args:
        authenticator: finds the session that credentials belong to.
        actor: the actor of the current request.
        finish: sees the answer last, when all that the request changes is changed, if that is not
            known everywhere yet.
    """

    session_class = AuthSession

    def __init__(
        self,
        app: Flask,
        authenticator: Authenticator,
        actor: Callable[[], Actor],
        finish: Callable[[Response], None],
    ) -> None:
        super().__init__(app)
        self.serializer = SessionSerializer()
        self._finish = finish
        self._authenticator = authenticator
        self._store = authenticator.store
        self._actor = actor
        self._cookie_name = authenticator.cookie_name
        self._dropped_cookies = DroppedCookies()

    def open_session(self, app: Flask, request: Request) -> AuthSession:  # noqa: ARG002 - Flask's
        credentials = RequestCredentials(self._authenticator, request.environ)
        return AuthSession(credentials, self.serializer)

    def save_session(self, app: Flask, session: AuthSession, response: Response) -> None:
        """Saves what changed, key by key, and sets or clears the cookie where a view asked for it.

        A session that ended while the request ran stays ended. The cookie is never touched because
        a store could not be asked.
        """
        if session.issued or session.forgotten:
            self._expire_elsewhere(app, session, response)
        if session.issued:
            self._set_cookie(app, session.issued, response)
            secure = self.get_cookie_secure(app)
            self._dropped_cookies.note(session.credentials.environ, secure=secure)
        elif session.forgotten:
            response.delete_cookie(self._cookie_name, **self._cookie_attributes(app))
        if session.accessed or session.issued or session.forgotten:
            if response.headers.getlist("Vary"):
                response.vary.update(("Cookie", *TOKEN_HEADERS))
            else:  # to parse and update a set costs more than all else here
                response.headers.add("Vary", VARY)
        if session.modified:
            try:
                self._save_data(session)
            except StoreUnavailable as error:
                _become(response, app.make_response(app.handle_user_exception(error)))
        if are_pending(session.credentials.environ):
            self._finish(response)

    def _save_data(self, session: AuthSession) -> None:
        if live := session.live:
            session.modified = False  # else Flask would try again, for the page that tells of it
            changed, removed = session.patch()
            if changed or removed:
                self._store.patch(live, changed, removed)

    def regenerate(self, session: AuthSession) -> None:
        """A new token for the same session; the old one is dead at once.

        The session of a program keeps its token: there is no cookie to hand it a new one.
        """
        live = session.live
        if live and live.record.kind == "browser":
            fresh = self._store.regenerate(live, self._actor())
            if fresh:
                session.begin(fresh)
            else:
                session.forget()

    def _expire_elsewhere(self, app: Flask, session: AuthSession, response: Response) -> None:
        """Expires what the browser sent under our names and may keep in other scopes than ours.

        That comes before our own cookie is set: a browser that takes two scopes for one is left
        with the one that counts. A cookie that may be another app's is left alone.
        """
        visitor = session.credentials
        if not session.in_all_scopes and visitor.has_foreign_cookie:
            return
        environ = visitor.environ
        attributes = self._cookie_attributes(app)
        header, root = environ.get("HTTP_COOKIE", ""), environ.get("SCRIPT_NAME", "")
        paths = [attributes["path"], "/", root or "/"]
        if session.in_all_scopes:
            paths += path_prefixes(root + environ.get("PATH_INFO", ""))
        names = [self._cookie_name]
        if session.issued and session.issued.devices and self._keeps_two_devices(header):
            names.append(device_cookie_name(self._cookie_name))
        scopes: list[Scope] = []
        for name in names:
            own = Scope(name, attributes["domain"], attributes["path"])
            scopes += other_scopes(own, header, environ.get("HTTP_HOST", ""), paths)
        secure, samesite = attributes["secure"], attributes["samesite"]
        expire(response, scopes, secure=secure, samesite=samesite)

    def _keeps_two_devices(self, header: str) -> bool:
        name = device_cookie_name(self._cookie_name)
        sent = names_in(header)
        return header.count(f"{name}=") > 1 or any(n in sent for n in names_under(name)[1:])

    def _set_cookie(self, app: Flask, live: ActiveSession, response: Response) -> None:
        remembered = live.record.remembered
        # Not what ends the session (NIST SP 800-63B-4, 5.1.1): the store does that.
        max_age = live.record.idle_seconds if remembered else None
        response.set_cookie(
            self._cookie_name,
            live.token.text,
            max_age=max_age,
            **self._cookie_attributes(app),
        )
        if live.devices:
            response.set_cookie(
                device_cookie_name(self._cookie_name),
                write_devices(live.devices),
                max_age=DEVICE_SECONDS,
                **self._cookie_attributes(app),
            )

    def _cookie_attributes(self, app: Flask) -> dict[str, Any]:
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "httponly": True,
            "samesite": self.get_cookie_samesite(app) or "Lax",
        }

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
