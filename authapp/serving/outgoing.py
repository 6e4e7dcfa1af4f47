"""`Outgoing`: the socket of a client, which takes an answer without making its thread wait."""

import socket
from contextlib import suppress
from typing import Any, BinaryIO, Self

_KEPT = 1_048_576  # bytes of an answer; a longer one makes its thread wait after all
_BLOCK = 65_536  # bytes of a file


class Outgoing(socket.socket):
    """Keeps what the client does not take at once. gunicorn's loop sends that, and begins no other
    request of the connection before.

    Attributes:
        unsent: the rest of the answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unsent = bytearray()

    @classmethod
    def taking_over(cls, connection: socket.socket) -> Self:
        kind = connection.family, connection.type, connection.proto
        return cls(*kind, fileno=connection.detach())

    def sendall(self, data: Any, flags: int = 0) -> None:
        sent = 0
        if not self.unsent:
            with suppress(BlockingIOError):
                sent = self.send(data, flags | socket.MSG_DONTWAIT)
            if sent == len(data):
                return
        self.unsent += memoryview(data)[sent:]
        if len(self.unsent) > _KEPT:
            super().sendall(self.unsent)
            self.unsent.clear()

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:  # type: ignore[override]
        file.seek(offset)
        left = count
        sent = 0
        while block := file.read(_BLOCK if left is None else min(_BLOCK, left)):
            self.sendall(block)
            sent += len(block)
            left = None if left is None else left - len(block)
        return sent

    def send_rest(self) -> None:
        """Sends as much of the rest as the client takes now.

        Raises:
            OSError: the client is gone; BlockingIOError: it takes nothing.
        """
        del self.unsent[: self.send(self.unsent, socket.MSG_DONTWAIT)]
