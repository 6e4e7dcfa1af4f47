"""Tables: what the database itself refuses, whoever asks."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import CheckConstraint, Constraint, Index, delete, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from authapp.storage.models import AuditEvent, Base, Role, SessionRow, User, UserRole
from authapp.storage.postgres import connect

NOW = datetime(2031, 5, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url, 1)
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> Iterator[Session]:
    """A transaction that is never committed."""
    with Session(engine) as db:
        yield db


def a_user(**values: Any) -> User:
    emails = {"email": "a@example.org", "email_canonical": "a@example.org"}
    times = {"created_at": NOW, "updated_at": NOW}
    return User(**({"password_hash": "x"} | emails | times | values))


def a_session(user: User, **values: Any) -> SessionRow:
    given = {"digest": b"d", "user_id": user.id, "kind": "browser", "epoch": 1}
    times = {"created_at": NOW, "last_seen_at": NOW, "idle_seconds": 60, "expires_at": NOW}
    return SessionRow(**(given | times | values))


@pytest.fixture
def user(db: Session) -> User:
    user = a_user()
    db.add(user)
    db.flush()
    return user


def refused(db: Session, row: Base) -> str | None:
    """The constraint that a row breaks."""
    db.add(row)
    with pytest.raises(IntegrityError) as caught:
        db.flush()
    name: str | None = getattr(caught.value.orig, "diag").constraint_name  # noqa: B009 - untyped
    return name


def test_a_user_starts_active_at_the_first_epoch(db: Session, user: User) -> None:
    db.refresh(user)
    assert (user.active, user.epoch, user.ver, user.roles) == (True, 1, 1, [])


def test_one_user_a_canonical_email(db: Session, user: User) -> None:
    assert refused(db, a_user(email="A@example.org")) == "uq_users_email_canonical"


def test_one_session_a_digest(db: Session, user: User) -> None:
    db.add(a_session(user))
    db.flush()
    assert refused(db, a_session(user)) == "uq_sessions_digest"


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"kind": "other"}, "ck_sessions_kind"),
        ({"ended_at": NOW}, "ck_sessions_ended"),
        ({"ended_why": "logout"}, "ck_sessions_ended"),
    ],
)
def test_a_session_row_makes_sense(
    db: Session, user: User, values: dict[str, Any], constraint: str
) -> None:
    assert refused(db, a_session(user, **values)) == constraint


def test_a_session_has_a_user(db: Session) -> None:
    assert refused(db, a_session(a_user())) is None  # NOT NULL


def test_a_role_in_use_stays(db: Session, user: User) -> None:
    role = Role(name="auditor")
    db.add(role)
    user.roles = [role]
    db.flush()
    with pytest.raises(IntegrityError):
        db.execute(delete(Role).where(Role.id == role.id))


def test_role_names_are_unique(db: Session) -> None:
    assert refused(db, Role(name="admin")) == "uq_roles_name"


def test_what_belongs_to_a_user_goes_with_them_but_not_the_audit(db: Session, user: User) -> None:
    user.roles = [Role(name="auditor")]
    event = AuditEvent(at=NOW, event="user.created", user_id=user.id, actor_id=user.id)
    db.add_all([a_session(user), event])
    db.flush()
    db.execute(delete(User).where(User.id == user.id))
    assert not db.query(SessionRow).filter_by(user_id=user.id).count()
    assert not db.query(UserRole).filter_by(user_id=user.id).count()
    db.refresh(event)
    assert (event.user_id, event.actor_id) == (None, None)


def test_every_constraint_and_index_has_a_name_that_tells_its_table() -> None:
    for table in Base.metadata.sorted_tables:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", table.name)
        items: list[Constraint | Index] = [*table.constraints, *table.indexes]
        for item in items:
            assert item.name, f"{item} needs a name, or a migration can't drop it"
            assert re.fullmatch(rf"(pk|uq|ck|fk|ix)_{table.name}(_\w+)?", str(item.name))


def test_every_foreign_key_is_indexed() -> None:
    """Or ending a user would read whole tables."""
    unindexed = set()
    for table in Base.metadata.sorted_tables:
        leading = {next(iter(i.columns)).name for i in table.indexes if i.columns}
        leading.add(next(iter(table.primary_key.columns)).name)
        unindexed |= {f"{table.name}.{k.parent.name}" for k in table.foreign_keys} - {
            f"{table.name}.{name}" for name in leading
        }
    assert unindexed == set()


def test_the_events_in_which_a_deleted_person_acted_are_found_by_an_index(db: Session) -> None:
    """Also by a plan that holds for any person, as Postgres may keep for the foreign key."""
    for setting in ("enable_seqscan = off", "plan_cache_mode = force_generic_plan"):
        db.execute(text(f"SET LOCAL {setting}"))
    db.execute(  # as the foreign key asks
        text(
            "PREPARE unlink (uuid) AS"
            " UPDATE ONLY authapp_data.audit_events SET actor_id = NULL WHERE actor_id = $1"
        )
    )
    plan = db.scalars(text(f"EXPLAIN EXECUTE unlink ('{UUID(int=7)}')")).all()
    db.execute(text("DEALLOCATE unlink"))
    assert "Index Cond: (actor_id = $1)" in "\n".join(plan)


def test_checks_are_known_to_the_models() -> None:
    checks = {
        c.name
        for t in Base.metadata.sorted_tables
        for c in t.constraints
        if isinstance(c, CheckConstraint)
    }
    assert {"ck_sessions_kind", "ck_sessions_ended"} <= checks
