"""503 that says what it is: many people log in, or nobody knows whether a change was made."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from authapp.assembly.capacity import REQUEST_THREADS, logins_at_once
from tests.support.hashing import hashing
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    problem,
    program,
    services_of,
)

LOGINS_AT_ONCE = logins_at_once(REQUEST_THREADS)  # in a worker without more threads

CREDENTIALS = {"email": EMAIL, "password": PASSWORD}


@pytest.fixture
def rush(app: Flask, person: str) -> Iterator[None]:
    """As many log in as may."""
    with ExitStack() as taken:
        for _ in range(LOGINS_AT_ONCE):
            taken.enter_context(services_of(app).authentication._passwords.queue.place())
        yield


@pytest.mark.parametrize("path", ["/login", "/signup"])
def test_in_a_rush_people_are_told_to_come_back(app: Flask, rush: None, path: str) -> None:
    with hashing() as hashed:
        answer = browser(app).post(path, data=CREDENTIALS)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    page = Page(answer)
    assert "Many people are logging in" in page.text
    assert page.by_id("email")["value"] == EMAIL, "the form is kept"
    assert "Set-Cookie" not in answer.headers
    assert hashed == []


@pytest.mark.parametrize("path", ["/api/v1/login", "/api/v1/signup"])
def test_in_a_rush_programs_are_told_to_come_back(app: Flask, rush: None, path: str) -> None:
    with hashing() as hashed:
        answer = program(app).post(path, json=CREDENTIALS)
    assert "logging in" in problem(answer, 503, "unavailable")["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in answer.headers
    assert hashed == []


def test_in_a_rush_who_is_logged_in_stays_and_keeps_the_password(
    app: Flask, signed_in: FlaskClient
) -> None:
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    with ExitStack() as taken:
        for _ in range(LOGINS_AT_ONCE):
            taken.enter_context(services_of(app).authentication._passwords.queue.place())
        assert signed_in.get("/account").status_code == 200
        assert signed_in.post("/account/password", data=change).status_code == 503
        assert signed_in.post("/api/v1/me/password", json=change).status_code == 503
    assert signed_in.get("/account").status_code == 200
    assert log_in(browser(app)).status_code == 303


@contextmanager
def commits_lost(app: Flask, stores: Stores) -> Iterator[None]:
    """The connection ends just before each commit: its answer never comes."""

    def lose(connection: Any) -> None:
        backend = connection.connection.dbapi_connection.info.backend_pid
        stores.sql(f"SELECT pg_terminate_backend({backend}, 5000)")

    engine = services_of(app).database._engine
    event.listen(engine, "commit", lose)
    try:
        yield
    finally:
        event.remove(engine, "commit", lose)


@pytest.mark.parametrize("path", ["/account", "/api/v1/me"])
def test_a_change_that_may_have_been_made_is_not_called_undone(
    app: Flask, signed_in: FlaskClient, stores: Stores, path: str
) -> None:
    signed_in.get("/account")  # from now on the session is read from a copy
    with commits_lost(app, stores):
        if path.startswith("/api/"):
            answer = signed_in.patch(path, json={"name": "Countess"})
            told = problem(answer, 503, "unavailable")["detail"]
        else:
            answer = signed_in.post(path, data={"name": "Countess"})
            told = Page(answer).text
    assert answer.status_code == 503
    assert "can't say whether" in told
    assert "othing was changed" not in told
    assert "Set-Cookie" not in answer.headers
    assert int(answer.headers["Retry-After"]) > 0


def test_a_change_that_was_not_made_is_called_undone(
    app: Flask, signed_in: FlaskClient, stores: Stores
) -> None:
    """The control: it fails before the commit."""
    signed_in.get("/account")
    stores.sql("ALTER TABLE users RENAME TO away")
    stores.sql("CREATE VIEW users AS SELECT * FROM away WHERE pg_sleep(20) IS NULL")
    try:
        page = signed_in.post("/account", data={"name": "Countess"})
    finally:
        stores.sql("DROP VIEW users")
        stores.sql("ALTER TABLE away RENAME TO users")
    assert page.status_code == 503
    assert "Nothing was changed" in Page(page).text
