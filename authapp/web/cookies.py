"""Reads our cookies from the raw header: exactly one of a name, spelled exactly so, or none.

Parsers disagree on repeated names (Werkzeug takes the first), on two Cookie headers (gunicorn joins
them with a comma) and on blanks around names, and a neighbouring site can use that to plant a
session. So anything but one clean pair counts as no session.
"""

import re
from collections.abc import Sequence
from functools import cache

DEVICE_SECONDS = 365 * 86_400  # how long a browser keeps by what it is known
_DEVICE = "DEVICE-TOKEN"
_PREFIXES = ("__Host-", "__Secure-")  # RFC 6265bis, 4.1.3

MAX_HEADER = 64 * 1024  # characters; gunicorn joins up to 100 Cookie headers of 16 KB
_BLANKS = " \t\r\n\v\f"


def read_cookie(header: str, name: str) -> str | None:
    """The value of the only cookie called `name`, or None.

    Args:
        header: the Cookie header as received.
    """
    if name not in header or len(header) > MAX_HEADER or _after_comma(name).search(header):
        return None
    found: str | None = None
    for part in header.split(";"):
        if name not in part:  # of thousands, few are looked at
            continue
        key, separator, value = part.removeprefix(" ").partition("=")
        if key.strip(_BLANKS) != name:
            continue
        if key != name or not separator or found is not None:
            return None
        found = value
    return found


def all_values(header: str, name: str) -> list[str]:
    """Every value that some parser could read as our cookie, for log-out, which must miss none."""
    if name not in header or len(header) > MAX_HEADER:
        return []
    return re.findall(rf"(?:^|[;,\s]){re.escape(name)}\s*=\s*\"?([^;,\s\"]*)", header)


def device_cookie_name(session_cookie: str) -> str:
    """The name of the cookie a device is known by, with the prefix that the session's has."""
    return next((p for p in _PREFIXES if session_cookie.startswith(p)), "") + _DEVICE


def read_devices(header: str, session_cookie: str) -> list[str]:
    """What the browser sends to be known by, unchecked."""
    text = read_cookie(header, device_cookie_name(session_cookie))
    return text.split(".") if text else []


def write_devices(tokens: Sequence[str]) -> str:
    """The value of the cookie that `read_devices` reads."""
    return ".".join(tokens)


@cache
def _after_comma(name: str) -> re.Pattern[str]:
    """A second Cookie header, as gunicorn joins it to the first."""
    return re.compile(rf",\s*{re.escape(name)}\s*=")
