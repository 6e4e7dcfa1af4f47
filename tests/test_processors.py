"""How many workers start: as many as there are processors that we may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from authapp.processors import usable_processors

PLENTY = len(os.sched_getaffinity(0))
V1 = "11:memory:/docker/a\n4:cpu,cpuacct:{}\n1:name=systemd:/\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


HALF = "50000 100000\n"
GROUPS = {
    "no control groups": ({}, PLENTY),
    "v2, no limit": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        PLENTY,
    ),
    "v2, in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": HALF}, 1),
    "v2, a service": (
        {"proc/self/cgroup": "0::/a.slice/b\n", "sys/fs/cgroup/a.slice/b/cpu.max": HALF},
        1,
    ),
    "v2, a group above": (
        {
            "proc/self/cgroup": "0::/a.slice/b\n",
            "sys/fs/cgroup/a.slice/cpu.max": HALF,
            "sys/fs/cgroup/a.slice/b/cpu.max": "max 100000\n",
        },
        1,
    ),
    "v2, one and a half": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
        min(2, PLENTY),
    ),
    "v2, more than there are": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "99900000 100000\n"},
        PLENTY,
    ),
    "v1": (
        {
            "proc/self/cgroup": V1.format("/a"),
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "20000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "v1, in a container that sees its own group only": (
        {
            "proc/self/cgroup": V1.format("/docker/0123"),
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "20000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "v1, no limit": (
        {
            "proc/self/cgroup": V1.format("/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        PLENTY,
    ),
    "what can not be read": (
        {"proc/self/cgroup": "0::/../x\nnonsense\n", "sys/fs/cgroup/cpu.max": "0 0 0"},
        PLENTY,
    ),
}


@pytest.mark.parametrize(("files", "count"), GROUPS.values(), ids=GROUPS)
def test_a_quota_of_a_control_group_counts(
    files: dict[str, str], count: int, tmp_path: Path
) -> None:
    assert usable_processors(tree(tmp_path, files)) == count


def test_the_affinity_counts() -> None:
    """As `taskset` and cpuset set it."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from authapp.config import Config; print(Config.WEB_CONCURRENCY)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert asked.stdout == "1\n"
