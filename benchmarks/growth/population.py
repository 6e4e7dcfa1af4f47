"""Users and sessions in numbers, made by the product's own code: rows, events and sealed copies."""

import multiprocessing
import random
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import insert
from sqlalchemy.orm.attributes import set_committed_value

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.authority.roles import roles_named
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import identity_of
from authapp.assembly.stores import session_policy
from authapp.cache.keys import session_key
from authapp.config import Config
from authapp.crypto.tokens import SessionToken
from authapp.errors import StoreUnavailable
from authapp.services import Services, build_services, utc_now
from authapp.sessions.lookup import SessionLookup
from authapp.sessions.provisional import ProvisionalSessions
from authapp.sessions.records import SessionRecord
from authapp.sessions.rows import SessionRows
from authapp.storage.models import Role, SessionRow, User, UserRole
from authapp.storage.redis import REDIS_ERRORS
from benchmarks.servers import BenchmarkError

ROLES = ("user", "auditor", "staff")
PROCESSES = 6  # more than cores: each waits for the stores half of the time
TOKEN, USER = 64, 16  # bytes of a token's text and of a user's id
# Nobody's password: one hash for all, as making a million would measure bcrypt alone.
_HASH = "$2b$12$" + "x" * 53
_USERS = 50  # a batch, which is one transaction
_TRIES = 20
_SESSIONS = (1, 2, 3, 5, 4)  # of one user after another
CLIENT = Actor(
    address="192.0.2.7",
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)


@dataclass(frozen=True)
class Batch:
    """
    Attributes:
        first: number of its first user.
        sessions: how many each of its users has.
    """

    first: int
    sessions: tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """
    Attributes:
        users: their ids, one after another.
        tokens: the texts of the tokens, one after another.
    """

    users: bytes
    tokens: bytes


def batches(first_user: int, sessions: int) -> Iterator[Batch]:
    """So many sessions of users from this number on."""
    while sessions:
        sizes: list[int] = []
        while sessions and len(sizes) < _USERS:
            number = first_user + len(sizes)
            sizes.append(min(sessions, _SESSIONS[number % len(_SESSIONS)]))
            sessions -= sizes[-1]
        yield Batch(first_user, tuple(sizes))
        first_user += len(sizes)


Begun = tuple[User, SessionRow, SessionToken]


class _Written(SessionLookup):
    """The shipped look-up; what it would read in Postgres was written a moment ago."""

    facts: dict[bytes, SessionRecord]

    def _read(self, digest: bytes, *_seen: object, **_how: object) -> SessionRecord | None:
        return self.facts[digest]


class Maker:
    """Makes batches: a transaction each, then a copy of each session.

    Args:
        copies: whether to fill them.
    """

    def __init__(self, services: Services, config: Config, *, copies: bool = True) -> None:
        policy = session_policy(config)
        self._services = services
        self._copies = copies
        self._rows = SessionRows(
            services.tokens, services.access_tokens, services.refresh_tokens, policy, utc_now
        )
        self._lookup = _Written(
            services.database,
            services.changes,
            services.cache,
            self._rows,
            ProvisionalSessions(services.cache, services.tokens, policy, utc_now),
            services.lost_commits,
            policy=policy,
            clock=utc_now,
        )

    def make(self, batch: Batch) -> Made:
        """
        Raises:
            BenchmarkError: the stores don't keep up.
        """
        for _ in range(_TRIES):
            try:
                users, begun = self._write(batch)
                if self._copies:
                    self._fill(begun)
            except (StoreUnavailable, *REDIS_ERRORS):
                time.sleep(1)  # the machine is busy, and we wait no longer than a request may
            else:
                return Made(
                    b"".join(user.id.bytes for user in users),
                    b"".join(token.text.encode() for _, _, token in begun),
                )
        raise BenchmarkError("the stores don't keep up: let the machine do less meanwhile")

    def _write(self, batch: Batch) -> tuple[list[User], list[Begun]]:
        """Rows and events, in one transaction."""
        with self._services.changes.begin(acknowledged=False) as change:
            db, now = change.db, utc_now()
            roles = roles_named(db, ROLES)
            numbers = range(batch.first, batch.first + len(batch.sessions))
            users = [_user(number, now) for number in numbers]
            begun: list[Begun] = []
            for user, sessions in zip(users, batch.sessions, strict=True):
                audit.record(
                    db, "user.created", now, user_id=user.id, actor=OPERATOR, roles=list(ROLES)
                )
                for _ in range(sessions):
                    row, token = self._rows.new(user, CLIENT)
                    begun.append((user, row, token))
                    audit.record(
                        db,
                        "session.begun",
                        row.created_at,
                        user_id=user.id,
                        actor=CLIENT.known_as(user.id),
                        kind="browser",
                    )
            # In bulk: one by one, in the order of what depends on what, takes twice as long. Those
            # that leave the same columns empty go together.
            events = sorted(db.new, key=lambda event: event.actor_id is None)
            db.expunge_all()
            db.bulk_save_objects(users)
            granted = [{"user_id": user.id, "role_id": role.id} for user in users for role in roles]
            db.execute(insert(UserRole), granted)
            db.bulk_save_objects([row for _, row, _ in begun])
            db.bulk_save_objects(events)
        for user in users:
            set_committed_value(user, "roles", roles)
        return users, begun

    def _fill(self, begun: list[Begun]) -> None:
        """Has the look-up fill a copy of each."""
        self._lookup.facts = {
            token.digest: self._rows.record(row, identity_of(user), user.epoch)
            for user, row, token in begun
        }
        missing = [token for _, _, token in begun]
        for _ in range(_TRIES):
            for token in missing:
                self._lookup.find(token)
            # it is silent when Redis takes none
            with self._services.redis.pipeline(transaction=False) as pipe:
                for token in missing:
                    pipe.hexists(session_key(token.digest), "v")
                there = pipe.execute()
            missing = [token for token, one in zip(missing, there, strict=True) if not one]
            if not missing:
                return
            time.sleep(1)
        raise BenchmarkError("Valkey doesn't keep up: let the machine do less meanwhile")


def _user(number: int, now: datetime) -> User:
    email = parse_email(f"person{number:08}@example.org")
    return User(
        id=uuid4(),
        email=email.stored,
        email_canonical=email.canonical,
        name=f"Ada Lovelace {number:08}",
        image="",
        password_hash=_HASH,
        active=True,
        epoch=1,
        ver=1,
        second_factor=False,
        factors_version=0,
        created_at=now,
        updated_at=now,
    )


def add_roles(services: Services) -> None:
    """Two beside those there are, so that a person can have three."""
    with services.database.transaction() as db:
        roles = {"auditor": ["users:read", "audit:read"], "staff": ["users:read"]}
        for number, (name, permissions) in enumerate(roles.items(), 10):
            db.execute(insert(Role).values(id=number, name=name, permissions=permissions))


_maker: Maker


def _begin(settings: Mapping[str, Any], copies: bool) -> None:
    global _maker  # noqa: PLW0603 — one a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    config = Config.from_mapping(settings)
    _maker = Maker(build_services(config, None), config, copies=copies)


def _make(batch: Batch) -> Made:
    return _maker.make(batch)


def made_by_processes(
    settings: Mapping[str, Any], wanted: Iterable[Batch], *, copies: bool = True
) -> Generator[Made]:
    """All batches; none is begun any more once nobody wants the next."""
    pool = ProcessPoolExecutor(
        PROCESSES, multiprocessing.get_context("spawn"), _begin, (settings, copies)
    )
    try:
        yield from pool.map(_make, wanted)
    finally:
        pool.shutdown(cancel_futures=True)


def at_random(kept: bytearray, width: int, count: int) -> list[bytes]:
    """Some of the values that stand one after another in `kept`."""
    starts = (random.randrange(len(kept) // width) * width for _ in range(count))
    return [bytes(kept[start : start + width]) for start in starts]
