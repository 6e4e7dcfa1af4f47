"""The kinds of values that settings have: each reads the text of a setting, or says what to write.

Every function takes the text and returns the value.

Raises:
    ValueError: the text is not of this kind; the message is the remedy.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from email.utils import parseaddr
from ipaddress import ip_address
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from limits import parse_many

from authapp.mail.mail_url import read_mail_url
from authapp.storage.database_urls import read_database_url
from authapp.storage.redis_address import RedisAddress

_LABEL = r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# segments of plain characters: nothing that a browser or a proxy would read as another host or path
MOUNT_POINT = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HOST = re.compile(rf"(?:{_DOMAIN}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")


def text(value: str) -> str:
    if not value.isprintable() or value[:1] in {'"', "'"}:
        raise ValueError("set it without quotes, line ends and control characters")
    return value


def host(value: str) -> str:
    """An address or a name to listen on, without the brackets that an IPv6 address may have."""
    bracketed = re.fullmatch(r"\[(.*:.*)\]", value)
    host = bracketed[1] if bracketed else value
    try:
        ip_address(host)
    except ValueError:
        if bracketed or not re.fullmatch(_DOMAIN, host):
            raise ValueError(
                "set it to an address like `127.0.0.1` or `::1`, or to a name; the port is PORT"
            ) from None
    return host


def same_site(value: str) -> str:
    """As Flask and browsers spell it."""
    spelled = value.strip().capitalize()
    if spelled not in {"Lax", "Strict", "None"}:
        raise ValueError("set it to Lax, Strict or None")
    return spelled


def cookie_path(value: str) -> str:
    if not re.fullmatch(r"/[!-:<-~]*", value):  # RFC 6265, 4.1.1: no controls, no semicolon
        raise ValueError("set it to a path like `/` or `/shop`")
    return value.rstrip("/") or "/"


def switch(value: str) -> bool:
    known = {"1": True, "true": True, "on": True, "yes": True}
    known |= {"0": False, "false": False, "off": False, "no": False}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError("set it to 1 or 0") from None


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"set it to a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise ValueError(f"set it to a whole number from {low} to {high}")
        return number

    return parse


def secrets(value: str) -> tuple[str, ...]:
    secrets = tuple(part.strip() for part in value.split(","))
    if any(len(secret.encode()) < 32 for secret in secrets):
        raise ValueError(
            "each secret needs at least 32 bytes; make one with "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
        )
    return secrets


def hosts(value: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError("set it to host names separated by commas, like `app.example.org`")
    return hosts


def origins(value: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454, 6.1): in lower case, without a default port."""
    found = tuple(_origin(part.strip()) for part in value.split(",") if part.strip())
    if not all(found):
        raise ValueError("set it to origins separated by commas, like `https://app.example.org`")
    return found


def public_url(value: str) -> str:
    """An address like `https://auth.example.org/auth`: origin and path, without a last slash."""
    place = re.match(r"[^/]*//[^/]*", value)
    origin = _origin(place[0]) if place else ""
    path = value[place.end() :].rstrip("/") if place else ""
    if not origin or (path and not MOUNT_POINT.fullmatch(path)):
        raise ValueError(
            "set it to the address that people use, like `https://auth.example.org` "
            "or `https://example.org/auth`"
        )
    return origin + path


def _origin(value: str) -> str:
    """The origin that a value spells; empty if it spells something else."""
    scheme, _, host = value.lower().partition("://")
    if scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host) or not _has_sound_port(value):
        return ""
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS[scheme])}"


def email_domains(value: str) -> tuple[str, ...]:
    """As the domains of addresses are compared: in lower case, and ASCII."""
    domains = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            # below .test each domain is judged by its spelling alone
            read = validate_email(
                f"a@{part}.test", check_deliverability=False, test_environment=True
            )
        except EmailNotValidError:
            raise ValueError(
                "set it to domains separated by commas, like `corp.local,localhost`"
            ) from None
        domains.append(read.ascii_domain.lower().removesuffix(".test"))
    return tuple(domains)


def mail_url(value: str) -> str:
    read_mail_url(value)
    return value


def mail_from(value: str) -> str:
    """A sender: `no-reply@example.org`, or `Name <no-reply@example.org>`."""
    name, address = parseaddr(value)
    try:
        validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        address = address if re.fullmatch(r"[^@\s]+@localhost", address) else ""
    if not address or not value.isprintable() or not name.isprintable():
        raise ValueError("set it to the sender, like `Name <no-reply@example.org>`")
    return value


def domain(value: str) -> str:
    if not re.fullmatch(rf"\.?{_DOMAIN}", value):  # RFC 6265, 4.1.2.3: a leading dot is ignored
        raise ValueError("set it to a domain like `example.org`, or leave it empty")
    return value


def rate(value: str) -> str:
    try:
        found = parse_many(value)
    except ValueError:
        found = []
    if len(found) != 1 or found[0].amount < 1:
        raise ValueError("set it to one limit like `20 per minute`")
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError("set it to " + " or ".join(choices))
        return value

    return parse


_RULES = ("optional", "required")
_NO_ROLES = frozenset(("0", "1", "no", "yes", "off", "on", "false", "true", "none", "all"))


def second_factor(value: str) -> str:
    """`optional`, `required`, or the names of roles, separated by commas."""
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not names or (len(names) > 1 and not {"optional", "required"}.isdisjoint(names)):
        raise ValueError("set it to optional, to required, or to role names like `admin,editor`")
    for name in names:
        if name.lower() in _NO_ROLES or (
            name not in _RULES and get_close_matches(name.lower(), _RULES, cutoff=0.8)
        ):  # else it would be a role that nobody has, and nobody would be asked
            raise ValueError(f"{name} is no role: write optional, required or names of roles")
    return ",".join(names)


def schema_name(value: str) -> str:
    """The name of a schema of Postgres that is ours alone."""
    shared = {"public", "information_schema"}
    if (
        not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value)
        or value.startswith("pg_")
        or value in shared
    ):
        raise ValueError(
            "set it to a name of a-z, 0-9 and _, 63 at most, that begins with a letter or _; "
            "not public, information_schema or pg_…, which are not ours alone"
        )
    return value


def postgres_url(value: str) -> str:
    read_database_url(value)
    return text(value)


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def redis_url(value: str) -> str:
    RedisAddress.parse(text(value))
    return value


def link(value: str) -> str:
    """The address of a page or a picture: https, or a path on this host."""
    try:
        parts = urlsplit(text(value))
    except ValueError:
        parts = urlsplit("")
    is_path = not parts.scheme and not parts.netloc and value.startswith("/")
    is_https = parts.scheme == "https" and re.fullmatch(_HOST, parts.netloc.lower()) is not None
    if not (is_path or is_https) or re.search(r"[\s\\;,'\"<>]", value):
        raise ValueError("set it to https://… or to a path like `/terms`")
    return value


def link_or_mailto(value: str) -> str:
    """The address of a page, or of somebody to write to."""
    if not value.lower().startswith("mailto:"):
        return link(value)
    try:
        validate_email(value[7:], check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise ValueError("set it to https://…, to a path like `/help`, or to `mailto:…`") from None
    return value


def color(value: str) -> str:
    if not re.fullmatch(r"#(?:[0-9a-fA-F]{3}){1,2}", value):
        raise ValueError("set it to a colour like `#3451b2` or `#35b`")
    digits = value[1:].lower()
    return "#" + (digits if len(digits) == 6 else "".join(2 * digit for digit in digits))


def key_prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", value):
        raise ValueError("use letters, digits, _ . : and - only, 64 at most, like `auth:`")
    return value
