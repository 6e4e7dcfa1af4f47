"""Where a request came from, in one spelling, for all that asks: limits, log, audit, sessions."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from authapp.authentication.addresses import read_address

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# In the WSGI environment: what named the address, its text, and what is wrong with it
UNREADABLE = "authapp.unreadable_address"
_HEADER, _PEER = "X-Forwarded-For", "the peer of the connection"
_NO_ADDRESS = "it is no IP address"


class ClientAddress:
    """WSGI middleware (PEP 3333) that sets REMOTE_ADDR to the client's address.

    It is empty where no address can be read: a Unix socket has none without a proxy, and a proxy
    may say `unknown`.

    Where proxies are trusted, X-Forwarded-For says the address. With fewer entries than proxies
    there is no address: the peer is a proxy, and all its visitors would share one limit. A request
    without the header came past the proxies, from a program beside us, and its peer counts.

    Args:
        hops: how many proxies are trusted.
    """

    def __init__(self, app: "WSGIApplication", hops: int) -> None:
        self.app = app
        self._hops = hops

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        source, text, problem = _PEER, environ.get("REMOTE_ADDR") or "", _NO_ADDRESS
        said: str | None = text
        header = environ.get("HTTP_X_FORWARDED_FOR")
        if self._hops and header is not None:
            source, text = _HEADER, header
            said = last_of(text, self._hops)
            if said is None:
                problem = f"it has fewer entries than TRUSTED_PROXY_HOPS says, {self._hops}"
            else:
                text = said
        address = None if said is None else read_address(said)
        if address is None:
            environ[UNREADABLE] = source, text[:100], problem
        environ["REMOTE_ADDR"] = address or ""
        return self.app(environ, start_response)


def last_of(header: str | None, number: int) -> str | None:
    """The entry that the proxy so many hops away added to a list; None if the list is shorter.

    Only the end of the list is read, because all before it is what the client sent, of any length.
    """
    if not header:
        return None
    said = header.rsplit(",", number)
    return said[-number].strip(" \t") if len(said) >= number else None


def unreadable(environ: Mapping[str, Any]) -> dict[str, str]:
    """Fields for the log: the text in place of an address, its source, and the remedy."""
    source, text, problem = environ.get(UNREADABLE, (_PEER, "", _NO_ADDRESS))
    return {
        "source": source,
        "said": text,
        "problem": problem,
        "remedy": "have each proxy add an IP address to X-Forwarded-For, and set "
        "TRUSTED_PROXY_HOPS to the number of proxies in front; ask through them",
    }
