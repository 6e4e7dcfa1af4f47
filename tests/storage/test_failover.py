"""A URL with several servers: connections look for the primary and leave one that was demoted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from authapp.doctor.findings import State
from authapp.doctor.replication import judge
from authapp.storage.postgres import Database, PostgresUnavailable, connect
from tests.support.databases import run_sql
from tests.support.replication import Pair, replicated
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def pair(engine_dir: Path) -> Iterator[Pair]:
    with replicated(engine_dir / "failover") as pair:
        yield pair


@pytest.fixture
def database(pair: Pair) -> Iterator[Database]:
    database = Database(connect(pair.url, 2))
    yield database
    database.breaker.retire()
    database.close()


def port_of(database: Database) -> int:
    return database.read(lambda db: int(db.scalar(text("SELECT inet_server_port()")) or 0))


def test_the_primary_is_found_whichever_place_it_has(pair: Pair, database: Database) -> None:
    before = port_of(database)
    pair.fail_over()

    wait_until(lambda: port_of(database) != before, ignoring=PostgresUnavailable)
    pair.add_standby()  # in the place that is named first, or was
    other = Database(connect(pair.url, 2))
    try:
        assert port_of(other) == port_of(database)
    finally:
        other.close()


def test_a_server_that_takes_no_changes_any_more_is_left(pair: Pair, database: Database) -> None:
    """As one that is demoted behind the connections of the pool."""
    run_sql(pair.primary.url, "CREATE TABLE IF NOT EXISTS public.written (number int)")

    def add(database: Database) -> None:
        with database.transaction() as db:
            db.execute(text("INSERT INTO public.written VALUES (1)"))

    with database.transaction() as db:
        db.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(PostgresUnavailable):
        add(database)
    add(database)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, []),
        ({"replicas": 1}, [("postgres replicas", State.WARN)]),
        ({"replicas": 2, "waits_for": "ANY 1 (a, b)"}, [("postgres replicas", State.OK)]),
        ({"several": True, "wants": "read-write"}, [("postgres replicas", State.WARN)]),
        (
            {"several": True, "wants": "any", "replicas": 1, "waits_for": "*"},
            [("postgres failover", State.FAIL), ("postgres replicas", State.OK)],
        ),
        (
            {"several": True, "wants": "primary", "replicas": 1, "waits_for": "*"},
            [("postgres replicas", State.OK)],
        ),
    ],
)
def test_what_doctor_says(given: dict[str, object], found: list[tuple[str, State]]) -> None:
    asked = {"several": False, "wants": "", "replicas": 0, "waits_for": ""} | given
    findings = list(judge(**asked))  # type: ignore[arg-type]
    assert [(finding.check, finding.state) for finding in findings] == found
    for finding in findings:
        assert finding.remedy or finding.state is State.OK
        if "no change waits" in finding.text:
            assert "synchronous_standby_names" in finding.remedy
