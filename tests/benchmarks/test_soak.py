"""A short soak of the product, and one of an app that leaks; `make soak` soaks in earnest."""

from dataclasses import asdict, replace

import pytest

from benchmarks.soak import report
from benchmarks.soak.__main__ import soak
from benchmarks.soak.place import USUAL, Sample

PAUSE = 0.2  # the rest of the suite needs the cores, too
FLAT = Sample(0, 200, 30, 80, 14, 20, 0, 400, 150, 100, 9, 250, 300)
OF_EACH = {"keys_each": "redis_keys", "live_each": "live_sessions"}


def samples(**changes: float) -> list[Sample]:
    """Of which the last third uses so much more of one measure."""
    later = {name: getattr(FLAT, name) + more for name, more in changes.items()}
    return [FLAT] * 20 + [replace(FLAT, **later)] * 10


def test_nothing_is_said_of_what_stays() -> None:
    assert report.grown(samples()) == []


@pytest.mark.parametrize("bound", report.BOUNDS, ids=lambda bound: bound.name)
def test_growth_is_named(bound: report.Bound) -> None:
    allowed = getattr(FLAT, bound.name) * bound.share + bound.more
    measure = bound.name
    if bound.name in OF_EACH:
        measure, allowed = OF_EACH[bound.name], allowed * (FLAT.came + USUAL)
    (complaint,) = report.grown(samples(**{measure: allowed + 1}))
    assert complaint.startswith(f"{bound.name} grew from")
    assert report.grown(samples(**{measure: allowed - 1})) == []


def test_what_only_warms_up_has_not_grown() -> None:
    warming = [replace(FLAT, memory_mb=100 + 10 * min(number, 10)) for number in range(30)]
    assert report.grown(warming) == []


def test_each_measure_has_a_bound_and_a_column() -> None:
    bounded = {OF_EACH.get(bound.name, bound.name) for bound in report.BOUNDS}
    assert {"minute", "came", *bounded} == set(asdict(FLAT)) == set(report.COLUMNS)
    assert len(report.header()) == len(report.row(FLAT))


def test_a_short_soak_through_restarts() -> None:
    """Nobody is logged out, nobody gets back in, nothing fails for long; growth needs minutes."""
    outcome = soak(10, restarts=2, pause=PAUSE)
    assert [told for told in outcome.complaints if "grew" not in told] == []


def test_leaks_are_found() -> None:
    outcome = soak(8, "tests.benchmarks.leaking_app:app", restarts=0, pause=PAUSE)
    found = {told.split(" grew ")[0] for told in outcome.complaints}
    assert found >= {"memory_mb", "threads", "descriptors", "redis_connections", "lasting_keys"}, (
        outcome.told
    )
