"""The measurements, as tables."""

from typing import Any


def level(sessions: int, found: dict[str, Any]) -> str:
    """One level: what each operation cost beside the small place, and what a session weighs."""
    valkey, rows = found["sizes"]["valkey"], found["sizes"]["sessions"]
    lines = [
        f"{f'at {sessions:,} sessions':28}{'us':>9}{'client':>9}{'Postgres':>9}{'Valkey':>8}"
        f"{'small us':>10}{'speed':>7}{'by CPU':>7}"
    ]
    for name, cost in found["costs"].items():
        large = cost["large"]
        lines.append(
            f"{name:28}{large['wall']:9.0f}{large['client']:9.0f}{large['postgres']:9.0f}"
            f"{large['valkey']:8.1f}{cost['small']['wall']:10.0f}"
            f"{cost['ratio']:7.2f}{cost['ratio_cpu']:7.2f}"
        )
    lines.append(
        f"bytes a session: Valkey {valkey['bytes_a_session']} (MEMORY USAGE "
        f"{valkey['memory_usage_mean']}, at most {valkey['memory_usage_max']}), Postgres "
        f"{rows['table'] / rows['rows']:.0f} and {rows['indexes'] / rows['rows']:.0f} of indexes"
    )
    return "\n".join(lines)


def table(found: dict[str, Any]) -> str:
    """All of it."""
    parts = [found["machine"]]
    parts += [level(sessions, one) for sessions, one in found["levels"].items()]
    parts.append(
        "us: microseconds of wall for a call, median of the rounds; client, Postgres: of "
        "processor time; Valkey: in our functions, by its own count.\nspeed: beside the small "
        "place, within a round; by CPU: the same of all processor time together"
    )
    for what in ("http", "cold", "hot"):
        parts.append(f"{what}: {found[what]}")
    parts += [f"touches: {step}" for step in found["touches"]]
    return "\n".join(parts)


def rounded(found: Any) -> Any:
    """The same with three digits that mean something."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [rounded(value) for value in found]
    if isinstance(found, float):
        return float(f"{found:.3g}") if abs(found) < 100 else round(found)
    return found
