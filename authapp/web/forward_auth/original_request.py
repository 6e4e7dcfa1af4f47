"""`OriginalRequest`: the visitor's request that a proxy asks about, in one form for all proxies."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

READING = ("GET", "HEAD")

_USUAL_PORTS = {"http": ":80", "https": ":443"}
_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class OriginalRequest:
    """The visitor's request. All of it is what the visitor wrote, and proves nothing.

    Attributes:
        method: of the visitor's request.
        url: with scheme and host where the proxy names them, else path and query alone; bytes as
            Latin-1, as WSGI has them. Empty if the proxy did not say.
    """

    method: str
    url: str

    @property
    def host(self) -> str:
        """The host and the port, in lower case; empty if the proxy did not say."""
        return self._parts.netloc.rpartition("@")[2].lower()

    @property
    def origin(self) -> str:
        """Like `https://app.example.org`, as browsers write it; empty if the proxy did not say."""
        scheme = self._parts.scheme
        found = f"{scheme}://{self.host.removesuffix(_USUAL_PORTS.get(scheme, ''))}"
        return found if _ORIGIN.fullmatch(found) else ""

    @property
    def path(self) -> str:
        """The path as it was written, not decoded; empty if the proxy did not say."""
        parts = self._parts
        return parts.path or ("/" if parts.netloc else "")

    @property
    def query(self) -> str:
        return self._parts.query

    @property
    def _parts(self) -> SplitResult:
        # a path that begins with two slashes names no host
        url = f"//{self.url}" if self.url.startswith("/") else self.url
        try:
            return urlsplit(url)
        except ValueError:
            return SplitResult("", "", "", "", "")
