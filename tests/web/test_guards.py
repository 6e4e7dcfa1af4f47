"""Guards in an app as people write them: `async def`, many decorators, Flask-Login's questions."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, render_template_string
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin

from authapp import Auth, current_user, login_required, permission_required, roles_required
from authapp.accounts.actor import OPERATOR
from tests.support.events import logged_events
from tests.web.conftest import Settings
from tests.web.support import EMAIL, PASSWORD, Stores, services_of, sign_up

ASKED = (
    "{{ current_user.is_authenticated }} {{ current_user.is_anonymous }} "
    "{{ current_user.is_active }} {{ current_user.get_id() }}"
)


@pytest.fixture
def app(settings: Settings, stores: Stores) -> Iterator[Flask]:
    app = Flask("notes")
    app.config.update(settings)
    auth = Auth(app)

    @app.post("/log-in")
    def log_in() -> str:
        return str(auth.log_in(EMAIL, PASSWORD).record.user.id)

    @app.get("/open")
    async def open_() -> str:
        return render_template_string(ASKED)

    guards: dict[str, Callable[..., Any]] = {
        "login": login_required,
        "role": roles_required("admin"),
        "permission": permission_required("users:read"),
    }
    for name, guard in guards.items():

        async def view(name: str = name) -> str:
            return f"{name} {current_user.email}"

        app.add_url_rule(f"/{name}", name, guard(view))
    app.add_url_rule("/all", "all", guards["login"](guards["role"](guards["permission"](view))))
    yield app
    services_of(app).close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


GUARDED = ("/login", "/role", "/permission", "/all")


@pytest.mark.parametrize("path", GUARDED)
def test_an_async_view_is_guarded(app: Flask, client: FlaskClient, path: str) -> None:
    person = UUID(sign_up(app))
    assert client.get(path).status_code == 401
    client.post("/log-in")
    assert client.get(path).status_code == (200 if path == "/login" else 403)
    services_of(app).administration.set_roles(person, ["admin"], OPERATOR)
    answer = client.get(path)
    assert answer.status_code == 200
    assert EMAIL in answer.text


class Person(UserMixin):  # type: ignore[misc]
    """A user as an app loads it for Flask-Login."""

    def __init__(self, id: str) -> None:
        self.id = id


def test_flask_login_beside_us_is_told_in_the_log(app: Flask, client: FlaskClient) -> None:
    sign_up(app)
    manager = LoginManager(app)
    manager.user_loader(Person)
    with logged_events() as events:
        client.post("/log-in")
        client.post("/log-in")
    assert [e["level"] for e in events if "Flask-Login" in e["event"]] == ["WARNING"]


def test_with_a_request_loader_both_name_the_same_person(app: Flask, client: FlaskClient) -> None:
    """The step of a move that `docs/embed.md` shows."""
    sign_up(app)
    manager = LoginManager(app)
    manager.user_loader(Person)
    manager.request_loader(
        lambda _: Person(current_user.get_id()) if current_user.is_authenticated else None
    )
    with logged_events() as events:
        assert client.get("/open").text == "False True False None"
        user_id = client.post("/log-in").text
        assert client.get("/open").text == f"True False True {user_id}"
    assert not [event for event in events if "Flask-Login" in event["event"]]


def test_templates_and_views_ask_as_with_flask_login(app: Flask, client: FlaskClient) -> None:
    sign_up(app)
    assert client.get("/open").text == "False True False None"
    user_id = client.post("/log-in").text
    assert client.get("/open").text == f"True False True {user_id}"


def test_a_condition_asks_whether_somebody_is_signed_in(app: Flask, client: FlaskClient) -> None:
    @app.get("/truth")
    def truth() -> str:
        shown = render_template_string("{{ 'in' if current_user else 'out' }}")
        return f"{shown} {bool(current_user)}"

    sign_up(app)
    assert client.get("/truth").text == "out False"
    client.post("/log-in")
    assert client.get("/truth").text == "in True"


NEXT = {
    "/notes?a=1": "/notes?a=1",
    "https://app.example.org/x": "https://app.example.org/x",
    "//evil.example": "/home",
    "/\\evil.example": "/home",
    "/\t/evil.example": "/home",
    "https://evil.example": "/home",
    "": "/home",
}


@pytest.mark.parametrize("target", NEXT)
def test_an_own_log_in_page_leads_on_to_what_is_safe(
    settings: Settings, stores: Stores, target: str
) -> None:
    app = Flask("own")
    app.config.update(settings, ALLOWED_REDIRECT_HOSTS="app.example.org")
    auth = Auth(app)
    for how in ({"query_string": {"next": target}}, {"method": "POST", "data": {"next": target}}):
        with app.test_request_context("/log-in", **how):
            assert auth.next_url("/home") == NEXT[target]
    services_of(app).close()


def test_current_user_says_how_they_proved_who_they_are(app: Flask, client: FlaskClient) -> None:
    @app.get("/proof")
    def proof() -> str:
        if not current_user.is_authenticated:
            return "nobody"
        return f"{current_user.amr} {current_user.assurance_level} {current_user.auth_time.tzinfo}"

    sign_up(app)
    assert client.get("/proof").text == "nobody"
    client.post("/log-in")
    assert client.get("/proof").text == "('pwd',) 1 UTC"
