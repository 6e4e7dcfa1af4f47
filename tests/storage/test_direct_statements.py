"""Statements that psycopg2 runs directly: as SQLAlchemy would run them."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import ARRAY, LargeBinary, Text, Uuid, bindparam, event, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from authapp import dev
from authapp.services import Services
from authapp.sessions import statements
from authapp.storage.driver.direct_statements import DirectStatement
from authapp.storage.models import UtcDateTime
from authapp.storage.postgres import Database, FailureKind, PostgresUnavailable, connect
from tests.support.people import log_in, sign_up

VALUES: dict[str, tuple[Any, Any]] = {
    "id": (Uuid(), uuid4()),
    "octets": (LargeBinary(), b"\0\xff%s"),
    "data": (JSONB(), {"a": [1, 1.5, None, "%(id)s"], "ü": {}}),
    "words": (ARRAY(Text), ["", "it's", "100 %"]),
    "none": (ARRAY(Text), []),
    "at": (UtcDateTime(), datetime(2031, 5, 4, 12, tzinfo=timezone(timedelta(hours=2)))),
    "nothing": (UtcDateTime(), None),
}
ECHO = select(
    *(bindparam(f"of_{name}", type_=kind).label(name) for name, (kind, _) in VALUES.items())
)


@pytest.fixture
def db(postgres: dev.PostgreSQL) -> Iterator[Database]:
    with closing(Database(connect(postgres.url, 1))) as made:
        yield made


def test_values_come_back_as_from_sqlalchemy(db: Database) -> None:
    given = {f"of_{name}": value for name, (_, value) in VALUES.items()}
    direct = DirectStatement(ECHO)
    with db.connection() as connection:
        expected = connection.execute(ECHO, given).one()
        for _ in range(2):
            assert direct.first(connection, given)._asdict() == expected._asdict()
    assert expected.at.tzinfo is UTC


def test_the_facts_of_a_session_are_as_from_sqlalchemy(services: Services) -> None:
    sign_up(services)
    given = {"digest": log_in(services).token.digest}
    with services.database.connection() as connection:
        expected = connection.execute(statements.FACTS, given).one()
        found = DirectStatement(statements.FACTS).first(connection, given)
    assert found._asdict() == expected._asdict()


def test_without_a_row_it_is_none(db: Database) -> None:
    with db.connection() as connection:
        one = literal(1).label("one")
        assert DirectStatement(select(one).where(one == 2)).first(connection, {}) is None


def test_those_who_listen_for_statements_see_it_and_may_change_it(db: Database) -> None:
    one = DirectStatement(select(literal(1).label("one")))

    def change(*told: Any) -> tuple[str, Any]:
        return told[2].replace("AS one", "+ 1 AS one"), told[3]

    event.listen(db._engine, "before_cursor_execute", change, retval=True)
    with db.connection() as connection:
        assert one.first(connection, {}).one == 2


def test_alone_it_begins_no_transaction(db: Database) -> None:
    number = DirectStatement(select(func.txid_current().label("number")))
    with db.connection() as connection:
        alone = [number.first(connection, {}, alone=True).number for _ in range(2)]
        together = [number.first(connection, {}, alone=after).number for after in (False, True)]
    assert alone[0] != alone[1]
    assert together[0] == together[1]


def test_an_error_means_what_it_does_elsewhere(db: Database) -> None:
    sleep = DirectStatement(select(func.pg_sleep(bindparam("seconds")).label("slept")))
    end = DirectStatement(select(func.pg_terminate_backend(func.pg_backend_pid()).label("ended")))
    for statement, given, kind in (
        (sleep, {"seconds": 20}, FailureKind.REFUSED),
        (end, {}, FailureKind.LOST),
        (sleep, {"seconds": 0}, None),
    ):
        if kind is None:
            with db.connection(20) as connection:
                assert statement.first(connection, given) is not None
            continue
        with pytest.raises(PostgresUnavailable) as raised, db.connection(20) as connection:
            statement.first(connection, given)
        assert raised.value.kind is kind
