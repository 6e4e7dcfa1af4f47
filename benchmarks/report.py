"""The measurements as a table, and as the picture in docs/performance.md."""

from dataclasses import dataclass, field
from html import escape
from statistics import median

WSGI, FLASK = "bare WSGI", "bare Flask"
_EXPRESS, _LEAST = "Express, one Redis GET", "WSGI, one Redis GET"
# what is worth comparing, where both were measured
PAIRS = (
    ("authapp /api/v1/me", FLASK),
    ("authapp /api/v1/me", "Flask-Session + Flask-Login"),
    ("authapp /api/v1/me", "Django, cached sessions + auth"),
    ("authapp in your app: session write", "Flask-Session + Flask-Login: session write"),
    ("authapp in your app: session write", "Django, cached sessions + auth: session write"),
    ("authapp in your app: cold check", "Flask-Session + Flask-Login: cold check"),
    ("authapp in your app: cold check", "Django, sessions + auth: cold check"),
    ("authapp: log-in", "Flask-Session + Flask-Login: log-in"),
    ("authapp: log-in", "Django, cached sessions + auth: log-in"),
    ("authapp in your app: log-out", "Flask-Session + Flask-Login: log-out"),
    ("authapp in your app: log-out", "Django, cached sessions + auth: log-out"),
    ("authapp in your app: login_required", "Flask-Session + Flask-Login"),
    ("authapp in your app: login_required", "Django, cached sessions + auth"),
    ("authapp in your app: current_user", FLASK),
    ("authapp in your app: login_required", FLASK),
    ("authapp forward-auth", WSGI),
    ("authapp forward-auth", _LEAST),
    (_LEAST, WSGI),
    ("authapp fast path, forged token", WSGI),
    ("authapp forward-auth, granian", _EXPRESS),
    ("authapp /api/v1/me, granian", _EXPRESS),
    ("authapp forward-auth, granian", f"{_LEAST}, granian"),
)


@dataclass(frozen=True)
class Sample:
    """One round of one contest.

    Attributes:
        cpu_us: microseconds of the server's processor time for a request.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Measured:
    name: str
    does: str
    samples: tuple[Sample, ...]

    def median(self, what: str) -> float:
        return float(median(getattr(sample, what) for sample in self.samples))


@dataclass(frozen=True)
class Result:
    """
    Attributes:
        memory: megabytes of a worker after all rounds, by the name of the server.
    """

    machine: str
    contests: list[Measured]
    memory: dict[str, float] = field(default_factory=dict)

    def speed(self, name: str, to: str) -> tuple[float, float, float]:
        """Throughput beside another's, round by round: median, least and greatest."""
        by_name = {one.name: one.samples for one in self.contests}
        rounds = zip(by_name[name], by_name[to], strict=True)
        found = [own.per_second / other.per_second for own, other in rounds]
        return median(found), min(found), max(found)

    def thrift(self, name: str, to: str) -> float:
        """Processor time that the other needs for what this one does in 1: it hardly depends on
        what else the machine does meanwhile."""
        by_name = {one.name: one for one in self.contests}
        return by_name[to].median("cpu_us") / by_name[name].median("cpu_us")


def table(result: Result) -> str:
    lines = [
        result.machine,
        f"{'':36}{'requests/s':>11}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'/ bare WSGI':>18}{'/ bare Flask':>18}{'CPU us':>8}{'of WSGI':>8}{'of Flask':>9}",
    ]
    for one in result.contests:
        line = f"{one.name:36}{one.median('per_second'):11.0f}"
        line += f"{one.median('p50_ms'):8.2f}{one.median('p99_ms'):8.2f}"
        for to in (WSGI, FLASK):
            middle, least, most = result.speed(one.name, to)
            line += f"{f'{middle:.2f} ({least:.2f}-{most:.2f})':>18}"
        line += f"{one.median('cpu_us'):8.0f}"
        line += f"{result.thrift(one.name, WSGI):8.2f}{result.thrift(one.name, FLASK):9.2f}"
        lines.append(line)
    names = {one.name for one in result.contests}
    lines += ["", f"{'':74}{'throughput':>18}{'CPU':>8}"]
    for name, to in PAIRS:
        if {name, to} <= names:
            middle, least, most = result.speed(name, to)
            spread = f"{middle:.2f} ({least:.2f}-{most:.2f})"
            lines.append(f"{f'{name} / {to}':74}{spread:>18}{result.thrift(name, to):8.2f}")
    lines.append(
        "medians of the rounds; ratios of throughput within a round, with their spread; "
        "CPU: of the server for a request, and that of the bare one beside it"
    )
    lines += [f"{one.name}: {one.does}" for one in result.contests]
    if result.memory:
        lines += ["", "memory of a worker after all rounds, its share of what is shared (PSS), MB"]
        lines += [f"{name:36}{found:11.0f}" for name, found in sorted(result.memory.items())]
    return "\n".join(lines)


ROW, LEFT, WIDTH, BAR = 30, 270, 760, 400
_LONG = (": log-in", ": log-out")  # beside which all other bars would be short


def picture(result: Result) -> str:
    """An SVG: processor time for a request of each as a bar."""
    contests = [one for one in result.contests if not one.name.endswith(_LONG)]
    most = max(one.median("cpu_us") for one in contests)
    height = ROW * len(contests) + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Processor time for a request, authapp beside peers</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="10" y="22" font-weight="bold">Processor time of the server for a request, '
        "microseconds: less is better</text>",
    ]
    for number, one in enumerate(contests):
        y, value = 36 + ROW * number, one.median("cpu_us")
        own = "#0b5cad" if one.name.startswith("authapp") else "#9aa5b1"
        length = value / most * BAR
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(one.name)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.0f}" height="20" fill="{own}"/>',
            f'<text x="{LEFT + length + 6:.0f}" y="{y + 17}">{value:,.0f}</text>',
        ]
    parts.append(
        f'<text x="10" y="{height - 12}" fill="#555">{escape(result.machine)}</text></svg>'
    )
    return "\n".join(parts) + "\n"
