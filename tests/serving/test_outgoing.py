"""The rest of an answer that a client does not take at once is kept in order, and sent later."""

import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from authapp.serving import outgoing
from authapp.serving.outgoing import Outgoing

LONG = b"0123456789" * 100_000


@pytest.fixture
def pair() -> Iterator[tuple[Outgoing, socket.socket]]:
    """Two ends of a connection that holds less than a long answer."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    theirs.settimeout(30)
    with Outgoing.taking_over(ours) as mine, theirs:
        yield mine, theirs


def taken(theirs: socket.socket) -> bytes:
    """All that has arrived."""
    found = b""
    theirs.setblocking(False)
    with suppress(BlockingIOError):
        while more := theirs.recv(65_536):
            found += more
    theirs.settimeout(30)
    return found


def test_the_rest_is_sent_in_order_however_late(pair: tuple[Outgoing, socket.socket]) -> None:
    mine, theirs = pair
    mine.sendall(b"head ")
    assert not mine.unsent, "it is sent at once where it can be"
    mine.sendall(LONG)
    with pytest.raises(BlockingIOError):
        mine.send_rest()
    found = taken(theirs)
    mine.sendall(b" tail")
    assert taken(theirs) == b"", "nothing goes ahead of the rest"
    while mine.unsent:
        mine.send_rest()
        found += taken(theirs)
    assert found == b"head " + LONG + b" tail"


def test_no_more_than_so_much_is_kept(
    pair: tuple[Outgoing, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "_KEPT", 100_000)
    mine, theirs = pair

    def send() -> None:
        mine.sendall(LONG)
        mine.sendall(b"!")

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        found = b""
        while len(found) <= len(LONG):
            found += theirs.recv(65_536)
        sending.result(30)
    assert found == LONG + b"!"
    assert not mine.unsent


@pytest.mark.parametrize(("offset", "count"), [(0, None), (10, None), (10, 70_000), (10, 7)])
def test_of_a_file_the_part_is_sent_that_is_asked_for(
    pair: tuple[Outgoing, socket.socket], offset: int, count: int | None
) -> None:
    mine, theirs = pair
    expected = LONG[offset:] if count is None else LONG[offset : offset + count]
    with tempfile.TemporaryFile() as file:
        file.write(LONG)
        assert mine.sendfile(file, offset, count) == len(expected)
    found = taken(theirs)
    while mine.unsent:
        mine.send_rest()
        found += taken(theirs)
    assert found == expected


def test_a_client_that_is_gone_is_an_error(pair: tuple[Outgoing, socket.socket]) -> None:
    mine, theirs = pair
    mine.sendall(LONG)
    theirs.close()
    with pytest.raises(ConnectionError):
        mine.send_rest()
