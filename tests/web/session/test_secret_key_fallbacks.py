"""SECRET_KEY_FALLBACKS, Flask's own way to rotate SECRET_KEY: it counts, or the app is told."""

from typing import Any

import pytest
from flask import Flask

from authapp import Auth, Config
from authapp.errors import SettingError
from tests.web.conftest import Settings
from tests.web.session.conftest import OpenShop
from tests.web.support import COOKIE, token_of

NEW, OLD = "n" * 32, "o" * 32


@pytest.mark.parametrize("former", [[OLD], (OLD.encode(),), OLD])
def test_nobody_is_logged_out_and_visitors_keep_their_data(
    open_shop: OpenShop, former: Any
) -> None:
    before = open_shop(SECRET_KEY=OLD)
    ada, visitor = before.visitor(), before.visitor()
    before.log_in(ada)
    before.put(ada, city="London")
    before.put(visitor, cart=["pen"])

    after = open_shop(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=former)
    assert after.app.config["SECRET_KEY"] == NEW
    assert after.app.config["SECRET_KEY_FALLBACKS"] == [OLD]
    again, still = after.visitor(), after.visitor()
    again.set_cookie(COOKIE, token_of(ada))
    still.set_cookie("VISITOR-DATA", token_of(visitor, "VISITOR-DATA"))
    assert after.read(again) == {"city": "London"}
    assert after.read(still) == {"cart": ["pen"]}


def test_a_weak_one_is_refused_by_its_name(settings: Settings) -> None:
    app = Flask("shop")
    app.config.update(settings, SECRET_KEY_FALLBACKS=["dev"])
    with pytest.raises(SettingError, match=r"^SECRET_KEY_FALLBACKS: each secret needs at least 32"):
        Auth(app)


def test_one_that_the_settings_of_authapp_have_not_is_refused(settings: Settings) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY_FALLBACKS=[OLD])
    with pytest.raises(SettingError, match=r"^SECRET_KEY_FALLBACKS: it has a secret that"):
        Auth(app, Config.from_mapping(settings))
