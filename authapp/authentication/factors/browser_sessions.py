"""The session of a browser that begins once its person has shown every factor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authapp.accounts.actor import Actor
from authapp.accounts.assurance import Amr
from authapp.accounts.emails import ParseEmail
from authapp.authentication.known_devices import KnownDevices
from authapp.authentication.notices import Notices
from authapp.cache.changes import Change
from authapp.crypto.tokens import SessionToken
from authapp.sessions.records import IssuedLogin
from authapp.sessions.store import SessionStore
from authapp.storage.models import User


@dataclass(frozen=True, slots=True)
class Browser:
    """The part of a browser in a log-in.

    Attributes:
        replaces: tokens of the sessions that it had so far, a handful; these end.
        devices: the device tokens that it sent.
        data: that the session begins with, as JSON.
        is_trusted: the person asks that it needs no second factor for a while.
    """

    replaces: Sequence[SessionToken] = ()
    devices: Sequence[str] = ()
    data: Mapping[str, Any] | None = None
    is_trusted: bool = False


NO_BROWSER = Browser()  # a program logs in


class BrowserSessions:
    """Begins sessions within changes that use up a factor."""

    def __init__(
        self,
        sessions: SessionStore,
        known_devices: KnownDevices,
        notices: Notices,
        parse_email: ParseEmail,
    ) -> None:
        self._sessions = sessions
        self._known_devices = known_devices
        self._notices = notices
        self._parse_email = parse_email

    def begin(
        self,
        change: Change,
        user: User,
        actor: Actor,
        browser: Browser,
        amr: Amr,
        *,
        remember: bool,
        method: str,
    ) -> IssuedLogin:
        """Begins the session of a person whose row is locked, and tells them if the browser is new.

        A device token is issued to people who showed their password: a later log-in by password
        asks for one.
        """
        email = self._parse_email(user.email)
        is_known = self._known_devices.match_device(email, browser.devices) is not None
        live = self._sessions.begin_after_factor(
            change,
            user,
            actor,
            remember=remember,
            replaces=browser.replaces,
            data=browser.data,
            tell=self._notices.of_login(actor, is_known_device=is_known),
            amr=amr,
            **({"method": method} if method else {}),
        )
        if "pwd" not in amr:
            return IssuedLogin(live)
        trust = None
        if browser.is_trusted:
            trust = self._known_devices.new_trust(user.factors_version)
        devices = self._known_devices.issue_device_token(email, user.epoch, browser.devices, trust)
        return IssuedLogin(live, devices)
