"""SameSite, Path, Partitioned and Secure: all cookies follow the app, or the app is told."""

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from authapp import Auth, Config, create_app
from authapp.errors import SettingError
from tests.web.conftest import Settings
from tests.web.session.conftest import OpenShop, Shop
from tests.web.support import COOKIE, SetCookie, Stores, cookies_of, services_of, token_of

NAMES = (COOKIE, "DEVICE-TOKEN", "VISITOR-DATA")


def all_cookies(shop: Shop, client: FlaskClient) -> list[SetCookie]:
    """Each cookie of authapp, when it is set and when it is deleted."""
    found = []
    for act in (
        lambda: session.update(x=1),
        shop.log_in_here,
        shop.auth.log_out,
        lambda: session.update(x=1),
        session_clear,
    ):
        shop.do(client, act)
        found += cookies_of(shop.answer)
    kinds = {(cookie.name, bool(cookie.value)) for cookie in found}
    assert kinds == {(name, True) for name in NAMES} | {(COOKIE, False), ("VISITOR-DATA", False)}
    return found


def session_clear() -> None:
    session.clear()


def test_by_default_they_are_lax_for_every_path_and_secure(shop: Shop) -> None:
    for cookie in all_cookies(shop, shop.visitor()):
        expected = {"samesite": "Lax", "path": "/", "secure": "", "httponly": ""}
        assert expected.items() <= cookie.attributes.items()
        assert "partitioned" not in cookie.attributes


def test_all_of_them_follow(open_shop: OpenShop) -> None:
    shop = open_shop(
        SESSION_COOKIE_SAMESITE="None",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_PARTITIONED=True,
    )
    found = all_cookies(shop, shop.visitor())
    for cookie in found:
        assert cookie.attributes["samesite"] == "None"
        assert "secure" in cookie.attributes
    partitioned = {(c.name, bool(c.value)) for c in found if "partitioned" in c.attributes}
    assert partitioned == {(cookie.name, bool(cookie.value)) for cookie in found}
    assert all("partitioned" in cookie.attributes for cookie in found if cookie.value)


def test_a_path_is_the_path_of_all(open_shop: OpenShop) -> None:
    shop = open_shop(SESSION_COOKIE_PATH="/shop", SESSION_COOKIE_SAMESITE="Strict")
    shop.do(shop.visitor(), lambda: session.update(x=1))
    [visitors] = cookies_of(shop.answer)
    shop.do(shop.visitor(), shop.log_in_here)
    for cookie in (visitors, *cookies_of(shop.answer)):
        assert (cookie.attributes["path"], cookie.attributes["samesite"]) == ("/shop", "Strict")


def test_a_cookie_from_before_it_was_partitioned_is_expired(open_shop: OpenShop) -> None:
    shop = open_shop(SESSION_COOKIE_PARTITIONED=True)
    client = shop.visitor()
    shop.log_in(client)
    assert [bool(cookie.value) for cookie in cookies_of(shop.answer)] == [True, True]
    shop.log_in(client)
    old, new, _device = cookies_of(shop.answer)
    assert (old.name, old.value, "partitioned" in old.attributes) == (COOKIE, "", False)
    assert (new.name, new.value, "partitioned" in new.attributes) == (
        COOKIE,
        token_of(client),
        True,
    )


# -- what the app says of Secure -------------------------------------------------------------------


@pytest.mark.parametrize("off", [0, "0", "off", "false", "no"])
def test_secure_is_switched_off_by_what_flask_does_not_fill_in(
    open_shop: OpenShop, off: object, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop(SESSION_COOKIE_SECURE=off)
    assert all("secure" not in c.attributes for c in all_cookies(shop, shop.visitor()))
    assert "session_cookie_is_secure" not in caplog.text


def test_false_counts_where_flask_read_it_from_the_environment(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("0", "false"):
        monkeypatch.setenv("FLASK_SESSION_COOKIE_SECURE", text)
        app = Flask("shop")
        app.config.update(settings)
        app.config.from_prefixed_env()
        Auth(app)
        assert app.config["SESSION_COOKIE_SECURE"] is False
        services_of(app).close()


def test_false_which_nobody_may_have_chosen_is_told_in_the_log(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop(SESSION_COOKIE_SECURE=False)
    assert shop.app.config["SESSION_COOKIE_SECURE"] is True
    [line] = [
        r.getMessage() for r in caplog.records if "session_cookie_is_secure" in r.getMessage()
    ]
    assert 'to "off" where there is no https' in line
    caplog.clear()
    open_shop(SESSION_COOKIE_SECURE=True)
    assert "session_cookie_is_secure" not in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SESSION_COOKIE_SECURE", "0"),
        ("SESSION_COOKIE_SECURE", "false"),
        ("SESSION_COOKIE_SAMESITE", "Strict"),
        ("SESSION_COOKIE_PATH", "/shop"),
        ("SESSION_COOKIE_PARTITIONED", "1"),
        ("SESSION_COOKIE_NAME", "OTHER"),
        ("SESSION_COOKIE_DOMAIN", "example.org"),
    ],
)
def test_two_places_that_differ_are_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """`create_app` takes its settings without, and Flask's own with FLASK_ in front."""
    monkeypatch.setenv(f"FLASK_{name}", text)
    with pytest.raises(SettingError, match=rf"^{name}: .*FLASK_{name}[^\n]*$"):
        create_app(Config.from_mapping(settings))


def test_two_places_that_agree_are_taken(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_SESSION_COOKIE_SAMESITE", "strict")
    monkeypatch.setenv("FLASK_SESSION_COOKIE_SECURE", "true")
    app = create_app(Config.from_mapping({**settings, "SESSION_COOKIE_SAMESITE": "Strict"}))
    assert app.config["SESSION_COOKIE_SAMESITE"] == "Strict"
    services_of(app).close()


def test_scripts_never_get_the_cookie(settings: Settings) -> None:
    app = Flask("shop")
    app.config.update(settings, SESSION_COOKIE_HTTPONLY=False)
    with pytest.raises(SettingError, match=r"^SESSION_COOKIE_HTTPONLY: leave it on"):
        Auth(app)
