"""The token of a mailed link leaves the address bar, and no store holds it."""

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from authapp.web.session import mailed_links
from tests.web.conftest import MakeApp
from tests.web.support import EMAIL, Stores, browser, log_in, sign_up

TOKEN = "T0ken-" * 7 + "x"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app()

    @app.get("/choose")
    def choose() -> ResponseReturnValue:
        if "token" in request.args:
            return mailed_links.set_aside("reset", request.args["token"], "choose")
        return mailed_links.waiting("reset") or "nothing"

    @app.get("/done")
    def done() -> str:
        mailed_links.drop("reset")
        return "done"

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return browser(app)


def test_the_token_leaves_the_address_bar_at_once(client: FlaskClient) -> None:
    answer = client.get(f"/choose?token={TOKEN}")
    assert (answer.status_code, answer.location) == (303, "/choose")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert TOKEN not in "".join(answer.headers.getlist("Set-Cookie"))
    assert client.get("/choose").text == TOKEN
    client.get("/done")
    assert client.get("/choose").text == "nothing"


def test_a_strict_cookie_comes_along_from_a_page_of_ours_alone(make_app: MakeApp) -> None:
    app = make_app(SESSION_COOKIE_SAMESITE="Strict")
    app.add_url_rule("/x", "x", lambda: mailed_links.set_aside("reset", TOKEN, "x"))
    answer = browser(app).get("/x")
    assert (answer.status_code, answer.headers["Refresh"]) == (200, "0; url=/x")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert 'href="/x"' in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize("token", ["", TOKEN[1:], TOKEN + "x", "x" * 4_000, "ö" * 43])
def test_what_is_no_token_drops_the_one_before(client: FlaskClient, token: str) -> None:
    client.get(f"/choose?token={TOKEN}")
    assert client.get(f"/choose?token={token}").status_code == 303
    assert client.get("/choose").text == "nothing"


def test_the_session_of_somebody_signed_in_holds_no_token_that_can_be_used(
    app: Flask, client: FlaskClient, stores: Stores
) -> None:
    sign_up(app)
    log_in(client)
    client.get(f"/choose?token={TOKEN}")
    assert client.get("/choose").text == TOKEN
    (data,) = stores.sql("SELECT data::text FROM sessions WHERE ended_at IS NULL")[0]
    assert "_reset_link" in data
    assert TOKEN not in data


def test_a_log_in_takes_no_token_along(app: Flask, client: FlaskClient) -> None:
    sign_up(app)
    client.get(f"/choose?token={TOKEN}")
    assert log_in(client, EMAIL).status_code == 303
    assert client.get("/choose").text == "nothing"
