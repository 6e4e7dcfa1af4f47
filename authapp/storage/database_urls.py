"""DATABASE_URL as the parameters of libpq, so that everything that connects reads it alike.

SQLAlchemy and libpq each read such URLs in a way of their own. Both spellings of several hosts are
known here: `h1:5432,h2:5433` (libpq) and `?host=h1:5432&host=h2:5433` (SQLAlchemy).
"""

import re
from urllib.parse import parse_qsl, unquote

import psycopg2
from psycopg2.extensions import parse_dsn

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
FORM = "set it to postgresql://user:password@host/database"
ENCODED = f"{FORM}; write @ : / ? # [ ] in user and password percent-encoded, as %40 for @"
_PLACE = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(\d{0,5}))?")
_PORTS = re.compile(r"\d{0,5}(?:,\d{0,5})*")
_NAME = re.compile(r"[a-z_]{1,40}")


def read_database_url(url: str) -> dict[str, str]:
    """The parameters by which libpq connects.

    Raises:
        ValueError: one line with the remedy. It repeats nothing that could be part of a password.
    """
    scheme, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    authority, _, database = before.partition("/")
    account, _, places = authority.rpartition("@")
    user, _, password = account.partition(":")
    if scheme not in SCHEMES:
        raise ValueError(FORM)
    # A password with one of these in it would end early, and its tail be taken for a host.
    if "#" in rest or "@" in password + database + query or set("[]") & set(account):
        raise ValueError(ENCODED)
    try:
        found = {
            "user": _decoded(user),
            "password": _decoded(password),
            "dbname": _decoded(database),
        }
        found |= _places([_decoded(place) for place in places.split(",")])
        found |= _parameters(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except UnicodeError:  # it would repeat what it can't read
        raise ValueError(ENCODED) from None
    if any("\0" in value for value in found.values()):
        raise ValueError(ENCODED)
    return {name: value for name, value in found.items() if value}


def _decoded(part: str) -> str:
    part.encode()  # a byte of the environment that is no UTF-8 can't be sent either
    return unquote(part, errors="strict")


def _places(places: list[str]) -> dict[str, str]:
    hosts, ports = [], []
    for place in places:
        match = _PLACE.fullmatch(place)
        if match is None or not _is_port(match[2] or ""):
            raise ValueError(ENCODED)
        hosts.append(match[1].strip("[]"))
        ports.append(match[2] or "")
    if not any(hosts) and not any(ports):
        return {}
    return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}


def _is_port(text: str) -> bool:
    return not text or 0 < int(text) < 65_536


def _parameters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(pairs)
    if found.get("ssl") == "true":  # as libpq does, for URLs that were written for JDBC
        del found["ssl"]
        found["sslmode"] = "require"
    for name in found:
        _expect_known(name, tell=not {"password", "sslpassword"} & set(found))
    ports = found.get("port", "")
    if not _PORTS.fullmatch(ports) or not all(_is_port(port) for port in ports.split(",")):
        raise ValueError("port: set it to a number from 1 to 65535")
    hosts = [value for name, value in pairs if name == "host"]
    if len(hosts) > 1 or ("port" not in found and any(_ends_in_port(host) for host in hosts)):
        found |= _places(
            [f"[{h}]" if h.count(":") > 1 and not _ends_in_port(h) else h for h in hosts]
        )
    return found


def _ends_in_port(host: str) -> bool:
    return re.fullmatch(r"[^,:]*:\d{1,5}", host) is not None


def _expect_known(name: str, *, tell: bool) -> None:
    """
    Args:
        tell: whether the message may name it: not where it can be the tail of a password.
    """
    is_name = _NAME.fullmatch(name) is not None
    if is_name and _libpq_knows(name):
        return
    told = f"`{name}`" if tell and is_name else "one after the `?`"
    raise ValueError(
        f"{told} is no parameter of a PostgreSQL connection: take it out, or percent-encode & "
        "and = where they belong to a value"
    )


def _libpq_knows(name: str) -> bool:
    try:
        parse_dsn(f"{name}=x")
    except psycopg2.Error:
        return False
    return True
