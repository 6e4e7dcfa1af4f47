"""`Effective-Within`: who makes a change while Redis is away is told how late others notice."""

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from authapp import Auth, current_user, login_required
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    browser,
    log_in,
    lose_fences,
    sign_up,
    signed_in_as,
)

HEADER = "Effective-Within"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Revalidates after 45 s, and has views as an app that embeds us has."""
    app = make_app(REVALIDATE_SECONDS=45)

    @app.post("/cart")
    @login_required
    def add() -> str:
        session["cart"] = [*session.get("cart", []), 1]
        return "added"

    @app.get("/cart")
    @login_required
    def show() -> str:
        return str(len(session.get("cart", [])))

    @app.post("/fails-after")
    @login_required
    def fails_after() -> tuple[str, int]:
        session["cart"] = []
        return "no", 409

    @app.post("/own-login")
    def own_login() -> str:
        Auth().log_in(EMAIL, PASSWORD)
        return str(current_user.name)

    sign_up(app, EMAIL)
    return app


@pytest.fixture
def ada(app: Flask) -> FlaskClient:
    client = signed_in_as(app, EMAIL)
    assert client.get("/account").status_code == 200
    return client


CHANGES = {
    "profile": ("POST", "/account", {"name": "Countess"}),
    "password": (
        "POST",
        "/account/password",
        {"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    ),
    "other sessions": ("POST", "/account/sessions/end-others", {}),
    "log-out": ("POST", "/logout", {}),
    "data of an app's view": ("POST", "/cart", {}),
}
every_change = pytest.mark.parametrize(("method", "path", "data"), CHANGES.values(), ids=CHANGES)


@every_change
def test_a_change_says_how_late_others_notice(
    app: Flask,
    ada: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    data: dict[str, str],
) -> None:
    lose_fences(app, monkeypatch)
    answer = ada.open(path, method=method, data=data)
    assert answer.status_code in {200, 303}
    assert answer.headers[HEADER] == "45"


@every_change
def test_a_change_that_everybody_notices_at_once_says_nothing(
    ada: FlaskClient, method: str, path: str, data: dict[str, str]
) -> None:
    answer = ada.open(path, method=method, data=data)
    assert answer.status_code in {200, 303}
    assert HEADER not in answer.headers


def test_the_api_says_it_in_status_header_and_body(
    app: Flask, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HEADER not in ada.patch("/api/v1/me", json={"name": "A"}).headers
    lose_fences(app, monkeypatch)
    for answer in (
        ada.patch("/api/v1/me", json={"name": "Countess"}),
        ada.delete("/api/v1/me/sessions"),
        ada.post("/api/v1/logout"),
    ):
        assert answer.status_code == 202
        assert answer.headers[HEADER] == "45"
        assert answer.get_json()["effective_within"] == 45


def test_what_changes_nothing_and_what_fails_say_nothing(
    app: Flask, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_fences(app, monkeypatch)
    assert ada.post("/cart").headers[HEADER] == "45", "something is pending"
    for path in ("/", "/account", "/cart", "/api/v1/me", "/healthz", "/nothing"):
        answer = ada.get(path)
        assert answer.status_code in {200, 404}
        assert HEADER not in answer.headers, path
    wrong = {"current_password": "wrong", "new_password": OTHER_PASSWORD}
    for answer in (
        ada.post("/account/password", data=wrong),
        ada.post("/api/v1/me/password", json=wrong),
        ada.post("/fails-after"),
    ):
        assert answer.status_code >= 400
        assert HEADER not in answer.headers


def test_a_log_in_is_there_at_once(
    app: Flask, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is pending; also where it ends the session of before."""
    lose_fences(app, monkeypatch)
    ada.post("/cart")
    credentials = {"email": EMAIL, "password": PASSWORD}
    for client in (ada, browser(app)):
        page = log_in(client, EMAIL)
        assert page.status_code == 303
        answer = client.post("/api/v1/login", json=credentials)
        assert answer.status_code == 200
        assert "effective_within" not in answer.get_json()
        own = client.post("/own-login")
        assert own.get_data(as_text=True) == "Ada"
        for told in (page, answer, own):
            assert HEADER not in told.headers
