"""Postgres away, frozen, full, busy or read-only: what is told, tried again, and counted."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import psycopg2
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from authapp import dev
from authapp.errors import OutcomeUnknown, StoreUnavailable
from authapp.services import Services
from authapp.storage import bounded_connections
from authapp.storage import postgres as database
from authapp.storage.bounded_connections import BoundedConnection
from authapp.storage.circuit_breaker import Breaker
from authapp.storage.deadlines import deadline
from authapp.storage.postgres import Database, FailureKind, PostgresUnavailable, connect
from tests.support.databases import add_database
from tests.support.frozen import frozen
from tests.support.people import CLIENT, log_in, sign_up
from tests.support.threads import at_once
from tests.support.waiting import wait_until

SIZE = 3


@pytest.fixture
def breaker() -> Iterator[Breaker]:
    breaker = Breaker("postgres", reset_seconds=0.05)
    yield breaker
    breaker.recover = lambda: None  # or its thread would go on for ever


@pytest.fixture(scope="module")
def url(postgres: dev.PostgreSQL) -> str:
    """A database of these tests alone: they leave tables in it."""
    return add_database(postgres.url, "of_these_tests")


@pytest.fixture
def db(url: str, breaker: Breaker) -> Iterator[Database]:
    made = Database(connect(url, SIZE), breaker)
    yield made
    made.close()


@pytest.fixture
def by_hand(url: str) -> Iterator[Callable[[str], Any]]:
    """Runs a statement over a connection of its own, not one of ours."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True

        def run(statement: str) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else None

        yield run


def is_open(breaker: Breaker) -> bool:
    return breaker.is_open


def one(db: Session) -> Any:
    return db.scalar(text("SELECT 1"))


def pid(db: Session) -> int:
    found: int = db.scalar(text("SELECT pg_backend_pid()")) or 0
    return found


def asked(database: Database, statement: str, patience: float = 3.0) -> Any:
    with database.transaction(patience) as db:
        return db.scalar(text(statement))


def failure(database: Database, statement: str = "SELECT 1", patience: float = 3.0) -> FailureKind:
    """Why it could not be asked; fails when that hangs."""

    def work() -> None:
        with database.transaction(patience) as db:
            db.execute(text(statement))

    (outcome,) = at_once(work)
    assert isinstance(outcome, PostgresUnavailable), outcome
    assert outcome.store == "postgres"
    assert not outcome.committing
    return outcome.kind


def fill_pool(database: Database, many: int = SIZE) -> list[int]:
    """Backends of as many connections, all idle in the pool."""
    together = Barrier(many, timeout=30)

    def work() -> int:
        with database.transaction() as db:
            found = pid(db)
            together.wait()
            return found

    pids = [found for found in at_once(*[work] * many) if isinstance(found, int)]
    assert len(set(pids)) == many, "each got a connection of its own"
    return pids


# -- each failure, on a real server ----------------------------------------------------------------


def raises(code: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'of the test' USING ERRCODE = '{code}'; END $$"


@pytest.mark.parametrize(
    "code",
    ["53100", "53200", "53300", "40001", "57P03", "58030", "XX000"],
    ids=["disk full", "memory", "connections", "conflict", "starting", "input", "internal"],
)
def test_refused_for_the_state_of_the_server(db: Database, code: str) -> None:
    assert failure(db, raises(code)) is FailureKind.REFUSED
    assert asked(db, "SELECT 1") == 1


def test_refused_for_a_statement_that_takes_too_long(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lives says so itself, before we cut: the connection is kept."""
    assert database.STATEMENT_TIMEOUT < bounded_connections.PATIENCE
    monkeypatch.setattr(bounded_connections, "PATIENCE", 20)  # the machine may be late
    before = asked(db, "SELECT pg_backend_pid()")
    assert failure(db, "SELECT pg_sleep(20)", patience=10) is FailureKind.REFUSED
    assert asked(db, "SELECT pg_backend_pid()") == before


def test_refused_for_a_lock(db: Database, by_hand: Callable[[str], Any]) -> None:
    by_hand("CREATE TABLE public.held ()")
    by_hand("BEGIN; LOCK TABLE public.held")
    try:
        assert (
            failure(db, "SET LOCAL lock_timeout = '50ms'; SELECT FROM public.held")
            is FailureKind.REFUSED
        )
    finally:
        by_hand("ROLLBACK")


def test_refused_for_a_deadlock(db: Database) -> None:
    both = Barrier(2, timeout=30)

    def lock(first: int, then: int) -> None:
        with db.transaction() as mine:
            mine.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            mine.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
            both.wait()
            mine.execute(text(f"SELECT pg_advisory_xact_lock({then})"))

    outcomes = at_once(lambda: lock(71, 72), lambda: lock(72, 71))
    (refused,) = [found for found in outcomes if found is not None]
    assert isinstance(refused, PostgresUnavailable)
    assert refused.kind is FailureKind.REFUSED


def test_read_only(db: Database) -> None:
    statement = "SET LOCAL transaction_read_only = on; CREATE TABLE never ()"
    assert failure(db, statement) is FailureKind.READ_ONLY


def test_read_only_by_the_setting_of_a_server(url: str, by_hand: Callable[[str], Any]) -> None:
    place = add_database(url, "read_only")
    by_hand(f"ALTER DATABASE {make_url(place).database} SET default_transaction_read_only = on")
    made = Database(connect(place, 1))
    assert failure(made, "CREATE TABLE never ()") is FailureKind.READ_ONLY
    assert asked(made, "SELECT 1") == 1
    made.close()


def test_lost_in_the_middle_of_a_statement(db: Database, by_hand: Callable[[str], Any]) -> None:
    def terminate() -> None:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up and not by_hand(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'authapp' AND query LIKE '%pg_sleep(2.2)%'"
        ):
            time.sleep(0.02)

    found, _ = at_once(lambda: failure_here(db, "SELECT pg_sleep(2.2)"), terminate)
    assert found is FailureKind.LOST


def failure_here(database: Database, statement: str) -> FailureKind:
    with pytest.raises(PostgresUnavailable) as raised, database.transaction() as db:
        db.execute(text(statement))
    return raised.value.kind


def test_no_connection_where_nobody_listens(tmp_path: Path) -> None:
    made = Database(connect(f"postgresql://nobody@/nothing?host={tmp_path}", 1))
    assert failure(made) is FailureKind.NO_CONNECTION


@pytest.fixture
def deaf() -> Iterator[tuple[socket.socket, Database]]:
    """One who accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/x"
        yield listener, Database(connect(place, SIZE))


def test_nobody_is_there_where_somebody_accepts_and_never_answers(
    deaf: tuple[socket.socket, Database],
) -> None:
    assert failure(deaf[1]) in {
        FailureKind.NO_ANSWER,
        FailureKind.NO_CONNECTION,
    }  # the faster of the two is seen


def test_behind_an_address_that_never_answers_there_is_the_next(
    deaf: tuple[socket.socket, Database], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq comes to it when nobody waits any more."""
    monkeypatch.setattr(database, "CONNECT_TIMEOUT", 1)
    place = make_url(url)
    hosts = (f"127.0.0.1:{deaf[0].getsockname()[1]}", f"{place.query['host']}:5432")
    made = Database(
        connect(place.update_query_dict({"host": hosts}).render_as_string(hide_password=False), 1)
    )
    assert failure(made) is FailureKind.NO_ANSWER
    one = wait_until(
        lambda: asked(made, "SELECT 1"),
        "each connection comes too late, for ever",
        ignoring=StoreUnavailable,
    )
    assert one == 1
    made.close()


def test_nobody_waits_for_a_connection_longer_than_they_may(
    deaf: tuple[socket.socket, Database],
) -> None:
    """Not the whole seconds of libpq, which goes on to wait."""
    listener, made = deaf
    assert failure(made, patience=0.3) is FailureKind.NO_ANSWER
    with listener.accept()[0] as accepted:
        accepted.recv(65_536)
        accepted.setblocking(False)
        with pytest.raises(BlockingIOError):  # not the end of what it has to say
            accepted.recv(1)


def test_no_more_wait_for_a_server_than_the_pool_would_have(
    deaf: tuple[socket.socket, Database],
) -> None:
    _, made = deaf
    before = connecting_threads()
    found = [failure(made, patience=0.05) for _ in range(2 * SIZE)]
    assert found == [FailureKind.NO_ANSWER] * 2 * SIZE
    assert len(connecting_threads() - before) == SIZE


def connecting_threads() -> set[Thread]:
    return {thread for thread in enumerate_threads() if "postgres-connect" in thread.name}


def test_no_connection_while_the_server_takes_no_more(
    url: str, by_hand: Callable[[str], Any]
) -> None:
    by_hand("CREATE ROLE alone LOGIN CONNECTION LIMIT 0 PASSWORD 'x'")
    place = make_url(url).set(username="alone", password="x")
    made = Database(connect(place.render_as_string(hide_password=False), 1))
    assert failure(made) is FailureKind.NO_CONNECTION


def test_all_connections_busy(
    db: Database, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, held = Event(), Barrier(SIZE + 1, timeout=30)

    def hold() -> None:
        with db.transaction(20) as mine:
            one(mine)
            held.wait()
            assert free.wait(20)

    def one_more() -> list[FailureKind]:
        held.wait()
        try:
            return [failure_here(db, "SELECT 1") for _ in range(2)]
        finally:
            free.set()

    monkeypatch.setattr(breaker, "_failures_to_open", 1)
    monkeypatch.setattr(database, "POOL_TIMEOUT", 0.1)
    *_, found = at_once(*[hold] * SIZE, one_more)
    assert found == [FailureKind.ALL_BUSY] * 2
    assert not breaker.is_open, "it says nothing of the server"


def test_nobody_waits_for_a_connection_in_use_longer_than_leaves_time_to_use_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "POOL_TIMEOUT", 60)
    with ExitStack() as stack:
        held = [stack.enter_context(db.transaction(20)) for _ in range(SIZE)]
        pids = {pid(one_held) for one_held in held}
        assert failure(db, patience=0.7) is FailureKind.ALL_BUSY
    assert set(fill_pool(db)) == pids, "none was cut"


def test_no_answer_of_a_frozen_backend(db: Database) -> None:
    def work() -> None:
        with db.transaction(20) as mine, frozen(pid(mine)), deadline(1.0):
            one(mine)

    (outcome,) = at_once(work)
    assert isinstance(outcome, PostgresUnavailable)
    assert outcome.kind is FailureKind.NO_ANSWER
    assert asked(db, "SELECT 1") == 1, "and the pool has another"


def test_no_answer_within_what_a_transaction_may_take(db: Database) -> None:
    """All its waits together, each of them within the time for one."""
    assert failure(db, "SELECT pg_sleep(0.5), pg_sleep(0.5)", patience=0.7) is FailureKind.NO_ANSWER


def test_no_time_left_is_no_answer_and_asks_nobody(db: Database) -> None:
    with deadline(0):
        assert failure_here(db, "SELECT 1") is FailureKind.NO_ANSWER


def test_an_error_of_a_statement_stays_what_it_is(db: Database, breaker: Breaker) -> None:
    asked(db, "CREATE TABLE IF NOT EXISTS public.once (n int UNIQUE); SELECT 1")
    for _ in range(6):
        with pytest.raises(IntegrityError):
            asked(db, "INSERT INTO public.once VALUES (1), (1) RETURNING 1")
        with pytest.raises(ProgrammingError):
            asked(db, "SELECT nothing")
    assert not breaker.is_open


# -- the ping at checkout --------------------------------------------------------------------------


def test_dead_idle_connections_are_replaced_unseen(
    db: Database, by_hand: Callable[[str], Any]
) -> None:
    before = fill_pool(db)
    for dead in before:
        by_hand(f"SELECT pg_terminate_backend({dead}, 5000)")
    assert not set(fill_pool(db)) & set(before)


def test_connections_that_died_just_now_are_replaced_unseen(
    db: Database, by_hand: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ping: the operating system knows that the other side has hung up."""
    monkeypatch.setattr(database, "USED_JUST_NOW", 60)
    before = fill_pool(db)
    for dead in before:
        by_hand(f"SELECT pg_terminate_backend({dead}, 5000)")
    assert not set(fill_pool(db)) & set(before)


def test_a_connection_that_rested_is_asked_before_its_use(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinged: list[object] = []
    ping = database._ping

    def note(connection: BoundedConnection) -> None:
        pinged.append(connection)
        ping(connection)

    monkeypatch.setattr(database, "_ping", note)
    asked(db, "SELECT 1")
    monkeypatch.setattr(database, "USED_JUST_NOW", 60)
    asked(db, "SELECT 1")
    assert not pinged
    monkeypatch.setattr(database, "USED_JUST_NOW", 0)
    asked(db, "SELECT 1")
    assert len(pinged) == 1


def test_a_frozen_idle_connection_is_replaced_unseen(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "USED_JUST_NOW", 0)
    before = fill_pool(db, 2)
    with frozen(before[0]):
        (found,) = at_once(lambda: fill_pool(db, 2))
        assert isinstance(found, list), found
        assert before[0] not in found
        assert before[1] in found, "the others are kept"


def test_after_a_restart_of_the_server_all_are_replaced_unseen(engine_dir: Path) -> None:
    with dev.private_socket_dir() as sockets:
        where = engine_dir / "restarted", sockets, "x"
        server = dev.PostgreSQL.start(*where, durable=False)
        made = Database(connect(server.url, SIZE))
        try:
            before = fill_pool(made)
            server.stop()
            server = dev.PostgreSQL.start(*where, durable=False)
            assert not set(fill_pool(made)) & set(before)
        finally:
            made.close()
            server.stop()


def test_a_healthy_connection_is_kept(db: Database) -> None:
    assert len({asked(db, "SELECT pg_backend_pid()") for _ in range(5)}) == 1


def test_a_forked_process_uses_no_connection_of_its_parent(db: Database) -> None:
    """Each would get answers to what the other asked."""
    before = asked(db, "SELECT pg_backend_pid()")
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            status = 0 if asked(db, "SELECT pg_backend_pid()") != before else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asked(db, "SELECT pg_backend_pid()") == before, "and does not end them"


# -- reading once more -----------------------------------------------------------------------------


class Tries:
    """A query that fails as often as it is told, and notes on which backend it ran."""

    def __init__(self, fail: Callable[[Session, int], object], times: int) -> None:
        self._fail, self._times = fail, times
        self.backends: list[int] = []

    def __call__(self, db: Session) -> str:
        self.backends.append(pid(db))
        if len(self.backends) <= self._times:
            self._fail(db, self.backends[-1])
        return "read"


def test_a_read_is_repeated_when_its_connection_is_lost(
    db: Database, by_hand: Callable[[str], Any]
) -> None:
    def lose(mine: Session, backend: int) -> None:
        by_hand(f"SELECT pg_terminate_backend({backend}, 5000)")
        one(mine)

    fill_pool(db)
    once = Tries(lose, 1)
    assert db.read(once) == "read"
    assert len(set(once.backends)) == 2, "over another connection"

    always = Tries(lose, 9)
    with pytest.raises(PostgresUnavailable) as raised:
        db.read(always)
    assert raised.value.kind is FailureKind.LOST
    assert len(always.backends) == 2, "once, no more"


def test_a_read_is_not_repeated_for_anything_else(db: Database) -> None:
    def freeze(mine: Session, backend: int) -> None:
        with frozen(backend), deadline(0.6):
            one(mine)

    def refuse(mine: Session, _backend: int) -> None:
        mine.execute(text(raises("53100")))

    for fail, why in ((freeze, FailureKind.NO_ANSWER), (refuse, FailureKind.REFUSED)):
        tries = Tries(fail, 9)
        (outcome,) = at_once(lambda tries=tries: db.read(tries))  # type: ignore[misc]
        assert isinstance(outcome, PostgresUnavailable)
        assert (outcome.kind, len(tries.backends)) == (why, 1)


# -- a commit whose answer is lost -----------------------------------------------------------------


@contextmanager
def commits(engine: Engine, spoil: Callable[[int], None]) -> Iterator[None]:
    """Spoils the connection just before the next commits, given its backend."""

    def before(connection: Any) -> None:
        spoil(connection.connection.dbapi_connection.info.backend_pid)

    event.listen(engine, "commit", before)
    try:
        yield
    finally:
        event.remove(engine, "commit", before)


def commit_spoilt(database: Database, spoil: Callable[[int], None]) -> PostgresUnavailable:
    def work() -> None:
        with database.transaction(1.0) as db:
            one(db)

    with commits(database._engine, spoil):
        (outcome,) = at_once(work)
    assert isinstance(outcome, PostgresUnavailable)
    return outcome


def test_a_commit_that_got_no_answer_may_have_been_made(
    db: Database, by_hand: Callable[[str], Any]
) -> None:
    stopped: list[int] = []

    def freeze(backend: int) -> None:
        os.kill(backend, signal.SIGSTOP)
        stopped.append(backend)

    try:
        found = commit_spoilt(db, freeze)
    finally:
        for backend in stopped:
            os.kill(backend, signal.SIGCONT)
    assert (found.kind, found.committing) == (FailureKind.NO_ANSWER, True)

    def lose(backend: int) -> None:
        by_hand(f"SELECT pg_terminate_backend({backend}, 5000)")

    found = commit_spoilt(db, lose)
    assert (found.kind, found.committing) == (FailureKind.LOST, True)


def test_a_commit_that_was_refused_was_not_made(
    db: Database, by_hand: Callable[[str], Any]
) -> None:
    by_hand(
        "CREATE TABLE public.late (n int);"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'of the test' USING ERRCODE = '40001'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.late DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(PostgresUnavailable) as raised:
        asked(db, "INSERT INTO public.late VALUES (1) RETURNING n")
    assert (raised.value.kind, raised.value.committing) == (FailureKind.REFUSED, False)
    assert by_hand("SELECT * FROM public.late") == []


def test_a_change_whose_commit_was_lost_has_an_unknown_outcome(
    services: Services, by_hand: Callable[[str], Any]
) -> None:
    sign_up(services)
    live = log_in(services)

    def lose(backend: int) -> None:
        by_hand(f"SELECT pg_terminate_backend({backend}, 5000)")

    with commits(services.database._engine, lose), pytest.raises(OutcomeUnknown):
        services.authentication.log_out(live.token, CLIENT)
    with pytest.raises(StoreUnavailable) as raised:
        change_and_lose(services, lose)
    assert not isinstance(raised.value, OutcomeUnknown), "before the commit nothing was changed"


def change_and_lose(services: Services, lose: Callable[[int], None]) -> None:
    with services.changes.begin() as change:
        lose(pid(change.db))
        one(change.db)


# -- what the breaker counts -----------------------------------------------------------------------


def test_five_times_without_an_answer_it_is_asked_no_more_until_it_answers(
    engine_dir: Path,
) -> None:
    with dev.private_socket_dir() as sockets:
        where = engine_dir / "away", sockets, "x"
        server = dev.PostgreSQL.start(*where, durable=False)
        made = Database(connect(server.url, SIZE), Breaker("postgres", reset_seconds=0.05))
        try:
            server.stop()
            for _ in range(5):
                assert not is_open(made.breaker)
                assert failure(made) is FailureKind.NO_CONNECTION
            assert is_open(made.breaker)
            with pytest.raises(StoreUnavailable) as raised:
                made.read(one)
            assert not isinstance(raised.value, PostgresUnavailable), "nobody asked"
            server = dev.PostgreSQL.start(*where, durable=False)
            wait_until(lambda: not is_open(made.breaker), "it does not recover by itself")
            assert made.read(one) == 1
        finally:
            made.breaker.recover = lambda: None
            made.close()
            server.stop()


def test_refusals_are_no_failures_and_an_answer_counts_anew(
    db: Database, breaker: Breaker, by_hand: Callable[[str], Any]
) -> None:
    for _ in range(6):
        failure(db, raises("53100"))
        failure(db, "SET LOCAL transaction_read_only = on; CREATE TABLE never ()")
    assert not is_open(breaker)

    def lose() -> None:
        with suppress(PostgresUnavailable), db.transaction() as mine:
            by_hand(f"SELECT pg_terminate_backend({pid(mine)}, 5000)")
            one(mine)

    for _ in range(3):
        for _ in range(4):
            lose()
        assert asked(db, "SELECT 1") == 1
    assert not is_open(breaker)
    seen = Event()

    def recover() -> None:
        assert seen.wait(30)

    breaker.recover = recover
    try:
        for _ in range(5):
            lose()
        assert is_open(breaker)
    finally:
        seen.set()


def test_who_comes_too_late_to_ask_says_nothing_of_the_server(
    db: Database, breaker: Breaker
) -> None:
    """After a long wait for something else, as in a rush of log-ins."""
    fill_pool(db, 1)
    for left in (0, 0, 0, 0.001, 0.001, 0.001):
        with deadline(left), suppress(StoreUnavailable):
            asked(db, "SELECT pg_sleep(0.2)")
    assert not is_open(breaker)


def test_it_needs_no_tls(db: Database) -> None:
    with db.transaction() as mine:
        raw: Any = mine.connection().connection.dbapi_connection
        assert type(raw) is BoundedConnection
        assert raw.info.ssl_in_use is False
