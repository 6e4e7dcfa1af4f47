"""Builds from the settings what writes mails and links down, and what sends the mails."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import BaseLoader, FileSystemLoader
from sqlalchemy.orm import Session

from authapp.accounts.invitations import InvitationMail
from authapp.authentication.notices import Notices
from authapp.authentication.verification import VerificationMails, mail_invitation
from authapp.brand import Brand
from authapp.config import Config
from authapp.crypto.sealing import KeyedHash
from authapp.mail.account_mails import AccountMails
from authapp.mail.mail_url import read_mail_url
from authapp.mail.messages import Messages
from authapp.mail.one_time_links import OneTimeLinks
from authapp.mail.outbox import Letters, Outbox
from authapp.mail.public_links import PublicLinks
from authapp.mail.queue import MailQueue
from authapp.mail.sending import MailSender
from authapp.mail.smtp import SmtpTransport, TimeOuts
from authapp.mail.transport import FileTransport, Transport
from authapp.sessions.user_agents import device_name
from authapp.storage.postgres import Database

TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True, slots=True)
class Mailing:
    """The parts that mails pass.

    Attributes:
        sender: None where mail is off.
        invite: writes down the mail to an invited person; False where none is sent.
    """

    outbox: Outbox
    queue: MailQueue
    sender: MailSender | None
    public_link: PublicLinks
    one_time_links: OneTimeLinks
    account_mails: AccountMails
    verification_mails: VerificationMails
    notices: Notices
    invite: Callable[[Session, InvitationMail], bool]


def build_mailing(
    config: Config,
    database: Database,
    clock: Callable[[], datetime],
    url_prefix: str,
    templates: BaseLoader | None,
) -> Mailing:
    """
    Args:
        url_prefix: comes before each of our paths, in an app that embeds us.
        templates: finds templates of mails; None: ours.
    """
    letters = Letters(config.SECRET_KEY)
    public_link = PublicLinks(config.PUBLIC_URL, url_prefix)
    queue = MailQueue(database, clock)
    sender = None
    if config.MAIL_URL:
        messages = Messages(
            templates or FileSystemLoader(TEMPLATES),
            brand_of(config),
            public_link,
            config.mail_sender,
            device_name,
            partial(_message_id, KeyedHash(config.SECRET_KEY[0], "mail identifiers")),
        )
        sender = MailSender(queue, letters.open, messages, open_transport(config), clock)
    outbox = Outbox(
        letters,
        config.SECRET_KEY[0],
        clock,
        sender.wake if sender else _nothing,
        enabled=sender is not None,
        per_recipient=config.MAIL_LIMIT_PER_RECIPIENT,
        total=config.MAIL_LIMIT_TOTAL,
    )
    links = OneTimeLinks(config.SECRET_KEY, clock)
    return Mailing(
        outbox=outbox,
        queue=queue,
        sender=sender,
        public_link=public_link,
        one_time_links=links,
        account_mails=AccountMails(outbox, links, public_link, clock, device_name),
        verification_mails=VerificationMails(outbox, links, public_link),
        notices=Notices(outbox, public_link, clock),
        invite=partial(mail_invitation, outbox, public_link),
    )


def open_transport(config: Config, time_outs: TimeOuts | None = None) -> Transport:
    """The transport that MAIL_URL names."""
    url = read_mail_url(config.MAIL_URL)
    if url.scheme == "file":
        return FileTransport(url.directory)
    name = urlsplit(config.PUBLIC_URL).hostname or "localhost"
    return SmtpTransport(url, name, time_outs=time_outs)


def brand_of(config: Config) -> Brand:
    return Brand(
        name=config.BRAND_NAME,
        logo_url=config.BRAND_LOGO_URL,
        color=config.BRAND_COLOR,
        terms_url=config.TERMS_URL,
        privacy_url=config.PRIVACY_URL,
        support_url=config.SUPPORT_URL,
    )


def _message_id(keyed: KeyedHash, number: int) -> str:
    return keyed(number.to_bytes(8)).hex()[:32]


def _nothing() -> None:
    pass
