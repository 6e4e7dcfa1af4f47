"""Mails leave by SMTP: TLS and log-in first, and every answer of the server is understood."""

import smtplib
import time
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from authapp.mail.mail_url import read_mail_url
from authapp.mail.smtp import SmtpTransport, TimeOuts
from authapp.mail.transport import DeliveryFailed, RenderedMail, Unconfirmed, Unreachable
from tests.support import smtp
from tests.support.certificates import Authority
from tests.support.smtp import HOST, MailServer

ANN = "ann@example.org"
LOGIN = ("mailer", "a secret: of/the@mailer")
SHORT = 0.3  # seconds; only for what is never answered, as this machine may be late itself


def transport(url: str, *, demands_tls: bool | None = None, **seconds: float) -> SmtpTransport:
    """Args:
    seconds: of `TimeOuts`, where they differ from the shipped ones.
    """
    return SmtpTransport(
        read_mail_url(url),
        "auth.example.org",
        demands_tls=demands_tls,
        time_outs=TimeOuts(**seconds),
    )


def mail(recipient: str = ANN, text: str = "Hello\n") -> RenderedMail:
    message = EmailMessage(policy=SMTP)
    message["From"] = Address("Acme", addr_spec="no-reply@example.org")
    local, _, domain = recipient.rpartition("@")
    message["To"] = Address(username=local, domain=domain)
    message["Subject"] = "Grüße"
    message.set_content(text)
    policy = SMTP if recipient.isascii() else SMTPUTF8
    return RenderedMail("no-reply@example.org", recipient, message.as_bytes(policy=policy))


def send(url: str, recipient: str = ANN, *, demands_tls: bool | None = None) -> None:
    connection = transport(url, demands_tls=demands_tls).connect()
    try:
        connection.send(mail(recipient))
    finally:
        connection.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority is the one that SSL_CERT_FILE names."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def with_login(url: str, login: tuple[str, str] = LOGIN) -> str:
    return url.replace("://", f"://{login[0]}:{quote(login[1], safe='')}@")


# -- TLS and log-in --------------------------------------------------------------------------------


def test_a_mail_arrives_whole_on_one_connection_with_others(mail_server: MailServer) -> None:
    connection = transport(mail_server.url).connect()
    for number in range(3):
        connection.send(mail(text=f"{number}\n.\n..dots\n"))
    connection.close()
    received = mail_server.to(ANN)
    assert [one.text for one in received] == [f"{number}\n.\n..dots\n" for number in range(3)]
    assert received[0].sender == "no-reply@example.org"
    assert received[0].subject == "Grüße"
    assert mail_server.connections == 1


def test_starttls_then_log_in(trusted: Authority) -> None:
    with smtp.mail_server(starttls=trusted.server_context(HOST), login=LOGIN) as server:
        send(with_login(server.url), demands_tls=True)
        server.wait_for(ANN)
        with pytest.raises(Unreachable, match=r"^AUTH: 535 5\.7\.8$"):
            send(with_login(server.url, ("mailer", "wrong")), demands_tls=True)
        send(with_login(server.url))  # on loopback too, where the log-in asks for it
        assert len(server.to(ANN)) == 2


def test_tls_from_the_start(trusted: Authority) -> None:
    with smtp.mail_server(tls=trusted.server_context(HOST)) as server:
        send(server.url.replace("smtp:", "smtps:"))
        server.wait_for(ANN)


def test_without_starttls_nothing_is_sent_but_on_this_machine() -> None:
    with smtp.mail_server(login=LOGIN) as server:
        with pytest.raises(Unreachable, match=r"^STARTTLS: the server does not offer it"):
            send(with_login(server.url), demands_tls=True)
        send(with_login(server.url))
        assert len(server.to(ANN)) == 1
    assert SmtpTransport(read_mail_url("smtp://mail.example.org"), "a")._demands_tls
    assert not SmtpTransport(read_mail_url("smtp://localhost"), "a")._demands_tls


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_certificate_of_somebody_else_is_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Of an authority that is not trusted, and of another host."""
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority.make(tmp_path).file))
    for context in (authority.server_context(HOST), authority.server_context("192.0.2.1")):
        how: dict[str, Any] = {"starttls" if scheme == "smtp" else "tls": context}
        with smtp.mail_server(**how) as server:
            url = server.url.replace("smtp:", f"{scheme}:")
            with pytest.raises(Unreachable, match="the certificate is not valid"):
                send(url, demands_tls=True)
            assert server.mails == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))


def test_a_log_in_that_the_server_does_not_know(mail_server: MailServer) -> None:
    with pytest.raises(Unreachable, match="STARTTLS"):
        send(with_login(mail_server.url))


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer", "is_final", "reason"),
    [
        ("RCPT", f"550 5.1.1 <{ANN}> is nobody here", True, "RCPT: 550 5.1.1"),
        ("RCPT", f"450 4.2.0 {ANN} is greylisted", False, "RCPT: 450 4.2.0"),
        ("RCPT", "452 too many", False, "RCPT: 452"),
        ("DATA", "554 5.7.1 spam", True, "after DATA: 554 5.7.1"),
        ("DATA", "451 4.3.0 later", False, "after DATA: 451 4.3.0"),
        ("MAIL", "550 5.7.1 not you", False, "MAIL: 550 5.7.1"),
    ],
)
def test_a_refused_mail_says_why_without_the_address_and_the_next_one_is_sent(
    mail_server: MailServer, command: str, answer: str, is_final: bool, reason: str
) -> None:
    connection = transport(mail_server.url).connect()
    mail_server.replies[command] = answer
    with pytest.raises(DeliveryFailed) as failed:
        connection.send(mail())
    assert (failed.value.reason, failed.value.is_final) == (reason, is_final)
    assert ANN not in str(failed.value)
    mail_server.replies.clear()
    connection.send(mail())
    connection.close()
    assert len(mail_server.to(ANN)) == 1
    assert mail_server.connections == 1


@pytest.mark.parametrize("answer", ["421 4.3.2 closing", "530 5.7.0 log in first"])
def test_an_answer_about_the_connection_is_not_held_against_the_mail(
    mail_server: MailServer, answer: str
) -> None:
    mail_server.replies["RCPT"] = answer
    with pytest.raises(Unreachable, match=f"^RCPT: {answer[:9]}$"):
        send(mail_server.url)


def test_a_server_that_dies_after_data_confirms_nothing(mail_server: MailServer) -> None:
    mail_server.dies_after_data = 1
    with pytest.raises(Unconfirmed, match=r"^after DATA: the server closed the connection$"):
        send(mail_server.url)


def test_nobody_listens() -> None:
    with smtp.silent_server() as url:
        pass
    with pytest.raises(Unreachable, match=r"^connect: Connection refused$"):
        send(url)


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    started = time.monotonic()
    with (
        smtp.silent_server() as url,
        pytest.raises(Unreachable, match=r"^connect: the server did not answer in time$"),
    ):
        transport(url, connect=SHORT).connect()
    assert time.monotonic() - started < 14, "the shipped ones would give up later"


def test_a_server_that_freezes_is_given_up_in_time_at_every_step(mail_server: MailServer) -> None:
    connection = transport(mail_server.url, reply=SHORT).connect()
    mail_server.freeze()
    with pytest.raises(Unreachable, match=r"^MAIL: the server did not answer in time$"):
        connection.send(mail())
    connection.close()
    mail_server.thaw()

    connection = transport(mail_server.url, delivery=SHORT).connect()
    mail_server.freezes_after_data = True
    with pytest.raises(Unconfirmed, match=r"^after DATA: the server did not answer in time$"):
        connection.send(mail())
    mail_server.thaw()
    connection.close()


# -- addresses -------------------------------------------------------------------------------------


def test_addresses_beyond_ascii(mail_server: MailServer) -> None:
    for address, in_ascii in (
        ("bob@exämple.org", "bob@xn--exmple-cua.org"),
        ("bøb@exämple.org", "bøb@xn--exmple-cua.org"),
        ("o'neil+tag@example.org", "o'neil+tag@example.org"),
        (f"{'l' * 64}@{'d' * 60}.{'e' * 60}.example.org", ""),
    ):
        send(mail_server.url, address)
        received = mail_server.wait_for(in_ascii or address)
        assert received.message["To"].addresses[0].addr_spec == address


def test_a_server_without_smtputf8_refuses_for_good(
    mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_extn = smtplib.SMTP.has_extn
    monkeypatch.setattr(
        smtplib.SMTP, "has_extn", lambda self, name: name != "smtputf8" and has_extn(self, name)
    )
    with pytest.raises(DeliveryFailed) as failed:
        send(mail_server.url, "bøb@example.org")
    assert failed.value.is_final
