"""Where a person may be sent after log-in: this site, or a host that was allowed."""

from collections.abc import Collection
from urllib.parse import urlsplit

HOME = "/"


def safe_next(target: str | None, allowed_hosts: Collection[str], own_host: str) -> str:
    """`target` when it leads to this site or an allowed host, else home (OWASP ASVS 5.0, 3.7.2).

    Browsers drop tabs and newlines and read `\\` as `/`, so `/<TAB>/evil.example` leaves as
    `//evil.example`: any such character sends home.
    """
    if not target or "\\" in target or any(c <= " " or c == "\x7f" for c in target):
        return HOME
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError:
        return HOME
    if not parts.scheme and not parts.netloc:
        return target if target.startswith("/") and not target.startswith("//") else HOME
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
        return HOME
    named = host if port is None else f"{host}:{port}"
    if parts.netloc.lower() == own_host.lower() or named in allowed_hosts:
        return target
    return HOME
