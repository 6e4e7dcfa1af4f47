"""The result of a storm of log-ins, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.loads import LogIns

ALONE, BCRYPT_BESIDE, BCRYPT = "checks alone", "bcrypt alone, beside checks", "bcrypt alone"


@dataclass(frozen=True)
class Took:
    """How long checks took."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Sample:
    """One round of one situation.

    Attributes:
        checks: by path.
        others: the part of the server's cores that neither it nor bcrypt used: of a machine that
            does something else the figures say little.
    """

    checks: dict[str, Took]
    log_ins: LogIns | None
    hashes_per_second: float
    others: float


@dataclass(frozen=True)
class Spread:
    """Over the rounds."""

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}-{self.most:.2f})"


@dataclass(frozen=True)
class Result:
    """
    Attributes:
        situations: by name, what each round gave.
    """

    machine: str
    situations: dict[str, list[Sample]]

    def slower(self, name: str, path: str) -> Spread:
        """The p99 of checks under load, relative to checks alone, round by round."""
        rounds = zip(self.situations[name], self.situations[ALONE], strict=True)
        return _spread([one.checks[path].p99_ms / idle.checks[path].p99_ms for one, idle in rounds])

    def log_ins_per_hash(self, name: str, alone: str) -> Spread:
        """Log-ins that succeed beside what bcrypt alone compares, round by round."""
        rounds = zip(self.situations[name], self.situations[alone], strict=True)
        return _spread(
            [one.log_ins.per_second / two.hashes_per_second for one, two in rounds if one.log_ins]
        )


def percentiles(ms: Sequence[float]) -> Took:
    return Took(median(ms), quantiles(ms, n=100, method="inclusive")[98])


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def table(result: Result) -> str:
    paths = list(result.situations[ALONE][0].checks)
    lines = [
        result.machine,
        f"{'':28}" + "".join(f"{path:>20} p50{'p99 ms':>9}{'/ alone':>21}" for path in paths),
    ]
    for name, samples in result.situations.items():
        line = f"{name:28}"
        for path in paths:
            took = [sample.checks[path] for sample in samples if sample.checks]
            if not took:
                line += " " * 54
                continue
            line += f"{median(one.p50_ms for one in took):24.2f}"
            line += f"{median(one.p99_ms for one in took):9.2f}{result.slower(name, path)!s:>21}"
        lines.append(line.rstrip())
    beside, alone = f"/ {BCRYPT_BESIDE}", f"/ {BCRYPT}"
    lines.append(
        f"{'':28}{'a second':>9}{beside:>30}{alone:>18}{'503':>7}{'slowest ms':>11}{'others':>8}"
    )
    for name, samples in result.situations.items():
        log_ins = [sample.log_ins for sample in samples if sample.log_ins]
        others = f"{median(sample.others for sample in samples):8.0%}"
        if not log_ins:
            hashes = median(sample.hashes_per_second for sample in samples)
            lines.append(f"{name:28}{f'{hashes:.2f}' if hashes else '':>9}{'':66}{others}")
            continue
        lines.append(
            f"{name:28}{median(one.per_second for one in log_ins):9.2f}"
            f"{result.log_ins_per_hash(name, BCRYPT_BESIDE)!s:>30}"
            f"{result.log_ins_per_hash(name, BCRYPT)!s:>18}"
            f"{sum(one.busy for one in log_ins):7}{max(one.slowest_ms for one in log_ins):11.0f}"
            f"{others}"
        )
    lines.append(
        "medians of the rounds, ratios within a round with their spread; a second: log-ins that "
        "succeeded, or hashes; others: what else used the server's core"
    )
    return "\n".join(lines)
