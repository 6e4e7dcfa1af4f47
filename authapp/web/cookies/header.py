"""Reads our cookies from the raw Cookie header.

Parsers disagree on repeated names (Werkzeug takes the first), on two Cookie headers (gunicorn joins
them with a comma) and on blanks around names, and a neighbouring site can use that to plant a
session. So only clean pairs count, and if one pair of our name is not clean, none of them counts.
"""

import re
from collections.abc import Sequence
from functools import cache

from authapp.errors import TooManyTokens

DEVICE_SECONDS = 365 * 86_400  # how long a browser keeps its device tokens
MAX_DEVICE_COOKIES = 4
MAX_DEVICE_TOKENS = 4  # in one cookie
_DEVICE = "DEVICE-TOKEN"
_VISITOR = "VISITOR-DATA"
_PREFIXES = ("__Host-", "__Secure-")  # RFC 6265bis, 4.1.3

MAX_HEADER = 64 * 1024  # characters; gunicorn joins up to 100 Cookie headers of 16 KB
MAX_ENDING_HEADER = 256 * 1024  # at log-in and log-out, which end what came along
_BLANKS = " \t\r\n\v\f"


def read_cookies(header: str, name: str) -> list[str]:
    """The different values of the cookies called `name`; none of them if one is not clean.

    Args:
        header: the Cookie header as received.
    """
    if name not in header or len(header) > MAX_HEADER or _after_comma(name).search(header):
        return []
    found: dict[str, None] = {}
    for part in header.split(";"):
        if name not in part:  # of thousands, few are looked at
            continue
        key, separator, value = part.removeprefix(" ").partition("=")
        if key.strip(_BLANKS) != name:
            continue
        if key != name or not separator:
            return []
        found[value] = None
    return list(found)


def all_values(header: str, names: Sequence[str]) -> list[str]:
    """Each different value that some parser could read as one of our cookies, for log-in and
    log-out, which must miss none.

    Raises:
        TooManyTokens: the header is too long to look for them.
    """
    if not any(name in header for name in names):
        return []
    if len(header) > MAX_ENDING_HEADER:
        raise TooManyTokens
    return list(dict.fromkeys(_leniently(tuple(names)).findall(header)))


@cache
def base_name(name: str) -> str:
    """The name of a cookie without its prefix."""
    return next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)


@cache
def names_under(name: str) -> tuple[str, ...]:
    """The name of a cookie with each prefix, and with none; the given spelling first."""
    base = base_name(name)
    return tuple(dict.fromkeys([name, base, *(prefix + base for prefix in _PREFIXES)]))


def names_in(header: str) -> set[str]:
    """The names of all cookies in a header, without blanks; none if the header is too long."""
    if len(header) > MAX_HEADER:
        return set()
    return {part.partition("=")[0].strip(_BLANKS) for part in re.split("[;,]", header)}


@cache
def device_cookie_name(session_cookie: str) -> str:
    """The name of the device cookie, with the prefix of the session's cookie."""
    return _prefix_of(session_cookie) + _DEVICE


def visitor_cookie_name(session_cookie: str) -> str:
    """The name of the cookie with a visitor's data, with the prefix of the session's cookie."""
    return _prefix_of(session_cookie) + _VISITOR


def _prefix_of(name: str) -> str:
    return next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")


def has_several(header: str, name: str) -> bool:
    """Whether a cookie came along more than once, or with another prefix."""
    sent = names_in(header)
    return header.count(f"{name}=") > 1 or any(other in sent for other in names_under(name)[1:])


def read_devices(header: str, session_cookie: str) -> list[str]:
    """The different device tokens that the browser sends, unchecked: a bounded number."""
    texts = read_cookies(header, device_cookie_name(session_cookie))[:MAX_DEVICE_COOKIES]
    found = [part for text in texts if text for part in text.split(".")[:MAX_DEVICE_TOKENS]]
    return list(dict.fromkeys(found))


def write_devices(tokens: Sequence[str]) -> str:
    """The value of the cookie that `read_devices` reads."""
    return ".".join(tokens)


@cache
def _after_comma(name: str) -> re.Pattern[str]:
    """A second Cookie header, as gunicorn joins it to the first."""
    return re.compile(rf",\s*{re.escape(name)}\s*=")


@cache
def _leniently(names: tuple[str, ...]) -> re.Pattern[str]:
    spellings = "|".join(re.escape(name) for name in names)
    return re.compile(rf"(?:^|[;,\s])(?:{spellings})\s*=\s*\"?([^;,\s\"]*)")
