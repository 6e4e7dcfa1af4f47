"""gunicorn's threaded worker, whose threads never wait for a client to send the rest of a request.

gunicorn hands a connection to a thread at its first byte. A client that stops in the middle would
keep the thread for as long as it likes, so a few of them would stop everybody.

Between two requests of a connection gunicorn wakes its loop once more, makes a future, and looks
settings up through two calls each. Together that takes a third of the time of a bare answer, so
here a thread hands a connection back by itself.
"""

import errno
import resource
import select
import socket
import struct
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn import util
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from authapp.serving import bounds
from authapp.serving.incoming import MORE, WHOLE, Incoming
from authapp.serving.outgoing import Outgoing
from authapp.serving.request_threads import Threads

_LINGER = 2.0  # seconds
_OWN_FILES = 128  # descriptors of a worker beside those of its clients, and some to spare
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_ROOM_PAUSE = 0.01  # seconds
_ONCE = select.EPOLLIN | select.EPOLLONESHOT


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """Receives what does not arrive at once in the loop that accepts connections, and hands it to a
    thread again when it is whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # in the order of their deadlines
        self._silent: dict[TConn, float] = {}  # nothing has come yet
        self._receiving: dict[TConn, float] = {}
        self._sending: dict[TConn, float] = {}  # the client does not take the answer at once
        self._incoming: dict[TConn, Incoming] = {}
        self._leaving: dict[TConn, float] = {}  # answered; the client has not closed yet
        self._answered: dict[int, TConn] = {}  # by descriptor: answered in full at least once

    def init_process(self) -> None:
        # else each look at a setting takes two calls, and a request takes 17 looks
        self.cfg.__dict__.update({name: one.get() for name, one in self.cfg.settings.items()})
        self._next_requests = select.epoll()
        # as many again may have been answered, and not have closed yet
        wanted, threads = self.cfg.worker_connections, self.cfg.threads
        room = (_raise_limit(2 * wanted + _OWN_FILES) - _OWN_FILES) // 2
        self.worker_connections: int = min(wanted, max(room, threads + 1))
        self.max_keepalived = self.worker_connections - threads
        super().init_process()

    def run(self) -> None:
        self.poller.register(self._next_requests, EVENT_READ, self._begin_next)
        try:
            super().run()
        finally:  # whatever ended the loop: idle threads would keep the process
            self.tpool.shutdown()

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads)

    def accept(self, listener: socket.socket) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._let_slow_ones_go(1)
            time.sleep(_NO_ROOM_PAUSE)  # there may be none that can go

    def enqueue_req(self, conn: TConn) -> None:
        if conn.parser is None and not self.cfg.is_ssl:
            conn.sock = Outgoing.taking_over(conn.sock)
            _bound_waits(conn.sock)
            conn.close = partial(self._leave, conn)
        conn.has_arrived = self.cfg.is_ssl  # it can't be seen before a thread has decrypted it
        conn.is_partial, conn.has_body = False, True
        self.tpool.submit(partial(self._answer, conn))

    def _answer(self, conn: TConn) -> None:
        """In a thread: answers a request, and says what comes next for the connection."""
        future: Future[Any] = Future()
        try:
            result = self.handle(conn)
            if result is True and not _unsent(conn) and self._await_next(conn):
                return
            future.set_result(result)
        except BaseException as error:  # noqa: BLE001 — the loop raises it, as with an executor
            future.set_exception(error)
        self.method_queue.defer(self.finish_request, conn, future)

    def _await_next(self, conn: TConn) -> bool:
        """Waits for the next request without waking the loop; else `finish_request` sees to it."""
        if not self.alive or self.cfg.is_ssl or conn.parser.unreader.buf.getvalue():
            return False
        descriptor = conn.sock.fileno()
        conn.set_timeout()
        self.keepalived_conns.append(conn)  # before the loop can see the next request
        if not self.alive:  # the loop may have looked through them already
            conn.timeout = time.monotonic() + _LINGER
        with suppress(OSError, ValueError):  # the loop ended in the meantime
            if self._answered.get(descriptor) is conn:
                self._next_requests.modify(descriptor, _ONCE)
            else:
                self._answered[descriptor] = conn
                self._next_requests.register(descriptor, _ONCE)
        return True

    def _begin_next(self, _epoll: select.epoll) -> None:
        """In the loop: requests have come over connections that had one before."""
        for descriptor, _ in self._next_requests.poll(0):
            conn = self._answered.get(descriptor)
            with suppress(ValueError):  # closed, and a process that was forked holds it open
                self.keepalived_conns.remove(conn)
                self.enqueue_req(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        # of a copy: a thread may be adding its connection
        for conn in tuple(self.keepalived_conns):
            conn.timeout = min(conn.timeout, deadline)
        for conn, timeout in self._silent.items():
            self._silent[conn] = min(timeout, deadline)

    def handle(self, conn: TConn) -> Any:
        """In a thread. Most requests arrive at once; others go back to the loop."""
        if conn.has_arrived:
            return super().handle(conn)
        incoming = Incoming()
        data = conn.parser.unreader.take_buffered() if conn.parser else b""
        if not data:
            try:
                data = conn.sock.recv(65_536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return incoming
            except OSError:
                return False
            if not data:
                return False
        if incoming.add(data) != WHOLE:
            return incoming
        self._give(conn, incoming, whole=not incoming.is_long)
        return super().handle(conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """In the loop, after `handle`."""
        unfinished = None if fs.cancelled() or fs.exception() else fs.result()
        if unfinished is not None and _unsent(conn):
            conn.sock.setblocking(False)
            self._sending[conn] = time.monotonic() + bounds.RECEIVE
            self.poller.register(conn.sock, EVENT_WRITE, lambda _socket: self._send_rest(conn, fs))
            return
        if not isinstance(unfinished, Incoming):
            super().finish_request(conn, fs)
            return
        conn.sock.setblocking(False)
        self._incoming[conn] = unfinished
        if self._is_more_needed(conn, unfinished.status):
            self._receive(conn)

    def _send_rest(self, conn: TConn, fs: "Future[Any]") -> None:
        """Sends what the client takes now of the rest of an answer."""
        try:
            conn.sock.send_rest()
        except BlockingIOError:
            return
        except OSError:
            self._close(conn)
            return
        del self._sending[conn]
        if conn.sock.unsent:
            self._sending[conn] = time.monotonic() + bounds.RECEIVE
        else:
            self.poller.unregister(conn.sock)
            self.finish_request(conn, fs)

    def _give(self, conn: TConn, incoming: Incoming, *, whole: bool) -> None:
        """Has gunicorn read what has arrived, before it asks the connection for more."""
        conn.is_partial, conn.has_body = not whole, incoming.has_body
        conn.init()
        conn.parser.unreader.unread(bytes(incoming.data))
        conn.has_arrived = conn.data_ready = True

    def _receive(self, conn: TConn) -> None:
        """Takes what has arrived."""
        while True:
            try:
                data = conn.sock.recv(65_536)
            except BlockingIOError:
                self._wait(conn)
                return
            except OSError:
                self._close(conn)
                return
            if not data:  # the client sends no more; of half a request gunicorn says what it means
                if self._incoming[conn].data:
                    self._hand_over(conn, whole=False)
                else:
                    self._close(conn)
                return
            if not self._is_more_needed(conn, self._incoming[conn].add(data)):
                return

    def _is_more_needed(self, conn: TConn, status: int) -> bool:
        """Otherwise a thread has the request now, or it was refused."""
        incoming = self._incoming[conn]
        if status == WHOLE:
            self._hand_over(conn, whole=not incoming.is_long)
        elif status == MORE:
            if incoming.expects:
                incoming.expects = False
                with suppress(OSError):
                    conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        else:
            self._close(conn, status)
        return False

    def _wait(self, conn: TConn) -> None:
        """Until there is more, or it is too late."""
        now, begun = time.monotonic(), bool(self._incoming[conn].data)
        if conn in self._silent or conn in self._receiving:
            if begun and self._silent.pop(conn, None) is not None:
                self._receiving[conn] = now + bounds.RECEIVE
            return
        if begun:
            self._receiving[conn] = now + bounds.RECEIVE
        else:
            self._silent[conn] = now + (self.cfg.keepalive if self.alive else _LINGER)
        self.poller.register(conn.sock, EVENT_READ, lambda _socket: self._receive(conn))

    def _forget(self, conn: TConn) -> None:
        if any(slow.pop(conn, None) for slow in (self._silent, self._receiving, self._sending)):
            self.poller.unregister(conn.sock)
        self._incoming.pop(conn, None)

    def _hand_over(self, conn: TConn, *, whole: bool) -> None:
        incoming = self._incoming[conn]
        self._forget(conn)
        self._give(conn, incoming, whole=whole)
        self.tpool.submit(partial(self._answer, conn))

    def _close(self, conn: TConn, status: int | None = None) -> None:
        self._forget(conn)
        if status is not None:
            with suppress(OSError):
                conn.sock.send(_REFUSALS[status])
        self.nr_conns -= 1
        conn.close()

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        if not conn.has_body:
            return keepalive and not conn.is_partial
        # gunicorn would wait for the rest of a body that the app refused, and give a second answer
        # to a request whose body it finds to be malformed after the first
        try:
            return bool(super()._keepalive_after(conn, keepalive and not conn.is_partial))
        except ParseException:
            return False

    def _leave(self, conn: TConn, graceful: bool = False) -> None:
        """In place of `TConn.close`, which waits for the client to close: in the loop, for 2 s."""
        self._answered.pop(conn.sock.fileno(), None)
        if graceful and len(self._leaving) < self.worker_connections:
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
                conn.sock.setblocking(False)
                self.poller.register(conn.sock, EVENT_READ, lambda _socket: self._drain(conn))
                self._leaving[conn] = time.monotonic() + _LINGER
                return
        util.close(conn.sock)

    def _drain(self, conn: TConn) -> None:
        """Reads what the client still sends: unread, it would have the answer thrown away."""
        try:
            if conn.sock.recv(65_536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._part_with(conn)

    def _part_with(self, conn: TConn) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        util.close(conn.sock)

    def murder_pending(self) -> None:
        """Called after each round of the loop: lets slow clients go, if need be the slowest."""
        super().murder_pending()
        now = time.monotonic()
        while self._leaving and next(iter(self._leaving.values())) <= now:
            self._part_with(next(iter(self._leaving)))
        self._let_slow_ones_go(max(0, self.nr_conns + 1 - self.worker_connections))

    def _let_slow_ones_go(self, surplus: int) -> None:
        """Closes connections that are late, and so many more, those first that are missed least."""
        now = time.monotonic()
        for slow, status in ((self._silent, None), (self._receiving, 408), (self._sending, None)):
            while slow:
                conn, deadline = next(iter(slow.items()))
                if deadline > now and surplus <= 0:
                    break
                self._close(conn, status)
                surplus -= 1


_REFUSALS = {
    status: f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    for status, text in {
        408: "Request Timeout",
        413: "Content Too Large",
        431: "Request Header Fields Too Large",
    }.items()
}


def _unsent(conn: TConn) -> bool:
    return isinstance(conn.sock, Outgoing) and bool(conn.sock.unsent)


def _raise_limit(wanted: int) -> int:
    """Has this process open so many files, if it may; how many it may open then."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= wanted:
        return wanted
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return allowed


def _bound_waits(connection: socket.socket) -> None:
    """For what a thread still waits for: the rest of a request with an odd end, above all."""
    seconds = struct.pack("ll", bounds.RECEIVE, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
