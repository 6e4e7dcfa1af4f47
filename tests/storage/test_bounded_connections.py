"""No wait for Postgres hangs: real servers and single backends that are frozen, on purpose."""

import io
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import ModuleType
from typing import Any

import psycopg2
import pytest
from flask import Flask
from psycopg2 import extensions, sql

from authapp import Auth, create_app, dev
from authapp.config import Config
from authapp.errors import SettingError
from authapp.storage import bounded_connections as bounded
from authapp.storage.bounded_connections import BoundedConnection, Connecting, NoAnswer
from authapp.storage.deadlines import deadline
from tests.support.frozen import frozen
from tests.support.threads import at_once, no_thread_left
from tests.support.waiting import wait_until

Connect = Callable[[], BoundedConnection]


@pytest.fixture
def connect(postgres: dev.PostgreSQL) -> Iterator[Connect]:
    made: list[BoundedConnection] = []

    def connecting() -> BoundedConnection:
        made.append(psycopg2.connect(postgres.url, connection_factory=BoundedConnection))
        return made[-1]

    yield connecting
    for connection in made:
        connection.close()


def backend(connection: extensions.connection) -> int:
    return connection.info.backend_pid


def ask(connection: extensions.connection, statement: str = "SELECT 1") -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None


def ends(work: Callable[[], Any]) -> Any:
    """The result or the error of the work; fails when it hangs."""
    (outcome,) = at_once(work)
    return outcome


# -- a frozen server -------------------------------------------------------------------------------


def several(connection: BoundedConnection) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("SELECT %s", [(1,), (2,)])


WAITS: dict[str, Callable[[BoundedConnection], Any]] = {
    "execute": ask,
    "executemany": several,
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "the connection as a block": lambda connection: connection.__exit__(None, None, None),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_frozen_backend_frees_who_waits(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    wait: Callable[[BoundedConnection], Any],
) -> None:
    connection = connect()
    ask(connection)  # now in a transaction
    monkeypatch.setattr(bounded, "PATIENCE", 1.0)
    with frozen(backend(connection)):
        begun = time.monotonic()
        assert isinstance(ends(lambda: wait(connection)), NoAnswer)
        assert time.monotonic() - begun >= 0.9, "it had its time to answer"
    assert connection.closed


def test_the_deadline_frees_who_waits_before(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "PATIENCE", 20.0)  # so that a loaded machine is still below it
    connection = connect()

    def hurry() -> float:
        begun = time.monotonic()
        with deadline(0.3), pytest.raises(NoAnswer):
            ask(connection)
        return time.monotonic() - begun

    with frozen(backend(connection)):
        assert 0.25 < ends(hurry) < 10


def test_a_whole_frozen_server_frees_all_who_wait(engine_dir: Path) -> None:
    with (
        dev.private_socket_dir() as sockets,
        dev.PostgreSQL.start(engine_dir / "frozen", sockets, "x", durable=False) as server,
    ):
        made = [
            psycopg2.connect(server.url, connection_factory=BoundedConnection) for _ in range(3)
        ]
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        with frozen(server.pid, *map(int, children)):
            found = at_once(*[lambda c=c: ask(c) for c in made])
        assert [type(outcome) for outcome in found] == [NoAnswer] * 3


def test_who_is_answered_in_time_notices_nothing(connect: Connect) -> None:
    """Also later, when the deadlines of then are over."""
    connection = connect()
    seconds = 2.0
    with deadline(seconds):
        assert ask(connection, "SELECT pg_sleep(0.1)") == ("",)
        connection.commit()
    time.sleep(seconds + 0.2)
    assert ask(connection) == (1,)
    connection.rollback()


def test_one_that_hangs_is_cut_and_those_beside_it_are_not(connect: Connect) -> None:
    stuck, well = connect(), connect()

    def slowly() -> Any:
        return ask(well, "SELECT pg_sleep(1.5)")

    def hang() -> Any:
        with deadline(0.3):
            return ask(stuck)

    with frozen(backend(stuck)):
        hung, slow = at_once(hang, slowly)
    assert isinstance(hung, NoAnswer)
    assert slow == ("",)
    assert ask(well) == (1,)


def test_an_error_of_the_statement_stays_what_it_is(connect: Connect) -> None:
    with pytest.raises(psycopg2.errors.DivisionByZero):
        ask(connect(), "SELECT 1/0")


def test_a_connection_that_is_lost_is_no_server_that_does_not_answer(connect: Connect) -> None:
    lost, other = connect(), connect()
    ask(other, f"SELECT pg_terminate_backend({backend(lost)}, 5000)")
    with pytest.raises(psycopg2.OperationalError) as raised:
        ask(lost)
    assert not isinstance(raised.value, NoAnswer)
    for again in WAITS.values():  # closed: psycopg2's own error, and nothing waits
        with suppress(psycopg2.InterfaceError):
            again(lost)


def test_a_wait_after_a_long_rest_is_bounded_too(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread went to sleep meanwhile."""
    monkeypatch.setattr(bounded, "_IDLE", 2)
    connection = connect()
    ask(connection)
    wait_until(lambda: not bounded._watch._needed.is_set(), "it never sleeps")
    with frozen(backend(connection)), deadline(0.3):
        assert isinstance(ends(lambda: ask(connection)), NoAnswer)


def test_one_thread_watches_however_many_wait(connect: Connect) -> None:
    made = [connect() for _ in range(4)]
    at_once(*[lambda c=c: ask(c) for c in made])
    thread = bounded._watch._thread
    assert thread is not None
    assert thread.daemon, "it keeps no process from ending"
    at_once(*[lambda c=c: ask(c) for c in made])
    assert bounded._watch._thread is thread


def test_where_the_system_has_no_thread_to_give_nobody_waits_until_it_has(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect()
    monkeypatch.setattr(bounded, "_watch", bounded._Watch())
    with no_thread_left(), pytest.raises(NoAnswer):
        ask(connection)
    with no_thread_left(), pytest.raises(NoAnswer):
        Connecting(1).within(1, connect)
    assert ask(connection) == (1,)
    with frozen(backend(connection)), deadline(0.3):
        assert isinstance(ends(lambda: ask(connection)), NoAnswer)


def test_without_a_descriptor_left_it_is_cut_as_well(connect: Connect) -> None:
    """When a server hangs those who wait pile up; that is when a process runs out of them."""
    stuck, later = connect(), connect()
    for connection in (stuck, later):
        ask(connection)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)

    def hang(connection: BoundedConnection) -> bool:
        with deadline(0.3):
            return isinstance(ends(lambda: ask(connection)), NoAnswer)

    with frozen(backend(stuck), backend(later)):
        child = os.fork()  # the limit is the process's, and others run in this one
        if child == 0:
            status = 1
            with suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
                status = 0 if hang(stuck) and hang(later) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it goes on to watch"


# -- transactions ---------------------------------------------------------------------------------


def test_a_transaction_begins_with_its_first_statement(connect: Connect) -> None:
    """In one round trip."""
    connection, other = connect(), connect()
    with connection.cursor() as cursor, other.cursor() as looking:
        for end in (connection.rollback, connection.commit):
            end()  # there is nothing to end yet
            assert not connection.notices, "the server is asked for nothing"
            cursor.execute("CREATE TABLE public.begun (n int)")
            assert cursor.query == b"BEGIN;CREATE TABLE public.begun (n int)"
            cursor.execute("INSERT INTO public.begun VALUES (%s) RETURNING n", (1,))
            assert cursor.query == b"INSERT INTO public.begun VALUES (1) RETURNING n"
            assert cursor.fetchone() == (1,)
            looking.execute("SELECT to_regclass('public.begun')")
            assert looking.fetchone() == (None,)
            end()
            other.commit()
        looking.execute("SELECT n FROM public.begun")
        assert looking.fetchone() == (1,)
        cursor.executemany("DELETE FROM public.begun WHERE n = %s", [(1,), (2,)])
        connection.rollback()
        cursor.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("public", "begun")))
        connection.rollback()
        cursor.execute("SELECT n FROM public.begun")
        assert cursor.fetchone() == (1,)
        connection.rollback()
        other.rollback()
        cursor.execute("DROP TABLE public.begun")
        connection.commit()


def test_a_statement_that_fails_ends_nothing_but_its_transaction(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        ask(connection, "SELECT 1/0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        ask(connection)
    connection.rollback()
    with pytest.raises(psycopg2.errors.SyntaxError):
        ask(connection, "SELEC")
    connection.rollback()
    assert ask(connection) == (1,)


def test_a_connection_that_is_at_rest_has_not_ended(connect: Connect) -> None:
    connection, other = connect(), connect()
    ask(connection)
    connection.commit()
    assert not connection.has_ended()
    ask(other, f"SELECT pg_terminate_backend({backend(connection)}, 5000)")
    assert connection.has_ended()


def test_where_each_statement_is_committed_none_begins_a_transaction(connect: Connect) -> None:
    connection = connect()
    connection.autocommit = True
    assert ask(connection, "SELECT 1") == (1,)
    assert connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE


# -- connecting ------------------------------------------------------------------------------------


def late_connections(connecting: Connecting, connect: Connect, many: int) -> list[Any]:
    """Those that were made when nobody waited for them any more."""
    wanted, late = Event(), SimpleQueue[BoundedConnection]()

    def connect_late() -> BoundedConnection:
        assert wanted.wait(30)
        late.put(made := connect())
        return made

    for _ in range(many):
        with pytest.raises(NoAnswer):
            connecting.within(0.05, connect_late)
    wanted.set()
    return [late.get(timeout=30) for _ in range(many)]


def nobody_connects() -> BoundedConnection:
    raise AssertionError("there is one")


def test_one_that_came_too_late_is_for_who_comes_next(connect: Connect) -> None:
    """All others are closed: they are more than the pool would have."""
    connecting = Connecting(3)
    late = late_connections(connecting, connect, 3)
    wait_until(lambda: sum(one.closed for one in late) == 2)
    (kept,) = (one for one in late if not one.closed)
    assert connecting.within(10, nobody_connects) is kept
    assert connecting.within(10, connect) not in late


def test_one_that_came_too_late_is_not_kept_for_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting = Connecting(1)
    (late,) = late_connections(connecting, connect, 1)
    wait_until(lambda: not connecting._late.empty())
    monkeypatch.setattr(bounded, "_KEPT", 0)
    assert connecting.within(10, connect) is not late
    assert late.closed


def test_where_no_time_is_left_nobody_connects() -> None:
    with pytest.raises(NoAnswer):
        Connecting(1).within(0, nobody_connects)


def test_who_no_longer_waits_has_nobody_connect(connect: Connect) -> None:
    """They queue while a server is frozen."""
    connecting, over, tried = Connecting(1), Event(), []
    try:
        for work in (lambda: over.wait(30), lambda: tried.append(1)):
            with pytest.raises(NoAnswer):
                connecting.within(0.05, work)  # type: ignore[arg-type]
    finally:
        over.set()
    assert connecting.within(10, connect).closed == 0
    assert not tried


def test_why_there_is_no_connection_is_told(tmp_path: Path) -> None:
    with pytest.raises(psycopg2.OperationalError) as raised:
        Connecting(1).within(10, lambda: psycopg2.connect(host=str(tmp_path)))
    assert not isinstance(raised.value, NoAnswer)


# -- descriptors are reused ------------------------------------------------------------------------


@contextmanager
def pair_with(descriptor: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, the first of which has got this descriptor, which was free."""
    made = socket.socketpair()
    with made[0], made[1]:
        if made[1].fileno() == descriptor:
            made = made[1], made[0]
        elif made[0].fileno() != descriptor:
            os.dup2(made[0].fileno(), descriptor)
            moved = socket.socket(fileno=descriptor)
            made[0].close()
            made = moved, made[1]
        with made[0]:
            yield made


def works(pair: tuple[socket.socket, socket.socket]) -> bool:
    try:
        pair[0].sendall(b"x")
        return pair[1].recv(1) == b"x"
    except OSError:
        return False


def test_a_wait_that_is_over_cuts_nothing_later(connect: Connect) -> None:
    connection = connect()
    descriptor = connection.fileno()
    ask(connection)  # begins the transaction, so that little is left to do before the deadline
    seconds = 1.0
    with deadline(seconds):
        ask(connection)
    connection.close()
    with pair_with(descriptor) as pair:
        time.sleep(seconds + 0.3)
        assert works(pair)


def test_who_waited_goes_on_only_when_the_cut_is_done(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the descriptor could be closed, and be another's, between decision and cut."""
    cutting, cut, over = Event(), Event(), Event()
    shut = bounded._shut

    def slowly(wait: Any) -> None:
        cutting.set()
        assert cut.wait(30)
        shut(wait)

    monkeypatch.setattr(bounded, "_shut", slowly)
    connection = connect()

    def work() -> None:
        with deadline(0.1):
            bounded._bounded(connection, lambda: cutting.wait(30))
        over.set()

    worker = Thread(target=work, daemon=True)
    worker.start()
    assert cutting.wait(30)
    assert not over.wait(0.3)
    cut.set()
    assert over.wait(30)
    worker.join(30)


def test_a_cut_does_not_hit_what_took_the_place_of_a_lost_connection(connect: Connect) -> None:
    """libpq closes a connection as soon as it finds it lost, while the wait is still noted."""
    connection, other = connect(), connect()
    descriptor = connection.fileno()
    ask(other, f"SELECT pg_terminate_backend({backend(connection)}, 5000)")

    def lose_it() -> None:
        with suppress(psycopg2.Error):
            extensions.cursor(connection).execute("SELECT 1")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        with pair_with(descriptor) as pair:
            time.sleep(0.8)
            assert works(pair)

    with deadline(0.4):
        bounded._bounded(connection, lose_it)


# -- other processes, other connections ------------------------------------------------------------


def test_a_forked_process_has_its_own_watch(connect: Connect, postgres: dev.Server) -> None:
    ask(connect())  # here the thread runs, which the child does not inherit
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            mine = psycopg2.connect(postgres.url, connection_factory=BoundedConnection)
            with frozen(backend(mine)), deadline(0.3):
                status = 0 if isinstance(ends(lambda: ask(mine)), NoAnswer) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_other_connections_of_the_process_are_left_alone(
    connect: Connect, postgres: dev.Server
) -> None:
    """Those of an app that embeds us: COPY works, and they wait as long as they like."""
    ask(connect())
    with closing(psycopg2.connect(postgres.url)) as theirs, theirs.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE notes (note text)")
        cursor.copy_expert("COPY notes FROM STDIN", io.StringIO("one\ntwo\n"))
        out = io.StringIO()
        cursor.copy_expert("COPY notes TO STDOUT", out)
        assert out.getvalue() == "one\ntwo\n"
        with deadline(0.1):
            cursor.execute("SELECT pg_sleep(0.6)")
        name = sql.Identifier("notes")
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
        assert cursor.fetchone() == (2,)


# -- where there are no threads --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "module", "question"),
    [
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ],
)
def test_greenlets_in_place_of_threads_are_refused_in_one_line(
    library: str, module: str, question: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whoever serves: the product by any server, and an app that embeds it."""
    patched = ModuleType(module)
    setattr(patched, question, lambda _name: True)
    monkeypatch.setitem(sys.modules, module, patched)
    with pytest.raises(SettingError, match=f"^{library} has replaced threads"):
        create_app(config)
    with pytest.raises(SettingError, match=f"^{library} has replaced threads"):
        Auth(Flask("embedding"), config)
    setattr(patched, question, lambda _name: False)  # it was only imported
    bounded.require_threads()
