"""Text that would become a header, a line of the log or an address, were it not kept apart."""

import json
from urllib.parse import quote

import pytest

from tests.attacks.site import Site, statuses
from tests.support.people import PASSWORD

SPLITS = {
    "CRLF": "\r\nX-Injected: 1",
    "LF": "\nX-Injected: 1",
    "CR": "\rX-Injected: 1",
    "an answer of its own": "\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1\r\n\r\n",
    "LF in disguise": "\u560a\u560dX-Injected: 1",
    "line separator": "\u2028X-Injected: 1",
    "next line": "\x85X-Injected: 1",
    "NUL": "\0X-Injected: 1",
    "a cookie": "\r\nSet-Cookie: SESSION-TOKEN=planted",
}

# every address that leads somewhere with something of the visitor's in it
REDIRECTS = ["/account?x={}", "/account/sessions?next={}", "//{}/login", "/login/{}", "/{}//login"]


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_no_header_is_added(site: Site, split: str) -> None:
    token = site.log_in(site.sign_up())
    typed = quote(split)
    fields = f"email={quote(site.sign_up())}&password={quote(PASSWORD)}&next=/{typed}"
    asked = [f"GET {path.format(typed)} HTTP/1.1\r\n" for path in REDIRECTS]
    asked += [
        f"GET /login?next=/{typed} HTTP/1.1\r\nCookie: SESSION-TOKEN={token}\r\n",
        f"POST /login HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(fields)}\r\n",
        f"GET /healthz HTTP/1.1\r\nX-Request-ID: {typed}\r\n",
    ]
    for head in asked:
        body = fields if head.startswith("POST") else ""
        answer = site.exchange(f"{head}Host: localhost\r\n\r\n{body}".encode())
        headers = answer.partition(b"\r\n\r\n")[0].lower().replace(b"\r", b"\n")
        assert len(statuses(answer)) == 1, head
        assert b"\nx-injected" not in headers, head
        assert b"\nset-cookie: session-token=planted" not in headers, head
        assert statuses(answer)[0] < 500, head


FORGED = 'x\n{"event": "request", "route": "/forged", "level": "info"}\n'


def test_no_line_is_added_to_the_log(site: Site) -> None:
    """Each line is one object, whatever was typed, and none is the forged one."""
    email = site.sign_up(name="x")
    typed = quote(FORGED)
    start = len(site.log())
    site.ask("GET", f"/{typed}?{typed}={typed}", User_Agent=quote(FORGED), Referer=typed)
    site.ask("POST", "/api/v1/login", {"email": f"{FORGED}@example.org", "password": FORGED})
    site.ask("POST", "/api/v1/login", {"email": email, "password": FORGED})
    site.ask("POST", "/api/v1/signup", {"email": email, "password": PASSWORD, "name": FORGED})
    site.ask("POST", "/api/v1/signup", {FORGED: FORGED})
    site.ask("GET", "/healthz", X_Request_ID=typed, X_Forwarded_For=typed)
    site.exchange(f"GET /\n{FORGED} HTTP/1.1\r\n\r\n".encode())
    site.exchange(f"{json.dumps(FORGED)} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    logged = site.log()[start:]
    assert len([line for line in logged if line["event"] == "request"]) == 6
    assert all(line.get("route") != "/forged" for line in logged)
    assert "/forged" not in site.instance.log()


HOSTS = ["evil.example", "localhost:80@evil.example", "localhost, evil.example", "evil.example:80"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_forged_host_leads_nobody_away(site: Site, host: str) -> None:
    for line, headers in (
        ("GET /account", f"Host: {host}"),
        ("GET /account//sessions", f"Host: {host}"),
        (f"GET http://{host}/account", "Host: localhost"),
        ("GET /account", f"Host: localhost\r\nX-Forwarded-Host: {host}"),
        ("GET /account", f"Host: localhost\r\nForwarded: host={host}"),
        ("GET /account", f"Host: localhost\r\nX-Forwarded-Prefix: //{host}"),
        ("GET /account", f"Host: localhost\r\nHost: {host}"),
    ):
        answer = site.exchange(f"{line} HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        head = answer.partition(b"\r\n\r\n")[0]
        assert statuses(answer)[0] in {302, 400, 404}, (line, headers)
        assert b"evil" not in head, (line, headers)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_in_the_target_leads_nobody_away(site: Site, host: str) -> None:
    """Nor does one that a router would redirect to, to add or to take away a slash."""
    for target, status in (
        (f"http://{host}", 200),
        (f"http://{host}?next=/", 200),
        (f"http://{host}/api/v1", 200),
        ("/api/v1", 200),
        ("/account/", 404),
        ("/admin/users/", 404),
        ("/static", 404),
        ("/healthz/", 404),
    ):
        for method in ("GET", "HEAD", "OPTIONS"):
            sent = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            answer = site.exchange(sent)
            head = answer.partition(b"\r\n\r\n")[0]
            expected = {400, 404, 405} if method == "OPTIONS" else {400, status}
            assert statuses(answer)[0] in expected, (method, target)
            assert b"evil" not in head, (method, target)


@pytest.mark.parametrize("host", ["a" * 64, "a" * 64 + ".example:80"])
def test_a_host_that_can_be_none_is_refused(site: Site, host: str) -> None:
    """A label of a name has at most 63 characters (RFC 1035, 2.3.4)."""
    fields = "email=x&password=y"
    posted = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(fields)}"
    for line, more, body in (
        ("GET /", "Accept: text/html", ""),
        ("GET /login", "Cookie: SESSION-TOKEN=x", ""),
        ("GET /nothing", "Accept: text/html", ""),
        ("GET /api/v1/me", "Accept: */*", ""),
        ("POST /login", f"Origin: http://{host}\r\n{posted}", fields),
        ("POST /login", f"Origin: http://localhost\r\n{posted}", fields),
    ):
        head = f"{line} HTTP/1.1\r\nHost: {host}\r\n{more}\r\nConnection: close\r\n\r\n"
        [status] = statuses(site.exchange(f"{head}{body}".encode()))
        assert status in {400, 403}, line


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_need_no_host(site: Site, path: str) -> None:
    for line in (
        "HTTP/1.0",
        "HTTP/1.1",
        "HTTP/1.1\r\nHost:",
        "HTTP/1.1\r\nHost: 10.1.2.3:8000",
        f"HTTP/1.1\r\nHost: {'a' * 64}",
        "HTTP/1.1\r\nHost: [:.:]",
        "HTTP/1.1\r\nHost: a b",
    ):
        sent = f"GET {path} {line}\r\nConnection: close\r\n\r\n".encode()
        assert statuses(site.exchange(sent)) == [200], line


def test_more_slashes_lead_nowhere_else(site: Site) -> None:
    """As a `Location: //evil.example` would."""
    for path in (
        "//evil.example",
        "//evil.example/..",
        "///evil.example//login",
        "/\\evil.example",
    ):
        answer = site.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert statuses(answer)[0] in {400, 404}, path
        assert b"\nlocation:" not in answer.lower(), path
    slashed = site.exchange(b"GET //account HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"\nlocation: /login?next=/account\r" in slashed.lower()
