"""Under a mount point every link, redirect and form leads where it should, however it is mounted:
by PUBLIC_URL, by SCRIPT_NAME, or by a proxy that says X-Forwarded-Prefix; and whether or not the
proxy takes the prefix off the path.
"""

import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from flask import Flask, request, url_for
from werkzeug.test import Client, TestResponse

from authapp import Auth
from authapp.errors import SettingError
from tests.deploy.proxies import nginx_program, served
from tests.deploy.servers import Server, listens
from tests.support.instances import free_port
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    behind_proxy,
    browser,
    cookies_of,
    program,
    services_of,
    sign_up,
    token_of,
)

MOUNT = "/auth"
PEER = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}
HTML = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}

# a WSGI application that a browser finds at the root of its host, ours under MOUNT
Site = Callable[[dict[str, Any], Any], Any]


def elsewhere(_environ: dict[str, Any], start: Any) -> list[bytes]:
    start("404 Not Found", [("Content-Type", "text/plain"), ("X-Elsewhere", "1")])
    return [b"not authapp"]


def is_under(path: str, mount: str = MOUNT) -> bool:
    return path == mount or path.startswith(f"{mount}/")


def by_script_name(app: Flask, spelled: str = MOUNT) -> Site:
    def site(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if not is_under(path):
            return elsewhere(environ, start)
        mounted = {"SCRIPT_NAME": spelled, "PATH_INFO": path[len(spelled) :]}
        return app({**environ, **PEER, **mounted}, start)

    return site


def by_script_name_with_a_slash(app: Flask) -> Site:
    return by_script_name(app, f"{MOUNT}/")


def by_prefix(app: Flask, *, strips: bool, prefix: str = MOUNT) -> Site:
    def site(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if not is_under(path):
            return elsewhere(environ, start)
        rest = path[len(MOUNT) :] or "/"
        sent = {"HTTP_X_FORWARDED_PREFIX": prefix, "PATH_INFO": rest if strips else path}
        return app({**environ, **PEER, **sent}, start)

    return site


NGINX = """
pid {folder}/pid; error_log {folder}/log; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port};
    location /auth/ {{
      proxy_pass http://127.0.0.1:{authapp}{path};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Prefix /auth;
    }}
  }}
}}
"""


def by_nginx(stack: ExitStack, folder: Path, app: Flask, *, strips: bool) -> Site:
    """Passes requests on to a real nginx."""
    port, authapp = free_port(), stack.enter_context(served(app))
    path = "/" if strips else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, authapp=authapp, path=path))
    command = [str(nginx_program("newest")), "-p", str(folder), "-c", str(config)]
    options = "user root; daemon off;" if folder.owner() == "root" else "daemon off;"
    server = Server([*command, "-g", options], folder / "log", lambda: listens(port))
    server.start()
    stack.callback(server.stop)

    def site(environ: dict[str, Any], start: Any) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        headers = {
            name[5:].replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        } | {"Content-Type": environ.get("CONTENT_TYPE") or "text/plain"}
        target = quote(environ["PATH_INFO"]) + "?" + environ["QUERY_STRING"]
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            body = environ["wsgi.input"].read(length)
            connection.request(environ["REQUEST_METHOD"], target, body, headers)
            answer = connection.getresponse()
            start(f"{answer.status} {answer.reason}", answer.getheaders())
            return [answer.read()]

    return site


WAYS: dict[str, Callable[[Flask], Site]] = {
    "SCRIPT_NAME": by_script_name,
    "SCRIPT_NAME with a slash": by_script_name_with_a_slash,
    "a prefix that was taken off": lambda app: by_prefix(app, strips=True),
    "a prefix that was left": lambda app: by_prefix(app, strips=False),
    "a prefix with a slash": lambda app: by_prefix(app, strips=False, prefix=f"{MOUNT}/"),
}


# with PUBLIC_URL, which says it alone: what a proxy says is not heard
PUBLIC = "http://localhost/auth"
PUBLIC_WAYS: dict[str, Callable[[Flask], Site]] = {
    "PUBLIC_URL, taken off": lambda app: by_prefix(app, strips=True, prefix="/evil"),
    "PUBLIC_URL, left": lambda app: by_prefix(app, strips=False, prefix="/evil"),
    "PUBLIC_URL, the same prefix": lambda app: by_prefix(app, strips=False),
    "PUBLIC_URL, the same SCRIPT_NAME": by_script_name,
}


@pytest.fixture
def mounted(make_app: MakeApp) -> Callable[..., Flask]:
    """Makes the application with somebody in it, to be mounted."""

    def make(**settings: object) -> Flask:
        limit = {"LOGIN_LIMIT_PER_ADDRESS": "9999 per minute"}
        app = make_app(**{"TRUSTED_PROXY_HOPS": 1, **limit, **settings})
        sign_up(app, roles=["admin", "user"])
        return app

    return make


@pytest.fixture
def app(mounted: Callable[..., Flask]) -> Flask:
    return mounted()


@pytest.fixture(params=[*WAYS, *PUBLIC_WAYS, "nginx that takes it off", "nginx that leaves it"])
def visitor(
    request: pytest.FixtureRequest, mounted: Callable[..., Flask], tmp_path: Path
) -> Iterator[Client]:
    with ExitStack() as stack:
        if request.param in WAYS:
            site = WAYS[request.param](mounted())
        elif request.param in PUBLIC_WAYS:
            site = PUBLIC_WAYS[request.param](mounted(PUBLIC_URL=PUBLIC))
        else:
            site = by_nginx(stack, tmp_path, mounted(), strips="takes" in request.param)
        yield Client(site)


def log_in(visitor: Client, path: str = "/auth/login", **fields: str) -> TestResponse:
    data = {"email": EMAIL, "password": PASSWORD, **fields}
    return visitor.post(path, data=data, headers=HTML)


def links_of(page: Page) -> set[str]:
    """All that a page leads to or loads; what is empty is the page itself, and what is `otpauth:`
    an authenticator app."""
    named = (("a", "href"), ("form", "action"), ("link", "href"), ("img", "src"))
    found = {element.get(name, "") for tag, name in named for element in page.all(tag)}
    return {link for link in found if link and not link.startswith(("#", "otpauth://totp/"))}


def test_every_link_leads_to_a_page_of_ours(visitor: Client) -> None:
    assert log_in(visitor).status_code == 303
    forms: set[str] = set()
    seen, ahead = set(), {"/auth/", "/auth/account", "/auth/nothing", "/auth/api/v1/"}
    while ahead:
        path = ahead.pop()
        seen.add(path)
        answer = visitor.get(path, headers=HTML)
        assert answer.status_code == (404 if path == "/auth/nothing" else 200), path
        assert "X-Elsewhere" not in answer.headers
        if answer.mimetype == "text/html":
            page = Page(answer)
            # the page of a new passkey leads to the host that passkeys belong to
            links = {link.removeprefix(PUBLIC.removesuffix(MOUNT)) for link in links_of(page)}
            assert all(is_under(link) for link in links), path
            forms |= {form["action"] for form in page.all("form") if form.get("action")}
            ahead |= links - forms - seen
    assert {"/auth/account/sessions", "/auth/admin/users", "/auth/admin/audit"} <= seen
    assert any(path.startswith("/auth/static/") for path in seen)
    assert any(path.startswith("/auth/static/authapp/") for path in seen)
    assert "/auth/logout" in forms


def test_the_way_through_log_in_and_out(visitor: Client) -> None:
    away = visitor.get("/auth/account?tab=1", headers=HTML)
    assert (away.status_code, away.location) == (302, "/auth/login?next=/auth/account%3Ftab%3D1")
    (carried,) = {  # by each form of the page
        field["value"]
        for field in Page(visitor.get(away.location, headers=HTML)).all("input")
        if field.get("name") == "next"
    }
    done = log_in(visitor, next=carried)
    assert (done.status_code, done.location) == (303, "/auth/account?tab=1")
    assert {cookie.attributes["path"] for cookie in cookies_of(done)} == {"/"}
    assert visitor.get("/auth/account", headers=HTML).status_code == 200
    saved = visitor.post("/auth/account", data={"name": "Countess"}, headers=HTML)
    assert urlsplit(saved.location).path == "/auth/account"
    assert visitor.get("/auth/login", headers=HTML).location == "/auth/"
    out = visitor.post("/auth/logout", headers=HTML)
    assert urlsplit(out.location).path == "/auth/"
    signed_up = visitor.post(
        "/auth/signup", data={"email": "b@example.org", "password": PASSWORD}, headers=HTML
    )
    assert urlsplit(signed_up.location).path == "/auth/", "people are in after sign-up"
    visitor.post("/auth/logout", headers=HTML)
    refused = visitor.post("/auth/account", data={"name": "x"}, headers=HTML)
    assert (refused.status_code, refused.location) == (302, "/auth/login")


# where log-in leads by `next`
ONWARD = {
    "": "/auth/",
    "/auth/": "/auth/",
    "/auth/account": "/auth/account",
    "/auth": "/auth",
    "/notes": "/notes",  # another app of the host
    "/": "/",
    "http://localhost/auth/account": "http://localhost/auth/account",
    "//e.example": "/auth/",
    "//e.example/auth/": "/auth/",
    "/\\e.example": "/auth/",
    "/auth/\t/e.example": "/auth/",
    "https://e.example/auth/": "/auth/",
    "auth/account": "/auth/",
    "javascript:alert(1)": "/auth/",
}


def test_log_in_leads_on_by_next(visitor: Client) -> None:
    assert log_in(visitor).location == "/auth/", "without next"
    for target, expected in ONWARD.items():
        assert log_in(visitor, next=target).location == expected, target
        query = f"/auth/login?next={quote(target)}"
        assert log_in(visitor, query).location == expected, target
        assert visitor.get(query, headers=HTML).location == expected, target


def test_the_description_of_the_api_names_it(visitor: Client) -> None:
    described = visitor.get("/auth/api/v1/openapi.json").get_json()
    assert described["servers"] == [{"url": "/auth"}]
    assert "/api/v1/me" in described["paths"]
    log_in(visitor)
    assert visitor.get(described["servers"][0]["url"] + "/api/v1/me").status_code == 200
    shown = Page(visitor.get("/auth/api/v1/", headers=HTML)).text
    assert "GET /auth/api/v1/me" in shown


ORIGINAL = {
    "": "/auth/login",
    "/": "/auth/login?next=/",
    "/auth/": "/auth/login",
    "/notes?x=1": "/auth/login?next=/notes%3Fx%3D1",
    "http://localhost/notes": "/auth/login?next=/notes",
    "//e.example/": "/auth/login",
    "https://e.example/": "/auth/login",
}


@pytest.mark.usefixtures("through")
def test_forward_auth_leads_to_the_log_in_page(visitor: Client, through: str) -> None:
    for original, expected in ORIGINAL.items():
        for name in ("X-Original-URL", "X-Original-URI"):
            asked = visitor.get("/auth/forward-auth/nginx", headers={name: original})
            # the browser is on another host than PUBLIC_URL says we are
            location = asked.location.replace("http://localhost/auth/login", "/auth/login")
            assert (asked.status_code, location) == (401, expected), (name, original)
        asked = visitor.get(
            "/auth/forward-auth/redirect", headers={**HTML, "X-Forwarded-Uri": original}
        )
        location = asked.location.replace("http://localhost/auth/login", "/auth/login")
        assert (asked.status_code, location) == (302, expected), original
    assert log_in(visitor).status_code == 303
    for path in ("/auth/forward-auth/nginx", "/auth/forward-auth/redirect"):
        assert visitor.get(path).status_code == 200
    assert visitor.get("/auth/api/v1/me").get_json()["email"] == EMAIL


def test_without_a_mount_point_the_description_names_the_root(client: Client) -> None:
    assert client.get("/api/v1/openapi.json").get_json()["servers"] == [{"url": "/"}]


# -- which prefix is believed ----------------------------------------------------------------------

BELIEVED = {
    "/auth": "/auth",
    "/auth/": "/auth",
    "/a/b.c_d~e-f/1": "/a/b.c_d~e-f/1",
    "/..auth": "/..auth",
    "/" + "x" * 199: "/" + "x" * 199,
    "//e.example, /auth": "/auth",  # the last one is the proxy's
    "/evil , /auth ": "/auth",
}
NOT_BELIEVED = [
    "",
    "/",
    "auth",
    "//e.example",
    "//e.example/auth",
    "/auth//x",
    "/auth//",
    "/\\e.example",
    "\\\\e.example",
    "/.",
    "/..",
    "/auth/../x",
    "/auth/./x",
    "/auth/..",
    "https://e.example",
    "/https://e.example",
    "javascript:alert(1)",
    "/a b",
    "/a?b",
    "/a#b",
    "/a%2fb",
    "/a%0d%0ab",
    "/\t/e.example",
    "/a\x00",
    '/a"onload=x',
    "/<script>",
    "/ä",
    "/" + "x" * 200,
    "/x" * 5_000,
    "/auth,",
    "/auth, //e.example",
    '"/auth"',
]


def answers_under(app: Flask, prefix: str) -> list[TestResponse]:
    """Not as headers: the client of the tests would send none with a line break."""
    sent = {"HTTP_ACCEPT": "text/html", "HTTP_X_FORWARDED_PREFIX": prefix}
    asked = ("/account", "/", "/nothing", "/forward-auth/nginx", "/api/v1/openapi.json")
    return [program(app).get(path, environ_overrides=sent) for path in asked]


@pytest.mark.parametrize("hops", [0, 1])
def test_a_prefix_that_is_not_well_formed_is_none(make_app: MakeApp, hops: int) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=hops)

    def shown(prefix: str) -> list[tuple[int, str | None, str]]:
        found = [(a.status_code, a.location, a.text) for a in answers_under(app, prefix)]
        return [(*rest, text.split("quote <code>")[0]) for *rest, text in found]  # type: ignore[misc]

    plain = shown("")
    assert plain[0][1] == "/login?next=/account"
    for prefix in NOT_BELIEVED if hops else [*NOT_BELIEVED, *BELIEVED]:
        assert shown(prefix) == plain, prefix
    for prefix, mount in BELIEVED.items() if hops else ():
        assert shown(prefix)[0][1] == f"{mount}/login?next={mount}/account", prefix


def test_of_two_proxies_the_first_says_it(make_app: MakeApp) -> None:
    app = make_app(TRUSTED_PROXY_HOPS=2)
    for prefix, location in (
        ("/evil, /auth, /inner", "/auth/login?next=/auth/account"),
        ("/auth, /inner", "/auth/login?next=/auth/account"),
        ("/auth", "/login?next=/account"),
    ):
        assert answers_under(app, prefix)[0].location == location, prefix


# path as it reaches us, and what it is under this prefix
PATHS = [
    ("/auth", "/auth/login", "/login"),
    ("/auth", "/authx/login", None),
    ("/auth", "/auth/auth/login", None),
    ("/auth", "/Auth/login", None),
    ("/auth/x", "/auth/login", None),
    ("/auth/x", "/auth/x/login", "/login"),
    ("/auth", "/login", "/login"),
    # mounted under what begins our own addresses: only a proxy that takes it off can do that
    ("/api", "/api/v1/openapi.json", "/api/v1/openapi.json"),
    ("/api", "/api/login", None),
    ("/login", "/login", "/login"),
    ("/forward-auth", "/forward-auth/nginx", "/forward-auth/nginx"),
    ("/forward-auth", "/forward-auth/healthz", None),
    ("/static", "/static/authapp/favicon.svg", "/static/authapp/favicon.svg"),
]


@pytest.mark.parametrize(("prefix", "path", "expected"), PATHS)
def test_the_prefix_is_taken_off_where_the_proxy_left_it(
    app: Flask, prefix: str, path: str, expected: str | None
) -> None:
    headers = {"X-Forwarded-Prefix": prefix}
    answer = program(app).get(path, headers=headers)
    assert (answer.status_code != 404) is (expected is not None)
    if expected:
        plain = program(app).get(expected)
        assert (answer.status_code, answer.mimetype) == (plain.status_code, plain.mimetype)
    foreign = program(app).get(path)
    assert foreign.status_code == (404 if expected != path else answer.status_code)


def test_a_cookie_of_the_mounted_site_opens_nothing_more(app: Flask) -> None:
    """A prefix from the client changes where links lead, and no decision."""
    client = behind_proxy(app.test_client())
    client.post("/login", data={"email": EMAIL, "password": PASSWORD})
    headers = {"Cookie": f"{COOKIE}={token_of(client)}", "X-Forwarded-Prefix": "/x"}
    foreign = {**headers, "Origin": "https://e.example"}
    for path in ("/logout", "/x/logout"):
        assert program(app).post(path, headers=foreign).status_code == 403
    for path in ("/forward-auth/nginx?role=nobody", "/x/forward-auth/nginx?role=nobody"):
        assert program(app).get(path, headers=headers).status_code == 403
    for path in ("/forward-auth/nginx", "/x/forward-auth/nginx"):
        assert program(app).options(path, headers=headers).status_code == 405


def test_an_app_that_embeds_us_is_mounted_alike(settings: Settings, stores: Stores) -> None:
    notes = Flask("notes")
    notes.config.update(settings, TRUSTED_PROXY_HOPS=1)
    Auth(notes)
    notes.add_url_rule("/notes", "notes", lambda: f"{request.path} {url_for('notes')}")
    notes.add_url_rule("/<path:any>", "any", lambda any: f"any {any}")
    for path in ("/notes", "/auth/notes"):
        answer = program(notes).get(path, headers={"X-Forwarded-Prefix": "/auth"})
        assert answer.text == "/notes /auth/notes"
    assert program(notes).get("/auth/notes").text == "any auth/notes"
    services_of(notes).close()


# -- PUBLIC_URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [0, 1])
def test_the_path_of_the_public_url_is_the_mount_point(make_app: MakeApp, hops: int) -> None:
    app = make_app(PUBLIC_URL="https://example.org/auth", TRUSTED_PROXY_HOPS=hops)
    for path in ("/account", "/auth/account"):
        for sent in ({}, {"X-Forwarded-Prefix": "/evil"}, {"X-Forwarded-Prefix": "/auth"}):
            answer = browser(app).get(path, headers=sent)
            assert answer.location == "/auth/login?next=/auth/account", (path, sent)
    assert browser(app).get("/authx/account").status_code == 404
    assert browser(app).get("/auth/auth/account").status_code == 404


def test_a_public_url_without_a_path_is_the_root_whatever_a_proxy_says(make_app: MakeApp) -> None:
    app = make_app(PUBLIC_URL="https://example.org", TRUSTED_PROXY_HOPS=1)
    answer = browser(app).get("/account", headers={"X-Forwarded-Prefix": "/evil"})
    assert answer.location == "/login?next=/account"


# SCRIPT_NAME as the server was told, and the mount point of links on pages
TOLD = [
    ("", "/site/auth"),
    ("/site/auth", "/site/auth"),
    ("/site/auth/", "/site/auth"),
    ("/auth", "/site/auth"),  # a proxy took the beginning off, the server the rest
    ("/other", "/other"),
    ("/site", "/site"),
]


@pytest.mark.parametrize(("told", "expected"), TOLD)
def test_a_server_may_have_been_told_the_same(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], told: str, expected: str
) -> None:
    app = make_app(PUBLIC_URL="https://example.org/site/auth")
    for _ in range(2):
        answer = browser(app).get("/account", environ_overrides={"SCRIPT_NAME": told})
        assert answer.location == f"{expected}/login?next={expected}/account"
    warned = capsys.readouterr().err.count("mount_point_differs")
    assert warned == (0 if expected == "/site/auth" else 1), "it is said once"


def test_links_in_mails_begin_with_the_public_url(
    make_app: MakeApp, settings: Settings, stores: Stores
) -> None:
    link = services_of(make_app(PUBLIC_URL="https://example.org/auth/")).public_link
    assert link("/verify", token="a-b_c") == "https://example.org/auth/verify?token=a-b_c"
    assert link("/login") == "https://example.org/auth/login"
    shop = Flask("shop")
    shop.config.update(settings, PUBLIC_URL="https://example.org/shop")
    Auth(shop, url_prefix="/account", pages=True)
    assert services_of(shop).public_link("/reset") == "https://example.org/shop/account/reset"
    services_of(shop).close()


@pytest.mark.parametrize("url", ["https://example.org/auth", "https://example.org/shop/auth"])
def test_a_public_url_that_ends_with_our_prefix_is_refused(settings: Settings, url: str) -> None:
    shop = Flask("shop")
    shop.config.update(settings, PUBLIC_URL=url)
    with pytest.raises(SettingError, match=r"^PUBLIC_URL: leave /auth out at its end"):
        Auth(shop, url_prefix="/auth", pages=True)
