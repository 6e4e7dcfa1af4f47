"""What X-Forwarded-… says counts exactly as far as TRUSTED_PROXY_HOPS says."""

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from .conftest import MakeApp
from .support import EMAIL, PASSWORD, Stores, program, sign_up

CLIENT = "198.51.100.9"
FORWARDED = {
    "X-Forwarded-For": f"203.0.113.66, {CLIENT}",
    "X-Forwarded-Proto": "http, https",
    "X-Forwarded-Host": "e.example, auth.example.org",
    "X-Forwarded-Port": "1, 2",
    "X-Forwarded-Prefix": "/evil, /",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66;host=e.example;proto=https",
    "True-Client-IP": "203.0.113.66",
}


def log_in(app: Flask, password: str = PASSWORD, **headers: str) -> TestResponse:
    return program(app).post(
        "/login", data={"email": EMAIL, "password": password}, headers={**FORWARDED, **headers}
    )


def address(stores: Stores) -> str:
    [(found,)] = stores.sql("SELECT address FROM sessions")
    return str(found)


def test_without_a_proxy_nothing_of_it_counts(app: Flask, person: str, stores: Stores) -> None:
    assert log_in(app, Origin="http://localhost").status_code == 303
    assert address(stores) == "127.0.0.1"
    for origin in ("https://auth.example.org", "http://e.example", "https://localhost"):
        assert log_in(app, Origin=origin).status_code == 403, origin


def test_behind_one_proxy_what_the_proxy_added_counts(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    assert log_in(app, Origin="https://auth.example.org").status_code == 303
    assert address(stores) == CLIENT
    for origin in ("http://localhost", "http://auth.example.org", "http://e.example"):
        assert log_in(app, Origin=origin).status_code == 403, origin


def test_next_to_the_forwarded_host_is_next_to_us(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    for target, location in (
        ("https://auth.example.org/account", "https://auth.example.org/account"),
        ("http://localhost/account", "/"),
        ("https://e.example/account", "/"),
    ):
        fields = {"email": EMAIL, "password": PASSWORD, "next": target}
        answer = program(app).post("/login", data=fields, headers=FORWARDED)
        assert answer.headers["Location"] == location


def test_behind_a_proxy_that_adds_nothing_it_is_the_peer(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    program(app).post("/login", data={"email": EMAIL, "password": PASSWORD})
    assert address(stores) == "127.0.0.1"


@pytest.mark.parametrize(("hops", "others_are_free"), [(0, False), (1, True)])
def test_the_limit_counts_the_address_that_is_believed(
    make_app: MakeApp, hops: int, others_are_free: bool
) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=hops, LOGIN_LIMIT_PER_ADDRESS="2 per minute")
    sign_up(app)
    for number in range(2):  # what the client says itself must not buy another window
        log_in(app, "not it", **{"X-Forwarded-For": f"203.0.113.{number}, {CLIENT}"})
    said = {"X-Forwarded-For": f"203.0.113.9, {CLIENT}"}
    assert log_in(app, **said).status_code == 429
    other = log_in(app, **{"X-Forwarded-For": f"{CLIENT}, 198.51.100.10"})
    assert (other.status_code == 303) is others_are_free


def test_ipv6_addresses_of_one_customer_share_a_window(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1, LOGIN_LIMIT_PER_ADDRESS="2 per minute")
    sign_up(app)
    for number in range(2):
        log_in(app, "not it", **{"X-Forwarded-For": f"2001:db8:0:1::{number}"})
    assert log_in(app, **{"X-Forwarded-For": "2001:db8:0:1:ffff::9"}).status_code == 429
    assert log_in(app, **{"X-Forwarded-For": "2001:db8:0:2::1"}).status_code == 303


def test_an_address_that_is_none_breaks_nothing(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=1)
    sign_up(app)
    for said in ("unknown", "<script>", "1.2.3.4:99", "x" * 5_000, "fe80::1%eth0"):
        assert log_in(app, **{"X-Forwarded-For": said}).status_code == 303, said
