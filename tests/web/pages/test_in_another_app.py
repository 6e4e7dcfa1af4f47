"""The pages of sign-up, reset and address in an app that embeds us below a prefix: they lead where
they should, and so do the links in mails."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp import Auth
from tests.support.mails import mails
from tests.web.conftest import Settings
from tests.web.support import EMAIL, OTHER_PASSWORD, PASSWORD, Page, Stores, browser, services_of

PUBLIC = "https://example.org/shop"
UNDER = "/shop/auth"


@pytest.fixture
def shop(settings: Settings, stores: Stores) -> Iterator[Flask]:
    app = Flask("shop")
    app.config.update(settings, PUBLIC_URL=PUBLIC, MAIL_URL="smtp://127.0.0.1:9")
    Auth(app, url_prefix="/auth", pages=True)
    app.add_url_rule("/", "start", lambda: "the shop")
    yield app
    services_of(app).close()


@pytest.fixture
def visitor(shop: Flask) -> FlaskClient:
    return browser(shop)


def mailed_path(shop: Flask, kind: str) -> str:
    link = mails(services_of(shop), kind)[-1].link
    assert link.startswith(f"{PUBLIC}/auth/")
    parts = urlsplit(link)
    return f"{parts.path}?{parts.query}"


def opens(client: FlaskClient, path: str) -> Page:
    """Follows redirects below the prefix, and sees that all of the page leads there, too."""
    answer = client.get(path)
    while answer.status_code in {302, 303}:
        assert urlsplit(answer.location).path.startswith(UNDER), answer.location
        answer = client.get(answer.location)
    assert answer.status_code == 200, path
    page = Page(answer)
    named = (("a", "href"), ("form", "action"), ("link", "href"), ("script", "src"), ("img", "src"))
    leads = {element.get(name, "") for tag, name in named for element in page.all(tag)}
    away = {lead for lead in leads if lead and lead[0] != "#" and not lead.startswith(UNDER)}
    assert not away, (path, away)
    return page


def test_the_way_of_a_person_stays_below_the_prefix(shop: Flask, visitor: FlaskClient) -> None:
    opens(visitor, f"{UNDER}/signup")
    form = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
    done = visitor.post(f"{UNDER}/signup", data=form)
    assert done.location == f"{UNDER}/verify"
    opens(visitor, mailed_path(shop, "verify"))
    done = visitor.post(f"{UNDER}/verify")
    assert (done.status_code, done.location) == (303, "/shop/"), "in, and at the start of the app"
    for path in ("/account", "/account/email", "/account/export", "/account/delete"):
        opens(visitor, UNDER + path)
    for path in ("/account/confirm", "/account/sessions", "/account/sessions/end-others"):
        opens(visitor, UNDER + path)

    assert visitor.post(f"{UNDER}/account/email", data={"email": "new@example.org"}).location
    assert "new@example.org" in opens(visitor, mailed_path(shop, "confirm_change")).text
    assert visitor.post(f"{UNDER}/verify").location == f"{UNDER}/account"

    visitor.post(f"{UNDER}/logout")
    opens(visitor, f"{UNDER}/forgot")
    asked = visitor.post(f"{UNDER}/forgot", data={"email": "new@example.org"})
    opens(visitor, asked.location)
    page = opens(visitor, mailed_path(shop, "reset"))
    (token,) = [f["value"] for f in page.all("input") if f.get("name") == "token"]
    form = {"token": token, "new_password": OTHER_PASSWORD}
    assert visitor.post(f"{UNDER}/reset", data=form).location == f"{UNDER}/login"
    form = {"email": "new@example.org", "password": OTHER_PASSWORD}
    assert visitor.post(f"{UNDER}/login", data=form).location == "/shop/"
