"""`Auth(app, url_prefix=…, pages=True, …)`: what is mounted works, and nothing else is there."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
import structlog
from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
from openapi_spec_validator import validate

from authapp import Auth, Config, login_required
from authapp.assertions.keys import WELL_KNOWN
from authapp.errors import InvalidCredentials, StoreUnavailable
from tests.web.conftest import Settings
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    program,
    services_of,
    sign_up,
)

PARTS = ("pages", "api", "admin", "health", "forward_auth")
EVERYTHING = dict.fromkeys(PARTS, True)
HEADERS = (
    *("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "X-Request-ID"),
    *("Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy", "Cache-Control"),
)

# path → the parts that all must be mounted for it to be there
PATHS: dict[str, set[str]] = {
    "/": {"pages"},
    "/login": {"pages"},
    "/logout": {"pages"},
    "/account": {"pages"},
    "/admin/users": {"admin"},
    "/admin/audit": {"admin"},
    "/api/v1/": {"api"},
    "/api/v1/me": {"api"},
    "/api/v1/openapi.json": {"api"},
    "/api/v1/users": {"api", "admin"},
    "/api/v1/roles": {"api", "admin"},
    "/healthz": {"health"},
    "/readyz": {"health"},
    "/metrics": {"health"},
    "/forward-auth/nginx": {"forward_auth"},
    "/forward-auth/redirect": {"forward_auth"},
    "/forward-auth/envoy": {"forward_auth"},
    "/forward-auth/logout": {"forward_auth", "pages"},
    "/.well-known/jwks.json": {"forward_auth"},
}


class MakeShop(Protocol):
    def __call__(self, app: Flask | None = None, /, **mount: Any) -> Flask: ...


@pytest.fixture
def make_shop(settings: Settings, stores: Stores) -> Iterator[MakeShop]:
    """Makes somebody else's app that mounts parts of ours."""
    made: list[Flask] = []

    def make(app: Flask | None = None, /, **mount: Any) -> Flask:
        app = app or Flask("shop")
        app.config.update({**settings, **app.config.get_namespace("SHOP_", lowercase=False)})
        Auth(app, **mount)
        app.add_url_rule("/shop", "shop", lambda: "<p>the shop")
        app.add_url_rule("/shop/today", "today", lambda: "today")
        app.add_url_rule("/cart", "cart", login_required(lambda: "the cart"))
        app.add_url_rule("/buy", "buy", lambda: str(len(request.get_data())), methods=["POST"])
        made.append(app)
        return app

    yield make
    for app in made:
        services_of(app).close()


@pytest.fixture
def shop(make_shop: MakeShop) -> Flask:
    """With everything under /auth, and a person."""
    app = make_shop(url_prefix="/auth", **EVERYTHING)
    sign_up(app, roles=["admin"])
    return app


def rules(app: Flask) -> set[str]:
    return {rule.rule for rule in app.url_map.iter_rules()}


# -- what is there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/auth", "/a/b", ""])
def test_each_combination_mounts_its_paths_and_no_others(settings: Settings, prefix: str) -> None:
    for number in range(len(PARTS) + 1):
        for parts in itertools.combinations(PARTS, number):
            if prefix and not parts:
                continue  # refused, below
            app = Flask("shop")
            app.config.update(settings, LOGIN_VIEW="log_in")
            mount: Any = dict.fromkeys(parts, True)
            Auth(app, url_prefix=prefix, **mount)
            expected = {prefix + path for path, needed in PATHS.items() if needed <= {*parts}}
            every = {prefix + path for path in PATHS}
            assert rules(app) & every == expected, parts
            if not parts:
                assert rules(app) == {"/static/<path:filename>"}
            services_of(app).close()


def test_the_keys_are_where_the_issuer_says(make_shop: MakeShop) -> None:
    """The issuer is PUBLIC_URL, which does not hold the prefix."""
    shop = make_shop(url_prefix="/auth", forward_auth=True, pages=True)
    answer = shop.test_client().get(WELL_KNOWN)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.get_json() == shop.test_client().get(f"/auth{WELL_KNOWN}").get_json()
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    without = make_shop(url_prefix="/auth", pages=True)
    assert without.test_client().get(WELL_KNOWN).status_code == 404


def test_options_may_be_told_at_either_place(settings: Settings) -> None:
    auth = Auth(url_prefix="/auth", pages=True)
    for options, path in (({}, "/auth/login"), ({"url_prefix": "/in"}, "/in/login")):
        app = Flask("shop")
        app.config.update(settings)
        auth.init_app(app, **options)  # type: ignore[arg-type]
        assert path in rules(app)
        assert "/auth/healthz" not in rules(app)
        services_of(app).close()


@pytest.mark.parametrize(
    "mount",
    [
        {"url_prefix": "/auth"},
        {"url_prefix": "auth", "pages": True},
        {"url_prefix": "/auth/", "pages": True},
        {"url_prefix": "/", "pages": True},
        {"url_prefix": "/../x", "pages": True},
        {"url_prefix": "/<name>", "pages": True},
    ],
)
def test_a_prefix_that_can_not_be_one_is_refused(settings: Settings, mount: Any) -> None:
    app = Flask("shop")
    app.config.update(settings)
    with pytest.raises(ValueError, match=r"^url_prefix: "):
        Auth(app, **mount)
    assert rules(app) == {"/static/<path:filename>"}


# -- what is left alone ----------------------------------------------------------------------------


def state_of_app(app: Flask) -> dict[str, Any]:
    environment = app.jinja_env
    return {
        "globals": set(environment.globals),
        "filters": set(environment.filters),
        "tests": set(environment.tests),
        "merge_slashes": app.url_map.merge_slashes,
        "json": type(app.json),
        "config": {
            name: app.config[name]
            for name in ("MAX_CONTENT_LENGTH", "PROVIDE_AUTOMATIC_OPTIONS", "TRUSTED_HOSTS")
        },
        "root": (logging.root.level, list(logging.root.handlers)),
        "structlog": structlog.get_config(),
        "class": type(app),
    }


@pytest.mark.parametrize("mount", [{}, {"url_prefix": "/auth", **EVERYTHING}], ids=["plain", "all"])
def test_the_app_itself_is_as_it_was(make_shop: MakeShop, mount: Any) -> None:
    before = state_of_app(Flask("shop"))
    app = make_shop(**mount)
    browser(app).get("/auth/login")
    assert state_of_app(app) == before


@pytest.mark.parametrize("mount", [{}, {"url_prefix": "/auth", **EVERYTHING}, EVERYTHING])
def test_its_own_answers_carry_nothing_of_ours(make_shop: MakeShop, mount: Any) -> None:
    app = make_shop(**mount)
    visitor = browser(app)
    shown = visitor.get("/shop")
    assert (shown.status_code, shown.text) == (200, "<p>the shop")
    missing = visitor.get("/shop/nothing")
    assert missing.status_code == 404
    assert "authapp" not in missing.text
    assert visitor.options("/shop").status_code == 200
    assert visitor.get("/a//shop").status_code == 404
    assert visitor.get("/shop//today").status_code == 308, "as Flask does"
    for answer in (shown, missing, visitor.options("/shop"), visitor.get("/static/nothing")):
        assert not [name for name in HEADERS if name in answer.headers]
        assert "Strict-Transport-Security" not in answer.headers
    large = "x" * 200_000
    assert visitor.post("/buy", data=large).text == "200000"
    many = "&".join("a=b" for _ in range(99))
    assert visitor.get(f"/shop?{many}").status_code == 200


def test_its_own_error_pages_are_used_outside_ours_and_ours_inside(shop: Flask) -> None:
    for status in (400, 401, 403, 404, 405, 500, 503):
        shop.register_error_handler(status, lambda error: (f"shop {error.code}", error.code))
    shop.register_error_handler(InvalidCredentials, lambda _error: ("shop", 418))
    shop.add_url_rule("/enter", "enter", lambda: str(Auth().log_in(EMAIL, "wrong password here")))
    visitor = browser(shop)
    assert visitor.get("/nothing").text == "shop 404"
    assert visitor.get("/buy").text == "shop 405"
    assert visitor.get("/enter").status_code == 418
    for method, path, status in (
        ("GET", "/auth/nothing", 404),
        ("DELETE", "/auth/login", 405),
        ("GET", "/auth/account//sessions", 404),
        ("OPTIONS", "/auth/login", 405),
    ):
        page = visitor.open(path, method=method)
        assert page.status_code == status, path
        assert f"Error {status}" in Page(page).text
    wrong = {"email": EMAIL, "password": "neither this nor that one"}
    for method, path, status in (
        ("POST", "/auth/api/v1/login", 401),
        ("GET", "/auth/api/v1/me", 401),
        ("GET", "/auth/api/v1/login", 405),
        ("GET", "/auth/api/v1/nothing", 404),
        ("POST", "/auth/api/v1/signup", 409),
    ):
        answer = visitor.open(path, method=method, json=wrong if method == "POST" else None)
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), path
        assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"]


def test_a_prefix_is_a_whole_segment(shop: Flask) -> None:
    visitor = browser(shop)
    for path in ("/authx", "/authx/login", "/auth.txt"):
        answer = visitor.get(path)
        assert answer.status_code == 404
        assert "X-Frame-Options" not in answer.headers, path


def test_its_own_blueprints_may_have_the_names_of_ours(make_shop: MakeShop) -> None:
    app = make_shop(url_prefix="/auth", **EVERYTHING)
    for name in PARTS:
        part = Blueprint(name, __name__, url_prefix=f"/{name}")
        part.add_url_rule("/login", "login", login_required(lambda: "in"))
        app.register_blueprint(part)
    for name in PARTS:
        away = browser(app).get(f"/{name}/login")
        assert away.location == f"/auth/login?next=/{name}/login"
        assert "X-Frame-Options" not in away.headers


def test_hooks_of_the_app_see_every_request(make_shop: MakeShop) -> None:
    """So nothing is answered in front of Flask, although these hooks were there before us."""
    app, seen = Flask("shop"), []
    app.before_request(lambda: seen.append(request.path))
    make_shop(app, **EVERYTHING)
    layer: Any = app.wsgi_app
    while layer is not None:
        assert getattr(layer, "_fast_path", None) is None
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)
    for path in ("/api/v1/me", "/forward-auth/nginx"):
        program(app).get(path)
    assert seen == ["/api/v1/me", "/forward-auth/nginx"]


# -- what is mounted works -------------------------------------------------------------------------


def test_our_answers_have_our_headers_and_bounds(shop: Flask) -> None:
    visitor = browser(shop)
    for path in ("/auth/", "/auth/login", "/auth/healthz", "/auth/api/v1/me", "/auth/nothing"):
        answer = visitor.get(path)
        assert not [name for name in HEADERS if name not in answer.headers], path
        assert answer.headers["Cache-Control"] == "no-store"
        # of a whole host, which is the app's to say
        assert "Strict-Transport-Security" not in answer.headers
    assert visitor.post("/auth/api/v1/login", data="x" * 70_000).status_code in {413, 415}
    large = {"email": EMAIL, "password": "x" * 70_000}
    assert visitor.post("/auth/api/v1/login", json=large).status_code == 413
    many = "&".join("a=b" for _ in range(99))
    assert visitor.get(f"/auth/login?{many}").status_code == 400
    style = visitor.get("/auth/static/authapp/authapp.css")
    assert style.status_code == 200
    assert style.headers["Cache-Control"] != "no-store"


def enter(app: Flask, prefix: str = "/auth") -> Any:
    client = browser(app)
    answer = client.post(f"{prefix}/login", data={"email": EMAIL, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return client


def links(page: Page) -> set[str]:
    found = {a.get("href", "") for a in page.all("a")} | {a["href"] for a in page.all("link")}
    found |= {form["action"] for form in page.all("form") if form.get("action")}
    return {link for link in found if link and not link.startswith(("#", "otpauth://totp/"))}


@pytest.mark.parametrize("root", ["", "/site"])
def test_every_link_is_below_the_prefix_and_leads_somewhere(shop: Flask, root: str) -> None:
    environ = {"SCRIPT_NAME": root}
    client, seen = browser(shop), set()
    form = {"email": EMAIL, "password": PASSWORD}
    entered = client.post("/auth/login", data=form, environ_overrides=environ)
    assert entered.location == f"{root}/auth/"
    waiting = {f"{root}/auth/", f"{root}/auth/logout", f"{root}/auth/api/v1/"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        assert path.startswith(f"{root}/auth/"), path
        answer = client.get(path.removeprefix(root), environ_overrides=environ)
        assert answer.status_code in {200, 404, 405}, path
        if answer.status_code != 200:
            assert path.endswith(("/deactivate", "/roles", "/end-sessions", "/end", "/end-others"))
        elif answer.mimetype == "text/html":
            waiting |= links(Page(answer)) - seen
    assert {f"{root}/auth/account", f"{root}/auth/admin/users"} <= seen


def test_a_guard_leads_to_our_log_in_page_and_back(shop: Flask) -> None:
    away = browser(shop).get("/cart?size=2")
    assert (away.status_code, away.location) == (302, "/auth/login?next=/cart%3Fsize%3D2")
    client = browser(shop)
    form = {"email": EMAIL, "password": PASSWORD, "next": "/cart?size=2"}
    assert client.post("/auth/login", data=form).location == "/cart?size=2"
    assert client.get("/cart").text == "the cart"


@pytest.mark.parametrize("has_start_page", [True, False])
@pytest.mark.parametrize("root", ["", "/site"])
def test_log_in_and_out_lead_to_the_start_page_of_the_app(
    make_shop: MakeShop, root: str, has_start_page: bool
) -> None:
    app = make_shop(url_prefix="/auth", **EVERYTHING)
    if has_start_page:
        app.add_url_rule("/", "start", lambda: "the shop's start page")
    sign_up(app)
    start = f"{root}/" if has_start_page else f"{root}/auth/"
    client, under = browser(app), {"SCRIPT_NAME": root}
    form = {"email": EMAIL, "password": PASSWORD}
    assert client.post("/auth/login", data=form, environ_overrides=under).location == start
    assert client.get("/auth/login", environ_overrides=under).location == start
    assert client.post("/auth/logout", environ_overrides=under).location == start
    asked = {"X-Original-URL": start}
    answer = client.get("/auth/forward-auth/nginx", headers=asked, environ_overrides=under)
    assert answer.location == f"{root}/auth/login", "next adds nothing"


def test_the_description_says_where_the_calls_are(shop: Flask) -> None:
    described = program(shop).get("/auth/api/v1/openapi.json").get_json()
    validate(described)
    assert described["servers"] == [{"url": "/auth"}]
    assert "/api/v1/me" in described["paths"]
    assert program(shop).get("/auth/api/v1/me").status_code == 401
    under = {"SCRIPT_NAME": "/site"}
    described = program(shop).get("/auth/api/v1/openapi.json", environ_overrides=under).get_json()
    assert described["servers"] == [{"url": "/site/auth"}]


def test_calls_about_other_people_are_described_only_where_they_are(make_shop: MakeShop) -> None:
    app = make_shop(api=True)
    described = program(app).get("/api/v1/openapi.json").get_json()
    assert "/api/v1/me" in described["paths"]
    assert not [path for path in described["paths"] if path.startswith("/api/v1/users")]
    assert program(app).get("/api/v1/users").status_code == 404


def test_forward_auth_leads_to_the_log_in_page_under_the_prefix(shop: Flask) -> None:
    asked = {"X-Original-URL": "/report"}
    answer = program(shop).get("/auth/forward-auth/nginx", headers=asked)
    assert (answer.status_code, answer.location) == (401, "/auth/login?next=/report")
    root = {"SCRIPT_NAME": "/site"}
    answer = program(shop).get("/auth/forward-auth/nginx", headers=asked, environ_overrides=root)
    assert answer.location == "/site/auth/login?next=/report"
    allowed = enter(shop).get("/auth/forward-auth/nginx")
    assert (allowed.status_code, allowed.headers["Remote-Email"]) == (200, EMAIL)


@pytest.mark.parametrize(
    ("mount", "path", "absent"),
    [
        ({"pages": True}, "/auth/", ("/admin", "/api")),
        ({"pages": True}, "/auth/account", ("/admin", "/api")),
        ({"admin": True}, "/auth/admin/users", ("login", "logout", "signup", "/account")),
        ({"api": True}, "/auth/api/v1/", ("login", "logout", "signup", "/account", "/admin")),
        ({"api": True}, "/auth/api/nothing.html", ("/auth/login", '/auth/"', "/account")),
    ],
)
def test_no_page_links_to_what_is_not_mounted(
    make_shop: MakeShop, mount: Any, path: str, absent: tuple[str, ...]
) -> None:
    app = make_shop(url_prefix="/auth", **mount)
    sign_up(app, roles=["admin"])
    app.add_url_rule("/in", "in", lambda: str(Auth().log_in(EMAIL, PASSWORD)), methods=["POST"])
    client = browser(app)
    assert client.post("/in").status_code == 200
    for asking in (client, browser(app)):
        answer = asking.get(path)
        if answer.mimetype == "text/html" and answer.status_code != 302:
            assert answer.status_code in ({200} if asking is client else {200, 401})
            found = links(Page(answer))
            assert not [link for link in found for part in absent if part in link], found


def test_log_out_leaves_what_the_app_keeps_in_the_browser(shop: Flask) -> None:
    for path in ("/auth/logout", "/auth/api/v1/logout"):
        assert enter(shop).post(path).headers["Clear-Site-Data"] == '"cache"'


# -- templates of the app --------------------------------------------------------------------------

OWN_BASE = """<!doctype html><title>{% block title %}{% endblock %}</title>
<script src="https://cdn.example/x.js"></script><nav>Shop of {{ current_user.name }}</nav>
{% block content %}{% endblock %}"""


@pytest.fixture
def make_themed(make_shop: MakeShop, tmp_path: Any) -> Callable[..., Flask]:
    """A shop whose own templates take the place of some of ours."""

    def make(**templates: str) -> Flask:
        folder = tmp_path / "templates/authapp"
        folder.mkdir(parents=True)
        for name, text in templates.items():
            (folder / f"{name}.html").write_text(text)
        app = Flask("shop", root_path=str(tmp_path))
        make_shop(app, url_prefix="/auth", **EVERYTHING)
        sign_up(app, roles=["admin"])
        return app

    return make


def test_the_app_may_give_its_own_base(make_themed: Callable[..., Flask]) -> None:
    app = make_themed(base=OWN_BASE)
    visitor = browser(app)
    page = Page(visitor.get("/auth/login"))
    assert "Shop of" in page.text
    assert [f for f in page.all("input") if f.get("name") == "password"]
    wrong = visitor.post("/auth/login", data={"email": EMAIL, "password": "wrong password"})
    assert (wrong.status_code, "Shop of" in wrong.text) == (401, True)
    client = enter(app)
    for path in ("/auth/account", "/auth/account/sessions", "/auth/admin/users", "/auth/nothing"):
        answer = client.get(path)
        assert "Shop of Ada" in answer.text, path
        # the app says what its page loads; we say where forms lead and that nobody frames it
        policy = answer.headers["Content-Security-Policy"]
        assert policy == "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    json = visitor.get("/auth/api/v1/me").headers["Content-Security-Policy"]
    assert json.startswith("default-src 'none'")


def test_the_app_may_give_its_own_single_page(make_themed: Callable[..., Flask]) -> None:
    app = make_themed(login="<h1>Come in</h1>{{ form.email }}{{ authapp.brand.name }}")
    assert "<h1>Come in</h1>" in browser(app).get("/auth/login").text
    assert "Create your account" in browser(app).get("/auth/signup").text
    policies = [
        browser(app).get(f"/auth/{name}").headers["Content-Security-Policy"]
        for name in ("login", "signup")
    ]
    assert ["default-src" in policy for policy in policies] == [False, True]


@pytest.mark.parametrize("asks", ["", "{{ session.get('cart') }}"], ids=["user", "session"])
def test_an_error_page_in_the_app_s_base_never_asks_a_store_that_failed(
    make_themed: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    app = make_themed(base=asks + OWN_BASE)
    client = enter(app)
    monkeypatch.setattr(services_of(app).sessions, "find", away)
    answer = client.get("/auth/account")
    assert answer.status_code == 503
    assert "We can&#39;t answer right now" in answer.text
    assert "Retry-After" in answer.headers
    assert "Shop of" in answer.text or asks


def away(*_args: object) -> None:
    raise StoreUnavailable("postgres")


def test_headers_that_the_app_sets_itself_stay(make_shop: MakeShop) -> None:
    app = Flask("shop")

    @app.after_request
    def add(answer: Response) -> Response:
        answer.headers["Content-Security-Policy"] = "default-src 'self'"
        return answer

    make_shop(app, url_prefix="/auth", pages=True)
    for path in ("/shop", "/auth/login"):
        found = browser(app).get(path).headers.getlist("Content-Security-Policy")
        assert found == ["default-src 'self'"]


# -- Flask-WTF's CSRFProtect -----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["CSRFProtect", "Auth"])
def test_an_app_s_own_csrf_protection_does_not_stand_in_the_way(
    make_shop: MakeShop, first: str
) -> None:
    flask_wtf = pytest.importorskip("flask_wtf")
    app = Flask("shop")
    protect = flask_wtf.CSRFProtect()
    if first == "CSRFProtect":
        protect.init_app(app)
    make_shop(app, url_prefix="/auth", **EVERYTHING)
    if first == "Auth":
        protect.init_app(app)
    sign_up(app)
    client = enter(app)
    assert client.post("/auth/account", data={"name": "Countess"}).status_code == 303
    assert client.post("/auth/api/v1/logout").status_code == 204
    assert browser(app).post("/buy").status_code == 400, "the app's own views need their token"
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://e.example"}
    client = enter(app)
    for path in ("/auth/account", "/auth/logout", "/auth/api/v1/me/password", "/auth/login"):
        assert client.post(path, headers=foreign).status_code == 403, path


# -- the app's own log-in page ---------------------------------------------------------------------


def shop_with_login(make_shop: MakeShop, view: str = "come_in", **mount: Any) -> Flask:
    app = Flask("shop")
    app.config["SHOP_LOGIN_VIEW"] = view
    make_shop(app, **mount)

    @app.get("/come-in")
    def come_in() -> ResponseReturnValue:
        return f"come in: {Auth().sign_out_reason()}"

    app.add_url_rule("/in", "in", lambda: str(Auth().log_in(EMAIL, PASSWORD)), methods=["POST"])
    sign_up(app)
    return app


@pytest.mark.parametrize("mount", [{}, {"url_prefix": "/auth", **EVERYTHING}])
def test_the_app_s_own_log_in_page_is_led_to_and_knows_why(make_shop: MakeShop, mount: Any) -> None:
    app = shop_with_login(make_shop, **mount)
    client = browser(app)
    away = client.get("/cart?size=2")
    assert (away.status_code, away.location) == (302, "/come-in?next=/cart%3Fsize%3D2")
    assert client.get("/come-in").text == "come in: None"
    assert client.post("/in").status_code == 200
    services_of(app).password_changes.set_password(EMAIL, "five cold engines hum")
    assert client.get("/cart").location == "/come-in?next=/cart"
    said = client.get("/come-in").text
    assert said == "come in: You were signed out because your password was changed."
    under = {"SCRIPT_NAME": "/site"}
    away = browser(app).get("/cart", environ_overrides=under)
    assert away.location == "/site/come-in?next=/site/cart"
    if mount:
        page = Page(browser(app).get("/auth/"))
        assert "/come-in" in links(page)
        answer = program(app).get("/auth/forward-auth/nginx", headers={"X-Original-URL": "/x"})
        assert answer.location == "/come-in?next=/x"


def test_without_any_log_in_page_it_is_401(make_shop: MakeShop) -> None:
    assert browser(make_shop(api=True)).get("/cart").status_code == 401


def test_a_misspelt_login_view_is_named(make_shop: MakeShop) -> None:
    app = shop_with_login(make_shop, "come_inn", forward_auth=True)
    app.testing = True
    for path in ("/cart", "/forward-auth/nginx"):
        with pytest.raises(Exception, match=r"LOGIN_VIEW: there is no endpoint 'come_inn'"):
            browser(app).get(path)


@pytest.mark.parametrize("elsewhere", ["", "come_in"])
def test_the_code_of_an_app_names_its_page_beside_settings_of_the_environment(
    settings: Settings, elsewhere: str
) -> None:
    app = Flask("shop")
    app.config["LOGIN_VIEW"] = "other" if elsewhere else "come_in"
    Auth(app, Config.from_mapping({**settings, "LOGIN_VIEW": elsewhere}), pages=True)
    app.add_url_rule("/come-in", "come_in", lambda: "")
    app.add_url_rule("/cart", "cart", login_required(lambda: ""))
    assert browser(app).get("/cart").location == "/come-in?next=/cart"
    services_of(app).close()


def test_forward_auth_needs_a_page_to_log_in(settings: Settings) -> None:
    app = Flask("shop")
    app.config.update(settings)
    with pytest.raises(Exception, match=r"^LOGIN_VIEW: forward-auth sends people to log in"):
        Auth(app, forward_auth=True)


# -- maintenance -----------------------------------------------------------------------------------


def test_maintenance_starts_at_the_first_request_and_once(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_shop()
    started: list[str] = []
    maintenance = services_of(app).maintenance
    monkeypatch.setattr(type(maintenance), "keep_running", lambda _self: started.append("now"))
    assert not started
    for _ in range(3):
        browser(app).get("/shop")
    assert started == ["now"]
    log_in(browser(app))
    assert started == ["now"]


def test_a_forked_process_starts_its_own(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_shop()
    started: list[int] = []
    maintenance = services_of(app).maintenance
    monkeypatch.setattr(
        type(maintenance), "keep_running", lambda _self: started.append(os.getpid())
    )
    browser(app).get("/shop")
    assert started == [os.getpid()]
    child = os.fork()
    if child == 0:  # no test ends here
        status = 1
        try:
            browser(app).get("/shop")
            browser(app).get("/shop")
            status = 0 if started[1:] == [os.getpid()] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    browser(app).get("/shop")
    assert started == [os.getpid()]
