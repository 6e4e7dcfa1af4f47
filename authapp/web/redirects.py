"""Where a person may be sent after log-in: this host, or a host that was allowed."""

from collections.abc import Collection
from urllib.parse import urlsplit

from flask import request
from werkzeug.routing import Map

MAX_NEXT = 2_000  # characters; urlsplit normalises, which takes longer than the text grows


def safe_next(target: str | None, allowed_hosts: Collection[str], own_origin: str) -> str | None:
    """Returns `target` when it leads to this site, to us or to another app, or to an allowed host;
    else None (OWASP ASVS 5.0, 3.7.2).

    Browsers drop tabs and newlines and read `\\` as `/`, so `/<TAB>/evil.example` leaves as
    `//evil.example`: a target with any such character is refused.

    Args:
        own_origin: of this site. Its host over https is this site as well, because a proxy that
            ends TLS may not say so; its host over plain http is not, where this site has https.
    """
    if not target or len(target) > MAX_NEXT:
        return None
    if "\\" in target or any(c <= " " or c == "\x7f" for c in target):
        return None
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme and not parts.netloc:
        return target if target.startswith("/") and not target.startswith("//") else None
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
        return None
    named = host if port is None else f"{host}:{port}"
    own_scheme, _, own_host = own_origin.lower().partition("://")
    is_own = parts.netloc.lower() == own_host and parts.scheme in {own_scheme, "https"}
    return target if is_own or named in allowed_hosts else None


def asked_origin() -> str:
    """The origin that the request asks. `request.host_url` quotes it, which takes long."""
    return f"{request.scheme}://{request.host}"


def start_page(url_map: Map, prefix: str) -> str:
    """The path that log-in and log-out lead to by themselves: of the app's own start page, or of
    ours where the app has none. It is without the mount point.

    Args:
        prefix: what comes before each of our paths.
    """
    return "/" if url_map.bind("localhost").test("/") else f"{prefix}/"


def page_to_come_back_to() -> str | None:
    """The page that was asked for, or the one whose form was sent: no form is sent twice."""
    if request.method in {"GET", "HEAD"}:
        return request.script_root + request.full_path.removesuffix("?")
    sent_from = safe_next(request.referrer, (), asked_origin())
    if sent_from is None:
        return None
    return urlsplit(sent_from)._replace(scheme="", netloc="").geturl()
