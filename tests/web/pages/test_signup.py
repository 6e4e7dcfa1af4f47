"""The pages of sign-up: who may, the confirmation of the address by link and by code."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp import OPERATOR
from tests.support.mails import MAIL_SETTINGS, PUBLIC_URL, mails
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    program,
    services_of,
    session_cookies_of,
    sign_up,
)

NEW = {"email": EMAIL, "password": PASSWORD}


@pytest.fixture
def mailing(make_app: MakeApp) -> Flask:
    """An app that confirms addresses; its mails wait."""
    return make_app(**MAIL_SETTINGS)


def link_and_code(app: Flask) -> tuple[str, str]:
    """The address of the newest link, as a path; and its code."""
    context = mails(services_of(app), "verify")[-1].context
    assert context["link"].startswith(f"{PUBLIC_URL}/verify?token=")
    return context["link"].removeprefix(PUBLIC_URL), context["code"]


def signed_up(app: Flask, email: str = EMAIL, password: str = PASSWORD) -> FlaskClient:
    """A browser that has signed up, and waits for the mail."""
    client = browser(app)
    done = client.post("/signup", data={"email": email, "password": password})
    assert (done.status_code, done.headers["Location"]) == (303, "/verify")
    assert not session_cookies_of(done)
    return client


def is_logged_in(client: FlaskClient) -> bool:
    return client.get("/api/v1/me").status_code == 200


# -- who may sign up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words"), [("closed", "makes the accounts"), ("invite", "needs an invitation")]
)
def test_a_closed_sign_up_says_so_kindly(
    make_app: MakeApp, stores: Stores, mode: str, words: str
) -> None:
    app = make_app(SIGNUP=mode, SUPPORT_URL="https://help.example.org/")
    client = browser(app)
    for answer in (client.get("/signup"), client.post("/signup", data=NEW)):
        assert answer.status_code == 403
        page = Page(answer)
        assert words in page.text
        assert "https://help.example.org/" in [a.get("href") for a in page.all("a")]
    for path in ("/", "/login"):
        assert "/signup" not in [
            a.get("href", "").partition("?")[0] for a in Page(client.get(path)).all("a")
        ]
    refused = program(app).post("/api/v1/signup", json=NEW)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "signup_closed")
    assert "https://help.example.org/" in refused.get_json()["detail"]
    assert stores.sql("SELECT 1 FROM users") == []


def test_a_closed_sign_up_costs_nothing_and_tells_nothing(
    make_app: MakeApp, stores: Stores
) -> None:
    app = make_app(SIGNUP="closed")
    sign_up(app)
    client = program(app)
    client.get("/healthz")
    services_of(app).background.drain()
    with stores.counted() as cost:
        answers = [
            client.post("/api/v1/signup", json={"email": email, "password": password})
            for email in (EMAIL, "new@example.org")
            for password in (PASSWORD, "short")
        ]
    assert (cost.sql, cost.redis) == ([], 0)
    told = [{**answer.get_json(), "request_id": ""} for answer in answers]
    assert all(one == told[0] for one in told)


def test_addresses_of_the_domains_may_sign_up(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(SIGNUP="domains", SIGNUP_DOMAINS="example.org,bücher.example")
    client = browser(app)
    assert "@example.org or @" in Page(client.get("/signup")).text
    refused = client.post("/signup", data=NEW | {"email": "a@example.org.evil.example"})
    assert refused.status_code == 403
    assert Page(refused).by_id("email")["aria-invalid"] == "true"
    for number, email in enumerate(
        ("Ada@EXAMPLE.org", "b@BÜCHER.example", "c@xn--bcher-kva.example")
    ):
        answer = program(app).post("/api/v1/signup", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, (number, email)
    for email in ("a@sub.example.org", "a@example.com", "a@notexample.org"):
        answer = program(app).post("/api/v1/signup", json={"email": email, "password": PASSWORD})
        assert answer.get_json()["code"] == "signup_closed", email
    assert len(stores.sql("SELECT 1 FROM users")) == 3


# -- sign-up where addresses are confirmed ---------------------------------------------------------


def test_a_new_and_a_taken_address_are_answered_alike(mailing: Flask, stores: Stores) -> None:
    sign_up(mailing)
    seen = []
    for email in (EMAIL, "ada.lovelacf@example.org", EMAIL.upper()):
        page = browser(mailing).post("/signup", data=NEW | {"email": email})
        call = program(mailing).post("/api/v1/signup", json=NEW | {"email": "x" + email})
        taken = program(mailing).post("/api/v1/signup", json=NEW | {"email": email})
        shapes = []
        for answer in (page, call, taken):
            own = {"X-Request-ID", "Date", "RateLimit", "Content-Length"}
            headers = {
                name: len(value) if name == "Set-Cookie" else value
                for name, value in answer.headers
                if name not in own
            }
            shapes.append((answer.status_code, headers, answer.get_data()))
        assert shapes[1] == shapes[2]
        seen.append(shapes)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1][0] == 202
    assert seen[0][1][2] == b'{"status":"check_mail"}'
    told = [mail.recipient for mail in mails(services_of(mailing), "already_registered")]
    assert set(told) == {EMAIL, "ada.lovelacf@example.org"} or EMAIL in told


def test_the_owner_of_a_taken_address_is_told(mailing: Flask) -> None:
    sign_up(mailing)
    signed_up(mailing, EMAIL.upper())
    [mail] = mails(services_of(mailing))
    assert (mail.kind, mail.recipient) == ("already_registered", EMAIL), "the stored address"
    assert log_in(browser(mailing), EMAIL, PASSWORD).status_code == 303, "nothing was changed"


def test_nobody_gets_in_before_the_address_is_confirmed(mailing: Flask, stores: Stores) -> None:
    client = signed_up(mailing)
    refused = log_in(browser(mailing))
    assert refused.status_code == 403
    assert "Right so far." in Page(refused).text
    assert "Send it again" in Page(refused).text
    assert not session_cookies_of(refused)
    for path in ("/api/v1/login", "/api/v1/tokens"):
        answer = program(mailing).post(path, json=NEW)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "email_unverified")
        wrong = program(mailing).post(path, json=NEW | {"password": OTHER_PASSWORD})
        assert (wrong.status_code, wrong.get_json()["code"]) == (401, "invalid_credentials")
    assert not is_logged_in(client)
    assert stores.sql("SELECT 1 FROM sessions") == []


# -- the link --------------------------------------------------------------------------------------


def test_the_browser_that_signed_up_confirms_by_a_button(mailing: Flask, stores: Stores) -> None:
    client = signed_up(mailing)
    link, _ = link_and_code(mailing)
    away = client.get(link)
    assert (away.status_code, away.headers["Location"]) == (303, "/verify")
    assert away.headers["Referrer-Policy"] == "no-referrer"
    page = client.get("/verify")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert link.partition("=")[2] not in page.text
    fields = [a.get("name") for a in Page(page).all("input")]
    assert "password" not in fields
    assert not is_logged_in(client)
    done = client.post("/verify")
    assert (done.status_code, done.headers["Location"]) == (303, "/")
    assert "Your email is confirmed" in client.get("/").text
    assert client.get("/api/v1/me").get_json()["email_verified"] is True
    assert stores.sql("SELECT email_confirmation_due FROM users") == [(False,)]
    assert log_in(browser(mailing)).status_code == 303


WANTED = {
    "/account/sessions?a=1": "/account/sessions?a=1",
    "https://app.example.org/x": "https://app.example.org/x",
    "https://evil.example/": "/",
    "/" + "x" * 2_900: "/",  # it does not fit into the cookie beside the proof
}


@pytest.mark.parametrize("begin", ["/signup", "/login"])
@pytest.mark.parametrize("wanted", WANTED)
def test_the_mailed_link_leads_on_to_the_page_that_the_person_wanted(
    make_app: MakeApp, begin: str, wanted: str
) -> None:
    app = make_app(**MAIL_SETTINGS, ALLOWED_REDIRECT_HOSTS="app.example.org")
    client = signed_up(app) if begin == "/login" else browser(app)
    client.post(begin, query_string={"next": wanted}, data=NEW)
    link, _ = link_and_code(app)
    away = client.get(link)
    assert away.location.partition("?")[0] == "/verify"
    done = client.post(away.location)
    assert (done.status_code, done.location) == (303, WANTED[wanted])
    assert is_logged_in(client)


def test_get_and_head_use_nothing_up(mailing: Flask) -> None:
    client = signed_up(mailing)
    link, _ = link_and_code(mailing)
    for _ in range(3):
        scanner = browser(mailing)
        scanner.get(link, follow_redirects=True)
        scanner.head(link)
        client.get(link)
        client.head(link)
    assert client.post("/verify").status_code == 303


def test_another_browser_is_asked_for_the_password(mailing: Flask) -> None:
    signed_up(mailing)
    link, _ = link_and_code(mailing)
    other = browser(mailing)
    assert 'name="password"' in other.get(link, follow_redirects=True).text
    assert other.post("/verify").status_code == 400
    wrong = other.post("/verify", data={"password": OTHER_PASSWORD})
    assert wrong.status_code == 401
    assert "not the password that you signed up with" in wrong.text
    assert other.post("/verify", data={"password": PASSWORD}).status_code == 303, "it still counts"
    assert is_logged_in(other)


def test_a_link_counts_once(mailing: Flask) -> None:
    client = signed_up(mailing)
    link, code = link_and_code(mailing)
    again = browser(mailing)
    again.get(link)
    client.get(link)
    assert client.post("/verify").status_code == 303
    refused = again.post("/verify", data={"password": PASSWORD})
    assert refused.status_code == 400
    assert "used, replaced or too old" in refused.text
    body = {"email": EMAIL, "code": code, "password": PASSWORD}
    answer = program(mailing).post("/api/v1/email/verify", json=body)
    assert answer.get_json()["code"] == "invalid_token", "nor does the code"


def test_a_link_of_a_deactivated_person_is_dead(mailing: Flask, stores: Stores) -> None:
    client = signed_up(mailing)
    link, code = link_and_code(mailing)
    stores.sql("UPDATE users SET active = false")
    client.get(link)
    assert client.post("/verify").status_code == 400
    answer = client.post("/verify", data={"email": EMAIL, "code": code})
    assert answer.status_code == 400


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "Forwarded"])
def test_links_come_from_public_url(mailing: Flask, header: str) -> None:
    value = "host=evil.example" if header == "Forwarded" else "evil.example"
    program(mailing).post("/api/v1/signup", json=NEW, headers={header: value})
    link_and_code(mailing)  # says where it begins


def test_no_log_holds_the_token(mailing: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    client = signed_up(mailing)
    link, code = link_and_code(mailing)
    client.get(link)
    client.post("/verify")
    written = "".join(capfd.readouterr())
    assert link.partition("=")[2] not in written
    assert code not in written
    assert EMAIL not in written


# -- the code --------------------------------------------------------------------------------------


def confirm(app: Flask, **body: str) -> TestResponse:
    return program(app).post("/api/v1/email/verify", json=body)


def test_a_code_confirms_with_the_password(mailing: Flask) -> None:
    signed_up(mailing)
    _, code = link_and_code(mailing)
    assert re.fullmatch(r"\d{8}", code)
    asked = confirm(mailing, email=EMAIL, code=code)
    assert (asked.status_code, list(asked.get_json()["errors"])) == (400, ["password"])
    wrong = confirm(mailing, email=EMAIL, code=code, password=OTHER_PASSWORD)
    assert wrong.get_json()["code"] == "invalid_credentials"
    done = confirm(mailing, email=EMAIL, code=code, password=PASSWORD)
    assert (done.status_code, done.get_data(), done.headers.getlist("Set-Cookie")) == (204, b"", [])
    assert log_in(browser(mailing)).status_code == 303


def test_the_browser_that_signed_up_needs_the_code_alone(mailing: Flask) -> None:
    client = signed_up(mailing)
    _, code = link_and_code(mailing)
    assert Page(client.get("/verify")).by_id("email")["value"] == EMAIL
    assert client.post("/verify", data={"email": EMAIL, "code": code}).status_code == 303
    assert is_logged_in(client)


def test_a_log_in_that_waits_for_the_code_needs_the_code_alone(mailing: Flask) -> None:
    signed_up(mailing)
    _, code = link_and_code(mailing)
    other = browser(mailing)
    assert log_in(other).status_code == 403
    assert other.post("/verify", data={"email": EMAIL, "code": code}).status_code == 303
    assert is_logged_in(other)


def test_wrong_codes_count_by_account_and_not_by_code(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**MAIL_SETTINGS, LOGIN_FAILURES_PER_ACCOUNT="4 per hour")
    signed_up(app)
    for number in range(4):
        if number == 2:
            program(app).post("/api/v1/email/resend", json={"email": EMAIL})
        assert confirm(app, email=EMAIL, code="x", password=PASSWORD).status_code == 400
    _, code = link_and_code(app)
    assert confirm(app, email=EMAIL, code=code, password=PASSWORD).status_code == 429
    unknown = [
        confirm(app, email="nobody@example.org", code="x", password=PASSWORD).status_code
        for _ in range(5)
    ]
    assert unknown == [400, 400, 400, 400, 429], "as for an account that is not there"
    stores.redis.flushall()
    assert confirm(app, email=EMAIL, code=code, password=PASSWORD).status_code == 204


def test_wrong_codes_are_counted_in_postgres_as_well(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**MAIL_SETTINGS)
    signed_up(app)
    for _ in range(10):
        stores.redis.flushall()
        assert confirm(app, email=EMAIL, code="1", password=PASSWORD).status_code == 400
    program(app).post("/api/v1/email/resend", json={"email": EMAIL})
    stores.redis.flushall()
    _, code = link_and_code(app)
    assert confirm(app, email=EMAIL, code=code, password=PASSWORD).status_code == 400
    link, _ = link_and_code(app)
    token = link.partition("=")[2]
    assert confirm(app, token=token, password=PASSWORD).status_code == 204, "the link still counts"


# -- again -----------------------------------------------------------------------------------------


def test_another_mail_replaces_link_and_code(mailing: Flask) -> None:
    client = signed_up(mailing)
    old, old_code = link_and_code(mailing)
    done = client.post("/verify/resend", data={"email": EMAIL})
    assert (done.status_code, done.headers["Location"]) == (303, "/verify")
    new, _ = link_and_code(mailing)
    token = old.partition("=")[2]
    assert confirm(mailing, token=token, password=PASSWORD).status_code == 400
    assert confirm(mailing, email=EMAIL, code=old_code, password=PASSWORD).status_code == 400
    client.get(new)
    assert client.post("/verify").status_code == 303, "the browser is still known"


def test_resend_is_answered_alike_whoever_is_asked_for(mailing: Flask, stores: Stores) -> None:
    signed_up(mailing)
    sign_up(mailing, "known@example.org")
    signed_up(mailing, "gone@example.org")
    stores.sql("UPDATE users SET active = false WHERE email = 'gone@example.org'")
    before = len(mails(services_of(mailing), "verify"))
    seen = []
    for email in (EMAIL, "known@example.org", "gone@example.org", "nobody@example.org"):
        answer = program(mailing).post("/api/v1/email/resend", json={"email": email})
        seen.append((answer.status_code, answer.get_json()))
    assert seen == [(202, {"status": "check_mail"})] * 4
    assert len(mails(services_of(mailing), "verify")) == before + 1


def test_a_request_that_a_cap_refuses_kills_no_older_link(
    make_app: MakeApp, stores: Stores
) -> None:
    app = make_app(**MAIL_SETTINGS, MAIL_LIMIT_PER_RECIPIENT="1 per hour")
    client = signed_up(app)
    link, _ = link_and_code(app)
    answer = program(app).post("/api/v1/email/resend", json={"email": EMAIL})
    assert answer.status_code == 202
    again = program(app).post("/api/v1/signup", json=NEW | {"password": OTHER_PASSWORD})
    assert again.status_code == 202
    client.get(link)
    assert client.post("/verify").status_code == 303
    assert log_in(browser(app), EMAIL, OTHER_PASSWORD).status_code == 401, "nor was it replaced"


def test_without_mail_there_is_nothing_to_send(client: FlaskClient) -> None:
    answer = client.post("/api/v1/email/resend", json={"email": EMAIL})
    assert (answer.status_code, answer.get_json()["code"]) == (501, "mail_off")


# -- the guarded app -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "is_hidden"),
    [
        ({"SIGNUP": "open"}, True),
        ({"SIGNUP": "domains", "SIGNUP_DOMAINS": "example.org"}, True),
        ({"SIGNUP": "invite"}, False),
        ({"SIGNUP": "invite", **MAIL_SETTINGS}, True),
        ({"SIGNUP": "open", **MAIL_SETTINGS}, True),
    ],
)
def test_an_unverified_address_is_passed_on_to_nobody(
    make_app: MakeApp, through: str, others: dict[str, Any], is_hidden: bool
) -> None:
    app = make_app(**others)
    user = services_of(app).registration.sign_up(EMAIL, PASSWORD)
    client = browser(app)
    log_in(client)
    for path in ("/forward-auth/nginx", "/forward-auth/redirect"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Remote-User"]) == (200, str(user.id))
        assert answer.headers["Remote-Email"] == ("" if is_hidden else EMAIL)
    services_of(app).verification.verify(user.id, OPERATOR)
    assert client.get("/forward-auth/nginx").headers["Remote-Email"] == EMAIL


def test_the_day_mail_is_set_up_locks_nobody_out(make_app: MakeApp) -> None:
    """An operator vouches for an address; a person may have typed anybody's."""
    before = make_app(SIGNUP="open")
    answer = program(before).post("/api/v1/signup", json={"email": EMAIL, "password": PASSWORD})
    assert answer.status_code == 201
    create = ["auth", "users", "create", "bob@example.org", "--password-stdin"]
    assert before.test_cli_runner().invoke(args=create, input=f"{PASSWORD}\n").exit_code == 0
    app = make_app(SIGNUP="open", **MAIL_SETTINGS)
    for email, passed_on in ((EMAIL, ""), ("bob@example.org", "bob@example.org")):
        client = browser(app)
        assert log_in(client, email).status_code == 303
        assert client.get("/forward-auth/nginx").headers["Remote-Email"] == passed_on


def test_a_one_time_password_confirms_nothing_and_opens_nothing(mailing: Flask) -> None:
    services_of(mailing).registration.sign_up(EMAIL, PASSWORD, is_one_time=True, verified=False)
    client = browser(mailing)
    assert client.post("/verify/resend", data={"email": EMAIL}).status_code == 303
    link, code = link_and_code(mailing)
    client.get(link)
    assert client.post("/verify", data={"password": PASSWORD}).status_code == 401
    by_code = {"email": EMAIL, "code": code, "password": PASSWORD}
    assert program(mailing).post("/api/v1/email/verify", json=by_code).status_code == 401
    assert not is_logged_in(client)
