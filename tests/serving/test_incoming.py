"""When a request that arrives in pieces is whole: at its last byte, however it is cut."""

import random

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from authapp.serving.incoming import BODY, FRAMED, HEAD, LINE, MORE, WHOLE, Incoming

HEADER = b"POST /x HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEADER + b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS = {
    "no body": HEADER + b"\r\n",
    "an empty body": HEADER + b"Content-Length: 0\r\n\r\n",
    "a length": HEADER + b"content-LENGTH:  5 \r\n\r\n12345",
    "a length with zeros in front": HEADER + b"Content-Length: 00000000005\r\n\r\n12345",
    "a length of zeros": HEADER + b"Content-Length: 00000000000\r\n\r\n",
    "a body with empty lines": HEADER + b"Content-Length: 8\r\n\r\n\r\n\r\n\n\n\n\n",
    "chunks": CHUNKED + b"5\r\n12345\r\n1;a=b\r\n0\r\n0\r\n\r\n",
    "chunks with zeros in front": CHUNKED + b"000000005\r\n12345\r\n000000000\r\n\r\n",
    "chunks that look like the last": CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\na\r\n0\r\nX: 1\r\nY: 2\r\n\r\n",
    "a bare line feed at the end of the head": b"GET / HTTP/1.1\nHost: h\n\n",
    # gunicorn refuses these
    "a length that is none": HEADER + b"Content-Length: x\r\n\r\n",
    "a size that is none": CHUNKED + b"0x1\r\n",
    "a size with a sign": CHUNKED + b"-1\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\nab\r",
    # the app refuses these without reading on
    "a length above all bounds": HEADER + b"Content-Length: %s\r\n\r\n" % (b"9" * 5_000),
    "a long body": HEADER + b"Content-Length: %d\r\n\r\n" % (BODY + 1),
    "a long chunk": CHUNKED + b"fffff\r\n" + b"a" * (BODY + 1),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000_000])
def test_it_is_whole_at_its_last_byte(request_: bytes, step: int) -> None:
    incoming = Incoming()
    pieces = [request_[n : n + step] for n in range(0, len(request_), step)]
    seen = [incoming.add(piece) for piece in pieces]
    assert seen == [MORE] * (len(pieces) - 1) + [WHOLE]
    assert incoming.data == request_


def test_it_is_known_whether_there_is_a_body() -> None:
    bodiless = ("no body", "an empty body", "a length of zeros")
    for name in (*bodiless, "a length", "chunks", "a long body", "a long chunk"):
        incoming = Incoming()
        incoming.add(REQUESTS[name])
        assert incoming.has_body is (name not in bodiless), name


def test_what_never_ends_is_refused() -> None:
    for begin, endless, status in (
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1_000, 431),
        (CHUNKED, b"1\r\na\r\n", 413),
        (CHUNKED + b"0\r\nX: ", b"a" * 1_000, 431),
    ):
        incoming = Incoming()
        seen = incoming.add(begin)
        while seen == MORE:
            assert len(incoming.data) < max(HEAD, FRAMED, LINE) + 2_000
            seen = incoming.add(endless * 100 if endless[0] == 49 else endless)
        assert seen in {status, WHOLE}
    incoming = Incoming()
    assert [incoming.add(CHUNKED), incoming.add(b"1" * LINE)] == [MORE, MORE]
    assert incoming.add(b"11") == WHOLE, "gunicorn refuses a line that long"


@pytest.mark.parametrize(
    ("head", "expects"),
    [
        (HEADER + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n", True),
        (CHUNKED[:-2] + b"expect: 100-CONTINUE\r\n\r\n", True),
        (HEADER + b"Expect: 100-continue\r\n\r\n", False),
        (HEADER + b"Content-Length: 1\r\n\r\n", False),
        (HEADER.replace(b"1.1", b"1.0") + b"Content-Length: 1\r\nExpect: x\r\n\r\n", False),
    ],
)
def test_a_client_that_waits_is_seen(head: bytes, expects: bool) -> None:
    incoming = Incoming()
    incoming.add(head)
    assert incoming.expects is expects


# -- beside gunicorn's own parser ------------------------------------------------------------------

LINES = (
    b"POST /a HTTP/1.1",
    b"GET /a HTTP/1.1",
    b"POST /a HTTP/1.0",
    b"GET /a",
    b"\r\nGET / HTTP/1.1",
)
HEADERS = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"content-length:\t5 ",
    b"Content-Length: 00000000005",
    b"Content-Length: +5",
    b"Content-Length: 70000",
    b"Content-Length : 5",
    b"Content-Length: 5\x0b",
    b"Content-Length:\r\n 5",
    b"X: a\nContent-Length: 5",
    b"Content-Length: 5\r",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tgzip, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding : chunked",
    b"X: y",
    b"X:",
    b" folded",
    b"A: \x00",
    b"Expect: 100-continue",
)
CONTENTS = (
    b"",
    b"12345",
    b"5\r\n12345\r\n0\r\n\r\n",
    b"000000005\r\n12345\r\n0\r\n\r\n",
    b"5;a=b\r\n12345\r\n0\r\nX: y\r\n\r\n",
    b"5 \r\n12345\r\n0\r\n\r\n",
    b"5\n12345\n0\n\n",
    b"0\r\n\r\n",
    b'0;x="\r\n"\r\n\r\n',
    b"5\r\n123456\r\n",
    b"0\r\n\n\n",
    b"GET /b HTTP/1.1\r\n\r\n",
)
NOISE = (
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"0",
    b" ",
    b"\x00",
    b":",
    b"\r\n\r\n",
)


class NeedsMore(BaseException):
    """gunicorn asks the connection for more."""


class Arrived(Unreader):  # type: ignore[misc]
    def chunk(self, *_: object) -> bytes:
        raise NeedsMore


def drawn(draw: random.Random) -> bytes:
    """A request, well or badly framed, often with noise in it, often cut."""
    head = (draw.choice(LINES), b"Host: h", *draw.choices(HEADERS, k=draw.randrange(3)), b"", b"")
    made = b"\r\n".join(head) + draw.choice(CONTENTS)
    if draw.random() < 0.4:
        at = draw.randrange(len(made) + 1)
        made = made[:at] + draw.choice(NOISE) + made[at + draw.randrange(2) :]
    return made[: draw.randrange(len(made) + 1)] if draw.random() < 0.5 else made


def reading(config: Config, incoming: Incoming) -> str:
    """The outcome when gunicorn reads the bytes that have arrived."""
    arrived = Arrived()
    arrived.unread(bytes(incoming.data))
    try:
        request = Request(config, arrived, ("127.0.0.1", 1))
        while not incoming.is_long and request.body.read(BODY):
            pass
    except NeedsMore:
        return "needs more"
    except (ParseException, OSError, StopIteration):
        return "refused"
    return "read"


def test_gunicorn_waits_for_nothing_in_what_is_whole_and_reads_all_that_it_could() -> None:
    config, draw = Config(), random.Random(15)
    seen = set()
    for _ in range(4_000):
        request, incoming = drawn(draw), Incoming()
        status = incoming.add(request)
        found = reading(config, incoming)
        seen.add((status, found))
        assert (status, found) not in {(WHOLE, "needs more"), (MORE, "read")}, request
    assert seen >= {(WHOLE, "read"), (WHOLE, "refused"), (MORE, "needs more")}
