"""The answer to a person who types a password whose replacement Postgres has lost."""

import pytest
from flask import Flask

from tests.support.lost_commits import commits_lost
from tests.support.mails import WITHOUT_VERIFICATION
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    browser,
    problem,
    program,
    services_of,
    sign_up,
)


@pytest.fixture
def app(make_app: MakeApp, web_database_url: str) -> Flask:
    app = make_app(**WITHOUT_VERIFICATION)
    sign_up(app)
    with commits_lost(web_database_url):
        services_of(app).password_changes.set_password(EMAIL, OTHER_PASSWORD)
        services_of(app).background.drain()
    return app


def test_the_page_points_to_the_reset(app: Flask) -> None:
    form = {"email": EMAIL, "password": PASSWORD}
    answer = browser(app).post("/login", data=form)
    assert answer.status_code == 401
    assert "This password was replaced by another one" in answer.text
    assert 'href="/forgot"' in answer.text
    assert browser(app).post("/login", data=form | {"password": OTHER_PASSWORD}).status_code == 303


def test_a_program_is_told_too(app: Flask) -> None:
    answer = program(app).post("/api/v1/login", json={"email": EMAIL, "password": PASSWORD})
    assert problem(answer, 401, "invalid_credentials")["detail"].startswith("This password was")
