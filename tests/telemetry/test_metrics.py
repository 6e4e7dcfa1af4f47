"""Metrics have few and known labels, and are the sum of all processes."""

import subprocess
import sys
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from authapp.telemetry import metrics

ROOT = Path(__file__).parents[2]
OURS = [m for m in vars(metrics).values() if isinstance(m, (Counter, Gauge, Histogram))]

# each has a bounded number of values, none of which a visitor chooses
BOUNDED = {"method", "route", "status", "store", "kind", "outcome", "found"}


def test_labels_are_bounded() -> None:
    assert len(OURS) > 5
    for metric in OURS:
        assert set(metric._labelnames) <= BOUNDED, (
            f"{metric._name}: a label that visitors choose makes a series for each value. If its "
            "values are few and known, name it here"
        )
        assert metric._name.startswith("authapp_")
        assert metric._documentation


def said_by(work: str, folder: Path) -> dict[str, float]:
    """The metrics of a separate process that counts in this folder."""
    said = subprocess.run(
        [sys.executable, "-c", work],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }


def test_it_is_the_sum_of_all_processes(tmp_path: Path) -> None:
    """Gauges of those that live alone; `serving/metrics_dir.py` says which ended."""
    work = (
        "from authapp.telemetry import metrics\n"
        "metrics.STALE_COPIES.inc(2); metrics.HASHING.inc(3)\n"
        "metrics.PENDING_FENCES.set(4)\n"
        "print(metrics.exposition().decode())\n"
    )
    values = {}
    for _ in range(2):
        values = said_by(work, tmp_path)
    assert values["authapp_stale_copies_total"] == 4
    assert values["authapp_hashing_occupied"] == 6
    assert values["authapp_pending_fences"] == 4


def test_who_has_the_slot_of_one_that_ended_goes_on_counting(tmp_path: Path) -> None:
    work = (
        "import os\n"
        "from authapp.telemetry import metrics\n"
        "metrics.count_in('worker1')\n"
        "metrics.STALE_COPIES.inc(2)\n"
        "if os.fork() == 0:\n"
        "    metrics.STALE_COPIES.inc(5)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "metrics.STALE_COPIES.inc(2)\n"
        "print(metrics.exposition().decode())\n"
    )
    for times in (1, 2):
        values = said_by(work, tmp_path)
        assert values["authapp_stale_copies_total"] == 9 * times
    assert len(list(tmp_path.glob("counter_worker*.db"))) == 1
