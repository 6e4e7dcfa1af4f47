"""The promises about a session's data and its user, with requests that write into the session."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from authapp.cache.changes import Changed, Reread
from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import Copy, Lease
from authapp.services import Services
from authapp.sessions.generation import is_live
from authapp.sessions.records import ActiveSession, SessionRecord
from authapp.storage.models import SessionRow, User
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


def save_with_returned_user(
    services: Services, live: ActiveSession, changed: Mapping[str, Any], _removed: Sequence[str]
) -> Changed[bool]:
    """As `patch`, but the user in the copy is what the statement returns that waits for the row of
    the session."""
    digest = live.token.digest
    with services.changes.begin() as change:
        row = change.db.execute(
            update(SessionRow)
            .where(SessionRow.digest == digest, is_live(), User.id == SessionRow.user_id)
            .values(data=dict(changed), ver=SessionRow.ver + 1)
            .returning(SessionRow.ver, User.name)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if row is not None:
            version, name = row

            def reread(db: Session, leases: Mapping[str, Lease]) -> Reread:
                seen = live.record.last_seen_at
                facts = services.sessions._reread(db, leases, digest, seen)
                copies = {}
                for key, copy in facts.copies.items():
                    assert isinstance(copy.record, SessionRecord)
                    user = msgspec.structs.replace(copy.record.user, name=name)
                    record = msgspec.structs.replace(copy.record, user=user)
                    copies[key] = Copy(record, copy.ttl)
                return Reread(copies, facts.fences_pending)

            change.touch_session(digest, version)
            change.write_through([session_key(digest)], reread)
    return change.returning(row is not None)


def test_a_user_that_the_writing_statement_returns_breaks_a_promise(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control."""
    for instance in rig.instances:
        patch = partial(save_with_returned_user, instance.services)
        monkeypatch.setattr(instance.services.sessions, "patch", patch)
    drawn = sample(rig, ["second change there"], 60, SEED, write_data, ["sess"])
    tally = Tally("user from RETURNING").count(drawn)
    broken = tally.broken["at once"]
    show(capsys, f"control: {tally.family:<44}{broken:>6} of {tally.schedules}")
    assert broken >= 2, "the explorer no longer sees this fault"
