"""Addresses of clients: one spelling of each, and the networks that count as one client."""

import ipaddress
import re
from functools import lru_cache

_LONGEST = 100  # characters: an IPv6 address with its zone, a port, brackets, quotes and blanks
_PORT = re.compile(r":[0-9]{1,5}")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 behind a translator
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 7915: as above


def read_address(text: str) -> str | None:
    """The one spelling of an IP address, however a server or proxy wrote it.

    None: the text is not an address.

    Some write a port behind it (`198.51.100.1:1111`), brackets, quotes (RFC 7239, 6) or the zone of
    a link-local address. IPv4 inside IPv6 (`::ffff:198.51.100.1`) is IPv4.
    """
    return _read(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _read(text: str) -> str | None:
    text = text.strip(" \t")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        port = f":{port}"
    else:
        host, port = text, ""
    if port and not _PORT.fullmatch(port):
        return None
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def network_of(address: str, prefix: int = 64) -> str:
    """The client of a limit: an IPv4 address, or the IPv6 network that one customer has.

    An IPv6 address that stands for an IPv4 one counts as that: 6to4, Teredo, and what translators
    between both make.

    Args:
        address: in any spelling.
        prefix: bits of an IPv6 network's prefix.
    Returns:
        Empty where the address can't be read.
    """
    spelled = read_address(address)
    if spelled is None:
        return ""
    parsed = ipaddress.ip_address(spelled)
    if isinstance(parsed, ipaddress.IPv6Address):
        if (inner := _ipv4_of(parsed)) is not None:
            return str(inner)
        return str(ipaddress.ip_network((parsed, prefix), strict=False))
    return str(parsed)


def _ipv4_of(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour
