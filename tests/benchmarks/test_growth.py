"""`make bench-growth` runs, and the sessions it makes in numbers are like those that begin."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from authapp.accounts.emails import parse_email
from authapp.config import Config
from authapp.services import Services
from authapp.sessions.records import ActiveSession
from benchmarks.growth import __main__ as growth
from benchmarks.growth import report
from benchmarks.growth.population import ROLES, TOKEN, USER, Batch, Maker, add_roles, batches
from tests.support.clock import Clock
from tests.support.people import CLIENT
from tests.support.services import sql
from tests.support.traffic import traffic


@pytest.fixture
def roles(services: Services) -> Any:
    add_roles(services)
    yield
    sql(services, "DELETE FROM users")
    sql(services, "DELETE FROM roles WHERE name IN ('auditor', 'staff')")


def test_batches_hold_as_many_sessions_as_were_asked_for() -> None:
    for wanted in (1, 14, 600, 12_345):
        found = list(batches(7, wanted))
        assert sum(sum(one.sessions) for one in found) == wanted
        assert all(min(one.sessions) > 0 for one in found)
        ends = [one.first + len(one.sessions) for one in found]
        assert [one.first for one in found] == [7, *ends[:-1]], "no user twice"


def test_sessions_made_in_numbers_are_like_those_that_begin(
    services: Services, config: Config, clock: Clock, roles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.growth.population.utc_now", clock)
    made = Maker(services, config).make(Batch(7, (1, 3)))
    assert len(made.users) == 2 * USER
    texts = [made.tokens[start : start + TOKEN].decode() for start in range(0, 4 * TOKEN, TOKEN)]
    with traffic() as seen:
        lives = [
            services.sessions.find(token) for token in map(services.tokens.check, texts) if token
        ]
    assert seen.sql == [], "each has its copy"
    assert len(lives) == 4
    assert all(isinstance(live, ActiveSession) for live in lives)

    user = services.users.create(parse_email("one@example.org"), "Ada", "x" * 60, ROLES)
    services.sessions.begin(user.id, 1, CLIENT)
    shape = (
        "SELECT count(*), jsonb_strip_nulls(to_jsonb(s) - '{id,digest,user_id}'::text[])"
        " FROM sessions s GROUP BY 2"
    )
    assert [count for count, _ in sql(services, shape)] == [5], "all columns are the same"
    events = "SELECT event, count(*) FROM audit_events GROUP BY 1 ORDER BY 1"
    assert sql(services, events) == [("session.begun", 5), ("user.created", 3)]


def test_levels_end_where_was_asked() -> None:
    assert growth.levels_up_to(1_000_000) == [1_000, 10_000, 100_000, 1_000_000]
    assert growth.levels_up_to(5_000) == [1_000, 5_000]


def test_figures_are_kept_as_far_as_they_mean_something() -> None:
    found = report.rounded({"a": [1234.56, 0.012345, 12], "b": None})
    assert found == {"a": [1235, 0.0123, 12], "b": None}


@pytest.mark.first
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not here: apt-get install wrk")
def test_all_of_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "growth.json"
    growth.main(["--small", "--write", str(written)])
    found = json.loads(written.read_text())
    assert list(found["levels"]) == ["40", "80"]
    assert found["cold"]["cold"]["unauthorized"] == 0
    assert found["cold"]["reads"] >= found["cold"]["sessions"]
    assert found["cold"]["most_busy"] <= found["cold"]["most_possible"]
    assert found["touches"][-1]["touches"] == 500
