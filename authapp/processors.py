"""How many processors this process may use: by its affinity, and by what its container is given."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_processors(root: Path = Path("/")) -> int:
    """
    Args:
        root: where `proc` and `sys` are.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        count = os.cpu_count() or 1
    return max(1, min([count, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group we are in may use at most, of those that say so."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2
            mounts, read = ["sys/fs/cgroup"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"], _quota_v1
        else:
            continue
        for mount in mounts:
            for folder in _folders(root / mount, path):
                quota = read(folder)
                if quota is not None:
                    yield quota


def _folders(mount: Path, path: str) -> Iterator[Path]:
    """Folders of the group and of the groups around it; a container may see its own group alone."""
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None  # -1: no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
