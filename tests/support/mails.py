"""Mails that wait in the outbox, opened."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import select

from authapp.services import Services
from authapp.storage.models import OutgoingMail

PUBLIC_URL = "https://auth.example.org"
# a port that nobody listens at: mails wait
MAIL_SETTINGS = {"MAIL_URL": "smtp://127.0.0.1:9", "PUBLIC_URL": PUBLIC_URL}
WITHOUT_VERIFICATION = {**MAIL_SETTINGS, "EMAIL_VERIFICATION": "off"}


@dataclass(frozen=True)
class Written:
    """A mail that was written down, and not sent yet."""

    kind: str
    recipient: str
    context: dict[str, str]

    @property
    def link(self) -> str:
        return self.context["link"]

    @property
    def token(self) -> str:
        (token,) = parse_qs(urlsplit(self.link).query)["token"]
        return token


def mails(services: Services, kind: str = "") -> list[Written]:
    """The mails that wait, the oldest first, once all that were asked for are written."""
    services.forgotten_passwords.finish()
    with services.database.transaction() as db:
        rows = db.scalars(select(OutgoingMail).order_by(OutgoingMail.id)).all()
    found = []
    for row in rows:
        letter = services.outbox._letters.open(row.sealed) if row.sealed else None
        if letter is not None and kind in {"", row.kind}:
            found.append(Written(row.kind, letter.recipient, letter.context))
    return found
