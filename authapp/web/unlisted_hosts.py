"""Hosts that forward-auth was asked about and that are missing in ALLOWED_REDIRECT_HOSTS."""

import re
from threading import Lock
from urllib.parse import urlsplit

from authapp.telemetry.logging import get_logger

MOST = 50  # hosts that are named: a client can make up any number
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?(?::[0-9]{1,5})?")

_log = get_logger(__name__)


class UnlistedHosts:
    """Tells the operator in the log which host to add, once for each host."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._lock = Lock()

    def note(self, url: str) -> None:
        """
        Args:
            url: where a person wanted to go and log-in may not lead. A client may have made it up,
                so only what could be the name of a host gets into the log.
        """
        try:
            host = urlsplit(url).netloc.lower()
        except ValueError:
            return
        if host in self._named or len(self._named) >= MOST or not _NAME.fullmatch(host):
            return
        with self._lock:
            if host in self._named or len(self._named) >= MOST:
                return
            self._named.add(host)
        _log.warning(
            "log-in does not lead back to this host: add it to ALLOWED_REDIRECT_HOSTS",
            setting="ALLOWED_REDIRECT_HOSTS",
            add=host,
        )
