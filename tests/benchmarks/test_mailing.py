"""The benchmark of mail measures what it says; `make bench-mail` measures in earnest."""

from email.message import EmailMessage

from authapp.mail.mail_url import read_mail_url
from authapp.mail.smtp import SmtpTransport
from authapp.mail.transport import RenderedMail
from benchmarks.mailing import Round, report
from benchmarks.mails import MailSink


def test_ratios_are_of_one_round() -> None:
    """The machine may have been half as fast in the next."""
    told = report(
        [
            Round(most=(1000.0, 900.0), cpu=(0.10, 0.15), mails=(16.0, 17.0)),
            Round(most=(500.0, 500.0), cpu=(0.20, 0.25), mails=(15.0, 17.0)),
            Round(most=(2000.0, 1960.0), cpu=(0.10, 0.15), mails=(17.0, 16.0)),
        ]
    )
    assert "with mail / without: 0.980 (0.900-1.000)" in told
    assert "could be: 960 (900)" in told
    assert "200 checks a second: 1020 (960)" in told
    assert "3.0 ms, 5.0 % of a core" in told


def test_the_sink_takes_mails_and_counts_them() -> None:
    sink = MailSink()
    try:
        connection = SmtpTransport(read_mail_url(sink.url), "localhost").connect()
        message = EmailMessage()
        message.set_content("Hello\n.\n")
        for _ in range(3):
            connection.send(RenderedMail("a@example.org", "b@example.org", message.as_bytes()))
        connection.close()
        assert sink.taken == 3
    finally:
        sink.close()
