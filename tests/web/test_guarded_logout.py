"""`/forward-auth/logout`: the way from a guarded app to the page that logs people out."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import MakeApp
from tests.web.support import behind_proxy, browser, log_in, program, sign_up

AUTH, APP = "https://auth.example.org", "https://app.example.org"
PATH = "/forward-auth/logout"
ONWARD = {
    "": f"{APP}/",
    "/bye?x=1": f"{APP}/bye?x=1",
    f"{APP}/bye": f"{APP}/bye",
    f"{AUTH}/": f"{AUTH}/",
    "https://e.example/": None,
    "//e.example/": None,
    "/\\e.example": None,
    "/\t/e.example": None,
    "javascript:alert(1)": None,
}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(PUBLIC_URL=AUTH, TRUSTED_PROXY_HOPS=1, ALLOWED_REDIRECT_HOSTS="app.example.org")


def forwarded(host: str) -> dict[str, str]:
    """As a proxy says it that passes the path of the app's host on."""
    return {
        "X-Forwarded-Host": host,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.7",
    }


def test_it_leads_to_the_page_and_back_to_the_app(app: Flask) -> None:
    for onward, expected in ONWARD.items():
        answer = program(app).get(
            PATH, query_string={"next": onward}, headers=forwarded("app.example.org")
        )
        assert answer.status_code == 302
        page, _, query = answer.headers["Location"].partition("?")
        assert page == f"{AUTH}/logout", onward
        assert bool(query) is (expected is not None), onward
        shown = program(app).get(f"/logout?{query}", headers=forwarded("auth.example.org"))
        assert shown.status_code == 200
        assert (f'href="{expected}"' in shown.get_data(as_text=True)) is (expected is not None), (
            onward
        )
    unlisted = program(app).get(PATH, headers=forwarded("e.example"))
    assert unlisted.headers["Location"] == f"{AUTH}/logout"


def test_a_link_ends_nothing(app: Flask) -> None:
    sign_up(app)
    client: FlaskClient = behind_proxy(browser(app))
    log_in(client)
    for path in (PATH, "/logout", f"/logout?next={APP}/"):
        for method in ("GET", "HEAD"):
            client.open(path, method=method)
        assert client.get("/api/v1/me").status_code == 200, path
    assert program(app).post(PATH).status_code in {403, 405}


def test_without_public_url_the_page_is_on_the_host_that_was_asked(make_app: MakeApp) -> None:
    answer = program(make_app()).get(f"{PATH}?next=/bye")
    assert answer.headers["Location"] == "/logout?next=http%3A//localhost/bye"
