"""The text of mails: one pair of templates for each kind, in the name of the brand."""

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from email.header import Header
from email.quoprimime import body_encode
from email.utils import format_datetime, formataddr, parseaddr
from ipaddress import ip_address
from urllib.parse import urljoin

from jinja2 import BaseLoader, Environment, select_autoescape

from authapp.brand import Brand
from authapp.mail.outbox import Letter
from authapp.mail.public_links import PublicLinks
from authapp.mail.smtp import ascii_domain
from authapp.mail.transport import RenderedMail

TEMPLATES = "authapp/mail"  # KIND.txt, whose first line is the subject, and KIND.html
_LINE = 900  # bytes of a line that need no encoding (RFC 5322, 2.1.1)
_LONGEST = 200  # characters of a text that somebody chose
_ADDRESSES = {"email", "former_email", "new_email"}  # shown as they are


class Messages:
    """Makes mails of their kinds and contexts.

    Args:
        loader: finds templates; those of the app itself come first.
        sender: MAIL_FROM.
        device_name: names the device of a User-Agent.
        message_id: makes an identifier of the number of a mail, the same at each attempt, by which
            mail programs know a mail that came twice.
    """

    def __init__(
        self,
        loader: BaseLoader,
        brand: Brand,
        public_link: PublicLinks,
        sender: str,
        device_name: Callable[[str], str],
        message_id: Callable[[int], str],
    ) -> None:
        name, address = parseaddr(sender)
        self._address, self._domain = address, address.rpartition("@")[2]
        self._from = formataddr((name or brand.name, address))
        self._device_name = device_name
        self._message_id = message_id
        self._environment = Environment(
            loader=loader,
            autoescape=select_autoescape(["html"]),  # the other parts are plain text
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["when"] = _shown_time
        support = brand.support_url
        if support.startswith("/"):  # a path of the host that PUBLIC_URL names
            support = urljoin(public_link("/"), support)
        self._environment.globals |= {"brand": brand, "url": public_link, "support_url": support}

    def render(self, kind: str, letter: Letter, written_at: datetime, number: int) -> RenderedMail:
        """The whole mail.

        Raises:
            jinja2.TemplateError, Exception: the template is missing or broken.
        """
        context = {name: safe(name, value) for name, value in letter.context.items()}
        if user_agent := letter.context.get("user_agent"):
            context["device"] = safe("device", self._device_name(user_agent))
        text = self._environment.get_template(f"{TEMPLATES}/{kind}.txt").render(context)
        subject, _, body = text.strip().partition("\n")
        html = self._environment.get_template(f"{TEMPLATES}/{kind}.html").render(
            {**context, "subject": subject.strip()}
        )
        boundary = secrets.token_hex(16)
        headers = (
            ("From", self._from),
            ("To", _header_address(letter.recipient)),
            ("Subject", Header(" ".join(subject.split()), header_name="Subject").encode()),
            ("Date", format_datetime(written_at.astimezone(UTC))),
            ("Message-ID", f"<{self._message_id(number)}@{self._domain}>"),
            ("Auto-Submitted", "auto-generated"),  # RFC 3834: nobody's absence is told to us
            ("MIME-Version", "1.0"),
            ("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
        )
        body = re.sub(r"\n{3,}", "\n\n", body.strip()) + "\n"
        parts = (_part("plain", body), _part("html", html), "")
        lines = [f"{name}: {value}" for name, value in headers]
        whole = "\n".join(lines) + "\n\n" + f"--{boundary}\n".join(("", *parts))
        whole = whole.removesuffix(f"--{boundary}\n") + f"--{boundary}--\n"
        content = whole.replace("\n", "\r\n").encode()
        return RenderedMail(self._address, letter.recipient, content)


def _part(kind: str, text: str) -> str:
    """A part of a mail. It is plain where each server passes it on as it is."""
    lines = text.splitlines()
    is_plain = text.isascii() and all(len(line) <= _LINE for line in lines)
    if not is_plain:
        lines = body_encode(text.encode().decode("latin-1")).splitlines()
    encoding = "7bit" if is_plain else "quoted-printable"
    return "\n".join(
        (
            f"Content-Type: text/{kind}; charset=utf-8",
            f"Content-Transfer-Encoding: {encoding}",
            "",
            *lines,
            "",
        )
    )


def safe(name: str, value: str) -> str:
    """A value as templates get it: one line of plain text in which a mail program sees no link,
    unless it is one of ours.

    Args:
        name: `link`, and names that end in `_link`, are ours.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    if name == "link" or name.endswith("_link"):
        return line
    if name == "address":
        return line if _is_ip_address(line) else ""
    if name in _ADDRESSES or (name == "invited_by" and _is_email(line)):
        return line
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return re.sub(r"(?<=\S)([.:/@])(?=\S)", r"\1 ", line) if _may_be_linked(line) else line


def _may_be_linked(line: str) -> bool:
    """Whether a mail program could make a link of something in the line, like `evil.example`."""
    return re.search(r"[^\W_]\.[^\W\d_]|://|:/|www\.|@", line) is not None


def _is_email(line: str) -> bool:
    return re.fullmatch(r"[^@\s/:]+@[A-Za-z0-9.-]+", line) is not None


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _shown_time(value: object) -> str:
    """A moment, given as RFC 3339, for people."""
    text = str(value)  # nothing, where the context has no such name
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    return f"{moment:%-d %B %Y, %H:%M} UTC"


def _header_address(stored: str) -> str:
    """As mail programs show it; the domain in ASCII unless the whole address needs UTF-8."""
    local, _, domain = stored.rpartition("@")
    return f"{local}@{ascii_domain(domain)}" if local.isascii() else stored
