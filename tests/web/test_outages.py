"""When stores are away nobody is logged out: 503 where nobody can say, and no cookie is touched."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask, request, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import create_app, dev
from tests.support.databases import migrate
from tests.support.mails import WITHOUT_VERIFICATION, mails
from tests.support.settings import make_config
from tests.support.waiting import wait_until
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    browser,
    log_in,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

SECRET = "tests-only"
CHANGES = {
    "/logout": {},
    "/account": {"name": "Other"},
    "/account/password": {"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    "/account/sessions/end-others": {},
    "/account/confirm": {"password": PASSWORD},
}


class Engines:
    """Engines that come and go, with their data."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._folder, self._sockets = folder, sockets
        self.start_postgres()
        self.start_valkey()

    def start_postgres(self) -> None:
        self.postgres = dev.PostgreSQL.start(
            self._folder / "away-postgres", self._sockets, SECRET, durable=False
        )

    def start_valkey(self) -> None:
        self.valkey = dev.Valkey.start(
            self._folder / "away-valkey", self._sockets, SECRET, durable=False
        )


@pytest.fixture(scope="module")
def engines(engine_dir: Path) -> Iterator[Engines]:
    with dev.private_socket_dir() as sockets:
        engines = Engines(engine_dir, sockets)
        yield engines
        engines.valkey.stop()
        engines.postgres.stop()


@pytest.fixture(scope="module")
def app(engines: Engines) -> Iterator[Flask]:
    migrate(engines.postgres.url)
    app = create_app(make_config(engines.postgres.url, engines.valkey.url, **WITHOUT_VERIFICATION))

    @app.post("/basket")
    def basket() -> list[str]:
        session["basket"] = (*session.get("basket", ()), request.form["thing"])
        return list(session["basket"])

    sign_up(app)
    yield app
    services_of(app).close()


@pytest.fixture
def ada(app: Flask, engines: Engines) -> Iterator[FlaskClient]:
    """Ada's browser, logged in while all is well; all is well again at the end."""
    client = browser(app)
    wait_for(lambda: stores_are(client, postgres="ok", redis="ok") == 200)
    assert log_in(client).status_code == 303
    assert client.get("/account").status_code == 200
    token = token_of(client)
    yield client
    if not engines.postgres.running:
        engines.start_postgres()
    if not engines.valkey.running:
        engines.start_valkey()
    wait_for(lambda: stores_are(client, postgres="ok", redis="ok") == 200)
    assert client.get("/account").status_code == 200, "she is still logged in"
    assert token_of(client) == token


def assert_unknown(client: FlaskClient, path: str, data: dict[str, str] | None = None) -> None:
    """The answer is "nobody can say": no log-in page, no cleared cookie."""
    answer = client.get(path) if data is None else client.post(path, data=data)
    assert answer.status_code == 503, path
    (retry_after,) = answer.headers.getlist("Retry-After")
    assert int(retry_after) > 0, path
    assert "Set-Cookie" not in answer.headers, path
    assert "Clear-Site-Data" not in answer.headers, path
    if path.startswith("/api/"):
        assert answer.get_json()["code"] == "unavailable"
    else:
        assert "Error 503" in answer.get_data(as_text=True)


def wait_for(done: Callable[[], bool]) -> None:
    """A store is asked again only when its breaker has tried, a second after it opened."""
    wait_until(done, pause=0.1, ignoring=AssertionError)


def stores_are(client: FlaskClient, **states: str) -> int:
    answer = client.get("/readyz")
    assert answer.get_json()["stores"] == states
    return answer.status_code


def test_without_redis_people_stay_and_log_in(
    ada: FlaskClient, app: Flask, engines: Engines
) -> None:
    engines.valkey.stop()
    assert stores_are(ada, postgres="ok", redis="unavailable") == 200
    for path in ("/", "/account", "/account/sessions", "/api/v1/me"):
        answer = ada.get(path)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (200, False), path
    late = browser(app)
    assert log_in(late, password="not the password").status_code == 401
    assert log_in(late).status_code == 303
    assert late.get("/account").status_code == 200


def test_without_postgres_people_stay(ada: FlaskClient, engines: Engines) -> None:
    engines.postgres.stop()
    assert stores_are(ada, postgres="unavailable", redis="ok") == 200
    for path in ("/", "/account", "/api/v1/me"):
        answer = ada.get(path)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (200, False), path
    for path, data in CHANGES.items():
        assert_unknown(ada, path, data)
    assert_unknown(ada, "/signup", {"email": "new@example.org", "password": PASSWORD})


FORGOT, RESET = "/api/v1/password/forgot", "/api/v1/password/reset"


def forgot(app: Flask, email: str) -> TestResponse:
    return browser(app).post(FORGOT, json={"email": email})


def test_without_redis_a_forgotten_password_is_reset(
    ada: FlaskClient, app: Flask, engines: Engines
) -> None:
    email = "bob@example.org"
    sign_up(app, email)
    live = signed_in_as(app, email)
    engines.valkey.stop()
    assert forgot(app, email).status_code == 202
    token = mails(services_of(app), "reset")[-1].token
    answer = browser(app).post(RESET, json={"token": token, "new_password": OTHER_PASSWORD})
    assert answer.status_code == 202, "other instances may notice late"
    assert live.get("/account").status_code == 302
    assert log_in(browser(app), email, OTHER_PASSWORD).status_code == 303
    assert ada.get("/account").status_code == 200


def test_without_postgres_nobody_is_promised_a_mail_and_no_link_is_lost(
    ada: FlaskClient, app: Flask, engines: Engines
) -> None:
    email = "cora@example.org"
    sign_up(app, email)
    assert forgot(app, email).status_code == 202
    token = mails(services_of(app), "reset")[-1].token
    chosen = {"token": token, "new_password": OTHER_PASSWORD}
    engines.postgres.stop()
    for asked in (email, "nobody@example.org"):
        answer = forgot(app, asked)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
        assert_unknown(browser(app), "/forgot", {"email": asked})
    answer = browser(app).post(RESET, json=chosen)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
    assert_unknown(browser(app), "/reset", chosen)
    engines.start_postgres()
    wait_for(lambda: stores_are(ada, postgres="ok", redis="ok") == 200)
    assert browser(app).post(RESET, json=chosen).status_code == 204


def test_without_both_nobody_can_say(ada: FlaskClient, app: Flask, engines: Engines) -> None:
    engines.valkey.stop()
    engines.postgres.stop()
    assert stores_are(ada, postgres="unavailable", redis="unavailable") == 503
    for path in ("/", "/account", "/account/sessions", "/admin/users", "/login", "/api/v1/me"):
        assert_unknown(ada, path)
    for path, data in CHANGES.items():
        assert_unknown(ada, path, data)
    assert_unknown(ada, "/api/v1/logout", {})
    credentials = {"email": EMAIL, "password": PASSWORD}
    assert_unknown(ada, "/login", credentials)
    assert_unknown(browser(app), "/login", credentials)
    for path in ("/api/v1/login", "/api/v1/signup"):
        answer = ada.post(path, json=credentials)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"]
        assert "Set-Cookie" not in answer.headers

    # what needs no store goes on, for visitors without a session too
    for path in ("/healthz", "/static/authapp/authapp.css"):
        assert ada.get(path).status_code == 200
    for path in ("/", "/login", "/signup"):
        assert browser(app).get(path).status_code == 200
    assert ada.get("/nothing").status_code == 404


def test_without_both_visitors_keep_what_they_have(
    ada: FlaskClient, app: Flask, engines: Engines
) -> None:
    visitor = browser(app)
    assert visitor.post("/basket", data={"thing": "pen"}).get_json() == ["pen"]
    engines.valkey.stop()
    engines.postgres.stop()
    assert visitor.post("/basket", data={"thing": "ink"}).get_json() == ["pen", "ink"]
    basket = visitor.get_cookie("VISITOR-DATA")
    assert basket is not None
    # a person of whom nobody can say whether they are signed in is no visitor
    ada.set_cookie("VISITOR-DATA", basket.value)
    assert_unknown(ada, "/basket", {"thing": "paper"})
    ada.delete_cookie("VISITOR-DATA")


def test_readiness_tells_of_a_redis_that_drops_what_it_likes(
    ada: FlaskClient, engines: Engines
) -> None:
    with redis.Redis.from_url(engines.valkey.url) as server:
        assert ada.get("/readyz").get_json()["problems"] == []
        server.config_set("maxmemory-policy", "allkeys-lru")
        try:
            answer = ada.get("/readyz")
        finally:
            server.config_set("maxmemory-policy", "noeviction")
    assert answer.status_code == 200
    (problem,) = answer.get_json()["problems"]
    assert "set it to noeviction" in problem
