"""The promises about a session's data and its user, with requests that write into the session."""

from itertools import combinations_with_replacement
from typing import Any

import pytest
from sqlalchemy import Connection, select

from authapp.cache.row_changes import Reread
from authapp.cache.versioned_cache import Lease
from authapp.services import Services
from authapp.sessions import statements
from authapp.sessions.records import ActiveSession
from authapp.storage.driver.direct_statements import DirectStatement
from authapp.storage.models import SessionRow, User, table_of
from tests.proofs.model.change_actors import Rig, write_data
from tests.proofs.model.explorer import Tally, show, table
from tests.proofs.model.test_changes_interleaved import (
    DISTURBANCES,
    LONG,
    OF_DATA,
    PROMISES,
    SEED,
    sample,
)

if LONG:
    pytestmark = pytest.mark.timeout(0)

ALONE = 100 if LONG else 6  # orders drawn for each disturbance
PER_PAIR = 8 if LONG else 1
CLAIMED = 4_000 if LONG else 300  # schedules; docs/testing.md says so
KNOWN = DISTURBANCES | OF_DATA
PAIRS = list(combinations_with_replacement(sorted(set(KNOWN) - {"nothing else"}), 2))


@pytest.mark.first
def test_promises_hold_for_writes_of_data(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    tallies = []
    for number, name in enumerate(KNOWN):
        drawn = sample(rig, [name], ALONE, SEED + 700 + number, write_data, ["sess"])
        tallies.append(Tally(name).count(drawn))
    pairs = Tally(f"each of {len(PAIRS)} pairs, seed {SEED}")
    for number, pair in enumerate(PAIRS):
        drawn = sample(rig, pair, PER_PAIR, SEED + 1_000 + number, write_data, ["sess"])
        pairs.count(drawn)
    tallies.append(pairs)
    show(capsys, table("shipped, whole instances, data written", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]
    assert sum(tally.schedules for tally in tallies) >= CLAIMED


_user = table_of(User).c
_owner = select(_user.ver).where(_user.id == table_of(SessionRow).c.user_id).scalar_subquery()
# made before the statement is first used: SQLAlchemy would hand on the columns it remembers then
RETURNING_USER = statements.PATCH.returning(_owner.label("user_ver"))


def compare_with_returned_user(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of the user is what the statement returns that waits for the row of the
    session."""
    sessions = services.sessions
    reread: Any = services.sessions._reread

    def compare(live: ActiveSession, db: Connection, row: Any, lease: Lease) -> Reread:
        early: Any = DirectStatement(statements.VERSIONS)
        read = early.first
        early.first = lambda *given, alone: read(*given, alone=alone)._replace(
            user_ver=row.user_ver
        )
        with monkeypatch.context() as patch:
            patch.setattr(reread.__self__, "_versions", early)
            facts: Reread = reread(live, db, row, lease)
            return facts

    monkeypatch.setattr(sessions, "_patch", DirectStatement(RETURNING_USER))
    monkeypatch.setattr(sessions, "_reread", compare)


def test_a_user_that_the_writing_statement_returns_breaks_a_promise(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control."""
    for instance in rig.instances:
        compare_with_returned_user(instance.services, monkeypatch)
    drawn = sample(rig, ["second change there"], 60, SEED, write_data, ["sess"])
    tally = Tally("user from RETURNING").count(drawn, None if LONG else is_found)
    show(capsys, f"control: {tally.family:<44}{tally.broken['at once']:>6} of {tally.schedules}")
    assert is_found(tally), "the explorer no longer sees this fault"


def is_found(tally: Tally) -> bool:
    return tally.broken["at once"] >= 2
