"""Services whose mail goes to a real server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from jinja2 import FileSystemLoader

from authapp.accounts.emails import parse_email
from authapp.assembly.mailing import TEMPLATES
from authapp.brand import Brand
from authapp.config import Config
from authapp.mail.mail_url import read_mail_url
from authapp.mail.messages import Messages
from authapp.mail.outbox import Letters, Mail, MailKind
from authapp.mail.public_links import PublicLinks
from authapp.mail.sending import MailSender
from authapp.mail.smtp import SmtpTransport, TimeOuts
from authapp.services import Services
from tests.support.clock import Clock
from tests.support.services import open_services
from tests.support.settings import make_config
from tests.support.smtp import MailServer

ANN = "ann@example.org"
SHORT = TimeOuts(connect=0.5, reply=0.5, delivery=0.5)


class OpenMailing(Protocol):
    def __call__(self, **settings: Any) -> Services: ...


@pytest.fixture
def open_mailing(config: Config, clock: Clock, mail_server: MailServer) -> Iterator[OpenMailing]:
    """Opens instances that mail through the server. None of them sends by itself."""
    with ExitStack() as opened:

        def make(**settings: Any) -> Services:
            mine = make_config(
                config.DATABASE_URL, config.REDIS_URL, **mail_server.settings(**settings)
            )
            return opened.enter_context(open_services(mine, clock))

        yield make


@pytest.fixture
def mailing(open_mailing: OpenMailing) -> Services:
    return open_mailing()


def put(services: Services, to: str = ANN, kind: MailKind = "test", **more: Any) -> bool:
    """Writes a mail down; whether the caps let it go."""
    with services.database.transaction() as db:
        return services.outbox.put(db, Mail(kind, parse_email(to), **more))


def sender_of(services: Services) -> MailSender:
    assert services.mail_sender is not None
    return services.mail_sender


def impatient_sender(services: Services, server: str, clock: Callable[[], Any]) -> MailSender:
    """A sender that waits half a second for each answer."""
    secrets = ["tests-only secret key of 32 bytes or more"]
    messages = Messages(
        FileSystemLoader(TEMPLATES),
        Brand(),
        PublicLinks("https://auth.example.org"),
        "no-reply@example.org",
        str,
        str,
    )
    transport = transport_to(server, SHORT)
    return MailSender(services.mail_queue, Letters(secrets).open, messages, transport, clock)


def transport_to(server: str, time_outs: TimeOuts | None = None) -> SmtpTransport:
    return SmtpTransport(read_mail_url(server), "auth.example.org", time_outs=time_outs)
