"""The mount point: the path under which people reach the application, such as `/auth`.

WSGI calls it SCRIPT_NAME. It is the path of PUBLIC_URL; without that setting, a proxy that is
trusted says it in `X-Forwarded-Prefix`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from authapp.setting_types import MOUNT_POINT
from authapp.telemetry.logging import get_logger
from authapp.web.middleware.client_address import last_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_log = get_logger(__name__)

_LONGEST = 200  # characters


class Mounting:
    """Mounts requests under a prefix: SCRIPT_NAME begins with it, PATH_INFO goes on after it.

    Args:
        app: whose addresses are mounted.
    """

    def __init__(self, app: Flask) -> None:
        self._flask = app
        self._own_folders: frozenset[str] | None = None

    def mount(self, environ: dict[str, Any], prefix: str) -> None:
        """Mounts a request, whether or not a proxy took the prefix off the path."""
        environ["SCRIPT_NAME"] = prefix + mount_point(environ)
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


class PublicMount:
    """Middleware that mounts each request under the path of PUBLIC_URL.

    The server may have been told all of that path, or its end, by SCRIPT_NAME. Where it was told
    another one, links on pages follow the server, and the log says so once.

    Args:
        prefix: the path of PUBLIC_URL, without a slash at its end.
    """

    def __init__(self, app: Flask, prefix: str) -> None:
        self._wsgi = app.wsgi_app
        self._mounting = Mounting(app)
        self._prefix = prefix
        self._has_told = False

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        environ.pop("HTTP_X_FORWARDED_PREFIX", None)
        inner = mount_point(environ)
        if not self._prefix.endswith(inner):
            self._tell(inner)
        elif outer := self._prefix.removesuffix(inner):
            self._mounting.mount(environ, outer)
        return self._wsgi(environ, start_response)

    def _tell(self, inner: str) -> None:
        if self._has_told:
            return
        self._has_told = True
        _log.warning(
            "mount_point_differs",
            public_url_path=self._prefix or "/",
            script_name=inner,
            remedy="have PUBLIC_URL end with the path under which the server mounts the app",
        )


class TrustedProxies(ProxyFix):
    """Middleware that takes host, scheme and mount point from the trusted proxies in front.

    `client_address.py` takes the client's address from them.

    Args:
        hops: how many proxies are trusted.
    """

    def __init__(self, app: Flask, hops: int) -> None:
        super().__init__(app.wsgi_app, x_for=0, x_proto=hops, x_host=hops)
        self._mounting = Mounting(app)
        self._hops = hops

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if header := environ.get("HTTP_X_FORWARDED_PREFIX"):
            prefix = _well_formed_prefix(header, self._hops)
            # else the server was told the same
            if prefix is not None and not _is_under(mount_point(environ), prefix):
                self._mounting.mount(environ, prefix)
        return super().__call__(environ, start_response)

    def _get_real_value(self, trusted: int, value: str | None) -> str | None:
        return last_of(value, trusted) if trusted else None


def mount_point(environ: Mapping[str, Any]) -> str:
    """The mount point of a request, with a slash at its start and none at its end; empty for the
    root of the host."""
    path = environ.get("SCRIPT_NAME", "").strip("/")
    return f"/{path}" if path else ""


def link_to(environ: Mapping[str, Any], path: str) -> str:
    """The address of a page of ours, from the root of the host."""
    mount = mount_point(environ)
    return quote(mount.encode("latin-1"), safe="/~") + path if mount else path


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
