"""A real mail server for tests (aiosmtpd), which keeps the mails that it takes."""
# ruff: noqa: N802, ARG002 - aiosmtpd gives the names

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_string
from email.message import EmailMessage
from email.policy import SMTPUTF8
from functools import partial
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.waiting import PATIENCE, wait_until

HOST = "127.0.0.1"

# aiosmtpd's log has the addresses, and tests look whether ours has
logging.getLogger("mail.log").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Received:
    """A mail that the server took: its envelope and its content."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    @property
    def link(self) -> str:
        """The first address in the text that holds a token."""
        found = re.search(r"https?://\S+(?:token=|/signup/)[A-Za-z0-9_-]+", self.text)
        assert found, self.text
        return found[0]

    @property
    def token(self) -> str:
        return re.split("token=|/", self.link)[-1]

    @property
    def code(self) -> str:
        """The first number of eight digits in the text."""
        found = re.search(r"\b\d{8}\b", self.text.replace(self.token, ""))
        assert found, self.text
        return found[0]

    def _part(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        assert part is not None, self.message.as_string()
        return str(part.get_content()).replace("\r\n", "\n")


@dataclass
class MailServer:
    """A mail server, and how it behaves. Every reply can be changed while it runs.

    Attributes:
        mails: those that it answered 250 to, and those that it took without an answer.
        replies: by command (`RCPT`, `DATA`), or `recipient@address`: answers instead of its own.
        freezes_at_mail: it is told of a mail, and freezes before it answers.
        freezes_after_data: it takes a mail, and freezes before it answers.
        dies_after_data: so many times it takes a mail and closes the connection without an answer.
        connections: how many there were.
    """

    port: int = 0
    mails: list[Received] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    freezes_at_mail: bool = False
    freezes_after_data: bool = False
    dies_after_data: int = 0
    connections: int = 0
    _thawed: threading.Event = field(default_factory=threading.Event)
    _loop: Any = None

    @property
    def url(self) -> str:
        return f"smtp://{HOST}:{self.port}"

    def settings(self, **more: str) -> dict[str, str]:
        """The settings of an app that mails through this server."""
        return {"MAIL_URL": self.url, "PUBLIC_URL": "https://auth.example.org", **more}

    def to(self, address: str) -> list[Received]:
        return [mail for mail in list(self.mails) if address in mail.recipients]

    def wait_for(self, address: str, count: int = 1, *, seconds: float = PATIENCE) -> Received:
        """The mail number `count` to an address, once it is here."""
        wait_until(
            lambda: len(self.to(address)) >= count,
            lambda: f"{address} got {len(self.to(address))} mails: {self._overview()}",
            seconds=seconds,
        )
        return self.to(address)[count - 1]

    def freeze(self) -> None:
        """Stops answering, as a process that is stopped: the kernel still takes connections."""
        self._thawed.clear()
        self._loop.call_soon_threadsafe(self._thawed.wait)

    def thaw(self) -> None:
        self._thawed.set()

    def _overview(self) -> list[tuple[tuple[str, ...], str]]:
        return [(mail.recipients, mail.subject) for mail in list(self.mails)]


class _Handler:
    """The answers to each command, for aiosmtpd."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def handle_MAIL(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        mail_options: list[str],
    ) -> str:
        if reply := self._server.replies.get("MAIL"):
            return reply
        if self._server.freezes_at_mail:
            self._server.freezes_at_mail = False
            self._server.freeze()
            await asyncio.sleep(0)
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        replies = self._server.replies
        if reply := replies.get(address) or replies.get("RCPT"):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if reply := self._server.replies.get("DATA"):
            return reply
        content = cast(bytes, envelope.original_content).decode()
        message = message_from_string(content, _class=EmailMessage, policy=SMTPUTF8)
        self._server.mails.append(
            Received(str(envelope.mail_from), tuple(envelope.rcpt_tos), message)
        )
        if self._server.freezes_after_data:
            self._server.freezes_after_data = False
            self._server.freeze()
            await asyncio.sleep(0)
        if self._server.dies_after_data > 0:
            self._server.dies_after_data -= 1
            cast(asyncio.Transport, server.transport).abort()
            await asyncio.sleep(0)
        return "250 OK"


@contextmanager
def mail_server(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    login: tuple[str, str] | None = None,
    port: int = 0,
    **behaviour: Any,
) -> Iterator[MailServer]:
    """A mail server on a free port of this machine, in a thread of its own.

    Args:
        starttls: offers STARTTLS, and takes nothing without it.
        tls: speaks TLS from the start.
        login: the name and password that it demands.
        behaviour: of `MailServer`.
    """
    loop = asyncio.new_event_loop()
    server = MailServer(_loop=loop, **behaviour)
    options: dict[str, Any] = {"enable_SMTPUTF8": True, "hostname": "mail.test", "loop": loop}
    if starttls is not None:
        options |= {"tls_context": starttls, "require_starttls": True}
    if login is not None:
        demands_tls = starttls is not None  # aiosmtpd does not count TLS from the start
        options |= {"auth_required": True, "auth_require_tls": demands_tls}
        options |= {"authenticator": partial(_authenticate, login)}

    def connected() -> SMTP:
        server.connections += 1
        return SMTP(_Handler(server), **options)

    thread = threading.Thread(target=loop.run_forever, name="mail server", daemon=True)
    thread.start()
    # not by the thread of the test, which may have a loop of its own
    listen = loop.create_server(connected, HOST, port, ssl=tls)
    listening = asyncio.run_coroutine_threadsafe(listen, loop).result(PATIENCE)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.thaw()
        asyncio.run_coroutine_threadsafe(_end(listening), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _end(listening: asyncio.Server) -> None:
    listening.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _authenticate(
    login: tuple[str, str],
    _server: SMTP,
    _session: Session,
    _envelope: Envelope,
    _how: str,
    given: Any,
) -> AuthResult:
    is_right = isinstance(given, LoginPassword) and login == (
        given.login.decode(),
        given.password.decode(),
    )
    return AuthResult(success=is_right, handled=False)


@contextmanager
def silent_server() -> Iterator[str]:
    """The MAIL_URL of a server that takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as listening:
        yield f"smtp://{HOST}:{listening.getsockname()[1]}"
