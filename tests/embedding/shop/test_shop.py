"""The shop's own tests; they know nothing of how it keeps sessions and accounts."""

import re

import pytest
from shop import create_app, db

ANN = {"email": "ann@example.org", "password": "seven quiet rivers meet"}


@pytest.fixture(scope="module")
def app():
    app = create_app(TESTING=True)
    with app.app_context():
        db.create_all()
    return app


@pytest.fixture
def client(app):
    return app.test_client()


def token(client, path="/login"):
    return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)[1]


def send(client, path, **form):
    page = path if path in {"/login", "/signup"} else "/login"
    return client.post(
        path, data={"csrf_token": token(client, page), **form}, follow_redirects=True
    )


@pytest.fixture(scope="module")
def ann(app):
    assert send(app.test_client(), "/signup", **ANN).status_code == 200


def test_a_visitor_has_a_cart_and_messages(client):
    assert "tea is in your cart" in send(client, "/cart/tea").text
    send(client, "/cart/milk")
    assert re.findall("<li>(.*?)</li>", client.get("/").text) == ["tea", "milk"]
    assert "flash" not in client.get("/").text, "told once"


def test_forms_need_their_token(client):
    assert client.post("/cart/tea").status_code == 400
    assert client.post("/login", data=ANN).status_code == 400


def test_the_cart_survives_log_in_and_is_ordered(client, ann):
    send(client, "/cart/tea")
    assert ANN["email"] in send(client, "/login", **ANN).text
    assert "<li>tea</li>" in client.get("/").text
    assert "<li>tea</li>" in send(client, "/orders").text
    assert "<li>" not in client.get("/").text


def test_a_wrong_password_is_told(client, ann):
    shown = send(client, "/login", email=ANN["email"], password="wrong, but long enough")
    assert "Wrong email or password" in shown.text
    assert "Nobody" in client.get("/").text


def test_orders_are_for_people_who_are_logged_in(client):
    answer = client.get("/orders")
    assert answer.status_code == 302
    assert answer.location.partition("?")[0].endswith("/login")


def test_log_out(client, ann):
    send(client, "/login", **ANN)
    shown = send(client, "/logout")
    assert "Goodbye" in shown.text
    assert "Nobody" in shown.text


def test_a_session_that_a_test_prepares(client):
    with client.session_transaction() as session:
        session["cart"] = ["bread"]
    assert "<li>bread</li>" in client.get("/").text
