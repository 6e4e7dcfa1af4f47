"""`Incoming`: a request that is arriving over a connection, until it is whole."""

import re

HEAD = 131_072  # bytes
BODY = 65_536  # bytes; the app reads no more (`authapp.web.api.bodies`), so no more is waited for
FRAMED = 1_048_576  # bytes of a chunked body with the lines between its chunks
LINE = 8_190  # bytes between two chunks

MORE, WHOLE = -1, 0  # what `Incoming.add` returns, beside a status

# gunicorn takes numbers with any number of zeros in front
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]+)[ \t]*\r\n")
_SIZE = re.compile(rb"([0-9a-f]+)[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DIGITS = len(str(BODY))


class Incoming:
    """A request that is arriving. It only tells when to ask gunicorn, who reads it then.

    Attributes:
        expects: the client waits for `100 Continue` before it sends the body.
        status: what `add` returned last.
        has_body: False once it is known to have none.
        is_long: the app will refuse the body, so the rest of it is not waited for.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.expects = False
        self.is_long = False
        self.has_body = True
        self.status = MORE
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
            MORE; WHOLE, also when gunicorn will refuse it; or a status to refuse it with.
        """
        searched = max(0, len(self.data) - 3)
        self.data += data
        if self._body is None:
            end = self.data.find(b"\r\n\r\n", searched)
            if self.data.find(b"\n\n", searched, end if end >= 0 else len(self.data)) >= 0:
                return WHOLE
            if end < 0:
                return 431 if len(self.data) > HEAD else MORE
            self._read_head(end + 4)
        if self._chunk is not None:
            return self._find_chunks(self._chunk)
        return WHOLE if len(self.data) >= self._end else MORE

    def _read_head(self, body: int) -> None:
        head = bytes(self.data[: body - 2]).lower()
        self._body = self._end = body
        if b"\r\ntransfer-encoding:" in head:
            self._chunk = body
        elif found := _LENGTH.search(head):
            self.is_long = len(found[1]) > _DIGITS or int(found[1]) > BODY
            self._end = body + (0 if self.is_long else int(found[1]))
        self.has_body = self._chunk is not None or self._end > body or self.is_long
        is_new = head.partition(b"\r\n")[0].endswith(b" http/1.1")
        self.expects = self.has_body and is_new and b"\r\nexpect:" in head

    def _find_chunks(self, begin: int) -> int:
        while True:
            self._chunk = begin
            if len(self.data) > FRAMED:
                return 413
            line = self.data.find(b"\r\n", begin)
            if line < 0:
                return WHOLE if len(self.data) - begin > LINE else MORE
            size = _SIZE.fullmatch(self.data, begin, line)
            if not size:
                return WHOLE
            length = int(size[1], 16)
            if length == 0:
                if self.data.find(b"\r\n\r\n", line) >= 0:
                    return WHOLE
                return 431 if len(self.data) - line > LINE else MORE
            end = line + 2 + length + 2
            if self._chunks_length + min(length, len(self.data) - line - 2) > BODY:
                self.is_long = True
                return WHOLE
            if len(self.data) < end:
                return MORE
            if self.data[end - 2 : end] != b"\r\n":
                return WHOLE
            self._chunks_length += length
            begin = end
