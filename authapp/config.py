"""Every setting, its default and its check, at one glance."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from email_validator import EmailNotValidError, validate_email
from limits import parse_many

from authapp.errors import SettingError
from authapp.processors import usable_processors
from authapp.storage.database_urls import read_database_url

_DAY = 86_400
_LABEL = r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LONGEST = 100  # characters of a value that a message shows
_HOST = re.compile(rf"(?:{_DOMAIN}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")


def _text(value: str) -> str:
    if not value.isprintable() or value[:1] in {'"', "'"}:
        raise ValueError("set it without quotes, line ends and control characters")
    return value


def _host(value: str) -> str:
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


def _switch(value: str) -> bool:
    known = {"1": True, "true": True, "on": True, "yes": True}
    known |= {"0": False, "false": False, "off": False, "no": False}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError("set it to 1 or 0") from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"set it to a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise ValueError(f"set it to a whole number from {low} to {high}")
        return number

    return parse


def _secrets(value: str) -> tuple[str, ...]:
    secrets = tuple(part.strip() for part in value.split(","))
    if any(len(secret.encode()) < 32 for secret in secrets):
        raise ValueError(
            "each secret needs at least 32 bytes; make one with "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
        )
    return secrets


def _hosts(value: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError("set it to host names separated by commas, like `app.example.org`")
    return hosts


def _email_domains(value: str) -> tuple[str, ...]:
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


def _domain(value: str) -> str:
    if not re.fullmatch(rf"\.?{_DOMAIN}", value):  # RFC 6265, 4.1.2.3: a leading dot is ignored
        raise ValueError("set it to a domain like `example.org`, or leave it empty")
    return value


def _rate(value: str) -> str:
    try:
        found = parse_many(value)
    except ValueError:
        found = []
    if len(found) != 1 or found[0].amount < 1:
        raise ValueError("set it to one limit like `20 per minute`")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError("set it to " + " or ".join(choices))
        return value

    return parse


def _postgres_url(value: str) -> str:
    read_database_url(value)
    return _text(value)


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


# of those of redis-py
_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
}


def _redis_url(value: str) -> str:
    _text(value)
    authority = re.match(r"[a-z+]*://[^/?#]*", value)
    if authority and set("@#") & set(value[authority.end() :]):  # a password that ended early
        raise ValueError(
            "write @ : / ? # [ ] in user and password percent-encoded, as %40 for @; "
            "for example redis://user:password@host:port/0"
        )
    if value.startswith(("redis://", "rediss://")) and _has_sound_port(value):
        return value
    if value.startswith("unix://"):
        return value
    scheme, _, rest = value.partition("://")
    place, _, query = rest.partition("?")
    hosts, _, service = place.rpartition("@")[2].partition("/")
    listed = all(re.fullmatch(r"[^:]+|\[[^]]+\]:\d+|[^:]+:\d+", h) for h in hosts.split(","))
    with_ports = all(re.search(r":\d+$", host) for host in hosts.split(","))
    has_tls = scheme.startswith("rediss+")
    known = {name for name, _ in parse_qsl(query, keep_blank_values=True)} <= _TLS_OPTIONS
    if listed and with_ports and (not query or (has_tls and known)):
        if scheme in {"redis+cluster", "rediss+cluster"}:
            return value
        if scheme in {"redis+sentinel", "rediss+sentinel"} and service.strip("/"):
            return value
    raise ValueError(
        "set it to redis://host:port/0, rediss://…, unix://…, "
        "redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port; "
        "with TLS rediss+sentinel://… or rediss+cluster://…, and perhaps ?ssl_ca_certs=/path"
    )


def _key_prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", value):
        raise ValueError("use letters, digits, _ . : and - only, 64 at most, like `auth:`")
    return value


def _setting(parse: Callable[[str], Any], default: Any = MISSING, *, secret: bool = False) -> Any:
    """A setting: how its text is read, and its default. Without a default it must be given."""
    metadata = {"parse": parse, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one application, checked. Times are whole seconds."""

    # where the facts and the copies live
    DATABASE_URL: str = _setting(_postgres_url, secret=True)
    REDIS_URL: str = _setting(_redis_url, secret=True)
    KEY_PREFIX: str = _setting(_key_prefix, "")

    # the first signs and hashes, all verify: prepend a new one to rotate
    SECRET_KEY: tuple[str, ...] = _setting(_secrets, secret=True)
    PASSWORD_PEPPER: tuple[str, ...] = _setting(_secrets, secret=True)

    # the cookie
    SESSION_COOKIE_NAME: str = _setting(_text, "SESSION-TOKEN")
    SESSION_COOKIE_DOMAIN: str = _setting(_domain, "")
    SESSION_COOKIE_SECURE: bool = _setting(_switch, default=True)

    # how long a session lasts, and how many one person may have
    SESSION_IDLE_SECONDS: int = _setting(_whole(60, 30 * _DAY), 1_800)
    SESSION_ABSOLUTE_SECONDS: int = _setting(_whole(60, 30 * _DAY), 43_200)
    REMEMBER_ME_SECONDS: int = _setting(_whole(60, 365 * _DAY), 2_592_000)
    SESSION_MAX_PER_USER: int = _setting(_whole(1, 1_000), 20)

    # how old a copy may get before Postgres is asked again
    REVALIDATE_SECONDS: int = _setting(_whole(1, 3_600), 60)
    CREDENTIAL_CACHE_SECONDS: int = _setting(_whole(1, _DAY), 300)
    USER_CACHE_SECONDS: int = _setting(_whole(1, _DAY), 300)
    CREDENTIAL_CACHE_WRITE: str = _setting(_one_of("background", "blocking"), "background")

    # log-in
    ACCESS_TOKEN_SECONDS: int = _setting(_whole(60, _DAY), 3_600)
    LOGIN_TIMEOUT_SECONDS: int = _setting(_whole(1, 60), 5)
    LOGIN_LIMIT_PER_ADDRESS: str = _setting(_rate, "20 per minute")
    LOGIN_FAILURES_PER_ACCOUNT: str = _setting(_rate, "10 per 15 minutes")
    BCRYPT_ROUNDS: int = _setting(_whole(4, 15), 12)

    # where it is reached
    TRUSTED_PROXY_HOPS: int = _setting(_whole(0, 10), 0)
    EMAIL_LOCAL_DOMAINS: tuple[str, ...] = _setting(_email_domains, ())
    ALLOWED_REDIRECT_HOSTS: tuple[str, ...] = _setting(_hosts, ())
    HOST: str = _setting(_host, "127.0.0.1")
    PORT: int = _setting(_whole(0, 65_535), 8_000)
    WEB_CONCURRENCY: int = _setting(_whole(1, 512), min(512, usable_processors()))
    DATA_DIR: str = _setting(_text, "var")

    def __post_init__(self) -> None:
        """Checks what two settings say together.

        Raises:
            SettingError: the browser would refuse the cookie (RFC 6265bis, 4.1.3: name prefixes).
        """
        name = self.SESSION_COOKIE_NAME
        if not name or not all(
            c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name
        ):
            raise SettingError(
                f"SESSION_COOKIE_NAME: use letters, digits, - and _ only{_shown(name)}"
            )
        if name.removeprefix("__Host-").removeprefix("__Secure-") == "DEVICE-TOKEN":
            raise SettingError("SESSION_COOKIE_NAME: use another, DEVICE-TOKEN is a cookie of ours")
        if name.startswith(("__Host-", "__Secure-")) and not self.SESSION_COOKIE_SECURE:
            raise SettingError(f"SESSION_COOKIE_SECURE: set it to 1, {name} is refused without it")
        if name.startswith("__Host-") and self.SESSION_COOKIE_DOMAIN:
            raise SettingError(f"SESSION_COOKIE_DOMAIN: leave it empty, {name} is refused with it")

    @classmethod
    def from_env(cls) -> "Config":
        """Settings from the environment.

        Raises:
            SettingError: one is missing, weak or unknown; one line that names the remedy.
        """
        return cls.from_mapping(os.environ)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Config":
        """Settings from text or ready values, by name; names it does not know are left alone.

        Raises:
            SettingError: as `from_env`.
        """
        found: dict[str, Any] = {}
        for setting in fields(cls):
            value = values.get(setting.name)
            if value is None or value == "":
                if setting.default is MISSING:
                    raise SettingError(_missing(setting.name))
                continue
            try:
                found[setting.name] = setting.metadata["parse"](_as_text(value))
            except ValueError as error:
                given = _described(value) if setting.metadata["secret"] else _shown(value)
                raise SettingError(f"{setting.name}: {error}{given}") from None
        return cls(**found)


def _as_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("give it as text, e.g. what secrets.token_urlsafe(48) makes") from None
    return str(value)


def _shown(value: Any) -> str:
    """Shows the value, with its quotes and line ends, and without the password of a URL."""
    text = re.sub(r"//[^/\s]*@", "//***@", str(value))
    return f" (it is {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'!r})"


def _described(value: Any) -> str:
    """Says how a secret was spelt that was refused, and shows nothing of it."""
    if not isinstance(value, str):
        return ""
    if "\r" in value:
        return " (it has a carriage return in it: the file it is from has line ends of Windows)"
    if value.strip()[:1] in {'"', "'"}:
        return " (it begins with a quote, which was read as a part of it)"
    return ""


def _missing(name: str) -> str:
    remedy = {
        "DATABASE_URL": "set it to postgresql://user:password@host/database",
        "REDIS_URL": "set it to redis://host:6379/0",
    }.get(
        name,
        "set it to at least 32 random bytes; make them with "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`",
    )
    return (
        f"{name} is missing: {remedy} "
        "(`make run` sets everything; while it runs, `. var/env` does so for other commands)"
    )
