"""A web app that knows nothing of log-in. It tells what it was sent, at once or after `/later?2`
seconds, and echoes WebSockets."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HANDSHAKE = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class _Telling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each body waits for a delayed ACK

    def answer(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo()
            return
        if self.path.startswith("/later?"):
            time.sleep(float(self.path.removeprefix("/later?")))
        told = {
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "body": self._read_body(),
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Any:
        """Any method is answered alike."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def _read_body(self) -> int:
        """How many bytes came."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        total = 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            total += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return total

    def _echo(self) -> None:
        """Whatever arrives after the handshake, once, as it is: the frame stays masked."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key + _HANDSHAKE).digest())
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.send_header("Remote-User-Seen", self.headers.get("Remote-User", ""))
        self.end_headers()
        self.connection.sendall(self.connection.recv(1_000))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Says nothing of proxies that hang up."""


@contextmanager
def telling_app() -> Iterator[int]:
    """Its port of 127.0.0.1."""
    server = _Server(("127.0.0.1", 0), _Telling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
