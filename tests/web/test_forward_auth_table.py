"""The answers to each proxy: every method, allowed and denied, by people, scripts and programs.

Odd methods, missing hosts and URLs, and headers of other proxies, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp import Config, create_app
from tests.web.conftest import Settings
from tests.web.forward_auth import NAMES
from tests.web.support import (
    COOKIE,
    Stores,
    behind_proxy,
    browser,
    log_in,
    program,
    services_of,
    sign_up,
    token_of,
)
from tests.web.test_forward_auth import told

AUTH, APP = "auth.example.org", "app.example.org"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
ODD_METHODS = ("PROPFIND", "QUERY", "FROB", "get", "G", "GET,POST", "M-SEARCH")
PAGE = {"Accept": "text/html,application/xhtml+xml"}
ASKERS: dict[str, dict[str, str]] = {
    "a person": PAGE,
    "a person, by fetch metadata": PAGE | {"Sec-Fetch-Mode": "navigate"},
    "a script": {"Accept": "*/*", "Sec-Fetch-Mode": "cors"},
    "a script that accepts pages": PAGE | {"Sec-Fetch-Mode": "cors"},
    "an old script": PAGE | {"X-Requested-With": "XMLHttpRequest"},
    "a program": {"Accept": "application/json"},
    "a program that says nothing": {},
    "a WebSocket": {"Upgrade": "websocket", "Sec-Fetch-Mode": "websocket"},
}
PEOPLE = ("a person", "a person, by fetch metadata")


@dataclass(frozen=True)
class Asked:
    """How a proxy asks about a request."""

    method: str
    path: str
    headers: dict[str, str]


def asked(proxy: str, method: str, target: str = "/notes?x=1") -> Asked:
    if proxy == "nginx":
        url = {"X-Original-URL": f"https://{APP}{target}", "X-Original-Method": method}
        own = {"X-Forwarded-Host": AUTH, "X-Forwarded-Proto": "https"}
        return Asked("GET", "/forward-auth/nginx", url | own)
    own = {"X-Forwarded-Host": APP, "X-Forwarded-Proto": "https"}
    if proxy == "envoy":
        own = {"Host": APP, "X-Forwarded-Proto": "https"}
        return Asked(method, f"/forward-auth/envoy{target}", own)
    own |= {"X-Forwarded-Method": method, "X-Forwarded-Uri": target}
    return Asked(method if proxy == "traefik+method" else "GET", "/forward-auth/redirect", own)


PROXIES = ("nginx", "traefik", "traefik+method", "envoy")


@pytest.fixture(scope="module")
def app(settings: Settings, shared_stores: Stores) -> Iterator[Flask]:
    """One for all: nobody is changed."""
    shared_stores.clear()
    reached = {"PUBLIC_URL": f"https://{AUTH}", "TRUSTED_PROXY_HOPS": "1"}
    app = create_app(Config.from_mapping({**settings, **reached, "ALLOWED_REDIRECT_HOSTS": APP}))
    yield app
    services_of(app).close()


@pytest.fixture(scope="module")
def person(app: Flask) -> str:
    return sign_up(app)


@pytest.fixture(scope="module")
def token(app: Flask, person: str) -> str:
    client = behind_proxy(browser(app))
    log_in(client)
    return token_of(client)


def ask(app: Flask, request: Asked, token: str = "", **more: str) -> TestResponse:
    headers = {**request.headers, **{name.replace("_", "-"): v for name, v in more.items()}}
    if token:
        headers["Cookie"] = f"{COOKIE}={token}"
    answer = program(app).open(request.path, method=request.method, headers=headers)
    assert all(len(answer.headers.getlist(name)) == 1 for name in NAMES)
    assert "Set-Cookie" not in answer.headers
    return answer


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("method", [*METHODS, *ODD_METHODS])
def test_every_method_is_allowed_and_denied_alike(
    app: Flask, token: str, person: str, proxy: str, method: str
) -> None:
    request = asked(proxy, method)
    for asker, headers in ASKERS.items():
        sent = {name.replace("-", "_"): value for name, value in headers.items()}
        answer = ask(app, request, token, **sent)
        assert (answer.status_code, told(answer)["Remote-User"]) == (200, person), asker
        for wrong in ("", "A" * 64, "x"):
            answer = ask(app, request, wrong, **sent)
            assert set(told(answer).values()) == {""}
            if proxy == "nginx":
                expected = 401
            elif asker in PEOPLE:
                expected = 302 if method in {"GET", "HEAD"} else 303
            else:
                expected = 401
            assert answer.status_code == expected, (asker, wrong)
            has_location = proxy == "nginx" or asker in PEOPLE
            assert ("Location" in answer.headers) is has_location
            assert ("WWW-Authenticate" in answer.headers) is not has_location
            if has_location:
                onward = f"https%3A//{APP}/notes%3Fx%3D1"
                assert answer.headers["Location"] == f"https://{AUTH}/login?next={onward}"


MISSING: dict[str, dict[str, str | None]] = {
    "no URL": {"X-Original-URL": None, "X-Forwarded-Uri": None},
    "an empty URL": {"X-Original-URL": "", "X-Forwarded-Uri": ""},
    "no method": {"X-Original-Method": None, "X-Forwarded-Method": None},
    "an empty method": {"X-Original-Method": "", "X-Forwarded-Method": ""},
    "no host": {"X-Forwarded-Host": None},
    "an empty host": {"X-Forwarded-Host": "", "Host": ""},
    "a host that is none": {"X-Forwarded-Host": "a b", "Host": "-"},
    "no scheme": {"X-Forwarded-Proto": None},
    "a scheme that is none": {"X-Forwarded-Proto": "javascript"},
    "a URL that is none": {"X-Original-URL": "https://[", "X-Forwarded-Uri": "https://["},
    "a URL of another scheme": {"X-Original-URL": "javascript:1", "X-Forwarded-Uri": "data:,x"},
    "a path alone": {"X-Original-URL": "/notes"},
    "two hosts": {"X-Forwarded-Host": f"e.example, {APP}"},
}


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("what", MISSING)
def test_where_something_is_missing_people_still_log_in_and_nobody_else_passes(
    app: Flask, token: str, person: str, proxy: str, what: str
) -> None:
    request = asked(proxy, "GET")
    for name, value in MISSING[what].items():
        if name not in request.headers:
            continue
        if value is None:
            del request.headers[name]
        else:
            request.headers[name] = value
    allowed = ask(app, request, token)
    assert allowed.status_code in {200, 400}
    assert told(allowed)["Remote-User"] == (person if allowed.status_code == 200 else "")
    denied = ask(app, request, **PAGE)
    assert denied.status_code in {302, 401, 400}
    assert set(told(denied).values()) == {""}
    if denied.status_code != 400:
        location = denied.headers["Location"]
        assert location.startswith((f"https://{AUTH}/login", "/login"))
        assert "javascript" not in location
        assert "e.example" not in location


# what another proxy would say, from a client
FOREIGN = {
    "nginx": {"X-Forwarded-Uri": "/evil", "X-Forwarded-Method": "POST"},
    "traefik": {"X-Original-URL": "https://evil.example/", "X-Original-Method": "POST"},
    "envoy": {
        "X-Original-URL": "https://evil.example/",
        "X-Forwarded-Uri": "/evil",
        "X-Forwarded-Method": "POST",
        "X-Envoy-Original-Path": "/evil",
    },
}


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("proxy", FOREIGN)
def test_headers_of_other_proxies_are_not_read(
    app: Flask, token: str, person: str, proxy: str
) -> None:
    more = {name.replace("-", "_"): value for name, value in FOREIGN[proxy].items()}
    more |= {"X_Forwarded_User": "root", "X_Remote_User": "root", "X_Original_URI": "/evil"}
    more |= {"X_Rewrite_URL": "/evil", "X_HTTP_Method_Override": "POST", "Forwarded": "host=evil"}
    request = asked(proxy, "GET")
    plain, foreign = ask(app, request, **PAGE), ask(app, request, **PAGE, **more)
    assert foreign.status_code == plain.status_code
    assert foreign.headers["Location"] == plain.headers["Location"]
    assert told(ask(app, request, token, **more))["Remote-User"] == person
