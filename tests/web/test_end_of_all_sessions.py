"""The end of everybody's sessions by the API and by the page: permissions and answers."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    browser,
    lose_fences,
    problem,
    program,
    sign_up,
    signed_in_as,
    token_of,
)

ROOT = "root@example.org"
CALL = ("DELETE", "/api/v1/sessions")
PAGE = ("POST", "/admin/sessions/end-all")
WAYS = pytest.mark.parametrize("way", [CALL, PAGE], ids=["call", "page"])


@pytest.fixture
def root(app: Flask) -> FlaskClient:
    sign_up(app, EMAIL)
    sign_up(app, ROOT, roles=["admin"])
    return signed_in_as(app, ROOT)


@pytest.fixture
def helper(stores: Stores) -> Iterator[str]:
    """A role that sees people and ends their sessions."""
    stores.sql(
        "INSERT INTO roles (id, name, permissions)"
        " VALUES (98, 'helper', ARRAY['users:read', 'sessions:end'])"
    )
    yield "helper"
    stores.clear()
    stores.sql("DELETE FROM roles WHERE id = 98")


def end_all(client: FlaskClient, way: tuple[str, str]) -> TestResponse:
    method, path = way
    return client.open(path, method=method)


@WAYS
def test_everybody_is_signed_out_the_administrator_too(
    app: Flask, root: FlaskClient, way: tuple[str, str]
) -> None:
    ada = signed_in_as(app, EMAIL)
    tokens = [token_of(root), token_of(ada)]
    answer = end_all(root, way)
    assert answer.status_code == (204 if way is CALL else 303)
    assert answer.headers["Clear-Site-Data"]
    assert root.get_cookie(COOKIE) is None
    for token in tokens:
        anybody = browser(app)
        anybody.set_cookie(COOKIE, token)
        assert anybody.get("/api/v1/me").status_code == 401
        page = anybody.get("/account", follow_redirects=True)
        assert "signed out because everybody was" in page.text


@WAYS
def test_the_administrator_is_told(app: Flask, root: FlaskClient, way: tuple[str, str]) -> None:
    end_all(root, way)
    page = root.get("/login").text
    assert ("Everybody is signed out, you too." in page) is (way is PAGE)


def test_tokens_of_programs_end_too(app: Flask, root: FlaskClient) -> None:
    client = program(app)
    asked = {"email": EMAIL, "password": PASSWORD, "refresh": True}
    tokens = client.post("/api/v1/tokens", json=asked).get_json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert client.get("/api/v1/me", headers=headers).status_code == 200
    assert end_all(root, CALL).status_code == 204
    assert client.get("/api/v1/me", headers=headers).status_code == 401
    refresh = {"refresh_token": tokens["refresh_token"]}
    assert client.post("/api/v1/tokens/refresh", json=refresh).status_code == 401


@WAYS
def test_without_redis_the_answer_says_when_others_follow(
    app: Flask, root: FlaskClient, monkeypatch: pytest.MonkeyPatch, way: tuple[str, str]
) -> None:
    lose_fences(app, monkeypatch)
    answer = end_all(root, way)
    assert answer.headers["Effective-Within"] == "60"
    if way is CALL:
        assert (answer.status_code, answer.get_json()) == (202, {"effective_within": 60})
    else:
        assert "up to 60 seconds" in root.get("/login").text


@WAYS
def test_only_an_administrator_may(
    app: Flask, helper: str, stores: Stores, way: tuple[str, str]
) -> None:
    """The permission alone is not enough: some of those who are signed out may do more."""
    sign_up(app, EMAIL, roles=[helper])
    client = signed_in_as(app, EMAIL)
    answer = end_all(client, way)
    assert answer.status_code == 403
    if way is CALL:
        problem(answer, 403, "exceeds_own_permissions")
    assert client.get("/account").status_code == 200
    assert stores.sql("SELECT 1 FROM audit_events WHERE event LIKE '%%everybody'") == []


def test_the_page_asks_first(app: Flask, root: FlaskClient) -> None:
    assert "/admin/sessions/end-all" in root.get("/admin/users").text
    page = Page(root.get("/admin/sessions/end-all"))
    assert "yours too" in page.text
    assert root.get("/account").status_code == 200, "to look ends nothing"


def test_it_is_offered_to_administrators_alone(app: Flask, helper: str) -> None:
    sign_up(app, EMAIL, roles=[helper])
    assert "end-all" not in signed_in_as(app, EMAIL).get("/admin/users").text


@WAYS
def test_it_is_on_record_with_the_person_who_did_it(
    app: Flask, root: FlaskClient, stores: Stores, way: tuple[str, str]
) -> None:
    end_all(root, way)
    found = stores.sql(
        "SELECT a.user_id, u.email, a.details FROM audit_events a JOIN users u ON u.id = a.actor_id"
        " WHERE event = 'sessions.ended_for_everybody'"
    )
    assert found == [(None, ROOT, {})]
