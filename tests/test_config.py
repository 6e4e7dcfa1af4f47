"""Settings: defaults as promised, and one line with the remedy for each that can't be used."""

from typing import Any

import pytest
from flask import Flask

from authapp.config import Config
from authapp.errors import SettingError
from authapp.processors import usable_processors

GIVEN = {
    "DATABASE_URL": "postgresql://authapp:hush-database@db.example.org/authapp",
    "REDIS_URL": "redis://:hush-redis@cache.example.org:6379/0",
    "SECRET_KEY": "hush-secret-key-" * 3,
    "PASSWORD_PEPPER": "hush-pepper-" * 3,
}


def refusal(**values: Any) -> str:
    with pytest.raises(SettingError) as caught:
        Config.from_mapping(GIVEN | values)
    message = str(caught.value)
    assert "\n" not in message
    assert "hush" not in message
    return message


def test_defaults_are_those_of_the_contract() -> None:
    config = Config.from_mapping(GIVEN)
    assert {name: getattr(config, name) for name in config.__dataclass_fields__} == {
        "DATABASE_URL": GIVEN["DATABASE_URL"],
        "DATABASE_SCHEMA": "authapp_data",
        "REDIS_URL": GIVEN["REDIS_URL"],
        "KEY_PREFIX": "",
        "SECRET_KEY": (GIVEN["SECRET_KEY"],),
        "PASSWORD_PEPPER": (GIVEN["PASSWORD_PEPPER"],),
        "SESSION_COOKIE_NAME": "SESSION-TOKEN",
        "SESSION_COOKIE_DOMAIN": "",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_PATH": "/",
        "SESSION_COOKIE_PARTITIONED": False,
        "SESSION_IDLE_SECONDS": 1_800,
        "SESSION_ABSOLUTE_SECONDS": 43_200,
        "REMEMBER_ME_SECONDS": 2_592_000,
        "SESSION_MAX_PER_USER": 20,
        "REVALIDATE_SECONDS": 60,
        "CREDENTIAL_CACHE_SECONDS": 300,
        "USER_CACHE_SECONDS": 300,
        "CREDENTIAL_CACHE_WRITE": "background",
        "ACCESS_TOKEN_SECONDS": 3_600,
        "LOGIN_TIMEOUT_SECONDS": 5,
        "LOGIN_LIMIT_PER_ADDRESS": "20 per minute",
        "LOGIN_FAILURES_PER_ACCOUNT": "10 per 15 minutes",
        "BCRYPT_ROUNDS": 12,
        "SIGNUP": "closed",
        "SIGNUP_DOMAINS": (),
        "PASSWORD_MIN_LENGTH": 15,
        "PASSWORD_BLOCKLIST": "",
        "SECOND_FACTOR": "optional",
        "ASSURANCE_LEVEL": 1,
        "STEP_UP_SECONDS": 600,
        "MAIL_URL": "",
        "MAIL_FROM": "",
        "MAIL_LIMIT_PER_RECIPIENT": "10 per hour",
        "MAIL_LIMIT_TOTAL": "1000 per minute",
        "EMAIL_VERIFICATION": "",
        "TRUSTED_PROXY_HOPS": 0,
        "PUBLIC_URL": "",
        "TRUSTED_ORIGINS": (),
        "CORS_ORIGINS": (),
        "EMAIL_LOCAL_DOMAINS": (),
        "ALLOWED_REDIRECT_HOSTS": (),
        "HOST": "127.0.0.1",
        "PORT": 8_000,
        "WEB_CONCURRENCY": usable_processors(),
        "WEB_THREADS": 8,
        "GUARD_RULES": "",
        "LOG_ALLOWED_CHECKS": True,
        "DATA_DIR": "var",
        "BRAND_NAME": "authapp",
        "BRAND_LOGO_URL": "",
        "BRAND_COLOR": "",
        "TERMS_URL": "",
        "PRIVACY_URL": "",
        "SUPPORT_URL": "",
        "LOGIN_VIEW": "",
    }


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named_with_its_remedy(name: str, value: str | None) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name} is missing: set it to ")
    assert "make run" in message


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("DATABASE_URL", "mysql://hush@db/authapp", "postgresql://user:password@host/database"),
        ("DATABASE_URL", "authapp", "postgresql://user:password@host/database"),
        ("REDIS_URL", "memcached://hush", "set it to redis://"),
        ("REDIS_URL", "redis://hush:port/0", "set it to redis://"),
        ("REDIS_URL", "redis+sentinel://hush", "redis+sentinel://host:port,host:port/service"),
        ("REDIS_URL", "redis+sentinel://hush:1", "redis+sentinel://host:port,host:port/service"),
        ("REDIS_URL", "redis+cluster://hush", "redis+cluster://host:port,host:port"),
        ("REDIS_URL", "rediss+sentinel://hush:1", "rediss+sentinel://…"),
        ("REDIS_URL", "rediss+cluster://hush:1?ssl_ca_cert=x", "?ssl_ca_certs=/path"),
        ("REDIS_URL", "rediss+cluster://hush:1?socket_timeout=9", "?ssl_ca_certs=/path"),
        ("REDIS_URL", "redis+sentinel://hush:1/main?ssl_ca_certs=x", "rediss+sentinel://…"),
        ("REDIS_URL", "redis://:12#hush@db/0", "percent-encoded"),
        ("REDIS_URL", "redis://:12/hush@db/0", "percent-encoded"),
        ("REDIS_URL", "redis://:12?hush@db/0", "percent-encoded"),
        ("REDIS_URL", "redis+cluster://u:1/hush@db:1", "percent-encoded"),
        ("DATABASE_URL", "postgresql://hush@db:port/x", "set it to postgresql://"),
        ("LOGIN_LIMIT_PER_ADDRESS", "0 per minute", "one limit like `20 per minute`"),
        ("LOGIN_LIMIT_PER_ADDRESS", "2 per second; 9 per hour", "one limit like `20 per minute`"),
        ("SECRET_KEY", bytes(range(128, 168)), "give it as text"),
        ("SECRET_KEY", "hush, too short", "at least 32 bytes"),
        ("SECRET_KEY", "x" * 31, "token_urlsafe"),
        ("SECRET_KEY", "x" * 32 + ",hush", "at least 32 bytes"),
        ("SECRET_KEY", "x" * 32 + ",", "at least 32 bytes"),
        ("PASSWORD_PEPPER", "hush", "at least 32 bytes"),
        ("KEY_PREFIX", "a b", "letters, digits"),
        ("KEY_PREFIX", "{a}:", "letters, digits"),
        ("KEY_PREFIX", "*", "letters, digits"),
        ("KEY_PREFIX", "é:", "letters, digits"),
        ("KEY_PREFIX", "a:\n", "letters, digits"),
        ("KEY_PREFIX", "a" * 65, "letters, digits"),
        ("EMAIL_LOCAL_DOMAINS", "@corp.local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "ann@corp.local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "corp..local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", ".corp.local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "corp.local.", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "*.local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "corp local", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "corp.local:25", "domains separated by commas"),
        ("EMAIL_LOCAL_DOMAINS", "a" * 64, "domains separated by commas"),
        ("SESSION_COOKIE_NAME", "two words", "letters, digits"),
        ("SESSION_COOKIE_NAME", "a;b", "letters, digits"),
        ("SESSION_COOKIE_NAME", "größe", "letters, digits"),
        ("SESSION_COOKIE_NAME", "__Host-DEVICE-TOKEN", "a cookie of ours"),
        ("SESSION_COOKIE_NAME", "VISITOR-DATA", "a cookie of ours"),
        ("SESSION_COOKIE_NAME", "a=b", "letters, digits"),
        ("SESSION_COOKIE_SECURE", "perhaps", "1 or 0"),
        ("SESSION_COOKIE_SAMESITE", "loose", "Lax, Strict or None"),
        ("SESSION_COOKIE_PATH", "shop", "a path like"),
        ("SESSION_COOKIE_PATH", "/a; Domain=example.org", "a path like"),
        ("SESSION_COOKIE_PATH", "/a\n", "a path like"),
        ("SESSION_COOKIE_PARTITIONED", "perhaps", "1 or 0"),
        ("SESSION_IDLE_SECONDS", "half an hour", "a whole number from 60 to"),
        ("SESSION_IDLE_SECONDS", "59", "a whole number from 60 to"),
        ("SESSION_IDLE_SECONDS", "1800.5", "a whole number from 60 to"),
        ("SESSION_MAX_PER_USER", "0", "from 1 to 1000"),
        ("REVALIDATE_SECONDS", "-1", "from 1 to"),
        ("CREDENTIAL_CACHE_WRITE", "sometimes", "background or blocking"),
        ("LOGIN_LIMIT_PER_ADDRESS", "a few", "20 per minute"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "10 per fortnight", "20 per minute"),
        ("BCRYPT_ROUNDS", "3", "from 4 to 15"),
        ("BCRYPT_ROUNDS", "16", "from 4 to 15"),
        ("TRUSTED_PROXY_HOPS", "all", "from 0 to"),
        ("ALLOWED_REDIRECT_HOSTS", "https://a.example", "host names"),
        ("ALLOWED_REDIRECT_HOSTS", "*.example", "host names"),
        ("ALLOWED_REDIRECT_HOSTS", "a@b.example", "host names"),
        ("ALLOWED_REDIRECT_HOSTS", "a.example; script-src data:", "host names"),
        ("ALLOWED_REDIRECT_HOSTS", "a.example:https", "host names"),
        ("SESSION_COOKIE_DOMAIN", "https://example.org/;x", "a domain like `example.org`"),
        ("SESSION_COOKIE_DOMAIN", "example..org", "a domain like `example.org`"),
        ("SESSION_COOKIE_DOMAIN", "example.org\n", "a domain like `example.org`"),
        ("DATABASE_URL", "postgresql://hush@db/authapp\r", "line ends of Windows"),
        ("DATABASE_URL", '"postgresql://hush@db/authapp"', "begins with a quote"),
        ("REDIS_URL", "redis://:hush@cache:6379/0\r", "line ends of Windows"),
        ("REDIS_URL", "unix:///run/hush.sock\r", "line ends of Windows"),
        ("REDIS_URL", "'redis://:hush@cache:6379/0'", "begins with a quote"),
        ("SECRET_KEY", "'hush'", "begins with a quote"),
        ("PASSWORD_PEPPER", "hush\r", "line ends of Windows"),
        ("ALLOWED_REDIRECT_HOSTS", "https://me:hush@a.example", "https://***@a.example"),
        ("DATA_DIR", "var\r", r"(it is 'var\r')"),
        ("DATA_DIR", '"/srv/authapp"', "(it is '\"/srv/authapp\"')"),
        ("BCRYPT_ROUNDS", '"12"', "(it is '\"12\"')"),
        ("SESSION_COOKIE_NAME", "'S'", """(it is "'S'")"""),
        ("SESSION_COOKIE_SECURE", "1;\r", r"(it is '1;\r')"),
        ("LOGIN_LIMIT_PER_ADDRESS", "20 per minute x" + "y" * 500, "yyy…')"),
        ("ALLOWED_REDIRECT_HOSTS", b"\xff", "give it as text"),
        ("HOST", "[::1]:8000", "the port is PORT"),
        ("HOST", "localhost:8000", "the port is PORT"),
        ("HOST", "[127.0.0.1]", "like `127.0.0.1` or `::1`"),
        ("HOST", "[localhost]", "like `127.0.0.1` or `::1`"),
        ("HOST", "http://localhost", "like `127.0.0.1` or `::1`"),
        ("HOST", "::1]", "like `127.0.0.1` or `::1`"),
        ("HOST", ":::1", "like `127.0.0.1` or `::1`"),
        ("HOST", "127.0.0.1\r", r"(it is '127.0.0.1\r')"),
        ("PUBLIC_URL", "auth.example.org", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "ftp://auth.example.org", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "https://me:hush@auth.example.org", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "https://auth.example.org/a?b", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "https://auth.example.org/a/../b", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "https://auth.example.org//b", "like `https://auth.example.org`"),
        ("PUBLIC_URL", "https://auth.example.org:0", "like `https://auth.example.org`"),
        ("SUPPORT_URL", "mailto:", "or to `mailto:…`"),
        ("SUPPORT_URL", "mailto:a@b.example?cc=c@d.example", "or to `mailto:…`"),
        ("SUPPORT_URL", "javascript:alert(1)", "like `/terms`"),
        ("TERMS_URL", "mailto:help@example.org", "like `/terms`"),
        ("TRUSTED_ORIGINS", "*", "like `https://app.example.org`"),
        ("CORS_ORIGINS", "*", "like `https://app.example.org`"),
        ("TRUSTED_ORIGINS", "null", "like `https://app.example.org`"),
        ("TRUSTED_ORIGINS", "https://a.example/", "like `https://app.example.org`"),
        ("TRUSTED_ORIGINS", "https://a.example,b.example", "like `https://app.example.org`"),
        ("PORT", "http", "from 0 to 65535"),
        ("PORT", "65536", "from 0 to 65535"),
    ],
)
def test_an_unusable_setting_is_named_with_its_remedy(
    name: str, value: object, remedy: str
) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name}: ")
    assert remedy in message


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("DATABASE_URL", "postgres://db/authapp", "postgres://db/authapp"),
        ("REDIS_URL", "rediss://cache/0", "rediss://cache/0"),
        ("REDIS_URL", "redis+sentinel://s1:1,s2:2/main", "redis+sentinel://s1:1,s2:2/main"),
        ("REDIS_URL", "redis+cluster://u:p@[::1]:1,c2:2", "redis+cluster://u:p@[::1]:1,c2:2"),
        ("REDIS_URL", "rediss+sentinel://s:1/main", "rediss+sentinel://s:1/main"),
        ("REDIS_URL", "rediss+cluster://c:1?ssl_ca_certs=x", "rediss+cluster://c:1?ssl_ca_certs=x"),
        ("REDIS_URL", "unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("SECRET_KEY", "a" * 32 + ", " + "b" * 32, ("a" * 32, "b" * 32)),
        ("SECRET_KEY", ["a" * 32, "b" * 32], ("a" * 32, "b" * 32)),
        ("SECRET_KEY", b"c" * 32, ("c" * 32,)),
        ("PASSWORD_PEPPER", "é" * 16, ("é" * 16,)),
        ("SESSION_COOKIE_SECURE", "off", False),
        ("SESSION_COOKIE_SECURE", False, False),
        ("SESSION_COOKIE_SECURE", 0, False),
        ("SESSION_COOKIE_SAMESITE", "strict", "Strict"),
        ("SESSION_COOKIE_SAMESITE", "none", "None"),
        ("SESSION_COOKIE_PATH", "/shop/", "/shop"),
        ("SESSION_COOKIE_PATH", "/", "/"),
        ("SESSION_COOKIE_PARTITIONED", "1", True),
        ("SESSION_COOKIE_SECURE", "TRUE", True),
        ("SESSION_COOKIE_NAME", "__Host-SESSION-TOKEN", "__Host-SESSION-TOKEN"),
        ("SESSION_COOKIE_NAME", "__Secure-SESSION-TOKEN", "__Secure-SESSION-TOKEN"),
        ("SESSION_MAX_PER_USER", 1, 1),
        ("ALLOWED_REDIRECT_HOSTS", "A.example, b.example,", ("a.example", "b.example")),
        ("ALLOWED_REDIRECT_HOSTS", "a:8443,[::1]:80", ("a:8443", "[::1]:80")),
        ("SESSION_COOKIE_DOMAIN", ".Example.org", ".Example.org"),
        ("BCRYPT_ROUNDS", "15", 15),
        ("HOST", "::1", "::1"),
        ("HOST", "[::1]", "::1"),
        ("HOST", "[::]", "::"),
        ("HOST", "[fe80::1%eth0]", "fe80::1%eth0"),
        ("HOST", "localhost", "localhost"),
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("KEY_PREFIX", "Auth-1_b.c:", "Auth-1_b.c:"),
        ("PUBLIC_URL", "https://Auth.example.org:443/", "https://auth.example.org"),
        ("SUPPORT_URL", "mailto:help@example.org", "mailto:help@example.org"),
        ("PUBLIC_URL", "http://[::1]:8000/a/b/", "http://[::1]:8000/a/b"),
        (
            "TRUSTED_ORIGINS",
            "https://A.example:443, http://b:8080,",
            ("https://a.example", "http://b:8080"),
        ),
        ("TRUSTED_ORIGINS", ["http://a.example:80"], ("http://a.example",)),
        ("CORS_ORIGINS", "https://App.example.org:443", ("https://app.example.org",)),
        ("EMAIL_LOCAL_DOMAINS", "Corp.LOCAL, localhost,", ("corp.local", "localhost")),
        ("EMAIL_LOCAL_DOMAINS", ["büro.intern", "intranet"], ("xn--bro-hoa.intern", "intranet")),
    ],
)
def test_a_setting_is_read(name: str, value: object, meaning: object) -> None:
    assert getattr(Config.from_mapping(GIVEN | {name: value}), name) == meaning


@pytest.mark.parametrize("prefix", ["__Host-", "__Secure-"])
def test_a_prefixed_cookie_must_be_secure(prefix: str) -> None:
    message = refusal(SESSION_COOKIE_NAME=f"{prefix}S", SESSION_COOKIE_SECURE="0")
    assert message.startswith("SESSION_COOKIE_SECURE: set it to 1")


def test_what_browsers_take_only_with_secure_demands_it() -> None:
    for attribute in ({"SESSION_COOKIE_SAMESITE": "None"}, {"SESSION_COOKIE_PARTITIONED": "1"}):
        message = refusal(SESSION_COOKIE_SECURE="0", **attribute)
        assert message.startswith("SESSION_COOKIE_SECURE: set it to 1")
        Config.from_mapping(GIVEN | attribute)


def test_a_host_cookie_is_for_every_path() -> None:
    message = refusal(SESSION_COOKIE_NAME="__Host-S", SESSION_COOKIE_PATH="/shop")
    assert message.startswith("SESSION_COOKIE_PATH: set it to /")


@pytest.mark.parametrize(
    ("url", "path", "is_sent"),
    [
        ("https://a.example", "/", True),
        ("https://a.example/auth", "/", True),
        ("https://a.example/auth", "/auth", True),
        ("https://a.example/shop/auth", "/shop", True),
        ("https://a.example", "/auth", False),
        ("https://a.example/auth", "/au", False),
        ("https://a.example/auth", "/auth/pages", False),
    ],
)
def test_a_cookie_that_no_page_would_get_is_refused(url: str, path: str, is_sent: bool) -> None:
    values = {"PUBLIC_URL": url, "SESSION_COOKIE_PATH": path}
    if is_sent:
        assert path == Config.from_mapping(GIVEN | values).SESSION_COOKIE_PATH
    else:
        assert refusal(**values).startswith("SESSION_COOKIE_PATH: set it to")


def test_a_host_cookie_has_no_domain() -> None:
    message = refusal(SESSION_COOKIE_NAME="__Host-S", SESSION_COOKIE_DOMAIN="example.org")
    assert message.startswith("SESSION_COOKIE_DOMAIN: leave it empty")
    Config.from_mapping(
        GIVEN | {"SESSION_COOKIE_NAME": "__Secure-S", "SESSION_COOKIE_DOMAIN": "example.org"}
    )


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(Config.from_mapping(GIVEN))


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (GIVEN | {"PORT": "8123"}).items():
        monkeypatch.setenv(name, value)
    assert Config.from_env() == Config.from_mapping(GIVEN | {"PORT": 8_123})


@pytest.mark.parametrize(
    ("told", "url", "fits"),
    [
        ("/auth", "https://a.example/auth", True),
        ("/auth/", "https://a.example/auth", True),
        ("", "https://a.example/auth", True),
        ("/auth", "", True),
        ("/", "https://a.example", True),
        ("/other", "https://a.example/auth", False),
        ("/auth", "https://a.example", False),
    ],
)
def test_a_server_that_mounts_elsewhere_than_the_public_url_says_does_not_start(
    monkeypatch: pytest.MonkeyPatch, told: str, url: str, fits: bool
) -> None:
    for name, value in (GIVEN | {"SCRIPT_NAME": told, "PUBLIC_URL": url}).items():
        monkeypatch.setenv(name, value)
    if fits:
        assert url == Config.from_env().PUBLIC_URL
        return
    with pytest.raises(SettingError, match=r"^SCRIPT_NAME: remove it, PUBLIC_URL says"):
        Config.from_env()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SESSION_IDLE_SECOND", "SESSION_IDLE_SECONDS"),
        ("SESION_IDLE_SECONDS", "SESSION_IDLE_SECONDS"),
        ("SESSION_IDEL_SECONDS", "SESSION_IDLE_SECONDS"),
        ("SESSION-IDLE-SECONDS", "SESSION_IDLE_SECONDS"),
        ("TRUSTED_PROXIE_HOPS", "TRUSTED_PROXY_HOPS"),
        ("BCRYPT_ROUND", "BCRYPT_ROUNDS"),
        ("KEY_PREFX", "KEY_PREFIX"),
        ("PUBLIC_URI", "PUBLIC_URL"),
        ("SIGN_UP", "SIGNUP"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(name: str, meant: str) -> None:
    assert refusal(**{name: "x"}) == f"{name} is no setting: write {meant}, or remove it"


def test_a_required_setting_that_is_misspelt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = GIVEN | {"DATABASE_URI": GIVEN["DATABASE_URL"], "DATABASE_URL": ""}
    with pytest.raises(SettingError, match=r"^DATABASE_URI is no setting: write DATABASE_URL"):
        Config.from_mapping(given)


# of Flask, its extensions, the desktop and the platform
OTHERS = [
    "SESSION_TYPE",
    "SESSION_PERMANENT",
    "SESSION_USE_SIGNER",
    "SESSION_KEY_PREFIX",
    "SESSION_REDIS",
    "SESSION_ID_LENGTH",
    "SESSION_SERIALIZATION_FORMAT",
    "SESSION_PROTECTION",
    "SESSION_MANAGER",
    "SESSION_COOKIE_HTTPONLY",
    "LOGIN_DISABLED",
    "LOGIN_MESSAGE",
    "REMEMBER_COOKIE_NAME",
    "MAIL_SERVER",
    "MAIL_PORT",
    "MAIL_USERNAME",
    "MAIL_USE_TLS",
    "MAIL_DEFAULT_SENDER",
    "SQLALCHEMY_DATABASE_URI",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_SERVICE_PORT",
    "DATADIR",
    "DATABASE_URI",
    "REDIS_URI",
    "XDG_DATA_DIRS",
    "WTF_CSRF_ENABLED",
    "SECURITY_PASSWORD_SALT",
    "BCRYPT_LOG_ROUNDS",
    "BCRYPT_HASH_PREFIX",
    "HOSTNAME",
    "HOME",
    "HOST_NAME",
    "PORTS",
    "PGHOST",
    "LOGNAME",
    "KUBERNETES_PORT",
    "POSTS",
    "PATH",
]


def test_other_names_are_left_alone() -> None:
    names = {*OTHERS, *Flask.default_config} - set(Config.__dataclass_fields__)
    given = GIVEN | dict.fromkeys(names, "x")
    assert Config.from_mapping(given) == Config.from_mapping(GIVEN)
    assert Config.from_mapping(GIVEN | {"TEMPLATES_AUTO_RELOAD": "x"}) == Config.from_mapping(GIVEN)


@pytest.mark.parametrize(
    ("given", "sender"),
    [
        ({"PUBLIC_URL": "https://auth.example.org/auth"}, "no-reply@auth.example.org"),
        ({"PUBLIC_URL": "http://127.0.0.1:8000"}, "no-reply@localhost"),
        ({"PUBLIC_URL": "http://[::1]:8000"}, "no-reply@localhost"),
        ({"MAIL_FROM": "Us <us@example.org>"}, "Us <us@example.org>"),
    ],
)
def test_mail_has_a_sender(given: dict[str, str], sender: str) -> None:
    assert Config.from_mapping(GIVEN | given).mail_sender == sender


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"MAIL_URL": "smtp://mail.example.org"}, "PUBLIC_URL: set it to the address"),
        ({"MAIL_URL": "http://mail.example.org"}, "MAIL_URL: set it to smtp://"),
        ({"MAIL_FROM": "nobody"}, "MAIL_FROM: set it to the sender"),
        ({"EMAIL_VERIFICATION": "required"}, "MAIL_URL: set it"),
        ({"SIGNUP": "domains"}, "SIGNUP_DOMAINS: set it"),
        ({"SIGNUP_DOMAINS": "example.org"}, "SIGNUP: set it to domains"),
        ({"SIGNUP": "everybody"}, "SIGNUP: set it to closed or invite or domains or open"),
        ({"SECOND_FACTOR": "required,admin"}, "SECOND_FACTOR: set it to optional, to required, or"),
        ({"SECOND_FACTOR": "Required"}, "SECOND_FACTOR: Required is no role: write optional, requ"),
        ({"SECOND_FACTOR": "admin,requird"}, "SECOND_FACTOR: requird is no role: write optional"),
        ({"SECOND_FACTOR": "on"}, "SECOND_FACTOR: on is no role: write optional, required or nam"),
        ({"SECOND_FACTOR": " , "}, "SECOND_FACTOR: set it to optional, to required, or to role"),
        ({"ASSURANCE_LEVEL": "2"}, "SECOND_FACTOR: set it to required"),
        ({"ASSURANCE_LEVEL": "2", "SECOND_FACTOR": "admin"}, "SECOND_FACTOR: set it to required"),
        ({"ASSURANCE_LEVEL": "3"}, "ASSURANCE_LEVEL: set it to a whole number from 1 to 2"),
        ({"PASSWORD_MIN_LENGTH": "7"}, "PASSWORD_MIN_LENGTH: set it to a whole number"),
    ],
)
def test_settings_of_people_and_mail_that_can_not_be(given: dict[str, str], message: str) -> None:
    assert message in refusal(**given)
