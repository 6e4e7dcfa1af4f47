"""The settings: name, default and check of each."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import SequenceMatcher
from typing import Any
from urllib.parse import urlsplit

from authapp import setting_types as kinds
from authapp.errors import SettingError
from authapp.processors import usable_processors
from authapp.storage.schema_names import DEFAULT_SCHEMA

_DAY = 86_400
_LONGEST = 100  # characters of a value that a message shows
_OTHERS_NAMES = {"DATADIR"}  # names of other programs that look like typing errors of ours


def _setting(parse: Callable[[str], Any], default: Any = MISSING, *, secret: bool = False) -> Any:
    """A field of `Config`: the parser of its text, and its default. Without one it is required."""
    metadata = {"parse": parse, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one application, checked. Times are whole seconds."""

    # Postgres and Redis
    DATABASE_URL: str = _setting(kinds.postgres_url, secret=True)
    DATABASE_SCHEMA: str = _setting(kinds.schema_name, DEFAULT_SCHEMA)
    REDIS_URL: str = _setting(kinds.redis_url, secret=True)
    KEY_PREFIX: str = _setting(kinds.key_prefix, "")

    # several secrets: the first signs and hashes, all verify; prepend a new one to rotate
    SECRET_KEY: tuple[str, ...] = _setting(kinds.secrets, secret=True)
    PASSWORD_PEPPER: tuple[str, ...] = _setting(kinds.secrets, secret=True)

    # the cookies
    SESSION_COOKIE_NAME: str = _setting(kinds.text, "SESSION-TOKEN")
    SESSION_COOKIE_DOMAIN: str = _setting(kinds.domain, "")
    SESSION_COOKIE_SECURE: bool = _setting(kinds.switch, default=True)
    SESSION_COOKIE_SAMESITE: str = _setting(kinds.same_site, "Lax")
    SESSION_COOKIE_PATH: str = _setting(kinds.cookie_path, "/")
    SESSION_COOKIE_PARTITIONED: bool = _setting(kinds.switch, default=False)

    # how long a session lasts, and how many one person may have
    SESSION_IDLE_SECONDS: int = _setting(kinds.whole(60, 30 * _DAY), 1_800)
    SESSION_ABSOLUTE_SECONDS: int = _setting(kinds.whole(60, 30 * _DAY), 43_200)
    REMEMBER_ME_SECONDS: int = _setting(kinds.whole(60, 365 * _DAY), 2_592_000)
    SESSION_MAX_PER_USER: int = _setting(kinds.whole(1, 1_000), 20)

    # how old a copy in Redis may get before it is read from Postgres again
    REVALIDATE_SECONDS: int = _setting(kinds.whole(1, 3_600), 60)
    CREDENTIAL_CACHE_SECONDS: int = _setting(kinds.whole(1, _DAY), 300)
    USER_CACHE_SECONDS: int = _setting(kinds.whole(1, _DAY), 300)
    CREDENTIAL_CACHE_WRITE: str = _setting(kinds.one_of("background", "blocking"), "background")

    # log-in
    ACCESS_TOKEN_SECONDS: int = _setting(kinds.whole(60, _DAY), 3_600)
    LOGIN_TIMEOUT_SECONDS: int = _setting(kinds.whole(1, 60), 5)
    LOGIN_LIMIT_PER_ADDRESS: str = _setting(kinds.rate, "20 per minute")
    LOGIN_FAILURES_PER_ACCOUNT: str = _setting(kinds.rate, "10 per 15 minutes")
    BCRYPT_ROUNDS: int = _setting(kinds.whole(4, 15), 12)

    # sign-up, new passwords, second factors and fresh proofs
    SIGNUP: str = _setting(kinds.one_of("closed", "invite", "domains", "open"), "closed")
    SIGNUP_DOMAINS: tuple[str, ...] = _setting(kinds.email_domains, ())
    PASSWORD_MIN_LENGTH: int = _setting(kinds.whole(8, 64), 15)
    PASSWORD_BLOCKLIST: str = _setting(kinds.text, "")
    SECOND_FACTOR: str = _setting(kinds.second_factor, "optional")
    ASSURANCE_LEVEL: int = _setting(kinds.whole(1, 2), 1)
    STEP_UP_SECONDS: int = _setting(kinds.whole(10, _DAY), 600)

    # mail
    MAIL_URL: str = _setting(kinds.mail_url, "", secret=True)
    MAIL_FROM: str = _setting(kinds.mail_from, "")
    MAIL_LIMIT_PER_RECIPIENT: str = _setting(kinds.rate, "10 per hour")
    MAIL_LIMIT_TOTAL: str = _setting(kinds.rate, "1000 per minute")
    EMAIL_VERIFICATION: str = _setting(kinds.one_of("required", "off"), "")

    # addresses, proxies and processes
    PUBLIC_URL: str = _setting(kinds.public_url, "")
    TRUSTED_ORIGINS: tuple[str, ...] = _setting(kinds.origins, ())
    CORS_ORIGINS: tuple[str, ...] = _setting(kinds.origins, ())
    TRUSTED_PROXY_HOPS: int = _setting(kinds.whole(0, 10), 0)
    EMAIL_LOCAL_DOMAINS: tuple[str, ...] = _setting(kinds.email_domains, ())
    ALLOWED_REDIRECT_HOSTS: tuple[str, ...] = _setting(kinds.hosts, ())
    HOST: str = _setting(kinds.host, "127.0.0.1")
    PORT: int = _setting(kinds.whole(0, 65_535), 8_000)
    WEB_CONCURRENCY: int = _setting(kinds.whole(1, 512), min(512, usable_processors()))
    WEB_THREADS: int = _setting(kinds.whole(1, 512), 8)  # of a worker
    DATA_DIR: str = _setting(kinds.text, "var")

    # forward-auth: path rules, and whether each request that may pass gets a line in the log
    GUARD_RULES: str = _setting(kinds.text, "")
    LOG_ALLOWED_CHECKS: bool = _setting(kinds.switch, default=True)

    # the deployment's name, colour and links on pages
    BRAND_NAME: str = _setting(kinds.text, "authapp")
    BRAND_LOGO_URL: str = _setting(kinds.link, "")
    BRAND_COLOR: str = _setting(kinds.color, "")
    TERMS_URL: str = _setting(kinds.link, "")
    PRIVACY_URL: str = _setting(kinds.link, "")
    SUPPORT_URL: str = _setting(kinds.link_or_mailto, "")

    # the endpoint of the log-in page of an app that embeds authapp
    LOGIN_VIEW: str = _setting(kinds.text, "")

    def __post_init__(self) -> None:
        """Checks settings that depend on each other.

        Raises:
            SettingError: the browser would refuse the cookie (RFC 6265bis, 4.1.3: name prefixes),
                or never send it.
        """
        name = self.SESSION_COOKIE_NAME
        if not name or not all(
            c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name
        ):
            raise SettingError(
                f"SESSION_COOKIE_NAME: use letters, digits, - and _ only{_shown(name)}"
            )
        base = name.removeprefix("__Host-").removeprefix("__Secure-")
        if base in {"DEVICE-TOKEN", "VISITOR-DATA"}:
            raise SettingError(f"SESSION_COOKIE_NAME: use another, {base} is a cookie of ours")
        for needs_secure, what in (
            (name.startswith(("__Host-", "__Secure-")), name),
            (self.SESSION_COOKIE_SAMESITE == "None", "SameSite=None"),
            (self.SESSION_COOKIE_PARTITIONED, "a partitioned cookie"),
        ):
            if needs_secure and not self.SESSION_COOKIE_SECURE:
                raise SettingError(
                    f"SESSION_COOKIE_SECURE: set it to 1, {what} is refused without it"
                )
        if name.startswith("__Host-") and self.SESSION_COOKIE_DOMAIN:
            raise SettingError(f"SESSION_COOKIE_DOMAIN: leave it empty, {name} is refused with it")
        if name.startswith("__Host-") and self.SESSION_COOKIE_PATH != "/":
            raise SettingError(f"SESSION_COOKIE_PATH: set it to /, {name} is refused otherwise")
        self._check_people()
        if self.PUBLIC_URL and not f"{self.mount_point}/".startswith(
            self.SESSION_COOKIE_PATH.rstrip("/") + "/"
        ):
            raise SettingError(
                f"SESSION_COOKIE_PATH: set it to {self.mount_point or '/'} or a part of that, "
                f"browsers send the cookie to no page of {self.PUBLIC_URL} otherwise"
            )

    def _check_people(self) -> None:
        """Checks settings of sign-up and mail that depend on each other."""
        if self.SIGNUP == "domains" and not self.SIGNUP_DOMAINS:
            raise SettingError("SIGNUP_DOMAINS: set it to the domains that may sign up")
        if self.SIGNUP_DOMAINS and self.SIGNUP != "domains":
            raise SettingError("SIGNUP: set it to domains, or leave SIGNUP_DOMAINS empty")
        if self.MAIL_URL and not self.PUBLIC_URL:
            raise SettingError(
                "PUBLIC_URL: set it to the address that people use, links in mails begin with it"
            )
        if self.ASSURANCE_LEVEL == 2 and self.SECOND_FACTOR != "required":
            raise SettingError("SECOND_FACTOR: set it to required, ASSURANCE_LEVEL=2 demands two")
        if self.EMAIL_VERIFICATION == "required" and not self.MAIL_URL:
            raise SettingError("MAIL_URL: set it, nobody can confirm an address without mail")

    @property
    def mail_sender(self) -> str:
        """MAIL_FROM; without it, nobody at the host of PUBLIC_URL."""
        host = urlsplit(self.PUBLIC_URL).hostname or ""
        is_name = bool(re.search(r"[a-z]", host)) and ":" not in host
        return self.MAIL_FROM or f"no-reply@{host if is_name else 'localhost'}"

    @property
    def mount_point(self) -> str:
        """The path of PUBLIC_URL, like `/auth`; empty for the root of the host."""
        return urlsplit(self.PUBLIC_URL).path

    @property
    def public_origin(self) -> str:
        """The origin of PUBLIC_URL, like `https://auth.example.org`; empty without that setting."""
        return "/".join(self.PUBLIC_URL.split("/")[:3])

    @property
    def is_verification_required(self) -> bool:
        """Whether an address must be confirmed before it is used as an identity."""
        if self.EMAIL_VERIFICATION:
            return self.EMAIL_VERIFICATION == "required"
        return bool(self.MAIL_URL)

    @classmethod
    def from_env(cls) -> "Config":
        """Settings from the environment.

        Raises:
            SettingError: a setting is missing or malformed, or a name is misspelt. The message is
                one line, which names the remedy.
        """
        config = cls.from_mapping(os.environ)
        told = os.environ.get("SCRIPT_NAME", "").strip("/")  # gunicorn and our granian read it
        if config.PUBLIC_URL and told and f"/{told}" != config.mount_point:
            raise SettingError(
                f"SCRIPT_NAME: remove it, PUBLIC_URL says where authapp is mounted{_shown(told)}"
            )
        return config

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Config":
        """Settings from a mapping of names to text or ready values, such as `app.config`.

        Names that are no settings are ignored, unless one looks like a misspelt setting.

        Raises:
            SettingError: as `from_env`.
        """
        if misspelt := _misspelt(values, {setting.name for setting in fields(cls)}):
            raise SettingError(misspelt)
        found: dict[str, Any] = {}
        for setting in fields(cls):
            value = values.get(setting.name)
            if value is None or value == "":
                if setting.default is MISSING:
                    raise SettingError(_missing(setting.name, values))
                continue
            found[setting.name] = cls.read(setting.name, value)
        return cls(**found)

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        """The value of one setting, from text or a ready value.

        Raises:
            SettingError: the value is malformed.
        """
        metadata = cls.__dataclass_fields__[name].metadata
        try:
            return metadata["parse"](_as_text(value))
        except ValueError as error:
            given = _described(value) if metadata["secret"] else _shown(value)
            raise SettingError(f"{name}: {error}{given}") from None


def _misspelt(values: Mapping[str, Any], ours: Collection[str]) -> str:
    """The message about a name that differs from a setting by one or two letters, or "".

    Short names are ignored, because many other programs have similar ones. A name is also ignored
    if the setting that it resembles is set, because it then belongs to another program.
    """
    for name in sorted(set(values) - set(ours) - _OTHERS_NAMES):
        for setting in ours:
            off = 2 if len(setting) >= 10 else 1
            if len(setting) < 6 or values.get(setting) or abs(len(setting) - len(name)) > off:
                continue
            blocks = SequenceMatcher(None, name, setting, autojunk=False).get_matching_blocks()
            if max(len(name), len(setting)) - sum(block.size for block in blocks) <= off:
                return f"{name} is no setting: write {setting}, or remove it"
    return ""


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
    """The end of a message that shows the value, without the password of a URL."""
    text = re.sub(r"//[^/\s]*@", "//***@", str(value))
    return f" (it is {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'!r})"


def _described(value: Any) -> str:
    """The end of a message about a refused secret: a likely cause, and nothing of the secret."""
    if not isinstance(value, str):
        return ""
    if "\r" in value:
        return " (it has a carriage return in it: the file it is from has line ends of Windows)"
    if value.strip()[:1] in {'"', "'"}:
        return " (it begins with a quote, which was read as a part of it)"
    return ""


def _missing(name: str, values: Mapping[str, Any]) -> str:
    remedy = {
        "DATABASE_URL": "set it to postgresql://user:password@host/database",
        "REDIS_URL": "set it to redis://host:6379/0",
    }.get(
        name,
        "set it to at least 32 random bytes; make them with "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`",
    )
    if values is not os.environ and os.environ.get(name):  # `values` is app.config
        return (
            f"{name} is missing in app.config, but the environment has it: give Config.from_env() "
            "to Auth or init_app as the second argument"
        )
    return (
        f"{name} is missing: {remedy} (`make run` and `authapp dev COMMAND` set everything; while "
        "one of them runs, `. var/env` sets it in another shell)"
    )
