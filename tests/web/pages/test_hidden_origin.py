"""Forms on pages that refer nobody: over plain http a browser says `Origin: null` of them, and no
more. Pages of other sites can have it say the same, so nobody is logged in by it."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.mails import MAIL_SETTINGS, PUBLIC_URL, mails
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    browser,
    log_in,
    services_of,
    sign_up,
    signed_in_as,
)

NEW = {"email": EMAIL, "password": PASSWORD}
HIDDEN = {"Origin": "null"}
TOKEN = "t" * 43


@pytest.fixture
def mailing(make_app: MakeApp) -> Flask:
    return make_app(**MAIL_SETTINGS)


def over_http(app: Flask) -> FlaskClient:
    """A browser that does not send `Sec-Fetch-Site`."""
    return app.test_client()


def newest_link(app: Flask, kind: str) -> str:
    return mails(services_of(app), kind)[-1].link.removeprefix(PUBLIC_URL)


def is_logged_in(client: FlaskClient) -> bool:
    return client.get("/api/v1/me").status_code == 200


def test_the_link_confirms_and_log_in_comes_next(mailing: Flask) -> None:
    client = over_http(mailing)
    client.post("/signup", data=NEW, headers={"Origin": PUBLIC_URL})
    client.get(newest_link(mailing, "verify"))
    done = client.post("/verify", headers=HIDDEN)
    assert (done.status_code, done.location) == (303, "/login")
    assert "Your email is confirmed. Log in" in client.get("/login").text
    assert not is_logged_in(client)
    assert log_in(browser(mailing)).status_code == 303


def test_another_mail_can_be_asked_for(mailing: Flask) -> None:
    client = over_http(mailing)
    client.post("/signup", data=NEW, headers={"Origin": PUBLIC_URL})
    assert client.post("/verify/resend", data=NEW, headers=HIDDEN).status_code == 303
    assert len(mails(services_of(mailing), "verify")) == 2


def test_a_change_of_email_is_confirmed(mailing: Flask) -> None:
    sign_up(mailing)
    email = {"email": "new@example.org"}
    assert signed_in_as(mailing, EMAIL).post("/api/v1/me/email", json=email).status_code == 202
    client = over_http(mailing)
    client.get(newest_link(mailing, "confirm_change"))
    done = client.post("/verify", data={"password": PASSWORD}, headers=HIDDEN)
    assert (done.status_code, done.location) == (303, "/login")


def test_an_invitation_is_used_and_log_in_comes_next(make_app: MakeApp) -> None:
    app = make_app(SIGNUP="invite")
    token = services_of(app).invitations.create().token
    client = over_http(app)
    done = client.post(f"/signup/{token}", data=NEW, headers=HIDDEN)
    assert (done.status_code, done.location) == (303, "/login")
    assert not is_logged_in(client)
    assert log_in(browser(app)).status_code == 303


def test_another_site_plants_no_proof_of_a_password(mailing: Flask) -> None:
    """It may have typed its own password with the address of the person whose browser this is."""
    token = services_of(mailing).invitations.create().token
    client = over_http(mailing)
    assert client.post(f"/signup/{token}", data=NEW, headers=HIDDEN).location == "/verify"
    client.get(newest_link(mailing, "verify"))
    assert client.post("/verify", headers=HIDDEN).status_code == 400
    wrong = client.post("/verify", data={"password": OTHER_PASSWORD}, headers=HIDDEN)
    assert wrong.status_code == 401


@pytest.mark.parametrize(
    "path", ["/reset", "/email/undo", "/verify", "/verify/resend", f"/signup/{TOKEN}"]
)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://e.example"}, HIDDEN | {"Sec-Fetch-Site": "cross-site"}],
    ids=["named", "cross-site"],
)
def test_other_sites_are_refused(app: Flask, path: str, headers: dict[str, str]) -> None:
    refused = over_http(app).post(path, headers=headers)
    assert refused.status_code == 403
    assert "from another site" in refused.text
