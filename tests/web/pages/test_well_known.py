"""What browsers and password managers ask for at addresses that nobody told them."""

from typing import Any

import pytest
from flask import Flask

from authapp import Auth
from tests.web.conftest import MakeApp, Settings
from tests.web.support import browser, program, services_of


def test_password_managers_find_the_page_for_a_new_password(app: Flask) -> None:
    answer = browser(app).get("/.well-known/change-password")
    assert (answer.status_code, answer.location) == (303, "/account/password")
    # by which they tell that the answer above means something
    missing = "/.well-known/resource-that-should-not-exist-whose-status-code-should-not-be-200"
    assert browser(app).get(missing).status_code == 404


@pytest.mark.parametrize(
    "path", ["/.well-known/change-password", "/auth/.well-known/change-password"]
)
def test_under_a_mount_point_they_are_led_below_it(make_app: MakeApp, path: str) -> None:
    app = make_app(PUBLIC_URL="https://example.org/auth")
    assert browser(app).get(path).location == "/auth/account/password"


def test_the_icon_is_there_by_its_usual_name(app: Flask) -> None:
    answer = program(app).get("/favicon.ico")
    assert answer.status_code == 200
    assert answer.mimetype in {"image/vnd.microsoft.icon", "image/x-icon"}
    assert answer.data[:4] == b"\0\0\1\0"
    assert answer.headers["Cache-Control"] != "no-store"


@pytest.mark.parametrize("prefix", ["", "/auth"])
def test_in_another_app_both_are_the_app_s(settings: Settings, prefix: str) -> None:
    app = Flask("shop")
    app.config.update(settings)
    everything: Any = dict.fromkeys(("pages", "api", "admin", "health", "forward_auth"), True)
    Auth(app, url_prefix=prefix, **everything)
    for path in ("/favicon.ico", "/.well-known/change-password"):
        for under in ("", "/auth"):
            assert browser(app).get(under + path).status_code == 404
    services_of(app).close()
