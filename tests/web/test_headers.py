"""Security headers on every kind of answer, and pages that need no inline anything."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.test import TestResponse

from tests.web.conftest import MakeApp
from tests.web.support import Page, browser, log_in, program, sign_up

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Strict-Transport-Security": "max-age=31536000",
}


def policy_of(answer: TestResponse) -> dict[str, set[str]]:
    text = answer.headers["Content-Security-Policy"]
    directives = (part.split() for part in text.split(";"))
    return {name: set(values) for name, *values in directives}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app(ALLOWED_REDIRECT_HOSTS="app.example.org")

    def boom() -> ResponseReturnValue:
        raise RuntimeError("secret inside")

    app.add_url_rule("/boom", view_func=boom)
    app.add_url_rule("/api/v1/boom", "api_boom", boom)
    return app


EVERY_KIND: dict[str, tuple[str, str, int]] = {
    "page": ("GET", "/", 200),
    "form": ("GET", "/login", 200),
    "form error": ("POST", "/login", 400),
    "redirect": ("GET", "/account", 302),
    "health": ("GET", "/healthz", 200),
    "readiness": ("GET", "/readyz", 200),
    "api error": ("GET", "/api/v1/me", 401),
    "api 404": ("GET", "/api/v1/nothing", 404),
    "api 405": ("GET", "/api/v1/login", 405),
    "api 415": ("POST", "/api/v1/login", 415),
    "api 204": ("POST", "/api/v1/logout", 204),
    "api 500": ("GET", "/api/v1/boom", 500),
    "not found": ("GET", "/nothing", 404),
    "method": ("DELETE", "/account/sessions/end-others", 405),
    "options": ("OPTIONS", "/login", 405),
    "head": ("HEAD", "/login", 200),
    "slashes": ("GET", "/account//sessions", 404),
    "failing view": ("GET", "/boom", 500),
    "static": ("GET", "/static/authapp/authapp.css", 200),
    "static 404": ("GET", "/static/authapp/nothing", 404),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_answer_has_them(app: Flask, kind: str) -> None:
    method, path, status = EVERY_KIND[kind]
    answer = browser(app).open(path, method=method)
    assert answer.status_code == status
    for name, value in FIXED.items():
        assert answer.headers.getlist(name) == [value]
    policy = policy_of(answer)
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == policy["style-src"] == {"'self'"}
    assert policy["form-action"] == {"'self'", "app.example.org"}
    assert policy["base-uri"] == policy["frame-ancestors"] == {"'none'"}
    assert "unsafe" not in str(policy)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "Werkzeug" not in answer.headers.get("Server", "")


def test_private_answers_are_not_stored_and_static_files_may_be(app: Flask) -> None:
    for kind, (method, path, _) in EVERY_KIND.items():
        answer = browser(app).open(path, method=method)
        stored = answer.headers.get("Cache-Control") != "no-store"
        assert stored is (kind in {"static", "static 404"}), kind


def test_private_pages_too(app: Flask) -> None:
    sign_up(app)
    client = browser(app)
    assert log_in(client).headers["Cache-Control"] == "no-store"
    for path in ("/", "/account", "/account/password", "/account/sessions", "/api/v1/me"):
        assert client.get(path).headers["Cache-Control"] == "no-store", path


def test_hsts_only_where_https_is_certain(make_app: MakeApp) -> None:
    app = make_app(SESSION_COOKIE_SECURE=False)
    for path in ("/", "/api/v1/me", "/static/authapp/authapp.css"):
        assert "Strict-Transport-Security" not in browser(app).get(path).headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/logout"),
        ("POST", "/account/sessions/{}/end"),
        ("POST", "/api/v1/logout"),
        ("DELETE", "/api/v1/me/sessions/{}"),
    ],
)
def test_logging_out_clears_what_the_browser_kept(
    signed_in: FlaskClient, method: str, path: str
) -> None:
    (mine,) = signed_in.get("/api/v1/me/sessions").get_json()["sessions"]
    answer = signed_in.open(path.format(mine["id"]), method=method)
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'


def test_ending_another_session_keeps_what_the_browser_has(
    app: Flask, signed_in: FlaskClient
) -> None:
    log_in(browser(app))
    found = signed_in.get("/api/v1/me/sessions").get_json()["sessions"]
    (other,) = [session["id"] for session in found if not session["current"]]
    answer = signed_in.delete(f"/api/v1/me/sessions/{other}")
    assert answer.status_code == 204
    assert "Clear-Site-Data" not in answer.headers


def test_each_answer_has_an_id_of_its_own_and_tells_it(app: Flask) -> None:
    client = browser(app)
    page, other = client.get("/nothing"), client.get("/nothing")
    assert page.headers["X-Request-ID"] != other.headers["X-Request-ID"]
    assert page.headers["X-Request-ID"] in page.get_data(as_text=True)
    problem = client.get("/api/v1/me")
    assert problem.get_json()["request_id"] == problem.headers["X-Request-ID"]
    chosen = client.get("/healthz", headers={"X-Request-ID": "chosen\tby the visitor"})
    assert "chosen" not in chosen.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/boom", "/api/v1/boom"])
def test_a_failing_view_tells_nothing(app: Flask, path: str) -> None:
    text = browser(app).get(path).get_data(as_text=True)
    for inside in ("secret inside", "RuntimeError", "Traceback", "/authapp/web", ".py"):
        assert inside not in text


# -- what a strict policy would break --------------------------------------------------------------


def rendered(app: Flask) -> dict[str, TestResponse]:
    """Every page there is, in every state a test can bring it to."""
    sign_up(app, name="<b>\"Ada\" & 'co'</b>", roles=("admin", "user"))
    nobody, admin, plain = browser(app), browser(app), browser(app)
    log_in(admin)
    log_in(browser(app))  # a second session to list
    sign_up(app, "plain@example.org", name="")
    log_in(plain, "plain@example.org")
    admin.post("/account", data={"name": "<i>Ada", "image": "https://example.org/a.png?'\"><b>"})
    for _ in range(11):
        limited = log_in(nobody, "limited@example.org", "wrong")
    paths = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.arguments
    ]
    found = {
        f"{who} {path}": client.get(path)
        for who, client in (("nobody", nobody), ("admin", admin), ("plain", plain))
        for path in paths
    }
    wrong = {"email": "<x>", "password": "x", "name": "n" * 101, "image": "javascript:x"}
    for path in ("/login", "/signup", "/account", "/account/password"):
        client = admin if path.startswith("/account") else nobody
        found[f"wrong {path}"] = client.post(path, data=wrong)
        found[f"empty {path}"] = client.post(path)
    leaving = browser(app)
    leaving.post("/logout")
    done = leaving.get("/")
    assert "logged-out.css" in done.text
    found |= {
        "wrong password": log_in(nobody, password="not the password"),
        "taken": nobody.post(
            "/signup", data={"email": "plain@example.org", "password": "long enough to be taken"}
        ),
        "limited": limited,
        "origin": nobody.post("/login", headers={"Sec-Fetch-Site": "cross-site"}),
        "too large": nobody.post("/login", data={"email": "x" * 100_000}),
        "search": admin.get("/admin/users", query_string={"q": '"><script>x</script>'}),
        "bad cursor": admin.get("/admin/users?cursor=%C3%A9"),
        "next": nobody.get("/login", query_string={"next": "/?\"><script>'"}),
        "sign-up next": nobody.get("/signup", query_string={"next": "/?\"><script>'"}),
        "done": done,
        "nothing": nobody.get("/nothing/<script>"),
    }
    return found


def test_no_page_needs_anything_inline(app: Flask) -> None:
    pages = {n: a for n, a in rendered(app).items() if a.mimetype == "text/html"}
    statuses = {answer.status_code for answer in pages.values()}
    assert statuses >= {200, 302, 400, 401, 403, 404, 409, 413, 429, 500}
    for name, answer in pages.items():
        if answer.status_code in {302, 303, 308}:
            continue
        page = Page(answer)
        assert not {"style", "iframe", "object", "b", "i"} & {tag for tag, _ in page.elements}, name
        assert all(script.get("src") for script in page.all("script")), name
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids)), name
        for tag, attributes in page.elements:
            inline = [a for a in attributes if a == "style" or a.startswith("on")]
            assert not inline, (name, tag, inline)
            for link in ("href", "src", "action"):
                assert not attributes.get(link, "").lower().startswith(("javascript:", "data:"))
                if (
                    tag in {"link", "img", "script"}
                    and link in attributes
                    and "avatar" not in str(attributes)
                ):
                    assert attributes[link].startswith(("/static/", "/logged-out.css")), name
        assert page.all("html") == [{"lang": "en"}], name
        assert len(page.all("title")) == len(page.all("main")) == len(page.all("h1")) == 1, name


def test_every_file_a_page_names_is_served(app: Flask) -> None:
    page = Page(browser(app).get("/"))
    named = {a["href"] for a in page.all("link")}
    named |= {a["src"] for tag in ("img", "script") for a in page.all(tag)}
    files = ("authapp.css", "favicon.svg", "local_times.js", "passwords.js")
    assert named == {f"/static/authapp/{name}" for name in files}
    for path in named:
        assert program(app).get(path).status_code == 200, path


def test_answers_that_only_a_proxy_reads_have_no_headers_for_browsers(
    app: Flask, through: str
) -> None:
    """What it passes on to a browser has them: log-in, refusals, and errors."""
    sign_up(app)
    client = browser(app)
    log_in(client)
    for visitor, path, status, has_them in (
        (client, "/forward-auth/nginx", 200, False),
        (client, "/forward-auth/redirect", 200, False),
        (client, "/forward-auth/nginx?role=nobody", 403, True),
        (browser(app), "/forward-auth/nginx", 401, False),
        (browser(app), "/forward-auth/nginx?x=1", 400, True),
        (browser(app), "/forward-auth/redirect", 302, True),
        (program(app), "/forward-auth/redirect", 401, True),
    ):
        answer = visitor.get(path)
        assert answer.status_code == status, (path, through)
        assert answer.headers.getlist("Cache-Control") == ["no-store"], path
        assert len(answer.headers["X-Request-ID"]) == 32
        found = [name for name in (*FIXED, "Content-Security-Policy") if name in answer.headers]
        assert bool(found) == has_them, (path, found)
        assert not has_them or len(found) == len(FIXED) + 1, (path, found)
