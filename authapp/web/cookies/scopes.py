"""Scopes of cookies: where a browser may keep another cookie of our name.

A browser names a cookie by its name, domain and path. After a change of SESSION_COOKIE_DOMAIN, of
the path or of the prefix of the name it keeps the old cookie beside the new one, and sends both. No
answer can say "expire all of this name": each scope has to be named.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from flask import Response

from authapp.web.cookies.header import names_in, names_under

MAX_EXPIRED = 12  # cookies that one answer expires beside those that it sets or clears

# names that a Domain attribute can have: two labels or more, and no address
_is_domain = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]*[a-z][a-z0-9_-]*").fullmatch


@dataclass(frozen=True, slots=True)
class Scope:
    """The place where a browser keeps a cookie: its name, domain and path.

    Attributes:
        domain: the Domain attribute without a leading dot; None: the cookie is for one host alone.
    """

    name: str
    domain: str | None
    path: str


def other_scopes(own: Scope, header: str, host: str, paths: Iterable[str]) -> list[Scope]:
    """Where the browser may keep what it sent under the name of our cookie, besides `own`.

    Args:
        header: the Cookie header as received.
        host: that the browser asked; its port does not matter.
        paths: that such a cookie may have, likely ones first.
    """
    sent = names_in(header)
    own_domain = own.domain.lstrip(".").lower() if own.domain else None
    domains = dict.fromkeys([None, own_domain, *_domains_of(host)])
    found: dict[Scope, None] = {}
    for name in names_under(own.name):
        if name not in sent:
            continue
        if name.startswith("__Host-"):
            found[Scope(name, None, "/")] = None
        else:
            found |= {Scope(name, d, p): None for p, d in product(dict.fromkeys(paths), domains)}
    found.pop(Scope(own.name, own_domain, own.path), None)
    return list(found)


def path_prefixes(path: str) -> list[str]:
    """The paths of cookies that a browser sends with a request to `path` (RFC 6265, 5.1.4)."""
    parts = path.split("/")[1:]
    return ["/", *("/" + "/".join(parts[: end + 1]) for end in range(len(parts)) if parts[end])]


def expire(response: Response, scopes: Iterable[Scope], *, secure: bool, samesite: str) -> None:
    """Has the browser forget the cookies in these scopes, the first MAX_EXPIRED of them."""
    for scope in list(scopes)[:MAX_EXPIRED]:
        response.delete_cookie(
            scope.name,
            path=scope.path,
            domain=scope.domain,
            # a browser takes a name with a prefix only with Secure, also to expire it
            secure=secure or scope.name.startswith("__"),
            httponly=True,
            samesite=samesite,
        )


def _domains_of(host: str) -> Iterator[str]:
    name = host.lower().partition(":")[0].rstrip(".")
    while _is_domain(name):
        yield name
        name = name.partition(".")[2]
