"""`doctor --url` without a proxy in between: each thing that can be wrong, and the command."""

import json
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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
