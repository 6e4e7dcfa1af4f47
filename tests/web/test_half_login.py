"""A log-in that still needs its second factor opens nothing: no page, no call, no forward-auth."""

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp import (
    current_user,
    login_required,
    permission_required,
    roles_required,
    step_up_required,
)
from tests.support.mails import WITHOUT_VERIFICATION
from tests.web.conftest import MakeApp
from tests.web.factors import API, enrolled, waiting
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    browser,
    log_in,
    services_of,
    session_cookies_of,
    sign_up,
)
from tests.web.test_authorization import ROWS, ROWS_WITH_MAIL, body_of

# A log-in that waits may go on by its own pages and calls; and anybody may sign up, or log out.
ONWARD = ("/login/factor", "/api/v1/login/factor")
OF_ANYBODY = {("POST", "/signup"), ("POST", "/logout"), ("POST", "/api/v1/logout")}
# every call and page, which `test_no_call_is_missing_from_the_table` holds; with mail and passkeys
EVERYTHING = {(m, path): row["anonymous"] for m, path, row in (*ROWS, *ROWS_WITH_MAIL)}


def add_own_views(app: Flask) -> list[str]:
    """Views of an app that embeds us, behind each guard."""
    guards = {
        "login": login_required,
        "step-up": step_up_required,
        "role": roles_required("admin"),
        "permission": permission_required("users:read"),
    }
    for name, guard in guards.items():
        app.add_url_rule(f"/shop/{name}", name, guard(lambda: "the shop"), methods=["GET", "POST"])
    app.add_url_rule("/shop/who", "who", lambda: str(current_user.is_authenticated))
    return [f"/shop/{name}" for name in guards]


def with_cookie(client: FlaskClient, token: str) -> None:
    client.set_cookie(COOKIE, token)


def with_bearer(client: FlaskClient, token: str) -> None:
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"


def with_access_token(client: FlaskClient, token: str) -> None:
    client.environ_base["HTTP_X_ACCESS_TOKEN"] = token


def with_device_token(client: FlaskClient, token: str) -> None:
    client.set_cookie("DEVICE-TOKEN", token)


def by_the_page(client: FlaskClient, _: str) -> None:
    assert log_in(client, remember="y").location.startswith("/login/factor")


HALVES = {
    "of the page": by_the_page,
    "as a session": with_cookie,
    "as a bearer": with_bearer,
    "as an access token": with_access_token,
    "as a device": with_device_token,
}


def url_of(path: str, person: str) -> str:
    url = path.replace("<own>", person).replace("<other>", person).replace("<role>", "user")
    return url.replace("<missing>", str(uuid4())).replace("<open>", str(uuid4()))


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("enrols", [False, True], ids=["holds a factor", "must set one up"])
def test_it_opens_nothing(make_app: MakeApp, stores: Stores, kind: str, enrols: bool) -> None:
    app = make_app(
        SECOND_FACTOR="required" if enrols else "optional",
        LOGIN_LIMIT_PER_ADDRESS="100000 per minute",
        LOGIN_FAILURES_PER_ACCOUNT="100000 per minute",
        **WITHOUT_VERIFICATION,
    )
    own_views = add_own_views(app)
    person = sign_up(app, roles=["admin"])
    if not enrols:
        enrolled(app, stores)
        stores.sql("DELETE FROM sessions")
    token = waiting(app)["login_token"]
    client = browser(app)
    HALVES[kind](client, token)
    for (method, path), anonymous in EVERYTHING.items():
        if path.startswith(ONWARD) or (method, path) in OF_ANYBODY:
            continue
        sent: dict[str, Any] = {
            "json" if path.startswith("/api/") else "data": body_of(path, method)
        }
        answer = client.open(url_of(path, person), method=method, **sent)
        if anonymous >= 300:
            assert answer.status_code >= 300, (method, path)
            assert answer.headers.get("Remote-User", "") == ""
        assert not any(cookie.value for cookie in session_cookies_of(answer)), (method, path)
    for path in own_views:
        for method in ("GET", "POST"):
            answer = client.open(path, method=method)
            assert answer.status_code in {302, 303, 401}, (method, path)
            assert answer.text != "the shop"
    assert client.get("/shop/who").text == "False"
    assert stores.sql("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(0,)]
    [(held, version)] = stores.sql("SELECT second_factor, epoch FROM users WHERE id = %s", person)
    assert held is not enrols
    assert version == (1 if enrols else 2), "nothing of the account was changed"


@pytest.mark.parametrize("field", ["reset", "verify", "refresh", "factor"])
def test_it_is_no_other_token(make_app: MakeApp, stores: Stores, field: str) -> None:
    app = make_app()
    sign_up(app)
    enrolled(app, stores)
    token = waiting(app)["login_token"]
    client = browser(app)
    sent: dict[str, tuple[str, dict[str, Any]]] = {
        "reset": ("/password/reset", {"token": token, "new_password": OTHER_PASSWORD}),
        "verify": ("/email/verify", {"token": token, "password": PASSWORD}),
        "refresh": ("/tokens/refresh", {"refresh_token": token}),
        "factor": ("/login/factor/totp", {"login_token": token}),
    }
    path, body = sent[field]
    assert client.post(API + path, json=body).status_code in {400, 401}


def test_a_reset_by_mail_removes_no_factor(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(MAIL_URL="smtp://127.0.0.1:9", PUBLIC_URL="http://localhost")
    sign_up(app)
    enrolled(app, stores)
    link = services_of(app).reset_links.make(services_of(app).users.page().users[0].id)
    token = link.rpartition("=")[2]
    client = browser(app)
    body = {"token": token, "new_password": OTHER_PASSWORD}
    assert client.post(f"{API}/password/reset", json=body).status_code == 204
    assert client.get(f"{API}/me").status_code == 401
    assert log_in(client, EMAIL, OTHER_PASSWORD).location.startswith("/login/factor")
