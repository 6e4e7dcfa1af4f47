"""The brand of whoever runs this is on every page, readable, and loads nothing it did not name."""

import re

import pytest
from werkzeug.test import TestResponse

from authapp.brand import Brand, _contrast
from authapp.config import Config
from authapp.errors import SettingError
from tests.web.conftest import MakeApp, Settings
from tests.web.support import EMAIL, PASSWORD, Page, browser, sign_up

LOGO = "https://cdn.example.org/logo.svg"
SET = {
    "BRAND_NAME": "Ada & Söhne",
    "BRAND_LOGO_URL": LOGO,
    "BRAND_COLOR": "#FC3",
    "TERMS_URL": "https://example.org/terms",
    "PRIVACY_URL": "/privacy",
    "SUPPORT_URL": "https://example.org/help?from=login",
}


def images_allowed(answer: TestResponse) -> set[str]:
    policy = answer.headers["Content-Security-Policy"]
    found = re.search(r"img-src ([^;]*)", policy)
    assert found
    return set(found[1].split())


def test_pages_show_the_brand(make_app: MakeApp) -> None:
    app = make_app(**SET)
    for path in ("/", "/login", "/signup", "/nothing", "/api/v1/"):
        page = Page(browser(app).get(path))
        [title] = re.findall(r"<title>(.*?)</title>", browser(app).get(path).text)
        assert title.endswith("Ada &amp; Söhne"), path
        assert "authapp" not in page.text.replace("authapp keeps", ""), path
        assert page.all("img")[0]["src"] == LOGO
        linked = {a["href"] for a in page.all("a")}
        assert {SET["TERMS_URL"], SET["PRIVACY_URL"], SET["SUPPORT_URL"]} <= linked
        styles = [a["href"] for a in page.all("link") if a["rel"] == "stylesheet"]
        assert styles[-1] == "/static/authapp/brand.css", "after ours, which it changes"


def test_without_settings_nothing_of_it_is_there(make_app: MakeApp) -> None:
    page = Page(browser(make_app()).get("/login"))
    assert "authapp" in page.text
    assert not [a for a in page.all("link") if "brand.css" in a["href"]]
    assert not {"Terms", "Privacy", "Help"} & set(page.text.split())


def test_images_may_come_from_the_logo_s_origin_and_from_no_other(make_app: MakeApp) -> None:
    app, plain = make_app(**SET), make_app(BRAND_LOGO_URL="/logo.svg")
    sign_up(app)
    client = browser(app)
    assert client.post("/login", data={"email": EMAIL, "password": PASSWORD}).status_code == 303
    for path in ("/", "/login", "/account/sessions", "/nothing"):
        assert images_allowed(client.get(path)) == {"'self'", "data:", "https://cdn.example.org"}
        assert images_allowed(browser(plain).get(path)) == {"'self'", "data:"}
    # people have their picture where they like
    assert images_allowed(client.get("/account")) == {"'self'", "data:", "https:"}


def test_the_colour_comes_as_a_style_sheet_that_may_be_kept(make_app: MakeApp) -> None:
    client = browser(make_app(**SET))
    answer = client.get("/static/authapp/brand.css")
    assert (answer.status_code, answer.mimetype) == (200, "text/css")
    assert "--aa-accent:#ffcc33" in answer.text
    assert answer.headers["Cache-Control"] == "no-cache"
    known = {"If-None-Match": answer.headers["ETag"]}
    again = client.get("/static/authapp/brand.css", headers=known)
    assert again.status_code == 304


@pytest.mark.parametrize(
    "color", ["#ffffff", "#000000", "#ffcc33", "#3451b2", "#777777", "#00ff00", "#ff0000"]
)
def test_text_on_the_colour_can_be_read(color: str) -> None:
    found = dict(re.findall(r"(--aa-[a-z-]+):(#[0-9a-f]{6})", Brand(color=color).style))
    for background in ("--aa-accent", "--aa-accent-strong"):
        assert _contrast(found[background], found["--aa-on-accent"]) >= 4.5, found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAND_COLOR", "red"),
        ("BRAND_COLOR", "#12"),
        ("BRAND_COLOR", "#12345"),
        ("BRAND_COLOR", "#fff;}"),
        ("BRAND_LOGO_URL", "http://cdn.example.org/logo.svg"),
        ("BRAND_LOGO_URL", "//cdn.example.org/logo.svg"),
        ("BRAND_LOGO_URL", "logo.svg"),
        ("BRAND_LOGO_URL", "https://cdn.example.org; script-src *"),
        ("BRAND_LOGO_URL", "https://a@b.example/x"),
        ("BRAND_LOGO_URL", "data:image/png;base64,AAAA"),
        ("TERMS_URL", "javascript:alert(1)"),
        ("PRIVACY_URL", "ftp://example.org/"),
        ("SUPPORT_URL", "/\\evil.example"),
        ("BRAND_NAME", "two\nlines"),
    ],
)
def test_what_can_not_be_shown_is_refused(settings: Settings, name: str, value: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: set it [^\n]+$"):
        Config.from_mapping({**settings, name: value})
