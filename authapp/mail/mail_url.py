"""`MAIL_URL`, read: a mail server to give mails to, or a directory to write them to."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal
from urllib.parse import unquote, urlsplit

_PORTS = {"smtp": 587, "smtps": 465}
_ADVICE = (
    "set it to smtp://user:password@host:587, to smtps://user:password@host:465, "
    "or to file:DIRECTORY"
)


@dataclass(frozen=True, slots=True)
class MailUrl:
    """Where mails go.

    Attributes:
        scheme: `smtp` demands STARTTLS but on loopback (RFC 3207); `smtps` begins with TLS
            (RFC 8314, 3.3); `file` writes one `.eml` file a mail.
        directory: for `file` alone.
    """

    scheme: Literal["smtp", "smtps", "file"]
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    directory: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, where nobody listens in between."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_mail_url(value: str) -> MailUrl:
    """Reads the setting.

    Raises:
        ValueError: the text is no such address; the message is the remedy.
    """
    scheme, colon, rest = value.partition(":")
    scheme = scheme.lower()
    if scheme == "file" and colon and rest.strip("/"):
        directory = rest[2:] if rest.startswith("//") else rest
        return MailUrl("file", directory=directory)
    if scheme not in _PORTS:
        raise ValueError(_ADVICE)
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(_ADVICE) from None
    if not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(_ADVICE)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return MailUrl(
        "smtps" if scheme == "smtps" else "smtp", host, port or _PORTS[scheme], user, password
    )
