"""Mails for a benchmark: who writes them down, and a server that takes them."""

import socketserver
import threading
import time

from authapp.accounts.emails import parse_email
from authapp.config import Config
from authapp.mail.outbox import Mail
from authapp.mail.sending import BATCH
from authapp.services import Services, build_services
from benchmarks.servers import BenchmarkError

MAILS_A_SECOND = 1000 / 60
LINK = f"https://auth.example.org/verify?token={'t' * 43}"


class MailSink:
    """A mail server that takes everything and looks at nothing, so that it costs little itself."""

    def __init__(self) -> None:
        self.taken = 0
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 sink")
                while line := self.rfile.readline():
                    command = line[:4].upper()
                    if command == b"QUIT":
                        return
                    if command == b"DATA":
                        self._say("354 go on")
                        while self.rfile.readline() not in {b".\r\n", b""}:
                            pass
                        sink.taken += 1
                    self._say("250 OK")

            def _say(self, answer: str) -> None:
                self.wfile.write(f"{answer}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"smtp://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def cost_alone(settings: dict[str, str], number: int) -> float:
    """Seconds of a processor that the sending thread takes for a mail, with nothing beside it.

    It counts the time of the thread alone, so a machine that is busy otherwise changes it little.
    """
    services = build_services(Config.from_mapping(settings), None)
    sender = services.mail_sender
    assert sender is not None
    for _ in range(number + BATCH):
        _write(services)
    sender.send_batch()  # templates are read, the connection is open
    before = time.thread_time()
    while sender.send_batch():
        pass
    took = time.thread_time() - before
    services.close()
    return took / number


def write_mails(settings: dict[str, str], seconds: float) -> int:
    """Writes mails down, evenly, as another instance would; how many."""
    services = build_services(Config.from_mapping(settings), None)
    begins, written = time.perf_counter(), 0
    while (passed := time.perf_counter() - begins) < seconds:
        if written > passed * MAILS_A_SECOND:
            time.sleep(0.01)
            continue
        _write(services)
        written += 1
    services.close()
    return written


def _write(services: Services) -> None:
    to = parse_email(f"person{time.time_ns()}@example.org")
    context = {"link": LINK, "code": "12345678", "name": "Ada Lovelace"}
    with services.database.transaction() as db:
        if not services.outbox.put(db, Mail("verify", to, context)):
            raise BenchmarkError("a cap refused a mail")
