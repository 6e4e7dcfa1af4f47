"""`flask.session` is read when it is used, and not before."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.support import Stores

TOUCH_NOTHING = {
    "/healthz": 200,
    "/static/authapp/authapp.css": 200,
    "/static/authapp/favicon.svg": 200,
    "/static/authapp/nothing.css": 404,
    "/api/v1/nothing": 404,
    "/api/v1/login": 405,
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_needs_no_session_touches_no_store(
    signed_in: FlaskClient, stores: Stores, method: str
) -> None:
    for path, status in TOUCH_NOTHING.items():
        with stores.counted() as cost:
            answer = signed_in.open(path, method=method)
            answer.get_data()
        assert answer.status_code == status, path
        assert (cost.redis, cost.sql) == (0, []), path


def test_a_session_costs_one_command_and_no_sql(signed_in: FlaskClient, stores: Stores) -> None:
    signed_in.get("/api/v1/me")  # fills the copy
    for path in ("/api/v1/me", "/", "/account"):
        with stores.counted() as cost:
            assert signed_in.get(path).status_code == 200
        assert (cost.redis, cost.sql) == (1, []), path


def test_the_page_of_passwords_costs_one_statement_more(
    signed_in: FlaskClient, stores: Stores
) -> None:
    signed_in.get("/account/password")
    with stores.counted() as cost:
        assert signed_in.get("/account/password").status_code == 200
    assert cost.redis == 1
    assert len([statement for statement in cost.sql if "SELECT" in statement]) == 1


def test_a_dead_token_costs_no_sql_either(
    signed_in: FlaskClient, app: Flask, stores: Stores
) -> None:
    headers = {"Cookie": signed_in.get("/").request.headers["Cookie"]}
    signed_in.post("/logout")
    app.test_client(use_cookies=False).get("/api/v1/me", headers=headers)
    with stores.counted() as cost:
        answer = app.test_client(use_cookies=False).get("/api/v1/me", headers=headers)
    assert answer.status_code == 401
    assert (cost.redis, cost.sql) == (1, [])


def test_what_shows_the_person_varies_by_cookie_and_nothing_else_does(
    signed_in: FlaskClient,
) -> None:
    for path in ("/", "/account", "/api/v1/me", "/login"):
        assert "Cookie" in signed_in.get(path).headers.get("Vary", ""), path
    for path in ("/healthz", "/static/authapp/authapp.css"):
        assert "Cookie" not in signed_in.get(path).headers.get("Vary", ""), path
