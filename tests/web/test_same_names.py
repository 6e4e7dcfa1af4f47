"""An app that embeds us, or adds views to ours, may use any name that we use ourselves."""

from collections.abc import Callable, Iterator

import pytest
from flask import Blueprint, Flask, Response, g, request, session, url_for
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from authapp import Auth, current_user, login_required
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    bearing,
    browser,
    lose_fences,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

BLUEPRINTS = ("forward_auth", "api", "users_api", "api_docs", "pages", "admin", "health")
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"}


def theirs(name: str) -> Blueprint:
    """A part of somebody else's app: named as one of ours, its views named as ours are."""
    part = Blueprint(name, __name__, url_prefix=f"/api/{name}")

    @part.post("/change")
    def change() -> ResponseReturnValue:
        session["seen"] = session.get("seen", 0) + 1
        return "<p>changed"

    @part.get("/private")
    @login_required
    def private() -> ResponseReturnValue:
        return f"<p>of {current_user.email}"

    # as the endpoints of forward-auth and of log-in are called
    part.add_url_rule("/nginx", "nginx", change, methods=["POST"])
    part.add_url_rule("/redirect", "redirect", change, methods=["POST"])
    part.add_url_rule("/login/<tenant>", "login", lambda tenant: tenant)
    return part


@pytest.fixture
def shop(settings: Settings, stores: Stores) -> Iterator[Flask]:
    """An app that embeds us, all of whose parts are named as ours are."""
    app = Flask("shop")
    app.config.update(settings)
    auth = Auth(app)
    for name in BLUEPRINTS:
        app.register_blueprint(theirs(name))
        app.add_url_rule(f"/{name}", name, login_required(lambda: "private"))

    @app.post("/log-in")
    def log_in() -> ResponseReturnValue:
        auth.log_in(EMAIL, PASSWORD)
        return "in"

    sign_up(app)
    yield app
    services_of(app).close()


@pytest.fixture
def ada(shop: Flask) -> FlaskClient:
    client = browser(shop)
    assert client.post("/log-in").status_code == 200
    return client


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_its_views_are_held_to_the_origin_check(ada: FlaskClient, name: str) -> None:
    for view in ("change", "nginx", "redirect"):
        answer = ada.post(f"/api/{name}/{view}", headers=CROSS_SITE)
        assert answer.status_code == 403, view
        assert ada.post(f"/api/{name}/{view}").status_code == 200, view


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_its_answers_are_left_as_they_are(
    ada: FlaskClient, shop: Flask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lose_fences(shop, monkeypatch)
    answer = ada.post(f"/api/{name}/change")
    assert (answer.status_code, answer.text) == (200, "<p>changed")
    assert "Effective-Within" in answer.headers


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_its_log_in_page_is_none_of_ours(shop: Flask, name: str) -> None:
    for path in (f"/api/{name}/private", f"/{name}"):
        assert browser(shop).get(path).status_code == 401, path


def test_an_extension_that_is_there_already_is_not_replaced(
    settings: Settings, stores: Stores
) -> None:
    app = Flask("shop")
    app.config.update(settings)
    app.extensions["authapp"] = taken = object()
    with pytest.raises(RuntimeError, match="authapp"):
        Auth(app)
    assert app.extensions["authapp"] is taken
    del app.extensions["authapp"]
    state = Auth(app).state(app)
    with pytest.raises(RuntimeError, match="authapp"):
        Auth(app)
    assert app.extensions["authapp"] is state
    state.services.close()


# what a server that lays its environment variables under each request may bring along
ENVIRON = (
    *("authapp.found", "authapp.effects_pending", "authapp.route", "authapp.log_fields"),
    "authapp.forward_auth.refusal",
)


def test_variables_that_are_called_as_ours_change_nothing(app: Flask, person: str) -> None:
    token = token_of(signed_in_as(app))

    def ask(path: str, method: str, brought: dict[str, str]) -> tuple[object, ...]:
        environ = {"HTTP_COOKIE": f"{COOKIE}={token}", "HTTP_X_REQUESTED_WITH": "x", **brought}
        answer = program(app).open(path, method=method, environ_overrides=environ)
        headers = {k: v for k, v in answer.headers.items() if k != "X-Request-ID"}
        return answer.status_code, headers, answer.data[:40]

    for path, method in (
        ("/api/v1/me", "GET"),
        ("/api/v1/me/sessions", "GET"),
        ("/account", "GET"),
        ("/forward-auth/nginx", "GET"),
        ("/forward-auth/redirect?role=admin", "POST"),
        ("/api/v1/me/sessions", "DELETE"),
    ):
        as_ever = ask(path, method, {})
        for text in ("", "x", "/forward-auth/nginx"):
            assert ask(path, method, dict.fromkeys(ENVIRON, text)) == as_ever, (path, text)


def test_what_others_keep_for_a_request_is_theirs(make_app: MakeApp) -> None:
    app = make_app()
    kept: list[object] = []
    app.before_request(lambda: setattr(g, "identity_headers", [("Remote-User", "root")]))

    @app.after_request
    def keep(answer: Response) -> Response:
        kept.append(g.get("identity_headers"))
        return answer

    for path in ("/forward-auth/nginx", "/forward-auth/redirect"):
        answer = program(app).get(path)
        assert answer.headers.getlist("Remote-User") == [""]
    assert kept == [[("Remote-User", "root")]] * 2


@pytest.fixture
def product_with_more(make_app: MakeApp) -> Flask:
    """The product, with views of somebody else's under addresses that begin as ours do."""
    app = make_app()
    views: dict[str, Callable[[], ResponseReturnValue]] = {
        "/api/report": lambda: f"report for {current_user.email}",
        "/api/v1/report": lambda: "more",
        "/forward-auth/other": lambda: request.method,
    }
    for path, view in views.items():
        app.add_url_rule(path, path, login_required(view), methods=["GET", "POST"])
    sign_up(app)
    return app


def test_a_page_of_its_own_under_api_is_a_page(product_with_more: Flask) -> None:
    visitor = browser(product_with_more)
    for path in ("/api/report", "/api/v1/report", "/forward-auth/other"):
        away = visitor.get(path)
        assert (away.status_code, away.location) == (302, f"/login?next={path}"), path
        refused = visitor.post(path, headers=CROSS_SITE)
        assert refused.status_code == 403
        assert "Error 403" in Page(refused).text
    for path in ("/api/v1/none", "/api/none", "/api/v1/me"):
        assert visitor.get(path).mimetype == "application/problem+json", path


def test_the_description_is_of_our_calls_alone(app: Flask, product_with_more: Flask) -> None:
    ours, seen = (program(a).get("/api/v1/openapi.json") for a in (app, product_with_more))
    assert (seen.status_code, seen.get_json()) == (200, ours.get_json())
    assert program(product_with_more).get("/api/v1/").status_code == 200
    with product_with_more.test_request_context():
        assert url_for("/api/v1/report") == "/api/v1/report"
    assert program(product_with_more).post("/api/report", headers=bearing("x")).status_code == 302
