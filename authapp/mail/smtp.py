"""Mails leave by SMTP (RFC 5321), as submission (RFC 6409) wants it: TLS, then log-in."""

import re
import smtplib
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import idna

from authapp.mail.mail_url import MailUrl
from authapp.mail.transport import DeliveryFailed, RenderedMail, Unconfirmed, Unreachable

_NO_MAIL = {530, 535, 538}  # the server wants a log-in first, or another one (RFC 4954, 6)
_CLOSING = 421

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimeOuts:
    """Seconds that the server may take for each step.

    Attributes:
        connect: to take the connection, greet, and agree on TLS.
        reply: to answer a command.
        delivery: to answer the mail itself. RFC 5321, 4.5.3.2.6 says ten minutes, because a mail
            that is given up here may yet have been taken, and is sent twice.
    """

    connect: float = 15.0
    reply: float = 30.0
    delivery: float = 120.0


class SmtpTransport:
    """
    Args:
        url: of a mail server.
        host_name: what we call ourselves.
        demands_tls: nothing is sent without TLS, or with a certificate that is not valid.
    """

    destination = "at the mail server"

    def __init__(
        self,
        url: MailUrl,
        host_name: str,
        *,
        demands_tls: bool | None = None,
        time_outs: TimeOuts | None = None,
    ) -> None:
        self._url = url
        self._host_name = host_name
        self._demands_tls = not url.is_loopback if demands_tls is None else demands_tls
        self._time_outs = time_outs or TimeOuts()

    def connect(self) -> "SmtpConnection":
        server = self._open()
        try:
            self._introduce(server)
        except BaseException:
            server.close()
            raise
        return SmtpConnection(server, self._time_outs)

    def _open(self) -> smtplib.SMTP:
        url, seconds, name = self._url, self._time_outs.connect, self._host_name
        # SSL_CERT_FILE, or SSL_CERT_DIR, names an authority of the operator's own
        if url.scheme == "smtps":
            tls = ssl.create_default_context()
            return _step(
                "connect",
                lambda: smtplib.SMTP_SSL(url.host, url.port, name, timeout=seconds, context=tls),
            )
        return _step("connect", lambda: smtplib.SMTP(url.host, url.port, name, timeout=seconds))

    def _introduce(self, server: smtplib.SMTP) -> None:
        """Says hello, agrees on TLS and logs in.

        Raises:
            Unreachable
        """
        url = self._url
        _expect(250, "EHLO", _step("EHLO", server.ehlo))
        needs_tls = self._demands_tls or bool(url.user and not server.has_extn("auth"))
        if url.scheme == "smtp" and needs_tls:
            if not server.has_extn("starttls"):
                raise Unreachable("STARTTLS: the server does not offer it, so nothing was sent")
            tls = ssl.create_default_context()
            _expect(220, "STARTTLS", _step("STARTTLS", lambda: server.starttls(context=tls)))
            _expect(250, "EHLO", _step("EHLO", server.ehlo))
        if url.user:
            _step("AUTH", lambda: server.login(url.user, url.password))


class SmtpConnection:
    """A connection on which mails are sent."""

    def __init__(self, server: smtplib.SMTP, time_outs: TimeOuts) -> None:
        self._server = server
        self._time_outs = time_outs
        self._is_clean = True

    def send(self, mail: RenderedMail) -> None:
        local, _, domain = mail.recipient.rpartition("@")
        address = f"{local}@{ascii_domain(domain)}"
        options = []
        if not address.isascii():
            if not self._server.has_extn("smtputf8"):
                raise DeliveryFailed("the server takes ASCII addresses only", is_final=True)
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            self._server.command_encoding = "utf-8"
        self._wait(self._time_outs.reply)
        if not self._is_clean:  # the mail before was refused half-way
            _expect(250, "RSET", _step("RSET", self._server.rset))
        self._is_clean = False
        self._judge("MAIL", _step("MAIL", lambda: self._server.mail(mail.sender, options)), {250})
        self._judge("RCPT", _step("RCPT", lambda: self._server.rcpt(address)), {250, 251})
        self._judge("DATA", _step("DATA", lambda: self._server.docmd("DATA")), {354})
        self._give(mail.content)
        self._is_clean = True

    def close(self) -> None:
        self._wait(self._time_outs.reply)
        with suppress(OSError, smtplib.SMTPException):
            self._server.quit()
        self._server.close()

    def _give(self, content: bytes) -> None:
        """Gives the content away: from here on the server may have taken it.

        Raises:
            DeliveryFailed, Unreachable, Unconfirmed
        """
        self._wait(self._time_outs.delivery)
        stuffed = re.sub(rb"(?m)^\.", b"..", content)  # RFC 5321, 4.5.2
        end = b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"
        try:
            self._server.send(stuffed + end)
            answer = self._server.getreply()
        except (OSError, smtplib.SMTPException) as error:
            raise Unconfirmed(f"after DATA: {_named(error)}") from None
        self._judge("after DATA", answer, {250})

    def _judge(self, step: str, answer: tuple[int, bytes], expected: set[int]) -> None:
        code = answer[0]
        if code in expected:
            return
        if code in _NO_MAIL or code == _CLOSING or code < 0:
            raise Unreachable(_told(step, answer))
        is_final = 500 <= code < 600 and step != "MAIL"  # that is about the sender, MAIL_FROM
        raise DeliveryFailed(_told(step, answer), is_final=is_final)

    def _wait(self, seconds: float) -> None:
        if self._server.sock is not None:
            self._server.sock.settimeout(seconds)


def ascii_domain(domain: str) -> str:
    """The domain of an address as mail servers know it (RFC 5891)."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return domain


def _expect(code: int, step: str, answer: tuple[int, bytes]) -> None:
    if answer[0] != code:
        raise Unreachable(_told(step, answer))


def _step(step: str, act: Callable[[], T]) -> T:
    """
    Raises:
        Unreachable
    """
    try:
        return act()
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error
        raise Unreachable(
            _told(step, (error.smtp_code, text if isinstance(text, bytes) else b""))
        ) from None
    except (OSError, smtplib.SMTPException) as error:
        raise Unreachable(f"{step}: {_named(error)}") from None


def _told(step: str, answer: tuple[int, bytes]) -> str:
    """The codes of an answer alone: servers like to repeat the address in the text."""
    code, text = answer
    detail = re.match(rb"[245]\.\d{1,3}\.\d{1,3}\b", text)  # RFC 3463
    return f"{step}: {code}" + (f" {detail[0].decode()}" if detail else "")


def _named(error: Exception) -> str:
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "the server did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if type(error) in {smtplib.SMTPNotSupportedError, smtplib.SMTPException}:
        return str(error)  # smtplib's own words: what the server does not offer
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the server closed the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
