"""An app's own page for 503 whose base asks who the visitor is, while nobody can say."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask, flash, render_template_string, session
from flask.typing import ResponseReturnValue

from authapp import Auth, current_user
from authapp.errors import StoreUnavailable
from authapp.sessions.store import SessionStore
from tests.web.conftest import Settings
from tests.web.support import PASSWORD, Stores, browser, cookies_of, log_in, services_of, sign_up

BASES = ["{{ current_user.email }}", "{{ session.cart }}", "{{ get_flashed_messages() }}"]
EMAIL = "ada@example.org"


@pytest.fixture
def open_shop(settings: Settings, stores: Stores) -> Iterator[Callable[[str], Flask]]:
    opened: list[Flask] = []

    def make(base: str) -> Flask:
        app = Flask("shop")
        app.config.update(settings)
        Auth(app, pages=True)
        opened.append(app)

        def page(_error: object) -> ResponseReturnValue:
            return render_template_string(f"Back soon. {base}"), 503

        app.register_error_handler(503, page)
        app.add_url_rule("/who", view_func=lambda: str(current_user.email))
        app.add_url_rule("/put", view_func=put)
        sign_up(app, EMAIL)
        return app

    yield make
    for app in opened:
        services_of(app).close()


def put() -> str:
    session["cart"] = "pen"
    flash("put in")
    return "put"


def away(*_args: object) -> None:
    raise StoreUnavailable("postgres")


@pytest.mark.parametrize("base", BASES)
def test_it_is_503_all_the_same(
    open_shop: Callable[[str], Flask], monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    app = open_shop(base)
    client = browser(app)
    assert log_in(client, EMAIL, PASSWORD).status_code == 303
    monkeypatch.setattr(services_of(app).sessions, "find", away)
    for path in ("/who", "/put"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        assert answer.headers["Retry-After"] == "2"
        assert not cookies_of(answer)


@pytest.mark.parametrize("base", BASES)
def test_it_is_shown_where_the_visitor_is_known(
    open_shop: Callable[[str], Flask], monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    client = browser(open_shop(base))
    assert log_in(client, EMAIL, PASSWORD).status_code == 303
    monkeypatch.setattr(SessionStore, "patch", away)
    answer = client.get("/put")
    assert answer.status_code == 503
    assert answer.text.startswith("Back soon.")
