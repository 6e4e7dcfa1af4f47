"""A guarded host that is missing in ALLOWED_REDIRECT_HOSTS: the log says what to add, once."""

from typing import Any

import pytest
from flask import Flask

from authapp.web.unlisted_hosts import MOST
from tests.support.events import logged_events
from tests.support.threads import at_once
from tests.web.conftest import MakeApp
from tests.web.support import program

NGINX, REDIRECT = "/forward-auth/nginx", "/forward-auth/redirect"
LISTED = "listed.example.org"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS=f"{LISTED},auth.example.org")


def asked(app: Flask, path: str, **headers: str) -> list[dict[str, Any]]:
    with logged_events() as lines:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        program(app).get(path, headers={"Accept": "text/html", **sent})
    return [line for line in lines if "ALLOWED_REDIRECT_HOSTS" in line["event"]]


def test_the_line_names_the_setting_and_the_value_to_add(app: Flask) -> None:
    (line,) = asked(app, NGINX, X_Original_URL="https://App.example.org:8443/notes?secret=1")
    assert (line["setting"], line["add"]) == ("ALLOWED_REDIRECT_HOSTS", "app.example.org:8443")
    assert line["level"] == "WARNING"
    assert "secret" not in str(line)
    assert asked(app, NGINX, X_Original_URL="https://app.example.org:8443/") == []
    (line,) = asked(app, NGINX, X_Original_URL="https://app.example.org/")
    assert line["add"] == "app.example.org"


def test_so_it_does_where_the_proxy_names_the_log_in_page(app: Flask) -> None:
    """The guarded host is then in X-Forwarded-Host, and only the log-in page refuses it."""
    elsewhere = f"{REDIRECT}?login=https://auth.example.org/login"
    told = {"X_Forwarded_Uri": "/notes", "X_Forwarded_Proto": "https"}
    (line,) = asked(app, elsewhere, X_Forwarded_Host="app.example.org", **told)
    assert line["add"] == "app.example.org"
    for fine in (LISTED, "auth.example.org"):
        assert asked(app, elsewhere, X_Forwarded_Host=fine, **told) == []


@pytest.mark.parametrize(
    "url",
    [
        "/notes",
        f"https://{LISTED}/",
        "http://localhost/own",
        "https://a@b.example/",
        "https://[::1/",
        "https:///notes",
        f"https://{'a' * 300}.example/",
        "https://a.example\x1b[2J/",
        "https://ä.example/",
        'https://"}{.example/',
        "javascript:alert(1)",
    ],
)
def test_what_is_right_or_no_host_is_not_named(app: Flask, url: str) -> None:
    assert asked(app, NGINX, X_Original_URL=url.encode().decode("latin-1")) == []


def test_made_up_hosts_fill_neither_log_nor_memory(app: Flask) -> None:
    hosts = [f"https://h{n}.example/" for n in range(MOST + 20)]
    lines = [line for host in hosts for line in asked(app, NGINX, X_Original_URL=host)]
    assert len(lines) == MOST


def test_of_many_requests_at_once_one_is_named(app: Flask) -> None:
    client = program(app)

    def ask() -> None:
        client.get(NGINX, headers={"X-Original-URL": "https://app.example.org/"})

    with logged_events() as lines:
        assert at_once(*[ask] * 8) == [None] * 8
    assert len([line for line in lines if line.get("add")]) == 1
