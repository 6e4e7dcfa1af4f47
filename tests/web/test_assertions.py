"""`Remote-Assertion`: sent where the proxy asks for it, and what an app can prove by it."""

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from authapp.assertions import AssertedIdentity, InvalidAssertion, Verifier
from tests.assertions.test_middleware import guarded
from tests.support.people import grant_role, revoke_role
from tests.web.conftest import MakeApp
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    behind_proxy,
    browser,
    log_in,
    program,
    services_of,
    sign_up,
    token_of,
)

ISSUER, APP = "https://auth.example.org", "https://app.example.org"
HOST = {"X-Forwarded-Host": "app.example.org", "X-Forwarded-Proto": "https"}
PAGE = {**HOST, "X-Forwarded-Uri": "/page?x=1", "X-Forwarded-Method": "GET"}
ASKED = {
    "/forward-auth/nginx?assertion=1": {"X-Original-URL": f"{APP}/page?x=1"},
    "/forward-auth/redirect?assertion=1": PAGE,
    "/forward-auth/redirect;assertion=1": PAGE,
    "/forward-auth/redirect;assertion=1;role=user": {
        **PAGE,
        "X-Forwarded-Host": "APP.example.org:443",
    },
    "/forward-auth/envoy;assertion=1/page?x=1": HOST,
}

pytestmark = pytest.mark.usefixtures("through")


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(PUBLIC_URL=ISSUER, TRUSTED_PROXY_HOPS=1)


@pytest.fixture
def token(app: Flask, person: str) -> str:
    return token_in(app)


def token_in(app: Flask) -> str:
    client = behind_proxy(browser(app))
    client.environ_base["HTTP_ORIGIN"] = ISSUER
    assert log_in(client).status_code == 303
    return token_of(client)


def ask(app: Flask, path: str, token: str = "", **headers: str) -> TestResponse:
    """As the proxy of that path asks, with other headers in place of some."""
    sent = {
        "Accept": "application/json",
        **ASKED.get(path.replace("&role=admin", ""), PAGE),
        **headers,
    }
    if token:
        sent["Cookie"] = f"{COOKIE}={token}"
    answer = program(app).get(path, headers=sent)
    assert len(answer.headers.getlist("Remote-Assertion")) == 1
    return answer


def verifier(app: Flask, audience: str = APP) -> Verifier:
    return Verifier(ISSUER, audience, program(app).get("/.well-known/jwks.json").get_json())


@pytest.mark.parametrize("path", ASKED)
def test_a_proxy_that_asks_for_it_gets_it(app: Flask, token: str, person: str, path: str) -> None:
    answer = ask(app, path, token)
    assert answer.status_code == 200
    found = verifier(app).verify(answer.headers["Remote-Assertion"], "GET")
    assert (found.id, found.email, found.groups, found.audience) == (person, EMAIL, ("user",), APP)


@pytest.mark.parametrize("path", ASKED)
def test_nobody_else_is_asserted(app: Flask, token: str, path: str) -> None:
    unasked = path.replace("assertion=1;", "").replace("assertion=1", "")
    more = f"{path}&role=admin" if "?a" in path else path.replace("=1", "=1;role=admin")
    refused = ask(app, more.replace(";role=user", ""), token)
    assert refused.status_code == 403
    for answer in (ask(app, path), ask(app, unasked, token), ask(app, path, token[::-1]), refused):
        assert answer.headers["Remote-Assertion"] == ""


def test_a_visitor_cannot_ask_for_it(app: Flask, token: str) -> None:
    for path, headers in (
        ("/forward-auth/envoy/page?assertion=1", HOST),
        ("/forward-auth/redirect;role=user?assertion=1", PAGE),
        ("/forward-auth/redirect?assertion=1", {**PAGE, "X-Forwarded-Uri": "/page?assertion=1"}),
    ):
        answer = ask(app, path, token, **headers)
        assert (answer.status_code, answer.headers["Remote-Assertion"]) == (200, "")


def test_it_is_bound_to_host_and_method(app: Flask, token: str) -> None:
    asked = ask(app, "/forward-auth/redirect;assertion=1", token, **{"X-Forwarded-Method": "POST"})
    assertion = asked.headers["Remote-Assertion"]
    assert verifier(app).verify(assertion, "POST").audience == APP
    with pytest.raises(InvalidAssertion):
        verifier(app).verify(assertion, "GET")
    with pytest.raises(InvalidAssertion):
        verifier(app, "https://other.example.org").verify(assertion, "POST")


def test_a_role_that_was_taken_away_is_not_asserted_later(app: Flask, token: str) -> None:
    path = "/forward-auth/redirect;assertion=1"
    first = ask(app, path, token).headers["Remote-Assertion"]
    assert ask(app, path, token).headers["Remote-Assertion"] == first
    sign_up(app, "root@example.org", roles=("admin",))  # somebody must stay one
    grant_role(services_of(app), EMAIL, "admin")
    later = ask(app, path, token).headers["Remote-Assertion"]
    assert verifier(app).verify(later, "GET").groups == ("admin", "user")
    revoke_role(services_of(app), EMAIL, "admin")
    last = ask(app, path, token).headers["Remote-Assertion"]
    assert verifier(app).verify(last, "GET").groups == ("user",)


def test_an_address_that_nobody_confirmed_is_not_asserted(app: Flask) -> None:
    """Sign-up is open here."""
    services_of(app).registration.sign_up(EMAIL, PASSWORD, "Eve", verified=False)
    answer = ask(app, "/forward-auth/redirect;assertion=1", token_in(app))
    found = verifier(app).verify(answer.headers["Remote-Assertion"], "GET")
    assert (answer.headers["Remote-Email"], found.email) == ("", "")


def test_without_an_issuer_or_a_host_there_is_none(
    make_app: MakeApp, app: Flask, token: str
) -> None:
    no_issuer = make_app()
    answer = ask(no_issuer, "/forward-auth/redirect;assertion=1", token)
    assert (answer.status_code, answer.headers["Remote-User"]) == (400, "")
    assert "PUBLIC_URL" in answer.text
    for headers in ({"X-Original-URL": "/page"}, {"X-Original-URL": "https://a b/x"}):
        answer = ask(app, "/forward-auth/nginx?assertion=1", token, **headers)
        assert answer.status_code == 400
        assert "does not say which host" in answer.text


def test_the_key_set_is_public_and_kept_for_a_minute(app: Flask) -> None:
    answer = program(app).get("/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert answer.mimetype == "application/json"
    assert "Set-Cookie" not in answer.headers
    assert [key["alg"] for key in answer.get_json()["keys"]] == ["ES256"]


def test_each_secret_has_a_key(make_app: MakeApp) -> None:
    old, new = "o" * 32, "n" * 32
    sets = [
        program(make_app(SECRET_KEY=secrets)).get("/.well-known/jwks.json").get_json()["keys"]
        for secrets in (old, f"{new},{old}", new)
    ]
    assert sets[1] == [*sets[2], *sets[0]]


def test_an_app_behind_a_broken_proxy_tells_who_is_real(
    app: Flask, token: str, person: str
) -> None:
    """The proxy passes on what the client sent, and adds what authapp answered."""
    site = Client(AssertedIdentity(guarded, verifier(app)))
    smuggled = {"Remote-User": "root", "Remote-Groups": "admin", "Remote_User": "root"}

    def passed_on(answer: TestResponse) -> TestResponse:
        real = {"Remote-Assertion": answer.headers["Remote-Assertion"]}
        return site.get("/", headers={**smuggled, **real})

    path = "/forward-auth/redirect;assertion=1"
    real = passed_on(ask(app, path, token))
    assert (real.status_code, "root" in real.text, person in real.text) == (200, False, True)
    assert passed_on(ask(app, path)).status_code == 403
    assert site.get("/", headers={**smuggled, "Remote-Assertion": "x.y.z"}).status_code == 403
