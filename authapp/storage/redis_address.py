"""REDIS_URL, read in one place: which servers it names, and how they are reached."""

import re
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["server", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_TLS_OPTIONS = {  # names of redis-py
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
}
_PLACE = re.compile(r"(\[[^]]+\]|[^:]+):(\d+)")
_FORM = (
    "set it to redis://host:port/0, rediss://…, unix://…, "
    "redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port; "
    "with TLS rediss+sentinel://… or rediss+cluster://…, and perhaps ?ssl_ca_certs=/path"
)
_ENCODED = (
    "write @ : / ? # [ ] in user and password percent-encoded, as %40 for @; "
    "for example redis://user:password@host:port/0"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The servers that REDIS_URL names.

    Attributes:
        url: as it was given. redis-py itself reads the URL of a single server.
        kind: a single server, Sentinels, or the nodes of a Cluster.
        has_tls: whether each connection is encrypted.
        places: hosts with their ports; none for a Unix socket.
        username, password: decoded; empty where the URL has none.
        service: the name that Sentinels have for the primary.
        database: its number behind the service, as text; empty for the first.
        query: the parameters after `?`.
    """

    url: str
    kind: Kind
    has_tls: bool
    places: tuple[tuple[str, int], ...]
    username: str
    password: str
    service: str
    database: str
    query: str

    def __repr__(self) -> str:
        return f"RedisAddress(kind={self.kind!r}, places={self.places!r})"

    @classmethod
    def parse(cls, url: str) -> Self:
        """
        Raises:
            ValueError: one line with the remedy. It repeats nothing that could be a password.
        """
        scheme, _, rest = url.partition("://")
        authority, behind = _split(rest)
        if set("@#") & set(behind):  # a password that ended early
            raise ValueError(_ENCODED)
        kind = _KINDS.get(scheme)
        if kind is None:
            raise ValueError(_FORM)
        has_tls = scheme.startswith("rediss")
        path, _, query = behind.partition("?")
        service, _, database = path.strip("/").partition("/")
        account, _, hosts = authority.rpartition("@")
        username, _, password = account.partition(":")
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        if kind == "server":
            places = () if scheme == "unix" else _single_place(url)
            password = password or parameters.get("password", "")
        else:
            places = _listed_places(hosts)
            if query and not (has_tls and parameters.keys() <= _TLS_OPTIONS):
                raise ValueError(_FORM)
            if kind == "sentinel" and not service:
                raise ValueError(_FORM)
        return cls(
            url=url,
            kind=kind,
            has_tls=has_tls,
            places=places,
            username=unquote(username),
            password=unquote(password),
            service=service,
            database=database,
            query=query,
        )

    @property
    def account(self) -> dict[str, str]:
        """The options by which redis-py is told who asks."""
        options = {"username": self.username, "password": self.password}
        return {name: value for name, value in options.items() if value}


def _split(rest: str) -> tuple[str, str]:
    """The authority of a URL (RFC 3986, 3.2), and what stands behind it."""
    (authority,) = re.findall(r"^[^/?#]*", rest)
    return authority, rest[len(authority) :]


def _single_place(url: str) -> tuple[tuple[str, int], ...]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    if port == 0:
        raise ValueError(_FORM)
    return ((parts.hostname or "localhost", port or 6379),)


def _listed_places(hosts: str) -> tuple[tuple[str, int], ...]:
    found = [_PLACE.fullmatch(place) for place in hosts.split(",")]
    if None in found:
        raise ValueError(_FORM)
    return tuple((place[1].strip("[]"), int(place[2])) for place in found if place)
