"""People whose browsers keep passkeys, for tests on the services."""

from dataclasses import dataclass, field
from typing import Any

from authapp.authentication.factors.browser_sessions import Browser
from authapp.authentication.factors.passkeys.passkeys import AddedPasskey
from authapp.config import Config
from authapp.services import Services
from authapp.sessions.records import ActiveSession, IssuedLogin
from tests.support.passkeys import Authenticator, Passkey, created, used
from tests.support.people import CLIENT, EMAIL, log_in, sign_up
from tests.support.services import sql
from tests.support.settings import UNLIMITED, make_config


def settings(config: Config, **more: str) -> Config:
    return make_config(
        config.DATABASE_URL,
        config.REDIS_URL,
        **{
            "PUBLIC_URL": "https://auth.example.org/base",
            "LOGIN_LIMIT_PER_ADDRESS": UNLIMITED,
            "LOGIN_FAILURES_PER_ACCOUNT": UNLIMITED,
            **more,
        },
    )


@dataclass
class Holder:
    """A person with a browser that keeps passkeys.

    Attributes:
        live: the session in which they were added.
        codes: the recovery codes that came with the first.
    """

    services: Services
    live: ActiveSession
    browser: Authenticator = field(default_factory=Authenticator)
    codes: tuple[str, ...] = ()

    def add(self, name: str = "", **how: Any) -> AddedPasskey:
        options = self.services.passkeys.creation_options(self.live)
        made = created(options, self.browser, **how)
        added = self.services.passkeys.enrol(self.live, made, name, CLIENT).value
        self.live = added.issued.session
        self.codes = added.recovery_codes or self.codes
        return added

    def log_in(self, passkey: Passkey | None = None, **how: Any) -> IssuedLogin:
        answer = used(self.services.passkey_login.options(), self.browser, passkey)
        return self.services.passkey_login.log_in(answer, CLIENT, Browser(), **how)

    def remove(self, added: AddedPasskey) -> None:
        changed = self.services.passkeys.remove(self.live, added.passkey.id, CLIENT)
        self.live = changed.value.session


def a_holder(services: Services, email: str = EMAIL, **browser: Any) -> Holder:
    sign_up(services, email)
    return Holder(services, log_in(services, email), Authenticator(**browser))


def events(services: Services, event: str) -> list[Any]:
    services.refused_attempts.flush()
    query = "SELECT user_id, details FROM audit_events WHERE event = :event ORDER BY id"
    return sql(services, query, event=event)
