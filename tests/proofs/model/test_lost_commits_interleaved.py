"""Postgres loses its last commits, in many orders: who was logged out does not get back in.

The promise: once an end was acknowledged, and Redis knows of it when Postgres goes back, no later
visit finds the session live. Redis knows by the copy that says so, or by the generation in the life
of the copies.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from authapp.cache.entries import decode_entry
from authapp.cache.keys import session_key
from authapp.cache.versioned_cache import Lease, VersionedCache
from authapp.sessions.lost_commits import LostCommits
from authapp.sessions.records import SessionRecord
from tests.proofs.model.change_actors import (
    PREFIX,
    REVALIDATE,
    ChangeWorld,
    Promise,
    Rig,
    Seen,
    end_everybody,
    log_out,
    outage,
    recovery,
    visit,
)
from tests.proofs.model.explorer import Actor, Step, Tally, show, some_orders, table
from tests.proofs.model.instances import Instance
from tests.proofs.model.test_changes_interleaved import LONG, PROMISES, SEED
from tests.support.waiting import wait_until

if LONG:
    pytestmark = pytest.mark.timeout(0)

ALONE = 400 if LONG else 12  # orders drawn for each disturbance

KEEP = """
DROP TABLE IF EXISTS kept_users, kept_sessions, kept_deployment, kept_fences;
CREATE TEMPORARY TABLE kept_users AS SELECT * FROM users WHERE id = %(user)s;
CREATE TEMPORARY TABLE kept_sessions AS SELECT * FROM sessions WHERE user_id = %(user)s;
CREATE TEMPORARY TABLE kept_deployment AS TABLE deployment;
CREATE TEMPORARY TABLE kept_fences AS TABLE pending_fences;
"""
GO_BACK = """
BEGIN;
SET LOCAL session_replication_role = replica;  -- no trigger runs
DELETE FROM sessions WHERE user_id = %(user)s;
DELETE FROM users WHERE id = %(user)s;
DELETE FROM pending_fences;
INSERT INTO users SELECT * FROM kept_users;
INSERT INTO sessions SELECT * FROM kept_sessions;
INSERT INTO pending_fences SELECT * FROM kept_fences;
UPDATE deployment SET session_generation =
  (SELECT session_generation FROM kept_deployment);
COMMIT;
"""
END_CONNECTIONS = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'authapp' AND datname = current_database()
"""
ARE_THERE = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"


class LosingWorld(ChangeWorld):
    """A world whose Postgres goes back once."""

    went_back = is_forgotten = False

    def has_ended(self, name: str) -> bool:
        return name not in self._next

    def run_sql(self, statements: str) -> None:
        with self.rig.postgres.cursor() as cursor:
            cursor.execute(statements, {"user": str(self.user_id)})

    def end_connections(self) -> None:
        """As the primary that dies does."""
        with self.rig.postgres.cursor() as cursor:
            cursor.execute(END_CONNECTIONS)
            ended = [pid for pid, _ in cursor.fetchall()]

            def are_gone() -> bool:  # the server itself would look ten times a second
                cursor.execute(ARE_THERE, (ended,))
                return cursor.fetchall() == [(0,)]

            wait_until(are_gone, "a connection does not end", pause=0.002)

    def go_back(self) -> None:
        self.end_connections()
        self.run_sql(GO_BACK)
        self.went_back = True
        self.is_forgotten = not self._redis_knows()
        self.trace.append("Redis has forgotten" if self.is_forgotten else "Redis knows")

    def _redis_knows(self) -> bool:
        services = self.rig.here.services
        cache = VersionedCache(self.rig.admin, services.cache._sealer, key_prefix=PREFIX)
        key = session_key(self.token.digest)
        entry = decode_entry(cache.acquire(key, renew=True).value, SessionRecord)
        if entry is not None and entry.ended_why is not None:
            return True
        life: Any = self.rig.admin.get(self.rig.life_key)
        known = int(life.rstrip(b"!").partition(b".")[2] or 0)
        with self.rig.postgres.cursor() as cursor:
            cursor.execute("SELECT session_generation FROM deployment")
            ((present,),) = cursor.fetchall()
        return known > int(present)

    def judge(
        self, who: str, seen: Seen, promised: dict[str, int], promise: Promise = "at once"
    ) -> None:
        if not self.is_forgotten:  # a visit may have begun when it was known
            super().judge(who, seen, promised, promise)

    def settle(self) -> None:
        assert self.went_back
        for instance in self.rig.instances:
            instance.line.faults.clear()
            instance.line.cut = False
        self.rig.clock.forward(REVALIDATE)  # each copy is compared with its row
        super().settle()


def lose_commits(world: LosingWorld, *, is_late: bool) -> Actor:
    """
    Args:
        is_late: the end has been answered by then, so that its change is lost whole or not at all.
    """
    yield Step("the standby is cut off")
    world.run_sql(KEEP)
    yield Step("Postgres goes back", lambda: not is_late or world.has_ended("end"))
    world.go_back()


DISTURBANCES: dict[str, Callable[[LosingWorld], dict[str, Actor]]] = {
    "nothing else": lambda _: {},
    "visit here": lambda w: {"visit here": visit(w, "visit here", w.rig.here, "sess")},
    "second end there": lambda w: {"end there": log_out(w, w.rig.there)},
    "everybody there": lambda w: {"everybody there": end_everybody(w, w.rig.there)},
    "Redis away from here": lambda w: {
        "outage": outage(w.rig.here),
        "recovery": recovery(w, w.rig.here),
    },
    "Redis away from there": lambda w: {"outage there": outage(w.rig.there)},
}
ENDS: dict[str, Callable[[ChangeWorld, Instance], Actor]] = {
    "log-out": log_out,
    "everybody": end_everybody,
}


def sample(rig: Rig, name: str, end: str, count: int, seed: int) -> Iterator[LosingWorld]:
    def make(draw: random.Random) -> LosingWorld:
        world = LosingWorld(rig, warm=draw.random() < 0.5, back=draw.random() < 0.5)
        world.add("end", ENDS[end](world, rig.here))
        world.add("visit", visit(world, "visit", rig.there, "sess"))
        world.add("loss", lose_commits(world, is_late=draw.random() < 0.7))
        for actor_name, actor in DISTURBANCES[name](world).items():
            world.add(actor_name, actor)
        return world

    return some_orders(make, count, seed)


@pytest.mark.first
def test_ended_stays_ended(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    tallies: list[Tally] = []
    for number, (end, name) in enumerate((e, n) for e in ENDS for n in DISTURBANCES):
        drawn = sample(rig, name, end, ALONE, SEED + 2_000 + number)
        tallies.append(Tally(f"{end}, {name}").count(drawn))
    show(capsys, table("Postgres lost its last commits", PROMISES, tallies))
    assert not any(tally.broken for tally in tallies), [tally.examples for tally in tallies]


def believe_the_row(patch: pytest.MonkeyPatch) -> None:
    def settle(_self: LostCommits, _digest: bytes, record: SessionRecord, *_: Any) -> SessionRecord:
        return record

    patch.setattr(LostCommits, "settle", settle)


def is_found(tally: Tally) -> bool:
    return max(tally.broken.values(), default=0) >= 3


def forget_the_generation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "generation", 0)


@pytest.mark.parametrize(
    ("control", "ends"),
    [
        pytest.param(believe_the_row, ["log-out", "everybody"], id="the row is believed"),
        pytest.param(forget_the_generation, ["everybody"], id="no generation in the life"),
    ],
)
def test_control_breaks_the_promise(
    rig: Rig,
    capsys: pytest.CaptureFixture[str],
    control: Callable[[pytest.MonkeyPatch], None],
    ends: Sequence[str],
) -> None:
    for end in ends:
        with pytest.MonkeyPatch.context() as patch:
            rig_knows = sample(rig, "nothing else", end, 20, SEED)
            control(patch)
            tally = Tally(end).count(rig_knows, None if LONG else is_found)
        broken = max(tally.broken.values(), default=0)
        show(capsys, f"control: {control.__name__}, {end:<20}{broken:>6} of {tally.schedules}")
        assert is_found(tally), "the explorer no longer sees this fault"
