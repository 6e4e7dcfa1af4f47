"""A schedule: what people do on two instances, faults in between, and what must be true of it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast
from uuid import UUID

from authapp.accounts.actor import OPERATOR
from authapp.cache.changes import Changed
from authapp.errors import (
    InvalidCredentials,
    NotAuthenticated,
    OutcomeUnknown,
    StoreUnavailable,
)
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason, LookupResult
from authapp.telemetry import metrics
from tests.proofs.chaos.faults import KEYS, Postgres, Redis
from tests.support.clock import Clock
from tests.support.people import CLIENT

T = TypeVar("T")

ACTS = 16
WITHIN = 60  # seconds of the clock, which is moved by hand: REVALIDATE_SECONDS
HEALED_WITHIN = 15.0
_numbers = count(1)


class Violation(Exception):
    """A promise was broken."""


@dataclass(eq=False)
class Known:
    """The values of a fact that may show; from `binds` on, only the last one may."""

    values: list[Any]
    binds: float = 0.0

    def sets(self, value: object, at: float, within: float) -> None:
        """Acknowledged."""
        self.values = [*self.values, value] if within else [value]
        self.binds = at + within

    def may_be(self, value: object) -> None:
        """Asked for, and nobody knows."""
        self.values.append(value)
        self.binds = float("inf")

    def allowed(self, now: float) -> list[Any]:
        return self.values if now < self.binds else self.values[-1:]


@dataclass(eq=False)
class Session:
    live: ActiveSession
    lives: Known = field(default_factory=lambda: Known([True]))
    data: Known = field(default_factory=lambda: Known([None]))
    has_row: bool = True
    may_be_lost: bool = False


@dataclass(eq=False)
class Person:
    id: UUID
    email: str
    password: Known
    name: Known
    sessions: list[Session] = field(default_factory=list)


@dataclass
class Tally:
    """Counts over all schedules."""

    schedules: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    unavailable: int = 0
    unknown: int = 0
    provisional: int = 0
    lost: int = 0


class Schedule:
    """
    Args:
        kinds: of faults; any, if empty.
    """

    def __init__(
        self,
        seed: object,
        engines: tuple[Postgres, Redis],
        instances: Sequence[Services],
        clock: Clock,
        tally: Tally,
        kinds: Sequence[str] = (),
    ) -> None:
        self._kinds = kinds
        self._draw = random.Random(f"schedule {seed}")
        self._postgres, self._redis = engines
        self._instances, self._clock = instances, clock
        self._tally = tally
        self._losses = 0
        self._away: dict[str, tuple[int, Callable[[], object]]] = {}
        self._shaken = False
        self._everybody_late = False  # whether the end of everybody's sessions was to hold later
        self._errors_before, self._open_before = _store_errors(), False
        self.story: list[str] = []
        self._people: list[Person] = []

    # -- the whole

    def run(self) -> None:
        """
        Raises:
            Violation
        """
        self._tally.schedules += 1
        self._people = [self._sign_up() for _ in range(2)]
        for person in self._people:
            for instance in self._instances:
                self._log_in(person, instance)
        faults = sorted(self._draw.sample(range(1, ACTS - 1), self._draw.randint(2, 4)))
        with ThreadPoolExecutor(1) as self._pool:
            try:
                for step in range(ACTS):
                    self._end_faults(step)
                    started = self._begin_fault(step) if step in faults else None
                    self._act()
                    if started:
                        started.result()
            finally:
                self._end_faults(ACTS + 100)
        self._healed()

    def _sign_up(self) -> Person:
        email = f"p{next(_numbers)}.{random.randrange(10**9)}@example.org"
        user = self._instances[0].registration.sign_up(email, _password(0), "n0")
        return Person(user.id, email, Known([_password(0)]), Known(["n0"]))

    def _now(self) -> float:
        return self._clock.now.timestamp()

    # -- faults

    def _begin_fault(self, step: int) -> "Future[None] | None":
        kinds: dict[str, Callable[[], Callable[[], object] | None]] = {
            "connections to Redis ended": self._kill_clients,
            "copies evicted": self._evict,
            "Redis back, empty": partial(self._kill_redis, empty=True),
            "Redis back from an old snapshot": partial(self._kill_redis, empty=False),
            "Redis frozen": lambda: _entered(self._redis.frozen()),
            "Redis read-only": self._read_only,
            "connections to Postgres ended": self._end_connections,
            "Postgres killed": self._kill_postgres,
            "Postgres frozen": lambda: _entered(self._postgres.frozen()),
        }
        redis, postgres = "Redis" in self._away, "Postgres" in self._away
        free = [k for k in self._kinds or kinds if not (redis and _store(k) == "Redis")]
        free = [k for k in free if not (postgres and _store(k) == "Postgres")]
        if not free:
            return None
        kind = self._draw.choice(free)
        self._tally.faults[kind] += 1
        lasts = self._draw.randint(1, 5)
        at_once, delay = self._draw.random() < 0.4, self._draw.random() * 0.006
        self._say(f"fault: {kind}, for {lasts}" + ("" if at_once else f", in {delay:.4f} s"))
        if kind == "Redis back from an old snapshot":
            self._redis.snapshot()
        self._shaken = True

        def begin() -> None:
            if not at_once:
                time.sleep(delay)  # in the midst of what comes next
            if end := kinds[kind]():
                self._away[_store(kind)] = step + lasts, end

        future = self._pool.submit(begin)
        if at_once:
            future.result()
        return future

    def _end_faults(self, step: int) -> None:
        self._shaken = bool(self._away)
        for store, (until, end) in list(self._away.items()):
            if step >= until:
                del self._away[store]
                end()
                self._say(f"{store} is back")

    def _kill_clients(self) -> None:
        self._redis.client.client_kill_filter(_type="normal", skipme=True)

    def _evict(self) -> None:
        found = [k for p in KEYS for k in cast("list[bytes]", self._redis.client.keys(p))]
        if gone := [key for key in found if self._draw.random() < 0.6]:
            with self._forgetting():
                self._redis.client.delete(*gone)

    def _kill_redis(self, *, empty: bool) -> Callable[[], object]:
        with self._forgetting():
            self._redis.kill()
        return lambda: self._redis.come_back(empty=empty)

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Allow the loss of facts only Redis knew, also those of acts that run beside this."""
        self._forget()
        try:
            yield
        finally:
            self._forget()

    def _forget(self) -> None:
        self._losses += 1
        for person in self._people:
            for session in person.sessions:
                session.may_be_lost |= not session.has_row

    def _read_only(self) -> Callable[[], object]:
        with self._forgetting():  # once it is a primary again it has a new life
            self._redis.client.slaveof("127.0.0.1", 1)
        return self._redis.client.slaveof

    def _end_connections(self) -> None:
        self._postgres.end_connections()

    def _kill_postgres(self) -> Callable[[], object]:
        self._postgres.kill()
        return self._postgres.come_back

    # -- acts

    def _act(self) -> None:
        person, instance = self._draw.choice(self._people), self._draw.choice(self._instances)
        acts: dict[str, tuple[int, Callable[[], object]]] = {
            "read": (5, lambda: self._find(self._some(person), instance)),
            "log in": (
                8 if "Postgres" in self._away else 3,
                lambda: self._log_in(person, instance),
            ),
            "log in, wrong": (1, lambda: self._log_in_wrongly(person, instance)),
            "log out": (3, lambda: self._log_out(self._some(person), instance)),
            "password": (2, lambda: self._change_password(person, instance)),
            "end others": (1, lambda: self._end_others(person, instance)),
            "end all": (1, lambda: self._end_all(person, instance)),
            "end everybody's": (1, lambda: self._end_everybody(instance)),
            "data": (3, lambda: self._patch(self._some(person), instance)),
            "new token": (1, lambda: self._regenerate(person, instance)),
            "name": (2, lambda: self._rename(person, instance)),
            "time": (3, lambda: self._clock.forward(self._draw.uniform(1, WITHIN))),
        }
        (kind,) = self._draw.choices([*acts], [weight for weight, _ in acts.values()])
        self._tally.acts[kind] += 1
        self._look()
        self._say(f"{kind} on {self._instances.index(instance)}")
        acts[kind][1]()
        seen = self._people if kind == "end everybody's" else [person]
        for other in self._instances:  # what was acknowledged shows, wherever
            for session in (session for person in seen for session in person.sessions):
                self._find(session, other)

    def _some(self, person: Person) -> Session:
        return self._draw.choice(person.sessions)

    def _changed(
        self, instance: Services, change: Callable[[], Changed[T]]
    ) -> tuple[T | None, float | None]:
        """The result, and the seconds within which it holds; (None, None): nothing changed.

        Raises:
            OutcomeUnknown
        """
        changed = self._asked(instance, change)
        if changed is None:
            return None, None
        if changed.everywhere:
            return changed.value, 0.0
        self._tally.pending += 1
        self._say("  pending")
        return changed.value, WITHIN

    def _asked(self, instance: Services, work: Callable[[], T]) -> T | None:
        """The result; None: nothing changed.

        Raises:
            OutcomeUnknown
        """
        try:
            done = work()
        except OutcomeUnknown:
            self._tally.unknown += 1
            self._say("  outcome unknown")
            raise
        except StoreUnavailable as error:
            self._unavailable(instance, error)
            return None
        self._say("  done")
        return done

    def _unavailable(self, instance: Services, error: StoreUnavailable) -> None:
        self._tally.unavailable += 1
        self._say(f"  {error}")
        late = _store_errors() > self._errors_before  # by itself, on a loaded machine
        open_ = instance.cache.breaker.is_open or instance.database.breaker.is_open
        open_ |= self._open_before  # it may have closed again since it refused
        if not (self._shaken or self._away or open_ or late):
            raise Violation(f"{error}, and nothing is away") from error

    def _look(self) -> None:
        """Notes how the stores are, before something is asked of them."""
        breakers = [b for i in self._instances for b in (i.cache.breaker, i.database.breaker)]
        self._errors_before = _store_errors()
        self._open_before = any(breaker.is_open for breaker in breakers)

    def _surely(self, work: Callable[[], T]) -> T:
        """Repeat the work until no store was late; return its result."""
        deadline = time.monotonic() + HEALED_WITHIN
        while True:
            self._look()
            unavailable = self._tally.unavailable
            done = work()
            if self._tally.unavailable == unavailable:
                return done
            if time.monotonic() > deadline:
                raise Violation("it goes on answering 503")
            self._await_stores(deadline)

    def _await_stores(self, deadline: float) -> None:
        while not all(all(i.store_states().values()) for i in self._instances):
            if time.monotonic() > deadline:
                raise Violation("it does not heal")
            time.sleep(0.005)

    def _find(self, session: Session, instance: Services) -> ActiveSession | None:
        """The session if it lives, held against what is known of it."""
        try:
            found: LookupResult = instance.sessions.find(session.live.token)
        except StoreUnavailable as error:
            self._unavailable(instance, error)
            return None
        now, lives = self._now(), isinstance(found, ActiveSession)
        where = f"{session.live.record.id} on {self._instances.index(instance)}: {found}"
        if lives not in session.lives.allowed(now):
            if lives or not session.may_be_lost:
                raise Violation(f"{where}, not {session.lives}")
            self._tally.lost += 1
            session.lives = Known([False])
        if not isinstance(found, ActiveSession):
            return None
        session.has_row |= found.record.provisional is None
        if session.has_row:
            session.may_be_lost = False
        if found.record.data.get("n") not in session.data.allowed(now):
            raise Violation(f"{where}, not {session.data}")
        return found

    def _refused(self, what: str, known: Known, session: Session) -> None:
        """It was said that a session does not live."""
        if False not in known.allowed(self._now()) and not session.may_be_lost:
            raise Violation(f"{what} refused: {session.live.record.id}")

    def _log_in(self, person: Person, instance: Services) -> None:
        password = person.password.values[-1]
        log_in = partial(instance.authentication.log_in, person.email, password, CLIENT)
        replaced, losses = None, self._losses
        if len(person.sessions) > 4:
            replaced = self._some(person)
            log_in = partial(log_in, replaces=[replaced.live.token])
        try:
            issued = self._asked(instance, log_in)
        except OutcomeUnknown:
            if replaced:
                replaced.lives.may_be(False)
            return
        except InvalidCredentials as error:
            if len(person.password.allowed(self._now())) == 1:
                raise Violation(f"log-in refused: {person.password}") from error
            return
        if issued is None:
            if replaced:  # what Postgres could not say, Redis perhaps did, and then neither
                replaced.lives.values.append(False)
                replaced.lives.binds = float("inf")
            return
        live = issued.session
        provisional = live.record.provisional is not None
        self._tally.provisional += provisional
        may_be_lost = provisional and losses != self._losses
        session = Session(live, has_row=not provisional, may_be_lost=may_be_lost)
        if provisional and self._everybody_late:  # by a copy of credentials from before that
            session.lives.may_be(False)
        person.sessions.append(session)
        if replaced is None:
            return
        if provisional:  # it ends once this one has a row
            replaced.lives.may_be(False)
        else:
            # a log-in does not say when other instances see the end of the session it replaces
            late = instance.cache.breaker.is_open
            replaced.lives.sets(False, self._now(), WITHIN if late else 0.0)
            person.sessions.remove(replaced)

    def _log_in_wrongly(self, person: Person, instance: Services) -> None:
        wrong = f"not {person.password.values[-1]}"
        if len(person.password.values) == 1 and person.password.values[0] != _password(0):
            wrong = _password(0)  # it was right once
        with suppress(InvalidCredentials):
            log_in = partial(instance.authentication.log_in, person.email, wrong, CLIENT)
            done = self._asked(instance, log_in)
            if done and wrong not in person.password.allowed(self._now()):
                raise Violation(f"{wrong!r} was taken, not {person.password}")

    def _log_out(self, session: Session, instance: Services) -> None:
        log_out = partial(instance.authentication.log_out, session.live.token, CLIENT)
        try:
            _, within = self._changed(instance, log_out)
        except OutcomeUnknown:
            session.lives.may_be(False)
            return
        self._end([session], within)

    def _end(self, sessions: Sequence[Session], within: float | None) -> None:
        """These were ended, unless nothing was changed (None)."""
        if within is None:
            return
        for session in sessions:
            if session.lives.values != [False]:
                session.lives.sets(False, self._now(), within)

    def _change_password(self, person: Person, instance: Services) -> None:
        session = self._some(person)
        live = self._find(session, instance)
        if live is None or (
            len(person.password.values) > 1 and person.password.binds == float("inf")
        ):
            return
        new = _password(next(_numbers))
        old = person.password.values[-1]
        change = partial(instance.password_changes.change_password, live, old, new, CLIENT)
        try:
            issued, within = self._changed(instance, change)
        except OutcomeUnknown:
            person.password.may_be(new)
            for one in person.sessions:
                one.lives.may_be(False)
            return
        except NotAuthenticated:
            self._refused("password", session.lives, session)
            return
        if issued is not None and within is not None:
            person.password.sets(new, self._now(), within)
            self._end(person.sessions, within)
            data = Known([*session.data.values], session.data.binds)
            person.sessions = [s for s in person.sessions if s is not session]
            person.sessions.append(session)
            person.sessions.append(Session(issued.session, data=data))

    def _end_others(self, person: Person, instance: Services) -> None:
        session = self._some(person)
        live = self._find(session, instance)
        if live is None:
            return
        others = [other for other in person.sessions if other is not session]
        why = EndReason.REVOKED_BY_USER
        end = partial(instance.sessions.end_others, live, why, CLIENT)
        try:
            _, within = self._changed(instance, end)
        except OutcomeUnknown:
            for other in others:
                other.lives.may_be(False)
            return
        self._end(others, within)

    def _end_all(self, person: Person, instance: Services) -> None:
        end = partial(instance.administration.end_sessions_of, person.id, OPERATOR)
        try:
            _, within = self._changed(instance, end)
        except OutcomeUnknown:
            for session in person.sessions:
                session.lives.may_be(False)
            return
        self._end(person.sessions, within)

    def _end_everybody(self, instance: Services) -> None:
        sessions = [session for person in self._people for session in person.sessions]
        end = partial(instance.administration.end_sessions_of_everybody, OPERATOR)
        try:
            _, within = self._changed(instance, end)
        except OutcomeUnknown:
            self._everybody_late = True
            for session in sessions:
                session.lives.may_be(False)
            return
        self._everybody_late |= bool(within)
        self._end(sessions, within)

    def _patch(self, session: Session, instance: Services) -> None:
        live = self._find(session, instance)
        if live is None:
            return
        value = next(_numbers)
        try:
            saved, within = self._changed(
                instance, partial(instance.sessions.patch, live, {"n": value}, [])
            )
        except OutcomeUnknown:
            session.data.may_be(value)
            return
        if saved and within is not None:
            session.data.sets(value, self._now(), within)
        elif saved is False:
            self._refused("data", session.lives, session)

    def _regenerate(self, person: Person, instance: Services) -> None:
        session = self._some(person)
        live = self._find(session, instance)
        if live is None:
            return
        regenerate = partial(instance.sessions.regenerate, live, CLIENT)
        try:
            fresh, within = self._changed(instance, regenerate)
        except OutcomeUnknown:
            session.lives.may_be(False)
            return
        if within is None:
            return
        if fresh is None:
            self._refused("new token", session.lives, session)
            return
        person.sessions.append(
            Session(fresh, data=Known([*session.data.values], session.data.binds))
        )
        self._end([session], within)

    def _rename(self, person: Person, instance: Services) -> None:
        name = f"n{next(_numbers)}"
        rename = partial(instance.users.update_profile, person.id, name, None, CLIENT)
        try:
            done, within = self._changed(instance, rename)
        except OutcomeUnknown:
            person.name.may_be(name)
            return
        if done is not None and within is not None:
            person.name.sets(name, self._now(), within)
        for other in self._instances:
            self._look_up(person, other)

    def _look_up(self, person: Person, instance: Services) -> None:
        try:
            user, _ = instance.users.look_up(person.id)
        except StoreUnavailable as error:
            self._unavailable(instance, error)
            return
        if user is None or user.name not in person.name.allowed(self._now()):
            raise Violation(f"{user}, not {person.name}")

    # -- the end

    def _healed(self) -> None:
        """All is well again: everything holds, on each instance, and it serves."""
        self._shaken = False
        self._await_stores(time.monotonic() + HEALED_WITHIN)
        self._say("healed")
        self._clock.forward(WITHIN + 1)
        for person in self._people:
            for session in person.sessions:
                found = [
                    self._surely(partial(self._find, session, instance))
                    for instance in self._instances
                ]
                seen = {bool(live) for live in found}
                if len(seen) > 1:
                    raise Violation(f"{session.live.record.id}: the instances do not agree")
                if seen == {True} and not session.has_row:
                    raise Violation(f"{session.live.record.id} has no row")
            for instance in self._instances:
                self._look_up(person, instance)
                if person.password.binds < float("inf"):
                    self._log_in_wrongly(person, instance)
                    self._log_in(person, instance)
                    self._find(person.sessions[-1], instance)
        deadline = time.monotonic() + HEALED_WITHIN
        while self._are_pending():
            if time.monotonic() > deadline:
                raise Violation("fences are still to be set")
            time.sleep(0.005)

    def _are_pending(self) -> bool:
        try:
            return self._instances[0].changes.pending() > 0
        except StoreUnavailable:
            return True

    def _say(self, what: str) -> None:
        self.story.append(what)


def _store_errors() -> float:
    """How often a store did not answer in time, or refused."""
    return sum(
        sample.value
        for family in metrics.STORE_ERRORS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def _entered(context: Any) -> Callable[[], object]:
    stack = ExitStack()
    stack.enter_context(context)
    return stack.close


def _store(kind: str) -> str:
    return "Postgres" if "Postgres" in kind else "Redis"


def _password(number: int) -> str:
    return f"copper lantern drifts north {number}"
