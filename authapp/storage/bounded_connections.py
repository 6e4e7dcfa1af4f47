"""Connections to Postgres whose every wait ends, also when the server is frozen.

The server's own time-outs need a server that runs, and TCP's a host that is gone. So each wait of
ours is noted here, and a thread cuts the connection of one that takes too long. psycopg2's own way,
a wait callback, would hold for all its connections in the process: an app that embeds us could no
longer use COPY on its own.
"""

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, cast

import psycopg2
from psycopg2 import extensions

from authapp.errors import SettingError
from authapp.storage.deadlines import remaining
from authapp.telemetry.forks import start_in_forks

PATIENCE = 3.0  # seconds; for one wait, unless a deadline comes first
_TICK = 0.05  # seconds a wait may take too long
_IDLE = 100  # ticks without a wait until the thread goes to sleep
_KEPT = 10.0  # seconds that a connection which came too late waits for somebody


def require_threads() -> None:
    """
    Raises:
        SettingError: gevent or eventlet has put greenlets in the place of threads. psycopg2 lets
            none of them run while it waits, so nothing would cut a wait that takes too long.
    """
    for library, module, question, name in (
        ("gevent", "gevent.monkey", "is_module_patched", "threading"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        if module in sys.modules and getattr(sys.modules[module], question)(name):
            raise SettingError(
                f"{library} has replaced threads, without which a frozen Postgres stops all "
                "requests: serve with threads, as `gunicorn -k gthread` does"
            )


class NoAnswer(psycopg2.OperationalError):
    """The server did not answer in time; the connection was cut."""


@dataclass(eq=False, slots=True)
class _Wait:
    descriptor: int
    socket: os.stat_result  # what the descriptor stood for at the beginning
    ends: float
    cut: bool = False


class _Watch:
    """Cuts the connections of waits that take too long. Its thread starts at the first wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: set[_Wait] = set()
        self._needed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, descriptor: int, seconds: float) -> _Wait:
        wait = _Wait(descriptor, os.fstat(descriptor), time.monotonic() + seconds)
        with self._lock:
            if self._thread is None:
                self._thread = self._start()
            self._waits.add(wait)
        if not self._needed.is_set():
            self._needed.set()
        return wait

    def end(self, wait: _Wait) -> None:
        # under the lock: once it has returned, something else may get the same descriptor
        with self._lock:
            self._waits.discard(wait)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="postgres-watch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has none to give, and no wait would end
            raise NoAnswer("there is no thread that would bound the wait") from error
        return thread

    def _run(self) -> None:
        idle = 0
        while True:
            self._needed.wait()
            time.sleep(_TICK)
            with self._lock:
                now = time.monotonic()
                for wait in self._waits:
                    if now >= wait.ends and not wait.cut:
                        wait.cut = True
                        _shut(wait)
                idle = 0 if self._waits else idle + 1
                if idle > _IDLE:
                    idle = 0
                    self._needed.clear()


def _shut(wait: _Wait) -> None:
    try:  # without a descriptor more: there may be none left when a server hangs
        connection = socket.socket(fileno=wait.descriptor)
    except OSError:
        return  # the other side was faster
    try:
        # libpq closes a connection that it lost, and the descriptor may be something else's by now
        if os.path.samestat(os.fstat(wait.descriptor), wait.socket):
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # as above
    finally:
        connection.detach()  # it stays libpq's to close


_watch = _Watch()


def _start_anew() -> None:
    global _watch  # noqa: PLW0603 — a forked process has the waits of its parent, and no thread
    _watch = _Watch()


os.register_at_fork(after_in_child=_start_anew)


def _bounded(connection: extensions.connection, act: Callable[..., object], *given: Any) -> None:
    """Call `act`, and cut the connection if that takes too long.

    Raises:
        NoAnswer: the connection was cut.
    """
    if connection.closed or connection.fileno() < 0:  # psycopg2 says so itself
        act(*given)
        return
    watch = _watch
    wait = watch.begin(connection.fileno(), remaining(PATIENCE))
    try:
        act(*given)
    except psycopg2.Error as error:
        if wait.cut:
            raise NoAnswer("the server did not answer in time; the connection was cut") from error
        raise
    finally:
        watch.end(wait)


class BoundedCursor(extensions.cursor):
    """A cursor of a `BoundedConnection`. Its first statement begins the transaction."""

    connection: "BoundedConnection"

    def execute(self, query: Any, vars: Any = None, *, alone: bool = False) -> None:
        """
        Args:
            alone: begins no transaction.
        """
        connection = self.connection
        if not alone and connection.is_to_begin():
            if isinstance(query, str):
                query = f"BEGIN;{query}"  # one round trip for both
            else:
                self.run("BEGIN")
        _bounded(connection, super().execute, query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        if self.connection.is_to_begin():
            self.run("BEGIN")
        _bounded(self.connection, super().executemany, query, vars_list)

    def run(self, command: str) -> None:
        """Runs a command that begins or ends a transaction."""
        _bounded(self.connection, super().execute, command)


class BoundedConnection(extensions.connection):
    """Waits at most `PATIENCE` for each answer, or until the deadline (`deadlines.deadline`).

    psycopg2 sends BEGIN, and waits for the answer, before it sends the first statement of a
    transaction. Here BEGIN goes along with that statement. So for psycopg2 the connection commits
    each statement by itself, and BEGIN, COMMIT and ROLLBACK are statements of ours.

    Attributes:
        autocommit: whether each statement is committed by itself.
    Raises:
        NoAnswer: from whatever waits.
    """

    autocommit = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = BoundedCursor  # psycopg2 does not see an attribute of the class
        self.set_session(autocommit=True)

    def is_to_begin(self) -> bool:
        """Whether the next statement has to begin a transaction."""
        idle = self.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        return idle and not self.autocommit

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def has_ended(self) -> bool:
        """Whether something came that nobody asked for, most likely the end of the connection. It
        asks the operating system, and not the server."""
        arrived = select.poll()
        arrived.register(self.fileno(), select.POLLIN)
        return bool(arrived.poll(0))

    def _end(self, how: str) -> None:
        if self.closed or self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
            with self.cursor() as cursor:  # psycopg2 raises its error where it is closed
                cast(BoundedCursor, cursor).run(how)


class Connecting:
    """Connects on threads of its own, so that nobody waits longer than they may: libpq counts whole
    seconds, for each address, and looks up names for as long as that takes.

    Args:
        at_once: threads; while that many wait for a server, others wait for one of them.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._start()
        start_in_forks(self._start)

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(self._at_once, "postgres-connect")  # starts none yet
        self._late: Queue[tuple[float, extensions.connection]] = Queue(1)

    def within(
        self, seconds: float, connect: Callable[[], extensions.connection]
    ) -> extensions.connection:
        """A connection from `connect`: of this call, or of an earlier one that gave up waiting.

        Raises:
            NoAnswer: there was none in time.
        """
        if seconds <= 0:
            raise NoAnswer("there is no time left to connect")
        if (kept := self._take_late()) is not None:
            return kept
        try:
            made = self._threads.submit(connect)
        except RuntimeError as error:  # the system has none to give, or the process ends
            raise NoAnswer(str(error)) from None
        try:
            return made.result(seconds)
        except TookTooLong:
            if not made.cancel():
                made.add_done_callback(self._keep)
            raise NoAnswer("the server did not answer in time to connect") from None

    def _keep(self, made: "Future[extensions.connection]") -> None:
        # Or a server that always takes longer, as one whose first address is dead, would never do.
        if made.exception() is not None:
            return
        try:
            self._late.put_nowait((time.monotonic(), made.result()))
        except Full:
            made.result().close()

    def _take_late(self) -> extensions.connection | None:
        try:
            since, connection = self._late.get_nowait()
        except Empty:
            return None
        if time.monotonic() - since < _KEPT:
            return connection
        connection.close()  # the server may be another by now
        return None
