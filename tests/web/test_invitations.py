"""Invitations: made by page, call and command line; each counts once, for whom it is meant."""

import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp import OPERATOR
from tests.support.mails import MAIL_SETTINGS, PUBLIC_URL, mails
from tests.support.people import revoke_role
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    browser,
    log_in,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
)

ROOT = "root@example.org"


@pytest.fixture(params=["open", "invite"])
def inviting(request: pytest.FixtureRequest, make_app: MakeApp) -> Flask:
    """An app where people may invite."""
    app = make_app(SIGNUP=request.param, LOGIN_LIMIT_PER_ADDRESS=UNLIMITED)
    sign_up(app, ROOT, roles=["admin"])
    return app


@pytest.fixture
def mailing(make_app: MakeApp) -> Flask:
    app = make_app(SIGNUP="invite", **MAIL_SETTINGS)
    sign_up(app, ROOT, roles=["admin"])
    return app


def invite(app: Flask, **body: Any) -> dict[str, Any]:
    answer = signed_in_as(app, ROOT).post("/api/v1/invitations", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def use(app: Flask, invitation: str, email: str = EMAIL) -> tuple[int, str]:
    body = {"email": email, "password": PASSWORD, "invitation": invitation}
    answer = program(app).post("/api/v1/signup", json=body)
    return answer.status_code, answer.get_json().get("code", "")


def roles_of(app: Flask, email: str = EMAIL) -> tuple[str, ...]:
    found = services_of(app).users.find(services_of(app).parse_email(email))
    return found.roles if found else ()


def test_an_invitation_counts_once_and_gives_its_roles(inviting: Flask, stores: Stores) -> None:
    made = invite(inviting, roles=["admin", "user"], days=3)
    assert made["state"] == "open"
    assert made["link"] == f"http://localhost/signup/{made['token']}"
    kept = stores.sql("SELECT * FROM invitations")
    assert made["token"] not in str(kept), "only its digest is kept"
    assert use(inviting, made["token"]) == (201, "")
    assert roles_of(inviting) == ("admin", "user")
    assert use(inviting, made["token"], "b@example.org") == (400, "invalid_invitation")
    [listed] = signed_in_as(inviting, ROOT).get("/api/v1/invitations").get_json()["invitations"]
    assert (listed["state"], listed["roles"]) == ("used", ["admin", "user"])
    assert "token" not in listed


def test_the_page_of_an_invitation_signs_up_and_logs_in(inviting: Flask) -> None:
    made = invite(inviting)
    client = browser(inviting)
    page = client.get(f"/signup/{made['token']}")
    assert page.status_code == 200
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert client.get(f"/signup/{made['token']}").status_code == 200, "looking uses nothing up"
    data = {"email": EMAIL, "password": PASSWORD}
    done = client.post(f"/signup/{made['token']}?next=/account", data=data)
    assert (done.status_code, done.headers["Location"]) == (303, "/account")
    assert client.get("/api/v1/me").get_json()["email"] == EMAIL
    assert browser(inviting).get(f"/signup/{made['token']}").status_code == 400


def test_only_the_bound_address_may_use_it(inviting: Flask) -> None:
    made = invite(inviting, email="Ada.Lovelace@Example.org")
    assert use(inviting, made["token"], "b@example.org") == (400, "invalid_invitation")
    assert use(inviting, made["token"], EMAIL.upper()) == (201, "")


@pytest.mark.parametrize("days", [6, 6.0, 6.5, 0, 91, 1e300, "6", True])
def test_days_are_a_whole_number_however_it_is_written(inviting: Flask, days: object) -> None:
    answer = signed_in_as(inviting, ROOT).post("/api/v1/invitations", json={"days": days})
    if days != 6:
        assert list(problem(answer, 400, "invalid_field")["errors"]) == ["days"]
        return
    made = answer.get_json()
    created, expires = (datetime.fromisoformat(made[at]) for at in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=6)


@pytest.mark.parametrize("how", ["revoked", "expired", "deactivated", "deleted", "demoted"])
def test_an_invitation_is_dead(inviting: Flask, stores: Stores, how: str) -> None:
    services = services_of(inviting)
    sign_up(inviting, "other@example.org", roles=["admin"])
    made = invite(inviting, roles=["admin"])
    root = services.users.find(services.parse_email(ROOT))
    assert root is not None
    match how:
        case "revoked":
            path = f"/api/v1/invitations/{made['id']}"
            assert signed_in_as(inviting, ROOT).delete(path).status_code == 204
            assert signed_in_as(inviting, ROOT).delete(path).status_code == 404
        case "expired":
            stores.sql("UPDATE invitations SET expires_at = now()")
        case "deactivated":
            services.administration.set_active(root.id, active=False, actor=OPERATOR)
        case "deleted":
            services.administration.delete_user(root.id, OPERATOR)
        case "demoted":
            revoke_role(services, ROOT, "admin")
    if how != "demoted":  # nobody fills in a form in vain
        assert browser(inviting).get(f"/signup/{made['token']}").status_code == 400
    assert use(inviting, made["token"]) == (400, "invalid_invitation")
    assert roles_of(inviting) == ()


def test_nobody_gives_by_an_invitation_what_they_lack(inviting: Flask, stores: Stores) -> None:
    stores.sql("DELETE FROM roles WHERE name = 'clerk'")
    services_of(inviting).roles.create("clerk", ["users:write"])
    sign_up(inviting, "clerk@example.org", roles=["clerk"])
    clerk = signed_in_as(inviting, "clerk@example.org")
    refused = clerk.post("/api/v1/invitations", json={"roles": ["admin"]})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "exceeds_own_permissions")
    assert clerk.post("/api/v1/invitations", json={"roles": ["clerk"]}).status_code == 201
    invite(inviting, email="secret@example.org")
    listed = clerk.get("/api/v1/invitations").get_json()["invitations"]
    assert "secret@example.org" not in str(listed), "emails are for readers of users"


def test_of_many_uses_at_once_one_wins(inviting: Flask, stores: Stores) -> None:
    token = invite(inviting)["token"]
    answers: list[tuple[int, str]] = []
    ready = threading.Barrier(50)

    def sign_up_with_it(number: int) -> None:
        ready.wait()
        while True:
            answer = use(inviting, token, f"p{number}@example.org")
            if answer[0] not in {503, 429}:
                answers.append(answer)
                return

    threads = [threading.Thread(target=sign_up_with_it, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(201, "")] + [(400, "invalid_invitation")] * 49
    assert stores.sql("SELECT count(*) FROM users WHERE email LIKE 'p%%@%%'") == [(1,)]


# -- with mail -------------------------------------------------------------------------------------


def test_a_mailed_invitation_confirms_the_address(mailing: Flask) -> None:
    made = invite(mailing, email=EMAIL)
    assert made["mailed"] is True
    assert "token" not in made, "nobody but the mail has it"
    [mail] = mails(services_of(mailing), "invitation")
    assert mail.recipient == EMAIL
    assert mail.link.startswith(f"{PUBLIC_URL}/signup/")
    token = mail.link.rpartition("/")[2]
    client = browser(mailing)
    data = {"email": EMAIL, "password": PASSWORD}
    assert client.post(f"/signup/{token}", data=data).headers["Location"] == "/"
    assert client.get("/api/v1/me").get_json()["email_verified"] is True


def test_an_invitation_that_was_shown_confirms_nothing(mailing: Flask) -> None:
    made = invite(mailing)
    assert use(mailing, made["token"]) == (202, "")
    assert log_in(browser(mailing)).status_code == 403
    assert [mail.kind for mail in mails(services_of(mailing))] == ["verify"]


def test_whoever_was_invited_takes_an_unconfirmed_address_over(make_app: MakeApp) -> None:
    app = make_app(SIGNUP="open", **MAIL_SETTINGS)
    sign_up(app, ROOT, roles=["admin"])
    stranger = {"email": EMAIL, "password": "whatever the stranger likes"}
    assert program(app).post("/api/v1/signup", json=stranger).status_code == 202
    invite(app, email=EMAIL)
    token = mails(services_of(app), "invitation")[-1].link.rpartition("/")[2]
    assert use(app, token) == (201, "")
    assert log_in(browser(app), EMAIL, stranger["password"]).status_code == 401
    assert log_in(browser(app)).status_code == 303


# -- where sign-up is closed -----------------------------------------------------------------------


def test_where_sign_up_is_closed_operators_alone_invite(make_app: MakeApp, stores: Stores) -> None:
    before = make_app(SIGNUP="invite")
    sign_up(before, ROOT, roles=["admin"])
    old = invite(before)["token"]
    app = make_app(SIGNUP="closed")
    admin = signed_in_as(app, ROOT)
    refused = admin.post("/api/v1/invitations", json={})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "signup_closed")
    assert "command line" in admin.get("/admin/invitations").text
    assert use(app, old) == (403, "signup_closed")
    made = services_of(app).invitations.create(actor=OPERATOR)
    assert use(app, made.token) == (201, "")


# -- the page --------------------------------------------------------------------------------------


def test_the_page_of_invitations(inviting: Flask) -> None:
    admin: FlaskClient = signed_in_as(inviting, ROOT)
    assert 'href="/admin/invitations"' in admin.get("/").text
    made = admin.post("/admin/invitations", data={"days": "7", "roles": ["user"]})
    assert made.status_code == 200
    link = next(text for text in Page(made).text.split() if "/signup/" in text)
    assert browser(inviting).get(link.partition("localhost")[2]).status_code == 200
    assert link not in admin.get("/admin/invitations").text, "it is shown once"
    wrong = admin.post("/admin/invitations", data={"days": "900"})
    assert wrong.status_code == 400
    assert "from 1 to 90" in wrong.text
    [(action)] = [
        form["action"]
        for form in Page(admin.get("/admin/invitations")).all("form")
        if form.get("action", "").endswith("/revoke")
    ]
    UUID(action.split("/")[-2])
    assert admin.post(action).headers["Location"] == "/admin/invitations"
    assert browser(inviting).get(link.partition("localhost")[2]).status_code == 400


def test_an_invitation_does_not_tell_whose_address_is_taken(mailing: Flask) -> None:
    for email in ("new@example.org", ROOT):
        made = invite(mailing)
        assert use(mailing, made["token"], email) == (202, "")
        assert use(mailing, made["token"], "other@example.org") == (400, "invalid_invitation")
        assert browser(mailing).get(f"/signup/{made['token']}").status_code == 400
    assert len(mails(services_of(mailing), "already_registered")) == 1


def test_a_mail_that_a_cap_refuses_uses_up_no_invitation(make_app: MakeApp) -> None:
    app = make_app(SIGNUP="invite", MAIL_LIMIT_PER_RECIPIENT="1 per hour", **MAIL_SETTINGS)
    sign_up(app, ROOT, roles=["admin"])
    for email in ("new@example.org", ROOT):
        assert use(app, invite(app)["token"], email) == (202, "")
        made = invite(app)
        assert use(app, made["token"], email) == (202, "")
        assert browser(app).get(f"/signup/{made['token']}").status_code == 200


def test_an_administrator_who_never_confirmed_the_email_is_not_the_last(mailing: Flask) -> None:
    assert use(mailing, invite(mailing, roles=["admin"])["token"]) == (202, "")
    last = signed_in_as(mailing, ROOT)
    answer = last.delete("/api/v1/me")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "last_admin")
    assert last.get("/api/v1/me").status_code == 200
