"""`doctor --url`: how a site looks from outside, through its proxy.

The site is authapp's own (`own_site.py`) or a page of a guarded app (`guarded_app.py`). Nothing is
changed there; two log-ins of nobody fail. `asking.py` sends the requests.
"""

import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from authapp.doctor.findings import Finding, State
from authapp.doctor.outside import guarded_app, own_site, transport
from authapp.doctor.outside.asking import Site, TimeIsUp
from authapp.doctor.outside.guarded_app import Visitor

__all__ = ["Visitor", "examine_from_outside"]

SECONDS = 60.0  # the longest that it may take


def examine_from_outside(
    url: str,
    visitor: Visitor,
    public_url: str = "",
    *,
    seconds: float = SECONDS,
    context: ssl.SSLContext | None = None,
    connect_to: tuple[str, int] | None = None,
) -> list[Finding]:
    """
    Args:
        url: of authapp, as PUBLIC_URL has it, or of a page of a guarded app.
        context: trusts the certificate; default: as browsers do.
        connect_to: address and port of the proxy, in place of those that the URL names.

    Raises:
        ValueError: the URL can't be asked; the message is the remedy.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("name the site like https://auth.example.org, without a query")
    site = Site(
        url.partition("#")[0].rstrip("/"),
        time.monotonic() + seconds,
        context or ssl.create_default_context(),
        connect_to,
    )
    found: list[Finding] = []
    try:
        for finding in _examine(site, visitor, public_url):
            found.append(finding)
    except TimeIsUp:
        text = f"only what is above could be seen within {seconds:.0f} s"
        found.append(Finding("time", State.WARN, text, "see why the site answers so slowly"))
    return found


def _examine(site: Site, visitor: Visitor, public_url: str) -> Iterator[Finding]:
    reached = transport.reached(site)
    yield reached
    if reached.state is State.FAIL:
        return
    is_own = site.url == public_url or own_site.is_own(site)
    kind = "authapp itself" if is_own else "a page of a guarded app"
    yield Finding("site", State.OK, f"{site.url} is taken for {kind}")
    yield from transport.examine(site, is_own=is_own)
    if is_own:
        yield from own_site.examine(site)
    else:
        yield from guarded_app.examine(site, visitor)
    yield own_site.cookie_flags(site, visitor.cookie_name)
