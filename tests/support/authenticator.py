"""An authenticator app that is not ours: `oathtool`, a program of the system."""

import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime

import pytest

from authapp.accounts.identity import Identity
from authapp.services import Services
from authapp.sessions.records import ActiveSession, IssuedLogin
from tests.support.people import CLIENT, PASSWORD, log_in

OATHTOOL = shutil.which("oathtool")


@dataclass(frozen=True)
class Authenticator:
    """The app with one secret in it."""

    secret: str

    def code(self, at: datetime) -> str:
        """The code that it shows at a moment."""
        if OATHTOOL is None:
            pytest.skip("install oathtool, an authenticator app that is not ours")
        now = at.strftime("%Y-%m-%d %H:%M:%S UTC")
        arguments = [OATHTOOL, "--totp", "--base32", f"--now={now}", self.secret]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=30)
        return shown.stdout.strip()


@dataclass(frozen=True)
class Enrolled:
    """A person with an authenticator app, and the session in which it was set up."""

    app: Authenticator
    live: ActiveSession
    recovery_codes: tuple[str, ...]


def enrol(services: Services, live: ActiveSession, at: datetime) -> Enrolled:
    """Sets an authenticator app up in a session. The code of this moment is used up by it."""
    app = Authenticator(services.factors.propose_totp(live).secret)
    added = services.factors.confirm_totp(live, app.code(at), CLIENT).value
    assert isinstance(added.issued, IssuedLogin)
    return Enrolled(app, added.issued.session, added.recovery_codes)


def enrol_person(
    services: Services, person: Identity, at: datetime, password: str = PASSWORD
) -> Enrolled:
    """As `enrol`, in a new session of the person."""
    return enrol(services, log_in(services, person.email, password), at)
