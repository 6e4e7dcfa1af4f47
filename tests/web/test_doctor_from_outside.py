"""`doctor --url` without a proxy in between: each thing that can be wrong, and the command."""

import json
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

from authapp.doctor import Finding, State
from authapp.doctor.outside import Visitor, examine_from_outside
from tests.deploy.proxies import served
from tests.support.certificates import Authority
from tests.web.conftest import MakeApp
from tests.web.support import COOKIE, browser, log_in, sign_up, token_of

NOBODY = Visitor(COOKIE, "unknown", True)
OUTAGE = Visitor(COOKIE, "unknown", False)
ADA = Visitor(COOKIE, "unknown", True, "token-of-ada", "id-of-ada")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert finding.text
        assert finding.remedy or finding.state is State.OK, finding
    return {finding.check: finding for finding in findings}


def fails(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.state is State.FAIL}


def look(
    app: Flask, path: str = "", visitor: Visitor = NOBODY, host: str = "127.0.0.1"
) -> list[Finding]:
    with served(app) as port:
        return examine_from_outside(
            f"http://{host}:{port}{path}", visitor, connect_to=("127.0.0.1", port)
        )


def test_an_authapp_that_believes_every_client(make_app: MakeApp) -> None:
    """It trusts a proxy, and none is in front."""
    found = look(make_app(TRUSTED_PROXY_HOPS=1, SESSION_COOKIE_SECURE=0), host="auth.example.org")
    assert fails(found) == {
        *("https", "operators' pages", "X-Forwarded-Host", "X-Forwarded-Prefix"),
        *("X-Forwarded-Proto", "X-Forwarded-For"),
    }
    assert by_check(found)["forward-auth"].state is State.WARN
    assert "/metrics, /metrics/" not in by_check(found)["operators' pages"].text
    assert "/readyz" in by_check(found)["operators' pages"].text


def test_an_authapp_that_believes_nobody(make_app: MakeApp) -> None:
    found = look(make_app(SESSION_COOKIE_SECURE=0))
    assert fails(found) == {"operators' pages"}
    assert by_check(found)["cookies"].text == "VISITOR-DATA: with all their flags"


Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Spoils:
    """WSGI middleware: a proxy that changes what authapp answers.

    Attributes:
        changed: gives the headers in place of authapp's.
        method: of requests that are sent back as they came.
    """

    app: Callable[[dict[str, Any], Any], Iterable[bytes]]
    changed: Callable[[Headers], Headers]
    method: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == self.method:
            start_response("200 OK", [("Content-Type", "message/http")])
            return [environ.get("HTTP_DOCTOR", "").encode()]

        def start(status: str, headers: Headers, *more: Any) -> Any:
            return start_response(status, self.changed(headers), *more)

        return self.app(environ, start)


def without(name: str, value: str = "") -> Callable[[Headers], Headers]:
    """Takes a header out, or sets it."""
    put = [(name, value)] if value else []
    return lambda headers: [(n, v) for n, v in headers if n.lower() != name.lower()] + put


OWN: dict[str, tuple[str, Callable[[Headers], Headers], str]] = {
    "a header dropped": ("security headers", without("Content-Security-Policy"), ""),
    "a header twice": ("security headers", lambda h: [*h, ("X-Frame-Options", "DENY")], ""),
    "a header weaker": ("security headers", without("Referrer-Policy", "unsafe-url"), ""),
    "may be kept": ("caching", without("Cache-Control", "public, max-age=60"), ""),
    "was kept": ("caching", lambda h: [*h, ("Age", "5")], ""),
    "the same answer": ("caching", without("X-Request-ID", "a"), ""),
    "TRACE": ("methods", lambda h: h, "TRACE"),
    "TRACK": ("methods", lambda h: h, "TRACK"),
    "no HttpOnly": (
        "cookies",
        lambda h: [(n, v.replace("; HttpOnly", "") if n == "Set-Cookie" else v) for n, v in h],
        "",
    ),
}


@pytest.mark.parametrize("what", OWN)
def test_a_proxy_that_changes_what_authapp_answers(make_app: MakeApp, what: str) -> None:
    check, changed, method = OWN[what]
    app = make_app(SESSION_COOKIE_SECURE=0)
    app.wsgi_app = Spoils(app.wsgi_app, changed, method)  # type: ignore[method-assign]
    assert by_check(look(app))[check].state is State.FAIL


def test_an_authapp_whose_log_in_page_is_not_there() -> None:
    app = guarded(lambda: ("broken", 500))
    with served(app) as port:
        url = f"http://127.0.0.1:{port}"
        found = by_check(examine_from_outside(url, NOBODY, url))
    assert found["log-in page"].state is State.FAIL


def guarded(answer: Callable[[], Response | str | tuple[str, int]]) -> Flask:
    """A page of an app, behind something that answers in this way."""
    app = Flask("guarded")

    @app.route("/", defaults={"path": ""}, methods=METHODS)
    @app.route("/<path:path>", methods=METHODS)
    def page(path: str) -> Response | str | tuple[str, int]:
        return answer()

    return app


def lead_to_login() -> Response:
    here = f"http://{request.host}{request.full_path.rstrip('?')}"
    to = f"https://auth.example.org/login?next={here.replace('%', '%25').replace('&', '%26')}"
    return Response("", 302, {"Location": to})


def believes(header: str) -> Response:
    """The page that a client names is the one that log-in leads back to."""
    told = request.headers.get(header)
    if told is None:
        return lead_to_login()
    return Response("", 302, {"Location": f"https://auth.example.org/login?next={told}"})


def shows_all() -> str:
    return "\n".join(f"{name}: {value}" for name, value in request.headers) + "\nid-of-ada"


def asks_who(answer: Callable[[], Response | str]) -> Response | str:
    """Only somebody with a cookie gets to the app."""
    return answer() if "token-of-ada" in request.headers.get("Cookie", "") else lead_to_login()


BAD = {
    "guarded": (lambda: "hello", NOBODY),
    "query": (lambda: ("no", 400) if "role" in request.args else lead_to_login(), NOBODY),
    "methods of visitors": (
        lambda: "yes" if request.method == "OPTIONS" else lead_to_login(),
        NOBODY,
    ),
    "paths": (lambda: "yes" if request.path.endswith(".css") else lead_to_login(), NOBODY),
    "claims": (lambda: "yes" if "Remote-User" in request.headers else lead_to_login(), NOBODY),
    "asked page": (lambda: believes("X-Forwarded-Uri"), NOBODY),
    "answers": (
        lambda: Response("", 401, {"Remote-User": "id", "Location": "/"}),
        NOBODY,
    ),
    "503": (lambda: ("broken", 500), OUTAGE),
    "identity": (lambda: asks_who(shows_all), ADA),
    "session cookie": (lambda: asks_who(shows_all), ADA),
    "Connection": (
        lambda: asks_who(
            lambda: "" if "Remote" in request.headers.get("Connection", "") else "id-of-ada"
        ),
        ADA,
    ),
}


@pytest.mark.parametrize("check", BAD)
def test_a_page_that_is_guarded_badly(check: str) -> None:
    answer, visitor = BAD[check]
    finding = by_check(look(guarded(answer), "/page", visitor))[check]
    assert finding.state is not State.OK


def test_names_that_a_proxy_refuses_do_not_hide_the_others() -> None:
    def refuses(answer: Callable[[], Response | str]) -> Response | str | tuple[str, int]:
        names = [name.lower() for name, _ in request.headers]
        return ("a bad name", 400) if any("~" in name for name in names) else answer()

    def names_itself() -> str | Response:
        return "yes" if "Remote-Assertion" in request.headers else lead_to_login()

    found = by_check(look(guarded(lambda: refuses(names_itself)), "/page"))
    assert found["claims"].state is State.FAIL
    found = by_check(look(guarded(lambda: refuses(lambda: asks_who(shows_all))), "/page", ADA))
    assert "Remote!User" in found["identity"].text or " more " in found["identity"].text


def test_a_page_that_is_guarded_well() -> None:
    found = look(guarded(lambda: asks_who(lambda: "id-of-ada")), "/page", ADA)
    assert {finding.state for finding in found} == {State.OK}
    found = look(guarded(lambda: ("away", 503)), "/page", OUTAGE)
    assert by_check(found)["503"].text == "an outage is told as 503"


def test_what_the_person_gets_must_be_seen() -> None:
    found = by_check(look(guarded(lambda: asks_who(lambda: "hello")), "/page", ADA))
    assert found["identity"].state is State.WARN
    found = by_check(look(guarded(lead_to_login), "/page", ADA))
    assert found["identity"].state is State.FAIL


def test_cookies_without_their_flags() -> None:
    def sets_one() -> Response:
        answer = lead_to_login()
        answer.headers["Set-Cookie"] = "SESSION-TOKEN=x; Path=/"
        return answer

    finding = by_check(look(guarded(sets_one), "/page"))["cookies"]
    assert (finding.state, finding.text) == (
        State.FAIL,
        "SESSION-TOKEN without HttpOnly, without SameSite",
    )


def test_a_site_that_cannot_be_reached() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        port = bound.getsockname()[1]
    (finding,) = examine_from_outside(f"http://127.0.0.1:{port}/", NOBODY)
    assert (finding.check, finding.state) == ("reached", State.FAIL)


def test_a_certificate_that_browsers_warn_of(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    app = guarded(lead_to_login)
    with served(app, authority.server_context("app.example.org")) as port:
        place = ("127.0.0.1", port)
        url = "https://app.example.org/page"
        sound = examine_from_outside(url, NOBODY, context=trusting, connect_to=place)
        assert by_check(sound)["reached"].state is not State.FAIL
        assert "the certificate lasts" in by_check(sound)["reached"].text
        assert by_check(sound)["hsts"].text.startswith("no HSTS")
        other = url.replace("app.", "other.")
        (wrong,) = examine_from_outside(other, NOBODY, context=trusting, connect_to=place)
        (unknown,) = examine_from_outside(url, NOBODY, connect_to=place)
    for finding in (wrong, unknown):
        assert (finding.check, finding.state) == ("reached", State.FAIL)
        assert finding.text.startswith("browsers warn of its certificate: ")


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (lambda: "in the clear", State.FAIL),
        (lambda: Response("", 302, {"Location": "http://auth.example.org/"}), State.FAIL),
        (lambda: Response("", 308, {"Location": "https://auth.example.org/"}), State.OK),
        (lambda: ("no", 421), State.OK),
    ],
)
def test_what_plain_http_is_answered_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[], Response],
    state: State,
) -> None:
    """At the usual ports, which a test can't have."""
    authority = Authority.make(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))
    connect = socket.create_connection
    with (
        served(guarded(lead_to_login), authority.server_context("app.example.org")) as secure,
        served(guarded(answer)) as plain,
    ):
        ports = {443: secure, 80: plain}

        def usual(place: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
            return connect(("127.0.0.1", ports[place[1]]), *args, **options)

        monkeypatch.setattr(socket, "create_connection", usual)
        found = examine_from_outside("https://app.example.org/page", NOBODY, context=context)
    assert by_check(found)["plain http"].state is state


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (["max-age=31536000; includeSubDomains"], "for 365 days"),
        (["max-age=300"], "HSTS is sent 1 times, for 300 s"),
        (["max-age=31536000", "max-age=31536000"], "HSTS is sent 2 times"),
        ([], "no HSTS"),
    ],
)
def test_hsts_lasts_long_and_is_sent_once(tmp_path: Path, sent: list[str], text: str) -> None:
    authority = Authority.make(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))

    def answer() -> Response:
        response = lead_to_login()
        for value in sent:
            response.headers.add("Strict-Transport-Security", value)
        return response

    with served(guarded(answer), authority.server_context("auth.example.org")) as port:
        found = examine_from_outside(
            url := "https://auth.example.org",
            NOBODY,
            url,
            context=context,
            connect_to=("127.0.0.1", port),
        )
    finding = by_check(found)["hsts"]
    assert finding.text.startswith(text)
    assert (finding.state is State.OK) is text.startswith("for ")


def test_it_ends_in_time() -> None:
    """The site takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        found = examine_from_outside(url, NOBODY, seconds=0.3)
    assert found[-1] == Finding(
        "time",
        State.WARN,
        "only what is above could be seen within 0 s",
        "see why the site answers so slowly",
    )


@pytest.mark.parametrize("url", ["auth.example.org", "ftp://a", "https://", "https://a/?x=1"])
def test_an_address_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(ValueError, match="name the site like"):
        examine_from_outside(url, NOBODY)


def test_the_command(make_app: MakeApp) -> None:
    app = make_app(SESSION_COOKIE_SECURE=0)
    runner = app.test_cli_runner()
    sign_up(app)
    client = browser(app)
    log_in(client)
    with served(guarded(lambda: asks_who(shows_all))) as port:
        url = f"http://127.0.0.1:{port}/page"
        told = runner.invoke(args=["auth", "doctor", "--url", url, "--json"])
        found = {finding["check"]: finding for finding in json.loads(told.output)}
        assert told.exit_code == 0
        assert found["site"]["text"] == f"{url} is taken for a page of a guarded app"
        assert "--session-stdin" in found["identity"]["remedy"]
        told = runner.invoke(
            args=["auth", "doctor", "--url", url, "--session-stdin"], input=token_of(client) + "\n"
        )
        assert told.exit_code == 1, told.output
        assert "the person of that session gets 302" in told.output
    for arguments, input_, words in (
        (["--session-stdin"], "", "--session-stdin goes with --url"),
        (["--url", url, "--session-stdin"], "x\n", "that is no cookie of a live session"),
        (["--url", "example.org"], "", "--url: name the site like"),
    ):
        told = runner.invoke(args=["auth", "doctor", *arguments], input=input_)
        assert told.exit_code == 2
        assert words in told.output
