"""Two apps in one process with one database, one Redis and one cookie domain have one log-in."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, flash, get_flashed_messages, request, session
from werkzeug.test import Client, TestResponse

from authapp import Auth, current_user, login_required, roles_required
from tests.web.conftest import Settings
from tests.web.support import EMAIL, OTHER_PASSWORD, PASSWORD, Stores, services_of, sign_up

DOMAIN = "example.org"
APPS = ("notes", "shop")
LOGIN = {"email": EMAIL, "password": PASSWORD}


class Site:
    """Both apps behind their hosts: `notes.example.org` and `shop.example.org`."""

    def __init__(self, settings: Settings) -> None:
        self.apps = {name: _open(name, settings) for name in APPS}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        name = environ["HTTP_HOST"].split(".")[0]
        environ["REMOTE_ADDR"] = "127.0.0.1"
        return self.apps[name](environ, start_response)


class Browser:
    """A browser that keeps the cookies of both hosts."""

    def __init__(self, site: Site) -> None:
        self.client = Client(site)

    def get(self, app: str, path: str) -> TestResponse:
        return self.client.get(path, base_url=_origin(app))

    def post(self, app: str, path: str, *, page_of: str = "", **form: str) -> TestResponse:
        """Sends a form from a page of the same app, or of `page_of`."""
        headers = {"Origin": _origin(page_of or app)}
        return self.client.post(path, base_url=_origin(app), headers=headers, data=form)

    def who(self) -> list[str]:
        """Whom each app takes this browser for."""
        return [self.get(app, "/who").text for app in APPS]


def _origin(app: str) -> str:
    return f"https://{app}.{DOMAIN}"


def _open(name: str, settings: Settings) -> Flask:
    app = Flask(name)
    app.config.update(settings, SESSION_COOKIE_DOMAIN=DOMAIN)
    Auth(app, url_prefix="/account", pages=True, api=True)

    @app.get("/who")
    def who() -> str:
        return current_user.email or "nobody"

    @app.get("/guarded")
    @login_required
    def guarded() -> str:
        return name

    @app.get("/staff")
    @roles_required("admin")
    def staff() -> str:
        return name

    @app.route("/data", methods=["GET", "POST"])
    def data() -> dict[str, Any]:
        session.update(request.form)
        return dict(session)

    @app.post("/say")
    def say() -> str:
        flash(f"from {name}")
        return "said"

    @app.get("/said")
    def said() -> list[Any]:
        return get_flashed_messages()

    return app


@pytest.fixture
def site(settings: Settings, stores: Stores) -> Iterator[Site]:
    site = Site(settings)
    sign_up(site.apps["notes"])
    yield site
    for app in site.apps.values():
        services_of(app).close()


@pytest.fixture
def ada(site: Site) -> Browser:
    """A person who has logged in to the notes alone."""
    browser = Browser(site)
    assert browser.post("notes", "/account/login", **LOGIN).status_code == 303
    return browser


def test_a_log_in_to_one_is_a_log_in_to_both(ada: Browser) -> None:
    assert ada.who() == [EMAIL, EMAIL]
    assert ada.get("shop", "/guarded").text == "shop"
    assert ada.get("shop", "/account/api/v1/me").get_json()["email"] == EMAIL


@pytest.mark.parametrize("app", APPS)
def test_a_log_out_of_one_is_a_log_out_of_both(ada: Browser, stores: Stores, app: str) -> None:
    sent = ada.client.get_cookie("SESSION-TOKEN", DOMAIN)
    assert sent is not None
    assert ada.who() == [EMAIL, EMAIL]  # both have looked
    assert ada.post(app, "/account/logout").status_code == 303
    assert ada.who() == ["nobody", "nobody"]
    ada.client.set_cookie("SESSION-TOKEN", sent.value, domain=DOMAIN, origin_only=False)
    assert ada.who() == ["nobody", "nobody"], "the token is dead in both"
    assert stores.sql("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(0,)]


def test_a_change_in_one_counts_in_the_other_at_once(site: Site, ada: Browser) -> None:
    other = Browser(site)
    other.post("shop", "/account/login", **LOGIN)
    assert [browser.get("notes", "/staff").status_code for browser in (ada, other)] == [403, 403]
    with site.apps["shop"].app_context():
        users = Auth.users
        person = users.find(EMAIL)
        assert person is not None
        users.set_roles(person.id, ["admin", "user"])
        assert ada.get("notes", "/staff").text == "notes"
        users.set_password(person.id, OTHER_PASSWORD)
    assert ada.who() == other.who() == ["nobody", "nobody"]
    assert ada.post("notes", "/account/login", **LOGIN).status_code == 401
    form = {**LOGIN, "password": OTHER_PASSWORD}
    assert ada.post("notes", "/account/login", **form).status_code == 303


def test_the_data_of_a_person_is_one_and_that_of_a_visitor_is_of_each_host(site: Site) -> None:
    browser = Browser(site)
    browser.post("notes", "/data", draft="poem")
    browser.post("shop", "/data", cart="pen")
    assert browser.get("notes", "/data").get_json() == {"draft": "poem"}
    assert browser.get("shop", "/data").get_json() == {"cart": "pen"}
    browser.post("shop", "/account/login", **LOGIN)
    assert [browser.get(app, "/data").get_json() for app in APPS] == [{"cart": "pen"}] * 2
    browser.post("notes", "/say")
    assert browser.get("shop", "/said").get_json() == ["from notes"]
    assert browser.get("notes", "/said").get_json() == []


def test_a_form_of_one_app_is_no_form_of_the_other(site: Site, ada: Browser) -> None:
    assert ada.post("shop", "/account/logout", page_of="notes").status_code == 403
    assert ada.who() == [EMAIL, EMAIL]
