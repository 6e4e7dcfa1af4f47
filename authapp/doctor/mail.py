"""Mail: whether the server can be reached, with TLS and log-in. No mail is sent."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from authapp.assembly.mailing import open_transport
from authapp.config import Config
from authapp.doctor.findings import Finding, State
from authapp.doctor.hosts import is_loopback
from authapp.mail.mail_url import read_mail_url
from authapp.mail.smtp import TimeOuts
from authapp.mail.transport import Unreachable

_TIME_OUTS = TimeOuts(connect=5.0, reply=5.0)


def examine(config: Config) -> Iterator[Finding]:
    if not config.MAIL_URL:
        text = "off, so nobody can reset a password, and no address is confirmed"
        yield Finding("mail", State.OK, text, "set MAIL_URL and PUBLIC_URL to turn it on")
        return
    yield _links(config)
    yield _transport(config)


def _links(config: Config) -> Finding:
    check, parts = "links in mails", urlsplit(config.PUBLIC_URL)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        text = f"they begin with {config.PUBLIC_URL}, so one-time links travel in the clear"
        return Finding(check, State.FAIL, text, "serve over HTTPS and set PUBLIC_URL to https://…")
    return Finding(check, State.OK, f"they begin with {config.PUBLIC_URL}")


def _transport(config: Config) -> Finding:
    url = read_mail_url(config.MAIL_URL)
    if url.scheme == "file":
        place, remedy = f"files in {url.directory}", "make the directory writable for this account"
    else:
        place = f"{url.scheme}://{url.host}:{url.port}"
        remedy = "correct MAIL_URL, or start the mail server"
    try:
        open_transport(config, _TIME_OUTS).connect().close()
    except Unreachable as error:
        text = f"mails can't leave by {place}: {error.reason}"
        return Finding("mail", State.FAIL, text, remedy)
    if url.scheme == "file":
        text = f"{place}: nobody receives any"
        return Finding("mail", State.OK, text, "set MAIL_URL to a mail server in production")
    how = f", logged in as {url.user}" if url.user else ""
    return Finding("mail", State.OK, f"{place} takes mails from {config.mail_sender}{how}")
