"""The relying party: the name under which browsers keep passkeys for us, and its pages."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The name that passkeys belong to, and the origins that may use them.

    Attributes:
        id: the RP ID: a host name; a passkey counts for it alone.
        name: shown when a passkey is made.
        origins: those of pages that may ask, as browsers write them.
        home: our own one among them.
    """

    id: str
    name: str
    origins: frozenset[str]
    home: str


class NoRelyingParty(Exception):
    """Browsers would refuse passkeys at this address. The message says why, and the remedy."""


def relying_party(
    public_url: str, name: str, *, cookie_domain: str = "", trusted: Collection[str] = ()
) -> RelyingParty:
    """
    Args:
        public_url: the address that people use.
        cookie_domain: the domain whose hosts share the session's cookie: they share passkeys, too.
        trusted: other origins whose requests are accepted.
    Raises:
        NoRelyingParty
    """
    if not public_url:
        raise NoRelyingParty(
            "PUBLIC_URL is not set; set it to the address that people use, which passkeys belong to"
        )
    own = _with_a_name("/".join(public_url.split("/")[:3]))
    why = _why_refused(own)
    if why:
        raise NoRelyingParty(why)
    host = _host(own)
    domain = cookie_domain.lstrip(".").lower()
    rp_id = domain if domain and _is_within(host, domain) else host
    shared = {
        origin
        for origin in trusted
        if rp_id == domain and _is_within(_host(origin), rp_id) and not _why_refused(origin)
    }
    return RelyingParty(rp_id, name, frozenset({own} | shared), own)


def _with_a_name(origin: str) -> str:
    """The same origin on `localhost`, where it is an address of this machine by plain http: the
    browsers of this machine reach us by both, and keep passkeys for the name alone."""
    parts = urlsplit(origin)
    if parts.scheme != "http" or not _is_own_machine(parts.hostname or ""):
        return origin
    return f"http://localhost:{parts.port}" if parts.port else "http://localhost"


def _is_own_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _why_refused(url: str) -> str:
    """Why browsers have no passkeys at this address, and the remedy; empty if they have."""
    host = _host(url)
    if _is_address(host):
        return (
            f"browsers keep no passkeys for an IP address ({host}); set PUBLIC_URL to a name, like "
            "https://auth.example.org, or http://localhost:8000 on your own machine"
        )
    if not url.startswith("https://") and not _is_within(host, "localhost"):
        return (
            "browsers have passkeys on https alone; serve over https and set PUBLIC_URL to that "
            "address (plain http works for localhost)"
        )
    return ""


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        # browsers read a name whose last part is a number as an address: 127.1, 0x7f.1
        return bool(re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]))
    return True
