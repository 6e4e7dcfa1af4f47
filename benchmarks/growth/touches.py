"""An hour of people who come back: does the table of sessions stay as large as it was?"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.growth.places import Place, connected

# The statement of `SessionLookup`, for many sessions at once: one by one an hour would take hours.
_TOUCH = """
UPDATE sessions SET last_seen_at = clock_timestamp() WHERE id IN (
  SELECT id FROM sessions WHERE id = ANY(%(ids)s::uuid[]) AND ended_at IS NULL
  FOR UPDATE SKIP LOCKED
)"""
_BATCH = 200
_STEPS = 10


@dataclass(frozen=True)
class Step:
    """How it is after so many touches.

    Attributes:
        hot: share of the updates so far that made no new entries in indexes.
        wal: bytes of the write-ahead log for a touch, so far.
    """

    touches: int
    seconds: float
    table: int
    indexes: int
    dead: int
    hot: float
    vacuums: int
    wal: float


def an_hour(place: Place, times: int, say: Callable[[str], None]) -> list[Step]:
    """Touches each session so many times: sixty are an hour with one a minute."""
    with connected(place.settings["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE sessions")
        cursor.execute("SELECT id::text FROM sessions")
        ids = [one for (one,) in cursor]
        start, before = time.monotonic(), _counts(cursor)
        steps = [_step(0, 0.0, before, before)]
        for number in range(1, times + 1):
            random.shuffle(ids)
            for first in range(0, len(ids), _BATCH):
                cursor.execute(_TOUCH, {"ids": ids[first : first + _BATCH]})
            if number * _STEPS // times > (number - 1) * _STEPS // times:
                seconds = time.monotonic() - start
                steps.append(_step(number * len(ids), seconds, _counts(cursor), before))
                say(f"touches: {steps[-1]}")
    return steps


def _counts(cursor: Any) -> dict[str, int]:
    cursor.execute("SELECT pg_stat_force_next_flush()")
    cursor.execute(
        "SELECT n_tup_upd, n_tup_hot_upd, autovacuum_count, n_dead_tup, pg_table_size(relid),"
        " pg_indexes_size(relid), (pg_current_wal_lsn() - '0/0')::bigint"
        " FROM pg_stat_user_tables WHERE relname = 'sessions'"
    )
    names = ("updates", "hot", "vacuums", "dead", "table", "indexes", "wal")
    return dict(zip(names, cursor.fetchone(), strict=True))


def _step(touches: int, seconds: float, now: dict[str, int], before: dict[str, int]) -> Step:
    since = {name: now[name] - before[name] for name in now}
    return Step(
        touches,
        round(seconds, 1),
        now["table"],
        now["indexes"],
        now["dead"],
        hot=round(since["hot"] / max(1, since["updates"]), 4),
        vacuums=since["vacuums"],
        wal=round(since["wal"] / max(1, touches), 1),
    )
