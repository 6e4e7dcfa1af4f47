"""What was measured, as a table, and as the picture in the README."""

from dataclasses import dataclass
from html import escape
from statistics import median

WSGI, FLASK = "bare WSGI", "bare Flask"


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
    machine: str
    contests: list[Measured]

    def ratio(self, name: str, to: str, what: str = "per_second") -> tuple[float, float, float]:
        """Median, least and greatest of the rounds' ratios."""
        by_name = {one.name: one.samples for one in self.contests}
        found = [
            getattr(own, what) / getattr(other, what)
            for own, other in zip(by_name[name], by_name[to], strict=True)
        ]
        return median(found), min(found), max(found)


def table(result: Result) -> str:
    head = (
        f"{'':36}{'requests/s':>11}{'p50 ms':>8}{'p99 ms':>8}{'CPU us':>8}"
        f"{'/ bare WSGI':>19}{'/ bare Flask':>19}"
    )
    lines = [result.machine, head]
    for one in result.contests:
        ratios = "".join(_ratio(result, one.name, to) for to in (WSGI, FLASK))
        numbers = f"{one.median('per_second'):11.0f}{one.median('p50_ms'):8.2f}"
        numbers += f"{one.median('p99_ms'):8.2f}{one.median('cpu_us'):8.0f}"
        lines.append(f"{one.name:36}{numbers}{ratios}")
    lines.append("medians of the rounds; ratios of throughput within a round, with their spread")
    lines += [f"{one.name}: {one.does}" for one in result.contests]
    return "\n".join(lines)


def _ratio(result: Result, name: str, to: str) -> str:
    middle, least, most = result.ratio(name, to)
    return f"{f'{middle:.2f} ({least:.2f}-{most:.2f})':>19}"


ROW, LEFT, WIDTH, BAR = 30, 250, 760, 400


def picture(result: Result) -> str:
    """An SVG: throughput of each as a bar."""
    contests = result.contests
    most = max(one.median("per_second") for one in contests)
    height = ROW * len(contests) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="13">',
        "<title>Requests a second on one core, authapp beside peers</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="10" y="22" font-weight="bold">Requests a second, one worker on one core</text>',
    ]
    for number, one in enumerate(contests):
        y, value = 36 + ROW * number, one.median("per_second")
        own = "#0b5cad" if one.name.startswith("authapp") else "#9aa5b1"
        ratio = result.ratio(one.name, FLASK)[0]
        length = value / most * BAR
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(one.name)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.0f}" height="20" fill="{own}"/>',
            f'<text x="{LEFT + length + 6:.0f}" y="{y + 17}">{value:,.0f} ({ratio:.2f})</text>',
        ]
    parts.append(
        f'<text x="10" y="{height - 10}" fill="#555">in brackets: bare Flask = 1. '
        f"{escape(result.machine)}</text></svg>"
    )
    return "\n".join(parts) + "\n"
