"""Users and sessions in numbers, made by the product's own code: rows, events and sealed copies."""

import multiprocessing
import random
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert

from authapp import audit
from authapp.config import Config
from authapp.emails import parse_email
from authapp.models import Role, SessionRow, User
from authapp.provisional_sessions import ProvisionalSessions
from authapp.roles import roles_named
from authapp.services import Services, build_services, session_limits, utc_now
from authapp.session_lookup import SessionLookup
from authapp.session_records import Client, SessionRecord
from authapp.session_rows import SessionRows
from authapp.tokens import SessionToken

ROLES = ("user", "auditor", "staff")
PROCESSES = 2
TOKEN, USER = 64, 16  # bytes of a token's text and of a user's id
# Nobody's password: one hash for all, as making a million would measure bcrypt alone.
_HASH = "$2b$12$" + "x" * 53
_USERS = 200  # a batch, which is one transaction
_SESSIONS = (1, 2, 3, 5, 4)  # of one user after another
CLIENT = Client(
    "192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
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


class _Written(SessionLookup):
    """The shipped look-up; what it would read in Postgres was written a moment ago."""

    facts: dict[bytes, SessionRecord]

    def _read(self, token: SessionToken, *_seen: object, **_how: object) -> SessionRecord | None:
        return self.facts[token.digest]


class Maker:
    """Makes batches: a transaction each, then a copy of each session.

    Args:
        copies: whether to fill them.
    """

    def __init__(self, services: Services, config: Config, *, copies: bool = True) -> None:
        limits = session_limits(config)
        self._services = services
        self._copies = copies
        self._rows = SessionRows(
            services.tokens, services.access_tokens, services.refresh_tokens, limits, utc_now
        )
        self._lookup = _Written(
            services.database,
            services.changes,
            services.cache,
            services.access_tokens,
            self._rows,
            ProvisionalSessions(services.cache, services.tokens, limits, utc_now),
            limits=limits,
            clock=utc_now,
        )

    def make(self, batch: Batch) -> Made:
        users: list[User] = []
        begun: list[tuple[User, SessionRow, SessionToken]] = []
        with self._services.changes.begin(told=False) as change:
            db, now = change.db, utc_now()
            roles = roles_named(db, ROLES)
            for number in range(batch.first, batch.first + len(batch.sessions)):
                email = parse_email(f"person{number:08}@example.org")
                users.append(
                    User(
                        email=email.stored,
                        email_canonical=email.canonical,
                        name=f"Ada Lovelace {number:08}",
                        image="",
                        password_hash=_HASH,
                        active=True,
                        epoch=1,
                        ver=1,
                        created_at=now,
                        updated_at=now,
                        roles=roles,
                    )
                )
            db.add_all(users)
            db.flush()
            for user, sessions in zip(users, batch.sessions, strict=True):
                audit.record(db, "user.created", now, user_id=user.id, roles=list(ROLES))
                for _ in range(sessions):
                    row, token = self._rows.new(user, CLIENT, "browser")
                    assert token is not None  # as it is of a browser
                    db.add(row)
                    begun.append((user, row, token))
                    audit.record(
                        db,
                        "session.begun",
                        row.created_at,
                        user_id=user.id,
                        actor_id=user.id,
                        address=CLIENT.address,
                        kind="browser",
                    )
        if self._copies:
            self._lookup.facts = {
                token.digest: self._rows.record(row, user) for user, row, token in begun
            }
            for _, _, token in begun:
                self._lookup.find(token)
        return Made(
            b"".join(user.id.bytes for user in users),
            b"".join(token.text.encode() for _, _, token in begun),
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
    config = Config.from_mapping(settings)
    _maker = Maker(build_services(config, None), config, copies=copies)


def _make(batch: Batch) -> Made:
    return _maker.make(batch)


def made_by_processes(
    settings: Mapping[str, Any], wanted: Iterable[Batch], *, copies: bool = True
) -> Iterator[Made]:
    """All batches, in any order of their making."""
    with ProcessPoolExecutor(
        PROCESSES, multiprocessing.get_context("spawn"), _begin, (settings, copies)
    ) as pool:
        yield from pool.map(_make, wanted)


def at_random(kept: bytearray, width: int, count: int) -> list[bytes]:
    """Some of the values that stand one after another in `kept`."""
    starts = (random.randrange(len(kept) // width) * width for _ in range(count))
    return [bytes(kept[start : start + width]) for start in starts]
