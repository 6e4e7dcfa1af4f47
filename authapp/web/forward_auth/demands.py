"""`Demand`: what a proxy asks of a visitor, written in the address that the proxy asks."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from authapp.web.api.bodies import MAX_FIELDS


@dataclass(frozen=True, slots=True)
class Demand:
    """The parameters in the address that the proxy asks.

    Attributes:
        roles: any of these is needed; empty: anybody who is signed in may pass.
        needs_factor: the session needs a second factor.
        login: the log-in page, where it is another than our own.
        lets_preflights_pass: a CORS preflight passes, as nobody's.
        wants_assertion: the guarded app verifies who the person is.
        unknown: the name of a parameter that means nothing, or has a wrong value. Mistyped, it must
            not let everybody pass.
    """

    roles: tuple[str, ...] = ()
    needs_factor: bool = False
    login: str = ""
    lets_preflights_pass: bool = False
    wants_assertion: bool = False
    unknown: str = ""

    @property
    def demands(self) -> bool:
        """Whether somebody must be signed in, whatever a path rule says."""
        return bool(self.roles) or self.needs_factor


@lru_cache(maxsize=256)
def read_demand(parameters: str, separator: str = "&") -> Demand:
    """
    Args:
        parameters: `name=value`, encoded as in a query.
    """
    if parameters.count(separator) > MAX_FIELDS:
        return Demand(unknown="role")
    return _demand_of(parse_qsl(parameters, keep_blank_values=True, separator=separator))


def read_ambiguous_demand(query: str) -> Demand:
    """The demand of a query that may be the proxy's or the visitor's, as the two are the same.

    The demands in it hold, because the proxy may have written them. The rest is left out: with any
    other word in the proxy's own query nobody would pass, so the visitor wrote that.
    """
    if query.count("&") > MAX_FIELDS:
        return Demand()
    parameters = parse_qsl(query, keep_blank_values=True)
    return _demand_of([(name, value) for name, value in parameters if name in _DEMANDING])


# a visitor's parameters of these names only make it harder to pass
_DEMANDING = ("role", "factor")


_FACTOR, _PREFLIGHT, _ASSERTION = ("factor", "2"), ("preflight", "pass"), ("assertion", "1")


def _demand_of(parameters: list[tuple[str, str]]) -> Demand:
    roles: list[str] = []
    login, switched = "", set()
    for name, value in parameters:
        if name == "role":
            roles.append(value)
        elif name == "login":
            login = value
        elif (name, value) in (_FACTOR, _PREFLIGHT, _ASSERTION):
            switched.add((name, value))
        else:
            return Demand(unknown=name[:50] or "role")
    return Demand(
        tuple(roles),
        needs_factor=_FACTOR in switched,
        login=login,
        lets_preflights_pass=_PREFLIGHT in switched,
        wants_assertion=_ASSERTION in switched,
    )
