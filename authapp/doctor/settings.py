"""Settings that are accepted and may yet be unsafe."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from zxcvbn import zxcvbn

from authapp.accounts.assurance import AAL2_IDLE, AAL2_OVERALL
from authapp.assembly.passkeys import relying_party_of
from authapp.authentication.factors.passkeys.relying_party import NoRelyingParty
from authapp.config import Config
from authapp.doctor.findings import Finding, State
from authapp.doctor.hosts import is_loopback
from authapp.errors import SettingError
from authapp.passwords.block_list import BlockList

# Guesses an attacker who knows words, dates and keyboards would need, as a power of ten. 32 random
# bytes need far more; what people make up, and what is repeated, mostly less.
GUESSES = 30
BCRYPT_ROUNDS = 12
ALONE = 15  # NIST SP 800-63B-4, 3.1.1.2: characters of a password that is the only factor
AAL1_SECONDS = 30 * 86_400  # NIST SP 800-63B-4, 2.1.3: re-authentication at least so often

MAKE_ONE = "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"


def examine(config: Config, *, guards: bool) -> Iterator[Finding]:
    """
    Args:
        guards: forward-auth is mounted.
    """
    yield _secret("SECRET_KEY", config.SECRET_KEY)
    yield _secret("PASSWORD_PEPPER", config.PASSWORD_PEPPER)
    if set(config.SECRET_KEY) & set(config.PASSWORD_PEPPER):
        yield Finding(
            "secrets",
            State.WARN,
            "SECRET_KEY and PASSWORD_PEPPER share a secret, so one leak loses both",
            "give each its own; add the new one in front to rotate",
        )
    yield _bcrypt(config)
    yield _new_passwords(config)
    yield _cookie_flags(config)
    yield _cookie_name(config)
    yield _cookie_domain(config)
    yield _session_limits(config)
    yield _proxies(config)
    yield _slow_clients(config)
    yield _redirects(config)
    yield _sign_up(config, guards=guards)
    yield _passkeys(config)


def _secret(name: str, secrets: tuple[str, ...]) -> Finding:
    weak = [number for number, secret in enumerate(secrets, 1) if _guesses(secret) < GUESSES]
    if weak:
        which = "" if len(secrets) == 1 else f" (number {', '.join(map(str, weak))} of the list)"
        text = f"it can be guessed: repeated, in a row, or made of words{which}"
        return Finding(name, State.WARN, text, f"make a random one with {MAKE_ONE}")
    rotating = f", {len(secrets) - 1} of them retiring" if len(secrets) > 1 else ""
    return Finding(name, State.OK, f"{len(secrets)} set{rotating}")


def _guesses(secret: str) -> float:
    return float(zxcvbn(secret[:72])["guesses_log10"])  # it reads no more, and need not


def _bcrypt(config: Config) -> Finding:
    rounds = config.BCRYPT_ROUNDS
    if rounds < BCRYPT_ROUNDS:
        text = f"{rounds} rounds make stolen hashes cheap to guess"
        remedy = f"set BCRYPT_ROUNDS to {BCRYPT_ROUNDS} or more; people are rehashed as they log in"
        return Finding("passwords", State.WARN, text, remedy)
    return Finding("passwords", State.OK, f"bcrypt with {rounds} rounds")


def _new_passwords(config: Config) -> Finding:
    check, least = "new passwords", config.PASSWORD_MIN_LENGTH
    try:
        own = len(BlockList(config.PASSWORD_BLOCKLIST))
    except SettingError as error:
        text, _, remedy = str(error).removeprefix("PASSWORD_BLOCKLIST: ").partition("; ")
        return Finding(check, State.FAIL, f"PASSWORD_BLOCKLIST can't be used: {text}", remedy)
    if least < ALONE and config.SECOND_FACTOR != "required":
        text = f"{least} characters are enough, and a password is all that a log-in asks for"
        remedy = f"set PASSWORD_MIN_LENGTH to {ALONE}, as NIST SP 800-63B-4 asks, or leave it out"
        return Finding(check, State.WARN, text, remedy)
    listed = f", and {own:,} of your own list are refused" if own else ""
    return Finding(check, State.OK, f"{least} characters or more{listed}")


def _cookie_flags(config: Config) -> Finding:
    check = "cookie flags"
    if config.SESSION_COOKIE_SECURE:
        text = f"HttpOnly, Secure, SameSite={config.SESSION_COOKIE_SAMESITE}"
        return Finding(check, State.OK, text)
    text = "without Secure browsers send the session over plain HTTP too"
    remedy = "serve over HTTPS and set SESSION_COOKIE_SECURE to 1"
    if not is_loopback(config.HOST):
        return Finding(check, State.FAIL, text, remedy)
    if config.TRUSTED_PROXY_HOPS:
        return Finding(check, State.WARN, text, remedy)
    text = f"HttpOnly, SameSite={config.SESSION_COOKIE_SAMESITE}; no Secure"
    return Finding(check, State.OK, f"{text}, because only this machine asks")


def _cookie_name(config: Config) -> Finding:
    name = config.SESSION_COOKIE_NAME
    if name.startswith("__Host-"):
        text = f"{name}: browsers accept it from this host alone"
        return Finding("cookie name", State.OK, text)
    advice = ""
    if config.SESSION_COOKIE_SECURE and not config.SESSION_COOKIE_DOMAIN:
        advice = (
            f"with SESSION_COOKIE_NAME=__Host-{name.removeprefix('__Secure-')} no other host "
            "of the domain could set this cookie (the change logs everybody out once)"
        )
    return Finding("cookie name", State.OK, name, advice)


def _cookie_domain(config: Config) -> Finding:
    check, domain = "cookie domain", config.SESSION_COOKIE_DOMAIN
    if not domain:
        return Finding(check, State.OK, "this host alone")
    text = f"every host under {domain.lstrip('.')} receives the session, and can use it"
    return Finding(
        check, State.WARN, text, "leave SESSION_COOKIE_DOMAIN empty unless all are yours"
    )


def _session_limits(config: Config) -> Finding:
    check = "session limits"
    limits = {
        "SESSION_ABSOLUTE_SECONDS": config.SESSION_ABSOLUTE_SECONDS,
        "REMEMBER_ME_SECONDS": config.REMEMBER_ME_SECONDS,
    }
    over = [name for name, seconds in limits.items() if seconds > AAL1_SECONDS]
    if config.ASSURANCE_LEVEL == 2:
        most_idle, longest = (_span(int(n.total_seconds())) for n in (AAL2_IDLE, AAL2_OVERALL))
        text = f"two factors, at most {longest} in all and {most_idle} without a visit: AAL2"
        return Finding(check, State.OK, text)
    if over:
        text = f"longer than 30 days, which NIST SP 800-63B-4 allows at AAL1: {', '.join(over)}"
        return Finding(check, State.WARN, text, f"set it to {AAL1_SECONDS} or less")
    text = (
        f"idle {_span(config.SESSION_IDLE_SECONDS)}, in all "
        f"{_span(config.SESSION_ABSOLUTE_SECONDS)}, remembered "
        f"{_span(config.REMEMBER_ME_SECONDS)}: within NIST SP 800-63B-4 for AAL1"
    )
    return Finding(check, State.OK, text)


def _span(seconds: int) -> str:
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= unit and seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds} seconds"


def _proxies(config: Config) -> Finding:
    check, hops = "proxy trust", config.TRUSTED_PROXY_HOPS
    if hops:
        proxies = "1 proxy" if hops == 1 else f"{hops} proxies"
        text = f"X-Forwarded-* and X-Request-ID are read as {proxies} in front set them"
        advice = (
            "let clients reach this port only through the proxy; if there are fewer proxies than "
            "TRUSTED_PROXY_HOPS says, nobody can log in"
        )
        return Finding(check, State.OK, text, advice)
    advice = "behind a proxy set TRUSTED_PROXY_HOPS, or all people share one log-in limit"
    text = "X-Forwarded-* of no proxy is read"
    if not is_loopback(config.HOST):
        text += f", and {config.HOST or 'every address'} can be reached directly"
    return Finding(check, State.OK, text, advice)


def _slow_clients(config: Config) -> Finding:
    """`doctor` can't see which server runs, so this names both."""
    check = "slow clients"
    advice = (
        "with granian, or gunicorn without our gunicorn.conf.py, have the proxy read each request "
        "in whole before it passes it on: nginx does, as in deploy/nginx/nginx.conf; Traefik with "
        "the middleware buffering, Caddy with request_buffers, HAProxy with http-buffer-request"
    )
    if config.TRUSTED_PROXY_HOPS or is_loopback(config.HOST):
        return Finding(check, State.OK, "a proxy is in front, or only this machine asks", advice)
    text = "no proxy is in front: gunicorn withstands slow clients, granian does not"
    return Finding(check, State.OK, text, advice)


def _sign_up(config: Config, *, guards: bool) -> Finding:
    check, mode = "sign-up", config.SIGNUP
    verified = "confirmed" if config.is_verification_required else "not confirmed"
    text = f"{mode}; addresses are {verified}"
    if mode not in {"open", "domains"} or config.is_verification_required:
        return Finding(check, State.OK, text)
    told = f"{text}, so a stranger passes under any address they type"
    missing = "EMAIL_VERIFICATION to required" if config.MAIL_URL else "MAIL_URL"
    remedy = f"set {missing}, so that addresses are confirmed, or SIGNUP to invite or closed"
    host = urlsplit(config.PUBLIC_URL).hostname
    is_here = host is not None and is_loopback(host)
    return Finding(check, State.FAIL if guards and not is_here else State.WARN, told, remedy)


def _passkeys(config: Config) -> Finding:
    try:
        party = relying_party_of(config)
    except NoRelyingParty as error:
        text, _, remedy = str(error).partition("; ")
        # an address that browsers refuse was meant for people; without one passkeys were not meant
        state = State.WARN if config.PUBLIC_URL else State.OK
        return Finding("passkeys", state, f"off: {text}", remedy)
    return Finding("passkeys", State.OK, f"for {party.id}, on {', '.join(sorted(party.origins))}")


def _redirects(config: Config) -> Finding:
    hosts = ", ".join(config.ALLOWED_REDIRECT_HOSTS)
    text = f"log-in may lead to this site and to {hosts}" if hosts else "log-in leads to this site"
    return Finding("redirects", State.OK, text)
