"""Requests whose end two parsers could see in different places: one is refused, none is hidden."""

import pytest

from tests.attacks.site import Site, statuses
from tests.support.waiting import wait_until

# what the attacker hides; nothing else here asks for this route
HIDDEN_ROUTE = "/account/sessions"
HIDDEN = b"GET /account/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOGIN = b"POST /api/v1/login HTTP/1.1"
LENGTH = b"%d" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked"
TAIL = b"0\r\n\r\n" + HIDDEN


def request(line: bytes, *headers: bytes, body: bytes = b"", end: bytes = b"\r\n") -> bytes:
    fixed = (b"Host: localhost", b"Content-Type: application/json")
    return end.join((line, *fixed, *headers, b"", b"")) + body


def lengths(*headers: bytes) -> bytes:
    """With the hidden request where a body of no length would end."""
    return request(LOGIN, *headers, body=HIDDEN)


def coded(*headers: bytes) -> bytes:
    """With the hidden request behind an empty chunked body."""
    return request(LOGIN, *headers, body=TAIL)


def chunks(body: bytes) -> bytes:
    return request(LOGIN, CHUNKED, body=body + TAIL)


FRAMINGS = {
    # length and coding
    "both, length first": coded(b"Content-Length: " + LENGTH, CHUNKED),
    "both, coding first": coded(CHUNKED, b"Content-Length: " + LENGTH),
    "both, length of nothing": coded(b"Content-Length: 0", CHUNKED),
    # length
    "two lengths": lengths(b"Content-Length: 0", b"Content-Length: " + LENGTH),
    "two equal lengths": lengths(b"Content-Length: 0", b"Content-Length: 0"),
    "a list of lengths": lengths(b"Content-Length: 0, " + LENGTH),
    "a length with a sign": lengths(b"Content-Length: +0"),
    "a negative length": lengths(b"Content-Length: -1"),
    "a hexadecimal length": lengths(b"Content-Length: 0x0"),
    "a length of two numbers": lengths(b"Content-Length: 0 " + LENGTH),
    "a length that is no ASCII": lengths(b"Content-Length: \xb2"),
    "an empty length": lengths(b"Content-Length: "),
    # coding
    "chunked twice": coded(b"Transfer-Encoding: chunked, chunked"),
    "chunked and more": coded(b"Transfer-Encoding: chunked, identity"),
    "chunked in two headers": coded(CHUNKED, CHUNKED),
    "an unknown coding": coded(b"Transfer-Encoding: xchunked"),
    "a quoted coding": coded(b'Transfer-Encoding: "chunked"'),
    "another coding only": coded(b"Transfer-Encoding: gzip"),
    "identity": coded(b"Transfer-Encoding: identity"),
    "a control character before": coded(b"Transfer-Encoding: \x0bchunked"),
    "a blank before the colon": coded(b"Transfer-Encoding : chunked"),
    "a folded coding": coded(b"Transfer-Encoding:\r\n chunked"),
    "a folded header before": coded(b"X: 1\r\n\t" + CHUNKED),
    "a bare CR": coded(b"X: 1\r" + CHUNKED),
    "a NUL": coded(b"X: \0" + CHUNKED),
    "bare LFs": request(LOGIN, b"Content-Length: 0", body=HIDDEN, end=b"\n"),
    "one bare LF": coded(b"X: 1\n" + CHUNKED),
    "chunked in HTTP/1.0": request(b"POST /api/v1/login HTTP/1.0", CHUNKED, body=TAIL),
    # the request line
    "no version": request(b"POST /api/v1/login", body=HIDDEN),
    "another version": request(b"POST /api/v1/login HTTP/3.0", body=HIDDEN),
    "a blank in the target": request(b"POST /api/v1/ login HTTP/1.1", body=HIDDEN),
    "a method that is none": request(b"POST: /api/v1/login HTTP/1.1", body=HIDDEN),
    # chunks
    "a chunk with a hexadecimal prefix": chunks(b"0x1\r\n{\r\n"),
    "a negative chunk": chunks(b"-1\r\n{\r\n"),
    "a chunk with a sign": chunks(b"+1\r\n{\r\n"),
    "a chunk with an underscore": chunks(b"1_0\r\n{\r\n"),
    "a chunk of no size": chunks(b"\r\n{\r\n"),
    "a chunk longer than its size": chunks(b"1\r\n{}\r\n"),
    "a chunk that ends by LF": chunks(b"1\n{\r\n"),
    "an extension that ends by LF": chunks(b"1;x\n{\r\n"),
}


# what RFC 9112 (2.2, 6.3) lets a server read in the one way that is left
GRANIAN_READS = {"two equal lengths", "bare LFs"}


@pytest.mark.parametrize("name", FRAMINGS)
def test_what_can_be_read_in_two_ways_is_refused(site: Site, served_by: str, name: str) -> None:
    before, sent = len(site.routes()), FRAMINGS[name]
    if served_by == "granian" and name in GRANIAN_READS:
        assert statuses(site.exchange_and_go_on(sent)) == [400, 302, 200]
        return
    (status,) = statuses(site.exchange_and_go_on(sent))  # and closed: what follows is not believed
    assert 400 <= status < 600
    reached = site.routes()[before:]
    assert len(reached) <= 1
    assert HIDDEN_ROUTE not in reached
    assert site.ask("GET", "/healthz").status == 200, "and it serves on"


BAD_CHUNKS = {
    "a size that is none": b"xyz\r\n{}\r\n0\r\n\r\n",
    "a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n",
    "a chunk longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "a chunk shorter than its size": b"3\r\n{}\r\n0\r\n\r\n",
    "an extension that is none": b"2;=\r\n{}\r\n0\r\n\r\n",
    "a line too long": b"2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
    "a trailer that is none": b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    "the second of them": b"2\r\n{}\r\n-1\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_chunks_that_can_not_be_read_are_the_clients_fault(
    site: Site, served_by: str, body: bytes
) -> None:
    """granian can't tell them from good ones, so it is told to take none."""
    status, start = (411 if served_by == "granian" else 400), len(site.log())
    for line, kind in (
        (b"POST /api/v1/login HTTP/1.1", b"application/json"),
        (b"POST /login HTTP/1.1", b"application/x-www-form-urlencoded"),
        (b"POST /signup HTTP/1.1", b"multipart/form-data; boundary=x"),
        (b"PATCH /api/v1/me HTTP/1.1", b"application/json"),
    ):
        head = b"\r\n".join((line, b"Host: localhost", b"Content-Type: " + kind, CHUNKED, b"", b""))
        (answered,) = statuses(site.exchange(head + body))
        # without a session nobody reads the body of some calls
        assert answered == status or (b"/me" in line and answered == 401), line
    assert all(one["level"] not in {"error", "critical"} for one in site.log()[start:])


def test_requests_that_are_framed_well_are_all_served(site: Site, served_by: str) -> None:
    """The control: a hidden request that were served would be seen."""
    framed = [request(LOGIN, b"Content-Length: 2", body=b"{}")]
    if served_by != "granian":
        framed.append(request(LOGIN, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"))
    for first in framed:
        before = len(site.routes())
        assert statuses(site.exchange_and_go_on(first + HIDDEN)) == [400, 302, 200]
        assert site.routes()[before:] == ["/api/v1/login", HIDDEN_ROUTE, "/healthz"]


UNREAD = {
    "a GET": (b"GET / HTTP/1.1", 200),
    "a HEAD": (b"HEAD /login HTTP/1.1", 200),
    "no such page": (b"POST /nothing HTTP/1.1", 404),
    "no such method": (b"DELETE /login HTTP/1.1", 405),
    "no session": (b"POST /account/password HTTP/1.1", 302),
    "log-out, which takes no body": (b"POST /api/v1/logout HTTP/1.1", 400),
    "health": (b"GET /healthz HTTP/1.1", 200),
}


@pytest.mark.parametrize(("line", "status"), UNREAD.values(), ids=UNREAD)
def test_a_body_that_nobody_read_is_no_request(
    site: Site, served_by: str, line: bytes, status: int
) -> None:
    chunked = request(line, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN))
    for sent, told in (
        (request(line, b"Content-Length: " + LENGTH, body=HIDDEN), status),
        (chunked, 411 if served_by == "granian" else status),
    ):
        before = len(site.routes())
        assert statuses(site.exchange_and_go_on(sent)) in ([told], [told, 200])
        reached = site.routes()[before:]
        assert len(reached) <= 2
        assert HIDDEN_ROUTE not in reached


JSON = b'{"email": "cut@example.org", "password": "correct horse battery staple"}'
FORM = b"email=cut%40example.org&password=correct+horse+battery+staple"
CUT = {
    "JSON": (b"POST /api/v1/signup HTTP/1.1", b"Content-Type: application/json", JSON),
    "a form": (b"POST /signup HTTP/1.1", b"Content-Type: application/x-www-form-urlencoded", FORM),
}


@pytest.mark.parametrize(("line", "kind", "body"), CUT.values(), ids=CUT)
def test_a_body_that_is_cut_short_does_nothing(
    site: Site, line: bytes, kind: bytes, body: bytes
) -> None:
    """The part that arrived reads like a whole body; the password was to be longer."""

    def head(length: bytes) -> bytes:
        return b"\r\n".join((line, b"Host: localhost", kind, length, b"", b""))

    start = len(site.log())
    cut = site.exchange_half(head(b"Content-Length: %d" % (len(body) + 10)) + body)
    assert statuses(cut) == [400]
    answered = wait_until(lambda: [one for one in site.log()[start:] if one["event"] == "request"])
    assert [one["status"] for one in answered] == [400]
    cut = site.exchange_half(head(CHUNKED) + b"%x\r\n%s\r\n" % (len(body), body))
    assert statuses(cut) in ([], [400], [411])
    assert site.sql("SELECT 1 FROM users WHERE email = 'cut@example.org'") == []
    whole = head(b"Content-Length: %d" % len(body)) + body
    assert statuses(site.exchange(whole)) in ([201], [303]), "the control"
    site.sql("DELETE FROM users WHERE email = 'cut@example.org'")
