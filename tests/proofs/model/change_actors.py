"""Changes, visits and disturbances of whole instances, and what each visit was promised.

The actors drive the shipped stores, `Changes` and cache of two instances, against a real Postgres
and real Valkeys. Only the pause of the breaker is a stand-in: its recovery is an actor. The
promises:

* at once: who was told that a change is done (200, 204) is believed by every later visit;
* later: a change of which it was told that it takes effect later (202) is seen at once where it was
  made; everywhere once that instance trusts Redis again, or after the next visit of a session whose
  copy is due.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4

import psycopg2

from authapp.accounts.actor import OPERATOR
from authapp.accounts.emails import parse_email
from authapp.cache.keys import LIFE_KEY, CredentialKeys, session_key, user_key
from authapp.crypto.tokens import SessionToken
from authapp.errors import StoreUnavailable
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from authapp.storage.models import User
from tests.proofs.model.explorer import Actor, Schedule, Step
from tests.proofs.model.instances import Instance, Waiting, Work
from tests.proofs.model.stage import KINDS, Fault, Kind, Servers
from tests.support.clock import Clock
from tests.support.people import CLIENT
from tests.support.settings import make_config

REVALIDATE = 60.0
Promise = Literal["at once", "later"]


PREFIX = "explored:"  # of all keys, as where deployments share a server


class Rig(Servers):
    """The stores, and two instances on them: changes are made `here`, noticed `there`."""

    life_key = PREFIX + LIFE_KEY

    def __init__(self, postgres_url: str, valkey_urls: Sequence[str]) -> None:
        super().__init__(valkey_urls)
        self.clock = Clock()
        config = make_config(postgres_url, valkey_urls[0], KEY_PREFIX=PREFIX)
        self.postgres = psycopg2.connect(postgres_url)
        self.postgres.autocommit = True
        self.waiting = Waiting(self.postgres)
        self.here, self.there = (
            Instance(name, config, self.clock, self) for name in ("here", "there")
        )
        self.instances = (self.here, self.there)
        self.credential_keys = CredentialKeys(config.SECRET_KEY)
        self._numbers = itertools.count()

    def close(self) -> None:
        for instance in self.instances:
            instance.close()
        self.postgres.close()
        super().close()

    def begin(self) -> tuple[UUID, str, SessionToken]:
        """A user of their own for each schedule, with one session."""
        number = next(self._numbers)
        self.primary = 0
        self.admin.delete(self.life_key)
        if number % 500 == 0:
            self._sweep()
        user_id, email = uuid4(), f"{number}@example.org"
        token = self.here.services.tokens.mint()
        self.keys = {
            "sess": PREFIX + session_key(token.digest),
            "user": PREFIX + user_key(user_id),
            "cred": PREFIX + self.credential_keys.current(email),
        }
        with self.postgres.cursor() as cursor:
            cursor.execute(
                """
                WITH u AS (
                  INSERT INTO users (id, email, email_canonical, name, password_hash,
                                     created_at, updated_at)
                  VALUES (%(user)s, %(email)s, %(email)s, 'value-0', 'value-0', %(now)s, %(now)s)
                )
                INSERT INTO sessions (id, digest, user_id, kind, epoch, created_at, last_seen_at,
                                      idle_seconds, expires_at)
                VALUES (%(user)s, %(digest)s, %(user)s, 'browser', 1, %(now)s, %(now)s, 1800,
                        %(now)s + interval '12 hours')
                """,
                {
                    "user": str(user_id),
                    "email": email,
                    "digest": token.digest,
                    "now": self.clock.now,
                },
            )
        return user_id, email, token

    def _sweep(self) -> None:
        for admin in self.admins:
            admin.flushall()
        with self.postgres.cursor() as cursor:
            cursor.execute("TRUNCATE users, sessions, audit_events, pending_fences CASCADE")

    def forget(self) -> None:
        """Ends a schedule: nothing is wrong any more, and nobody remembers what was."""
        self.waiting.work.clear()
        with self.postgres.cursor() as cursor:
            cursor.execute("DELETE FROM pending_fences")
        for instance in self.instances:
            instance.line.faults.clear()
            instance.line.cut = False
            instance.refuses.clear()
            if instance.breaker.is_open:
                instance.recover()
            instance.dead = False


@dataclass(slots=True)
class Fact:
    """The values in Postgres, in the order of commits, and the places that were promised."""

    committed: list[str]
    at_once: int = 0
    later: dict[str, int] = field(default_factory=dict)

    def commit(self, value: str) -> None:
        if self.committed[-1] != value:
            self.committed.append(value)

    def answer(self, instance: Instance, value: str, *, deferred: bool) -> None:
        age = self.committed.index(value)
        if deferred:
            self.later[instance.name] = max(self.later.get(instance.name, 0), age)
        else:
            self.at_once = max(self.at_once, age)

    def promised(self, instance: Instance) -> int:
        return max(self.at_once, self.later.get(instance.name, 0))


Seen = dict[str, str]


class ChangeWorld(Schedule):
    """One user with a session, known to two instances.

    Args:
        back: whether the instance that made the change trusts Redis again before others look.
    """

    def __init__(self, rig: Rig, *, warm: bool, back: bool) -> None:
        super().__init__()
        self.rig = rig
        self.user_id, self.email, self.token = rig.begin()
        self.facts = {
            "profile": Fact(["value-0"]),
            "session": Fact(["live"]),
            "data": Fact(["none"]),
        }
        self.owed_in_memory = False
        self._back = back
        self._values = (f"value-{n}" for n in itertools.count(1))
        self._works: dict[str, list[Work]] = {}
        if warm:
            for kind in KINDS:
                self.look(rig.there, kind)
        self.trace = ["warm" if warm else "cold", "back" if back else "away"]

    def new_value(self) -> str:
        return next(self._values)

    def work(self, instance: Instance, do: Callable[[Work], None]) -> Work:
        work = Work(self.rig.waiting, do)
        self._works.setdefault(instance.name, []).append(work)
        return work

    def waits(self, instance: Instance) -> bool:
        return any(work.waits for work in self._works.get(instance.name, []))

    # -- what is seen, and what should be

    def look(self, instance: Instance, kind: Kind) -> Seen:
        """Look up one kind of key through an instance, or in Postgres."""
        services = instance.services
        if kind == "user":
            user, _ = services.users.look_up(self.user_id)
            assert user is not None
            return {"profile": user.name}
        if kind == "cred":
            credentials = services.credentials.find(parse_email(self.email))
            assert credentials is not None
            return {"profile": credentials.password_hash}
        found = services.sessions.find(self.token)
        if isinstance(found, ActiveSession):
            record = found.record
            data = record.data.get("value", "none")
            return {"profile": record.user.name, "session": "live", "data": data}
        assert isinstance(found, EndedSession)
        return {"session": "ended"}

    def promised(self, instance: Instance) -> dict[str, int]:
        return {name: fact.promised(instance) for name, fact in self.facts.items()}

    def judge(
        self, who: str, seen: Seen, promised: dict[str, int], promise: Promise = "at once"
    ) -> None:
        self.trace.append(f"{who} got {' '.join(seen.values())}")
        for name, value in seen.items():
            committed = self.facts[name].committed
            if value not in committed:
                self.broken.add("never committed")
            elif committed.index(value) < promised[name]:
                self.broken.add(promise)

    # -- the end

    def settle(self) -> None:
        self.finish()
        for instance in self.rig.instances:
            instance.line.faults.clear()
            instance.line.cut = False
            instance.refuses.clear()
        alive = [instance for instance in self.rig.instances if not instance.dead]
        self._all_look(alive, KINDS)
        if not self._back:  # then others notice by themselves
            there = [self.rig.there]
            self.rig.clock.forward(REVALIDATE)
            self._all_look(there, ["sess"], "later")
            if not self.owed_in_memory:
                self._all_look(there, ["user", "cred"], "later")
        for instance in alive:
            if instance.breaker.is_open:
                self.trace.append(f"{instance.name} recovers")
                instance.recover()
                assert not instance.breaker.is_open
        if self._back and self.rig.here.dead:  # nobody knows of a failure before somebody looks
            self.rig.clock.forward(REVALIDATE)
        if not (self.owed_in_memory and self.rig.here.dead):
            self._all_look(alive, KINDS, "later")
        self.rig.forget()

    def _all_look(
        self, instances: list[Instance], kinds: Sequence[Kind], promise: Promise = "at once"
    ) -> None:
        for instance in instances:
            promised = self.promised(instance)
            if promise == "later":
                for name, fact in self.facts.items():
                    promised[name] = max(promised[name], *fact.later.values(), 0)
            for kind in kinds:
                self.judge(
                    f"at last {kind} {instance.name}", self.look(instance, kind), promised, promise
                )


# -- actors ----------------------------------------------------------------------------------------


def visit(world: ChangeWorld, name: str, instance: Instance, kind: Kind) -> Actor:
    promised: dict[str, int] = {}

    def do(_work: Work) -> None:
        try:
            seen = world.look(instance, kind)
        except StoreUnavailable:
            return  # nobody could say
        world.judge(name, seen, promised)

    yield from world.work(instance, do).steps(
        first=lambda: promised.update(world.promised(instance))
    )


def change_user(world: ChangeWorld, instance: Instance) -> Actor:
    """Name and password: copies of all kinds are stale."""
    value = world.new_value()
    profile = world.facts["profile"]

    def do(work: Work) -> None:
        services = instance.services
        try:
            with services.changes.begin() as change:
                user = change.db.get_one(User, world.user_id, with_for_update={"key_share": True})
                user.name = user.password_hash = value
                user.ver += 1
                change.touch_user(user)
                work.at_commit = lambda: profile.commit(value)
        except StoreUnavailable:
            assert value not in profile.committed, "it was made, and refused"
            return
        profile.answer(instance, value, deferred=not change.everywhere)

    yield from world.work(instance, do).steps()


def write_data(world: ChangeWorld, instance: Instance) -> Actor:
    """A request that writes into its session: it looks the session up first."""
    value = world.new_value()
    data = world.facts["data"]

    def do(work: Work) -> None:
        sessions = instance.services.sessions
        try:
            found = sessions.find(world.token)
            if not isinstance(found, ActiveSession):
                return
            work.at_commit = lambda: data.commit(value)
            saved = sessions.patch(found, {"value": value}, [])
        except StoreUnavailable:
            assert value not in data.committed, "it was made, and refused"
            return
        if saved.value:
            data.answer(instance, value, deferred=not saved.everywhere)

    yield from world.work(instance, do).steps()


def log_out(world: ChangeWorld, instance: Instance) -> Actor:
    session = world.facts["session"]

    def do(work: Work) -> None:
        work.at_commit = lambda: session.commit("ended")
        try:
            done = instance.services.sessions.end(world.token, EndReason.LOGOUT, CLIENT)
        except StoreUnavailable:
            return
        session.answer(instance, "ended", deferred=not done.everywhere)

    yield from world.work(instance, do).steps()


def end_everybody(world: ChangeWorld, instance: Instance) -> Actor:
    """Ends the sessions of all people there are, in one step."""
    session = world.facts["session"]

    def do(work: Work) -> None:
        work.at_commit = lambda: session.commit("ended")
        try:
            done = instance.services.administration.end_sessions_of_everybody(OPERATOR)
        except StoreUnavailable:
            return
        session.answer(instance, "ended", deferred=not done.everywhere)

    yield from world.work(instance, do).steps()


# -- disturbances ----------------------------------------------------------------------------------


def recovery(world: ChangeWorld, instance: Instance) -> Actor:
    """Comes to nothing when the instance does not notice that Redis failed."""

    def do(_work: Work) -> None:
        try:
            instance.recover()
        except StoreUnavailable:
            return

    yield from world.work(instance, do).steps(if_ever=instance.can_recover)


def crash(world: ChangeWorld, instance: Instance, *victims: str) -> Actor:
    yield Step(instance.name, lambda: not world.waits(instance))
    instance.dead = True
    for victim in victims:
        world.kill(victim)


def outage(instance: Instance) -> Actor:
    """Redis can't be reached from one instance."""
    yield Step(f"Redis away from {instance.name}")
    instance.line.cut = True
    yield Step(f"Redis back for {instance.name}")
    instance.line.cut = False


def lose(instance: Instance, *attempts: Fault) -> Actor:
    yield Step("+".join(attempts))
    instance.line.faults[:] = attempts


def refuse(world: ChangeWorld, instance: Instance, what: Literal["transaction", "commit"]) -> Actor:
    """Postgres does not take what this instance does next."""
    yield Step(f"Postgres refuses a {what}")
    instance.refuses.add(what)
    world.owed_in_memory |= what == "transaction"


def evict(world: ChangeWorld) -> Actor:
    yield Step("delete all")
    world.rig.admin.delete(*world.rig.keys.values())


def evict_life(world: ChangeWorld) -> Actor:
    yield Step("delete the life")
    world.rig.admin.delete(world.rig.life_key)


def restart(world: ChangeWorld) -> Actor:
    yield Step("empty")
    world.rig.fail_over({})


def old_snapshot(world: ChangeWorld) -> Actor:
    yield Step("taken")
    snapshot = world.rig.snapshot()
    yield Step("restored")
    world.rig.fail_over(snapshot)
