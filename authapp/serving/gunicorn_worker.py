"""gunicorn's threaded worker, whose threads never wait for a client to send the rest of a request.

gunicorn hands a connection to a thread at its first byte. A client that stops in the middle would
keep the thread for as long as it likes, so a few of them would stop everybody.
"""

import re
import socket
import struct
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import util
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from authapp.serving import bounds

HEAD = 131_072  # bytes
BODY = 65_536  # bytes; the app reads no more (`authapp.web.api.bodies`), so no more is waited for
FRAMED = 1_048_576  # bytes of a chunked body with the lines between its chunks
LINE = 8_190  # bytes between two chunks

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,10})[ \t]*\r\n")
_SIZE = re.compile(rb"([0-9a-f]{1,8})[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_MORE, _WHOLE = -1, 0
_LINGER = 2.0  # seconds


class Incoming:
    """A request that is arriving. It only tells when to ask gunicorn, who reads it then.

    Attributes:
        expects: the client waits for `100 Continue` before it sends the body.
        status: what `add` returned last.
        is_long: the app will refuse the body, so the rest of it is not waited for.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.expects = False
        self.is_long = False
        self.status = _MORE
        self._body: int | None = None  # where it begins
        self._end = 0
        self._chunk: int | None = None  # where the one begins that has not arrived, or its size
        self._chunks_length = 0

    def add(self, data: bytes) -> int:
        self.status = self._look_at(data)
        return self.status

    def _look_at(self, data: bytes) -> int:
        """
        Returns:
            _MORE; _WHOLE, also when gunicorn will refuse it; or a status to refuse it with.
        """
        searched = max(0, len(self.data) - 3)
        self.data += data
        if self._body is None:
            end = self.data.find(b"\r\n\r\n", searched)
            if self.data.find(b"\n\n", searched, end if end >= 0 else len(self.data)) >= 0:
                return _WHOLE
            if end < 0:
                return 431 if len(self.data) > HEAD else _MORE
            self._read_head(end + 4)
        if self._chunk is not None:
            return self._find_chunks(self._chunk)
        return _WHOLE if len(self.data) >= self._end else _MORE

    def _read_head(self, body: int) -> None:
        head = bytes(self.data[: body - 2]).lower()
        self._body = self._end = body
        if b"\r\ntransfer-encoding:" in head:
            self._chunk = body
        elif found := _LENGTH.search(head):
            self.is_long = int(found[1]) > BODY
            self._end = body + (0 if self.is_long else int(found[1]))
        has_body = self._chunk is not None or self._end > body
        is_new = head.partition(b"\r\n")[0].endswith(b" http/1.1")
        self.expects = has_body and is_new and b"\r\nexpect:" in head

    def _find_chunks(self, begin: int) -> int:
        while True:
            self._chunk = begin
            if len(self.data) > FRAMED:
                return 413
            line = self.data.find(b"\r\n", begin)
            if line < 0:
                return _WHOLE if len(self.data) - begin > LINE else _MORE
            size = _SIZE.fullmatch(self.data, begin, line)
            if not size:
                return _WHOLE
            length = int(size[1], 16)
            if length == 0:
                if self.data.find(b"\r\n\r\n", line) >= 0:
                    return _WHOLE
                return 431 if len(self.data) - line > LINE else _MORE
            end = line + 2 + length + 2
            if self._chunks_length + min(length, len(self.data) - line - 2) > BODY:
                self.is_long = True
                return _WHOLE
            if len(self.data) < end:
                return _MORE
            if self.data[end - 2 : end] != b"\r\n":
                return _WHOLE
            self._chunks_length += length
            begin = end


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """Receives what does not arrive at once in the loop that accepts connections, and hands it to a
    thread again when it is whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # in the order of their deadlines
        self._silent: dict[TConn, float] = {}  # nothing has come yet
        self._receiving: dict[TConn, float] = {}
        self._incoming: dict[TConn, Incoming] = {}
        self._leaving: dict[TConn, float] = {}  # answered; the client has not closed yet

    def enqueue_req(self, conn: TConn) -> None:
        if conn.parser is None and not self.cfg.is_ssl:
            _bound_waits(conn.sock)
            conn.close = partial(self._leave, conn)
        conn.has_arrived = self.cfg.is_ssl  # it can't be seen before a thread has decrypted it
        super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        """In a thread. Most requests arrive at once; others go back to the loop."""
        if conn.has_arrived:
            return super().handle(conn)
        incoming = Incoming()
        data = conn.parser.unreader.take_buffered() if conn.parser else b""
        if not data:
            conn.sock.setblocking(False)
            try:
                data = conn.sock.recv(65_536)
            except BlockingIOError:
                return incoming
            except OSError:
                return False
            if not data:
                return False
        if incoming.add(data) != _WHOLE:
            return incoming
        self._give(conn, incoming, whole=not incoming.is_long)
        return super().handle(conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """In the loop, after `handle`."""
        unfinished = None if fs.cancelled() or fs.exception() else fs.result()
        if not isinstance(unfinished, Incoming):
            super().finish_request(conn, fs)
            return
        conn.sock.setblocking(False)
        self._incoming[conn] = unfinished
        if self._is_more_needed(conn, unfinished.status):
            self._receive(conn)

    def _give(self, conn: TConn, incoming: Incoming, *, whole: bool) -> None:
        """Has gunicorn read what has arrived, before it asks the connection for more."""
        conn.is_partial = not whole
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
        if status == _WHOLE:
            self._hand_over(conn, whole=not incoming.is_long)
        elif status == _MORE:
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
            self._silent[conn] = now + self.cfg.keepalive
        self.poller.register(conn.sock, EVENT_READ, lambda _socket: self._receive(conn))

    def _forget(self, conn: TConn) -> Incoming:
        if self._silent.pop(conn, None) or self._receiving.pop(conn, None):
            self.poller.unregister(conn.sock)
        return self._incoming.pop(conn)

    def _hand_over(self, conn: TConn, *, whole: bool) -> None:
        self._give(conn, self._forget(conn), whole=whole)
        super().enqueue_req(conn)

    def _close(self, conn: TConn, status: int | None = None) -> None:
        self._forget(conn)
        if status is not None:
            with suppress(OSError):
                conn.sock.send(_REFUSALS[status])
        self.nr_conns -= 1
        conn.close()

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # gunicorn would wait for the rest of a body that the app refused, and give a second answer
        # to a request whose body it finds to be malformed after the first
        try:
            return bool(super()._keepalive_after(conn, keepalive and not conn.is_partial))
        except ParseException:
            return False

    def _leave(self, conn: TConn, graceful: bool = False) -> None:
        """In place of `TConn.close`, which waits for the client to close: in the loop, for 2 s."""
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
        for waiting, status in ((self._receiving, 408), (self._silent, None)):
            while waiting:
                conn, deadline = next(iter(waiting.items()))
                if deadline > now and self.nr_conns < self.worker_connections:
                    break
                self._close(conn, status)
        while self._leaving and next(iter(self._leaving.values())) <= now:
            self._part_with(next(iter(self._leaving)))


_REFUSALS = {
    status: f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    for status, text in {
        408: "Request Timeout",
        413: "Content Too Large",
        431: "Request Header Fields Too Large",
    }.items()
}


def _bound_waits(connection: socket.socket) -> None:
    """For what a thread still waits for: a client that does not take the answer, above all."""
    seconds = struct.pack("ll", bounds.RECEIVE, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
