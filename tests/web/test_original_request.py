"""The visitor's request is known in the same way whichever proxy asks, and demands nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder, TestResponse

from authapp import Config, create_app
from authapp.web.forward_auth.asked_address import AskedAddress
from authapp.web.forward_auth.original_request import OriginalRequest
from authapp.web.forward_auth.proxies import ENVOY, NGINX, REDIRECT, Proxy
from tests.web.conftest import Settings
from tests.web.forward_auth import NAMES
from tests.web.support import Stores, browser, log_in, services_of, sign_up, token_of
from tests.web.test_forward_auth import PAGE, ask, onward, refused, told

HOST = "app.example.org"
FOREIGN = {
    "X-Original-URL": "https://evil.example/x",
    "X-Original-URI": "/evil",
    "X-Original-Method": "EVIL",
    "X-Forwarded-Uri": "/evil",
    "X-Forwarded-Method": "EVIL",
}


@dataclass(frozen=True)
class Asking:
    """A kind of proxy, and how it asks about a request of a visitor."""

    proxy: Proxy
    url: str
    headers: dict[str, str]
    method: str = "GET"

    def original(self) -> OriginalRequest:
        foreign = {name: value for name, value in FOREIGN.items() if name not in self.headers}
        headers = {"Host": HOST, **foreign, **self.headers}
        environ = EnvironBuilder(
            self.url, f"https://{HOST}", method=self.method, headers=list(headers.items())
        ).get_environ()
        read: list[OriginalRequest] = []

        def inner(environ: dict[str, Any], _start: object) -> list[bytes]:
            assert environ["PATH_INFO"] == self.proxy.route
            read.append(self.proxy.original(environ))
            return []

        AskedAddress(inner, "")(environ, lambda *_: lambda _: None)
        return read[0]


def askings(method: str, target: str) -> list[Asking]:
    """Each kind of proxy, about the same request."""
    forwarded = {"X-Forwarded-Method": method, "X-Forwarded-Uri": target}
    url = {"X-Original-URL": f"https://{HOST}{target}", "X-Original-Method": method}
    return [
        Asking(NGINX, "/forward-auth/nginx", url),
        Asking(REDIRECT, "/forward-auth/redirect", forwarded),
        Asking(ENVOY, f"/forward-auth/envoy{target}", {}, method),
        Asking(ENVOY, f"/forward-auth/envoy;role=user{target}", {}, method),
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/notes?x=1",
        "//x/y",
        "/a/../admin",
        "/a%2fb%2Fc",
        "/%2e%2e/x?role=admin",
        "/;role=admin/x",
        "/a;b?c=/forward-auth/envoy/d",
        "/%C3%BC?%zz&&a;b",
        "/page?",
    ],
)
def test_it_is_known_in_the_same_way_for_each_proxy(method: str, target: str) -> None:
    for asking in askings(method, target):
        original = asking.original()
        path, _, query = target.partition("?")
        found = (original.method, original.host, original.path, original.query)
        assert found == (method, HOST, path, query), asking


def test_where_the_server_tells_no_path_as_it_was_written_it_is_encoded_again() -> None:
    environ = EnvironBuilder("/forward-auth/envoy/a b/ü%2F?x=%2F").get_environ()
    for name in ("RAW_URI", "REQUEST_URI"):
        environ[name] = "/forward-auth/envoy/forged"
    read: list[str] = []

    def inner(environ: dict[str, Any], _start: object) -> list[bytes]:
        read.append(ENVOY.original(environ).url)
        return []

    AskedAddress(inner, "")(environ, lambda *_: lambda _: None)
    assert read == ["http://localhost/a%20b/%C3%BC/?x=%2F"]


@pytest.fixture(scope="module")
def app(settings: Settings, shared_stores: Stores) -> Iterator[Flask]:
    """One for all: nobody is changed."""
    shared_stores.clear()
    reached = {"PUBLIC_URL": "https://auth.example.org", "ALLOWED_REDIRECT_HOSTS": HOST}
    app = create_app(Config.from_mapping({**settings, **reached}))
    yield app
    services_of(app).close()


@pytest.fixture(scope="module")
def person(app: Flask) -> str:
    return sign_up(app)


@pytest.fixture(scope="module")
def token(app: Flask, person: str) -> str:
    client = browser(app)
    log_in(client)
    return token_of(client)


@pytest.mark.usefixtures("through")
def test_envoy_gets_exactly_200_whatever_the_path_and_the_method(
    app: Flask, token: str, person: str
) -> None:
    for target in (
        "",
        "/",
        "/notes?x=1",
        f"/?{'a&' * 999}",
        "//x",
        "/forward-auth/nginx",
        "/a%2Fb",
        "/ü",
    ):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "PROPFIND"):
            answer = ask(app, f"/forward-auth/envoy{target}", token, method)
            assert (answer.status_code, told(answer)["Remote-User"]) == (200, person), target
            refused(ask(app, f"/forward-auth/envoy{target}", method=method), 401)


@pytest.mark.usefixtures("through")
def test_people_log_in_at_public_url_and_are_led_back(app: Flask) -> None:
    """Envoy, Caddy and Traefik ask with the host of the guarded app."""
    expected = ("https://auth.example.org/login", f"https://{HOST}/notes?x=%2F")
    headers = {"Host": HOST, **PAGE}
    over_https = {"wsgi.url_scheme": "https"}
    envoy = app.test_client().get(
        "/forward-auth/envoy/notes?x=%2F", headers=headers, environ_overrides=over_https
    )
    caddy = app.test_client().get(
        "/forward-auth/redirect",
        headers={**headers, "X-Forwarded-Uri": "/notes?x=%2F"},
        environ_overrides=over_https,
    )
    assert (onward(envoy), onward(caddy)) == (expected, expected)


@pytest.mark.usefixtures("through")
def test_what_a_visitor_writes_is_no_demand_of_envoy(app: Flask, token: str) -> None:
    for target in ("/?role=admin", "/;role=admin", "/x?preflight=pass", "/?x=1", "/a;b"):
        assert ask(app, f"/forward-auth/envoy{target}", token).status_code == 200, target


@pytest.mark.usefixtures("through")
@pytest.mark.parametrize("folder", ["redirect", "envoy"])
def test_a_demand_in_the_path_is_the_proxys(app: Flask, token: str, folder: str) -> None:
    behind = "/notes?role=user" if folder == "envoy" else "?role=user"
    for parameters, status in {
        "role=user": 200,
        "role=admin": 403,
        "role=admin;role=user": 200,
        "role=%75ser": 200,
        "": 200,
        "roles=admin": 400,
        "role=user;x": 400,
        "preflight=yes": 400,
    }.items():
        answer = ask(app, f"/forward-auth/{folder};{parameters}{behind}", token)
        assert answer.status_code == status, parameters


@pytest.mark.usefixtures("through")
def test_a_query_that_caddy_kept_is_the_visitors(app: Flask, token: str) -> None:
    """If it names a role nobody can tell whose it is, so it holds."""

    def kept(query: str) -> TestResponse:
        uri = f"/page?{query}"
        return ask(app, f"/forward-auth/redirect?{query}", token, X_Forwarded_Uri=uri)

    for query in ("x=1", "a&&b", "x=1&roles=admin"):
        assert kept(query).status_code == 200, query
    assert kept("role=admin").status_code == 403
    assert kept("x=1&role=admin").status_code == 403
    for path in ("/forward-auth/redirect", "/forward-auth/redirect;"):
        answer = ask(app, path, token, X_Forwarded_Uri="/page?role=admin")
        assert answer.status_code == 200, "the configuration has a query, be it empty"
    query = "role=admin"
    query += "&a" * 999
    answer = ask(app, f"/forward-auth/redirect;?{query}", token, X_Forwarded_Uri=f"/p?{query}")
    assert answer.status_code == 200
    assert ask(app, "/forward-auth/redirect?x=1", token).status_code == 400


@pytest.mark.usefixtures("through")
def test_a_preflight_passes_as_nobodys_where_the_proxy_says_so(app: Flask, token: str) -> None:
    asking = {"Origin": "https://e.example", "Access-Control-Request-Method": "PUT"}
    sent = {name.replace("-", "_"): value for name, value in asking.items()}
    for path, more, method in (
        ("/forward-auth/nginx?preflight=pass", {"X_Original_Method": "OPTIONS"}, "GET"),
        ("/forward-auth/redirect?preflight=pass", {"X_Forwarded_Method": "OPTIONS"}, "GET"),
        ("/forward-auth/redirect;preflight=pass", {"X_Forwarded_Method": "OPTIONS"}, "GET"),
        ("/forward-auth/envoy;preflight=pass/notes", {}, "OPTIONS"),
    ):
        for whose in ("", token):
            answer = ask(app, path, whose, method, **sent, **more)
            assert answer.status_code == 200
            assert {answer.headers[name] for name in NAMES} == {""}
        refused(ask(app, path, "", method, **more), 401)  # OPTIONS alone is no preflight
        refused(ask(app, path.replace("preflight", "login"), "", method, **sent), 401, 400)
        plain = path.replace(";preflight=pass", "").partition("?")[0]
        refused(ask(app, plain, "", method, **sent, **more), 401)
        refused(ask(app, path, "", "GET", **sent), 401)
