"""Where log-in leads: this site and allowed hosts, whatever `next` says."""

from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import MakeApp
from tests.web.support import EMAIL, PASSWORD, browser, log_in, sign_up

HERE = "http://localhost/"
ALLOWED = "app.example.org"

STAYS = {
    "/account": "/account",
    "/account?tab=1&x=%2F": "/account?tab=1&x=%2F",
    "/account/../admin": "/account/../admin",
    "/ü": "/%C3%BC",
    "/%09/e": "/%09/e",  # no tab: browsers don't decode what they are sent to
    "/%5Ce": "/%5Ce",
    "/?next=https://e.example": "/?next=https://e.example",
    "http://localhost/account": "http://localhost/account",
    "HTTP://LOCALHOST/account": "http://localhost/account",
    "https://localhost/account": "https://localhost/account",  # TLS that a proxy does not tell of
    f"https://{ALLOWED}/notes?x=1": f"https://{ALLOWED}/notes?x=1",
    f"https://{ALLOWED.upper()}/": f"https://{ALLOWED}/",
    f"http://{ALLOWED}/": f"http://{ALLOWED}/",
    "https://ported.example.org:8443/": "https://ported.example.org:8443/",
}

GOES_HOME = [
    "",
    " ",
    "//e",
    "//e.example/account",
    "///e",
    "////e",
    "/\\e",
    "\\\\e",
    "\\/e",
    "/\t/e",
    "/\t\\e",
    "\t//e",
    " //e",
    "/\n/e",
    "/\r\n/e",
    "/account\r\nSet-Cookie: x=1",
    "/\x00/e",
    "\x00",
    "/account\x00",
    "\x0b//e",
    "\x7f//e",
    "https:e",
    "https:/e",
    "https:///e",
    "http:e.example",
    "https://",
    "https://other",
    "https://other/account",
    "HTTPS://OTHER",
    "javascript:alert(1)",
    "JavaScript://localhost/%0aalert(1)",
    "data:text/html,x",
    "ftp://localhost/",
    "http://user@localhost/",
    "http://localhost@e.example/",
    "http://localhost:80@e.example/",
    f"https://{ALLOWED}@e.example/",
    f"https://user@{ALLOWED}/",
    f"https://user:secret@{ALLOWED}/",
    f"https://e.example#@{ALLOWED}/",
    f"https://e.example?@{ALLOWED}/",
    f"https://e.example\\@{ALLOWED}/",
    f"https://{ALLOWED}.e.example/",
    f"https://e.{ALLOWED}/",
    f"https://{ALLOWED}:8443/",
    "https://ported.example.org/",
    f"//{ALLOWED}/e",
    "http://localhost.e.example/",
    "http://localhost:81/",
    "http://localhost:x/",
    "http://[::1/",
    "http://[localhost]/",
    "account",
    "?next=/account",
    "#e",
    ".//e",
    "e.example",
]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app(
        ALLOWED_REDIRECT_HOSTS=f"{ALLOWED},ported.example.org:8443",
        LOGIN_LIMIT_PER_ADDRESS="9999 per minute",
    )
    sign_up(app)
    return app


@pytest.fixture
def ada(app: Flask) -> FlaskClient:
    client = browser(app)
    log_in(client)
    return client


def destination(ada: FlaskClient, target: str) -> str:
    """Where log-in leads with this `next`: in the form, in the address, and when it is over."""
    fields = {"email": EMAIL, "password": PASSWORD}
    answers = [
        ada.get("/login", query_string={"next": target}),
        ada.post("/login", data={**fields, "next": target}),
        ada.post("/login", data=fields, query_string={"next": target}),
    ]
    assert [a.status_code for a in answers] == [302, 303, 303]
    (location,) = {answer.headers["Location"] for answer in answers}
    return location


def host_of(location: str) -> str:
    """The host that a browser would go to: it drops blanks at the ends, and tabs and newlines
    everywhere, and reads `\\` as `/`."""
    text = location.strip("".join(map(chr, range(33))))
    text = text.translate({9: None, 10: None, 13: None, ord("\\"): "/"})
    return urlsplit(urljoin(HERE, text)).netloc.lower()


def test_it_may_lead_here_and_to_allowed_hosts(ada: FlaskClient) -> None:
    hosts = set()
    for target, expected in STAYS.items():
        location = destination(ada, target)
        assert location == expected, target
        hosts.add(host_of(location))
    assert hosts == {"localhost", ALLOWED, "ported.example.org:8443"}


def test_anything_else_leads_home(ada: FlaskClient) -> None:
    for target in GOES_HOME:
        assert destination(ada, target) == "/", repr(target)


def test_https_does_not_lead_to_plain_http(app: Flask) -> None:
    ada = browser(app)
    log_in(ada)
    assert ada.get("/login", query_string={"next": HERE}).headers["Location"] == HERE
    for target, expected in (
        ("https://localhost/account", "https://localhost/account"),
        ("http://localhost/account", "/"),
        (f"http://{ALLOWED}/", f"http://{ALLOWED}/"),  # the operator allowed the host
    ):
        answer = ada.get("/login", query_string={"next": target}, base_url="https://localhost")
        assert (answer.status_code, answer.headers["Location"]) == (302, expected), target


def test_the_table_holds_what_would_lead_away() -> None:
    """The control: browsers would leave for these, if they were sent there."""
    readable = [target for target in GOES_HOME if "[" not in target]
    assert sum(host_of(target) != "localhost" for target in readable) > 25


def test_no_address_is_redirected_to_another_spelling(app: Flask) -> None:
    """Werkzeug would name the host that the request names: `strict_slashes=False` where a route
    ends in a slash, no merging of slashes, and no defaults."""
    for rule in app.url_map.iter_rules():
        assert not (rule.rule.endswith("/") and rule.strict_slashes), rule
        assert not rule.merge_slashes, rule
        assert not rule.defaults, rule
        assert rule.redirect_to is None, rule


def test_the_form_carries_only_what_is_safe(client: FlaskClient, app: Flask) -> None:
    for target in ("//e.example", "/\\e.example", "https:e.example", "/\t/e.example"):
        page = client.get("/login", query_string={"next": target}).get_data(as_text=True)
        assert 'name="next" type="hidden" value="/"' in page, target
