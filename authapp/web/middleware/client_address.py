"""Where a request came from, in one spelling, for all that asks: limits, log, audit, sessions."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from authapp.authentication.addresses import read_address

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

UNREADABLE = "authapp.unreadable_address"  # in the WSGI environment: what named it, and its text
_HEADER, _PEER = "X-Forwarded-For", "the peer of the connection"


class ClientAddress:
    """WSGI (PEP 3333). Sets REMOTE_ADDR: to an address, or to nothing where none can be read, as
    from a Unix socket without a proxy, or of a proxy that says `unknown`.

    Args:
        hops: how many proxies are trusted.
    """

    def __init__(self, app: "WSGIApplication", hops: int) -> None:
        self.app = app
        self._hops = hops

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        text, source = environ.get("REMOTE_ADDR") or "", _PEER
        if self._hops:
            said = last_of(environ.get("HTTP_X_FORWARDED_FOR"), self._hops)
            if said is not None:
                text, source = said, _HEADER
        address = read_address(text)
        if address is None:
            environ[UNREADABLE] = source, text[:100]
        environ["REMOTE_ADDR"] = address or ""
        return self.app(environ, start_response)


def last_of(header: str | None, number: int) -> str | None:
    """What the proxy that is so many hops away added to a list; None where the list is shorter.

    Only the end of the list is read, because all before it is what the client sent, of any length.
    """
    if header is None:
        return None
    said = header.rsplit(",", number)
    return said[-number].strip(" \t") if len(said) >= number else None


def unreadable(environ: Mapping[str, Any]) -> dict[str, str]:
    """For the log: what was said in place of an address, by whom, and the remedy."""
    source, text = environ.get(UNREADABLE, (_PEER, ""))
    return {
        "source": source,
        "said": text,
        "remedy": "have the proxy send X-Forwarded-For with an IP address, and set "
        "TRUSTED_PROXY_HOPS to the number of proxies in front",
    }
