"""The mount point: the path under which people reach the application, such as `/auth`.

WSGI calls it SCRIPT_NAME. A proxy that is trusted says it in `X-Forwarded-Prefix`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from authapp.setting_types import MOUNT_POINT
from authapp.web.middleware.client_address import last_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_LONGEST = 200  # characters


class TrustedProxies(ProxyFix):
    """Middleware that takes host, scheme and mount point from the trusted proxies in front.

    `client_address.py` takes the client's address from them.

    Args:
        hops: how many proxies are trusted.
    """

    def __init__(self, app: Flask, hops: int) -> None:
        super().__init__(app.wsgi_app, x_for=0, x_proto=hops, x_host=hops)
        self._flask = app
        self._hops = hops
        self._own_folders: frozenset[str] | None = None

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if header := environ.get("HTTP_X_FORWARDED_PREFIX"):
            prefix = _well_formed_prefix(header, self._hops)
            if prefix is not None:
                self._mount(environ, prefix)
        return super().__call__(environ, start_response)

    def _get_real_value(self, trusted: int, value: str | None) -> str | None:
        return last_of(value, trusted) if trusted else None

    def _mount(self, environ: dict[str, Any], prefix: str) -> None:
        inner = mount_point(environ)
        if _is_under(inner, prefix):  # the server was told the same
            return
        environ["SCRIPT_NAME"] = prefix + inner
        path = environ.get("PATH_INFO", "")
        # Some proxies leave the prefix in the path. Under a prefix that begins as our own addresses
        # do nobody could tell which it is, so there the proxy must have taken it off.
        if _is_under(path, prefix) and prefix.split("/")[1] not in self._folders():
            environ["PATH_INFO"] = path.removeprefix(prefix)

    def _folders(self) -> frozenset[str]:
        """The first segments of the addresses of the application."""
        if self._own_folders is None:
            rules = [rule.rule for rule in self._flask.url_map.iter_rules()]
            self._own_folders = frozenset(rule.split("/")[1] for rule in rules)
        return self._own_folders


def mount_point(environ: Mapping[str, Any]) -> str:
    """The mount point of a request, with a slash at its start and none at its end; empty for the
    root of the host."""
    path = environ.get("SCRIPT_NAME", "").strip("/")
    return f"/{path}" if path else ""


def link_to(environ: Mapping[str, Any], path: str) -> str:
    """The address of a page of ours, from the root of the host."""
    return quote(mount_point(environ).encode("latin-1"), safe="/~") + path


def put_back(environ: dict[str, Any]) -> None:
    """Undo that gunicorn cuts `/authx` in two where the mount point is `/auth`.

    That address is outside the mount point, and we have no page `x`.
    """
    path, mount = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
    if path and mount and not path.startswith("/") and not mount.endswith("/"):
        environ["PATH_INFO"] = mount + path


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _well_formed_prefix(header: str, hops: int) -> str | None:
    """The prefix from the outermost trusted proxy, if it can be a mount point."""
    prefix = last_of(header, hops)
    if prefix is None or len(prefix) > _LONGEST:
        return None
    prefix = prefix.removesuffix("/")
    return prefix if MOUNT_POINT.fullmatch(prefix) else None
