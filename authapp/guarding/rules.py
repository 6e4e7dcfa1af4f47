"""Path rules: what is demanded of a request to a guarded app, by host, path and method."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from authapp.errors import Forbidden
from authapp.guarding.paths import Segments, folded, other_readings, segments_of


@dataclass(frozen=True, slots=True)
class Rule:
    """
    Attributes:
        number: its place in the file, from 1.
        hosts: in lower case, with the port unless that is the usual one; `*.example.org` is every
            host below that domain.
        paths: the beginnings of paths, as segments.
        methods: empty: all of them.
        is_public: anybody may pass. Else only people who are signed in.
        roles: any of these is needed; empty: none.
        needs_factor: the session needs a second factor.
        needs_verified: the person has confirmed their address.
    """

    number: int
    hosts: tuple[str, ...]
    paths: tuple[Segments, ...]
    methods: frozenset[str] = frozenset()
    is_public: bool = False
    roles: tuple[str, ...] = ()
    needs_factor: bool = False
    needs_verified: bool = False
    _folded: tuple[Segments, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folded", tuple(map(folded, self.paths)))

    def covers(self, host: str) -> bool:
        return any(_is_host(pattern, host) for pattern in self.hosts)

    def takes(self, method: str, segments: Segments, *, is_folded: bool = False) -> bool:
        """Whether a request to one of its hosts is one of these.

        Args:
            is_folded: upper and lower case are the same.
        """
        # apps answer HEAD by what they have for GET
        if self.methods and ("GET" if method == "HEAD" else method) not in self.methods:
            return False
        paths = self._folded if is_folded else self.paths
        return any(segments[: len(path)] == path for path in paths)

    def takes_all_of(self, other: "Rule") -> bool:
        """Whether no request is left for a rule that comes later."""
        return (
            all(any(_is_host(mine, host) for mine in self.hosts) for host in other.hosts)
            and all(any(path[: len(mine)] == mine for mine in self.paths) for path in other.paths)
            and (not self.methods or (bool(other.methods) and other.methods <= self.methods))
        )

    def __str__(self) -> str:
        """In words, for `doctor`."""
        paths = " or ".join(f"/{'/'.join(path)}" for path in self.paths)
        methods = f"{', '.join(sorted(self.methods))} " if self.methods else ""
        demands = [
            "public" if self.is_public else "signed in",
            *([f"role {' or '.join(self.roles)}"] if self.roles else []),
            *(["second factor"] if self.needs_factor else []),
            *(["verified address"] if self.needs_verified else []),
        ]
        return f"{methods}{' or '.join(self.hosts)}, {paths}: {', '.join(demands)}"


class GuardRules:
    """The rules of all guarded apps, in order: the first that matches a request counts."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    def find(self, method: str, host: str, path: str) -> Rule:
        """The rule for a request.

        Args:
            method, host, path: as the visitor asked; the path not decoded. Empty where the proxy
                does not say.

        Raises:
            Forbidden: no rule matches, or the path may be read in two ways.
        """
        if not method or not host or not path:
            raise Forbidden("the proxy does not say which page this is about")
        host = without_usual_port(host.lower())
        rules = [rule for rule in self.rules if rule.covers(host)]
        if not rules:
            raise Forbidden("this host is not guarded here")
        segments = segments_of(path)
        if segments is None:
            raise Forbidden("this address is not in normal form")
        found = _first(rules, method, segments)
        # a page that another reading of the path finds may be one of a stricter rule
        for reading in other_readings(segments):
            if reading is None or _first(rules, method, reading) is not found:
                raise Forbidden("this address can be read in two ways")
        if _first(rules, method, folded(segments), is_folded=True) is not found:
            raise Forbidden("this address can be read in two ways: see upper and lower case")
        if found is None:
            raise Forbidden("no rule lets anybody see this page")
        return found


def _first(
    rules: Sequence[Rule], method: str, segments: Segments, *, is_folded: bool = False
) -> Rule | None:
    taking = (rule for rule in rules if rule.takes(method, segments, is_folded=is_folded))
    return next(taking, None)


def without_usual_port(host: str) -> str:
    return host.removesuffix(":443").removesuffix(":80")


def _is_host(pattern: str, host: str) -> bool:
    """Whether a host, or another pattern, is of this pattern."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern == host
