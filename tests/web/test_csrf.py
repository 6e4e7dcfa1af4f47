"""Unsafe requests that another origin made a browser send do nothing."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp import Auth
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    log_in,
    program,
    sign_up,
    token_of,
)

LOGIN = {"email": EMAIL, "password": PASSWORD}
NEW = {"email": "new@example.org", "password": PASSWORD, "name": ""}
CHANGE = {"current_password": PASSWORD, "new_password": "another long enough one"}

UNSAFE: dict[str, dict[str, Any]] = {
    "/login": {"data": LOGIN},
    "/signup": {"data": NEW},
    "/logout": {},
    "/account": {"data": {"name": "Mallory"}},
    "/account/password": {"data": CHANGE},
    "/account/confirm": {"data": {"password": PASSWORD}},
    "/account/sessions/end-others": {},
    "/account/sessions/00000000-0000-0000-0000-000000000000/end": {},
    "/api/v1/login": {"json": LOGIN},
    "/api/v1/signup": {"json": NEW},
    "/api/v1/logout": {},
}

# name: headers, whether they pass without the cookie, whether with it
CASES: dict[str, tuple[dict[str, str], bool, bool]] = {
    "a page of ours": ({"Sec-Fetch-Site": "same-origin"}, True, True),
    "the person": ({"Sec-Fetch-Site": "none"}, True, True),
    "a neighbouring host": ({"Sec-Fetch-Site": "same-site"}, False, False),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, False, False),
    "nonsense": ({"Sec-Fetch-Site": "Same-Origin"}, False, False),
    "nothing in it": ({"Sec-Fetch-Site": ""}, False, False),
    # a proxy that ends TLS, or a Fetch metadata that a redirect spoilt
    "our Origin counts first": (
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        True,
        True,
    ),
    "a page of ours, behind TLS": (
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://localhost"},
        True,
        True,
    ),
    "another site with a foreign Origin": (
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"},
        False,
        False,
    ),
    "another site with a program's header": (
        {"Sec-Fetch-Site": "cross-site", "X-Requested-With": "x"},
        False,
        False,
    ),
    "ours, Origin only": ({"Origin": "http://localhost"}, True, True),
    "another Origin": ({"Origin": "https://e.example"}, False, False),
    "another Origin with a program's header": (
        {"Origin": "https://e.example", "X-Requested-With": "x"},
        False,
        False,
    ),
    "Origin: null": ({"Origin": "null"}, False, False),
    "no Origin in it": ({"Origin": ""}, False, False),
    "our host by https": ({"Origin": "https://localhost"}, False, False),
    "our host on another port": ({"Origin": "http://localhost:81"}, False, False),
    "our host as a prefix": ({"Origin": "http://localhost.e.example"}, False, False),
    "neither": ({}, True, True),
}


def is_refusal(answer: TestResponse, path: str) -> bool:
    if answer.status_code != 403:
        return False
    if path.startswith("/api/"):
        assert answer.get_json()["code"] == "cross_origin"
    else:
        assert "Error 403" in answer.get_data(as_text=True)
    return True


@pytest.mark.parametrize("with_cookie", [False, True], ids=["no cookie", "cookie"])
@pytest.mark.parametrize("case", CASES)
def test_who_may_act(app: Flask, stores: Stores, case: str, with_cookie: bool) -> None:
    headers, *passes = CASES[case]
    client = browser(app)

    def start_anew() -> None:
        stores.clear()
        sign_up(app)
        if with_cookie:
            log_in(client)
            headers["Cookie"] = f"{COOKIE}={token_of(client)}"

    headers = dict(headers)
    start_anew()
    for path, body in UNSAFE.items():
        before = stores.sql("SELECT name, epoch FROM users"), stores.rows()

        answer = program(app).post(path, headers=headers, **body)

        assert is_refusal(answer, path) is not passes[with_cookie], path
        if passes[with_cookie]:
            start_anew()
            continue
        assert not cookies_of(answer), path
        assert (stores.sql("SELECT name, epoch FROM users"), stores.rows()) == before, path
        if with_cookie:
            assert client.get("/account").status_code == 200, path


def test_reading_is_open_to_all(app: Flask, person: str) -> None:
    client = browser(app)
    log_in(client)
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"}
    for path in ("/", "/account", "/login", "/api/v1/me", "/healthz"):
        assert client.get(path, headers=headers).status_code in {200, 302}, path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MOVE"])
def test_every_unsafe_method_is_checked_before_the_route(app: Flask, method: str) -> None:
    for path in ("/", "/login", "/api/v1/me", "/healthz", "/nothing"):
        answer = program(app).open(path, method=method, headers={"Origin": "https://e.example"})
        assert answer.status_code == 403, path


def test_a_program_logs_in_acts_and_logs_out_without_saying_where_it_is(
    app: Flask, person: str
) -> None:
    """As tests of an app do with Flask's client, which sends neither header."""
    curl = app.test_client()
    assert curl.post("/login", data=LOGIN).status_code == 303
    assert curl.get("/account").status_code == 200
    assert curl.post("/logout").status_code == 303


@pytest.mark.parametrize("cookie", [f"{COOKIE}=x", f"\t{COOKIE} =x", f'a=1; {COOKIE}="x"'])
def test_a_cookie_that_other_sites_may_send_needs_an_origin(make_app: MakeApp, cookie: str) -> None:
    """With `SameSite=None` an old browser that names no origin sends the cookie, too."""
    app = make_app(SESSION_COOKIE_SAMESITE="None", SESSION_COOKIE_SECURE="1")
    answer = program(app).post("/api/v1/logout", headers={"Cookie": cookie})
    assert answer.status_code == 403
    assert "Origin" in answer.get_json()["detail"]
    for said in ({"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}):
        answer = program(app).post("/api/v1/logout", headers={"Cookie": cookie, **said})
        assert answer.status_code != 403
    assert program(app).post("/api/v1/login", json=LOGIN).status_code == 401


PUBLIC = "https://auth.example.org"


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (PUBLIC, True),
        (PUBLIC.upper(), True),
        ("http://localhost", False),  # the host that was asked
        ("http://auth.example.org", False),
        ("https://auth.example.org:8443", False),
        ("https://other.example.org", False),
    ],
)
@pytest.mark.parametrize("public_url", [PUBLIC, f"{PUBLIC}:443/", f"{PUBLIC}/a/b"])
def test_the_public_url_names_our_origin(
    make_app: MakeApp, public_url: str, origin: str, passes: bool
) -> None:
    client = program(make_app(PUBLIC_URL=public_url))
    answer = client.post("/api/v1/login", json=LOGIN, headers={"Origin": origin})
    assert answer.status_code == (401 if passes else 403)


@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("https://shop.example.org", True),
        ("http://intranet:8080", True),
        ("http://localhost", True),
        ("http://shop.example.org", False),
        ("https://shop.example.org.e.example", False),
        ("null", False),
    ],
)
def test_trusted_origins_may_act(
    make_app: MakeApp, site: dict[str, str], origin: str, passes: bool
) -> None:
    client = program(make_app(TRUSTED_ORIGINS="https://Shop.example.org:443, http://intranet:8080"))
    answer = client.post("/api/v1/login", json=LOGIN, headers={"Origin": origin, **site})
    assert answer.status_code == (401 if passes else 403)


def logged(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


def test_a_view_can_be_exempt(settings: Settings, stores: Stores) -> None:
    """As for a SAML response or the return of a payment, which another site makes browsers send."""
    app = Flask("shop")
    app.config.update(settings)
    auth = Auth(app)

    def add(path: str, view: Callable[[], str]) -> None:
        app.add_url_rule(path, path, view, methods=["POST"])

    add("/acs", auth.exempt(lambda: "open"))
    add("/under", logged(auth.exempt(lambda: "open")))
    add("/over", auth.exempt(logged(lambda: "open")))
    add("/closed", lambda: "closed")
    add("/closed-too", logged(lambda: "closed"))
    for path in ("/acs", "/under", "/over", "/closed", "/closed-too"):
        answer = program(app).post(path, headers={"Origin": "https://idp.example"})
        assert answer.status_code == (403 if "closed" in path else 200), path
