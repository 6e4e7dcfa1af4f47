"""`AuthSession`: `flask.session`, the person whose session it is, and the fate of its cookie."""

from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from flask import session
from flask_session.base import ServerSideSession

from authapp.accounts.identity import ANONYMOUS, Anonymous, Identity, SignedIn
from authapp.cache.changes import Changed
from authapp.crypto.tokens import SessionToken
from authapp.errors import UnsavableSession
from authapp.sessions.records import ActiveSession, IssuedLogin, IssuedTokens, LookupResult
from authapp.web.middleware.request_log import note_user
from authapp.web.request_credentials import RequestCredentials
from authapp.web.session.data import is_same
from authapp.web.session.visitor_data import VisitorData

FLASHES = "_flashes"  # where Flask keeps the messages of `flash()`

T = TypeVar("T")
CarryOver = Callable[[dict[str, Any]], Mapping[str, Any]]


class CookieOutcome(Enum):
    """The fate of the session's cookie in the answer to a request."""

    UNCHANGED = auto()
    ISSUED = auto()  # the session has a new token
    CLEARED = auto()
    CLEARED_IN_ALL_SCOPES = auto()  # with all that came along under its name, whosever it is


class _Lookup(Enum):
    PENDING = auto()


class AuthSession(ServerSideSession):  # type: ignore[misc]  # Flask-Session ships no types
    """`flask.session`. The person and the data are read together, at the first use.

    The data of people who are signed in is in the stores. The data of visitors is in the cookie
    VISITOR-DATA, so that they leave nothing in a store.

    Attributes:
        cookie: the fate of the session's cookie in the answer.
        issued: the log-in whose tokens go out with the answer, where `cookie` is ISSUED.
        is_change_pending: whether other instances may see a change of this request late.
    """

    def __init__(self, credentials: RequestCredentials, visitor_data: VisitorData) -> None:
        super().__init__()
        self.credentials = credentials
        self.cookie = CookieOutcome.UNCHANGED
        self.issued: IssuedLogin | None = None
        self.is_change_pending = False
        self._visitor_data = visitor_data
        self._serializer = visitor_data.serializer
        self._found: LookupResult | Literal[_Lookup.PENDING] = _Lookup.PENDING
        self._is_loaded = False
        self._person: tuple[ActiveSession, SignedIn] | None = None

    # -- who -----------------------------------------------------------------------------------

    @property
    def found(self) -> LookupResult:
        """The result of looking the visitor's session up, which happens once a request.

        Raises:
            StoreUnavailable: nobody could say.
            TwoIdentities: the visitor sent two tokens that may name two sessions.
        """
        self.accessed = True
        if self._found is _Lookup.PENDING:
            self._found = self.credentials.find()
        return self._found

    @property
    def live(self) -> ActiveSession | None:
        found = self.found
        return found if isinstance(found, ActiveSession) else None

    @property
    def identity(self) -> Identity | Anonymous:
        live = self.live
        if live is None:
            return ANONYMOUS
        if self._person is None or self._person[0] is not live:
            self._person = (live, live.record.person)
        return self._person[1]

    @property
    def is_known(self) -> bool:
        """Whether who the visitor is has been asked already, so that asking again costs nothing."""
        return self._found is not _Lookup.PENDING or not self.credentials.needs_lookup

    @property
    def is_unknown(self) -> bool:
        """Whether several tokens came along, and the store was asked and named no session."""
        return self._found is None and self.credentials.is_ambiguous

    @property
    def sid(self) -> str | None:
        """The session's public id (it is no token); None without a live session."""
        live = self.live
        return str(live.record.id) if live else None

    @sid.setter
    def sid(self, value: str | None) -> None:
        """Ignored: Flask-Session assigns ids of its own making, ours come from the store."""

    def all_tokens(self) -> tuple[SessionToken, ...]:
        """The tokens whose sessions end at a log-in or log-out: those that came along, and the one
        that this request has issued.

        Raises:
            TooManyTokens
        """
        sent = self.credentials.all_tokens()
        if self.cookie is CookieOutcome.ISSUED and self.issued:
            return (*sent, self.issued.session.token)
        return sent

    # -- changes -------------------------------------------------------------------------------

    def settle(self, changed: Changed[T]) -> T:
        """The result of a change; the answer says so if other instances may see the change late."""
        self.is_change_pending |= not changed.everywhere
        return changed.value

    # -- begin and end -------------------------------------------------------------------------

    def begin(self, issued: IssuedLogin | IssuedTokens) -> None:
        """The visitor has this session from now on; its cookie goes out with the answer.

        The session of a program has no cookie: its token never becomes one.
        """
        note_user(self.credentials.environ, issued.session.record.user.id)
        self._found = issued.session
        self.issued = issued if isinstance(issued, IssuedLogin) else None
        self.cookie = CookieOutcome.ISSUED if self.issued else CookieOutcome.UNCHANGED
        self.reload()

    def rotate(self, issued: IssuedLogin | IssuedTokens) -> None:
        """The session goes on under a new token. Changes of its data that are unsaved come along.

        Raises:
            UnsavableSession: as `patch`.
        """
        changed, removed = self.patch() if self.modified else ({}, [])
        self.begin(issued)
        if changed or removed:
            self.update(self._serializer.decode(changed))
            for key in removed:
                self.pop(key, None)

    def forget(self) -> None:
        """The visitor logs out: no session, no cookie of it, no data but messages of `flash()`.

        A view may say goodbye by such a message before it logs the visitor out.
        """
        goodbye = {FLASHES: self[FLASHES]} if self._is_loaded and FLASHES in self else {}
        self._found = None
        has_cookie = self.credentials.has_cookie
        self.cookie = CookieOutcome.CLEARED if has_cookie else CookieOutcome.UNCHANGED
        dict.clear(self)
        dict.update(self, goodbye)
        self._is_loaded = True
        self.modified = True

    def forget_in_all_scopes(self) -> None:
        """Whatever came along under the name of the cookie is cleared, even if it may be another
        app's: it names no session that may be used. The visitor's data stays."""
        self._found = None
        self.cookie = CookieOutcome.CLEARED_IN_ALL_SCOPES

    # -- data ----------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the data, once; every method of the mapping does this first.

        Raises:
            StoreUnavailable, TwoIdentities: as `found`. The data of a visitor is not read while
                somebody may be signed in.
        """
        if self._is_loaded:
            return
        if live := self.live:
            data = self._serializer.decode(live.record.data)
        else:
            data = self._visitor_data.read(self.credentials.cookie_header)
        dict.update(self, data)
        self._is_loaded = True

    def reload(self) -> None:
        """Drops changes that are unsaved; the data is read again at its next use."""
        self._is_loaded = False
        dict.clear(self)
        self.modified = False

    @property
    def is_loaded(self) -> bool:
        return self._is_loaded

    def patch(self) -> tuple[dict[str, Any], list[str]]:
        """The changes: keys with their new values, as JSON, and removed keys.

        Raises:
            UnsavableSession: a value can't be kept.
        """
        before = self.live.record.data if self.live else {}
        after = self._serializer.encode(self)
        changed = {k: v for k, v in after.items() if k not in before or not is_same(before[k], v)}
        return changed, [key for key in before if key not in after]

    def fits(self) -> bool:
        """Whether the data can be kept. The cookie of a visitor has little room."""
        try:
            if self.live is None:
                self._visitor_data.write(self)
        except UnsavableSession:
            return False
        return True

    def carried_over(self, choose: CarryOver, without: Collection[str]) -> dict[str, Any]:
        """The visitor's data that the session of a log-in begins with, as JSON.

        Data of a session that the log-in replaces stays behind: it may be another person's.

        Args:
            choose: what the app takes of the data.
            without: keys that are left behind in any case.
        Raises:
            UnsavableSession: a value can't be kept.
        """
        if self._is_loaded and not isinstance(self._found, ActiveSession):
            data = dict(self)
        else:
            data = self._visitor_data.read(self.credentials.cookie_header)
        chosen = choose(data) if data else data
        return self._serializer.encode({k: v for k, v in chosen.items() if k not in without})


def _reads_first(name: str) -> Callable[..., Any]:
    method = getattr(ServerSideSession, name)

    @wraps(method)
    def reading(self: AuthSession, *args: Any, **kwargs: Any) -> Any:
        self.load()
        return method(self, *args, **kwargs)

    return reading


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__"),
    *("__bool__", "__eq__", "__ne__", "__or__", "__ror__", "__ior__", "__reversed__", "__repr__"),
    *("get", "setdefault", "pop", "popitem", "update", "clear", "keys", "values", "items", "copy"),
):
    setattr(AuthSession, _name, _reads_first(_name))


def auth_session() -> AuthSession:
    """`flask.session` by its type, and not by way of Flask's proxy."""
    return cast(AuthSession, session._get_current_object())  # type: ignore[attr-defined]
