"""`LoginPage`: where a visitor of a guarded app logs in or proves more, to be led back."""

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import quote, urlsplit

from werkzeug.urls import iri_to_uri
from werkzeug.wsgi import get_host

from authapp.errors import InvalidField
from authapp.web.forward_auth.original_request import OriginalRequest
from authapp.web.middleware.mount_point import link_to
from authapp.web.redirects import safe_next
from authapp.web.unlisted_hosts import UnlistedHosts

_LONGEST_NEXT = 2_000  # characters; proxies have 4 KB for all headers of an answer

Environ = dict[str, Any]


class LoginPage:
    """Gives the address of the log-in page, and of other pages that lead back.

    Args:
        allowed_hosts: other hosts that log-in may lead to, and may be on.
        login: gives the path of the log-in page, without the mount point.
        home: gives the path that log-in leads to by itself, in the same way.
        public_origin: the origin of PUBLIC_URL, where that is set: some proxies ask with the host
            of the guarded app.
    """

    def __init__(
        self,
        allowed_hosts: Collection[str],
        login: Callable[[], str],
        home: Callable[[], str],
        public_origin: str,
    ) -> None:
        self._allowed_hosts = allowed_hosts
        self._login_path = login
        self._home_path = home
        self._public_origin = public_origin
        self._unlisted_hosts = UnlistedHosts()

    def address(self, environ: Environ, named: str, original: OriginalRequest) -> str:
        """Where to log in, to be led back to what was asked for, if log-in may lead there.

        Args:
            named: the log-in page that the proxy names; empty: ours.

        Raises:
            InvalidField: `named` is on no host that is allowed.
        """
        if named:
            return self._elsewhere(environ, named, original.url)
        return self.leading_back(environ, self._login_path(), original)

    def leading_back(self, environ: Environ, path: str, original: OriginalRequest) -> str:
        """The address of a page of ours, to be led back from there, if it may lead there.

        Args:
            path: of the page, without the mount point.
        """
        page = link_to(environ, path)
        if not original.url:
            return page
        _, asked_origin = _asked(environ)
        own_origin = self._public_origin or asked_origin
        own_host = own_origin.partition("://")[2]
        target = safe_next(original.url, self._allowed_hosts, own_origin)
        if target is None:
            self._note(original.url, own_host)
        elif target.startswith(f"{own_origin}/"):
            target = safe_next(target.removeprefix(own_origin), (), own_origin)
        if target is not None and target.startswith("/"):
            is_home = target == link_to(environ, self._home_path())
            return page if is_home else _with_next(page, target)
        if target is None:
            is_here = not self._public_origin or original.host in {"", own_host}
            return page if is_here else f"{own_origin}{page}"
        # the browser is on another host than we are
        return _with_next(f"{own_origin}{page}" if own_host else page, target)

    def _elsewhere(self, environ: Environ, named: str, original: str) -> str:
        """As `address`, with the page that the proxy names; without a target, that page alone."""
        asked_host, asked_origin = _asked(environ)
        public_host = self._public_origin.partition("://")[2]
        allowed = {*self._allowed_hosts, *filter(None, (public_host,))}
        checked = safe_next(named, allowed, asked_origin)
        if checked is None or checked == "/":
            raise InvalidField({"login": "name a page on this host or an allowed one"})
        page = iri_to_uri(checked)
        if original.startswith("/") and not page.startswith("/"):
            original = f"{asked_origin}{original}"
        target = safe_next(original, self._allowed_hosts, asked_origin)
        if target is None:
            self._note(original, asked_host)
            return page
        self._note(target, urlsplit(page).netloc)  # the log-in page will not lead there
        return _with_next(page, target)

    def _note(self, target: str, host: str) -> None:
        """Tells the operator of a target that a log-in page on `host` does not lead to."""
        if _host_of(target) not in {*self._allowed_hosts, host.lower()}:
            self._unlisted_hosts.note(target)


def _asked(environ: Environ) -> tuple[str, str]:
    """The host and the origin that the proxy asked."""
    host = get_host(environ)
    return host, f"{environ['wsgi.url_scheme']}://{host}"


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _with_next(page: str, target: str) -> str:
    """The address of a log-in page that leads on to `target`, unless that is too long."""
    onward = quote(target.encode("latin-1"), safe="/")
    if len(onward) > _LONGEST_NEXT:
        return page
    return f"{page}{'&' if '?' in page else '?'}next={onward}"
