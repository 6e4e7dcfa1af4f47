"""Operations on sessions, and their cost in a small place and in a large one, in turns."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from statistics import median
from uuid import UUID

from authapp.accounts.actor import OPERATOR
from authapp.sessions.maintenance import BATCH, RETENTION
from authapp.sessions.records import ActiveSession, EndReason
from authapp.storage.schema_names import DEFAULT_SCHEMA
from benchmarks.growth.places import Place
from benchmarks.growth.population import CLIENT, TOKEN
from benchmarks.servers import BenchmarkError

SESSIONS = f"{DEFAULT_SCHEMA}.sessions"
# Operations to time in a place. Preparing them is not measured.
Work = Sequence[Callable[[], object]]
Prepare = Callable[[Place], Work]


@dataclass(frozen=True)
class Operation:
    """
    Attributes:
        turns: how often each place has its turn in a round.
    """

    name: str
    prepare: Prepare
    turns: int = 1


@dataclass(frozen=True)
class Cost:
    """Microseconds for each call of one round.

    Attributes:
        wall: that passed.
        client: of the processor, in this process.
        postgres: of the processor, in the server.
        valkey: that the server says it spent in our functions.
    """

    wall: float
    client: float
    postgres: float
    valkey: float


@dataclass(frozen=True)
class Compared:
    """One operation, as medians of the rounds.

    Attributes:
        ratio: speed in the large place by that in the small one, within a round.
        ratio_cpu: the same of processor time, ours and Postgres' together with Valkey's.
    """

    small: Cost
    large: Cost
    ratio: float
    ratio_cpu: float


def find(place: Place, text: str, *, hasty: bool = False) -> ActiveSession:
    """
    Raises:
        BenchmarkError: there is no live session, which would be quick and mean nothing.
    """
    services = place.hasty if hasty else place.services
    token = services.tokens.check(text)
    found = services.sessions.find(token) if token else None
    if not isinstance(found, ActiveSession):
        raise BenchmarkError(f"{place.name}: a session is not there: {found}")
    return found


def operations(effort: int) -> list[Operation]:
    """All of them, each called about so many times a round."""

    def check(place: Place) -> Work:
        return [partial(find, place, one) for one in place.some_tokens(4 * effort)]

    def check_the_first(place: Place) -> Work:
        first = bytes(place.tokens[: min(1_000, 4 * effort) * TOKEN]).decode()
        starts = range(0, len(first), TOKEN)
        return [partial(find, place, first[start : start + TOKEN]) for start in starts]

    def revalidate(place: Place) -> Work:
        return [partial(find, place, one, hasty=True) for one in place.some_tokens(effort)]

    def begin(place: Place) -> Work:
        def one(user: UUID) -> None:
            begun.append(place.services.sessions.begin(user, 1, CLIENT))

        return [partial(one, user) for user in place.some_users(effort)]

    def end_one(place: Place) -> Work:
        lives = list(begun)
        begun.clear()
        for live in lives:
            find(place, live.token.text)  # there is a copy to drop
        end = place.services.sessions.end_one
        why = EndReason.REVOKED_BY_USER
        return [partial(end, live.record.user.id, live.record.id, why, CLIENT) for live in lives]

    def list_of_user(place: Place) -> Work:
        return [partial(place.services.sessions.of_user, user) for user in place.some_users(effort)]

    def end_all(place: Place) -> Work:
        users = {find(place, one).record.user.id for one in place.make_others(effort)}
        end = place.services.administration.end_sessions_of
        return [partial(end, user, OPERATOR) for user in users]

    def end_expired(place: Place) -> Work:
        others = [find(place, one).record.id for one in place.make_others(BATCH)]
        place.change(
            f"UPDATE {SESSIONS} SET expires_at = now() - interval '1 s' WHERE id = ANY(:ids)",
            ids=others,
        )
        batch = partial(place.services.housekeeping.end_expired, BATCH)
        return [partial(_walk, place, batch, BATCH)]

    def prune(place: Place) -> Work:
        place.change(
            f"UPDATE {SESSIONS} SET ended_at = now() - :age"
            f" WHERE id IN (SELECT id FROM {SESSIONS} WHERE ended_at IS NOT NULL LIMIT :batch)",
            age=RETENTION + timedelta(days=1),
            batch=BATCH,
        )
        batch = partial(place.services.housekeeping.prune, RETENTION, BATCH)
        return [partial(_walk, place, batch, BATCH)]

    def look_for_expired(place: Place) -> Work:
        batch = partial(place.services.housekeeping.end_expired, BATCH)
        return [partial(_walk, place, batch, 0)]

    begun: list[ActiveSession] = []
    return [
        Operation("check", check, turns=25),
        Operation("check, of the first 1,000", check_the_first, turns=25),
        Operation("revalidate", revalidate),
        Operation("begin (log-in's part)", begin),
        Operation("end one", end_one),
        Operation("list of a user", list_of_user),
        Operation("end all of a user", end_all),
        Operation("maintenance: end 500", end_expired),
        Operation("maintenance: look at all", look_for_expired),
        Operation("maintenance: remove 500", prune),
    ]


def _walk(place: Place, batch: Callable[[range], int], wanted: int) -> None:
    """Goes through the table, backwards as what was just made is at its end, until all is found."""
    rows = 0
    for pages in reversed(place.services.housekeeping.page_ranges()):
        rows += batch(pages)
        if wanted and rows >= wanted:
            break
    if rows != wanted:
        raise BenchmarkError(f"maintenance took {rows} rows where there were {wanted}")


def compare(small: Place, large: Place, rounds: int, effort: int) -> dict[str, Compared]:
    """Each operation, in either place by turns."""
    taken: dict[str, list[tuple[Cost, Cost]]] = {}
    for _ in range(rounds):
        for one, other in zip(operations(effort), operations(effort), strict=True):
            for _ in range(one.turns):
                pairs = taken.setdefault(one.name, [])
                if len(pairs) % 2:
                    first = _cost(small, one)
                    pairs.append((first, _cost(large, other)))
                else:
                    first = _cost(large, other)
                    pairs.append((_cost(small, one), first))
    return {name: _compared(pairs) for name, pairs in taken.items()}


def _cost(place: Place, operation: Operation) -> Cost:
    work = operation.prepare(place)
    usec = place.valkey_microseconds()
    marks = [(time.perf_counter(), time.process_time(), place.postgres_cpu())]
    for call in work:
        call()
    marks.append((time.perf_counter(), time.process_time(), place.postgres_cpu()))
    after = place.valkey_microseconds()
    ((wall, client, postgres),) = (
        tuple(late - early for early, late in zip(*pair, strict=True)) for pair in pairwise(marks)
    )
    count = max(1, len(work)) / 1e6
    return Cost(wall / count, client / count, postgres / count, (after - usec) / count / 1e6)


def _compared(pairs: Sequence[tuple[Cost, Cost]]) -> Compared:
    def middle(costs: Sequence[Cost]) -> Cost:
        # of processor time the mean: the kernel counts it in steps as long as many calls
        mean = {
            what: sum(getattr(cost, what) for cost in costs) / len(costs)
            for what in ("client", "postgres", "valkey")
        }
        return Cost(wall=median(cost.wall for cost in costs), **mean)

    small, large = middle([one for one, _ in pairs]), middle([two for _, two in pairs])
    return Compared(
        small,
        large,
        ratio=median(one.wall / two.wall for one, two in pairs),
        ratio_cpu=median(_cpu(one) / _cpu(two) for one, two in pairs),
    )


def _cpu(cost: Cost) -> float:
    return cost.client + cost.postgres + cost.valkey
