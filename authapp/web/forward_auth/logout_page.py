"""`LogoutPage`: where a visitor of a guarded app logs out, to be led back afterwards."""

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from werkzeug.wsgi import get_host

from authapp.web.middleware.mount_point import link_to
from authapp.web.redirects import safe_next

Environ = dict[str, Any]


class LogoutPage:
    """Gives the address of the page with the button. A link alone must end nothing.

    Args:
        allowed_hosts: other hosts that log-out may lead to.
        path: of the page, without the mount point.
        public_origin: the origin of PUBLIC_URL, where that is set.
    """

    def __init__(self, allowed_hosts: Collection[str], path: str, public_origin: str) -> None:
        self._allowed_hosts = allowed_hosts
        self._path = path
        self._public_origin = public_origin

    def address(self, environ: Environ, onward: str) -> str:
        """
        Args:
            onward: where log-out leads to; empty: the start page of the host that was asked.
        """
        asked_host = get_host(environ)
        asked_origin = f"{environ['wsgi.url_scheme']}://{asked_host}" if asked_host else ""
        page = self._public_origin + link_to(environ, self._path)
        own_origin = self._public_origin or asked_origin
        if safe_next(onward, (), "") is not None:  # a path
            onward = f"{asked_origin}{onward}"
        target = safe_next(onward or f"{asked_origin}/", self._allowed_hosts, own_origin)
        return f"{page}?next={quote(target, safe='/')}" if target else page
